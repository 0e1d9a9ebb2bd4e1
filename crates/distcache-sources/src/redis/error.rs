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
    let is_passing = match error.kind() {
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => true,
        ErrorKind::Server(kind) => passes(kind) || aborted_by_what_passes(&error),
        _ => false,
    };
    if is_passing { SourceError::unavailable(error) } else { SourceError::failed(error) }
}

fn passes(kind: ServerErrorKind) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, TryAgain};
    matches!(kind, BusyLoading | ClusterDown | MasterDown | TryAgain)
}

/// A transaction is aborted for what the server has answered to the commands in it.
fn aborted_by_what_passes(error: &RedisError) -> bool {
    let answers = error.clone().into_server_errors();
    answers.is_some_and(|answers| answers.iter().any(|(_, answer)| answer.kind().is_some_and(passes)))
}
