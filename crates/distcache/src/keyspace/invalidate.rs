//! Copies that go because their key was written: here, and where others hold them by this node's leave.
//!
//! Knows no values. The invariant: whoever may hold a copy is told, or is noted and told when it is reached again, or runs into its
//! lease; and no copy comes in that was fetched before it was told to go.

use std::sync::Arc;

use futures_util::future::join_all;

use super::Core;
use super::batch::{ByPeer, FRAME_HEADER_BYTES, split};
use super::serve::in_books;
use crate::lease::{Held, Holder};
use crate::net::Moment;
use crate::node::INVALIDATION_WAIT;
use crate::peer::link::Link;
use crate::peer::wire::Request;
use crate::promise::Rule;
use crate::ring::{NodeId, SLOTS};
use crate::stats::Count;
use crate::store::Holding;

impl Core {
    /// Forgets the copy of a key, and does not keep what a fetch or a load under way may bring.
    pub(super) fn drop_copy(&self, hash: u64) {
        // First: a load in place of the owner may land as a copy.
        self.loads.detach_hash(hash, |_| ());
        self.fetches.detach_hash(hash, |_| self.store.remove_hash(Holding::Hot, hash));
    }

    /// The same of all keys whose hash is wanted; what this node loads as their owner is no copy, and goes on.
    pub(crate) async fn drop_copies(&self, is_wanted: impl Fn(u64) -> bool) {
        let now = self.node.clock.now();
        self.loads.detach_older(now, |hash| is_wanted(hash) && !self.node.tenures.of(hash).is_mine);
        self.fetches.detach_older(now, &is_wanted);
        self.store.remove_copies(is_wanted, tokio::task::yield_now).await;
    }

    /// Tells the holders of these keys to drop them; waits a moment for their word. Those that cannot be told run into their
    /// lease. Told by a task of the engine: a caller that goes away leaves nobody untold.
    pub(super) async fn invalidate(self: &Arc<Self>, hashes: Vec<u64>) {
        let told = self.holders_of(&hashes, None);
        if told.is_empty() {
            return;
        }
        let core = self.clone();
        let telling = async move { core.send_invalidations(told, false).await };
        match self.node.promise.keeps(Rule::AwaitAcks) {
            true => drop(self.node.work_done(telling).await),
            false => self.node.spawn_work(telling),
        }
    }

    /// Whom to tell of a change of these keys; nobody is told what it told us.
    pub(super) fn holders_of(&self, hashes: &[u64], but: Option<NodeId>) -> ByPeer<HeldCopy> {
        let mut told = ByPeer::default();
        let (topology, now) = (self.node.topology(), self.node.clock.now());
        let lease = in_books(self.definition.load().lease);
        let is_back = self.node.was_in_doubt_within(lease);
        for &hash in hashes {
            // The slot's last owner, or who owned it while this node was taken for dead, may have given leases that nobody here
            // knows of.
            let is_young = is_back || topology.placement.is_young(hash, now, lease);
            let is_young = is_young && self.node.promise.keeps(Rule::AllWhileYoung);
            match self.leases.holders(hash, now) {
                Held::Nodes(nodes) if !is_young => {
                    for holder in nodes.into_iter().filter(|holder| Some(holder.node) != but) {
                        match topology.link(holder.node) {
                            Some(link) => told.push(link, HeldCopy { hash, holder: Some(holder) }),
                            None => self.undelivered.note(holder.node, [(hash, holder.until)].into_iter()),
                        }
                    }
                }
                _ => {
                    let others = topology.links().filter(|link| Some(link.id()) != but);
                    others.for_each(|link| told.push(link, HeldCopy { hash, holder: None }));
                }
            }
        }
        told
    }

    /// In as few requests as frames allow, all at once.
    pub(super) async fn send_invalidations(&self, told: ByPeer<HeldCopy>, is_relayed: bool) {
        let room = self.node.limits.frame_bytes_max() - FRAME_HEADER_BYTES;
        let tell = told.into_groups().flat_map(|(link, copies)| {
            let frames = split(copies, room, |_| size_of::<u64>());
            frames.into_iter().map(move |copies| (link.clone(), copies))
        });
        join_all(tell.map(|(link, copies)| self.send_invalidation(link, copies, is_relayed))).await;
    }

    async fn send_invalidation(&self, link: Arc<Link>, copies: Vec<HeldCopy>, is_relayed: bool) {
        self.counters.add(Count::InvalidationsSent, copies.len() as u64);
        let hashes = copies.iter().map(|copy| copy.hash).collect();
        let request = Request::Invalidate { keyspace: self.named(), hashes, is_relayed };
        match link.call_done(request, INVALIDATION_WAIT).await {
            Ok(()) => {
                let named = copies.iter().filter_map(|copy| Some((copy.hash, copy.holder?)));
                named.for_each(|(hash, holder)| self.leases.confirm(hash, holder));
            }
            Err(error) => {
                tracing::debug!(keyspace = self.name, peer = link.name(), %error, "an invalidation was not confirmed");
                let until = self.leases_end();
                let undelivered =
                    copies.iter().map(|copy| (copy.hash, copy.holder.map_or(until, |holder| holder.until)));
                self.undelivered.note(link.id(), undelivered);
            }
        }
    }

    /// Tells a peer that is reached again what it missed, as far as its leases may still run.
    pub(crate) fn tell_undelivered(self: &Arc<Self>, peer: NodeId) {
        let Some(link) = self.node.topology().link(peer).cloned() else { return };
        let Some(missed) = self.undelivered.take(peer, self.node.clock.now()) else { return };
        let core = self.clone();
        self.node.spawn_work(async move {
            match missed.any_until {
                None => {
                    let mut told = ByPeer::default();
                    missed.keys.into_keys().for_each(|hash| told.push(&link, HeldCopy { hash, holder: None }));
                    core.send_invalidations(told, false).await;
                }
                Some(_) => core.send_drop_copies(&link, &[u8::MAX; SLOTS / 8]).await,
            }
        });
    }

    /// Tells a node to drop its copies of the keys of these slots, a bit each; if it cannot be told now, when it is reached again.
    pub(super) async fn send_drop_copies(&self, link: &Arc<Link>, slots: &[u8]) {
        let request = Request::DropCopies { keyspace: self.named(), slots };
        if let Err(error) = link.call_done(request, INVALIDATION_WAIT).await {
            tracing::debug!(keyspace = self.name, peer = link.name(), %error, "copies in doubt may be left");
            self.undelivered.note_any(link.id(), self.leases_end());
        }
    }

    /// When leases that are given now have run out.
    fn leases_end(&self) -> Moment {
        self.node.clock.now().after(in_books(self.definition.load().lease))
    }
}

/// A copy that a node may hold, and by which lease, where that is known.
pub(super) struct HeldCopy {
    hash: u64,
    holder: Option<Holder>,
}
