//! What this node keeps in memory: the entries it owns, and short-lived copies of entries that others own.
//!
//! In reading order, from the outside in: `shelf` (shards with a lock each), `shard` (a policy, and the change to another),
//! `policy` (what a policy has to do), and the policies `scan` (the cache crate), `queue` (LRU and FIFO) and `frequency` (LFU),
//! of which the latter two are made of `lists`, and the last of a `sketch` too.
//!
//! Knows nothing of peers, sources or who owns a key; whether a record still counts is decided by the [`Validity`] that the
//! asker brings along. The invariants: the bytes of all records, bookkeeping included, stay under the limit; a record that no
//! longer counts is never returned and frees its bytes without waiting for a read; a value that does not fit is refused before
//! anything else is evicted for it.
//!
//! Records are filed under the 64-bit hash of their key and carry the key itself: of two keys with the same hash the later
//! one stays, and neither is ever taken for the other.

#[cfg(test)]
mod conformance;
mod frequency;
mod lists;
mod policy;
#[cfg(feature = "bench-internals")]
pub(crate) mod probe;
mod queue;
mod record;
mod scan;
mod shard;
mod shelf;
mod sketch;
#[cfg(test)]
mod tests;

use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::expiry::Times;
use crate::net::Moment;
use crate::spec::{Eviction, KeyspaceSettings};
use crate::stats::{Count, Counters, KeyspaceStats};

use policy::overhead_bytes;
pub(crate) use record::{Now, Record, Validity};
use shelf::{Shelf, VALUE_PART_MAX};

/// Records that a pass over all of them looks at before it lets others run.
const STEP: usize = 512;
/// Part of the limit set aside for what the scan-resistant policy remembers of evicted keys.
const GHOST_PART: f64 = 0.05;
/// Part of the limit that copies of other nodes' entries may take.
const HOT_PART: f64 = 0.125;

/// Passes the hash of the key through: it is one already.
#[derive(Clone, Copy, Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Owned entries and hot copies of one keyspace.
pub(crate) struct Store {
    owned: Shelf,
    hot: Shelf,
    counters: Arc<Counters>,
    limits: RwLock<StoreLimits>,
    changing: Mutex<()>,
    data_bytes_limit: usize,
    /// No record on either shelf is gone before this moment, but by idleness; lets a sweep be skipped.
    earliest_end: AtomicU64,
    /// How long an owned entry may go unread, in milliseconds; 0: for ever.
    idle_ttl_ms: AtomicU64,
}

/// What a look at the store brought.
pub(crate) enum Look {
    /// Fresh, and nothing else to do.
    Hit(Record),
    /// There, but at an age at which its keyspace has something to decide.
    Due(Record),
    Miss,
}

#[cfg(test)]
impl Look {
    fn hit(self) -> Option<Record> {
        if let Self::Hit(record) = self { Some(record) } else { None }
    }
}

#[derive(Clone, Copy)]
struct StoreLimits {
    eviction: Eviction,
    bytes_max: u64,
    value_bytes_max: usize,
    hot_value_bytes_max: usize,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    Owned,
    Hot,
}

impl Store {
    /// `data_bytes_limit`: the largest key and value together; `clustered`: whether there may be entries of others to hold
    /// copies of.
    pub(crate) fn new(
        settings: &KeyspaceSettings,
        data_bytes_limit: usize,
        clustered: bool,
        counters: Arc<Counters>,
    ) -> Self {
        let (owned, hot) = split(settings, clustered);
        let shelf = |bytes| Shelf::new(settings.eviction, bytes, data_bytes_limit);
        let (owned, hot) = (shelf(owned), shelf(hot));
        let limits = StoreLimits::new(settings, &owned, &hot, data_bytes_limit);
        let store = Self {
            owned,
            hot,
            counters,
            limits: RwLock::new(limits),
            changing: Mutex::new(()),
            data_bytes_limit,
            earliest_end: AtomicU64::new(u64::MAX),
            idle_ttl_ms: AtomicU64::new(0),
        };
        store.set_idle_ttl(settings.idle_ttl);
        store
    }

    /// How long an owned entry may go unread before it is swept.
    pub(crate) fn set_idle_ttl(&self, idle_ttl: Option<Duration>) {
        self.idle_ttl_ms.store(idle_ttl.map_or(0, |idle| idle.as_millis() as u64), Relaxed);
    }

    fn idle_ttl(&self, holding: Holding) -> Option<Duration> {
        let millis = self.idle_ttl_ms.load(Relaxed);
        (holding == Holding::Owned && millis > 0).then(|| Duration::from_millis(millis))
    }

    fn shelf(&self, holding: Holding) -> &Shelf {
        match holding {
            Holding::Owned => &self.owned,
            Holding::Hot => &self.hot,
        }
    }

    /// The record under this key, as far as it counts. One that has ended is dropped on the way.
    #[inline]
    pub(crate) fn get(&self, holding: Holding, hash: u64, key: &str, validity: Validity) -> Look {
        match self.read(holding, hash, key, validity, Record::clone) {
            Some(record) => Look::Hit(record),
            None => self.other_than_a_hit(holding, hash, key, validity),
        }
    }

    /// The value alone, where there is nothing to decide about it: else [`get`](Self::get) says more.
    #[inline]
    pub(crate) fn get_value(
        &self,
        holding: Holding,
        hash: u64,
        key: &str,
        validity: Validity,
    ) -> Option<Option<Bytes>> {
        self.read(holding, hash, key, validity, Record::value)
    }

    #[inline]
    fn read<T>(
        &self,
        holding: Holding,
        hash: u64,
        key: &str,
        validity: Validity,
        take: impl FnOnce(&Record) -> T,
    ) -> Option<T> {
        let shelf = self.shelf(holding);
        // Each closure is called in one place, so each is compiled into it.
        if shelf.reads_reorder() {
            shelf.get_reordering(hash, |record| {
                let counts = validity.admits(record) && record.key() == key.as_bytes();
                if counts { Some(take(record)) } else { None }
            })
        } else {
            shelf.get_shared(hash, |record| {
                let counts = validity.admits(record) && record.key() == key.as_bytes();
                if counts { Some(take(record)) } else { None }
            })
        }
    }

    #[cold]
    fn other_than_a_hit(&self, holding: Holding, hash: u64, key: &str, validity: Validity) -> Look {
        let idle_ttl = self.idle_ttl(holding);
        let due = self.shelf(holding).peek(hash, |record| {
            let has_ended = validity.has_ended(record, idle_ttl);
            let is_it = !has_ended && record.key() == key.as_bytes() && validity.covers(record);
            (has_ended, is_it.then(|| record.clone()))
        });
        match due {
            Some((_, Some(record))) => return Look::Due(record),
            Some((true, None)) => self.drop_ended(holding, hash, validity),
            _ => {}
        }
        Look::Miss
    }

    fn drop_ended(&self, holding: Holding, hash: u64, validity: Validity) {
        let idle_ttl = self.idle_ttl(holding);
        if let Some(record) = self.shelf(holding).remove_if(hash, |record| validity.has_ended(record, idle_ttl)) {
            self.counters.one(validity.cause_of_end(&record));
        }
    }

    /// Changes the times of the record that was read as `version`, if it still stands. No use in the eyes of any eviction policy.
    pub(crate) fn amend(&self, holding: Holding, hash: u64, version: u64, change: impl FnOnce(&mut Times)) {
        let change = |record: &mut Record| {
            (record.version == version).then(|| {
                change(&mut record.times);
                record.times.gone_at(None)
            })
        };
        if let Some(end) = self.shelf(holding).amend(hash, change).flatten() {
            self.earliest_end.fetch_min(end.0, Relaxed);
        }
    }

    /// Changes the times of every owned record, in steps: `pause` is awaited between them, and no lock is held across it.
    pub(crate) async fn amend_all<P: Future<Output = ()>>(
        &self,
        mut change: impl FnMut(u64, &mut Times),
        pause: impl FnMut() -> P,
    ) {
        let amend = |hash| {
            self.owned.amend(hash, |record| change(record.version, &mut record.times));
        };
        self.each_owned(amend, pause).await;
    }

    /// Stores a record, in place of any other under its key.
    ///
    /// A record that does not fit is refused and whatever stood under the key is dropped: it is older than what was refused.
    /// A hot copy that does not fit is simply not kept.
    pub(crate) fn insert(&self, holding: Holding, hash: u64, record: Record) -> Result<(), usize> {
        let limits = *self.limits.read();
        if holding == Holding::Hot && record.data.len() > limits.hot_value_bytes_max {
            self.hot.remove_if(hash, |_| true);
            return Ok(());
        }
        let max = limits.value_bytes_max;
        if record.data.len() > max {
            self.shelf(holding).remove_if(hash, |_| true);
            self.counters.one(Count::RefusedTooLarge);
            return Err(max);
        }
        let end = record.times.gone_at(None);
        let evicted = self.shelf(holding).insert(hash, record);
        // After the insert: a sweep that begins in between would lower nothing and not see the record.
        self.earliest_end.fetch_min(end.0, Relaxed);
        self.counters.add(Count::EvictedCapacity, evicted as u64);
        Ok(())
    }

    /// Whether a record was there.
    pub(crate) fn remove(&self, holding: Holding, hash: u64, key: &str) -> bool {
        self.shelf(holding).remove_if(hash, |record| record.key() == key.as_bytes()).is_some()
    }

    /// The same of whatever key has this hash.
    pub(crate) fn remove_hash(&self, holding: Holding, hash: u64) -> bool {
        self.shelf(holding).remove_if(hash, |_| true).is_some()
    }

    /// Whether anything stands under this hash.
    pub(crate) fn holds(&self, holding: Holding, hash: u64) -> bool {
        self.shelf(holding).peek(hash, |_| ()).is_some()
    }

    /// Removes an owned record that was stored, or began to load, before `at`.
    pub(crate) fn remove_older(&self, hash: u64, at: Moment) -> bool {
        self.owned.remove_if(hash, |record| record.times.stored_at < at).is_some()
    }

    /// The same of all keys whose hash is wanted, in steps: `pause` is awaited between them. The hashes of those removed.
    pub(crate) async fn remove_all_older<P: Future<Output = ()>>(
        &self,
        at: Moment,
        is_wanted: impl Fn(u64) -> bool,
        pause: impl FnMut() -> P,
    ) -> Vec<u64> {
        let mut removed = Vec::new();
        let remove = |hash| {
            if is_wanted(hash) && self.remove_older(hash, at) {
                removed.push(hash);
            }
        };
        self.each_owned(remove, pause).await;
        removed
    }

    /// Removes hot copies of keys whose hash is wanted, in steps like those above.
    pub(crate) async fn remove_copies<P: Future<Output = ()>>(
        &self,
        is_wanted: impl Fn(u64) -> bool,
        pause: impl FnMut() -> P,
    ) {
        let remove = |hash| {
            if is_wanted(hash) {
                self.remove_hash(Holding::Hot, hash);
            }
        };
        self.each(Holding::Hot, remove, pause).await;
    }

    /// Names the hash of every owned record, in steps: `pause` is awaited between them, and no lock is held while `visit` runs.
    pub(crate) async fn each_owned<P: Future<Output = ()>>(&self, visit: impl FnMut(u64), pause: impl FnMut() -> P) {
        self.each(Holding::Owned, visit, pause).await;
    }

    async fn each<P: Future<Output = ()>>(
        &self,
        holding: Holding,
        mut visit: impl FnMut(u64),
        mut pause: impl FnMut() -> P,
    ) {
        let (shelf, mut hashes) = (self.shelf(holding), Vec::new());
        for shard in 0..shelf.shards() {
            hashes.clear();
            shelf.hashes(shard, &mut hashes);
            for step in hashes.chunks(STEP) {
                step.iter().for_each(|hash| visit(*hash));
                pause().await;
            }
        }
    }

    /// The owned record under this hash, as far as it counts and is fresh; looking at it is no use.
    pub(crate) fn look_at(&self, hash: u64, validity: Validity) -> Option<Record> {
        let is_fresh = |record: &Record| validity.covers(record) && record.times.expires_at > validity.now.get();
        self.owned.peek(hash, |record| is_fresh(record).then(|| record.clone())).flatten()
    }

    /// The largest key and value together that this keyspace takes.
    pub(crate) fn value_bytes_max(&self) -> usize {
        self.limits.read().value_bytes_max
    }

    /// Takes new limits and another eviction policy at once, evicting only what no longer fits. What is stored comes under the
    /// new policy little by little, by writes and by the next [`sweep`](Self::sweep).
    pub(crate) fn resize(&self, settings: &KeyspaceSettings, clustered: bool) {
        let (owned, hot) = split(settings, clustered);
        // So that of two changes at the same time the later one holds, whole.
        let _changing = self.changing.lock();
        let eviction = self.limits.read().eviction;
        if eviction != settings.eviction {
            self.owned.change_policy(settings.eviction);
            self.hot.change_policy(settings.eviction);
        }
        let evicted = self.owned.set_bytes_max(owned) + self.hot.set_bytes_max(hot);
        self.counters.add(Count::EvictedCapacity, evicted as u64);
        *self.limits.write() = StoreLimits::new(settings, &self.owned, &self.hot, self.data_bytes_limit);
    }

    pub(crate) fn fill_in(&self, stats: &mut KeyspaceStats) {
        stats.entries = self.owned.len() as u64;
        stats.hot_entries = self.hot.len() as u64;
        stats.bytes = self.owned.weight() + self.hot.weight();
        stats.bytes_max = self.limits.read().bytes_max;
    }

    /// Whether a sweep could find something to do: a record whose lifetime has ended, or one under an earlier policy.
    pub(crate) fn may_hold_expired(&self, now: Moment) -> bool {
        self.earliest_end.load(Relaxed) <= now.0
            || self.idle_ttl_ms.load(Relaxed) > 0
            || self.owned.is_changing()
            || self.hot.is_changing()
    }

    /// Drops every record that no longer counts and ends a change of policy, in steps: `pause` is awaited between them, and no
    /// lock is held across it.
    pub(crate) async fn sweep<P: Future<Output = ()>>(
        &self,
        validity: impl Fn(u64) -> Validity,
        mut pause: impl FnMut() -> P,
    ) {
        // From here on inserts lower the bound again; what stands already is looked at below.
        self.earliest_end.store(u64::MAX, Relaxed);
        let mut earliest = u64::MAX;
        let mut hashes = Vec::new();
        for holding in [Holding::Owned, Holding::Hot] {
            let shelf = self.shelf(holding);
            if shelf.is_changing() {
                let evicted = shelf.take_over(&mut pause).await;
                self.counters.add(Count::EvictedCapacity, evicted as u64);
            }
            for shard in 0..shelf.shards() {
                hashes.clear();
                shelf.hashes(shard, &mut hashes);
                for step in hashes.chunks(STEP) {
                    for &hash in step {
                        earliest = earliest.min(self.judge(holding, hash, validity(hash)));
                    }
                    pause().await;
                }
            }
        }
        self.earliest_end.fetch_min(earliest, Relaxed);
    }

    /// Drops the record under this hash if it no longer counts; else when it will, in milliseconds of the clock.
    fn judge(&self, holding: Holding, hash: u64, validity: Validity) -> u64 {
        let idle_ttl = self.idle_ttl(holding);
        let end = |record: &Record| (!validity.has_ended(record, idle_ttl)).then(|| record.times.gone_at(None).0);
        let Some(end) = self.shelf(holding).peek(hash, end) else { return u64::MAX };
        if end.is_none() {
            self.drop_ended(holding, hash, validity);
        }
        end.unwrap_or(u64::MAX)
    }
}

/// Bytes for owned entries and for hot copies.
fn split(settings: &KeyspaceSettings, clustered: bool) -> (u64, u64) {
    let spare = if settings.eviction == Eviction::ScanResistant { GHOST_PART } else { 0.0 };
    let usable = (settings.max_bytes as f64 * (1.0 - spare)) as u64;
    let hot = if clustered && settings.hot_copies { (usable as f64 * HOT_PART) as u64 } else { 0 };
    (usable - hot, hot)
}

impl StoreLimits {
    fn new(settings: &KeyspaceSettings, owned: &Shelf, hot: &Shelf, data_bytes_limit: usize) -> Self {
        let overhead = overhead_bytes(settings.eviction) as u64;
        let fits = |shelf: &Shelf, part: u64| shelf.weight_max().min(part).saturating_sub(overhead) as usize;
        Self {
            eviction: settings.eviction,
            bytes_max: settings.max_bytes,
            value_bytes_max: fits(owned, settings.max_bytes / VALUE_PART_MAX).min(data_bytes_limit),
            hot_value_bytes_max: fits(hot, u64::MAX),
        }
    }
}
