//! What was written here lately, so that whoever owned the same keys meanwhile, or owns them next, can be told.
//!
//! Pure: time comes in as an argument; sends nothing. Keys are known by their hash, which is the same on every node. The
//! invariant: a change is either in the log or no newer than [`Changes::lost`] says, so that nothing is forgotten unawares.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::time::Duration;

use parking_lot::Mutex;

use crate::net::Moment;
use crate::store::Identity;

const SHARDS: usize = 16;

/// The log of one keyspace: the last change of each key, up to a number of keys.
pub(crate) struct Changes {
    shards: Box<[Mutex<Log>]>,
    keys_per_shard_max: usize,
}

/// When a key was written last, when this node came to know of it, and under which view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// What was loaded before it does not count: the time of the write, or the end of its hold, which may be still to come.
    pub(crate) at: Moment,
    pub(crate) view_seq: u32,
    /// Milliseconds from then until it was known here.
    late_ms: u32,
}

impl Change {
    fn new(at: Moment, known_at: Moment, view_seq: u32) -> Self {
        let late_ms = known_at.since(at).as_millis().try_into().unwrap_or(u32::MAX);
        Self { at, view_seq, late_ms }
    }

    /// As late as both in every respect.
    fn or_later(self, other: Self) -> Self {
        let known_at = self.known_at().max(other.known_at());
        Self::new(self.at.max(other.at), known_at, self.view_seq.max(other.view_seq))
    }

    /// Whom this node met last before then cannot have heard of it here.
    pub(crate) fn known_at(&self) -> Moment {
        self.at.after(Duration::from_millis(self.late_ms.into()))
    }
}

/// Whether a key was written under some view or a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    No,
    Yes,
    /// It may have been: the log does not reach back so far.
    Unknown,
}

#[derive(Default)]
struct Log {
    table: HashMap<u64, Change, BuildHasherDefault<Identity>>,
    /// By the time of the change as it was when it came here.
    order: VecDeque<(u64, Moment)>,
    /// At least as late as any change that is not in the table any more.
    lost: Option<Change>,
}

impl Changes {
    pub(crate) fn new(keys_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, keys_per_shard_max: keys_max.div_ceil(SHARDS).max(1) }
    }

    fn shard(&self, hash: u64) -> &Mutex<Log> {
        &self.shards[hash as usize % SHARDS]
    }

    pub(crate) fn note(&self, hash: u64, at: Moment, known_at: Moment, view_seq: u32) {
        let mut log = self.shard(hash).lock();
        log.note(hash, Change::new(at, known_at, view_seq));
        while log.table.len() > self.keys_per_shard_max {
            log.forget_oldest(known_at);
        }
    }

    /// There were changes up to `at` of which nobody knows what they were.
    pub(crate) fn note_lost(&self, at: Moment, known_at: Moment, view_seq: u32) {
        self.shards.iter().for_each(|log| log.lock().lose(Change::new(at, known_at, view_seq)));
    }

    #[cfg(test)]
    pub(crate) fn forget_all(&self, at: Moment, view_seq: u32) {
        for shard in &self.shards {
            *shard.lock() = Log { lost: Some(Change::new(at, at, view_seq)), ..Log::default() };
        }
    }

    /// Whether the key was written under view `view_seq` or a later one.
    pub(crate) fn written(&self, hash: u64, view_seq: u32) -> Written {
        let log = self.shard(hash).lock();
        match log.table.get(&hash) {
            Some(change) if change.view_seq >= view_seq => Written::Yes,
            _ if log.lost.is_some_and(|lost| lost.view_seq >= view_seq) => Written::Unknown,
            _ => Written::No,
        }
    }

    /// What is in the log and wanted, in no order.
    pub(crate) fn select(&self, mut wanted: impl FnMut(u64, Change) -> bool) -> Vec<(u64, Moment)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let log = shard.lock();
            found.extend(
                log.table
                    .iter()
                    .filter(|(hash, change)| wanted(**hash, **change))
                    .map(|(hash, change)| (*hash, change.at)),
            );
        }
        found
    }

    /// At least as late as any change that is not in the log any more; `None`: all are.
    pub(crate) fn lost(&self) -> Option<Change> {
        self.shards.iter().filter_map(|shard| shard.lock().lost).reduce(Change::or_later)
    }
}

impl Log {
    fn note(&mut self, hash: u64, change: Change) {
        match self.table.entry(hash) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                let newest = if change.at > known.at { change } else { *known };
                *known = Change { view_seq: known.view_seq.max(change.view_seq), ..newest };
            }
            Entry::Vacant(place) => {
                place.insert(change);
                self.order.push_back((hash, change.at));
            }
        }
    }

    /// A key that was written again since it came into the line goes to its end instead.
    fn forget_oldest(&mut self, now: Moment) {
        let Some((hash, came_at)) = self.order.pop_front() else { return };
        match self.table.get(&hash) {
            Some(change) if change.at > came_at => self.order.push_back((hash, change.at)),
            Some(change) => {
                // The end of a hold may be long to come, and is told by itself.
                let lost = Change::new(change.at.min(now), change.known_at().min(now), change.view_seq);
                self.lose(lost);
                self.table.remove(&hash);
            }
            None => {}
        }
    }

    fn lose(&mut self, change: Change) {
        self.lost = Some(self.lost.map_or(change, |lost| lost.or_later(change)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_written_under_the_view_of_its_last_change_and_those_before() {
        let changes = Changes::new(1_000);
        changes.note(7, Moment(10), Moment(15), 3);
        changes.note(7, Moment(20), Moment(20), 5);
        assert_eq!(changes.written(7, 5), Written::Yes);
        assert_eq!(changes.written(7, 6), Written::No);
        assert_eq!(changes.written(8, 1), Written::No);
        assert_eq!(changes.select(|_, _| true), [(7, Moment(20))]);
    }

    #[test]
    fn a_full_log_forgets_what_was_written_longest_ago_and_says_so() {
        let changes = Changes::new(2 * SHARDS);
        let key = |n: u64| n * SHARDS as u64;
        changes.note(key(1), Moment(10), Moment(15), 1);
        changes.note(key(2), Moment(20), Moment(25), 1);
        changes.note(key(1), Moment(30), Moment(30), 1);
        changes.note(key(3), Moment(40), Moment(40), 2);
        assert_eq!(changes.lost(), Some(Change::new(Moment(20), Moment(25), 1)));
        assert_eq!(changes.written(key(2), 1), Written::Unknown);
        assert_eq!(changes.written(key(2), 2), Written::No);
        assert_eq!(changes.written(key(1), 1), Written::Yes, "written again, and so not the oldest");
    }

    #[test]
    fn what_is_lost_of_a_hold_is_its_write_and_not_its_end() {
        let changes = Changes::new(SHARDS);
        changes.note(0, Moment(1_000), Moment(10), 1);
        changes.note(SHARDS as u64, Moment(20), Moment(20), 1);
        assert_eq!(changes.lost(), Some(Change::new(Moment(20), Moment(20), 1)));
    }

    #[test]
    fn what_nobody_knows_may_have_been_any_key() {
        let changes = Changes::new(1_000);
        changes.note_lost(Moment(10), Moment(10), 3);
        assert!(
            (0..100)
                .all(|hash| changes.written(hash, 3) == Written::Unknown && changes.written(hash, 4) == Written::No)
        );
    }

    proptest! {
        #[test]
        fn nothing_is_forgotten_unawares(writes in prop::collection::vec((0u64..40, 1u32..5), 0..200), keys_max in 1usize..40) {
            let changes = Changes::new(keys_max);
            let mut all = HashMap::new();
            for (at, (hash, view_seq)) in (1..).zip(writes) {
                changes.note(hash, Moment(at), Moment(at + 3), view_seq);
                let change = all.entry(hash).or_insert(Change::new(Moment(at), Moment(at + 3), view_seq));
                *change = Change { at: Moment(at), view_seq: change.view_seq.max(view_seq), ..*change };
            }
            let listed: HashMap<_, _> = changes.select(|_, _| true).into_iter().collect();
            prop_assert!(listed.len() <= keys_max.div_ceil(SHARDS) * SHARDS);
            for (hash, change) in all {
                match listed.get(&hash) {
                    Some(at) => prop_assert_eq!(*at, change.at),
                    None => prop_assert!(changes.lost().is_some_and(|lost| lost.at >= change.at && lost.view_seq >= change.view_seq)),
                }
                prop_assert_ne!(changes.written(hash, change.view_seq), Written::No);
            }
        }
    }
}
