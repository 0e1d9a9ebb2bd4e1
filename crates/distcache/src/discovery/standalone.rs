//! The provider that finds nobody: one node, no sockets.

use std::net::SocketAddr;

use super::{Discovery, DiscoveryError};

/// A node by itself: the engine opens no socket and owns every key. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standalone;

impl Discovery for Standalone {
    fn is_standalone(&self) -> bool {
        true
    }

    async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        Ok(Vec::new())
    }
}
