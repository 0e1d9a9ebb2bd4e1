//! Where scenarios play: starts and ends nodes in a world, and waits for what shall come about.
//!
//! Knows engines, no provider. The invariant: nodes of one stage never meet those of another, whatever ports they get, since
//! each stage is a cluster of its own name.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use distcache::{DataSource, Discovery, Engine, EngineBuilder, Fetched, KeyspaceSpec, SourceError};
use futures_util::future::join_all;

use crate::node::{History, Node};
use crate::witness::Witness;
use crate::world::{NODES_MAX, World};

const KEYSPACE: &str = "things";
/// Generous: the machine may be busy, and a service that is down may cost a question its whole time.
const PATIENCE: Duration = Duration::from_secs(45);
/// Discovery is asked this often.
const RESEED_INTERVAL: Duration = Duration::from_millis(200);
const JOIN_TIMEOUT: Duration = Duration::from_millis(500);
const GRACE: Duration = Duration::from_secs(5);

/// What is not in the cache is nowhere: a value that is read was found at its owner.
struct Nothing;

impl DataSource for Nothing {
    async fn fetch(&self, _: &str) -> Result<Fetched, SourceError> {
        Err(SourceError::NotFound)
    }
}

pub(crate) struct Stage<W> {
    pub(crate) world: W,
    cluster: String,
}

impl<W: World> Stage<W> {
    pub(crate) fn new(world: W) -> Self {
        static STAGES: AtomicU32 = AtomicU32::new(0);
        let stage = STAGES.fetch_add(1, Ordering::Relaxed);
        Self { world, cluster: format!("conformance-{}-{stage}", std::process::id()) }
    }

    /// Starts node `n`.
    pub(crate) async fn start(&self, n: usize) -> Node {
        assert!(n < NODES_MAX);
        self.world.appeared(self.world.address(n)).await;
        self.launch(n).await
    }

    /// Starts nodes 0 up to `count`, all known to the platform before the first of them runs.
    pub(crate) async fn start_together(&self, count: usize) -> Vec<Node> {
        for n in 0..count {
            self.world.appeared(self.world.address(n)).await;
        }
        join_all((0..count).map(|n| self.launch(n))).await
    }

    async fn launch(&self, n: usize) -> Node {
        let (name, addr) = (format!("node-{n}"), self.world.address(n));
        let (provider, notes) = Witness::before(self.world.provider(addr));
        let engine = launch(node(&name, addr, provider).cluster_name(&self.cluster)).await;
        let history = History::of(engine.events());
        Node { name, addr, engine, notes, history }
    }

    /// Somebody of another cluster, at an address where nodes of this one are.
    pub(crate) async fn start_foreigner(&self, addr: SocketAddr) -> Engine {
        let nobody = distcache::StaticDiscovery::new([] as [String; 0]);
        launch(node("foreigner", addr, nobody).cluster_name(format!("not-{}", self.cluster))).await
    }

    /// Ends a node like an orderly stop of its process.
    pub(crate) async fn stop(&self, node: Node) {
        node.engine.shutdown(GRACE).await;
        self.world.vanished(node.addr).await;
    }

    /// Ends all nodes. Nothing that happened was a reason for a provider to give up.
    pub(crate) async fn end(&self, nodes: Vec<Node>) {
        for node in &nodes {
            let gave_up = node.notes.lock().gave_up.clone();
            assert!(
                gave_up.is_none(),
                "the provider of {} takes a passing failure for a lasting one: {gave_up:?}",
                node.name
            );
        }
        join_all(nodes.into_iter().map(|node| self.stop(node))).await;
    }
}

fn node(name: &str, addr: SocketAddr, provider: impl Discovery) -> EngineBuilder {
    Engine::builder()
        .name(name)
        .keyspace(KeyspaceSpec::new(KEYSPACE, Nothing))
        .discovery(provider)
        .gossip_listen(addr)
        .peer_listen((addr.ip(), 0).into())
        .reseed_interval(RESEED_INTERVAL)
        .join_timeout(JOIN_TIMEOUT)
        // A busy machine must not be taken for a dead peer.
        .hop_budget(Duration::from_secs(10))
        .request_timeout(PATIENCE)
}

async fn launch(builder: EngineBuilder) -> Engine {
    let started = tokio::time::timeout(PATIENCE, builder.start()).await;
    let started = started.unwrap_or_else(|_| panic!("a node has not started within {PATIENCE:?}"));
    started.unwrap_or_else(|error| panic!("a node does not start: {error}"))
}

/// Waits until these nodes, and no others, share the keys in the eyes of all of them.
pub(crate) async fn agree(nodes: &[Node]) {
    let names: Vec<_> = nodes.iter().map(|node| node.name.clone()).collect();
    let view = || nodes[0].engine.ring().view;
    let is_known = |node: &Node| {
        node.engine.ring().view == view() && node.members() == names && node.history.present().len() == names.len() - 1
    };
    eventually(&format!("the nodes {names:?}, and nobody else, form the cluster"), nodes, || {
        nodes.iter().all(is_known)
    })
    .await;
}

/// Waits until each provider was asked this often from now on.
pub(crate) async fn asked(nodes: &[Node], times: usize) {
    let due: Vec<_> = nodes.iter().map(|node| node.notes.lock().asked + times).collect();
    let is_due = || nodes.iter().zip(&due).all(|(node, due)| node.notes.lock().asked >= *due);
    eventually(&format!("discovery is asked {times} times more"), nodes, is_due).await;
}

/// Waits for a condition, looking often; fails with its name and what the nodes see.
pub(crate) async fn eventually(what: &str, nodes: &[Node], mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() >= deadline {
            let reports: String = nodes.iter().map(Node::report).collect();
            panic!("not within {PATIENCE:?}: {what}\n{reports}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What is put on one node is read on every other.
pub(crate) async fn share_keys(nodes: &[Node]) {
    for writer in nodes {
        let (key, value) = (format!("from {}", writer.name), format!("by {}", writer.name));
        writer
            .engine
            .put(KEYSPACE, &key, value.clone())
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", writer.name));
        for reader in nodes {
            let read = reader.engine.get(KEYSPACE, &key).await;
            assert!(read.as_ref().is_ok_and(|read| *read == value), "{} reads {key:?}: {read:?}", reader.name);
        }
    }
}

/// A moment after which nobody shall come or go.
pub(crate) struct Calm(Vec<usize>);

impl Calm {
    pub(crate) fn from_now(nodes: &[Node]) -> Self {
        Self(nodes.iter().map(|node| node.history.len()).collect())
    }

    /// Nobody has come or gone in the eyes of these nodes, which are the first of those that it began with.
    pub(crate) fn held(&self, nodes: &[Node]) {
        for (node, len) in nodes.iter().zip(&self.0) {
            let changes = node.history.since(*len);
            assert!(changes.is_empty(), "nothing has happened, and yet {} has heard: {changes:?}", node.name);
        }
    }
}
