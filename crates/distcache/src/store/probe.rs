//! The store alone, for the benchmark of its hit ratios: no engine, no source, no clock.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::policy::overhead_bytes;
use super::{GHOST_PART, Holding, Now, Record, Store, Validity};
use crate::net::Moment;
use crate::spec::{Eviction, KeyspaceSettings};
use crate::stats::Counters;

const KEY_BYTES: usize = 16;
const VALUE: [u8; 100] = [7; 100];

/// A store with room for a number of entries of one size.
pub struct StoreProbe {
    store: Store,
}

impl StoreProbe {
    /// Room for `entries`, by a limit of bytes as a keyspace has one.
    pub fn new(eviction: Eviction, entries: usize) -> Self {
        let weight = (KEY_BYTES + VALUE.len() + overhead_bytes(eviction)) as f64;
        let spare = if eviction == Eviction::ScanResistant { GHOST_PART } else { 0.0 };
        let max_bytes = (entries as f64 * weight / (1.0 - spare)).ceil() as u64;
        let settings = KeyspaceSettings { max_bytes, eviction, ..Default::default() };
        Self { store: Store::new(&settings, 4 << 20, false, Arc::new(Counters::new())) }
    }

    /// A read as a keyspace serves it: whether the key was there. It is afterwards.
    pub fn read_through(&self, key: u64) -> bool {
        let key = format!("{key:0KEY_BYTES$x}");
        let hash = xxh3_64(key.as_bytes());
        let validity = Validity { now: Now::At(Moment(0)), epoch: 0, slot_since: 0 };
        let is_hit = self.store.get_value(Holding::Owned, hash, &key, validity).is_some();
        if !is_hit {
            let stored = self.store.insert(Holding::Owned, hash, Record::new(&key, Some(&VALUE)));
            debug_assert!(stored.is_ok());
        }
        is_hit
    }
}
