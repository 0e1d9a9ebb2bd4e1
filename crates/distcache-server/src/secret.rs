//! `distcache secret`: a new random secret for a cluster.
//!
//! The invariant: standard output gets the secret and nothing else, so that it can be sent into a file.

use std::io::{self, Write};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const SECRET_BYTES: usize = 32;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the system has no random numbers: {0}")]
    Random(getrandom::Error),
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
}

pub fn run() -> Result<ExitCode, SecretError> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(SecretError::Random)?;
    writeln!(io::stdout(), "{}", STANDARD.encode(secret)).map_err(SecretError::Output)?;
    Ok(ExitCode::SUCCESS)
}
