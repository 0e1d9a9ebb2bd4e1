//! Asking the owner: one fetch per key and node, answered by the task that reads the owner's connection.
//!
//! Knows nothing of the source. The invariants: a fetch belongs to nobody among its callers, so none of them can end it for the
//! others; a hot copy lives no longer than its lease counted from the sending of the request, and is not kept if the owner
//! invalidated the key in between.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Begun, Core};
use crate::error::{Error, PeerFailure};
use crate::expiry::Times;
use crate::flight::{Failure, Landed, Outcome, Ticket};
use crate::peer::link::Link;
use crate::peer::wire::{Answer, Get, Named, Request, Response, Value};
use crate::promise::Rule;
use crate::spec::{Entry, Origin};
use crate::stats::{Count, Took};
use crate::store::{Holding, Record};
use crate::trace;

impl Core {
    /// Joins the fetch of this key, or sends it.
    pub(super) async fn fetch(self: &Arc<Self>, hash: u64, key: &str, link: &Arc<Link>, view_seq: u32) -> Outcome {
        let boarding = self.boarding(hash, view_seq, Duration::MAX);
        let (waiter, ticket) = self.fetches.join(hash, key, boarding).map_err(|error| self.overloaded(error))?;
        match ticket {
            Some(ticket) => {
                if let Some(ticket) = self.land_if_held(ticket) {
                    self.send_fetch(key, link, ticket, self.begin_under(view_seq));
                }
            }
            None => self.joined(),
        }
        waiter.await
    }

    fn send_fetch(self: &Arc<Self>, key: &str, link: &Arc<Link>, ticket: Ticket, begun: Begun) {
        let span = trace::fetch(&self.name, link.name(), 1);
        let get = Get {
            keyspace: span.in_scope(|| self.named()),
            key,
            wants_copy: self.wants_copy(ticket.hash(), begun),
            deadline: self.fetch_deadline(),
        };
        self.counters.one(Count::Fetches);
        let (core, from, asked) = (self.clone(), link.clone(), Instant::now());
        let on_answer = Box::new(move |answer: Result<Response<'_>, PeerFailure>| {
            core.counters.took(Took::Fetch, asked.elapsed());
            trace::answered(&span, &answer);
            let answer = match answer {
                Ok(Response::One(answer)) => Ok(answer),
                Ok(Response::Refused(error)) => Err(error),
                Ok(_) => {
                    Err(Error::Protocol { peer: from.name().into(), reason: "an answer to another question".into() })
                }
                Err(failure) => Err(from.error(failure)),
            };
            match answer {
                Ok(answer) => core.land_fetch(ticket, begun, answer),
                Err(error) => {
                    core.counters.one(Count::FetchFailures);
                    ticket.land(|_| Err(core.failure_of(error)));
                }
            }
        });
        link.ask(&Request::Get(get), on_answer);
    }

    /// What a question to a peer begins with; part of the trace of the current span.
    pub(super) fn named(&self) -> Named<'_> {
        Named { name: &self.name, generation: self.generation(), trace: self.node.traces.current() }
    }

    pub(super) fn wants_copy(&self, hash: u64, begun: Begun) -> bool {
        let definition = self.definition.load();
        let settings = &definition.settings;
        settings.hot_copies && self.sightings.seen_before(hash, begun.at, definition.lease)
    }

    /// How long the owner may work on the answer: as long as its load may take. Callers have deadlines of their own; a peer
    /// that hangs is found out by its silence.
    pub(super) fn fetch_deadline(&self) -> Duration {
        self.definition.load().settings.load_timeout + self.node.hop_budget
    }

    /// Ends a fetch with the owner's answer; runs on the task that reads the connection.
    pub(super) fn land_fetch(&self, ticket: Ticket, begun: Begun, answer: Answer<'_>) {
        match answer {
            Answer::Value(value) => self.land_value(ticket, begun, &value),
            Answer::NotFound => ticket.land(|_| Err(Failure::Answered(Error::NotFound))),
            Answer::NotOwner => ticket.land(|_| Err(Failure::NotOwner)),
            // Asked again, by itself.
            Answer::NoRoom => drop(ticket),
            Answer::Failed(error) => ticket.land(|_| Err(self.failure_of(error))),
        }
    }

    /// An error of the owner's: about the key, or about the owner's being able to answer at all.
    pub(super) fn failure_of(&self, error: Error) -> Failure {
        match error {
            Error::Shutdown
            | Error::KeyspaceNotFound { .. }
            | Error::PeerUnavailable { .. }
            | Error::Protocol { .. } => Failure::NotReached(error),
            // It may be that this node takes larger values than the owner does; else a second load would bring the same again.
            Error::ValueTooLarge { len, .. } if self.node.limits.check_value(len).is_ok() => Failure::NotReached(error),
            Error::Overloaded { .. } => self.overloaded(error),
            error => Failure::Answered(error),
        }
    }

    fn land_value(&self, ticket: Ticket, begun: Begun, value: &Value<'_>) {
        if !value.loaded {
            self.counters.one(Count::FetchHits);
        }
        let origin = if value.loaded { Origin::Loaded } else { Origin::Peer };
        let entry = |bytes| Entry {
            value: bytes,
            origin,
            age: value.age,
            remaining: value.remaining,
            is_stale: value.is_stale,
        };
        if value.lease.is_zero() {
            let entry = entry(Bytes::copy_from_slice(value.value));
            return ticket.land(|_| Ok(Landed { entry, version: value.version, leasable: false }));
        }
        let hash = ticket.hash();
        let record = self.hot_record(ticket.key(), begun, value);
        let bytes = record.clone().value().unwrap_or_default();
        ticket.land(|attached| {
            if attached {
                self.keep_copy(hash, record, begun);
            }
            Ok(Landed { entry: entry(bytes), version: value.version, leasable: false })
        });
    }

    pub(super) fn hot_record(&self, key: &str, begun: Begun, value: &Value<'_>) -> Record {
        let now = self.node.clock.now();
        // An owner that says more than the keyspace allows would be believed long after it is gone.
        let lease = value.lease.min(self.definition.load().lease);
        let lease_begin = if self.node.promise.keeps(Rule::LeaseFromSend) { begun.at } else { now };
        let lease_end = lease_begin.after(lease);
        let expires_at = value.remaining.map_or(lease_end, |remaining| now.after(remaining).min(lease_end));
        let mut record = Record::new(key, Some(value.value));
        (record.times, record.version) = (Times::until(now.before(value.age), expires_at), value.version);
        (record.epoch, record.view_seq) = (begun.epoch, begun.view_seq);
        record
    }

    /// Keeps a hot copy; runs while the key is locked.
    fn keep_copy(&self, hash: u64, record: Record, begun: Begun) {
        let topology = self.node.topology();
        let validity = self.validity(&topology, hash);
        if begun.epoch == validity.epoch
            && begun.view_seq >= validity.slot_since
            && !topology.owns(hash)
            && !self.is_deleted()
        {
            // A copy that does not fit is not kept; the owner has it.
            let _ = self.store.insert(Holding::Hot, hash, record);
        }
    }
}

/// The entry in an owner's answer to a single question; `None`: it answers something else.
pub(super) fn entry_in(response: Response<'_>, peer: &str) -> Option<Result<Entry, Error>> {
    Some(match response {
        Response::One(Answer::Value(value)) => {
            let origin = if value.loaded { Origin::Loaded } else { Origin::Peer };
            let bytes = Bytes::copy_from_slice(value.value);
            Ok(Entry { value: bytes, origin, age: value.age, remaining: value.remaining, is_stale: value.is_stale })
        }
        Response::One(Answer::NotFound) => Err(Error::NotFound),
        Response::One(Answer::NotOwner) => Err(Error::NotOwner { peer: peer.into() }),
        Response::One(Answer::Failed(error)) | Response::Refused(error) => Err(error),
        _ => return None,
    })
}
