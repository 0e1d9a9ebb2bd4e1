//! Entries that move with their slot: handed over by the last owner, and asked of it by the new one until they are here.
//!
//! So a restart moves the cache instead of losing it. The last owner keeps what it had for a moment (`DEPARTED_KEPT`), answers
//! peeks and askers who have not heard yet from it, and hands everything over, the hottest first, bounded in bytes and time. The
//! invariants: only what counted when the slot left is handed over; nothing is kept in place of what is there, nor under a key
//! that was written here since the slot came, nor where that is not known; what arrives keeps its age, so that a write elsewhere
//! that is told later still finds it too old; nothing passes between two nodes that had lost sight of each other, nor from one that
//! was in doubt about it; who takes itself for the owner of a key of ours is told of its writes like a holder.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::batch::{ByPeer, FRAME_HEADER_BYTES};
use super::load::{Anew, Purpose};
use super::{Begun, Core, Served};
use crate::changes::Written;
use crate::error::{Error, PeerFailure};
use crate::expiry::{Grace, Times};
use crate::flight::{Failure, Landed, Ticket};
use crate::hotkeys::HotKey;
use crate::net::Moment;
use crate::node::{Owner, Topology};
use crate::peer::link::Link;
use crate::peer::wire::{Answer, HandedOver, Named, Request, Response};
use crate::promise::Rule;
use crate::ring::NodeId;
use crate::spec::{Entry, Origin};
use crate::stats::Count;
use crate::store::{Holding, Look, Now, Record, Validity};

/// How long entries of slots that have left are kept for their new owner.
pub(crate) const DEPARTED_KEPT: Duration = Duration::from_secs(10);
/// How long a hand-over may take.
const HAND_OVER_TIME: Duration = Duration::from_secs(5);
const HAND_OVER_FRAME_BYTES: usize = 128 << 10;
const HAND_OVER_WAIT: Duration = Duration::from_secs(1);
/// The new owner may not know yet that it is.
const NOT_YET_PAUSE: Duration = Duration::from_millis(25);
const NOT_YET_TRIES: usize = 20;
/// How long a new owner waits for the last one before it asks the source.
const PEEK_WAIT: Duration = Duration::from_millis(50);
/// The same where the last owner has not heard yet that it is not the owner any more.
const PEEK_PATIENCE: Duration = Duration::from_millis(100);
const PEEK_PAUSE: Duration = Duration::from_millis(10);

/// An entry on its way to its new owner.
pub(super) struct Departing {
    key: Box<str>,
    value: Bytes,
    stored_at: Moment,
    remaining: Option<Duration>,
}

/// Entries for one new owner, up to a frame.
pub(super) struct Parcel {
    link: Arc<Link>,
    pub(super) entries: Vec<Departing>,
    bytes: usize,
    is_refused: bool,
}

impl Core {
    /// What a record of a slot that has left must satisfy to be handed over; `None`: the slot is ours, was not, or left long ago, or
    /// before a doubt.
    pub(super) fn departed(&self, topology: &Topology, hash: u64) -> Option<Validity> {
        let (former, since) = topology.placement.former(hash)?;
        let now = self.node.clock.now();
        let has_left = former == self.node.id && !topology.owns(hash);
        let is_vouched = has_left && self.node.vouches_since(topology.placement.slot_since(hash));
        (is_vouched && topology.placement.is_young(hash, now, DEPARTED_KEPT))
            .then(|| Validity { slot_since: since, ..self.validity(topology, hash) })
    }

    /// What is here of a key whose slot has left a moment ago, for whoever has not heard of it yet.
    #[cold]
    pub(super) fn look_at_departed(&self, hash: u64, key: &str) -> Option<Record> {
        let validity = self.departed(&self.node.topology(), hash)?;
        self.store.look_at(hash, validity).filter(|record| record.key() == key.as_bytes())
    }

    /// Hands over what is here of slots that have left to their new owners.
    pub(crate) async fn hand_over(self: &Arc<Self>) {
        self.node.until_sure().await;
        // Read first: what is collected before a clear that comes now is not taken.
        let generation = self.generation();
        let seq = self.view_seq();
        let until = tokio::time::Instant::now() + HAND_OVER_TIME;
        let mut room = self.node.limits.hand_over_bytes_max;
        let mut parcels: Vec<Parcel> = Vec::new();
        let hottest: Vec<u64> =
            self.hottest(usize::MAX).into_iter().map(|HotKey { key, .. }| self.hash(&key)).collect();
        let first: HashSet<u64> = hottest.iter().copied().collect();
        let rest = self.departed_hashes(&first).await;
        for hash in hottest.into_iter().chain(rest) {
            if self.view_seq() != seq || tokio::time::Instant::now() > until {
                break;
            }
            let Some((link, entry)) = self.departing(hash) else { continue };
            let bytes = HandedOver::frame_bytes(entry.key.len(), entry.value.len());
            let Some(left) = room.checked_sub(bytes) else { break };
            room = left;
            let parcel = self.parcel_for(&mut parcels, link);
            if parcel.bytes + bytes > self.parcel_bytes_max() && !parcel.entries.is_empty() {
                self.send_parcel(parcel, generation, seq).await;
            }
            parcel.entries.push(entry);
            parcel.bytes += bytes;
        }
        for parcel in &mut parcels {
            self.send_parcel(parcel, generation, seq).await;
        }
    }

    async fn departed_hashes(&self, but: &HashSet<u64>) -> Vec<u64> {
        let topology = self.node.topology_held();
        let mut hashes = Vec::new();
        let visit = |hash| {
            if self.departed(&topology, hash).is_some() && !but.contains(&hash) {
                hashes.push(hash);
            }
        };
        self.store.each_owned(visit, tokio::task::yield_now).await;
        hashes
    }

    pub(super) fn departing(&self, hash: u64) -> Option<(Arc<Link>, Departing)> {
        let topology = self.node.topology();
        let validity = self.departed(&topology, hash)?;
        let Owner::Peer(link) = topology.owner(hash) else { return None };
        let record = self.store.look_at(hash, validity)?;
        let key = std::str::from_utf8(record.key()).ok()?.into();
        let (stored_at, remaining) = (record.times.stored_at, self.node.clock.now().until(record.times.expires_at));
        let value = record.into_value()?;
        Some((link.clone(), Departing { key, value, stored_at, remaining }))
    }

    pub(super) fn parcel_for<'p>(&self, parcels: &'p mut Vec<Parcel>, link: Arc<Link>) -> &'p mut Parcel {
        let place = parcels.iter().position(|parcel| parcel.link.id() == link.id()).unwrap_or_else(|| {
            parcels.push(Parcel { link, entries: Vec::new(), bytes: 0, is_refused: false });
            parcels.len() - 1
        });
        &mut parcels[place]
    }

    fn parcel_bytes_max(&self) -> usize {
        HAND_OVER_FRAME_BYTES.min(self.node.limits.frame_bytes_max() - FRAME_HEADER_BYTES)
    }

    /// Under the clear and the view by which the entries were collected, or not at all.
    pub(super) async fn send_parcel(&self, parcel: &mut Parcel, generation: u64, view_seq: u32) {
        let entries = std::mem::take(&mut parcel.entries);
        parcel.bytes = 0;
        if entries.is_empty() || parcel.is_refused {
            return;
        }
        for _ in 0..NOT_YET_TRIES {
            if !self.node.vouches_since(view_seq) {
                break;
            }
            match self.send_entries(&parcel.link, generation, &entries).await {
                Ok(()) => return self.counters.add(Count::HandedOver, entries.len() as u64),
                Err(Error::NotOwner { .. }) => tokio::time::sleep(NOT_YET_PAUSE).await,
                Err(error) => {
                    tracing::debug!(keyspace = self.name, peer = parcel.link.name(), %error, "a new owner takes no entries");
                    break;
                }
            }
        }
        parcel.is_refused = true;
    }

    async fn send_entries(&self, link: &Arc<Link>, generation: u64, entries: &[Departing]) -> Result<(), Error> {
        let now = self.node.clock.now();
        let entries = entries.iter().map(|entry| HandedOver {
            key: &entry.key,
            value: &entry.value,
            // Counted back from when it arrives, it must not seem younger than it is.
            age: now.since(entry.stored_at) + HAND_OVER_WAIT,
            remaining: entry.remaining,
        });
        let keyspace = Named { generation, ..self.named() };
        let request = Request::HandOver { keyspace, entries: entries.collect() };
        link.call_done(request, HAND_OVER_WAIT).await
    }

    /// Takes over what it may; an error says that nothing of it is ours, or that nothing is taken from this sender.
    pub(crate) fn serve_hand_over(
        self: &Arc<Self>,
        from: NodeId,
        generation: u64,
        entries: &[HandedOver<'_>],
    ) -> Result<(), Error> {
        self.advance(generation);
        // Read first: a clear that comes now leaves what is stored below behind.
        let epoch = self.epoch.load(Ordering::Acquire);
        if !self.takes_from(from) {
            let reason = PeerFailure::Refused("it had been out of sight, and may know less than is known here".into());
            return Err(Error::PeerUnavailable { peer: self.node.peer_name(from), reason });
        }
        if generation < self.generation() {
            return Ok(());
        }
        let topology = self.node.topology();
        let ours = entries.iter().filter(|entry| topology.owns(self.hash(entry.key)));
        let taken = ours.clone().filter(|entry| self.take_over(&topology, epoch, entry)).count();
        if taken == 0 && ours.count() == 0 && !entries.is_empty() {
            return Err(Error::NotOwner { peer: String::new() });
        }
        self.counters.add(Count::TakenOver, taken as u64);
        Ok(())
    }

    /// Whether what another node had is taken over. From one that has lived out of sight it is not: what was written here meanwhile it
    /// may not know, and not all of that is in the log of who owns the key now.
    pub(super) fn takes_from(&self, other: NodeId) -> bool {
        self.node.parted_at(other).is_none()
    }

    fn take_over(&self, topology: &Topology, epoch: u32, entry: &HandedOver<'_>) -> bool {
        let limits = &self.node.limits;
        if limits.check_key(entry.key).is_err() || limits.check_value(entry.value.len()).is_err() {
            return false;
        }
        let hash = self.hash(entry.key);
        let mut record = self.inherited(entry.key, entry.value, entry.age, entry.remaining);
        (record.epoch, record.view_seq) = (epoch, topology.placement.seq());
        self.loads.locked(hash, || {
            let validity = Validity { now: Now::At(self.node.clock.now()), ..self.validity(topology, hash) };
            let is_free = matches!(self.store.get(Holding::Owned, hash, entry.key, validity), Look::Miss);
            let is_unwritten = self.is_unwritten(hash, validity.slot_since, Rule::HandOverFence);
            is_free && is_unwritten && !self.is_deleted() && self.store.insert(Holding::Owned, hash, record).is_ok()
        })
    }

    /// Whether it is certain that the key was not written here since view `since`.
    fn is_unwritten(&self, hash: u64, since: u32, rule: Rule) -> bool {
        !self.node.promise.keeps(rule)
            || self.changes.written(hash, since) == Written::No && self.holds.until(hash).is_none()
    }

    /// The record of a value that its last owner has had for `age`.
    fn inherited(&self, key: &str, value: &[u8], age: Duration, remaining: Option<Duration>) -> Record {
        let definition = self.definition.load();
        let now = self.node.clock.now();
        let mut record = Record::new(key, Some(value));
        record.version = self.node.next_version();
        let grace = Grace::of(&definition.settings, None, None);
        record.times = Times::begin(now, remaining, grace, &definition.rules, record.version);
        record.times.backdate(now.before(age), now);
        record.times.note_use(&definition.rules, record.version, now);
        record
    }

    /// Asks the last owners of these keys for them; gives back those that the source has to be asked for.
    /// What is loaded anew is not taken from them: they are asked so that they know whose the keys are.
    pub(super) async fn peek(&self, tickets: Vec<Ticket>, begun: Begun, anew: Anew) -> Unseen {
        let mut left = Unseen::default();
        let mut asked = ByPeer::default();
        for ticket in tickets {
            match self.to_peek_at(ticket.hash(), ticket.key()) {
                Some(link) => asked.push(&link, ticket),
                None => left.known.push(ticket),
            }
        }
        if asked.is_empty() {
            return left;
        }
        let answered = join_all(asked.into_groups().map(|(link, tickets)| async move {
            let inherited = self.ask_to_peek(&link, &tickets).await;
            (tickets, inherited)
        }));
        for (tickets, inherited) in answered.await {
            let Ok(inherited) = inherited else {
                left.unheard.extend(tickets);
                continue;
            };
            let mut inherited = inherited.into_iter();
            for ticket in tickets {
                match inherited.next().flatten() {
                    Some(record) if anew == Anew::No => self.land_inherited(ticket, record, begun),
                    _ => left.known.push(ticket),
                }
            }
        }
        left
    }

    /// The last owner of a key, where it may have it and nothing here is newer.
    fn to_peek_at(&self, hash: u64, key: &str) -> Option<Arc<Link>> {
        let topology = self.node.topology();
        let (former, _) = topology.placement.former(hash)?;
        let now = self.node.clock.now();
        let came_lately = topology.owns(hash) && topology.placement.is_young(hash, now, DEPARTED_KEPT);
        if former == self.node.id || !came_lately || !self.takes_from(former) {
            return None;
        }
        let link = topology.link(former)?;
        let is_unwritten = self.is_unwritten(hash, topology.placement.slot_since(hash), Rule::PeekFence);
        (is_unwritten && self.owned_record(hash, key).is_none()).then(|| link.clone())
    }

    /// An error says that the last owner may not have heard yet who asks: it timed out, or is not reached.
    async fn ask_to_peek(&self, link: &Arc<Link>, tickets: &[Ticket]) -> Result<Vec<Option<Record>>, Error> {
        let keys: Vec<String> = tickets.iter().map(|ticket| ticket.key().to_owned()).collect();
        let until = tokio::time::Instant::now() + PEEK_PATIENCE;
        let seen = loop {
            match self.look_over(link, &keys).await {
                // It has not heard yet that they are ours.
                Err(Error::NotOwner { .. }) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(PEEK_PAUSE).await
                }
                // It knows who asks, or has nothing that it could write to.
                Err(Error::NotOwner { .. } | Error::KeyspaceNotFound { .. }) => break Vec::new(),
                seen => break seen?,
            }
        };
        let inherited = keys.iter().zip(seen).map(|(key, seen)| {
            let (value, age, remaining) = seen?;
            self.node.limits.check_value(value.len()).ok()?;
            Some(self.inherited(key, &value, age, remaining))
        });
        Ok(inherited.collect())
    }

    async fn look_over(&self, link: &Arc<Link>, keys: &[String]) -> Result<Vec<Seen>, Error> {
        let request = Request::Peek { keyspace: self.named(), keys: keys.iter().map(String::as_str).collect() };
        let seen = |response: Response<'_>| match response {
            Response::Many(answers) if answers.iter().any(|answer| matches!(answer, Answer::NotOwner)) => {
                Some(Err(Error::NotOwner { peer: String::new() }))
            }
            Response::Many(answers) => Some(Ok(answers.iter().map(seen_in).collect())),
            Response::Refused(error) => Some(Err(error)),
            _ => None,
        };
        link.call(request, PEEK_WAIT, seen).await?
    }

    fn land_inherited(&self, ticket: Ticket, mut record: Record, begun: Begun) {
        let hash = ticket.hash();
        (record.epoch, record.view_seq) = (begun.epoch, begun.view_seq);
        let (value, version, times) = (record.value(), record.version, record.times);
        self.counters.one(Count::PeekHits);
        ticket.land(|attached| {
            let now = self.node.clock.now();
            let kept = attached && self.keep(hash, Some(record), begun, Purpose::Own);
            let entry = Entry {
                value: value.ok_or(Failure::Answered(Error::NotFound))?,
                origin: Origin::Owned,
                age: now.since(times.stored_at),
                remaining: now.until(times.expires_at),
                is_stale: false,
            };
            Ok(Landed { entry, version, leasable: kept })
        });
    }

    /// What this node has of keys that it has just lost; `NotFound`: nothing, `NotOwner`: they are still its own.
    pub(crate) fn serve_peek(self: &Arc<Self>, from: NodeId, generation: u64, keys: &[&str]) -> Vec<Served> {
        self.advance(generation);
        let served = keys.iter().map(|key| {
            let hash = self.hash(key);
            if self.node.tenures.of(hash).is_mine {
                self.register_rival(hash, from);
                return Served::NotOwner;
            }
            self.look_at_departed(hash, key).map_or(Served::NotFound, |record| self.served_departed(record))
        });
        served.collect()
    }

    /// The answer of who was the owner a moment ago: of use now, and to be kept by nobody.
    pub(super) fn served_departed(&self, record: Record) -> Served {
        let version = record.version;
        match super::entry_of(record, Origin::Owned, self.node.clock.now()) {
            Ok(entry) => Served::Landed { landed: Landed { entry, version, leasable: false }, lease: Duration::ZERO },
            Err(_) => Served::NotFound,
        }
    }
}

/// Keys that the last owner has not, or does not say that it has.
#[derive(Default)]
pub(super) struct Unseen {
    /// It has heard who asks: of what it may still write it tells this node.
    pub(super) known: Vec<Ticket>,
    /// It may not have heard, and write without telling.
    pub(super) unheard: Vec<Ticket>,
}

/// Value, age and remaining lifetime.
type Seen = Option<(Vec<u8>, Duration, Option<Duration>)>;

/// What the last owner has of a key.
fn seen_in(answer: &Answer<'_>) -> Seen {
    match answer {
        Answer::Value(value) if !value.is_stale => Some((value.value.to_vec(), value.age, value.remaining)),
        _ => None,
    }
}
