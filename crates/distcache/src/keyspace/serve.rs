//! What peers are answered: this node as the owner.
//!
//! Never asks a third node: who is not the owner in its own view says so. The invariant: the asker is registered as a holder on
//! arrival, before anything is read for it, so that no write can fall between its answer and the books.

use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::write::{Effect, Write};
use crate::builder::TIMEOUT_MAX;
use crate::error::Error;
use crate::flight::{Failure, Landed, Outcome};
use crate::net::Moment;
use crate::peer::wire::{Answer, Get, GetMany, PutEntry, Value};
use crate::promise::Rule;
use crate::ring::NodeId;
use crate::spec::Origin;
use crate::stats::{Count, HITS_PER_SAMPLE};
use crate::store::{Holding, Record};

/// Whoever asked counts as a holder at least this long: as long as others may join its question and take the answer for theirs.
pub(super) const IN_TRANSIT: Duration = Duration::from_secs(1);
/// How long a peer waits while it is being found out what others wrote in this node's place. Then it is told to look elsewhere: what
/// is here may be older than a write that everybody else has seen.
const DOUBT_WAIT: Duration = Duration::from_millis(100);
/// Only where a simulation does without [`Rule::RegisterOnArrival`].
const LATE_BOOKS: Duration = Duration::from_millis(20);

/// How long the owner counts whoever it gave a lease as a holder: clocks run at slightly different rates, and tick in steps.
pub(super) fn in_books(lease: Duration) -> Duration {
    let held = lease.max(IN_TRANSIT);
    held + held / 50 + Duration::from_millis(20)
}

/// What the owner answers for one key, before it is put into bytes.
pub(crate) enum Served {
    Landed { landed: Landed, lease: Duration },
    NotFound,
    NotOwner,
    Failed(Error),
}

impl Served {
    pub(crate) fn as_answer(&self) -> Answer<'_> {
        match self {
            Self::Landed { landed, lease } => Answer::Value(Value {
                value: &landed.entry.value,
                loaded: !landed.entry.origin.is_hit(),
                is_stale: landed.entry.is_stale,
                age: landed.entry.age,
                remaining: landed.entry.remaining,
                lease: if landed.leasable { *lease } else { Duration::ZERO },
                version: landed.version,
            }),
            Self::NotFound => Answer::NotFound,
            Self::NotOwner => Answer::NotOwner,
            Self::Failed(error) => Answer::Failed(error.clone()),
        }
    }
}

impl Core {
    /// Answers from what is stored; `false`: this needs more than a look.
    pub(crate) fn serve_at_once(
        self: &Arc<Self>,
        from: NodeId,
        get: &Get<'_>,
        answer: &mut dyn FnMut(Answer<'_>),
    ) -> bool {
        self.advance(get.keyspace.generation);
        if self.node.is_in_doubt() {
            return false;
        }
        let hash = self.hash(get.key);
        if !self.node.tenures.of(hash).is_mine {
            match self.look_at_departed(hash, get.key) {
                Some(record) => serve_record(record, self.node.clock.now(), Duration::ZERO, answer),
                None => answer(Answer::NotOwner),
            }
            return true;
        }
        let now = self.node.clock.now();
        let on_arrival = self.node.promise.keeps(Rule::RegisterOnArrival);
        let mut lease = Duration::ZERO;
        if on_arrival {
            lease = self.register(hash, from, get.wants_copy, now, Duration::ZERO);
        }
        let Some((record, Holding::Owned)) = self.held(hash, get.key) else {
            return false;
        };
        if !on_arrival {
            lease = self.register_late(hash, from, get.wants_copy);
        }
        if self.counters.hit(Count::Served) {
            self.note_reads(hash, get.key, HITS_PER_SAMPLE);
        }
        serve_record(record, now, lease, answer);
        true
    }

    /// Enters the asker as a holder; the lease it may be given. What is on its way to it counts as held.
    fn register(&self, hash: u64, from: NodeId, wants_copy: bool, now: Moment, load: Duration) -> Duration {
        let lease = if wants_copy { self.definition.load().lease } else { Duration::ZERO };
        let registered = self.leases.register(hash, from, now, in_books(lease) + load);
        if !registered && wants_copy {
            self.counters.one(Count::LeasesRefused);
        }
        if registered { lease } else { Duration::ZERO }
    }

    /// Another node acts as the owner of a key that is this node's: one of the two views is the older one. If it is this one, what is
    /// still written here is told to the other, which passes it on to its holders.
    pub(super) fn register_rival(&self, hash: u64, rival: NodeId) {
        let lease = in_books(self.definition.load().lease);
        // Without room for it everybody is told.
        self.leases.register(hash, rival, self.node.clock.now(), lease);
    }

    pub(crate) async fn serve_get(self: &Arc<Self>, from: NodeId, get: &Get<'_>) -> Served {
        self.advance(get.keyspace.generation);
        let hash = self.hash(get.key);
        if !self.node.is_sure_within(DOUBT_WAIT).await {
            self.register_turned_away(hash, from);
            return Served::NotOwner;
        }
        if let Err(refused) = self.serves(hash, get.key) {
            return refused;
        }
        let limit = get.deadline.min(self.fetch_deadline());
        let on_arrival = self.node.promise.keeps(Rule::RegisterOnArrival);
        let mut lease = Duration::ZERO;
        if on_arrival {
            lease = self.register(hash, from, get.wants_copy, self.node.clock.now(), limit);
        }
        self.note_reads(hash, get.key, 1);
        let outcome = tokio::time::timeout(limit, self.load_or_spare(hash, get.key)).await;
        if !on_arrival {
            lease = self.register_late(hash, from, get.wants_copy);
        }
        match outcome {
            Ok(outcome) => self.served(outcome, lease),
            Err(_) => Served::Failed(Error::Timeout { limit }),
        }
    }

    /// Who is told to look elsewhere loads for itself: it hears of writes, so that who asks there after one does not join that load.
    fn register_turned_away(&self, hash: u64, from: NodeId) {
        self.register(hash, from, false, self.node.clock.now(), self.fetch_deadline());
    }

    /// What an owner without the rule would do: the books are brought up to date when the answer is on its way already.
    fn register_late(self: &Arc<Self>, hash: u64, from: NodeId, wants_copy: bool) -> Duration {
        let core = self.clone();
        self.node.spawn_work(async move {
            tokio::time::sleep(LATE_BOOKS).await;
            core.register(hash, from, wants_copy, core.node.clock.now(), Duration::ZERO);
        });
        if wants_copy { self.definition.load().lease } else { Duration::ZERO }
    }

    pub(crate) async fn serve_get_many(self: &Arc<Self>, from: NodeId, get: &GetMany<'_>) -> Vec<Served> {
        self.advance(get.keyspace.generation);
        if !self.node.is_sure_within(DOUBT_WAIT).await {
            get.keys.iter().for_each(|(key, _)| self.register_turned_away(self.hash(key), from));
            return get.keys.iter().map(|_| Served::NotOwner).collect();
        }
        let limit = get.deadline.min(self.fetch_deadline());
        let (deadline, late_at) = (tokio::time::Instant::now() + limit, self.late_at());
        let now = self.node.clock.now();
        let mut answers: Vec<Option<Served>> = Vec::with_capacity(get.keys.len());
        let mut missed = Vec::new();
        for (place, &(key, wants_copy)) in get.keys.iter().enumerate() {
            let hash = self.hash(key);
            answers.push(self.serves(hash, key).err());
            if answers[place].is_none() {
                let lease = self.register(hash, from, wants_copy, now, Duration::ZERO);
                match self.held(hash, key) {
                    Some((record, Holding::Owned)) => answers[place] = Some(self.serve_held(record, lease)),
                    _ => {
                        let lease = self.register(hash, from, wants_copy, now, limit);
                        missed.push((place, hash, key, lease));
                    }
                }
            }
        }
        let wanted = missed.iter().map(|&(_, hash, key, _)| (hash, key));
        let waiting = self.start_own_loads(wanted);
        for ((place, hash, key, lease), waiter) in missed.into_iter().zip(waiting) {
            answers[place] = Some(match waiter {
                Err(error) => {
                    self.counters.one(Count::Overloads);
                    Served::Failed(error)
                }
                Ok(waiter) => {
                    match tokio::time::timeout_at(deadline, self.or_spare(hash, key, late_at, waiter)).await {
                        Ok(outcome) => self.served(outcome, lease),
                        Err(_) => Served::Failed(Error::Timeout { limit }),
                    }
                }
            });
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Served::NotOwner)).collect()
    }

    fn serve_held(&self, record: Record, lease: Duration) -> Served {
        self.counters.one(Count::Served);
        let version = record.version;
        match super::entry_of(record, Origin::Owned, self.node.clock.now()) {
            Ok(entry) => {
                let leasable = !entry.is_stale;
                Served::Landed { landed: Landed { entry, version, leasable }, lease }
            }
            Err(_) => Served::NotFound,
        }
    }

    /// Whether this node answers for the key at all.
    fn serves(&self, hash: u64, key: &str) -> Result<(), Served> {
        self.check(key).map_err(Served::Failed)?;
        if self.node.topology().owns(hash) {
            return Ok(());
        }
        Err(self.look_at_departed(hash, key).map_or(Served::NotOwner, |record| self.served_departed(record)))
    }

    fn served(&self, outcome: Outcome, lease: Duration) -> Served {
        self.counters.one(Count::Served);
        match outcome {
            Ok(landed) => Served::Landed { landed, lease },
            Err(Failure::Answered(Error::NotFound)) => Served::NotFound,
            Err(Failure::Answered(error) | Failure::NotReached(error)) => Served::Failed(error),
            Err(Failure::NotOwner) => Served::NotOwner,
            // The load's task is gone: the node is shutting down.
            Err(Failure::Abandoned) => Served::Failed(Error::Shutdown),
        }
    }

    pub(crate) async fn serve_put(self: &Arc<Self>, generation: u64, entries: &[PutEntry<'_>]) -> Vec<Option<Error>> {
        self.advance(generation);
        let writes = entries.iter().map(|entry| {
            self.check_value(entry.value.len())?;
            Ok((entry.key, Effect::Put { value: entry.value, ttl: entry.ttl }))
        });
        self.serve_writes(writes.collect()).await
    }

    pub(crate) async fn serve_delete(
        self: &Arc<Self>,
        generation: u64,
        keys: &[&str],
        hold: Duration,
    ) -> Vec<Option<Error>> {
        self.advance(generation);
        let change = Effect::Delete { hold: hold.min(TIMEOUT_MAX) };
        self.serve_writes(keys.iter().map(|key| Ok((*key, change))).collect()).await
    }

    /// Writes what passes this node's own limits, which the sender's need not be.
    async fn serve_writes(self: &Arc<Self>, writes: Vec<Result<(&str, Effect<'_>), Error>>) -> Vec<Option<Error>> {
        let checked = writes.into_iter().map(|write| {
            let (key, change) = write?;
            self.check(key)?;
            Ok(Write { hash: self.hash(key), key, change })
        });
        let checked: Vec<Result<Write<'_>, Error>> = checked.collect();
        let passed: Vec<Write<'_>> = checked.iter().filter_map(|write| write.as_ref().ok().copied()).collect();
        let mut outcomes = self.write_here(&passed).await.into_iter();
        checked.into_iter().map(|write| write.map_or_else(Some, |_| outcomes.next().flatten())).collect()
    }

    pub(crate) fn serve_warm(self: &Arc<Self>, generation: u64, keys: &[&str]) {
        self.advance(generation);
        self.warm(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Drops whatever is here under these keys. A node that takes itself for their owner tells those who hold them by its leave,
    /// once: of what was passed on already nothing is passed on again.
    pub(crate) fn serve_invalidate(self: &Arc<Self>, from: NodeId, generation: u64, hashes: &[u64], is_relayed: bool) {
        self.advance(generation);
        self.counters.add(Count::InvalidationsReceived, hashes.len() as u64);
        let mut owned = Vec::new();
        for &hash in hashes {
            self.drop_hash(hash);
            if self.node.tenures.of(hash).is_mine {
                owned.push(hash);
                if !is_relayed {
                    self.register_rival(hash, from);
                }
            }
        }
        if !is_relayed && !owned.is_empty() {
            let core = self.clone();
            self.node.spawn_work(async move { core.relay(owned, from).await });
        }
    }

    fn drop_hash(&self, hash: u64) {
        self.loads.detach_hash(hash, |_| self.store.remove_hash(Holding::Owned, hash));
        if self.node.promise.keeps(Rule::FetchDetach) {
            self.drop_copy(hash);
        } else {
            self.store.remove_hash(Holding::Hot, hash);
        }
    }
}

fn serve_record(record: Record, now: Moment, lease: Duration, answer: &mut dyn FnMut(Answer<'_>)) {
    let (times, version) = (record.times, record.version);
    let (age, remaining) = (now.since(times.stored_at), now.until(times.expires_at));
    let is_stale = times.expires_at <= now;
    // Nobody keeps what is over already.
    let lease = if is_stale { Duration::ZERO } else { lease };
    match record.into_value() {
        Some(value) => {
            answer(Answer::Value(Value { value: &value, loaded: false, is_stale, age, remaining, lease, version }))
        }
        None => answer(Answer::NotFound),
    }
}
