//! What is found without asking anybody: the path of a hit.
//!
//! Knows neither flights nor peers. The invariants: no lock is held when this returns, nothing is allocated and nothing is sent; a hit
//! that has nothing to decide looks once, reads one clock, and counts itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use super::Core;
use crate::net;
use crate::stats::{Count, HITS_PER_SAMPLE};
use crate::store::{Holding, Look, Now, Record, Validity};

impl Core {
    /// What a reader of this node finds without asking anybody.
    #[inline]
    pub(super) fn lookup(self: &Arc<Self>, key: &str) -> Option<(Record, Holding)> {
        let hash = self.hash(key);
        let (record, holding) = self.held(hash, key)?;
        self.count_hit_of(hash, key, &record, holding);
        Some((record, holding))
    }

    /// The value alone: what most readers want, and all that a hit should cost. `None` inside: there is no such key.
    #[inline]
    pub(super) fn hit(self: &Arc<Self>, key: &str) -> Option<Option<Bytes>> {
        let hash = self.hash(key);
        match self.hit_at_once(hash, key) {
            Some(value) => Some(value),
            None => self.hit_that_is_due(hash, key),
        }
    }

    /// What is fresh, and nothing is done about what is not.
    pub(super) fn fresh(&self, key: &str) -> Option<Option<Bytes>> {
        let hash = self.hash(key);
        match self.hit_at_once(hash, key) {
            Some(value) => Some(value),
            None => self.due_but_fresh(hash, key),
        }
    }

    /// A hit with nothing to decide about.
    #[inline(always)]
    fn hit_at_once(&self, hash: u64, key: &str) -> Option<Option<Bytes>> {
        let (holding, validity) = self.standing(hash);
        let value = self.store.get_value(holding, hash, key, validity)?;
        if self.count_hit(value.is_none(), holding) {
            self.note_hit(hash, key);
        }
        Some(value)
    }

    /// Looks again: most likely there is nothing, but it may be that something is of an age to decide about.
    #[cold]
    fn hit_that_is_due(self: &Arc<Self>, hash: u64, key: &str) -> Option<Option<Bytes>> {
        let (record, holding) = self.held(hash, key)?;
        self.count_hit_of(hash, key, &record, holding);
        Some(record.into_value())
    }

    /// Notes a hit that stands for many: its key, and how long it takes. That is measured by looking once more, so that the hits
    /// that are not sampled read no clock for those that are.
    #[cold]
    fn note_hit(&self, hash: u64, key: &str) {
        self.note_reads(hash, key, HITS_PER_SAMPLE);
        let began = Instant::now();
        let again = self.hash(key);
        let (holding, validity) = self.standing(again);
        let found = self.store.get(holding, again, key, validity);
        if let Look::Hit(record) = std::hint::black_box(found) {
            self.counters.sampled_hit(began.elapsed());
            drop(record);
        }
    }

    #[cold]
    pub(super) fn note_reads(&self, hash: u64, key: &str, reads: u32) {
        self.hot_keys.note(hash, key, reads, self.node.clock.now(), net::chance());
    }

    pub(super) fn count_hit_of(&self, hash: u64, key: &str, record: &Record, holding: Holding) {
        if record.times.expires_at <= self.node.clock.now() {
            self.counters.one(Count::HitsStale);
            self.note_reads(hash, key, 1);
        } else if self.count_hit(record.is_negative(), holding) {
            self.note_hit(hash, key);
        }
    }

    /// Whether this hit is one of the few that are looked at more closely.
    #[inline]
    fn count_hit(&self, is_negative: bool, holding: Holding) -> bool {
        self.counters.hit(match holding {
            _ if is_negative => Count::HitsNegative,
            Holding::Owned => Count::HitsOwned,
            Holding::Hot => Count::HitsHot,
        })
    }

    #[inline]
    pub(super) fn held(self: &Arc<Self>, hash: u64, key: &str) -> Option<(Record, Holding)> {
        let (holding, validity) = self.standing(hash);
        match self.store.get(holding, hash, key, validity) {
            Look::Hit(record) => Some((record, holding)),
            Look::Due(record) => Some((self.judge(hash, key, holding, record)?, holding)),
            Look::Miss => None,
        }
    }

    /// Where this node would hold the key, and what a record there must satisfy.
    #[inline]
    pub(super) fn standing(&self, hash: u64) -> (Holding, Validity) {
        let tenure = self.node.tenures.of(hash);
        let holding = if tenure.is_mine { Holding::Owned } else { Holding::Hot };
        let (now, epoch) = (Now::Read(self.node.clock), self.epoch.load(Ordering::Acquire));
        (holding, Validity { now, epoch, slot_since: tenure.since })
    }
}
