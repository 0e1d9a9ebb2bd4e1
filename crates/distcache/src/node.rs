//! What all keyspaces of a node share: its clock and limits, its tasks, and its standing in the cluster.
//!
//! Decides nothing about keys. The invariant: a [`Topology`] is replaced whole and never changed, so that whoever took one sees
//! owners, links and peers of the same view.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::{Peer, PeerState};
use crate::guard::Guards;
use crate::limits::Limits;
use crate::net::{self, Clock, Moment};
use crate::partings::{InSight, Life, OutOfSight, Partings, VIEWS_DIFFER_MAX};
use crate::peer::link::{Link, LinkSettings};
use crate::placement::{Placed, Placement, Tenures};
use crate::promise::Promise;
use crate::ring::{Member, NodeId};
use crate::trace::Traces;
use crate::trust::Gate;
use crate::trust::handshake::Hello;

/// How long an invalidation waits for the nodes that hold copies; those that miss it run into their lease.
pub(crate) const INVALIDATION_WAIT: Duration = Duration::from_millis(200);

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) request_timeout: Duration,
    pub(crate) hop_budget: Duration,
    /// What runs as long as the node does.
    pub(crate) tasks: TaskTracker,
    /// What somebody waits for: loads, invalidations, requests of peers. A shutdown gives it time to end.
    pub(crate) work: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) runtime: Handle,
    /// Whether there can be other nodes at all.
    pub(crate) clustered: bool,
    /// Wakes whoever drops what no longer counts.
    pub(crate) sweep: Notify,
    pub(crate) traces: Traces,
    /// Who owns what, for hits.
    pub(crate) tenures: Tenures,
    /// What stands before the sources that several keyspaces share.
    pub(crate) guards: Guards,
    /// Which rules of the write promise are kept: all of them, outside of a simulation.
    pub(crate) promise: Promise,
    topology: ArcSwap<Topology>,
    /// Wakes whoever waits for the next view, in the order of their coming: a simulation is to go the same way each time.
    view_changed: Notify,
    /// How many inquiries are under way into what others wrote while they took this node for dead.
    doubts: AtomicUsize,
    /// Wakes whoever waits until there are none.
    sure: Notify,
    /// When the last of them ended, and under which view; before the first, never.
    last_doubt: Mutex<Option<(Moment, u32)>>,
    /// Wakes who begins an inquiry: a peer says that this node had been out of its sight.
    missed: Notify,
    /// Nodes that went out of sight without a farewell.
    pub(crate) partings: Partings,
    began: Moment,
    adopting: Mutex<()>,
    /// Whom it is asking whether they had lost sight of it.
    pub(crate) asking: Mutex<BTreeSet<NodeId>>,
    link_settings: Arc<LinkSettings>,
    versions: AtomicU64,
}

/// The cluster as this node sees it at one time.
pub(crate) struct Topology {
    pub(crate) placement: Arc<Placement>,
    /// By the placement's index; `None` is this node.
    owners: Vec<Option<Arc<Link>>>,
    /// All other nodes, owners or not.
    links: BTreeMap<NodeId, Arc<Link>>,
    pub(crate) peers: Vec<Peer>,
    /// The same by their ids, this node included.
    pub(crate) in_sight: InSight,
}

/// Who answers for a key.
pub(crate) enum Owner<'a> {
    Me,
    Peer(&'a Arc<Link>),
    /// No node takes keys at the moment.
    Nobody,
}

impl Topology {
    #[inline]
    pub(crate) fn owner(&self, hash: u64) -> Owner<'_> {
        match self.placement.owner(hash) {
            None => Owner::Nobody,
            Some(index) => self.owners[index].as_ref().map_or(Owner::Me, Owner::Peer),
        }
    }

    #[inline]
    pub(crate) fn owns(&self, hash: u64) -> bool {
        matches!(self.owner(hash), Owner::Me)
    }

    /// The owner's entry in the view.
    pub(crate) fn owner_peer(&self, hash: u64) -> Option<&Peer> {
        let id = self.placement.placed().get(self.placement.owner(hash)?)?.member.id;
        self.peers.iter().find(|peer| NodeId::of(&peer.name) == id)
    }

    /// Whether the life of a node that owned this key is not in sight in the view `after`.
    pub(crate) fn owner_is_gone(&self, hash: u64, after: &Self) -> bool {
        let owner = self.placement.owner(hash).map(|index| self.placement.placed()[index].life());
        owner.is_some_and(|owner| !after.sees(owner))
    }

    /// Whether this life of a node is in the view.
    pub(crate) fn sees(&self, life: Life) -> bool {
        self.in_sight.get(&life.id) == Some(&life.incarnation)
    }

    /// Whether a node owns keys.
    pub(crate) fn places(&self, id: NodeId) -> bool {
        self.placement.placed().iter().any(|placed| placed.member.id == id)
    }

    /// Whether the node is in the view and will own nothing, as it is: it has no weight, or is leaving.
    pub(crate) fn owns_nothing(&self, id: NodeId) -> bool {
        let is_it = |peer: &&Peer| NodeId::of(&peer.name) == id;
        self.peers.iter().find(is_it).is_some_and(|peer| peer.weight == 0 || peer.state == PeerState::Draining)
    }

    pub(crate) fn link(&self, id: NodeId) -> Option<&Arc<Link>> {
        self.links.get(&id)
    }

    /// Those that were not in the view before, or not in this life.
    pub(crate) fn links_new_since(&self, before: &Self) -> impl Iterator<Item = &Arc<Link>> {
        self.links().filter(|link| before.link(link.id()).is_none_or(|known| !Arc::ptr_eq(known, link)))
    }

    /// In the order of the ids.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.values()
    }
}

/// What a node is made of.
pub(crate) struct NodeParts {
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) began: Moment,
    pub(crate) request_timeout: Duration,
    pub(crate) clustered: bool,
    pub(crate) link_settings: LinkSettings,
    pub(crate) traces: Traces,
    pub(crate) promise: Promise,
    pub(crate) stop: CancellationToken,
}

impl Node {
    /// A node that knows nobody, not even itself, until it adopts a view.
    pub(crate) fn new(parts: NodeParts) -> Self {
        let topology = Topology {
            placement: Arc::new(Placement::first(Vec::new(), parts.clock.now())),
            owners: Vec::new(),
            links: BTreeMap::new(),
            peers: Vec::new(),
            in_sight: InSight::default(),
        };
        Self {
            id: NodeId::of(&parts.name),
            guards: Guards::new(parts.limits.loads_running_max, parts.clock),
            limits: parts.limits,
            clock: parts.clock,
            request_timeout: parts.request_timeout,
            hop_budget: parts.link_settings.hop_budget,
            tasks: parts.link_settings.tasks.clone(),
            work: TaskTracker::new(),
            stop: parts.stop,
            runtime: parts.link_settings.runtime.clone(),
            clustered: parts.clustered,
            sweep: Notify::new(),
            traces: parts.traces,
            tenures: Tenures::new(),
            promise: parts.promise,
            topology: ArcSwap::from_pointee(topology),
            view_changed: Notify::new(),
            doubts: AtomicUsize::new(0),
            sure: Notify::new(),
            last_doubt: Mutex::default(),
            missed: Notify::new(),
            partings: Partings::default(),
            began: parts.began,
            adopting: Mutex::default(),
            asking: Mutex::default(),
            link_settings: Arc::new(parts.link_settings),
            // Grows over a restart, so that a version is never given twice.
            versions: AtomicU64::new(net::wall_clock_ms() << 20),
        }
    }

    /// For use within one step; holds up the disposal of the view.
    #[inline]
    pub(crate) fn topology(&self) -> Guard<Arc<Topology>> {
        self.topology.load()
    }

    /// The same for use across steps.
    pub(crate) fn topology_held(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// Whether this node is about to leave, as its own view says.
    pub(crate) fn is_draining(&self) -> bool {
        self.topology().peers.iter().any(|peer| peer.is_self && peer.state == PeerState::Draining)
    }

    /// The number of the view, if this node owns keys in it.
    pub(crate) fn placed_in(&self) -> Option<u32> {
        let topology = self.topology();
        topology.places(self.id).then(|| topology.placement.seq())
    }

    /// Returns with the first view after the one numbered `seq`, or when `patience` is over.
    pub(crate) async fn until_view_after(&self, seq: u32, patience: Duration) {
        let next = async {
            loop {
                // Before looking, so that no change is missed.
                let changed = self.view_changed.notified();
                if self.topology().placement.seq() != seq {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(patience, next).await;
    }

    /// Whether it is being found out what others wrote in this node's place: what it owns is answered to its own callers meanwhile, and
    /// to nobody else.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.doubts.load(Relaxed) > 0
    }

    /// Returns when it has been found out.
    pub(crate) async fn until_sure(&self) {
        loop {
            // Before looking, so that no change is missed.
            let sure = self.sure.notified();
            if !self.is_in_doubt() {
                return;
            }
            sure.await;
        }
    }

    /// The same, but no longer than this; whether it has been.
    pub(crate) async fn is_sure_within(&self, patience: Duration) -> bool {
        !self.is_in_doubt() || tokio::time::timeout(patience, self.until_sure()).await.is_ok()
    }

    /// Whether it is being found out, or was within the last `lease`: others may hold copies by leave of whoever took this node's
    /// place.
    pub(crate) fn was_in_doubt_within(&self, lease: Duration) -> bool {
        let ended = *self.last_doubt.lock();
        self.is_in_doubt() || ended.is_some_and(|(at, _)| self.clock.now().since(at) < lease)
    }

    /// Whether what this node had when it lost a slot under view `seq` may be passed on: it has not been in doubt about it.
    pub(crate) fn vouches_since(&self, seq: u32) -> bool {
        !self.is_in_doubt() && self.last_doubt.lock().is_none_or(|(_, under)| seq > under)
    }

    /// A peer had lost sight of this node.
    pub(crate) fn note_missed(&self) {
        if !self.is_in_doubt() {
            self.missed.notify_one();
        }
    }

    /// Returns when a peer has said that it had lost sight of this node.
    pub(crate) async fn until_missed(&self) {
        self.missed.notified().await;
    }

    pub(crate) fn doubt(self: &Arc<Self>) -> Doubt {
        self.doubts.fetch_add(1, Relaxed);
        Doubt(self.clone())
    }

    /// What this node says first to its peers.
    pub(crate) fn hello(&self) -> &Hello {
        &self.link_settings.hello
    }

    /// Empty: it is in no view that this node has.
    pub(crate) fn peer_name(&self, id: NodeId) -> String {
        self.topology().link(id).map_or_else(String::new, |link| link.name().to_owned())
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.link_settings.gate
    }

    pub(crate) fn next_version(&self) -> u64 {
        self.versions.fetch_add(1, Relaxed)
    }

    /// Starts what runs as long as the node does.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(until(self.stop.clone(), task), &self.runtime);
    }

    /// Starts what somebody waits for.
    pub(crate) fn spawn_work(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.work.spawn_on(until(self.stop.clone(), task), &self.runtime);
    }

    /// What a task of the engine comes to; it goes on if the caller does not wait. `None`: the node was stopped.
    pub(crate) async fn work_done<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.spawn_work(async move { drop(tell.send(task.await)) });
        told.await.ok()
    }

    /// Takes a new view, and gives back the one before.
    pub(crate) fn adopt(&self, mut peers: Vec<Peer>) -> Arc<Topology> {
        let _one_at_a_time = self.adopting.lock();
        if self.stop.is_cancelled() {
            // The last view of a node that has stopped is empty, whoever comes late with another one.
            peers.clear();
        }
        let before = self.topology.load_full();
        let placed = placed(&peers);
        // Most of what peers say anew of themselves moves no key: then nothing is computed and no flight disturbed.
        let placement = match placed == before.placement.placed() {
            true => before.placement.clone(),
            false => Arc::new(before.placement.next(placed, self.clock.now())),
        };
        let links: BTreeMap<_, _> = peers
            .iter()
            .filter(|peer| !peer.is_self)
            .map(|peer| (NodeId::of(&peer.name), self.link(&before, peer)))
            .collect();
        let owners = placement.placed().iter().map(|placed| links.get(&placed.member.id).cloned()).collect();
        let gone = before.links.iter().filter(|(id, link)| links.get(id).is_none_or(|kept| !Arc::ptr_eq(kept, link)));
        let gone: Vec<_> = gone.map(|(_, link)| link.clone()).collect();
        self.tenures.publish(&placement, self.id);
        let seq = placement.seq();
        let in_sight = peers.iter().map(|peer| (NodeId::of(&peer.name), peer.incarnation)).collect();
        let after = Topology { placement, owners, links, peers, in_sight };
        if before.placement.seq() != seq {
            self.partings.note_view(seq, self.clock.now());
        }
        self.note_parted(&before, &after);
        self.note_strangers(&before, &after);
        self.topology.store(Arc::new(after));
        if before.placement.seq() != seq {
            self.view_changed.notify_waiters();
        }
        // Last, so that whoever fails by it finds the new view.
        gone.iter().for_each(|link| link.close());
        self.sweep.notify_one();
        before
    }

    /// Those of the lives that another node has lost sight of that went on, as far as is known here.
    pub(crate) fn heard_later(&self, lost: &[OutOfSight]) -> Vec<Life> {
        let topology = self.topology();
        let heard_at = |life: Life| topology.link(life.id).filter(|_| topology.sees(life))?.heard_at();
        self.partings.heard_later(lost, heard_at, self.clock.now())
    }

    fn note_parted(&self, before: &Topology, after: &Topology) {
        let parted = before.peers.iter().filter(|peer| !peer.is_self && peer.state != PeerState::Draining);
        let parted = parted.map(life_of).filter(|life| !after.sees(*life));
        let parted = parted.map(|life| (life, before.link(life.id).and_then(|link| link.heard_at())));
        self.partings.note(parted, after.placement.seq(), self.clock.now());
    }

    /// Whom this node meets only now though both have lived on for a while: each may have been an owner where the other did not see it.
    fn note_strangers(&self, before: &Topology, after: &Topology) {
        let now = self.clock.now();
        if !before.places(self.id) {
            return;
        }
        let met = after.peers.iter().filter(|peer| !peer.is_self && peer.state != PeerState::Joining);
        for life in met.map(life_of).filter(|life| !before.sees(*life)) {
            let both_lived = now.since(self.began).min(age_of(life.incarnation));
            self.partings.note_met(life, both_lived, &after.in_sight, now);
        }
    }

    /// When this node lost sight of a peer that is the same now as it was then.
    pub(crate) fn parted_at(&self, id: NodeId) -> Option<Moment> {
        self.partings.at(id, &self.topology().in_sight, self.clock.now())
    }

    /// Lives of which this node lost sight, and which may have gone on.
    pub(crate) fn out_of_sight(&self) -> Vec<OutOfSight> {
        self.partings.out_of_sight(&self.topology().in_sight, self.clock.now())
    }

    /// Since when somebody is out of sight who may come back, and so may those whom he has met; `None`: nobody is.
    pub(crate) fn first_parting(&self, now: Moment) -> Option<Moment> {
        let first = self.partings.first_that_may_have_met(self.id, &self.topology().in_sight, now);
        first.map(|at| at.before(VIEWS_DIFFER_MAX))
    }

    /// Peers that began their lives after this node had lost sight of the first who is, or was, out of sight.
    pub(crate) fn younger_than_first_parting<'t>(&self, topology: &'t Topology) -> impl Iterator<Item = &'t Arc<Link>> {
        let now = self.clock.now();
        let parted = self.partings.first(now).map(|at| now.since(at) + VIEWS_DIFFER_MAX);
        let began_after = net::wall_clock_ms().saturating_sub(parted.unwrap_or_default().as_millis() as u64);
        let is_younger = move |link: &&Arc<Link>| {
            parted.is_some() && topology.in_sight.get(&link.id()).is_some_and(|incarnation| *incarnation >= began_after)
        };
        topology.links().filter(is_younger)
    }

    /// From when on a peer that owns more than in the view before may not have heard of what was known here.
    pub(crate) fn apart_since(&self, before: &Topology, id: NodeId, now: Moment) -> Moment {
        let topology = self.topology();
        let apart = match (before.in_sight.get(&id), topology.in_sight.get(&id)) {
            (known, Some(incarnation)) if known != Some(incarnation) => {
                let parted = self.partings.first_that_may_have_met(id, &topology.in_sight, now);
                let parted = parted.map_or(Duration::ZERO, |at| now.since(at));
                // A new life may have met, from its beginning on, who was out of sight here before.
                let lives = age_of(*incarnation);
                if self.parted_at(id).is_some() { parted } else { parted.max(lives) }
            }
            _ => Duration::ZERO,
        };
        now.before(apart + VIEWS_DIFFER_MAX)
    }

    /// The link to a peer: the one that stands, unless the peer was restarted or moved.
    fn link(&self, before: &Topology, peer: &Peer) -> Arc<Link> {
        let known = before.peers.iter().find(|known| known.name == peer.name);
        let same =
            known.is_some_and(|known| (known.incarnation, known.peer_addr) == (peer.incarnation, peer.peer_addr));
        match before.links.get(&NodeId::of(&peer.name)) {
            Some(link) if same => link.clone(),
            _ => {
                let closed = self.stop.child_token();
                Arc::new(Link::new(peer.name.clone(), peer.peer_addr, self.link_settings.clone(), closed))
            }
        }
    }
}

fn life_of(peer: &Peer) -> Life {
    Life { id: NodeId::of(&peer.name), incarnation: peer.incarnation }
}

/// How long a life has lasted, as far as the clocks of two machines agree.
fn age_of(incarnation: u64) -> Duration {
    Duration::from_millis(net::wall_clock_ms().saturating_sub(incarnation))
}

/// Lasts as long as the inquiry.
pub(crate) struct Doubt(Arc<Node>);

impl Drop for Doubt {
    fn drop(&mut self) {
        *self.0.last_doubt.lock() = Some((self.0.clock.now(), self.0.topology().placement.seq()));
        self.0.doubts.fetch_sub(1, Relaxed);
        self.0.sure.notify_waiters();
    }
}

async fn until(stop: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = task => {}
    }
}

/// Those of the view that take keys, in the order of their ids.
fn placed(peers: &[Peer]) -> Vec<Placed> {
    let takes_keys = peers.iter().filter(|peer| peer.state == PeerState::Ready && peer.weight > 0);
    let place = |peer: &Peer| Placed {
        member: Member { id: NodeId::of(&peer.name), weight: peer.weight },
        incarnation: peer.incarnation,
    };
    let mut placed: Vec<Placed> = takes_keys.map(place).collect();
    placed.sort_by_key(|placed| placed.member.id);
    placed
}
