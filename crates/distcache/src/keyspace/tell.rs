//! What was written where two nodes may have owned the same keys: told to whoever owns them now.
//!
//! Views spread in moments, and not at all across a cut: meanwhile two nodes may each take themselves for a key's owner. Each logs
//! what it writes. Who loses a slot tells its next owner; who was taken for dead asks everybody (`../heal.rs`), and whoever took
//! entries over from it meanwhile is told to drop them. Of a change only hash and age are told: the receiver drops what it stored,
//! or began to load, before that. The invariants: a change is told until its receiver confirms, or owns the key no more; what the
//! log has lost is told as a doubt about all that is older.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;

use super::Core;
use super::ask::Route;
use super::batch::{ByPeer, FRAME_HEADER_BYTES, split};
use crate::builder::TIMEOUT_MAX;
use crate::changes::Change;
use crate::error::Error;
use crate::lease::Held;
use crate::net::Moment;
use crate::node::{Node, Owner, Topology};
use crate::peer::link::Link;
use crate::peer::wire::{Lost, Request, Told, ToldChange};
use crate::placement::is_among;
use crate::promise::Rule;
use crate::ring::NodeId;
use crate::stats::Count;

/// How long one telling may take before it is tried again.
const TELL_WAIT: Duration = Duration::from_millis(500);
const TELL_PAUSE: Duration = Duration::from_millis(100);
/// What was given before a doubt is on its way no longer than this.
const GIVEN_BEFORE: Duration = Duration::from_millis(100);
/// A receiver that is a member and is not reached is told all the same, when it is; but it is tried less and less often.
const TELL_PAUSE_MAX: Duration = Duration::from_secs(2);
/// After this long it is left alone until it is reached.
const TELL_PATIENCE: Duration = Duration::from_secs(60);

/// An age as it was when it was sent, made younger by what clocks that run at different rates and tick in steps may differ: so
/// that a doubt falls on the side of dropping.
fn written_at(now: Moment, age: Duration) -> Moment {
    now.before(age.saturating_sub(age / 50)).after(Duration::from_millis(50))
}

/// What one receiver is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tidings {
    pub(super) changes: Vec<(u64, Moment)>,
    /// The newest change that the log has lost, and the slots concerned.
    pub(super) lost: Option<(Moment, Vec<u8>)>,
}

impl Tidings {
    /// Of a key the newest change counts.
    fn merge(&mut self, more: Self) {
        self.changes.extend(more.changes);
        self.changes.sort_unstable_by_key(|(hash, at)| (*hash, Reverse(*at)));
        self.changes.dedup_by_key(|(hash, _)| *hash);
        match (&mut self.lost, more.lost) {
            (Some((at, slots)), Some((later, more))) => {
                *at = later.max(*at);
                slots.iter_mut().zip(more).for_each(|(slots, more)| *slots |= more);
            }
            (lost, more) => *lost = lost.take().or(more),
        }
    }
}

/// What a view brings: who owns keys now and may not have heard of all that was written of them.
struct News<'t> {
    before: &'t Topology,
    topology: &'t Topology,
    /// From when on each of the others may not have heard of what was known here.
    apart_since: HashMap<NodeId, Moment>,
    /// While somebody is out of sight all since then is told, so that the next owner does not take over from whom he meets what is
    /// older.
    first_parting: Option<Moment>,
}

impl<'t> News<'t> {
    fn since(before: &'t Topology, topology: &'t Topology, node: &Node) -> Self {
        let now = node.clock.now();
        let apart_since = topology.links().map(|link| (link.id(), node.apart_since(before, link.id(), now)));
        Self { before, topology, apart_since: apart_since.collect(), first_parting: node.first_parting(now) }
    }

    /// Whether the owner of the key may have heard from nobody. Whom this node meets only now may have owned it elsewhere, whoever
    /// owned it here; and who is gone tells nothing.
    fn may_be_unheard(&self, hash: u64, owner: &Link) -> bool {
        let is_met_anew = self.before.in_sight.get(&owner.id()) != self.topology.in_sight.get(&owner.id());
        self.before.owns(hash) || is_met_anew || self.before.owner_is_gone(hash, self.topology)
    }

    fn may_have_missed(&self, owner: &Link, change: &Change) -> bool {
        self.first_parting.is_some_and(|first| change.known_at() >= first) || self.was_apart_at(owner, change)
    }

    fn was_apart_at(&self, owner: &Link, change: &Change) -> bool {
        self.apart_since.get(&owner.id()).is_some_and(|since| change.known_at() >= *since)
    }
}

impl Core {
    /// Slots may have changed hands since `before`: tells their next owners what was written here.
    pub(super) fn tell_next_owners(self: &Arc<Self>, before: &Topology) {
        if !self.node.promise.keeps(Rule::TellTheNext) {
            return;
        }
        let topology = self.node.topology();
        self.tell_all_postponed(&topology);
        let news = News::since(before, &topology, &self.node);
        let mut told = self.changes_to_tell(&news);
        told.extend(self.loss_to_tell(&news));
        told.into_iter().for_each(|(link, tidings)| self.start_telling(link, tidings));
    }

    fn changes_to_tell(&self, news: &News<'_>) -> Vec<(Arc<Link>, Tidings)> {
        let left = self.changes.select(|hash, change| {
            let Owner::Peer(link) = news.topology.owner(hash) else { return false };
            news.may_be_unheard(hash, link) && news.may_have_missed(link, &change)
        });
        let mut told = ByPeer::default();
        for (hash, at) in self.with_holds(left, |hash| news.before.owns(hash)) {
            if let Owner::Peer(link) = news.topology.owner(hash) {
                told.push(link, (hash, at));
            }
        }
        told.into_groups().map(|(link, changes)| (link, Tidings { changes, lost: None })).collect()
    }

    fn loss_to_tell(&self, news: &News<'_>) -> Vec<(Arc<Link>, Tidings)> {
        let Some(lost) = self.changes.lost() else { return Vec::new() };
        let placement = &news.topology.placement;
        let told = news.topology.links().filter(|link| news.was_apart_at(link, &lost)).filter_map(|link| {
            let slots = match self.node.parted_at(link.id()).is_some() {
                true => placement.owned_by(link.id()),
                false => placement.passed(self.node.id, link.id(), placement.seq()),
            };
            let is_concerned = slots.iter().any(|byte| *byte != 0);
            is_concerned.then(|| (link.clone(), Tidings { changes: Vec::new(), lost: Some((lost.at, slots)) }))
        });
        told.collect()
    }

    /// Tells a node that was taken for dead all that was written here of what it owns. `Ok`: it has confirmed.
    pub(crate) async fn tell_returned(self: &Arc<Self>, link: &Arc<Link>, parted_at: Moment) -> Result<(), Error> {
        let topology = self.node.topology_held();
        let is_theirs = |hash| matches!(topology.owner(hash), Owner::Peer(owner) if owner.id() == link.id());
        let changes = self.with_holds(self.changes.select(|hash, _| is_theirs(hash)), is_theirs);
        let lost = self.changes.lost().filter(|lost| lost.known_at() >= parted_at);
        let lost = lost.map(|lost| (lost.at, topology.placement.owned_by(link.id())));
        self.send_tidings(link, &Tidings { changes, lost }).await
    }

    /// These changes, and holds of which the log has forgotten the writes.
    fn with_holds(&self, mut changes: Vec<(u64, Moment)>, is_wanted: impl Fn(u64) -> bool) -> Vec<(u64, Moment)> {
        let held = self.holds.running(self.node.clock.now());
        changes.extend(held.into_iter().filter(|(hash, _)| is_wanted(*hash)));
        changes.sort_unstable();
        changes.dedup_by_key(|(hash, _)| *hash);
        changes
    }

    fn start_telling(self: &Arc<Self>, link: Arc<Link>, tidings: Tidings) {
        let core = self.clone();
        // Boxed: what its receiver does not own any more, it starts to tell others.
        self.node.spawn_work(Box::pin(async move { core.tell(&link, tidings).await }));
    }

    /// Until the receiver confirms, or is not the owner any more, or has not been reached for long.
    async fn tell(self: &Arc<Self>, link: &Arc<Link>, mut tidings: Tidings) {
        let (mut pause, patient_until) = (TELL_PAUSE, self.node.clock.now().after(TELL_PATIENCE));
        while self.send_tidings(link, &tidings).await.is_err() {
            tokio::time::sleep(pause).await;
            pause = (pause + pause / 8).min(TELL_PAUSE_MAX);
            let topology = self.node.topology();
            let is_known = topology.link(link.id()).is_some_and(|known| Arc::ptr_eq(known, link));
            let is_theirs = |hash| matches!(topology.owner(hash), Owner::Peer(owner) if owner.id() == link.id());
            let (theirs, others): (Vec<_>, Vec<_>) =
                tidings.changes.drain(..).partition(|(hash, _)| is_known && is_theirs(*hash));
            tidings.changes = theirs;
            drop(topology);
            self.tell_anew(others);
            if !is_known || tidings.changes.is_empty() && tidings.lost.is_none() {
                return;
            }
            if self.node.clock.now() > patient_until && !link.stands() {
                return self.postpone(link, tidings);
            }
        }
    }

    /// Until the receiver is reached, or the view changes: one list for each member, however long it is and however often views change.
    pub(super) fn postpone(self: &Arc<Self>, link: &Arc<Link>, tidings: Tidings) {
        let why = "a new owner does not hear what was written here: it may answer what is older until it is reached";
        tracing::warn!(keyspace = self.name, peer = link.name(), "{why}");
        self.postponed.lock().entry(link.id()).or_default().merge(tidings);
        // Last: a connection that is made from now on finds it.
        if link.stands() {
            self.tell_postponed(link.id());
        }
    }

    /// The peer is reached again.
    pub(crate) fn tell_postponed(self: &Arc<Self>, peer: NodeId) {
        let Some(link) = self.node.topology().link(peer).cloned() else { return };
        let postponed = self.postponed.lock().remove(&peer);
        postponed.into_iter().for_each(|tidings| self.start_telling(link.clone(), tidings));
    }

    /// Others may own these keys by now.
    fn tell_all_postponed(self: &Arc<Self>, topology: &Topology) {
        let postponed = std::mem::take(&mut *self.postponed.lock());
        for (peer, tidings) in postponed {
            match topology.link(peer) {
                Some(link) => self.start_telling(link.clone(), tidings),
                None => self.tell_anew(tidings.changes),
            }
        }
    }

    /// Changes whose receiver owns their keys no more before it was told.
    fn tell_anew(self: &Arc<Self>, changes: Vec<(u64, Moment)>) {
        let mut told = ByPeer::default();
        for (hash, at) in changes {
            match self.route(hash).0 {
                Route::Peer(link) => told.push(&link, (hash, at)),
                // Ours again, under a new tenure: nothing of before it counts here.
                Route::Me | Route::Nobody => {}
            }
        }
        told.into_groups().for_each(|(link, changes)| self.start_telling(link, Tidings { changes, lost: None }));
    }

    async fn send_tidings(&self, link: &Arc<Link>, tidings: &Tidings) -> Result<(), Error> {
        let now = self.node.clock.now();
        let changes = tidings.changes.iter().map(|&(hash, at)| {
            let hold = self.holds.until(hash).map_or(Duration::ZERO, |until| until.since(now));
            ToldChange { hash, age: now.since(at), hold }
        });
        let lost = tidings.lost.as_ref().map(|(at, slots)| Lost { age: now.since(*at), slots });
        let room = self.node.limits.frame_bytes_max()
            - FRAME_HEADER_BYTES
            - tidings.lost.as_ref().map_or(0, |lost| lost.1.len());
        let mut frames = split(changes.collect(), room, |_| Told::CHANGE_BYTES);
        if frames.is_empty() && lost.is_some() {
            frames.push(Vec::new());
        }
        self.counters.add(Count::ChangesTold, tidings.changes.len() as u64);
        let told = frames.into_iter().enumerate().map(|(nth, changes)| async move {
            // Looked for among all that is stored: once is enough.
            let lost = lost.filter(|_| nth == 0);
            let request = Request::Tell { keyspace: self.named(), told: Told { changes, lost } };
            match link.call_done(request, TELL_WAIT).await {
                // Nothing of it is there.
                Err(Error::KeyspaceNotFound { .. }) => Ok(()),
                answer => answer,
            }
        });
        join_all(told).await.into_iter().collect()
    }

    /// What another node wrote counts here like a write, but keeps what is younger. An error says that not all of it is this
    /// node's in its own view: the teller looks at its view again, and one of the two views is about to change.
    pub(crate) async fn serve_told(
        self: &Arc<Self>,
        from: NodeId,
        generation: u64,
        told: &Told<'_>,
    ) -> Result<(), Error> {
        self.advance(generation);
        let now = self.node.clock.now();
        self.counters.add(Count::ChangesHeard, told.changes.len() as u64);
        let mut dropped = Vec::new();
        for change in &told.changes {
            let hold = change.hold.min(TIMEOUT_MAX);
            if !hold.is_zero() {
                // Without room for it a lagging replica is believed for one lifetime; the write itself is not lost.
                self.holds.hold(change.hash, now.after(hold));
            }
            // Known before what is older is dropped: what is older and comes between is not taken.
            self.changes.note(change.hash, now.before(change.age).after(hold), now, self.view_seq());
            if self.drop_written(change.hash, written_at(now, change.age)) {
                dropped.push(change.hash);
            }
        }
        self.relay(dropped, from).await;
        if let Some(lost) = told.lost {
            tracing::info!(
                keyspace = self.name,
                "more was written elsewhere than could be told; what is older is dropped"
            );
            self.changes.note_lost(now.before(lost.age), now, self.view_seq());
            self.drop_doubted(lost).await;
        }
        let topology = self.node.topology();
        match told.changes.iter().all(|change| topology.owns(change.hash)) {
            true => Ok(()),
            false => Err(Error::NotOwner { peer: String::new() }),
        }
    }

    /// Whether something that may be older than the write was owned here, or being loaded, or held by others by this node's leave.
    fn drop_written(&self, hash: u64, at: Moment) -> bool {
        let was_here = self.loads.detach_hash(hash, |was_loading| self.store.remove_older(hash, at) || was_loading);
        self.drop_copy(hash);
        let now = self.node.clock.now();
        was_here || self.leases.holders(hash, now) != Held::Nodes(Vec::new())
    }

    /// Drops what may be older than changes of which nobody knows what they were, here and where others hold it by this node's leave.
    async fn drop_doubted(&self, lost: Lost<'_>) {
        let at = written_at(self.node.clock.now(), lost.age);
        let is_concerned = |hash| is_among(lost.slots, hash);
        self.loads.detach_older(at, is_concerned);
        self.store.remove_all_older(at, is_concerned, tokio::task::yield_now).await;
        let links: Vec<_> = self.node.topology().links().cloned().collect();
        join_all(links.iter().map(|link| self.send_drop_copies(link, lost.slots))).await;
    }

    /// Passes on, to those who hold them by this node's leave, that these keys were written elsewhere. It goes no further.
    pub(super) async fn relay(self: &Arc<Self>, hashes: Vec<u64>, from: NodeId) {
        let told = self.holders_of(&hashes, Some(from));
        self.send_invalidations(told, true).await;
    }

    /// This node was taken for dead: who took slots over from it since view `since`, when it lost sight of the others, has what is no
    /// better than what is here. Of whom this node had lost sight itself, nobody has taken anything (see [`Self::takes_from`]).
    pub(crate) fn tell_doubt(self: &Arc<Self>, topology: &Topology, since: u32) {
        let now = self.node.clock.now();
        for link in topology.links().filter(|link| self.node.parted_at(link.id()).is_none()) {
            let slots = topology.placement.passed(self.node.id, link.id(), since);
            if slots.iter().any(|byte| *byte != 0) {
                let (core, link) = (self.clone(), link.clone());
                self.node.spawn_work(async move {
                    tokio::time::sleep(GIVEN_BEFORE).await;
                    core.tell(&link, Tidings { changes: Vec::new(), lost: Some((now, slots)) }).await;
                });
            }
        }
    }

    /// Everything owned here is in doubt, and goes. Who has taken some of it over and is out of sight is told when it is back.
    /// Nor can those know better who began after this node had lost sight of the first: they are told to drop all that is older.
    pub(crate) fn doubt_all(self: &Arc<Self>) {
        let now = self.node.clock.now();
        self.changes.note_lost(now, now, self.view_seq());
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.node.sweep.notify_one();
        let topology = self.node.topology();
        for link in self.node.younger_than_first_parting(&topology) {
            let slots = topology.placement.owned_by(link.id());
            self.start_telling(link.clone(), Tidings { changes: Vec::new(), lost: Some((now, slots)) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tidings_that_are_merged_name_each_key_once_with_its_newest_change() {
        let of = |changes: &[(u64, u64)], lost: Option<(u64, u8)>| Tidings {
            changes: changes.iter().map(|&(hash, at)| (hash, Moment(at))).collect(),
            lost: lost.map(|(at, slots)| (Moment(at), vec![slots])),
        };
        let mut tidings = of(&[(1, 10), (2, 40)], None);
        tidings.merge(of(&[(2, 30), (1, 20), (3, 5)], Some((7, 0b01))));
        assert_eq!(tidings, of(&[(1, 20), (2, 40), (3, 5)], Some((7, 0b01))));
        tidings.merge(of(&[], Some((6, 0b10))));
        assert_eq!(tidings.lost, Some((Moment(7), vec![0b11])));
        tidings.merge(Tidings::default());
        assert_eq!(tidings.lost, Some((Moment(7), vec![0b11])));
    }
}
