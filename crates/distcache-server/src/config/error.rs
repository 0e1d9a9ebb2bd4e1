//! What is wrong with a configuration file, in one line that says where.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct ConfigError {
    pub path: PathBuf,
    #[source]
    pub reason: Reason,
}

#[derive(Debug, thiserror::Error)]
pub enum Reason {
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("has more than {max} bytes: that is no configuration")]
    TooLong { max: u64 },
    #[error("{one} and {other} are the same, {addr}: each needs a port of its own")]
    SamePort { one: &'static str, other: &'static str, addr: SocketAddr },
    #[error("line {line}: {message}")]
    Syntax { line: usize, message: String },
    #[error("unknown {what} at line {line}; {hint}")]
    Unknown { what: String, line: usize, hint: String },
    #[error("{what} at line {line} is not supported by this version")]
    NotSupported { what: String, line: usize },
    #[error("{what} at line {line}: {problem}")]
    Invalid { what: String, line: usize, problem: String },
    #[error("`{key}` is missing in [{section}] at line {line}: expected {expected}")]
    Missing { key: &'static str, section: String, line: usize, expected: &'static str },
}
