//! What can be wrong with an HTTP source when it is built, and with an answer when it comes.
//!
//! The invariant: no text here holds a header's value, a key or the query of a URL.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::Duration;

use distcache::SourceError;
use hyper::StatusCode;

/// Why an HTTP source was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpSourceError {
    /// The URL makes no request.
    #[error("URL {url:?}: {reason}")]
    Url {
        /// The URL, without what may be secret in it.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A header that is none, or that is not to be set.
    #[error("header {name:?}: {reason}")]
    Header {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file that cannot be used.
    #[error("the {what} {}: {reason}", path.display())]
    File {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS library refuses the settings.
    #[error("TLS: {0}")]
    Tls(#[source] Box<dyn StdError + Send + Sync>),
}

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("the server answers {0}")]
    Status(StatusCode),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the server is not reached: {}", chain(.0))]
    NotReached(#[source] hyper_util::client::legacy::Error),
    #[error("the answer breaks off: {}", chain(.0))]
    BrokenOff(#[source] hyper::Error),
    #[error("the body is over the limit of {0} bytes")]
    TooLarge(usize),
    #[error("the body is encoded, though that was not asked for")]
    Encoded,
    #[error("more than {0} redirections")]
    TooManyRedirects(usize),
    #[error("a redirection leads nowhere that may be followed")]
    Redirect,
}

impl Problem {
    pub(super) fn of_source(self) -> SourceError {
        match self {
            Self::TimedOut(_) | Self::NotReached(_) | Self::BrokenOff(_) => SourceError::unavailable(self),
            _ => SourceError::failed(self),
        }
    }
}

/// The client says little by itself; what it was stands behind it.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        said = format!("{said}: {cause}");
        next = cause.source();
    }
    said
}
