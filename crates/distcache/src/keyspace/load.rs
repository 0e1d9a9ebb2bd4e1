//! Asking the source: one load per key, in a task of the engine, whatever its callers do.
//!
//! Knows no connections and not who asked. The invariants: a source that panics, hangs or fails gives its callers a typed error and
//! frees the key; what a load brings is kept only if nothing was written, cleared or moved to another owner since it began.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tracing::Instrument;

use super::hand_over::Unseen;
use super::serve::IN_TRANSIT;
use super::{Begun, Core, Definition, entry_of};
use crate::error::{Error, Overload};
use crate::expiry::{self, Grace, Times};
use crate::flight::{Failure, Landed, Outcome, Ticket};
use crate::net;
use crate::promise::Rule;
use crate::source::Fetched;
use crate::spec::{Entry, Origin};
use crate::stats::Count;
use crate::store::{Holding, Look, Record};
use crate::trace;

/// For whom a load is made, and so what becomes of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// As the owner: the value is stored and may be leased.
    Own,
    /// The owner could not be reached: the value is kept as a copy, no longer than a lease.
    Fallback,
    /// The nodes disagree about the owner, or may: the value answers who asked, nothing more.
    FallbackUnkept,
}

/// Whether the value has to come from the source, whoever else may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anew {
    No,
    Yes,
}

impl Purpose {
    fn origin(self) -> Origin {
        match self {
            Self::Own => Origin::Loaded,
            Self::Fallback | Self::FallbackUnkept => Origin::Fallback,
        }
    }

    /// What is loaded in place of an owner is detached by no write there.
    pub(super) fn joined_within(self) -> Duration {
        match self {
            Self::Own => Duration::MAX,
            Self::Fallback | Self::FallbackUnkept => IN_TRANSIT,
        }
    }
}

impl Core {
    /// Joins the load of this key, or starts it.
    pub(super) async fn load(self: &Arc<Self>, hash: u64, key: &str, purpose: Purpose) -> Outcome {
        let boarding = self.boarding(hash, self.view_seq(), purpose.joined_within());
        let (waiter, ticket) = self.loads.join(hash, key, boarding).map_err(|error| self.overloaded(error))?;
        match ticket {
            Some(ticket) => {
                if let Some(ticket) = self.land_if_held(ticket) {
                    self.start_loads(vec![ticket], purpose);
                }
            }
            None => self.joined(),
        }
        waiter.await
    }

    /// Loads now, past what is cached and past any load that began earlier.
    pub(super) async fn load_anew(self: &Arc<Self>, hash: u64, key: &str) -> Outcome {
        let boarding = self.boarding(hash, self.view_seq(), Duration::MAX);
        let (waiter, ticket) = self.loads.begin(hash, key, boarding.now).map_err(|error| self.overloaded(error))?;
        self.start_loads_of(vec![ticket], Purpose::Own, Anew::Yes);
        waiter.await
    }

    pub(super) fn overloaded(&self, error: Error) -> Failure {
        self.counters.one(Count::Overloads);
        Failure::Answered(error)
    }

    /// Another load may have landed between the miss and the join: then its value is the answer, and no ticket is left. So it is
    /// where one has failed a moment ago and a value past its lifetime will do.
    pub(super) fn land_if_held(&self, ticket: Ticket) -> Option<Ticket> {
        let (hash, key) = (ticket.hash(), ticket.key());
        let (holding, validity) = self.standing(hash);
        let outcome = match self.store.get(holding, hash, key, validity) {
            Look::Hit(record) => {
                let (version, leasable) = (record.version, holding == Holding::Owned);
                match entry_of(record, super::origin_of(holding), self.node.clock.now()) {
                    Ok(entry) => Ok(Landed { entry, version, leasable }),
                    Err(error) => Err(Failure::Answered(error)),
                }
            }
            Look::Due(_) | Look::Miss => match self.spare_after_failure(hash, key) {
                Some(spare) => Ok(spare),
                None => return Some(ticket),
            },
        };
        ticket.land(|_| outcome);
        None
    }

    /// Starts one task that asks the source for all of these keys at once.
    pub(super) fn start_loads(self: &Arc<Self>, tickets: Vec<Ticket>, purpose: Purpose) {
        self.start_loads_of(tickets, purpose, Anew::No);
    }

    fn start_loads_of(self: &Arc<Self>, tickets: Vec<Ticket>, purpose: Purpose, anew: Anew) {
        let purpose = self.note_fallbacks(&tickets, purpose);
        let limit = self.node.limits.loads_queued_max;
        if self.loads_queued.fetch_add(1, Relaxed) >= limit {
            self.loads_queued.fetch_sub(1, Relaxed);
            for ticket in tickets {
                let failure = self.overloaded(Error::Overloaded { what: Overload::Loads, limit });
                ticket.land(|_| Err(failure));
            }
            return;
        }
        let (core, span) = (self.clone(), trace::load(&self.name, tickets.len()));
        self.node.spawn_work(async move {
            let _queued = Queued(core.clone());
            core.run_loads(tickets, purpose, anew).instrument(span).await;
        });
    }

    async fn run_loads(&self, tickets: Vec<Ticket>, purpose: Purpose, anew: Anew) {
        if purpose != Purpose::Own {
            return self.load_from_source(tickets, purpose).await;
        }
        let Unseen { known, unheard } = self.peek(tickets, self.begin(), anew).await;
        tokio::join!(
            self.load_from_source(known, Purpose::Own),
            self.load_from_source(unheard, Purpose::FallbackUnkept)
        );
    }

    async fn load_from_source(&self, tickets: Vec<Ticket>, purpose: Purpose) {
        if tickets.is_empty() {
            return;
        }
        let definition = self.definition.load_full();
        let begun = self.begin();
        let answers = {
            let keys: Vec<&str> = tickets.iter().map(Ticket::key).collect();
            self.ask_source(&definition, &keys, purpose).await
        };
        for (ticket, answer) in tickets.into_iter().zip(answers) {
            self.land_load(ticket, &definition, begun, purpose, answer);
        }
    }

    /// Asks the source when its guard lets the load through; for a single key that is held with a validator, whether it has
    /// changed.
    async fn ask_source<'k>(
        &self,
        definition: &Definition,
        keys: &[&'k str],
        purpose: Purpose,
    ) -> Vec<Result<Fetched, Error>> {
        let source = &definition.source;
        let held = if let [key] = keys { self.held_with_validator(key) } else { None };
        let (held, attempts) = (held.as_ref(), AtomicU32::new(0));
        let call = |keys: Vec<&'k str>| {
            if attempts.fetch_add(1, Relaxed) == 0 {
                self.count_loads(keys.len() as u64, purpose);
            }
            async move {
                match (&keys[..], held) {
                    ([key], Some(held)) => vec![source.revalidate(key, held).await],
                    ([key], None) => vec![source.fetch(key).await],
                    _ => source.fetch_many(&keys).await,
                }
            }
        };
        let answers = self.access.ask(definition.settings.load_timeout, &self.counters, keys, call).await;
        trace::loaded(attempts.into_inner(), &answers);
        answers
    }

    fn count_loads(&self, keys: u64, purpose: Purpose) {
        self.counters.add(Count::Loads, keys);
        if purpose != Purpose::Own {
            self.counters.add(Count::FallbackLoads, keys);
        }
    }

    /// What is held of a key of ours, however old, if its source gave a validator for it.
    fn held_with_validator(&self, key: &str) -> Option<Fetched> {
        let record = self.owned_record(self.hash(key), key)?;
        let validator = record.validator();
        let value = record.into_value().filter(|_| !validator.is_empty())?;
        Some(Fetched::new(value).validator(validator))
    }

    fn land_load(
        &self,
        ticket: Ticket,
        definition: &Definition,
        begun: Begun,
        purpose: Purpose,
        answer: Result<Fetched, Error>,
    ) {
        let answer = answer.and_then(|fetched| {
            self.check_value(fetched.value.len())?;
            Ok(fetched)
        });
        match &answer {
            Ok(_) => self.counters.one(Count::LoadsFound),
            Err(Error::NotFound) => self.counters.one(Count::LoadsNotFound),
            // Not asked of the source, and counted by the guard.
            Err(Error::RateLimited { .. } | Error::CircuitOpen { .. } | Error::Overloaded { .. }) => {}
            Err(_) => self.counters.one(Count::LoadFailures),
        }
        let hash = ticket.hash();
        match &answer {
            Ok(_) | Err(Error::NotFound) => self.failures.forget(hash),
            Err(_) => self.failures.note(hash, self.node.clock.now()),
        }
        let record = self.record_of(ticket.key(), definition, begun, purpose, &answer);
        let remaining = record.as_ref().and_then(|record| self.node.clock.now().until(record.times.expires_at));
        // What stood under the key is older than any answer, also than one that is not to be kept.
        let replaces = matches!(answer, Ok(_) | Err(Error::NotFound)) && purpose == Purpose::Own;
        let key = ticket.key().to_owned();
        ticket.land(|attached| {
            let attached = attached || !self.node.promise.keeps(Rule::LoadFence);
            let kept = attached && self.keep(hash, record, begun, purpose);
            if attached && replaces && !kept {
                self.store.remove(Holding::Owned, hash, &key);
            }
            let Fetched { value, ttl, .. } = answer.map_err(Failure::Answered)?;
            let remaining = remaining.or(ttl);
            let entry = Entry { value, origin: purpose.origin(), age: Duration::ZERO, remaining, is_stale: false };
            Ok(Landed { entry, version: self.node.next_version(), leasable: kept && purpose == Purpose::Own })
        });
    }

    /// What is to be stored of an answer, and until when; `None`: nothing.
    fn record_of(
        &self,
        key: &str,
        definition: &Definition,
        begun: Begun,
        purpose: Purpose,
        answer: &Result<Fetched, Error>,
    ) -> Option<Record> {
        let settings = &definition.settings;
        let (now, version) = (self.node.clock.now(), self.node.next_version());
        let (mut record, lifetime, grace) = match answer {
            Ok(fetched) => {
                let (rule, value) = (definition.expires_at.as_ref(), &fetched.value);
                let validator = fetched.validator.as_deref().unwrap_or_default();
                (
                    Record::with_validator(key, validator, value),
                    expiry::lifetime(settings, rule, key, value, fetched.ttl, net::chance()),
                    Grace::of(settings, fetched.stale_while_revalidate, fetched.stale_if_error),
                )
            }
            Err(Error::NotFound) => (Record::new(key, None), Some(settings.negative_ttl?), Grace::default()),
            Err(_) => return None,
        };
        record.times = match purpose {
            Purpose::Own if record.is_negative() => Times::until(now, expiry::end_of(lifetime, now)),
            Purpose::Own => Times::begin(now, lifetime, grace, &definition.rules, version),
            // Counted from the beginning of the load: nothing older than a lease is ever answered.
            Purpose::Fallback => Times::until(now, expiry::end_of(lifetime, now).min(begun.at.after(definition.lease))),
            Purpose::FallbackUnkept => return None,
        };
        if purpose == Purpose::Own {
            // What the source answers may be as old as the question.
            record.times.backdate(begun.at, now);
        }
        record.version = version;
        (record.epoch, record.view_seq) = (begun.epoch, begun.view_seq);
        Some(record)
    }

    /// Stores what a load brought; runs while the key is locked. Whether it counts from now on.
    pub(super) fn keep(&self, hash: u64, record: Option<Record>, begun: Begun, purpose: Purpose) -> bool {
        let holding = if purpose == Purpose::Own { Holding::Owned } else { Holding::Hot };
        let topology = self.node.topology();
        let validity = self.validity(&topology, hash);
        let still_ours = topology.owns(hash) == (purpose == Purpose::Own)
            && begun.view_seq >= validity.slot_since
            && begun.epoch == validity.epoch
            && !self.is_deleted()
            && !(self.holds.covers(hash, begun.at) && self.node.promise.keeps(Rule::Hold));
        match record {
            Some(record) if still_ours && record.times.expires_at > validity.now.get() => {
                self.store.insert(holding, hash, record).is_ok()
            }
            _ => false,
        }
    }
}

/// Holds a place among the loads that run or wait.
struct Queued(Arc<Core>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.loads_queued.fetch_sub(1, Relaxed);
    }
}
