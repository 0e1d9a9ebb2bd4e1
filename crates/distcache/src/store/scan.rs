//! The policy that a scan of everything does not spoil: `quick_cache`, a variant of CLOCK-Pro and S3-FIFO.
//!
//! The only file that names the cache crate. A read notes its use in an atomic beside the record, so readers share the policy.

use std::hash::BuildHasherDefault;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use quick_cache::unsync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::policy::{Coldest, Policy, Pushed};
use super::{Identity, Record};

/// Part of the limit that what is used again may take.
const HOT_ALLOCATION: f64 = 0.90;
/// The memory of evicted keys is sized for values of this many bytes on average.
const EXPECTED_RECORD_BYTES: u64 = 1024;
const EXPECTED_RECORDS_MIN: u64 = 32;

pub(super) struct ScanResistant {
    cache: Cache<u64, Record, ByBytes, BuildHasherDefault<Identity>, Collect>,
    given: Arc<Given>,
}

#[derive(Clone, Copy)]
struct ByBytes;

impl Weighter<u64, Record> for ByBytes {
    fn weight(&self, _: &u64, record: &Record) -> u64 {
        record.weight(ScanResistant::OVERHEAD_BYTES)
    }
}

/// Collects what is pushed out, to be counted and dropped after the lock is released.
struct Collect(Arc<Given>);

/// A change of capacity has no place for what it pushes out but this.
#[derive(Default)]
struct Given {
    is_wanted: AtomicBool,
    records: Mutex<Pushed>,
}

impl Lifecycle<u64, Record> for Collect {
    type RequestState = Pushed;

    fn on_evict(&self, out: &mut Pushed, hash: u64, record: Record) {
        if self.0.is_wanted.load(Relaxed) {
            self.0.records.lock().push((hash, record));
        } else {
            out.push((hash, record));
        }
    }
}

impl ScanResistant {
    pub(super) const OVERHEAD_BYTES: usize = size_of::<Record>() + 104;

    pub(super) fn new(bytes_max: u64) -> Self {
        let options = OptionsBuilder::new()
            .weight_capacity(bytes_max)
            .estimated_items_capacity((bytes_max / EXPECTED_RECORD_BYTES).max(EXPECTED_RECORDS_MIN) as usize)
            .hot_allocation(HOT_ALLOCATION)
            .build()
            .expect("weight and item capacity are set");
        let given = Arc::new(Given::default());
        let cache = Cache::with_options(options, ByBytes, BuildHasherDefault::default(), Collect(given.clone()));
        Self { cache, given }
    }

    /// The most that one record may weigh, of a shard's bytes.
    pub(super) fn weight_max(shard_bytes: u64) -> u64 {
        (shard_bytes as f64 * HOT_ALLOCATION) as u64
    }
}

impl Policy for ScanResistant {
    /// Only asked for while another policy takes over, when no use matters any more.
    fn get(&mut self, hash: u64) -> Option<&Record> {
        self.cache.peek(&hash)
    }

    #[inline]
    fn get_shared(&self, hash: u64) -> Option<&Record> {
        self.cache.get(&hash)
    }

    fn peek(&self, hash: u64) -> Option<&Record> {
        self.cache.peek(&hash)
    }

    fn amend<T>(&mut self, hash: u64, change: impl FnOnce(&mut Record) -> T) -> Option<T> {
        self.cache.peek_mut(&hash).map(|mut record| change(&mut record))
    }

    fn insert(&mut self, hash: u64, record: Record, out: &mut Pushed) -> Option<Record> {
        let first = out.len();
        self.cache.insert_with_lifecycle(hash, record, out);
        // What was replaced is among them, and is not an eviction.
        let replaced = out[first..].iter().position(|(other, _)| *other == hash)?;
        Some(out.swap_remove(first + replaced).1)
    }

    fn remove_if(&mut self, hash: u64, condition: impl FnOnce(&Record) -> bool) -> Option<Record> {
        self.cache.remove_if(&hash, condition).map(|(_, record)| record)
    }

    fn hashes(&self, out: &mut Vec<u64>) {
        out.extend(self.cache.iter().map(|(hash, _)| *hash));
    }

    fn len(&self) -> usize {
        self.cache.len()
    }

    fn weight(&self) -> u64 {
        self.cache.weight()
    }

    fn set_bytes_max(&mut self, bytes_max: u64, out: &mut Pushed) {
        self.given.is_wanted.store(true, Relaxed);
        self.cache.set_capacity(bytes_max);
        self.given.is_wanted.store(false, Relaxed);
        out.append(&mut mem::take(&mut *self.given.records.lock()));
    }

    /// By a smaller capacity, so the coldest come first whatever is asked for.
    fn give(&mut self, records: usize, _: Coldest, out: &mut Pushed) {
        let (weight, len) = (self.cache.weight(), self.cache.len());
        if len > 0 {
            let rest = (weight as f64 * (len.saturating_sub(records) as f64 / len as f64)) as u64;
            self.set_bytes_max(rest.min(weight - 1), out);
        }
    }

    /// What comes while there is room is taken for hot.
    const TAKES: Coldest = Coldest::Last;

    fn take_over(&mut self, hash: u64, record: Record, out: &mut Pushed) {
        self.cache.insert_with_lifecycle(hash, record, out);
    }

    fn evict_taken_over(&mut self, _: &mut Pushed) -> bool {
        false
    }
}
