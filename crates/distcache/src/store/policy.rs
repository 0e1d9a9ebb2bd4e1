//! What an eviction policy has to do for one shard, and the choice between the policies.
//!
//! Knows neither locks nor keys nor whether a record counts. The invariants: the weight of all records, bookkeeping included,
//! stays under the limit; whatever is pushed out for it is handed to the caller, who drops it when no lock is held; the record
//! inserted last is never among it.

use super::Record;
use super::frequency::Frequency;
use super::queue::Queue;
use super::scan::ScanResistant;
use crate::spec::Eviction;

/// Records that had to go, with the hashes they stood under.
pub(super) type Pushed = Vec<(u64, Record)>;

/// In which order records are handed from one policy to the next, so that the next ranks them as the former did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coldest {
    First,
    Last,
}

pub(super) trait Policy {
    /// The record under this hash; counts as a use.
    fn get(&mut self, hash: u64) -> Option<&Record>;

    /// The same for readers who share the policy: as much of a use as can be noted so.
    fn get_shared(&self, hash: u64) -> Option<&Record>;

    /// The record under this hash; no use.
    fn peek(&self, hash: u64) -> Option<&Record>;

    /// Changes a record where it stands, but for its key and value; no use.
    fn amend<T>(&mut self, hash: u64, change: impl FnOnce(&mut Record) -> T) -> Option<T>;

    /// Stores a record that fits. What it replaced is returned, what had to go for it is pushed.
    fn insert(&mut self, hash: u64, record: Record, out: &mut Pushed) -> Option<Record>;

    fn remove_if(&mut self, hash: u64, condition: impl FnOnce(&Record) -> bool) -> Option<Record>;

    /// The hashes of all records.
    fn hashes(&self, out: &mut Vec<u64>);

    fn len(&self) -> usize;

    fn weight(&self) -> u64;

    fn set_bytes_max(&mut self, bytes_max: u64, out: &mut Pushed);

    /// Hands over about so many records, at least one while there is one, the coldest first or last as far as the policy can
    /// tell.
    fn give(&mut self, records: usize, coldest: Coldest, out: &mut Pushed);

    /// The order in which this policy wants what it takes over.
    const TAKES: Coldest;

    /// Stores what another policy gave, as colder than all that was inserted here. There is none under its hash.
    fn take_over(&mut self, hash: u64, record: Record, out: &mut Pushed);

    /// Evicts the coldest of what was taken over; `false`: there is none, or it cannot be told.
    fn evict_taken_over(&mut self, out: &mut Pushed) -> bool;
}

/// One of the policies. A match costs a hit next to nothing: it goes the same way every time.
pub(super) enum Chosen {
    ScanResistant(ScanResistant),
    Queue(Queue),
    Frequency(Frequency),
}

macro_rules! each {
    ($self:expr, $policy:ident => $call:expr) => {
        match $self {
            Chosen::ScanResistant($policy) => $call,
            Chosen::Queue($policy) => $call,
            Chosen::Frequency($policy) => $call,
        }
    };
}

impl Chosen {
    pub(super) fn new(eviction: Eviction, bytes_max: u64) -> Self {
        match eviction {
            Eviction::ScanResistant => Self::ScanResistant(ScanResistant::new(bytes_max)),
            Eviction::Lru => Self::Queue(Queue::lru(bytes_max)),
            Eviction::Fifo => Self::Queue(Queue::fifo(bytes_max)),
            Eviction::Lfu => Self::Frequency(Frequency::new(bytes_max)),
        }
    }

    pub(super) fn takes(&self) -> Coldest {
        match self {
            Self::ScanResistant(_) => ScanResistant::TAKES,
            Self::Queue(_) => Queue::TAKES,
            Self::Frequency(_) => Frequency::TAKES,
        }
    }

    pub(super) fn get(&mut self, hash: u64) -> Option<&Record> {
        each!(self, policy => policy.get(hash))
    }

    #[inline]
    pub(super) fn get_shared(&self, hash: u64) -> Option<&Record> {
        each!(self, policy => policy.get_shared(hash))
    }

    pub(super) fn peek(&self, hash: u64) -> Option<&Record> {
        each!(self, policy => policy.peek(hash))
    }

    pub(super) fn amend<T>(&mut self, hash: u64, change: impl FnOnce(&mut Record) -> T) -> Option<T> {
        each!(self, policy => policy.amend(hash, change))
    }

    pub(super) fn insert(&mut self, hash: u64, record: Record, out: &mut Pushed) -> Option<Record> {
        each!(self, policy => policy.insert(hash, record, out))
    }

    pub(super) fn remove_if(&mut self, hash: u64, condition: impl FnOnce(&Record) -> bool) -> Option<Record> {
        each!(self, policy => policy.remove_if(hash, condition))
    }

    pub(super) fn hashes(&self, out: &mut Vec<u64>) {
        each!(self, policy => policy.hashes(out));
    }

    pub(super) fn len(&self) -> usize {
        each!(self, policy => policy.len())
    }

    pub(super) fn weight(&self) -> u64 {
        each!(self, policy => policy.weight())
    }

    pub(super) fn set_bytes_max(&mut self, bytes_max: u64, out: &mut Pushed) {
        each!(self, policy => policy.set_bytes_max(bytes_max, out));
    }

    pub(super) fn give(&mut self, records: usize, coldest: Coldest, out: &mut Pushed) {
        each!(self, policy => policy.give(records, coldest, out));
    }

    pub(super) fn take_over(&mut self, hash: u64, record: Record, out: &mut Pushed) {
        each!(self, policy => policy.take_over(hash, record, out));
    }

    pub(super) fn evict_taken_over(&mut self, out: &mut Pushed) -> bool {
        each!(self, policy => policy.evict_taken_over(out))
    }
}

/// Bytes that a record takes beside its key and value under a policy: its slot and its part of the index (with the slack of
/// their growth), the reference count, and the allocator's rounding. Measured by the memory bench.
pub(super) const fn overhead_bytes(eviction: Eviction) -> usize {
    match eviction {
        Eviction::ScanResistant => ScanResistant::OVERHEAD_BYTES,
        Eviction::Lru | Eviction::Fifo => Queue::OVERHEAD_BYTES,
        Eviction::Lfu => Frequency::OVERHEAD_BYTES,
    }
}
