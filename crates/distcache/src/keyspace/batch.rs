//! Many keys at once: one request per owner, one load per owner, one answer per key.
//!
//! The same flights as single gets: a key that somebody else is asking for already is not asked for again. The invariant: the
//! answers stand in the order of the keys, one each, whatever happens to some of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::Instant;
use tracing::Instrument;

use super::ask::{After, Route};
use super::load::Purpose;
use super::{Begun, Core, entry_of, origin_of};
use crate::error::{Error, PeerFailure};
use crate::flight::{Failure, Flights, Ticket, Waiter};
use crate::peer::link::Link;
use crate::peer::wire::{GetMany, Request, Response};
use crate::ring::NodeId;
use crate::spec::{Entry, GetOptions};
use crate::stats::{Count, Took};
use crate::trace;

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
pub(super) struct ByPeer<T>(BTreeMap<NodeId, (Arc<Link>, Vec<T>)>);

impl<T> Default for ByPeer<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> ByPeer<T> {
    pub(super) fn push(&mut self, link: &Arc<Link>, item: T) {
        self.0.entry(link.id()).or_insert_with(|| (link.clone(), Vec::new())).1.push(item);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_groups(self) -> impl Iterator<Item = (Arc<Link>, Vec<T>)> {
        self.0.into_values()
    }
}

type Answers<'a> = HashMap<&'a str, Result<Entry, Error>>;
type Answered<'a> = Vec<(&'a str, Result<Entry, Error>)>;
type Waiting<'a> = Vec<(Wanted<'a>, Result<Waiter, Error>)>;

impl Core {
    pub(super) async fn get_many(
        self: &Arc<Self>,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Entry, Error>>, Error> {
        self.check_defined()?;
        self.check_batch(keys.len())?;
        let limit = self.limit_of(options);
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
            let asked = Instant::now();
            let span = trace::get_many(&self.name, missed.len());
            self.ask_many(missed, asked + limit, &mut answers).instrument(span).await;
            self.counters.took(Took::GetMiss, asked.elapsed());
        }
        Ok(keys.iter().map(|key| answers[key].clone()).collect())
    }

    /// The answer that needs no asking: a hit, or a key that cannot be.
    fn at_once(self: &Arc<Self>, key: &str) -> Option<Result<Entry, Error>> {
        if let Err(error) = self.counted(self.node.limits.check_key(key)) {
            return Some(Err(error));
        }
        let (record, holding) = self.lookup(key)?;
        Some(entry_of(record, origin_of(holding), self.node.clock.now()))
    }

    /// Fills in the answers of `missed`; what is not there at the deadline stays as it was.
    async fn ask_many<'a>(self: &Arc<Self>, missed: Vec<Wanted<'a>>, deadline: Instant, answers: &mut Answers<'a>) {
        let seq = self.view_seq();
        let groups = self.group(&missed);
        // All are started before any is waited for; then each group waits, and falls back, by itself.
        let mut waiting = vec![
            self.start_batch_load(groups.mine, Purpose::Own),
            self.start_batch_load(groups.nobodys, Purpose::FallbackUnkept),
        ];
        for (link, wanted) in groups.peers.into_groups() {
            let (waiters, tickets) = self.join_all_of(&self.fetches, wanted, seq, Duration::MAX);
            self.send_fetches(&link, tickets, self.begin_under(seq));
            waiting.push(waiters);
        }
        let answered = waiting.into_iter().map(|group| self.await_group(group, seq, deadline));
        for (key, answer) in join_all(answered).await.into_iter().flatten() {
            answers.insert(key, answer);
        }
    }

    async fn await_group<'a>(self: &Arc<Self>, group: Waiting<'a>, seq: u32, deadline: Instant) -> Answered<'a> {
        let mut answered = Vec::with_capacity(group.len());
        let (mut kept, mut again) = (Vec::new(), Vec::new());
        let late_at = self.late_at();
        for (wanted, waiter) in group {
            let outcome = match waiter {
                Ok(waiter) => {
                    let answer = self.or_spare(wanted.hash, wanted.key, late_at, waiter);
                    match tokio::time::timeout_at(deadline, answer).await {
                        Ok(outcome) => outcome,
                        Err(_) => match self.spare(wanted.hash, wanted.key) {
                            Some(spare) => Ok(spare),
                            None => continue,
                        },
                    }
                }
                Err(error) => Err(self.overloaded(error)),
            };
            match self.after(outcome, seq) {
                Ok(After::Landed(entry)) => answered.push((wanted.key, Ok(entry))),
                Err(error) => answered.push((wanted.key, Err(error))),
                Ok(After::FallBack(_)) => kept.push(wanted),
                Ok(After::AskAgain | After::Disagreed) => again.push(wanted),
            }
        }
        let again = join_all(again.into_iter().map(|wanted| async move {
            let answer = tokio::time::timeout_at(deadline, self.ask(wanted.hash, wanted.key)).await;
            answer.ok().map(|answer| (wanted.key, answer))
        }));
        let (again, kept) = join(again, self.fall_back(kept, Purpose::Fallback, deadline)).await;
        answered.extend(again.into_iter().flatten().chain(kept));
        answered
    }

    /// One load for all keys whose owners were not reached.
    async fn fall_back<'a>(
        self: &Arc<Self>,
        wanted: Vec<Wanted<'a>>,
        purpose: Purpose,
        deadline: Instant,
    ) -> Answered<'a> {
        let mut answered = Vec::with_capacity(wanted.len());
        for (wanted, waiter) in self.start_batch_load(wanted, purpose) {
            let answer = match waiter {
                Err(error) => {
                    self.counters.one(Count::Overloads);
                    Err(error)
                }
                Ok(waiter) => match tokio::time::timeout_at(deadline, waiter).await {
                    Ok(Ok(landed)) => Ok(landed.entry),
                    Ok(Err(Failure::Answered(error) | Failure::NotReached(error))) => Err(error),
                    Ok(Err(Failure::NotOwner | Failure::Abandoned)) => Err(Error::Shutdown),
                    Err(_) => continue,
                },
            };
            answered.push((wanted.key, answer));
        }
        answered
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

    fn start_batch_load<'a>(self: &Arc<Self>, wanted: Vec<Wanted<'a>>, purpose: Purpose) -> Waiting<'a> {
        let (waiters, tickets) = self.join_all_of(&self.loads, wanted, self.view_seq(), purpose.joined_within());
        if !tickets.is_empty() {
            self.start_loads(tickets, purpose);
        }
        waiters
    }

    /// Joins the flights of these keys; the tickets are of those that nobody asks for yet.
    fn join_all_of<'a>(
        &self,
        flights: &Arc<Flights>,
        wanted: Vec<Wanted<'a>>,
        view_seq: u32,
        within: Duration,
    ) -> (Waiting<'a>, Vec<Ticket>) {
        let mut tickets = Vec::new();
        let waiters = wanted.into_iter().map(|wanted| {
            match flights.join(wanted.hash, wanted.key, self.boarding(wanted.hash, view_seq, within)) {
                Ok((waiter, ticket)) => {
                    match ticket {
                        Some(ticket) => tickets.extend(self.land_if_held(ticket)),
                        None => self.joined(),
                    }
                    (wanted, Ok(waiter))
                }
                Err(error) => (wanted, Err(error)),
            }
        });
        let waiters = waiters.collect();
        (waiters, tickets)
    }

    /// Sends these fetches in as few requests as their frames allow.
    fn send_fetches(self: &Arc<Self>, link: &Arc<Link>, tickets: Vec<Ticket>, begun: Begun) {
        let room = self.node.limits.frame_bytes_max() - FRAME_HEADER_BYTES;
        for tickets in split(tickets, room, |ticket| ticket.key().len() + KEY_FRAME_BYTES) {
            self.send_frame(link, tickets, begun);
        }
    }

    /// Starts one load, as the owner, for those of these keys that nobody loads yet.
    pub(super) fn start_own_loads<'a>(
        self: &Arc<Self>,
        wanted: impl Iterator<Item = (u64, &'a str)>,
    ) -> Vec<Result<Waiter, Error>> {
        let wanted = wanted.map(|(hash, key)| Wanted { hash, key }).collect();
        self.start_batch_load(wanted, Purpose::Own).into_iter().map(|(_, waiter)| waiter).collect()
    }

    fn send_frame(self: &Arc<Self>, link: &Arc<Link>, tickets: Vec<Ticket>, begun: Begun) {
        self.counters.one(Count::Fetches);
        let keys: Vec<String> = tickets.iter().map(|ticket| ticket.key().to_owned()).collect();
        let copies = tickets.iter().map(|ticket| self.wants_copy(ticket.hash(), begun));
        let span = trace::fetch(&self.name, link.name(), keys.len());
        let get = GetMany {
            keyspace: span.in_scope(|| self.named()),
            keys: keys.iter().map(String::as_str).zip(copies).collect(),
            deadline: self.fetch_deadline(),
        };
        let (core, from, asked) = (self.clone(), link.clone(), Instant::now());
        let on_answer = Box::new(move |answer: Result<Response<'_>, PeerFailure>| {
            core.counters.took(Took::Fetch, asked.elapsed());
            trace::answered(&span, &answer);
            core.land_fetches(tickets, begun, &from, answer);
        });
        link.ask(&Request::GetMany { get }, on_answer);
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
        self.counters.one(Count::FetchFailures);
        for ticket in tickets {
            ticket.land(|_| Err(self.failure_of(error.clone())));
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
