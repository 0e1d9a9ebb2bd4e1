//! What fuzz targets reach: every decoder of this crate, with inputs to begin with. No part of the API.
//!
//! Each target stands beside its decoder in a file `fuzz.rs`; the folder `fuzz` of the repository runs them.

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

pub use crate::cluster::fuzz::{GOSSIP_ENVELOPE, GOSSIP_PACKET, METADATA};
pub use crate::keyspaces::fuzz::{PEER_SERVE, REGISTRY};
pub use crate::peer::wire::fuzz::{PEER_REQUEST, PEER_RESPONSE};
pub use crate::trust::handshake::fuzz::HANDSHAKE;
pub use crate::trust::secret::fuzz::CLUSTER_SECRET;
#[cfg(feature = "tls")]
pub use crate::trust::tls_fuzz::TLS_PEM;

/// An input under a name that says what it is.
pub type Seed = (String, Vec<u8>);

/// A decoder and what has to hold whatever it is given.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also that of its binary and of the folder of its corpus.
    pub name: &'static str,
    /// Panics where something does not hold.
    pub run: fn(&[u8]),
    /// Inputs that make sense.
    pub seeds: fn() -> Vec<Seed>,
}

/// For decoders that limit their time.
pub(crate) static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime without sockets"));

/// An input that is read from its front as a script. Once it is used up, all that follows is nothing.
pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// So many bytes, or as many as are left.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
