//! Asking the source: one load per key, in a task of the engine, whatever its callers do.
//!
//! Knows neither peers nor who asked. The invariants: a source that panics, hangs or fails gives its callers a typed error and
//! frees the key; what a load brings is kept only if nothing was written, cleared or moved to another owner since it began.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;

use super::{Begun, Core, Definition, entry_of};
use crate::error::{Error, Overload};
use crate::expiry;
use crate::flight::{Failure, Landed, Outcome, Ticket};
use crate::net;
use crate::source::Fetched;
use crate::spec::{Entry, Origin};
use crate::stats::Count;
use crate::store::{Holding, Record};

/// For whom a load is made, and so what becomes of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// As the owner: the value is stored and may be leased.
    Own,
    /// The owner could not be reached: the value is kept as a copy, no longer than a lease.
    Fallback,
    /// The nodes disagree about the owner: the value answers who asked, nothing more.
    FallbackUnkept,
}

impl Purpose {
    fn origin(self) -> Origin {
        match self {
            Self::Own => Origin::Loaded,
            Self::Fallback | Self::FallbackUnkept => Origin::Fallback,
        }
    }
}

impl Core {
    /// Joins the load of this key, or starts it.
    pub(super) async fn load(self: &Arc<Self>, hash: u64, key: &str, purpose: Purpose) -> Outcome {
        let boarding = self.boarding(hash, self.view_seq());
        let (waiter, ticket) = self.loads.join(hash, key, boarding).map_err(|error| self.overloaded(error))?;
        match ticket {
            Some(ticket) => {
                if let Some(ticket) = self.land_if_held(ticket) {
                    self.start_loads(vec![ticket], purpose);
                }
            }
            None => self.counters.one(Count::Coalesced),
        }
        waiter.await
    }

    /// Loads now, past what is cached and past any load that began earlier.
    pub(super) async fn load_anew(self: &Arc<Self>, hash: u64, key: &str) -> Outcome {
        self.loads.detach(hash, key, || ());
        let boarding = self.boarding(hash, self.view_seq());
        let (waiter, ticket) = self.loads.join(hash, key, boarding).map_err(|error| self.overloaded(error))?;
        if let Some(ticket) = ticket {
            self.start_loads(vec![ticket], Purpose::Own);
        }
        waiter.await
    }

    pub(super) fn overloaded(&self, error: Error) -> Failure {
        self.counters.one(Count::Overloads);
        Failure::Answered(error)
    }

    /// Another load may have landed between the miss and the join: then its value is the answer, and no ticket is left.
    pub(super) fn land_if_held(&self, ticket: Ticket) -> Option<Ticket> {
        let Some((record, holding)) = self.held(ticket.hash(), ticket.key()) else {
            return Some(ticket);
        };
        let (version, leasable) = (record.version, holding == Holding::Owned);
        let entry = entry_of(record, super::origin_of(holding), self.node.clock.now());
        ticket.land(|_| match entry {
            Ok(entry) => Ok(Landed { entry, version, leasable }),
            Err(error) => Err(Failure::Answered(error)),
        });
        None
    }

    /// Starts one task that asks the source for all of these keys at once.
    pub(super) fn start_loads(self: &Arc<Self>, tickets: Vec<Ticket>, purpose: Purpose) {
        let limit = self.node.limits.loads_queued_max;
        if self.loads_queued.fetch_add(1, Relaxed) >= limit {
            self.loads_queued.fetch_sub(1, Relaxed);
            for ticket in tickets {
                let failure = self.overloaded(Error::Overloaded { what: Overload::Loads, limit });
                ticket.land(|_| Err(failure));
            }
            return;
        }
        let core = self.clone();
        self.node.spawn_work(async move {
            let _queued = Queued(core.clone());
            core.run_loads(tickets, purpose).await;
        });
    }

    async fn run_loads(&self, tickets: Vec<Ticket>, purpose: Purpose) {
        let definition = self.definition.load_full();
        let begun = self.begin();
        self.counters.add(Count::Loads, tickets.len() as u64);
        if purpose != Purpose::Own {
            self.counters.add(Count::FallbackLoads, tickets.len() as u64);
        }
        let answers = {
            let keys: Vec<&str> = tickets.iter().map(Ticket::key).collect();
            self.ask_source(&definition, &keys).await
        };
        for (ticket, answer) in tickets.into_iter().zip(answers) {
            self.land_load(ticket, &definition, begun, purpose, answer);
        }
    }

    /// Asks the source when its guard lets the load through.
    async fn ask_source(&self, definition: &Definition, keys: &[&str]) -> Vec<Result<Fetched, Error>> {
        let source = &definition.source;
        let call = |keys: Vec<_>| async move {
            match keys[..] {
                [key] => vec![source.fetch(key).await],
                _ => source.fetch_many(&keys).await,
            }
        };
        self.access.ask(definition.settings.load_timeout, &self.counters, keys, call).await
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
        self.counters.one(match &answer {
            Ok(_) => Count::LoadsFound,
            Err(Error::NotFound) => Count::LoadsNotFound,
            Err(_) => Count::LoadFailures,
        });
        let hash = ticket.hash();
        let record = self.record_of(ticket.key(), definition, begun, purpose, &answer);
        let remaining = record.as_ref().and_then(|record| self.node.clock.now().until(record.expires_at));
        // What stood under the key is older than any answer, also than one that is not to be kept.
        let replaces = matches!(answer, Ok(_) | Err(Error::NotFound)) && purpose == Purpose::Own;
        let key = ticket.key().to_owned();
        ticket.land(|attached| {
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
        let (value, lifetime): (Option<&Bytes>, _) = match answer {
            Ok(Fetched { value, ttl, .. }) => {
                let rule = definition.expires_at.as_ref();
                (Some(value), expiry::lifetime(settings, rule, key, value, *ttl, net::chance()))
            }
            Err(Error::NotFound) => (None, Some(settings.negative_ttl?)),
            Err(_) => return None,
        };
        let now = self.node.clock.now();
        let expires_at = match purpose {
            Purpose::Own => expiry::end_of(lifetime, now),
            // Counted from the beginning of the load: nothing older than a lease is ever answered.
            Purpose::Fallback => expiry::end_of(lifetime, now).min(begun.at.after(settings.lease)),
            Purpose::FallbackUnkept => return None,
        };
        let mut record = Record::new(key, value.map(Bytes::as_ref));
        (record.expires_at, record.stored_at, record.version) = (expires_at, now, self.node.next_version());
        (record.epoch, record.view_seq) = (begun.epoch, begun.view_seq);
        Some(record)
    }

    /// Stores what a load brought; runs while the key is locked. Whether it counts from now on.
    fn keep(&self, hash: u64, record: Option<Record>, begun: Begun, purpose: Purpose) -> bool {
        let holding = if purpose == Purpose::Own { Holding::Owned } else { Holding::Hot };
        let topology = self.node.topology();
        let validity = self.validity(&topology, hash);
        let still_ours = topology.owns(hash) == (purpose == Purpose::Own)
            && begun.view_seq >= validity.slot_since
            && begun.epoch == validity.epoch;
        match record {
            Some(record) if still_ours && record.expires_at > validity.now.get() => {
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
