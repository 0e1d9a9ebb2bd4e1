//! Records under a limit of bytes, in shards with a lock each, under an eviction policy that can be changed at run time.
//!
//! Knows neither keys nor whether a record counts. The invariants: what is pushed out is dropped after the lock is released; no
//! call holds the lock of more than one shard, or of one for longer than it takes to look at it once. How many shards there are
//! is settled when the shelf is made.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::RwLock;

use super::Record;
use super::policy::{Pushed, overhead_bytes};
use super::scan::ScanResistant;
use super::shard::Shard;
use crate::spec::Eviction;

/// No value may take more than this part of a keyspace, so that one never pushes out most of the rest.
pub(super) const VALUE_PART_MAX: u64 = 4;
/// A shard of more bytes than this takes too long to look through under its lock.
const SHARD_BYTES: u64 = 16 << 20;
const SHARDS_MAX: usize = 1 << 12;
const SHARDS_PER_CORE: usize = 8;

pub(super) struct Shelf {
    shards: Box<[RwLock<Shard>]>,
    reads_reorder: AtomicBool,
    /// How often the policy was changed, and up to which change everything has been taken over.
    changes: AtomicU64,
    changes_done: AtomicU64,
}

impl Shelf {
    /// `data_bytes_limit`: the largest key and value together.
    pub(super) fn new(eviction: Eviction, bytes_max: u64, data_bytes_limit: usize) -> Self {
        Self::with_shards(eviction, bytes_max, shards(bytes_max, data_bytes_limit + overhead_bytes(eviction)))
    }

    /// `shards`: a power of two.
    pub(super) fn with_shards(eviction: Eviction, bytes_max: u64, shards: usize) -> Self {
        let bytes = bytes_max / shards as u64;
        Self {
            shards: (0..shards).map(|_| RwLock::new(Shard::new(eviction, bytes))).collect(),
            reads_reorder: AtomicBool::new(reads_reorder(eviction)),
            changes: AtomicU64::new(0),
            changes_done: AtomicU64::new(0),
        }
    }

    #[inline]
    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        // Neither the lowest nor the highest bits, which the index of a shard goes by.
        &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)]
    }

    /// Whether a read changes the order of the records under the policy in force, so that readers cannot share a shard.
    #[inline]
    pub(super) fn reads_reorder(&self) -> bool {
        self.reads_reorder.load(Relaxed)
    }

    /// Takes something from the record under this hash, which counts as a use.
    #[inline]
    pub(super) fn get_shared<T>(&self, hash: u64, take: impl FnOnce(&Record) -> Option<T>) -> Option<T> {
        self.shard(hash).read().get_shared(hash).and_then(take)
    }

    /// The same where reads reorder.
    pub(super) fn get_reordering<T>(&self, hash: u64, take: impl FnOnce(&Record) -> Option<T>) -> Option<T> {
        self.shard(hash).write().get(hash).and_then(take)
    }

    /// Looks at the record under this hash, which is no use.
    pub(super) fn peek<T>(&self, hash: u64, look: impl FnOnce(&Record) -> T) -> Option<T> {
        self.shard(hash).read().peek(hash).map(look)
    }

    /// Changes the record under this hash where it stands, but for its key and value; no use.
    pub(super) fn amend<T>(&self, hash: u64, change: impl FnOnce(&mut Record) -> T) -> Option<T> {
        self.shard(hash).write().amend(hash, change)
    }

    /// Stores a record that fits. Returns how many had to go for it; the one in whose place it stands is none of them.
    pub(super) fn insert(&self, hash: u64, record: Record) -> usize {
        let mut pushed = Pushed::new();
        let _replaced = self.shard(hash).write().insert(hash, record, &mut pushed);
        pushed.len()
    }

    pub(super) fn remove_if(&self, hash: u64, condition: impl FnOnce(&Record) -> bool) -> Option<Record> {
        self.shard(hash).write().remove_if(hash, condition)
    }

    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The hashes of all records of one shard, as they stand now.
    pub(super) fn hashes(&self, shard: usize, out: &mut Vec<u64>) {
        self.shards[shard].read().hashes(out);
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    pub(super) fn weight(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().weight()).sum()
    }

    /// The most that key, value and bookkeeping of one record may take.
    pub(super) fn weight_max(&self) -> u64 {
        // The same for every policy, so that a change of policy refuses nothing.
        ScanResistant::weight_max(self.shards[0].read().bytes_max())
    }

    /// Takes a new limit, evicting only what no longer fits; returns how many those were.
    pub(super) fn set_bytes_max(&self, bytes_max: u64) -> usize {
        let each = bytes_max / self.shards.len() as u64;
        let resize = |shard: &RwLock<Shard>| {
            let mut pushed = Pushed::new();
            shard.write().set_bytes_max(each, &mut pushed);
            pushed.len()
        };
        self.shards.iter().map(resize).sum()
    }

    /// Puts another policy in force, at once. [`take_over`](Self::take_over) moves what is there.
    pub(super) fn change_policy(&self, eviction: Eviction) {
        for shard in &self.shards {
            shard.write().change_policy(eviction);
        }
        self.reads_reorder.store(reads_reorder(eviction), Relaxed);
        self.changes.fetch_add(1, Relaxed);
    }

    /// Whether something waits to be taken over by the policy in force.
    pub(super) fn is_changing(&self) -> bool {
        self.changes.load(Relaxed) != self.changes_done.load(Relaxed)
    }

    /// Moves what earlier policies hold to the one in force, in steps: `pause` is awaited between them. Returns how many
    /// records had to go, because they take more room under this policy.
    pub(super) async fn take_over<P: Future<Output = ()>>(&self, mut pause: impl FnMut() -> P) -> usize {
        const STEP: usize = 256;
        let changes = self.changes.load(Relaxed);
        let mut evicted = 0;
        for shard in &self.shards {
            let mut is_left = true;
            while is_left {
                let mut pushed = Pushed::new();
                is_left = shard.write().take_over(STEP, &mut pushed);
                evicted += pushed.len();
                drop(pushed);
                pause().await;
            }
        }
        self.changes_done.store(changes, Relaxed);
        evicted
    }
}

fn reads_reorder(eviction: Eviction) -> bool {
    match eviction {
        Eviction::ScanResistant | Eviction::Fifo => false,
        Eviction::Lru | Eviction::Lfu => true,
    }
}

/// As many shards as cores like, and as it takes to keep each small, but none so small that the largest value would be refused
/// for its shard's sake, or that chance would fill one shard much before another.
fn shards(bytes_max: u64, weight_max: usize) -> usize {
    const SHARD_BYTES_MIN: u64 = 32 << 10;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let largest = (weight_max as u64).min(bytes_max / VALUE_PART_MAX).max(1);
    let by_size = (ScanResistant::weight_max(bytes_max) / largest).min(bytes_max / SHARD_BYTES_MIN) as usize;
    let wanted = (cores * SHARDS_PER_CORE).max((bytes_max / SHARD_BYTES) as usize).min(SHARDS_MAX);
    1 << wanted.min(by_size).max(1).ilog2()
}
