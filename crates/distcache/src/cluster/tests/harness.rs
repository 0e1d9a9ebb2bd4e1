//! Nodes of whole clusters on the loopback, and what tests do to them: start, crash, leave, cut off.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::{Cluster, ClusterConfig, Event, Events, SharedState, View, bind};
use crate::discovery::{Discovery, StaticDiscovery};
use crate::limits::Limits;
use crate::net::wall_clock_ms;

/// Generous: the machine may be busy. What is fast is measured elsewhere.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Nodes on different sides of a cut neither exchange datagrams nor connect.
static CUTS: Mutex<Vec<Sides>> = Mutex::new(Vec::new());

pub(in crate::cluster) fn is_severed(a: SocketAddr, b: SocketAddr) -> bool {
    CUTS.lock().iter().any(|sides| sides.are_apart(a, b))
}

#[derive(Clone, PartialEq)]
enum Sides {
    /// These, and everybody else.
    Some(HashSet<SocketAddr>),
    /// One here, one there; others reach both.
    Pair(SocketAddr, SocketAddr),
}

impl Sides {
    fn are_apart(&self, a: SocketAddr, b: SocketAddr) -> bool {
        match self {
            Self::Some(side) => side.contains(&a) != side.contains(&b),
            Self::Pair(one, other) => [(a, b), (b, a)].contains(&(*one, *other)),
        }
    }
}

/// A partition that heals when it is dropped. Both sides must belong to the same test.
pub(super) struct Cut(Sides);

impl Cut {
    pub(super) fn off(nodes: &[&Node]) -> Self {
        Self::begin(Sides::Some(nodes.iter().map(|node| node.addr()).collect()))
    }

    pub(super) fn between(one: &Node, other: &Node) -> Self {
        Self::begin(Sides::Pair(one.addr(), other.addr()))
    }

    fn begin(sides: Sides) -> Self {
        CUTS.lock().push(sides.clone());
        Self(sides)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        CUTS.lock().retain(|sides| *sides != self.0);
    }
}

/// A grow-only set of words.
#[derive(Default)]
pub(super) struct Words(pub(super) Mutex<BTreeSet<String>>);

impl SharedState for Words {
    fn export(&self) -> Vec<u8> {
        self.0.lock().iter().flat_map(|word| [word.as_bytes(), b" "].concat()).collect()
    }
    fn merge(&self, bytes: &[u8]) {
        self.0.lock().extend(String::from_utf8_lossy(bytes).split_whitespace().map(Into::into));
    }
}

pub(super) struct Node {
    pub(super) cluster: Cluster,
    pub(super) words: Arc<Words>,
    tasks: TaskTracker,
    stop: CancellationToken,
    pub(super) name: String,
}

/// The wall clock, but never the same twice: a test restarts a node within a millisecond.
fn incarnation() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let next = |last: u64| wall_clock_ms().max(last + 1);
    next(LAST.update(Ordering::Relaxed, Ordering::Relaxed, next))
}

pub(super) fn config(cluster: &str, name: &str, listen: SocketAddr) -> ClusterConfig {
    ClusterConfig {
        cluster_name: cluster.into(),
        node_name: name.into(),
        gossip_listen: listen,
        advertise: None,
        peer_addr_port: 1,
        admin_addr: None,
        zone: Some("z".into()),
        weight: 1,
        incarnation: incarnation(),
        reseed_interval: Duration::from_secs(1),
        join_timeout: Duration::from_secs(2),
        gate: Arc::default(),
        limits: Limits::default(),
    }
}

impl Node {
    pub(super) async fn with(config: ClusterConfig, discovery: impl Discovery) -> Self {
        let (words, tasks, stop) = (Arc::new(Words::default()), TaskTracker::new(), CancellationToken::new());
        let name = config.node_name.clone();
        let shared = Arc::clone(&words) as Arc<dyn SharedState>;
        let cluster = Cluster::start(config, Arc::new(discovery), shared, &tasks, stop.clone()).await.unwrap();
        Self { cluster, words, tasks, stop, name }
    }

    pub(super) async fn start(cluster: &str, name: &str, listen: SocketAddr, seeds: &[SocketAddr]) -> Self {
        Self::with(config(cluster, name, listen), StaticDiscovery::new(seeds.iter().map(SocketAddr::to_string))).await
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.cluster.me().gossip_addr
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.cluster.views().borrow().peers.iter().map(|peer| peer.name.clone()).collect()
    }

    pub(super) async fn sees_where(&self, what: &str, condition: impl Fn(&View) -> bool) {
        let mut views = self.cluster.views();
        let seen = timeout(PATIENCE, views.wait_for(|view| condition(view))).await.is_ok();
        assert!(seen, "{} does not see {what}: {:#?}", self.name, self.cluster.views().borrow());
    }

    pub(super) async fn sees(&self, names: &[&str]) {
        self.sees_where(&format!("{names:?}"), |view| view.peers.iter().map(|peer| &peer.name).eq(names)).await;
    }

    pub(super) async fn has_heard(&self, word: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.words.0.lock().contains(word) {
            assert!(Instant::now() < deadline, "{} has not heard of {word}", self.name);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn say(&self, word: &str) {
        self.words.0.lock().insert(word.into());
        self.cluster.touch();
    }

    /// Ends without a word to anybody.
    pub(super) async fn crash(self) {
        self.stop.cancel();
        self.end().await;
    }

    pub(super) async fn leave(self) {
        self.cluster.leave().await;
        self.end().await;
    }

    async fn end(self) {
        self.tasks.close();
        timeout(PATIENCE, self.tasks.wait()).await.expect("every task ends");
    }
}

/// Free ports: bound and given back, so that nodes can name each other before they start.
pub(super) async fn free_addrs(count: usize) -> Vec<SocketAddr> {
    let mut bound = Vec::new();
    for _ in 0..count {
        bound.push(bind(localhost()).await.unwrap());
    }
    bound.iter().map(|(socket, _)| socket.local_addr().unwrap()).collect()
}

pub(super) fn localhost() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

pub(super) fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("n{i:02}")).collect()
}

/// `count` nodes that all name each other, started in the same instant.
pub(super) async fn launch(cluster: &str, count: usize) -> Vec<Node> {
    let addrs = free_addrs(count).await;
    let starts = names(count).into_iter().zip(addrs.clone()).map(|(name, addr)| {
        let (cluster, addrs) = (cluster.to_owned(), addrs.clone());
        tokio::spawn(async move { Node::start(&cluster, &name, addr, &addrs).await })
    });
    let mut nodes = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        nodes.push(start.await.unwrap());
    }
    nodes
}

pub(super) async fn all_see(nodes: &[Node], names: &[impl AsRef<str>]) {
    let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
    for node in nodes {
        node.sees(&names).await;
    }
}

pub(super) async fn five(cluster: &str) -> Vec<Node> {
    let nodes = launch(cluster, 5).await;
    all_see(&nodes, &names(5)).await;
    nodes
}

pub(super) async fn next_event(events: &mut Events) -> Event {
    timeout(PATIENCE, events.next()).await.expect("an event").expect("not the end")
}

pub(super) fn told(event: &Event) -> (&str, &str) {
    match event {
        Event::Joined(peer) => ("joined", &peer.name),
        Event::Left(peer) => ("left", &peer.name),
        Event::Updated(peer) => ("updated", &peer.name),
        Event::Lagged { .. } => ("lagged", ""),
    }
}

/// A node on a thread and runtime of its own, which can be stopped like a process that is suspended.
pub(super) struct Process {
    pub(super) cluster: Cluster,
    pauses: mpsc::Sender<Duration>,
    thread: thread::JoinHandle<()>,
}

impl Process {
    pub(super) async fn start(cluster: &'static str, name: &'static str, seed: SocketAddr) -> Self {
        let (pauses, stops) = mpsc::channel();
        let (started, node) = tokio::sync::oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let node = Node::start(cluster, name, localhost(), &[seed]).await;
                let _ = started.send(node.cluster.clone());
                loop {
                    match stops.try_recv() {
                        Ok(pause) => thread::sleep(pause),
                        Err(mpsc::TryRecvError::Disconnected) => return,
                        Err(mpsc::TryRecvError::Empty) => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
            });
        });
        Self { cluster: node.await.unwrap(), pauses, thread }
    }

    pub(super) fn stop_for(&self, pause: Duration) {
        self.pauses.send(pause).unwrap();
    }

    /// Its runtime is dropped with everything that runs on it.
    pub(super) fn end(self) {
        drop(self.pauses);
        self.thread.join().unwrap();
    }
}
