//! Many keys at once: one request per owner, one load per owner, one answer per key.
//!
//! The same flights as single gets: a key that somebody else is asking for already is not asked for again. The invariant: the
//! answers stand in the order of the keys, one each, whatever happens to some of them.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::{join, join_all};
use tokio::time::Instant;

use super::load::Purpose;
use super::{After, Begun, Core, Route, entry_of, origin_of};
use crate::error::{Error, PeerFailure};
use crate::flight::{Failure, Flights, Ticket, Waiter};
use crate::peer::link::Link;
use crate::peer::wire::{GetMany, Request, Response};
use crate::ring::NodeId;
use crate::spec::{Entry, GetOptions};
use crate::stats::Count;

/// Bytes that a key takes in a request beside its text.
const KEY_FRAME_BYTES: usize = 8;
pub(super) const FRAME_HEADER_BYTES: usize = 1 << 10;

/// One key of a batch.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    hash: u64,
    key: &'a str,
}

/// Keys by who is to be asked for them.
#[derive(Default)]
struct Groups<'a> {
    mine: Vec<Wanted<'a>>,
    nobodys: Vec<Wanted<'a>>,
    peers: ByPeer<Wanted<'a>>,
}

/// Items by the peer that they are for.
pub(super) struct ByPeer<T>(HashMap<NodeId, (Arc<Link>, Vec<T>)>);

impl<T> Default for ByPeer<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> ByPeer<T> {
    pub(super) fn push(&mut self, link: &Arc<Link>, item: T) {
        self.0.entry(link.id()).or_insert_with(|| (link.clone(), Vec::new())).1.push(item);
    }

    pub(super) fn into_groups(self) -> impl Iterator<Item = (Arc<Link>, Vec<T>)> {
        self.0.into_values()
    }
}

type Answers<'a> = HashMap<&'a str, Result<Entry, Error>>;

impl Core {
    pub(super) async fn get_many(
        self: &Arc<Self>,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Entry, Error>>, Error> {
        self.check_defined()?;
        self.node.limits.check_batch(keys.len())?;
        let limit = options.timeout.unwrap_or(self.node.request_timeout);
        let mut answers = Answers::with_capacity(keys.len());
        let mut missed = Vec::new();
        for &key in keys {
            if !answers.contains_key(key) {
                match self.at_once(key) {
                    Some(answer) => drop(answers.insert(key, answer)),
                    None => {
                        missed.push(Wanted { hash: self.hash(key), key });
                        answers.insert(key, Err(Error::Timeout { limit }));
                    }
                }
            }
        }
        if !missed.is_empty() {
            self.counters.add(Count::Misses, missed.len() as u64);
            self.ask_many(missed, Instant::now() + limit, &mut answers).await;
        }
        Ok(keys.iter().map(|key| answers[key].clone()).collect())
    }

    /// The answer that needs no asking: a hit, or a key that cannot be.
    fn at_once(&self, key: &str) -> Option<Result<Entry, Error>> {
        if let Err(error) = self.node.limits.check_key(key) {
            return Some(Err(error));
        }
        let (record, holding) = self.lookup(key)?;
        Some(entry_of(record, origin_of(holding), self.node.clock.now()))
    }

    /// Fills in the answers of `missed`; what is not there at the deadline stays as it was.
    async fn ask_many<'a>(self: &Arc<Self>, missed: Vec<Wanted<'a>>, deadline: Instant, answers: &mut Answers<'a>) {
        let seq = self.node.topology().placement.seq();
        let groups = self.group(&missed);
        let waiting = self.start_groups(groups, deadline);
        let Ok(waiting) = tokio::time::timeout_at(deadline, waiting).await else { return };
        let (mut kept, mut unkept, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for (wanted, waiter) in waiting {
            let outcome = match waiter {
                Ok(waiter) => match tokio::time::timeout_at(deadline, waiter).await {
                    Ok(outcome) => outcome,
                    Err(_) => continue,
                },
                Err(error) => Err(self.overloaded(error)),
            };
            match self.after(outcome, seq) {
                Ok(After::Landed(entry)) => drop(answers.insert(wanted.key, Ok(entry))),
                Err(error) => drop(answers.insert(wanted.key, Err(error))),
                Ok(After::FallBack(Purpose::Fallback)) => kept.push(wanted),
                Ok(After::FallBack(_)) => unkept.push(wanted),
                Ok(After::AskAgain) => again.push(wanted),
            }
        }
        self.fall_back(kept, Purpose::Fallback, deadline, answers).await;
        self.fall_back(unkept, Purpose::FallbackUnkept, deadline, answers).await;
        let asked = join_all(again.iter().map(|wanted| self.ask(wanted.hash, wanted.key)));
        if let Ok(outcomes) = tokio::time::timeout_at(deadline, asked).await {
            answers.extend(again.iter().map(|wanted| wanted.key).zip(outcomes));
        }
    }

    /// One load for all keys whose owners were not reached.
    async fn fall_back<'a>(
        self: &Arc<Self>,
        wanted: Vec<Wanted<'a>>,
        purpose: Purpose,
        deadline: Instant,
        answers: &mut Answers<'a>,
    ) {
        if wanted.is_empty() {
            return;
        }
        for (wanted, waiter) in self.start_batch_load(wanted, purpose) {
            let Ok(waiter) = waiter else { continue };
            let answer = match tokio::time::timeout_at(deadline, waiter).await {
                Ok(Ok(landed)) => Ok(landed.entry),
                Ok(Err(Failure::Answered(error) | Failure::NotReached(error))) => Err(error),
                Ok(Err(_)) => Err(Error::Shutdown),
                Err(_) => continue,
            };
            answers.insert(wanted.key, answer);
        }
    }

    fn group<'a>(&self, wanted: &[Wanted<'a>]) -> Groups<'a> {
        let mut groups = Groups::default();
        for &one in wanted {
            match self.route(one.hash).0 {
                Route::Me => groups.mine.push(one),
                Route::Nobody => groups.nobodys.push(one),
                Route::Peer(link) => groups.peers.push(&link, one),
            }
        }
        groups
    }

    /// Starts what must be asked, at all owners at once.
    async fn start_groups<'a>(
        self: &Arc<Self>,
        groups: Groups<'a>,
        deadline: Instant,
    ) -> Vec<(Wanted<'a>, Result<Waiter, Error>)> {
        let mut waiting = self.start_batch_load(groups.mine, Purpose::Own);
        waiting.extend(self.start_batch_load(groups.nobodys, Purpose::FallbackUnkept));
        let mut sendings = Vec::new();
        for (link, wanted) in groups.peers.into_groups() {
            let (waiters, tickets) = self.join_all_of(&self.fetches, wanted);
            waiting.extend(waiters);
            sendings.push(self.send_fetches(link, tickets));
        }
        // A fetch answers its waiters by itself; only the sending has to be driven from here.
        let sent = join_all(sendings);
        let (_, waiting) = join(tokio::time::timeout_at(deadline, sent), async { waiting }).await;
        waiting
    }

    fn start_batch_load<'a>(
        self: &Arc<Self>,
        wanted: Vec<Wanted<'a>>,
        purpose: Purpose,
    ) -> Vec<(Wanted<'a>, Result<Waiter, Error>)> {
        let (waiters, tickets) = self.join_all_of(&self.loads, wanted);
        if !tickets.is_empty() {
            self.start_loads(tickets, purpose);
        }
        waiters
    }

    /// Joins the flights of these keys; the tickets are of those that nobody asks for yet.
    #[allow(clippy::type_complexity, reason = "a pair of lists, taken apart at once")]
    fn join_all_of<'a>(
        &self,
        flights: &Arc<Flights>,
        wanted: Vec<Wanted<'a>>,
    ) -> (Vec<(Wanted<'a>, Result<Waiter, Error>)>, Vec<Ticket>) {
        let mut tickets = Vec::new();
        let waiters = wanted.into_iter().map(|wanted| match flights.join(wanted.hash, wanted.key) {
            Ok((waiter, ticket)) => {
                match ticket {
                    Some(ticket) => tickets.extend(self.land_if_held(ticket)),
                    None => self.counters.one(Count::Coalesced),
                }
                (wanted, Ok(waiter))
            }
            Err(error) => (wanted, Err(error)),
        });
        let waiters = waiters.collect();
        (waiters, tickets)
    }

    /// Sends these fetches in as few requests as their frames allow.
    async fn send_fetches(self: &Arc<Self>, link: Arc<Link>, tickets: Vec<Ticket>) {
        let room = self.node.limits.frame_bytes_max() - FRAME_HEADER_BYTES;
        let frames = split(tickets, room, |ticket| ticket.key().len() + KEY_FRAME_BYTES);
        join_all(frames.into_iter().map(|tickets| self.send_frame(&link, tickets))).await;
    }

    /// Starts one load, as the owner, for those of these keys that nobody loads yet.
    pub(super) fn start_own_loads<'a>(
        self: &Arc<Self>,
        wanted: impl Iterator<Item = (u64, &'a str)>,
    ) -> Vec<Result<Waiter, Error>> {
        let wanted = wanted.map(|(hash, key)| Wanted { hash, key }).collect();
        self.start_batch_load(wanted, Purpose::Own).into_iter().map(|(_, waiter)| waiter).collect()
    }

    async fn send_frame(self: &Arc<Self>, link: &Arc<Link>, tickets: Vec<Ticket>) {
        let begun = self.begin();
        self.counters.one(Count::Fetches);
        let keys: Vec<String> = tickets.iter().map(|ticket| ticket.key().to_owned()).collect();
        let copies: Vec<bool> = tickets.iter().map(|ticket| self.wants_copy(ticket.hash(), begun)).collect();
        let get = GetMany {
            keyspace: self.named(),
            keys: keys.iter().map(String::as_str).zip(copies).collect(),
            deadline: self.fetch_deadline(),
        };
        let (core, from) = (self.clone(), link.clone());
        let on_answer = Box::new(move |answer: Result<Response<'_>, PeerFailure>| {
            core.land_fetches(tickets, begun, &from, answer);
        });
        let _ = link.ask(&Request::GetMany { get }, on_answer).await;
    }

    fn land_fetches(&self, tickets: Vec<Ticket>, begun: Begun, from: &Link, answer: Result<Response<'_>, PeerFailure>) {
        let error = match answer {
            Ok(Response::Many(answers)) if answers.len() == tickets.len() => {
                for (ticket, answer) in tickets.into_iter().zip(answers) {
                    self.land_fetch(ticket, begun, answer);
                }
                return;
            }
            Ok(Response::Refused(error)) => error,
            Ok(_) => Error::Protocol { peer: from.name().into(), reason: "an answer to another question".into() },
            Err(failure) => from.error(failure),
        };
        for ticket in tickets {
            ticket.land(|_| Err(Failure::NotReached(error.clone())));
        }
    }
}

/// Cuts a list into parts of at most `room` bytes each; an item larger than that stands alone.
pub(super) fn split<T>(items: Vec<T>, room: usize, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    let (mut part, mut used) = (Vec::new(), 0);
    for item in items {
        let bytes = bytes(&item);
        if used + bytes > room && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            used = 0;
        }
        used += bytes;
        part.push(item);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_into_parts_that_fit_and_nothing_is_lost() {
        assert_eq!(split(vec![3, 4, 3, 9, 20, 1], 10, |n| *n), [vec![3, 4, 3], vec![9], vec![20], vec![1]]);
        assert!(split(Vec::<usize>::new(), 10, |n| *n).is_empty());
    }
}
