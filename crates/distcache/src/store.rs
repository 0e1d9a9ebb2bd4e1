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
mod scan;
mod shard;
mod shelf;
mod sketch;
#[cfg(test)]
mod tests;

use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};

use crate::net::{Clock, Moment};
use crate::spec::{Eviction, KeyspaceSettings};
use crate::stats::{Count, Counters, KeyspaceStats};

use policy::overhead_bytes;
use shelf::{Shelf, VALUE_PART_MAX};

/// Part of the limit set aside for what the scan-resistant policy remembers of evicted keys.
const GHOST_PART: f64 = 0.05;
/// Part of the limit that copies of other nodes' entries may take.
const HOT_PART: f64 = 0.125;

/// One entry or hot copy. Key and value share one allocation.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    data: Bytes,
    key_len: u16,
    negative: bool,
    /// Which clear of the keyspace it came after.
    pub(crate) epoch: u32,
    /// Which view it was stored, or begun to load, under.
    pub(crate) view_seq: u32,
    pub(crate) stored_at: Moment,
    pub(crate) expires_at: Moment,
    pub(crate) version: u64,
}

impl Record {
    /// Copies key and value, so that no network buffer is kept alive by a small part of it.
    pub(crate) fn new(key: &str, value: Option<&[u8]>) -> Self {
        let mut data = BytesMut::with_capacity(key.len() + value.map_or(0, <[u8]>::len));
        data.put_slice(key.as_bytes());
        data.put_slice(value.unwrap_or_default());
        Self {
            data: data.freeze(),
            key_len: key.len() as u16,
            negative: value.is_none(),
            epoch: 0,
            view_seq: 0,
            stored_at: Moment(0),
            expires_at: Moment::NEVER,
            version: 0,
        }
    }

    #[inline]
    fn key(&self) -> &[u8] {
        &self.data[..self.key_len as usize]
    }

    #[inline]
    fn value(&self) -> Option<Bytes> {
        use bytes::Buf;
        if self.negative {
            return None;
        }
        let mut data = self.data.clone();
        data.advance(self.key_len as usize);
        Some(data)
    }

    /// `None`: the record says that there is no such key.
    #[inline]
    pub(crate) fn into_value(mut self) -> Option<Bytes> {
        use bytes::Buf;
        self.data.advance(self.key_len as usize);
        (!self.negative).then_some(self.data)
    }

    pub(crate) fn is_negative(&self) -> bool {
        self.negative
    }

    #[inline]
    fn weight(&self, overhead_bytes: usize) -> u64 {
        (self.data.len() + overhead_bytes) as u64
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
    #[inline]
    fn admits(self, record: &Record) -> bool {
        record.epoch == self.epoch
            && record.view_seq >= self.slot_since
            && (record.expires_at == Moment::NEVER || record.expires_at > self.now.get())
    }

    /// Not merely unfit for this reader, who may be behind: of no use to anybody any more.
    fn has_ended(self, record: &Record) -> bool {
        record.epoch < self.epoch || record.view_seq < self.slot_since || record.expires_at <= self.now.get()
    }

    fn cause_of_end(self, record: &Record) -> Count {
        match () {
            () if record.epoch != self.epoch => Count::EvictedCleared,
            () if record.view_seq < self.slot_since => Count::EvictedMoved,
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

/// Owned entries and hot copies of one keyspace.
pub(crate) struct Store {
    owned: Shelf,
    hot: Shelf,
    counters: Arc<Counters>,
    limits: RwLock<StoreLimits>,
    changing: Mutex<()>,
    data_bytes_limit: usize,
    /// No record on either shelf expires before this moment; lets a sweep be skipped.
    earliest_expiry: AtomicU64,
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
        let earliest_expiry = AtomicU64::new(u64::MAX);
        let (limits, changing) = (RwLock::new(limits), Mutex::new(()));
        Self { owned, hot, counters, limits, changing, data_bytes_limit, earliest_expiry }
    }

    fn shelf(&self, holding: Holding) -> &Shelf {
        match holding {
            Holding::Owned => &self.owned,
            Holding::Hot => &self.hot,
        }
    }

    /// The record under this key, if it counts. One that does not is dropped on the way.
    #[inline]
    pub(crate) fn get(&self, holding: Holding, hash: u64, key: &str, validity: Validity) -> Option<Record> {
        self.read(holding, hash, key, validity, Record::clone)
    }

    /// [`get`](Self::get) for who wants nothing but the value.
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
        let (shelf, mut counts) = (self.shelf(holding), true);
        // Each closure is called in one place, so each is compiled into it.
        let found = if shelf.reads_reorder() {
            shelf.get_reordering(hash, |record| {
                counts = validity.admits(record) && record.key() == key.as_bytes();
                if counts { Some(take(record)) } else { None }
            })
        } else {
            shelf.get_shared(hash, |record| {
                counts = validity.admits(record) && record.key() == key.as_bytes();
                if counts { Some(take(record)) } else { None }
            })
        };
        if !counts {
            self.drop_ended(holding, hash, validity);
        }
        found
    }

    /// Changes small fields of the record under this key where it stands, such as its times. No use in the eyes of any eviction
    /// policy. Key and value stay: what they weigh is accounted for. `None`: there is no such record.
    #[cfg_attr(not(test), expect(dead_code))]
    pub(crate) fn amend<T>(
        &self,
        holding: Holding,
        hash: u64,
        key: &str,
        change: impl FnOnce(&mut Record) -> T,
    ) -> Option<T> {
        let change = |record: &mut Record| {
            let is_meant = record.key() == key.as_bytes();
            is_meant.then(|| (change(record), record.expires_at))
        };
        let (result, expires_at) = self.shelf(holding).amend(hash, change)??;
        self.earliest_expiry.fetch_min(expires_at.0, Relaxed);
        Some(result)
    }

    #[cold]
    fn drop_ended(&self, holding: Holding, hash: u64, validity: Validity) {
        if let Some(record) = self.shelf(holding).remove_if(hash, |record| validity.has_ended(record)) {
            self.counters.one(validity.cause_of_end(&record));
        }
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
        let expires_at = record.expires_at;
        let evicted = self.shelf(holding).insert(hash, record);
        // After the insert: a sweep that begins in between would lower nothing and not see the record.
        self.earliest_expiry.fetch_min(expires_at.0, Relaxed);
        self.counters.add(Count::EvictedCapacity, evicted as u64);
        Ok(())
    }

    /// Whether a record was there.
    pub(crate) fn remove(&self, holding: Holding, hash: u64, key: &str) -> bool {
        self.shelf(holding).remove_if(hash, |record| record.key() == key.as_bytes()).is_some()
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
        self.earliest_expiry.load(Relaxed) <= now.0 || self.owned.is_changing() || self.hot.is_changing()
    }

    /// Drops every record that no longer counts and ends a change of policy, in steps: `pause` is awaited between them, and no
    /// lock is held across it.
    pub(crate) async fn sweep<P: Future<Output = ()>>(
        &self,
        validity: impl Fn(u64) -> Validity,
        mut pause: impl FnMut() -> P,
    ) {
        const STEP: usize = 512;
        // From here on inserts lower the bound again; what stands already is looked at below.
        self.earliest_expiry.store(u64::MAX, Relaxed);
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
        self.earliest_expiry.fetch_min(earliest, Relaxed);
    }

    /// Drops the record under this hash if it no longer counts; else when it will, in milliseconds of the clock.
    fn judge(&self, holding: Holding, hash: u64, validity: Validity) -> u64 {
        let counts = |record: &Record| validity.admits(record).then_some(record.expires_at.0);
        let Some(expires_at) = self.shelf(holding).peek(hash, counts) else { return u64::MAX };
        if expires_at.is_none() {
            self.drop_ended(holding, hash, validity);
        }
        expires_at.unwrap_or(u64::MAX)
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
