//! What can be wrong with a Redis source when it is opened, and what a failed question means to the cache.

use std::error::Error as StdError;
use std::path::PathBuf;

use ::redis::{ErrorKind, RedisError, ServerErrorKind};
use distcache::SourceError;

/// Why a Redis source was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisSourceError {
    /// The URL names no server.
    #[error("Redis URL {url:?}: {reason}")]
    Url {
        /// The URL, without its password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server is not reached, or refuses.
    #[error("cannot use the Redis server {url:?}: {cause}")]
    Open {
        /// The URL, without its password.
        url: String,
        /// What it answers.
        #[source]
        cause: Box<dyn StdError + Send + Sync>,
    },
    /// A file that cannot be read.
    #[error("the {what} {}: {cause}", path.display())]
    File {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system answers.
        #[source]
        cause: std::io::Error,
    },
}

pub(super) fn of_source(error: RedisError) -> SourceError {
    let passing = match error.kind() {
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => true,
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::TryAgain
        ),
        _ => false,
    };
    if passing { SourceError::unavailable(error) } else { SourceError::failed(error) }
}
