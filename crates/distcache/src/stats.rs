//! What a node counts, and what it says about it.
//!
//! Only numbers; decides nothing. The invariant: counting a hit takes no lock and shares no cache line between threads that
//! count at the same time.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Counts since the node started, and sizes now, of one keyspace on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct KeyspaceStats {
    /// Reads answered from entries that this node owns.
    pub hits_owned: u64,
    /// Reads answered from leased copies of entries that others own.
    pub hits_hot: u64,
    /// Reads answered "not found" from the cache.
    pub hits_negative: u64,
    /// Reads of this node's own callers that had to ask: the owner or the source.
    pub misses: u64,
    /// Requests sent to owners.
    pub fetches: u64,
    /// Keys that owners answered from their cache.
    pub fetch_hits: u64,
    /// Fetches that failed on the way; each led to a fallback load or an error.
    pub fetch_failures: u64,
    /// Keys asked of the source.
    pub loads: u64,
    /// Loads that ended with a value.
    pub loads_found: u64,
    /// Loads that ended with "not found".
    pub loads_not_found: u64,
    /// Loads that failed, panicked or timed out.
    pub load_failures: u64,
    /// Of the loads, those made because the owner could not be asked.
    pub fallback_loads: u64,
    /// Microseconds spent in the source, all loads together.
    pub load_micros: u64,
    /// Reads that joined a load or fetch under way instead of starting their own.
    pub coalesced: u64,
    /// Requests of this node's own callers, or of its peers, refused because a limit was reached, here or at the owner.
    pub overloads: u64,
    /// Keys answered to other nodes as their owner.
    pub served: u64,
    /// Values stored by `put`.
    pub puts: u64,
    /// Keys removed by `delete`.
    pub deletes: u64,
    /// Copies elsewhere that were told to go.
    pub invalidations_sent: u64,
    /// Copies here that were told to go.
    pub invalidations_received: u64,
    /// Keys, values and batches refused because they are over a limit, or larger than the keyspace can hold.
    pub refused_too_large: u64,
    /// Fetches answered without a lease because as many keys as may have one have one.
    pub leases_refused: u64,
    /// Entries evicted to make room.
    pub evicted_capacity: u64,
    /// Entries whose lifetime ended.
    pub evicted_expired: u64,
    /// Entries dropped by `clear_keyspace`.
    pub evicted_cleared: u64,
    /// Entries dropped because another node owns their slot now.
    pub evicted_moved: u64,
    /// Entries owned now.
    pub entries: u64,
    /// Leased copies held now.
    pub hot_entries: u64,
    /// Bytes taken now, bookkeeping included.
    pub bytes: u64,
    /// The limit of `bytes`.
    pub bytes_max: u64,
}

impl KeyspaceStats {
    /// Reads of this node's own callers.
    pub fn reads(&self) -> u64 {
        self.hits_owned + self.hits_hot + self.hits_negative + self.misses
    }
}

/// Threads beyond this number share the last shard.
const SHARDS: usize = 64;

/// One count of a keyspace; the order is that of the fields above.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum Count {
    HitsOwned,
    HitsHot,
    HitsNegative,
    Misses,
    Fetches,
    FetchHits,
    FetchFailures,
    Loads,
    LoadsFound,
    LoadsNotFound,
    LoadFailures,
    FallbackLoads,
    LoadMicros,
    Coalesced,
    Overloads,
    Served,
    Puts,
    Deletes,
    InvalidationsSent,
    InvalidationsReceived,
    RefusedTooLarge,
    LeasesRefused,
    EvictedCapacity,
    EvictedExpired,
    EvictedCleared,
    EvictedMoved,
}

const COUNTS: usize = Count::EvictedMoved as usize + 1;

#[repr(align(128))]
#[derive(Default)]
struct Shard([AtomicU64; COUNTS]);

/// The counters of one keyspace, a set per thread (up to a number), summed when read.
pub(crate) struct Counters(Box<[Shard]>);

impl Counters {
    pub(crate) fn new() -> Self {
        Self((0..SHARDS).map(|_| Shard::default()).collect())
    }

    #[inline]
    pub(crate) fn add(&self, count: Count, n: u64) {
        let shard = shard_of_this_thread();
        let counter = &self.0[shard].0[count as usize];
        if shard == SHARDS - 1 {
            counter.fetch_add(n, Relaxed);
        } else {
            // This thread alone writes here, so the count needs no locked instruction.
            counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
        }
    }

    #[inline]
    pub(crate) fn one(&self, count: Count) {
        self.add(count, 1);
    }

    fn sum(&self, count: Count) -> u64 {
        self.0.iter().map(|shard| shard.0[count as usize].load(Relaxed)).sum()
    }

    /// The counts; the sizes are the store's to fill in.
    pub(crate) fn read(&self) -> KeyspaceStats {
        KeyspaceStats {
            hits_owned: self.sum(Count::HitsOwned),
            hits_hot: self.sum(Count::HitsHot),
            hits_negative: self.sum(Count::HitsNegative),
            misses: self.sum(Count::Misses),
            fetches: self.sum(Count::Fetches),
            fetch_hits: self.sum(Count::FetchHits),
            fetch_failures: self.sum(Count::FetchFailures),
            loads: self.sum(Count::Loads),
            loads_found: self.sum(Count::LoadsFound),
            loads_not_found: self.sum(Count::LoadsNotFound),
            load_failures: self.sum(Count::LoadFailures),
            fallback_loads: self.sum(Count::FallbackLoads),
            load_micros: self.sum(Count::LoadMicros),
            coalesced: self.sum(Count::Coalesced),
            overloads: self.sum(Count::Overloads),
            served: self.sum(Count::Served),
            puts: self.sum(Count::Puts),
            deletes: self.sum(Count::Deletes),
            invalidations_sent: self.sum(Count::InvalidationsSent),
            invalidations_received: self.sum(Count::InvalidationsReceived),
            refused_too_large: self.sum(Count::RefusedTooLarge),
            leases_refused: self.sum(Count::LeasesRefused),
            evicted_capacity: self.sum(Count::EvictedCapacity),
            evicted_expired: self.sum(Count::EvictedExpired),
            evicted_cleared: self.sum(Count::EvictedCleared),
            evicted_moved: self.sum(Count::EvictedMoved),
            ..Default::default()
        }
    }
}

#[inline]
fn shard_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SHARD: Cell<usize> = const { Cell::new(usize::MAX) });
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Relaxed).min(SHARDS - 1));
        }
        shard.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_threads_are_summed() {
        let counters = Counters::new();
        std::thread::scope(|scope| {
            for _ in 0..SHARDS * 2 {
                scope.spawn(|| (0..1_000).for_each(|_| counters.one(Count::HitsOwned)));
            }
        });
        counters.add(Count::EvictedMoved, 7);
        let stats = counters.read();
        assert_eq!(stats.hits_owned, 1_000 * SHARDS as u64 * 2);
        assert_eq!(stats.evicted_moved, 7);
        assert_eq!(stats.reads(), stats.hits_owned);
    }
}
