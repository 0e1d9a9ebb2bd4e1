//! Finding the other nodes: where to send the first word.
//!
//! A provider only says which addresses may belong to the cluster. It never decides who is a member: an answer is a hint, and
//! whoever is named still has to speak the protocol and name the same cluster. Providers are asked again while the node lives.

use std::error::Error as StdError;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use crate::source::Cause;

mod dns;
mod standalone;
mod static_;

pub use dns::{DnsDiscovery, IpFamily};
pub use standalone::Standalone;
pub use static_::StaticDiscovery;

/// A way to find the gossip addresses of a cluster's nodes.
///
/// The engine calls [`register`](Self::register) once at start, [`discover`](Self::discover) then and again every few seconds
/// while the node lives, [`deregister`](Self::deregister) when the node leaves, and [`close`](Self::close) last. Only `discover`
/// has to be written.
///
/// ```
/// use std::net::SocketAddr;
/// use distcache::{Discovery, DiscoveryError};
///
/// /// Reads one address a line from a file that some other program keeps.
/// struct FileDiscovery(std::path::PathBuf);
///
/// impl Discovery for FileDiscovery {
///     async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
///         let text = std::fs::read_to_string(&self.0).map_err(DiscoveryError::unavailable)?;
///         text.lines().map(|line| line.trim().parse().map_err(DiscoveryError::invalid)).collect()
///     }
/// }
/// ```
pub trait Discovery: Send + Sync + 'static {
    /// Whether there is anybody to find. A provider that says no gives a node without sockets.
    fn is_standalone(&self) -> bool {
        false
    }

    /// Makes this node findable under its advertised gossip address. An error stops the start of the node.
    fn register(&self, me: SocketAddr) -> impl Future<Output = Result<(), DiscoveryError>> + Send {
        let _ = me;
        async { Ok(()) }
    }

    /// The gossip addresses known now; duplicates, dead nodes and the asker itself do no harm. An error is logged and the
    /// question asked again later.
    fn discover(&self) -> impl Future<Output = Result<Vec<SocketAddr>, DiscoveryError>> + Send;

    /// Takes this node's address back, so that nobody is sent to it any more.
    fn deregister(&self, me: SocketAddr) -> impl Future<Output = Result<(), DiscoveryError>> + Send {
        let _ = me;
        async { Ok(()) }
    }

    /// Ends connections and tasks of the provider itself.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Why a provider has no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The service behind the provider does not answer now; asking again may help.
    #[error("discovery is unavailable: {0}")]
    Unavailable(#[source] Cause),
    /// The provider's settings or its answer make no sense; asking again will not help.
    #[error("discovery is misconfigured: {0}")]
    Invalid(#[source] Cause),
}

impl DiscoveryError {
    /// A passing failure.
    pub fn unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unavailable(Cause::new(cause))
    }

    /// A lasting failure.
    pub fn invalid(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Invalid(Cause::new(cause))
    }

    /// Whether asking again may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`Discovery`] without its type.
pub(crate) trait DynDiscovery: Send + Sync {
    fn is_standalone(&self) -> bool;
    fn register(&self, me: SocketAddr) -> BoxFuture<'_, Result<(), DiscoveryError>>;
    fn discover(&self) -> BoxFuture<'_, Result<Vec<SocketAddr>, DiscoveryError>>;
    fn deregister(&self, me: SocketAddr) -> BoxFuture<'_, Result<(), DiscoveryError>>;
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl<D: Discovery> DynDiscovery for D {
    fn is_standalone(&self) -> bool {
        Discovery::is_standalone(self)
    }

    fn register(&self, me: SocketAddr) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        Box::pin(Discovery::register(self, me))
    }

    fn discover(&self) -> BoxFuture<'_, Result<Vec<SocketAddr>, DiscoveryError>> {
        Box::pin(Discovery::discover(self))
    }

    fn deregister(&self, me: SocketAddr) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        Box::pin(Discovery::deregister(self, me))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Discovery::close(self))
    }
}
