//! Why a comparison could not be made.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

/// Every failure ends the run: a table with a hole in it compares nothing.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("`redis-server` is not installed: it is in the Debian package redis-server (apt-get install redis-server)")]
    RedisMissing,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a child process said something else than agreed: {0}")]
    Protocol(#[from] serde_json::Error),
    #[error("a child process ended early; what it wrote stands above")]
    ChildEnded,
    #[error("distcache: {0}")]
    Distcache(#[from] distcache::Error),
    #[error("distcache does not start: {0}")]
    DistcacheStart(#[from] distcache::StartError),
    #[error(transparent)]
    Tls(#[from] distcache::TlsError),
    #[error(transparent)]
    Secret(#[from] distcache::SecretError),
    #[error("the picture could not be drawn: {0}")]
    Picture(String),
    #[error("no certificate could be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// groupcache does not export its error.
    #[error("groupcache: {0}")]
    Groupcache(#[source] Box<dyn StdError + Send + Sync>),
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("{what} did not happen within {seconds} seconds")]
    TimedOut { what: &'static str, seconds: u64 },
    #[error("the value of {key} has {len} bytes")]
    WrongValue { key: String, len: usize },
    #[error("trace {}: {source}", path.display())]
    Trace { path: PathBuf, source: io::Error },
    #[error("a reading task panicked: {0}")]
    TaskPanicked(#[from] tokio::task::JoinError),
}

impl BenchError {
    pub fn groupcache(error: impl StdError + Send + Sync + 'static) -> Self {
        Self::Groupcache(Box::new(error))
    }
}
