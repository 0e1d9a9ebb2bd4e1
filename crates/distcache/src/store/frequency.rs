//! LFU that forgets: W-TinyLFU, after G. Einziger, R. Friedman and B. Manes, "TinyLFU: A Highly Efficient Cache Admission
//! Policy", ACM Transactions on Storage 13(4), 2017, in bytes instead of entries.
//!
//! A newcomer enters a small LRU window. What falls out of the window stays only if it was used more often of late than the
//! record that would have to go for it, the oldest of the main part; whoever is read there again is protected, up to a share.
//! How often is told by a sketch that also remembers those who are gone, and that is halved now and then. The record that was
//! inserted last is never the one that goes.

use super::Record;
use super::lists::{Lists, Place};
use super::policy::{Coldest, Policy, Pushed};
use super::sketch::Sketch;

/// The lists, from cold to hot.
const PROBATION: usize = 0;
const WINDOW: usize = 1;
const PROTECTED: usize = 2;

/// Part of the limit that newcomers have to themselves. The paper's hundredth loses to LRU where what was used just now is what
/// is used next; a fifth does well on every trace of the hit ratio bench.
const WINDOW_PART: f64 = 0.20;
/// Part of the rest that what was read again is safe in.
const PROTECTED_PART: f64 = 0.80;

pub(super) struct Frequency {
    lists: Lists<3>,
    sketch: Sketch,
    bytes_max: u64,
}

impl Frequency {
    pub(super) const OVERHEAD_BYTES: usize = size_of::<Record>() + 104;

    pub(super) fn new(bytes_max: u64) -> Self {
        Self { lists: Lists::new(Self::OVERHEAD_BYTES), sketch: Sketch::new(), bytes_max }
    }

    fn window_bytes(&self) -> u64 {
        (self.bytes_max as f64 * WINDOW_PART) as u64
    }

    fn protected_bytes(&self) -> u64 {
        ((self.bytes_max - self.window_bytes()) as f64 * PROTECTED_PART) as u64
    }

    fn used(&mut self, place: Place) {
        self.sketch.count(self.lists.hash(place));
        match self.lists.list_of(place) {
            PROBATION => {
                self.lists.renew(place, PROTECTED);
                self.bound_protected();
            }
            list => self.lists.renew(place, list),
        }
    }

    fn bound_protected(&mut self) {
        let most = self.protected_bytes();
        while self.lists.weight_of(PROTECTED) > most
            && let Some(oldest) = self.lists.oldest(PROTECTED)
        {
            self.lists.renew(oldest, PROBATION);
        }
    }

    /// The next to leave the window, unless it is the last that came.
    fn window_leaver(&self) -> Option<Place> {
        let is_over = self.lists.weight_of(WINDOW) > self.window_bytes() && self.lists.len_of(WINDOW) > 1;
        if is_over { self.lists.oldest(WINDOW) } else { None }
    }

    fn evict(&mut self, out: &mut Pushed) {
        while self.lists.weight() > self.bytes_max
            && let Some(loser) = self.loser()
        {
            out.push(self.lists.remove(loser));
        }
        while let Some(leaver) = self.window_leaver() {
            self.lists.renew(leaver, PROBATION);
        }
    }

    /// Who has to go: of the one that leaves the window and the oldest of the main part the one used less.
    fn loser(&mut self) -> Option<Place> {
        let oldest = self.lists.oldest(PROBATION).or_else(|| self.lists.oldest(PROTECTED));
        let (Some(leaver), Some(oldest)) = (self.window_leaver(), oldest) else {
            return oldest.or_else(|| self.lists.oldest(WINDOW));
        };
        self.lists.renew(leaver, PROBATION);
        let frequency = |place| self.sketch.frequency(self.lists.hash(place));
        Some(if frequency(leaver) > frequency(oldest) { oldest } else { leaver })
    }

    fn coldest(&self) -> Option<Place> {
        (PROBATION..=PROTECTED).find_map(|list| self.lists.oldest(list))
    }

    fn hottest(&self) -> Option<Place> {
        (PROBATION..=PROTECTED).rev().find_map(|list| self.lists.newest(list))
    }
}

impl Policy for Frequency {
    fn get(&mut self, hash: u64) -> Option<&Record> {
        let place = self.lists.find(hash)?;
        self.used(place);
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
                let before = self.lists.weight();
                let replaced = self.lists.replace(place, record);
                self.used(place);
                if self.lists.weight() > before {
                    // Through the window again, so that it is not the one to go for its own new size.
                    self.lists.renew(place, WINDOW);
                }
                Some(replaced)
            }
            None => {
                self.lists.add(WINDOW, hash, record);
                self.sketch.fit(self.lists.len());
                self.sketch.count(hash);
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
        self.bound_protected();
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
        self.lists.add(PROBATION, hash, record);
        self.sketch.fit(self.lists.len());
        self.sketch.count(hash);
        self.evict(out);
    }

    fn evict_taken_over(&mut self, out: &mut Pushed) -> bool {
        let oldest = self.lists.oldest(PROBATION);
        out.extend(oldest.map(|place| self.lists.remove(place)));
        oldest.is_some()
    }
}
