//! What a node counts, and what it says about it.
//!
//! Only numbers; decides nothing: counts here, durations in [`histogram`]. The invariant: counting a hit takes no lock and shares
//! no cache line between threads that count at the same time.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::guard::CircuitState;

mod histogram;

use histogram::Recorder;
pub use histogram::{LatencyBucket, LatencyHistogram};

/// Each count once: the field that shows it and the name it is counted under.
macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $field:ident $count:ident,)+) => {
        /// Counts since the node started, and sizes now, of one keyspace on this node.
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
        #[non_exhaustive]
        pub struct KeyspaceStats {
            $($(#[doc = $doc])+ pub $field: u64,)+
            /// Entries owned now.
            pub entries: u64,
            /// Leased copies held now.
            pub hot_entries: u64,
            /// Bytes taken now, bookkeeping included.
            pub bytes: u64,
            /// The limit of `bytes`.
            pub bytes_max: u64,
            /// Loads that run now.
            pub loads_running: u64,
            /// Loads that wait for their turn now.
            pub loads_waiting: u64,
            /// Whether the source may be asked.
            pub circuit: CircuitState,
        }

        /// One count of a keyspace.
        #[derive(Clone, Copy, Debug)]
        #[repr(usize)]
        pub(crate) enum Count {
            $($count,)+
        }

        const COUNTS: usize = [$(Count::$count),+].len();

        impl Counters {
            /// The counts; the sizes are for those to fill in who know them.
            pub(crate) fn read(&self) -> KeyspaceStats {
                KeyspaceStats { $($field: self.sum(Count::$count),)+ ..Default::default() }
            }
        }
    };
}

counts! {
    /// Reads answered from entries that this node owns.
    hits_owned HitsOwned,
    /// Reads answered from leased copies of entries that others own.
    hits_hot HitsHot,
    /// Reads answered "not found" from the cache.
    hits_negative HitsNegative,
    /// Reads answered with a value past its lifetime while it is loaded again.
    hits_stale HitsStale,
    /// Reads of this node's own callers that had to ask: the owner or the source.
    misses Misses,
    /// Requests sent to owners.
    fetches Fetches,
    /// Keys that owners answered from their cache.
    fetch_hits FetchHits,
    /// Fetches that failed on the way; each led to a fallback load or an error.
    fetch_failures FetchFailures,
    /// Keys asked of the source.
    loads Loads,
    /// Loads that ended with a value.
    loads_found LoadsFound,
    /// Loads that ended with "not found".
    loads_not_found LoadsNotFound,
    /// Loads that failed, panicked or timed out.
    load_failures LoadFailures,
    /// Of the loads, those made because the owner could not be asked; or, where the owner is a new one, whoever owned the key before.
    fallback_loads FallbackLoads,
    /// Microseconds spent in the source, all loads together.
    load_micros LoadMicros,
    /// Loads begun in the background because a value past its lifetime was read.
    refreshes_stale RefreshesStale,
    /// Loads begun in the background because a value near the end of its lifetime was read.
    refreshes_ahead RefreshesAhead,
    /// Loads begun in the background because a key near the end of its lifetime is hot.
    refreshes_hot RefreshesHot,
    /// Reads answered with a value past its lifetime because the load failed, was late or was not allowed.
    stale_on_error StaleOnError,
    /// Loads that waited for a place among those that run.
    guard_waits GuardWaits,
    /// Loads refused by the rate limit.
    rate_limited RateLimited,
    /// Loads refused by the open circuit breaker.
    circuit_refused CircuitRefused,
    /// Times that the circuit breaker opened.
    circuit_opened CircuitOpened,
    /// Attempts beyond the first to load a value.
    load_retries LoadRetries,
    /// Keys loaded before anybody asked.
    warmed Warmed,
    /// Keys that were not loaded beforehand because as many as may wait for that do.
    warm_refused WarmRefused,
    /// Entries handed over to the new owners of their slots.
    handed_over HandedOver,
    /// Entries taken over from the last owners of their slots.
    taken_over TakenOver,
    /// Keys that the last owner of their slot had, so that the source was not asked.
    peek_hits PeekHits,
    /// Written keys that other nodes were told of, because they may have owned them too.
    changes_told ChangesTold,
    /// Written keys that other nodes have told of.
    changes_heard ChangesHeard,
    /// Reads that joined a load or fetch under way instead of starting their own.
    coalesced Coalesced,
    /// Requests of this node's own callers, or of its peers, refused because a limit was reached, here or at the owner.
    overloads Overloads,
    /// Keys answered to other nodes as their owner.
    served Served,
    /// Values stored by `put`.
    puts Puts,
    /// Keys removed by `delete`.
    deletes Deletes,
    /// Copies elsewhere that were told to go.
    invalidations_sent InvalidationsSent,
    /// Copies here that were told to go.
    invalidations_received InvalidationsReceived,
    /// Keys, values and batches refused because they are over a limit, or larger than the keyspace can hold.
    refused_too_large RefusedTooLarge,
    /// Fetches answered without a lease because as many keys as may have one have one.
    leases_refused LeasesRefused,
    /// Entries evicted to make room.
    evicted_capacity EvictedCapacity,
    /// Entries whose lifetime ended.
    evicted_expired EvictedExpired,
    /// Entries that nobody read for the idle lifetime.
    evicted_idle EvictedIdle,
    /// Entries dropped by `clear_keyspace`.
    evicted_cleared EvictedCleared,
    /// Entries dropped because another node owns their slot now.
    evicted_moved EvictedMoved,
}

impl KeyspaceStats {
    /// Reads of this node's own callers.
    pub fn reads(&self) -> u64 {
        self.hits_owned + self.hits_hot + self.hits_negative + self.hits_stale + self.misses
    }
}

/// How long things took since the node started, of one keyspace on this node; failures count like successes.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Latencies {
    /// Calls of the source, a batch counted once, without the wait for a place among those that run.
    pub load: LatencyHistogram,
    /// Requests to owners, a batch counted once, from the asking until the answer or the failure.
    pub fetch: LatencyHistogram,
    /// Calls of `get`, `get_entry` and `get_many` that had to ask, up to their answer; calls that were given up are left out.
    pub get_miss: LatencyHistogram,
    /// Calls of `put`, `put_with` and `put_many`, up to the owner's word that all is stored.
    pub put: LatencyHistogram,
    /// Calls answered from here, a sample of them: its count is not their number.
    pub hit: LatencyHistogram,
}

/// What takes time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Took {
    Load,
    Fetch,
    GetMiss,
    Put,
}

struct Recorders {
    load: Recorder,
    fetch: Recorder,
    get_miss: Recorder,
    put: Recorder,
    hit: Recorder,
}

/// Threads beyond this number share the last shard.
const SHARDS: usize = 64;

#[repr(align(128))]
struct Shard {
    counts: [AtomicU64; COUNTS],
    /// At which count the next one is looked at more closely.
    samples: [AtomicU64; COUNTS],
}

/// About one hit in so many is looked at more closely, at random, so that no rhythm of the callers hides a key.
pub(crate) const HITS_PER_SAMPLE: u32 = 256;

/// The counters of one keyspace, a set per thread (up to a number), summed when read; and how long things took, in one set,
/// since whatever is timed takes long beside the recording.
pub(crate) struct Counters {
    shards: Box<[Shard]>,
    latencies: Recorders,
}

impl Counters {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Shard::new()).collect();
        let latencies = Recorders {
            load: Recorder::new(),
            fetch: Recorder::new(),
            get_miss: Recorder::new(),
            put: Recorder::new(),
            hit: Recorder::new(),
        };
        Self { shards, latencies }
    }

    pub(crate) fn took(&self, what: Took, took: Duration) {
        let recorder = match what {
            Took::Load => &self.latencies.load,
            Took::Fetch => &self.latencies.fetch,
            Took::GetMiss => &self.latencies.get_miss,
            Took::Put => &self.latencies.put,
        };
        recorder.record(took);
    }

    /// A hit that was timed. All threads write to one place, so no more than one hit in some hundreds may be.
    pub(crate) fn sampled_hit(&self, took: Duration) {
        self.latencies.hit.record(took);
    }

    pub(crate) fn latencies(&self) -> Latencies {
        let all = &self.latencies;
        Latencies {
            load: all.load.read(),
            fetch: all.fetch.read(),
            get_miss: all.get_miss.read(),
            put: all.put.read(),
            hit: all.hit.read(),
        }
    }

    #[inline]
    pub(crate) fn add(&self, count: Count, n: u64) {
        let shard = shard_of_this_thread();
        let counter = &self.shards[shard].counts[count as usize];
        if shard == SHARDS - 1 {
            counter.fetch_add(n, Relaxed);
        } else {
            // This thread alone writes here, so the count needs no locked instruction.
            counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
        }
    }

    /// Counts a hit. Whether it is one of the few that are looked at more closely.
    #[inline]
    pub(crate) fn hit(&self, count: Count) -> bool {
        let number = shard_of_this_thread();
        let shard = &self.shards[number];
        if number == SHARDS - 1 {
            let counted = shard.counts[count as usize].fetch_add(1, Relaxed) + 1;
            return counted.is_multiple_of(u64::from(HITS_PER_SAMPLE));
        }
        let counter = &shard.counts[count as usize];
        let counted = counter.load(Relaxed).wrapping_add(1);
        counter.store(counted, Relaxed);
        counted >= shard.samples[count as usize].load(Relaxed) && shard.is_sample(count, counted)
    }

    #[inline]
    pub(crate) fn one(&self, count: Count) {
        self.add(count, 1);
    }

    fn sum(&self, count: Count) -> u64 {
        self.shards.iter().map(|shard| shard.counts[count as usize].load(Relaxed)).sum()
    }
}

impl Shard {
    fn new() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { counts: zeros(), samples: zeros() }
    }

    /// Settles when the next sample is due.
    #[cold]
    fn is_sample(&self, count: Count, counted: u64) -> bool {
        let pause = 1 + (crate::net::chance() * (2 * HITS_PER_SAMPLE - 1) as f32) as u64;
        self.samples[count as usize].store(counted + pause, Relaxed);
        true
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

    #[test]
    fn a_hit_of_200_ns_is_told_as_about_200_ns() {
        let counters = Counters::new();
        counters.sampled_hit(Duration::from_nanos(200));
        let told = counters.latencies().hit.quantile(0.5).unwrap();
        assert!((200..=212).contains(&told.as_nanos()), "{told:?}");
        assert_eq!(counters.latencies().get_miss.count(), 0);
    }
}
