//! An owner's books alone, for the benchmark of what they take: no engine, no peers, no clock.

use std::time::Duration;

use super::Leases;
use crate::changes::Changes;
use crate::net::Moment;
use crate::ring::NodeId;

/// What an owner keeps of its keys beside their entries.
pub struct BooksProbe {
    leases: Leases,
    changes: Changes,
}

impl BooksProbe {
    /// Books with room for so many keys, and as many again: shards do not fill evenly.
    pub fn new(keys_max: usize) -> Self {
        Self { leases: Leases::new(keys_max * 2), changes: Changes::new(keys_max * 2) }
    }

    /// A node is given a lease; whether there was room for it.
    pub fn hold(&self, hash: u64, node: u64) -> bool {
        self.leases.register(hash, NodeId(node), Moment(0), Duration::from_secs(5))
    }

    /// A key is written.
    pub fn write(&self, hash: u64) {
        self.changes.note(hash, Moment(0), Moment(0), 0);
    }
}
