//! Entries past their best: what is answered meanwhile, and who loads them again.
//!
//! The owner alone loads again, by the same flights as everybody else: so once at a time, and never over a newer put or a deleted
//! key. Knows nothing of the source. The invariants: nobody waits for a load that is made in the background; a key whose load has
//! just failed is left alone for a moment, however often it is read; an error is answered only where no value may be.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::{Core, Purpose, entry_of};
use crate::error::Error;
use crate::expiry::{Phase, Rules};
use crate::flight::{Failure, Landed, Outcome};
use crate::net::Moment;
use crate::spec::Origin;
use crate::stats::Count;
use crate::store::{Holding, Look, Record};

/// A key whose load has failed is not loaded again for this long, in milliseconds, where a value past its lifetime may be
/// answered in place of it.
const FAILURE_PAUSE_MS: u64 = 1_000;

impl Core {
    /// What a reader gets of a record that is due: at most it has to be loaded again.
    #[cold]
    pub(super) fn judge(self: &Arc<Self>, hash: u64, key: &str, holding: Holding, record: Record) -> Option<Record> {
        let now = self.node.clock.now();
        let rules = self.definition.load().rules;
        match record.times.phase(&rules, record.version, now) {
            Phase::Fresh { refresh, note } => {
                if note {
                    self.note_use(hash, holding, record.version, &rules, now);
                }
                if refresh && holding == Holding::Owned {
                    self.renew(hash, key, record.version, Count::RefreshesAhead);
                }
                Some(record)
            }
            Phase::Stale => {
                self.renew(hash, key, record.version, Count::RefreshesStale);
                Some(record)
            }
            Phase::Spare | Phase::Gone => None,
        }
    }

    /// The value of a record that is due, if its lifetime is not over; its use is noted, and nothing is loaded.
    #[cold]
    pub(super) fn due_but_fresh(&self, hash: u64, key: &str) -> Option<Option<Bytes>> {
        let (holding, validity) = self.standing(hash);
        let Look::Due(record) = self.store.get(holding, hash, key, validity) else { return None };
        let (rules, now) = (self.definition.load().rules, self.node.clock.now());
        let Phase::Fresh { note, .. } = record.times.phase(&rules, record.version, now) else { return None };
        if note {
            self.note_use(hash, holding, record.version, &rules, now);
        }
        self.count_hit_of(hash, key, &record, holding);
        Some(record.into_value())
    }

    fn note_use(&self, hash: u64, holding: Holding, version: u64, rules: &Rules, now: Moment) {
        self.store.amend(holding, hash, version, |times| times.note_use(rules, version, now));
    }

    /// Loads a key of ours, held as `version`, again in the background, unless that is under way, done or has just failed.
    pub(super) fn renew(self: &Arc<Self>, hash: u64, key: &str, version: u64, cause: Count) {
        if self.failures.is_recent(hash, self.node.clock.now()) {
            return;
        }
        let boarding = self.boarding(hash, self.view_seq(), Duration::MAX);
        let Ok((_, Some(ticket))) = self.loads.join(hash, key, boarding) else { return };
        let left = match self.is_held_as(hash, key, version) {
            true => Some(ticket),
            // Somebody may have joined it by now.
            false => self.land_if_held(ticket),
        };
        if let Some(ticket) = left {
            self.counters.one(cause);
            self.start_loads(vec![ticket], Purpose::Own);
        }
    }

    /// Whether no other load has landed, and nothing was written, since the record was read.
    fn is_held_as(&self, hash: u64, key: &str, version: u64) -> bool {
        self.owned_record(hash, key).is_some_and(|record| record.version == version)
    }

    /// What this node holds of a key that it owns, of whatever age.
    pub(super) fn owned_record(&self, hash: u64, key: &str) -> Option<Record> {
        let (holding, validity) = self.standing(hash);
        match self.store.get(holding, hash, key, validity) {
            Look::Hit(record) | Look::Due(record) if holding == Holding::Owned => Some(record),
            _ => None,
        }
    }

    /// Loads as the owner, for somebody who waits; with what may be answered where that fails or is late.
    pub(super) async fn load_or_spare(self: &Arc<Self>, hash: u64, key: &str) -> Outcome {
        let late_at = self.late_at();
        self.or_spare(hash, key, late_at, self.load(hash, key, Purpose::Own)).await
    }

    /// From when on those who begin to wait now may be answered with a value past its lifetime.
    pub(super) fn late_at(&self) -> Option<Instant> {
        self.definition.load().settings.soft_timeout.map(|limit| Instant::now() + limit)
    }

    /// What a load comes to; where it fails or is late, the value past its lifetime, if there is one that may be answered.
    pub(super) async fn or_spare(
        &self,
        hash: u64,
        key: &str,
        late_at: Option<Instant>,
        load: impl Future<Output = Outcome>,
    ) -> Outcome {
        let mut load = pin!(load);
        let in_time = match late_at {
            Some(late_at) => timeout_at(late_at, &mut load).await.ok(),
            None => Some(load.as_mut().await),
        };
        let outcome = match in_time {
            Some(outcome) => outcome,
            None => match self.spare(hash, key) {
                Some(spare) => return Ok(spare),
                None => load.await,
            },
        };
        match outcome {
            Err(Failure::Answered(error)) if !error.is_not_found() => {
                self.spare(hash, key).ok_or(Failure::Answered(error))
            }
            outcome => outcome,
        }
    }

    /// A value of ours that may be answered although its lifetime is over.
    pub(super) fn spare(&self, hash: u64, key: &str) -> Option<Landed> {
        let (record, now) = (self.owned_record(hash, key)?, self.node.clock.now());
        let version = record.version;
        if record.times.phase(&self.definition.load().rules, version, now) == Phase::Gone {
            return None;
        }
        let entry = entry_of(record, Origin::Owned, now).ok()?;
        if entry.is_stale {
            self.counters.one(Count::StaleOnError);
        }
        Some(Landed { entry, version, leasable: false })
    }

    /// A spare value for a key whose load has failed a moment ago, so that its readers do not wait for the next failure.
    pub(super) fn spare_after_failure(&self, hash: u64, key: &str) -> Option<Landed> {
        let is_recent = self.failures.is_recent(hash, self.node.clock.now());
        if is_recent { self.spare(hash, key) } else { None }
    }

    /// Turns an error into the spare value, where the caller's time is up before the load's.
    pub(super) fn spare_or(&self, hash: u64, key: &str, error: Error) -> Result<crate::spec::Entry, Error> {
        self.spare(hash, key).map(|spare| spare.entry).ok_or(error)
    }
}

/// When loads of keys have failed: a table of fixed size that forgets. Of two keys in one place the later one stays, so a key may be
/// asked for again too early; one that has not failed is never held back, but for a collision of half its hash.
pub(super) struct Failures(Box<[AtomicU64]>);

const PLACES: usize = 4_096;
/// Upper half: part of the hash. Lower half: the time, which wraps after weeks.
const TIME_BITS: u32 = 32;

impl Failures {
    pub(super) fn new() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    fn place(&self, hash: u64) -> &AtomicU64 {
        &self.0[hash as usize % PLACES]
    }

    pub(super) fn note(&self, hash: u64, now: Moment) {
        self.place(hash).store(hash >> TIME_BITS << TIME_BITS | now.0 & u64::from(u32::MAX), Relaxed);
    }

    pub(super) fn forget(&self, hash: u64) {
        let place = self.place(hash);
        let seen = place.load(Relaxed);
        if seen != 0 && seen >> TIME_BITS == hash >> TIME_BITS {
            // Lost to a failure noted in between: then that one counts.
            let _ = place.compare_exchange(seen, 0, Relaxed, Relaxed);
        }
    }

    pub(super) fn is_recent(&self, hash: u64, now: Moment) -> bool {
        let seen = self.place(hash).load(Relaxed);
        let since = (now.0 as u32).wrapping_sub(seen as u32);
        seen != 0 && seen >> TIME_BITS == hash >> TIME_BITS && u64::from(since) < FAILURE_PAUSE_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_remembered_for_a_moment_and_only_of_its_key() {
        let failures = Failures::new();
        let (hash, other) = (7 << 40 | 5, 9 << 40 | 5);
        assert!(!failures.is_recent(hash, Moment(0)));
        failures.note(hash, Moment(10_000));
        assert!(failures.is_recent(hash, Moment(10_999)));
        assert!(!failures.is_recent(hash, Moment(11_000)));
        assert!(!failures.is_recent(other, Moment(10_500)));
        failures.forget(other);
        assert!(failures.is_recent(hash, Moment(10_500)));
        failures.forget(hash);
        assert!(!failures.is_recent(hash, Moment(10_500)));
    }
}
