//! What can go wrong, as types that callers match.
//!
//! Knows no transport. The invariant: an error that crosses the wire arrives as the same variant (see `peer/wire.rs`), and
//! [`Error::NotFound`] is an answer of the source, never a sign that something is broken.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::discovery::DiscoveryError;
use crate::source::{Cause, SourceError};

/// Why a call on a keyspace did not give what it was asked for.
///
/// Cheap to clone: one failed load answers every caller that waited for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source has no value under this key.
    #[error("not found")]
    NotFound,
    /// The source failed. Never [`SourceError::NotFound`], which is [`Error::NotFound`].
    #[error(transparent)]
    Source(SourceError),
    /// The source panicked; the key is free again.
    #[error("the source panicked: {message}")]
    SourcePanicked {
        /// What the panic said, as far as it was text.
        message: String,
    },
    /// The source did not answer within the keyspace's load timeout; the load was dropped, the key is free again.
    #[error("the source did not answer within {limit:?}")]
    LoadTimeout {
        /// The keyspace's `load_timeout`.
        limit: Duration,
    },
    /// The keyspace's rate limit lets no load through now; the source was not asked.
    #[error("the rate limit before the source is reached, free again in {retry_after:?}")]
    RateLimited {
        /// When a load will be let through, as far as this can be told.
        retry_after: Duration,
    },
    /// The source has failed too often of late; it was not asked, so that it can recover.
    #[error("the circuit breaker before the source is open, the next probe is in {retry_after:?}")]
    CircuitOpen {
        /// When the source will be tried again.
        retry_after: Duration,
    },
    /// The value in the cache, or from the source, is not what the keyspace's codec reads.
    #[error("the value under {key:?} does not decode as {type_name}: {cause}")]
    Decode {
        /// The key.
        key: String,
        /// The type that was wanted.
        type_name: &'static str,
        /// What the codec said.
        #[source]
        cause: Cause,
    },
    /// A value that the keyspace's codec cannot write.
    #[error("the value for {key:?} does not encode from {type_name}: {cause}")]
    Encode {
        /// The key.
        key: String,
        /// The type of the value.
        type_name: &'static str,
        /// What the codec said.
        #[source]
        cause: Cause,
    },
    /// The caller's own deadline passed. The load goes on for others and will be found in the cache.
    #[error("no answer within the caller's deadline of {limit:?}")]
    Timeout {
        /// The deadline of this call.
        limit: Duration,
    },
    /// No keyspace of this name is defined (any more).
    #[error("keyspace {name:?} is not defined")]
    KeyspaceNotFound {
        /// The name asked for.
        name: String,
    },
    /// A keyspace of this name is defined already.
    #[error("keyspace {name:?} is defined already")]
    KeyspaceExists {
        /// The name.
        name: String,
    },
    /// A definition of a keyspace that cannot work.
    #[error("{field} = {value}: {reason}")]
    InvalidSpec {
        /// The setting.
        field: &'static str,
        /// Its value, as text.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key longer than [`Limits::key_bytes_max`](crate::Limits::key_bytes_max).
    #[error("a key of {len} bytes is over the limit of {max}")]
    KeyTooLarge {
        /// Bytes of the key.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The empty string is not a key.
    #[error("the empty string is not a key")]
    KeyEmpty,
    /// A value that the keyspace cannot hold: over [`Limits::value_bytes_max`](crate::Limits::value_bytes_max) or over the
    /// keyspace's share of `max_bytes`. Nothing was stored and nothing else was evicted for it.
    #[error("a value of {len} bytes is over the limit of {max} for this keyspace")]
    ValueTooLarge {
        /// Bytes of the value.
        len: usize,
        /// The most that this keyspace takes.
        max: usize,
    },
    /// More keys in one call than [`Limits::batch_keys_max`](crate::Limits::batch_keys_max).
    #[error("a batch of {len} keys is over the limit of {max}")]
    BatchTooLarge {
        /// Keys of the call.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A bound was reached and the work refused before it took memory or time; try again later.
    #[error("overloaded: {what} is at its limit of {limit}")]
    Overloaded {
        /// Which bound, in words.
        what: Overload,
        /// Its value.
        limit: usize,
    },
    /// The owner of the key did not answer. Whether a write took effect is unknown, unless
    /// [`is_before_send`](PeerFailure::is_before_send).
    #[error("peer {peer} is unavailable: {reason}")]
    PeerUnavailable {
        /// Name of the peer.
        peer: String,
        /// What happened to the connection.
        reason: PeerFailure,
    },
    /// Peers disagree about who owns the key; their views converge within seconds, try again.
    #[error("no agreement about the owner of the key: {peer} says it is not the one")]
    NotOwner {
        /// The peer that this node takes for the owner.
        peer: String,
    },
    /// A write to several keys or nodes that did not reach all of them; whatever is not named here took effect.
    #[error("{}", display_unreached(.unreached))]
    Unreached {
        /// What was not reached, and why.
        unreached: Vec<Unreached>,
    },
    /// The peer answered something that makes no sense; its connection is closed.
    #[error("peer {peer} broke the protocol: {reason}")]
    Protocol {
        /// Name of the peer.
        peer: String,
        /// What was wrong.
        reason: String,
    },
    /// The engine is shut down.
    #[error("the engine is shut down")]
    Shutdown,
}

impl Error {
    /// Whether the same call may succeed later without a change by the caller.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Source(error) => error.is_retryable(),
            Self::LoadTimeout { .. }
            | Self::RateLimited { .. }
            | Self::CircuitOpen { .. }
            | Self::Timeout { .. }
            | Self::Overloaded { .. }
            | Self::PeerUnavailable { .. }
            | Self::NotOwner { .. } => true,
            Self::Unreached { unreached } => unreached.iter().all(|one| one.error.is_retryable()),
            _ => false,
        }
    }

    /// Whether the source said that there is no such key.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound)
    }
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::NotFound => Self::NotFound,
            other => Self::Source(other),
        }
    }
}

/// A bound of [`Error::Overloaded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overload {
    /// Loads of one keyspace that run or wait at once.
    Loads,
    /// Callers that wait for one key.
    Waiters,
    /// Requests to one peer, under way or waiting.
    PeerRequests,
    /// Keyspaces that were changed or deleted at run time, which the cluster has to remember.
    Keyspaces,
    /// Keys of one keyspace whose deletion holds off what is loaded.
    Holds,
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loads => "the number of loads",
            Self::Waiters => "the number of callers waiting for one key",
            Self::PeerRequests => "the number of requests to one peer",
            Self::Keyspaces => "the number of keyspaces to remember",
            Self::Holds => "the number of keys held back after a delete",
        })
    }
}

/// What happened between this node and a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerFailure {
    /// No connection could be made; nothing was sent.
    NotConnected,
    /// The connection broke while the answer was awaited.
    Disconnected,
    /// The peer is connected but silent.
    Silent,
    /// The last attempt to connect failed and the peer is being probed; nothing was sent.
    Ejected,
    /// The peer refused the handshake.
    Refused(String),
}

impl PeerFailure {
    /// Whether the request certainly did not take effect.
    pub fn is_before_send(&self) -> bool {
        matches!(self, Self::NotConnected | Self::Ejected | Self::Refused(_))
    }
}

impl fmt::Display for PeerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected => f.write_str("it cannot be connected to"),
            Self::Disconnected => f.write_str("the connection broke"),
            Self::Silent => f.write_str("it is connected but does not answer"),
            Self::Ejected => f.write_str("it could not be connected to and is being probed"),
            Self::Refused(why) => write!(f, "it refused the connection: {why}"),
        }
    }
}

/// One key (or, where `key` is `None`, one whole operation) that did not reach one peer.
#[derive(Clone, Debug)]
pub struct Unreached {
    /// The key concerned.
    pub key: Option<String>,
    /// Name of the peer concerned.
    pub peer: String,
    /// Why.
    pub error: Error,
}

fn display_unreached(unreached: &[Unreached]) -> String {
    const SHOWN: usize = 3;
    let mut text = format!("{} not reached: ", unreached.len());
    for (i, one) in unreached.iter().take(SHOWN).enumerate() {
        let separator = if i == 0 { "" } else { "; " };
        let key = one.key.as_ref().map(|key| format!("key {key:?} ")).unwrap_or_default();
        text += &format!("{separator}{key}at {}: {}", one.peer, one.error);
    }
    if unreached.len() > SHOWN {
        text += &format!("; and {} more", unreached.len() - SHOWN);
    }
    text
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting that cannot work.
    #[error("{field} = {value}: {reason}")]
    Invalid {
        /// The setting.
        field: &'static str,
        /// Its value, as text.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {addr} for {what}: {error}")]
    Bind {
        /// What the address is for.
        what: &'static str,
        /// The address.
        addr: SocketAddr,
        /// The system's answer.
        #[source]
        error: io::Error,
    },
    /// The provider refused to register this node.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
}

impl StartError {
    pub(crate) fn invalid(field: &'static str, value: impl fmt::Debug, reason: impl Into<String>) -> Self {
        Self::Invalid { field, value: format!("{value:?}"), reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreached_names_the_first_few_and_counts_the_rest() {
        let one = |key: &str| Unreached {
            key: Some(key.into()),
            peer: "b".into(),
            error: Error::PeerUnavailable { peer: "b".into(), reason: PeerFailure::NotConnected },
        };
        let text = Error::Unreached { unreached: ["k1", "k2", "k3", "k4", "k5"].map(one).to_vec() }.to_string();
        assert!(text.starts_with("5 not reached: key \"k1\" at b: peer b is unavailable"), "{text}");
        assert!(text.ends_with("; and 2 more"), "{text}");
    }

    #[test]
    fn not_found_of_a_source_is_an_answer() {
        assert!(Error::from(SourceError::NotFound).is_not_found());
        assert!(!Error::NotFound.is_retryable());
        assert!(Error::from(SourceError::unavailable("down")).is_retryable());
    }
}
