//! LRU and FIFO: one queue of records, the oldest of which goes; a read makes a record the newest again, or does not.
//!
//! Exact within its shard. What was taken over from another policy stands in a queue of its own that is emptied first, so that
//! it counts as older than whatever came since. An overwrite is a new arrival.

use super::Record;
use super::lists::{Lists, Place};
use super::policy::{Coldest, Pushed};

const OWN: usize = 0;
const TAKEN_OVER: usize = 1;

pub(super) struct Queue {
    lists: Lists<2>,
    bytes_max: u64,
    reads_renew: bool,
}

impl Queue {
    pub(super) const OVERHEAD_BYTES: usize = size_of::<Record>() + 92;

    /// Least recently used.
    pub(super) fn lru(bytes_max: u64) -> Self {
        Self { lists: Lists::new(Self::OVERHEAD_BYTES), bytes_max, reads_renew: true }
    }

    /// First in, first out.
    pub(super) fn fifo(bytes_max: u64) -> Self {
        Self { reads_renew: false, ..Self::lru(bytes_max) }
    }

    fn coldest(&self) -> Option<Place> {
        self.lists.oldest(TAKEN_OVER).or_else(|| self.lists.oldest(OWN))
    }

    fn hottest(&self) -> Option<Place> {
        self.lists.newest(OWN).or_else(|| self.lists.newest(TAKEN_OVER))
    }

    fn evict(&mut self, out: &mut Pushed) {
        while self.lists.weight() > self.bytes_max
            && let Some(place) = self.coldest()
        {
            out.push(self.lists.remove(place));
        }
    }
}

impl super::policy::Policy for Queue {
    fn get(&mut self, hash: u64) -> Option<&Record> {
        let place = self.lists.find(hash)?;
        if self.reads_renew {
            self.lists.renew(place, OWN);
        }
        Some(self.lists.record(place))
    }

    fn get_shared(&self, hash: u64) -> Option<&Record> {
        self.peek(hash)
    }

    fn peek(&self, hash: u64) -> Option<&Record> {
        self.lists.find(hash).map(|place| self.lists.record(place))
    }

    fn amend<T>(&mut self, hash: u64, change: impl FnOnce(&mut Record) -> T) -> Option<T> {
        let place = self.lists.find(hash)?;
        Some(change(self.lists.record_mut(place)))
    }

    fn insert(&mut self, hash: u64, record: Record, out: &mut Pushed) -> Option<Record> {
        let replaced = match self.lists.find(hash) {
            Some(place) => {
                self.lists.renew(place, OWN);
                Some(self.lists.replace(place, record))
            }
            None => {
                self.lists.add(OWN, hash, record);
                None
            }
        };
        self.evict(out);
        replaced
    }

    fn remove_if(&mut self, hash: u64, condition: impl FnOnce(&Record) -> bool) -> Option<Record> {
        let place = self.lists.find(hash)?;
        condition(self.lists.record(place)).then(|| self.lists.remove(place).1)
    }

    fn hashes(&self, out: &mut Vec<u64>) {
        self.lists.hashes(out);
    }

    fn len(&self) -> usize {
        self.lists.len()
    }

    fn weight(&self) -> u64 {
        self.lists.weight()
    }

    fn set_bytes_max(&mut self, bytes_max: u64, out: &mut Pushed) {
        self.bytes_max = bytes_max;
        self.evict(out);
    }

    fn give(&mut self, records: usize, coldest: Coldest, out: &mut Pushed) {
        for _ in 0..records {
            let next = match coldest {
                Coldest::First => self.coldest(),
                Coldest::Last => self.hottest(),
            };
            let Some(place) = next else { return };
            out.push(self.lists.remove(place));
        }
    }

    const TAKES: Coldest = Coldest::First;

    fn take_over(&mut self, hash: u64, record: Record, out: &mut Pushed) {
        self.lists.add(TAKEN_OVER, hash, record);
        self.evict(out);
    }

    fn evict_taken_over(&mut self, out: &mut Pushed) -> bool {
        let oldest = self.lists.oldest(TAKEN_OVER);
        out.extend(oldest.map(|place| self.lists.remove(place)));
        oldest.is_some()
    }
}
