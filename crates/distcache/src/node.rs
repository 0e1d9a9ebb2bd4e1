//! What all keyspaces of a node share: its clock and limits, its tasks, and its standing in the cluster.
//!
//! Decides nothing about keys. The invariant: a [`Topology`] is replaced whole and never changed, so that whoever took one sees
//! owners, links and peers of the same view.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::{Peer, PeerState};
use crate::guard::Guards;
use crate::limits::Limits;
use crate::net::{self, Clock};
use crate::peer::link::{Link, LinkSettings};
use crate::placement::{Placed, Placement, Tenures};
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
    topology: ArcSwap<Topology>,
    link_settings: Arc<LinkSettings>,
    versions: AtomicU64,
}

/// The cluster as this node sees it at one time.
pub(crate) struct Topology {
    pub(crate) placement: Arc<Placement>,
    /// By the placement's index; `None` is this node.
    owners: Vec<Option<Arc<Link>>>,
    /// All other nodes, owners or not.
    links: HashMap<NodeId, Arc<Link>>,
    pub(crate) peers: Vec<Peer>,
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

    pub(crate) fn link(&self, id: NodeId) -> Option<&Arc<Link>> {
        self.links.get(&id)
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.values()
    }
}

/// What a node is made of.
pub(crate) struct NodeParts {
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) request_timeout: Duration,
    pub(crate) clustered: bool,
    pub(crate) link_settings: LinkSettings,
    pub(crate) traces: Traces,
    pub(crate) stop: CancellationToken,
}

impl Node {
    /// A node that knows nobody, not even itself, until it adopts a view.
    pub(crate) fn new(parts: NodeParts) -> Self {
        let topology = Topology {
            placement: Arc::new(Placement::first(Vec::new(), parts.clock.now())),
            owners: Vec::new(),
            links: HashMap::new(),
            peers: Vec::new(),
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
            topology: ArcSwap::from_pointee(topology),
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

    /// Takes a new view, and gives back the one before. Called by one task only.
    pub(crate) fn adopt(&self, peers: Vec<Peer>) -> Arc<Topology> {
        let before = self.topology.load_full();
        let placed = placed(&peers);
        // Most of what peers say anew of themselves moves no key: then nothing is computed and no flight disturbed.
        let placement = match placed == before.placement.placed() {
            true => before.placement.clone(),
            false => Arc::new(before.placement.next(placed, self.clock.now())),
        };
        let links: HashMap<_, _> = peers
            .iter()
            .filter(|peer| !peer.is_self)
            .map(|peer| (NodeId::of(&peer.name), self.link(&before, peer)))
            .collect();
        let owners = placement.placed().iter().map(|placed| links.get(&placed.member.id).cloned()).collect();
        let gone = before.links.iter().filter(|(id, link)| links.get(id).is_none_or(|kept| !Arc::ptr_eq(kept, link)));
        let gone: Vec<_> = gone.map(|(_, link)| link.clone()).collect();
        self.tenures.publish(&placement, self.id);
        self.topology.store(Arc::new(Topology { placement, owners, links, peers }));
        // Last, so that whoever fails by it finds the new view.
        gone.iter().for_each(|link| link.close());
        self.sweep.notify_one();
        before
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
