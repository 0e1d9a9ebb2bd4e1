//! One question per key at a time: whoever asks while it is under way waits for the same answer.
//!
//! Serves loads (asking the source) and fetches (asking the owner) alike, and knows neither. The invariants: an answer reaches
//! every waiter that still waits, whatever became of the caller that started the flight; a flight that was detached by an
//! invalidation still answers its waiters, but what it brings is not kept; what is stored or dropped under a key is stored or
//! dropped while the key's flights are locked, so that no answer slips in behind an invalidation.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hashbrown::HashTable;
use parking_lot::Mutex;
use slab::Slab;

use crate::error::{Error, Overload};
use crate::net::Moment;
use crate::spec::Entry;

/// How a flight ended.
pub(crate) type Outcome = Result<Landed, Failure>;

/// A value with what its asker may do with it.
#[derive(Clone, Debug)]
pub(crate) struct Landed {
    pub(crate) entry: Entry,
    pub(crate) version: u64,
    /// No invalidation came in between: the owner may give a lease on it.
    pub(crate) leasable: bool,
}

/// Why a flight brought nothing.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The question was answered with an error.
    Answered(Error),
    /// The question did not reach whom it was meant for; asking elsewhere may help.
    NotReached(Error),
    /// The owner says it is not the owner.
    NotOwner,
    /// Whoever held the question went away before asking; ask again.
    Abandoned,
}

const SHARDS: usize = 64;

/// The flights of one keyspace.
pub(crate) struct Flights {
    shards: Box<[Mutex<HashTable<Arc<Flight>>>]>,
    waiters_max: usize,
    joined_within: Duration,
}

struct Flight {
    hash: u64,
    key: Box<str>,
    begun: Stamp,
    state: Mutex<State>,
}

/// When, under which clear of the keyspace and under which view something was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) at: Moment,
    pub(crate) epoch: u32,
    pub(crate) view_seq: u32,
}

/// Who may join a flight: those for whom neither a clear nor a new owner of the slot came in between, and who do not come too late.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boarding {
    pub(crate) now: Stamp,
    /// The view under which the key's slot got its present owner.
    pub(crate) slot_since: u32,
    /// How long ago a flight may have begun.
    pub(crate) within: Duration,
}

impl Boarding {
    fn admits(self, begun: Stamp, joined_within: Duration) -> bool {
        let is_young = self.now.at.since(begun.at) <= joined_within.min(self.within);
        is_young && begun.epoch == self.now.epoch && begun.view_seq >= self.slot_since
    }
}

#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    wakers: Slab<Option<Waker>>,
}

impl Flights {
    pub(crate) fn new(waiters_max: usize) -> Self {
        Self::joined_for(waiters_max, Duration::MAX)
    }

    /// Whoever comes later than `limit` after a flight has begun starts another one.
    pub(crate) fn joined_for(waiters_max: usize, limit: Duration) -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), waiters_max, joined_within: limit }
    }

    fn shard(&self, hash: u64) -> &Mutex<HashTable<Arc<Flight>>> {
        &self.shards[hash as usize % SHARDS]
    }

    /// Joins the flight of this key, or starts it: then the caller also gets the ticket, and with it the duty to ask. A
    /// flight from before a clear, or to an earlier owner, goes on for those aboard and is joined by nobody else.
    pub(crate) fn join(
        self: &Arc<Self>,
        hash: u64,
        key: &str,
        boarding: Boarding,
    ) -> Result<(Waiter, Option<Ticket>), Error> {
        let mut shard = self.shard(hash).lock();
        if let Ok(flight) = shard.find_entry(hash, |flight| *flight.key == *key) {
            if boarding.admits(flight.get().begun, self.joined_within) {
                return Ok((Waiter::of(flight.get(), self.waiters_max)?, None));
            }
            flight.remove();
        }
        let (waiter, ticket) = self.begin_in(&mut shard, hash, key, boarding.now)?;
        Ok((waiter, Some(ticket)))
    }

    /// Starts a flight of this key whatever flies: what was under way is joined by nobody any more.
    pub(crate) fn begin(self: &Arc<Self>, hash: u64, key: &str, now: Stamp) -> Result<(Waiter, Ticket), Error> {
        let mut shard = self.shard(hash).lock();
        remove(&mut shard, hash, key);
        self.begin_in(&mut shard, hash, key, now)
    }

    fn begin_in(
        self: &Arc<Self>,
        shard: &mut HashTable<Arc<Flight>>,
        hash: u64,
        key: &str,
        now: Stamp,
    ) -> Result<(Waiter, Ticket), Error> {
        let flight = Arc::new(Flight { hash, key: key.into(), begun: now, state: Mutex::default() });
        shard.insert_unique(hash, flight.clone(), |flight| flight.hash);
        let waiter = Waiter::of(&flight, self.waiters_max)?;
        Ok((waiter, Ticket { flights: self.clone(), flight, landed: false }))
    }

    /// Detaches the key's flight, if there is one, and runs `change` (a store, a drop) before anything else can happen to it.
    pub(crate) fn detach<T>(&self, hash: u64, key: &str, change: impl FnOnce() -> T) -> T {
        let mut shard = self.shard(hash).lock();
        remove(&mut shard, hash, key);
        change()
    }

    /// The same of whatever key has this hash; whether a flight was under way.
    pub(crate) fn detach_hash<T>(&self, hash: u64, change: impl FnOnce(bool) -> T) -> T {
        let mut shard = self.shard(hash).lock();
        let mut found = false;
        while let Ok(flight) = shard.find_entry(hash, |flight| flight.hash == hash) {
            flight.remove();
            found = true;
        }
        change(found)
    }

    /// Detaches the flights of hashes that are wanted which had begun at `at`.
    pub(crate) fn detach_older(&self, at: Moment, is_wanted: impl Fn(u64) -> bool) {
        let is_older = |flight: &Arc<Flight>| flight.begun.at <= at && is_wanted(flight.hash);
        self.shards.iter().for_each(|shard| shard.lock().retain(|flight| !is_older(flight)));
    }

    /// Whether a key with this hash is asked for.
    pub(crate) fn is_under_way(&self, hash: u64) -> bool {
        self.shard(hash).lock().find(hash, |flight| flight.hash == hash).is_some()
    }

    /// Runs `change` while no answer for the key can land; flights under way go on.
    pub(crate) fn locked<T>(&self, hash: u64, change: impl FnOnce() -> T) -> T {
        let _shard = self.shard(hash).lock();
        change()
    }

    /// Flights under way that would still be joined.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

/// The flight of a key is joined by nobody any more.
fn remove(shard: &mut HashTable<Arc<Flight>>, hash: u64, key: &str) {
    if let Ok(flight) = shard.find_entry(hash, |flight| *flight.key == *key) {
        flight.remove();
    }
}

/// The duty to bring an answer. Dropped without one, it sends its waiters to ask again.
pub(crate) struct Ticket {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    landed: bool,
}

impl Ticket {
    pub(crate) fn key(&self) -> &str {
        &self.flight.key
    }

    pub(crate) fn hash(&self) -> u64 {
        self.flight.hash
    }

    /// Ends the flight. `settle` is told whether it is still attached, may store what it brought while the key is locked, and
    /// says what the waiters get.
    pub(crate) fn land(mut self, settle: impl FnOnce(bool) -> Outcome) {
        self.end(settle);
    }

    fn end(&mut self, settle: impl FnOnce(bool) -> Outcome) {
        self.landed = true;
        let flight = &self.flight;
        let outcome = {
            let mut shard = self.flights.shard(flight.hash).lock();
            let attached =
                shard.find_entry(flight.hash, |other| Arc::ptr_eq(other, flight)).map(|mine| mine.remove()).is_ok();
            settle(attached)
        };
        let wakers = {
            let mut state = flight.state.lock();
            state.outcome = Some(outcome);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().filter_map(|(_, waker)| waker).for_each(Waker::wake);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.landed {
            self.end(|_| Err(Failure::Abandoned));
        }
    }
}

/// A caller's place among those that wait for one flight.
pub(crate) struct Waiter {
    flight: Arc<Flight>,
    place: usize,
}

impl Waiter {
    fn of(flight: &Arc<Flight>, waiters_max: usize) -> Result<Self, Error> {
        let mut state = flight.state.lock();
        if state.wakers.len() >= waiters_max {
            return Err(Error::Overloaded { what: Overload::Waiters, limit: waiters_max });
        }
        let place = state.wakers.insert(None);
        Ok(Self { flight: flight.clone(), place })
    }
}

impl Future for Waiter {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = self.flight.state.lock();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        match state.wakers.get_mut(self.place) {
            Some(Some(waker)) => waker.clone_from(context.waker()),
            Some(empty) => *empty = Some(context.waker().clone()),
            None => unreachable!("a place is freed only by its waiter or with the outcome set"),
        }
        Poll::Pending
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.flight.state.lock().wakers.try_remove(self.place);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::spec::Origin;

    const NOW: Boarding =
        Boarding { now: Stamp { at: Moment(0), epoch: 1, view_seq: 5 }, slot_since: 3, within: Duration::MAX };

    fn flights() -> Arc<Flights> {
        Arc::new(Flights::new(3))
    }

    fn landed(text: &'static str) -> Outcome {
        let entry = Entry {
            value: Bytes::from_static(text.as_bytes()),
            origin: Origin::Loaded,
            age: Duration::ZERO,
            remaining: None,
            is_stale: false,
        };
        Ok(Landed { entry, version: 1, leasable: true })
    }

    fn text(outcome: Outcome) -> Bytes {
        outcome.unwrap().entry.value
    }

    #[tokio::test]
    async fn all_who_join_get_the_one_answer() {
        let flights = flights();
        let (first, ticket) = flights.join(1, "k", NOW).unwrap();
        let (second, none) = flights.join(1, "k", NOW).unwrap();
        let (other, other_ticket) = flights.join(1, "same hash", NOW).unwrap();
        assert!(none.is_none());
        ticket.unwrap().land(|attached| {
            assert!(attached);
            landed("v")
        });
        other_ticket.unwrap().land(|_| landed("o"));
        assert_eq!((text(first.await), text(second.await), text(other.await)), ("v".into(), "v".into(), "o".into()));
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn a_first_caller_that_goes_away_fails_nobody() {
        let flights = flights();
        let (first, ticket) = flights.join(1, "k", NOW).unwrap();
        let (second, _) = flights.join(1, "k", NOW).unwrap();
        drop(first);
        ticket.unwrap().land(|_| landed("v"));
        assert_eq!(text(second.await), "v");
    }

    #[tokio::test]
    async fn a_detached_flight_answers_its_waiters_but_is_not_joined_and_knows_it() {
        let flights = flights();
        let (old, old_ticket) = flights.join(1, "k", NOW).unwrap();
        flights.detach(1, "k", || ());
        let (new, new_ticket) = flights.join(1, "k", NOW).unwrap();
        old_ticket.unwrap().land(|attached| {
            assert!(!attached);
            landed("old")
        });
        assert_eq!(flights.len(), 1, "landing of the old flight must not remove the new one");
        new_ticket.unwrap().land(|attached| {
            assert!(attached);
            landed("new")
        });
        assert_eq!((text(old.await), text(new.await)), ("old".into(), "new".into()));
    }

    #[tokio::test]
    async fn a_flight_that_has_been_under_way_for_long_is_not_joined() {
        let flights = Arc::new(Flights::joined_for(3, Duration::from_millis(100)));
        let at = |millis| Boarding { now: Stamp { at: Moment(millis), ..NOW.now }, ..NOW };
        let (_old, old_ticket) = flights.join(1, "k", at(50)).unwrap();
        assert!(flights.join(1, "k", at(150)).unwrap().1.is_none());
        let (_new, new_ticket) = flights.join(1, "k", at(151)).unwrap();
        old_ticket.unwrap().land(|attached| {
            assert!(!attached);
            landed("old")
        });
        new_ticket.unwrap().land(|attached| {
            assert!(attached);
            landed("new")
        });
    }

    #[tokio::test]
    async fn older_flights_are_detached_together_and_younger_ones_are_not() {
        let flights = flights();
        let at = |millis| Boarding { now: Stamp { at: Moment(millis), ..NOW.now }, ..NOW };
        let (_old, old) = flights.join(1, "old", at(50)).unwrap();
        let (_other, other) = flights.join(2, "other", at(50)).unwrap();
        let (_young, young) = flights.join(65, "young", at(51)).unwrap();
        flights.detach_older(Moment(50), |hash| hash != 2);
        let attached = [old, other, young].map(|ticket| {
            let mut was = false;
            ticket.unwrap().land(|attached| {
                was = attached;
                landed("v")
            });
            was
        });
        assert_eq!(attached, [false, true, true]);
    }

    #[tokio::test]
    async fn who_must_not_join_what_began_long_ago_starts_another() {
        let flights = flights();
        let at = |millis, within| Boarding { now: Stamp { at: Moment(millis), ..NOW.now }, within, ..NOW };
        let limit = Duration::from_millis(10);
        let (_first, _ticket) = flights.join(1, "k", at(0, limit)).unwrap();
        assert!(flights.join(1, "k", at(10, limit)).unwrap().1.is_none());
        assert!(flights.join(1, "k", at(11, Duration::MAX)).unwrap().1.is_none());
        assert!(flights.join(1, "k", at(11, limit)).unwrap().1.is_some());
    }

    #[tokio::test]
    async fn a_flight_from_before_a_clear_or_to_an_earlier_owner_is_not_joined() {
        let flights = flights();
        let boarding =
            |view_seq, slot_since| Boarding { now: Stamp { at: Moment(0), epoch: 2, view_seq }, slot_since, ..NOW };
        let (cleared, moved, elsewhere_moved) = (boarding(5, 3), boarding(6, 6), boarding(7, 6));
        let (old, old_ticket) = flights.join(1, "k", NOW).unwrap();
        let (_, second) = flights.join(1, "k", cleared).unwrap();
        let (_, third) = flights.join(1, "k", moved).unwrap();
        assert!(second.is_some() && third.is_some());
        assert!(flights.join(1, "k", elsewhere_moved).unwrap().1.is_none());
        old_ticket.unwrap().land(|attached| {
            assert!(!attached);
            landed("old")
        });
        assert_eq!(text(old.await), "old");
    }

    #[tokio::test]
    async fn a_ticket_that_is_dropped_sends_its_waiters_to_ask_again() {
        let flights = flights();
        let (waiter, ticket) = flights.join(1, "k", NOW).unwrap();
        drop(ticket);
        assert!(matches!(waiter.await, Err(Failure::Abandoned)));
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn waiters_over_the_limit_are_refused_and_a_place_is_freed_by_leaving() {
        let flights = flights();
        let (first, _ticket) = flights.join(1, "k", NOW).unwrap();
        let _second = flights.join(1, "k", NOW).unwrap();
        let _third = flights.join(1, "k", NOW).unwrap();
        assert!(matches!(flights.join(1, "k", NOW), Err(Error::Overloaded { what: Overload::Waiters, limit: 3 })));
        drop(first);
        assert!(flights.join(1, "k", NOW).is_ok());
    }
}
