//! What this node keeps in memory: the entries it owns, and short-lived copies of entries that others own.
//!
//! The only file that names the cache crate. Knows nothing of peers, sources or who owns a key; whether a record still counts
//! is decided by the [`Validity`] that the asker brings along. The invariants: the bytes of all records, bookkeeping included,
//! stay under the limit; a record that no longer counts is never returned and frees its bytes without waiting for a read; a
//! value that does not fit is refused before anything else is evicted for it.
//!
//! Records are filed under the 64-bit hash of their key and carry the key itself: of two keys with the same hash the later
//! one stays, and neither is ever taken for the other.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::RwLock;
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use crate::expiry::Times;
use crate::net::{Clock, Moment};
use crate::source::VALIDATOR_BYTES_MAX;
use crate::spec::KeyspaceSettings;
use crate::stats::{Count, Counters, KeyspaceStats};

/// Bytes that a record takes beside its key and value: slab and index of the cache (with the slack of their growth), the
/// reference count, and the allocator's rounding. Measured by the memory bench.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 176;

/// Part of the limit set aside for what the cache remembers of evicted keys.
const GHOST_PART: f64 = 0.05;
/// The eviction policy's memory of evicted keys is sized for values of this many bytes on average.
const EXPECTED_RECORD_BYTES: u64 = 1024;
/// Part of the limit that copies of other nodes' entries may take.
const HOT_PART: f64 = 0.125;
const HOT_ALLOCATION: f64 = 0.90;
/// Records that a pass over all of them looks at before it lets others run.
const STEP: usize = 512;
/// No value may take more than this part of a keyspace, so that one never pushes out most of the rest.
const VALUE_PART_MAX: u64 = 4;

/// One entry or hot copy. Key, validator and value share one allocation.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    data: Bytes,
    pub(crate) version: u64,
    pub(crate) times: Times,
    key_len: u16,
    /// Bytes of the source's validator, which stands between key and value; [`NEGATIVE`] of a record that has no value.
    validator_len: u16,
    /// Which clear of the keyspace it came after.
    pub(crate) epoch: u32,
    /// Which view it was stored, or begun to load, under.
    pub(crate) view_seq: u32,
}

const NEGATIVE: u16 = u16::MAX;

impl Record {
    /// Copies key and value, so that no network buffer is kept alive by a small part of it.
    pub(crate) fn new(key: &str, value: Option<&[u8]>) -> Self {
        let negative = if value.is_none() { NEGATIVE } else { 0 };
        Self { validator_len: negative, ..Self::with_validator(key, &[], value.unwrap_or_default()) }
    }

    /// A value with what its source needs to ask whether it has changed.
    pub(crate) fn with_validator(key: &str, validator: &[u8], value: &[u8]) -> Self {
        let validator = if validator.len() > VALIDATOR_BYTES_MAX { &[] } else { validator };
        let mut data = BytesMut::with_capacity(key.len() + validator.len() + value.len());
        data.put_slice(key.as_bytes());
        data.put_slice(validator);
        data.put_slice(value);
        Self {
            data: data.freeze(),
            version: 0,
            times: Times::until(Moment(0), Moment::NEVER),
            key_len: key.len() as u16,
            validator_len: validator.len() as u16,
            epoch: 0,
            view_seq: 0,
        }
    }

    #[inline]
    fn key(&self) -> &[u8] {
        &self.data[..self.key_len as usize]
    }

    /// `None`: the record says that there is no such key.
    #[inline]
    pub(crate) fn into_value(mut self) -> Option<Bytes> {
        use bytes::Buf;
        if self.is_negative() {
            return None;
        }
        self.data.advance(self.key_len as usize + self.validator_len as usize);
        Some(self.data)
    }

    /// What the source needs to ask whether the value has changed; empty: it gave nothing.
    pub(crate) fn validator(&self) -> Bytes {
        let key_len = self.key_len as usize;
        let len = if self.is_negative() { 0 } else { self.validator_len as usize };
        self.data.slice(key_len..key_len + len)
    }

    #[inline]
    pub(crate) fn is_negative(&self) -> bool {
        self.validator_len == NEGATIVE
    }

    pub(crate) fn weight(&self) -> usize {
        self.data.len() + RECORD_OVERHEAD_BYTES
    }
}

/// What a record must satisfy to count: the keyspace's latest clear and the slot's latest change of owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub(crate) now: Now,
    pub(crate) epoch: u32,
    pub(crate) slot_since: u32,
}

/// The time to judge by; read only for a record that expires.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Now {
    Read(Clock),
    At(Moment),
}

impl Now {
    #[inline]
    pub(crate) fn get(self) -> Moment {
        match self {
            Self::Read(clock) => clock.now(),
            Self::At(moment) => moment,
        }
    }
}

impl Validity {
    /// Whether the record is of the present clear and owner, however old it is.
    #[inline]
    fn covers(self, record: &Record) -> bool {
        record.epoch == self.epoch && record.view_seq >= self.slot_since
    }

    /// Whether the record is to be answered, with nothing else to do.
    #[inline]
    fn admits(self, record: &Record) -> bool {
        let due_at = record.times.due_at;
        self.covers(record) && (due_at == Moment::NEVER || due_at > self.now.get())
    }

    /// Not merely unfit for this reader, who may be behind: of no use to anybody any more.
    fn has_ended(self, record: &Record, idle_ttl: Option<Duration>) -> bool {
        record.epoch < self.epoch
            || record.view_seq < self.slot_since
            || record.times.gone_at(idle_ttl) <= self.now.get()
    }

    fn cause_of_end(self, record: &Record) -> Count {
        match () {
            () if record.epoch != self.epoch => Count::EvictedCleared,
            () if record.view_seq < self.slot_since => Count::EvictedMoved,
            () if record.times.gone_at(None) > self.now.get() => Count::EvictedIdle,
            () => Count::EvictedExpired,
        }
    }
}

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

#[derive(Clone, Copy)]
struct ByBytes;

impl Weighter<u64, Record> for ByBytes {
    fn weight(&self, _: &u64, record: &Record) -> u64 {
        record.weight() as u64
    }
}

/// Collects what one insert pushes out, to be counted and dropped after the lock is released.
#[derive(Clone)]
struct CollectPushedOut;

impl Lifecycle<u64, Record> for CollectPushedOut {
    type RequestState = Vec<(u64, Record)>;

    fn on_evict(&self, out: &mut Self::RequestState, hash: u64, record: Record) {
        out.push((hash, record));
    }
}

type Shelf = Cache<u64, Record, ByBytes, BuildHasherDefault<Identity>, CollectPushedOut>;

/// Owned entries and hot copies of one keyspace.
pub(crate) struct Store {
    owned: Shelf,
    hot: Shelf,
    counters: Arc<Counters>,
    limits: RwLock<StoreLimits>,
    data_bytes_limit: usize,
    /// No record on either shelf is gone before this moment, but by idleness; lets a sweep be skipped.
    earliest_end: AtomicU64,
    /// How long an owned entry may go unread, in milliseconds; 0: for ever.
    idle_ttl_ms: AtomicU64,
}

/// What a look at the store brought.
pub(crate) enum Look<T> {
    /// Fresh, and nothing else to do.
    Hit(T),
    /// There, but at an age at which its keyspace has something to decide.
    Due(Record),
    Miss,
}

#[derive(Clone, Copy)]
struct StoreLimits {
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
        let shelf = |bytes: u64| {
            let options = OptionsBuilder::new()
                .weight_capacity(bytes)
                .estimated_items_capacity((bytes / EXPECTED_RECORD_BYTES).max(64) as usize)
                .hot_allocation(HOT_ALLOCATION)
                .shards(shards(bytes, data_bytes_limit))
                .build()
                .expect("weight and item capacity are set");
            Shelf::with_options(options, ByBytes, BuildHasherDefault::default(), CollectPushedOut)
        };
        let (owned, hot) = (shelf(owned), shelf(hot));
        let limits = StoreLimits::new(settings, &owned, &hot, data_bytes_limit);
        let store = Self {
            owned,
            hot,
            counters,
            limits: RwLock::new(limits),
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

    /// The record under this key, if it counts. One that does not is dropped on the way.
    #[inline]
    pub(crate) fn get(&self, holding: Holding, hash: u64, key: &str, validity: Validity) -> Look<Record> {
        match self.shelf(holding).get(&hash) {
            Some(record) if validity.admits(&record) && record.key() == key.as_bytes() => Look::Hit(record),
            Some(record) => self.other_than_a_hit(holding, hash, key, validity, record),
            None => Look::Miss,
        }
    }

    /// [`get`](Self::get) for who wants nothing but the value.
    #[inline]
    pub(crate) fn get_value(&self, holding: Holding, hash: u64, key: &str, validity: Validity) -> Look<Option<Bytes>> {
        match self.shelf(holding).get(&hash) {
            Some(record) if validity.admits(&record) && record.key() == key.as_bytes() => {
                Look::Hit(record.into_value())
            }
            Some(record) => self.other_than_a_hit(holding, hash, key, validity, record),
            None => Look::Miss,
        }
    }

    #[cold]
    fn other_than_a_hit<T>(
        &self,
        holding: Holding,
        hash: u64,
        key: &str,
        validity: Validity,
        record: Record,
    ) -> Look<T> {
        if validity.has_ended(&record, self.idle_ttl(holding)) {
            self.drop_ended(holding, hash, validity);
            return Look::Miss;
        }
        let is_it = record.key() == key.as_bytes() && validity.covers(&record);
        if is_it { Look::Due(record) } else { Look::Miss }
    }

    fn drop_ended(&self, holding: Holding, hash: u64, validity: Validity) {
        let idle_ttl = self.idle_ttl(holding);
        if let Some((_, record)) = self.shelf(holding).remove_if(&hash, |record| validity.has_ended(record, idle_ttl)) {
            self.counters.one(validity.cause_of_end(&record));
        }
    }

    /// Changes the times of the record that was read as `version`, if it still stands.
    pub(crate) fn amend(&self, holding: Holding, hash: u64, version: u64, change: impl FnOnce(&mut Times)) {
        if let Some(mut record) = self.shelf(holding).peek(&hash)
            && record.version == version
        {
            change(&mut record.times);
            let _ = self.shelf(holding).replace(hash, record, true);
        }
    }

    /// Changes the times of every owned record, in steps: `pause` is awaited between them, and no lock is held across it.
    pub(crate) async fn amend_all<P: Future<Output = ()>>(
        &self,
        mut change: impl FnMut(u64, &mut Times),
        mut pause: impl FnMut() -> P,
    ) {
        for (step, (hash, record)) in self.owned.iter().enumerate() {
            self.amend(Holding::Owned, hash, record.version, |times| change(record.version, times));
            if step % STEP == STEP - 1 {
                pause().await;
            }
        }
    }

    /// Stores a record, in place of any other under its key.
    ///
    /// A record that does not fit is refused and whatever stood under the key is dropped: it is older than what was refused.
    /// A hot copy that does not fit is simply not kept.
    pub(crate) fn insert(&self, holding: Holding, hash: u64, record: Record) -> Result<(), usize> {
        let limits = *self.limits.read();
        if holding == Holding::Hot && record.data.len() > limits.hot_value_bytes_max {
            self.hot.remove(&hash);
            return Ok(());
        }
        let max = limits.value_bytes_max;
        if record.data.len() > max {
            self.shelf(holding).remove(&hash);
            self.counters.one(Count::RefusedTooLarge);
            return Err(max);
        }
        let end = record.times.gone_at(None);
        let mut pushed_out = Vec::new();
        self.shelf(holding).insert_with_lifecycle(hash, record, &mut pushed_out);
        // After the insert: a sweep that begins in between would lower nothing and not see the record.
        self.earliest_end.fetch_min(end.0, Relaxed);
        // What was replaced is among them, and is not an eviction.
        let evicted = pushed_out.iter().filter(|(other, _)| *other != hash).count();
        self.counters.add(Count::EvictedCapacity, evicted as u64);
        Ok(())
    }

    /// Whether a record was there.
    pub(crate) fn remove(&self, holding: Holding, hash: u64, key: &str) -> bool {
        self.shelf(holding).remove_if(&hash, |record| record.key() == key.as_bytes()).is_some()
    }

    /// The largest key and value together that this keyspace takes.
    pub(crate) fn value_bytes_max(&self) -> usize {
        self.limits.read().value_bytes_max
    }

    /// Takes new limits at once, evicting only what no longer fits.
    pub(crate) fn resize(&self, settings: &KeyspaceSettings, clustered: bool) {
        let (owned, hot) = split(settings, clustered);
        let before = self.owned.len() + self.hot.len();
        self.owned.set_capacity(owned);
        self.hot.set_capacity(hot);
        let after = self.owned.len() + self.hot.len();
        self.counters.add(Count::EvictedCapacity, before.saturating_sub(after) as u64);
        *self.limits.write() = StoreLimits::new(settings, &self.owned, &self.hot, self.data_bytes_limit);
    }

    pub(crate) fn fill_in(&self, stats: &mut KeyspaceStats) {
        stats.entries = self.owned.len() as u64;
        stats.hot_entries = self.hot.len() as u64;
        stats.bytes = self.owned.weight() + self.hot.weight();
        stats.bytes_max = self.limits.read().bytes_max;
    }

    /// Whether a sweep could find something whose lifetime has ended.
    pub(crate) fn may_hold_expired(&self, now: Moment) -> bool {
        self.earliest_end.load(Relaxed) <= now.0 || self.idle_ttl_ms.load(Relaxed) > 0
    }

    /// Drops every record that no longer counts, in steps: `pause` is awaited between them, and no lock is held across it.
    pub(crate) async fn sweep<P: Future<Output = ()>>(
        &self,
        validity: impl Fn(u64) -> Validity,
        mut pause: impl FnMut() -> P,
    ) {
        // From here on inserts lower the bound again; what stands already is looked at below.
        self.earliest_end.store(u64::MAX, Relaxed);
        let mut earliest = u64::MAX;
        for holding in [Holding::Owned, Holding::Hot] {
            for (step, (hash, record)) in self.shelf(holding).iter().enumerate() {
                let validity = validity(hash);
                if validity.has_ended(&record, self.idle_ttl(holding)) {
                    self.drop_ended(holding, hash, validity);
                } else {
                    earliest = earliest.min(record.times.gone_at(None).0);
                }
                drop(record);
                if step % STEP == STEP - 1 {
                    pause().await;
                }
            }
        }
        self.earliest_end.fetch_min(earliest, Relaxed);
    }
}

/// Bytes for owned entries and for hot copies.
fn split(settings: &KeyspaceSettings, clustered: bool) -> (u64, u64) {
    let usable = (settings.max_bytes as f64 * (1.0 - GHOST_PART)) as u64;
    let hot = if clustered && settings.hot_copies { (usable as f64 * HOT_PART) as u64 } else { 0 };
    (usable - hot, hot)
}

/// As many shards as cores like, but none so small that the largest value would be refused for its shard's sake.
fn shards(bytes: u64, data_bytes_limit: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let largest = (data_bytes_limit as u64 + RECORD_OVERHEAD_BYTES as u64).min(bytes / VALUE_PART_MAX).max(1);
    let by_size = (bytes as f64 * HOT_ALLOCATION / largest as f64) as usize;
    // Rounded down to a power of two, since the cache crate would round up.
    let shards = (cores * 8).min(by_size).max(1);
    1 << shards.ilog2()
}

impl StoreLimits {
    fn new(settings: &KeyspaceSettings, owned: &Shelf, hot: &Shelf, data_bytes_limit: usize) -> Self {
        let fits = |shelf: &Shelf, part: u64| {
            let by_shard = (shelf.shard_capacity() as f64 * HOT_ALLOCATION) as u64;
            by_shard.min(part).saturating_sub(RECORD_OVERHEAD_BYTES as u64) as usize
        };
        Self {
            bytes_max: settings.max_bytes,
            value_bytes_max: fits(owned, settings.max_bytes / VALUE_PART_MAX).min(data_bytes_limit),
            hot_value_bytes_max: fits(hot, u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALWAYS: Validity = Validity { now: Now::At(Moment(1)), epoch: 0, slot_since: 0 };

    fn store(max_bytes: u64) -> Store {
        let settings = KeyspaceSettings { max_bytes, ..Default::default() };
        Store::new(&settings, 4 << 20, true, Arc::new(Counters::new()))
    }

    fn record(key: &str, value: &[u8]) -> Record {
        Record::new(key, Some(value))
    }

    fn stats(store: &Store) -> KeyspaceStats {
        let mut stats = store.counters.read();
        store.fill_in(&mut stats);
        stats
    }

    fn value_of(store: &Store, hash: u64, key: &str, validity: Validity) -> Option<Bytes> {
        match store.get(Holding::Owned, hash, key, validity) {
            Look::Hit(record) => record.into_value(),
            Look::Due(_) | Look::Miss => None,
        }
    }

    #[test]
    fn keys_with_the_same_hash_are_never_taken_for_each_other() {
        let store = store(1 << 20);
        store.insert(Holding::Owned, 7, record("a", b"of a")).unwrap();
        assert_eq!(value_of(&store, 7, "a", ALWAYS).unwrap(), "of a");
        assert!(value_of(&store, 7, "b", ALWAYS).is_none());
        assert!(!store.remove(Holding::Owned, 7, "b"));
        store.insert(Holding::Owned, 7, record("b", b"of b")).unwrap();
        assert!(value_of(&store, 7, "a", ALWAYS).is_none());
        assert_eq!(value_of(&store, 7, "b", ALWAYS).unwrap(), "of b");
    }

    #[test]
    fn a_value_larger_than_the_cache_is_refused_and_flushes_nothing() {
        let store = store(1 << 20);
        for n in 0..1_000u64 {
            store.insert(Holding::Owned, n << 40 | n, record(&n.to_string(), &[0; 100])).unwrap();
        }
        let before = stats(&store);
        let max = store.insert(Holding::Owned, 1 << 60, record("big", &vec![0; 2 << 20])).unwrap_err();
        assert!((100 << 10..=256 << 10).contains(&max), "{max}");
        let after = stats(&store);
        assert_eq!(after.entries, before.entries);
        assert_eq!((after.refused_too_large, after.evicted_capacity), (1, before.evicted_capacity));
    }

    #[test]
    fn the_largest_value_that_is_promised_is_also_kept() {
        for max_bytes in [64 << 10, 300 << 10, 1 << 20, 10 << 20, 64 << 20, 1 << 30] {
            let store = store(max_bytes);
            let value = vec![1; store.value_bytes_max() - 1];
            store.insert(Holding::Owned, 99, record("k", &value)).unwrap();
            assert_eq!(value_of(&store, 99, "k", ALWAYS).map(|v| v.len()), Some(value.len()), "limit {max_bytes}");
        }
    }

    #[test]
    fn bytes_stay_under_the_limit_and_overwrites_are_not_evictions() {
        let store = store(1 << 20);
        for _ in 0..10 {
            store.insert(Holding::Owned, 5, record("same", &[0; 100])).unwrap();
        }
        assert_eq!(stats(&store).evicted_capacity, 0);
        assert_eq!(stats(&store).entries, 1);
        for n in 0..20_000u64 {
            let hash = xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes());
            store.insert(Holding::Owned, hash, record(&n.to_string(), &[0; 100])).unwrap();
        }
        let stats = stats(&store);
        assert!(stats.bytes <= stats.bytes_max, "{} of {}", stats.bytes, stats.bytes_max);
        assert!(stats.entries > 2_000);
        assert_eq!(stats.evicted_capacity + stats.entries, 20_001);
    }

    #[tokio::test]
    async fn what_no_longer_counts_frees_its_bytes_without_a_read() {
        let store = store(1 << 20);
        let put = |hash: u64, epoch, view_seq, expires_at| {
            let times = Times::until(Moment(0), Moment(expires_at));
            let record = Record { epoch, view_seq, times, ..record("k", &[0; 100]) };
            store.insert(Holding::Owned, hash, record).unwrap();
        };
        put(1, 1, 5, 100);
        put(2, 1, 5, 1_000);
        put(3, 0, 5, 1_000);
        put(4, 1, 2, 1_000);
        let validity = Validity { now: Now::At(Moment(100)), epoch: 1, slot_since: 3 };
        assert!(store.may_hold_expired(Moment(100)));
        store.sweep(|_| validity, || async {}).await;
        assert!(!store.may_hold_expired(Moment(100)));
        assert!(store.may_hold_expired(Moment(1_000)));
        let stats = stats(&store);
        assert_eq!((stats.entries, stats.evicted_expired, stats.evicted_cleared, stats.evicted_moved), (1, 1, 1, 1));
        assert_eq!(stats.bytes, 101 + RECORD_OVERHEAD_BYTES as u64);
    }

    #[test]
    fn a_record_that_ended_is_not_returned() {
        let store = store(1 << 20);
        let times = Times::until(Moment(0), Moment(10));
        store.insert(Holding::Hot, 1, Record { times, ..record("k", b"v") }).unwrap();
        let at = |now| Validity { now: Now::At(Moment(now)), ..ALWAYS };
        assert!(matches!(store.get(Holding::Hot, 1, "k", at(9)), Look::Hit(_)));
        assert!(matches!(store.get(Holding::Hot, 1, "k", at(10)), Look::Miss));
        assert_eq!(stats(&store).hot_entries, 0);
    }

    #[test]
    fn a_smaller_limit_keeps_what_still_fits() {
        let store = store(4 << 20);
        for n in 0..1_000u64 {
            let hash = xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes());
            store.insert(Holding::Owned, hash, record(&n.to_string(), &[0; 100])).unwrap();
        }
        store.resize(&KeyspaceSettings { max_bytes: 1 << 20, ..Default::default() }, true);
        assert_eq!(stats(&store).entries, 1_000);
        store.resize(&KeyspaceSettings { max_bytes: 128 << 10, ..Default::default() }, true);
        let stats = stats(&store);
        assert!(stats.entries > 100 && stats.entries < 600 && stats.bytes <= 128 << 10, "{stats:?}");
    }

    #[test]
    fn a_record_copies_out_of_the_buffer_it_came_in() {
        let network_buffer = Bytes::from(vec![7; 6_000]);
        let small = network_buffer.slice(10..20);
        let value = Record::new("k", Some(&small)).into_value().unwrap();
        assert_eq!(value, small);
        assert!(
            value.as_ptr() < network_buffer.as_ptr() || value.as_ptr() > network_buffer.as_ptr().wrapping_add(6_000)
        );
    }
}
