//! Nodes, a source that counts, and waiting for conditions.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use distcache::{
    DataSource, Discovery, DiscoveryError, Engine, EngineBuilder, Fetched, Keyspace, KeyspaceSpec, SourceError,
};

pub const KEYSPACE: &str = "things";
/// Generous: the machine may be busy. A condition that holds is seen at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the source does for one key.
type Behaviour = Arc<dyn Fn(&str) -> Result<Fetched, SourceError> + Send + Sync>;

/// A source shared by all nodes of a test; counts what it is asked.
#[derive(Clone)]
pub struct Source(Arc<Inner>);

struct Inner {
    loads: Mutex<HashMap<String, u64>>,
    batches: AtomicU64,
    delay: Mutex<Duration>,
    behaviour: Mutex<Behaviour>,
}

impl Source {
    /// Answers every key with `value of KEY`.
    pub fn new() -> Self {
        let behaviour: Behaviour = Arc::new(|key| Ok(Fetched::new(value_of(key))));
        Self(Arc::new(Inner {
            loads: Mutex::default(),
            batches: AtomicU64::new(0),
            delay: Mutex::default(),
            behaviour: Mutex::new(behaviour),
        }))
    }

    pub fn slow(delay: Duration) -> Self {
        let source = Self::new();
        source.set_delay(delay);
        source
    }

    pub fn set_delay(&self, delay: Duration) {
        *self.0.delay.lock().unwrap() = delay;
    }

    pub fn answer(&self, behaviour: impl Fn(&str) -> Result<Fetched, SourceError> + Send + Sync + 'static) {
        *self.0.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    /// Every key from now on has this value.
    pub fn set_value(&self, value: &'static str) {
        self.answer(move |_| Ok(Fetched::new(value)));
    }

    pub fn loads(&self) -> u64 {
        self.0.loads.lock().unwrap().values().sum()
    }

    pub fn loads_of(&self, key: &str) -> u64 {
        self.0.loads.lock().unwrap().get(key).copied().unwrap_or(0)
    }

    pub fn batches(&self) -> u64 {
        self.0.batches.load(SeqCst)
    }

    async fn ask(&self, key: &str) -> Result<Fetched, SourceError> {
        *self.0.loads.lock().unwrap().entry(key.into()).or_default() += 1;
        let (behaviour, delay) = (self.0.behaviour.lock().unwrap().clone(), *self.0.delay.lock().unwrap());
        let answer = behaviour(key);
        tokio::time::sleep(delay).await;
        answer
    }
}

impl DataSource for Source {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        self.ask(key).await
    }

    async fn fetch_many(&self, keys: &[&str]) -> Vec<Result<Fetched, SourceError>> {
        self.0.batches.fetch_add(1, SeqCst);
        futures_util::future::join_all(keys.iter().map(|key| self.ask(key))).await
    }
}

pub fn value_of(key: &str) -> String {
    format!("value of {key}")
}

/// A provider that nodes of one test write their addresses into.
#[derive(Clone, Default)]
pub struct Noticeboard(Arc<Mutex<Vec<SocketAddr>>>);

impl Discovery for Noticeboard {
    async fn register(&self, me: SocketAddr) -> Result<(), DiscoveryError> {
        self.0.lock().unwrap().push(me);
        Ok(())
    }

    async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn deregister(&self, me: SocketAddr) -> Result<(), DiscoveryError> {
        self.0.lock().unwrap().retain(|addr| *addr != me);
        Ok(())
    }
}

/// What a test cluster is made of.
#[derive(Clone)]
pub struct Plan {
    pub source: Source,
    pub board: Noticeboard,
    spec: Arc<dyn Fn(KeyspaceSpec) -> KeyspaceSpec + Send + Sync>,
}

impl Plan {
    pub fn new(source: &Source) -> Self {
        Self { source: source.clone(), board: Noticeboard::default(), spec: Arc::new(|spec| spec) }
    }

    pub fn spec(mut self, change: impl Fn(KeyspaceSpec) -> KeyspaceSpec + Send + Sync + 'static) -> Self {
        self.spec = Arc::new(change);
        self
    }

    /// The same, found through a board of its own.
    pub fn apart(&self) -> Self {
        Self { board: Noticeboard::default(), ..self.clone() }
    }

    pub fn builder(&self, name: &str) -> EngineBuilder {
        let loopback = || "127.0.0.1:0".parse().unwrap();
        Engine::builder()
            .name(name)
            .keyspace((self.spec)(KeyspaceSpec::new(KEYSPACE, self.source.clone())))
            .discovery(self.board.clone())
            .peer_listen(loopback())
            .gossip_listen(loopback())
            // Tests that count loads exactly must not take a busy machine for a dead peer.
            .hop_budget(Duration::from_secs(3))
            .request_timeout(PATIENCE)
            .reseed_interval(Duration::from_millis(500))
    }

    pub async fn start(&self, name: &str) -> Engine {
        self.builder(name).start().await.unwrap()
    }

    /// Nodes `n0`, `n1`, … that agree on the view.
    pub async fn cluster(&self, nodes: usize) -> Vec<Engine> {
        let names: Vec<String> = (0..nodes).map(|n| format!("n{n}")).collect();
        let engines = futures_util::future::join_all(names.iter().map(|name| self.start(name))).await;
        agree(&engines).await;
        engines
    }
}

pub async fn cluster(nodes: usize, source: &Source) -> Vec<Engine> {
    Plan::new(source).cluster(nodes).await
}

pub async fn alone(source: &Source) -> (Engine, Keyspace) {
    alone_with(source, |spec| spec).await
}

pub async fn alone_with(source: &Source, change: impl Fn(KeyspaceSpec) -> KeyspaceSpec) -> (Engine, Keyspace) {
    let engine = Engine::builder().keyspace(change(KeyspaceSpec::new(KEYSPACE, source.clone()))).start().await.unwrap();
    let keyspace = engine.keyspace(KEYSPACE).unwrap();
    (engine, keyspace)
}

pub fn things(engine: &Engine) -> Keyspace {
    engine.keyspace(KEYSPACE).unwrap()
}

/// Waits until these nodes, and no others, share the keys in all their views.
pub async fn agree(engines: &[Engine]) {
    eventually("the nodes agree on the view", || {
        let views: Vec<_> = engines.iter().map(Engine::ring).collect();
        views.iter().all(|ring| ring.view == views[0].view && ring.members.len() == engines.len())
    })
    .await;
}

/// Waits for a condition, looking often; fails with its name.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A key that the `owner`th node owns.
pub fn key_of(engines: &[Engine], owner: usize) -> String {
    keys_of(engines, owner).next().unwrap()
}

/// Keys that the `owner`th node owns.
pub fn keys_of(engines: &[Engine], owner: usize) -> impl Iterator<Item = String> + use<> {
    let (keyspace, name) = (things(&engines[0]), engines[owner].me().name);
    (0..).map(|n| format!("key-{n}")).filter(move |key| keyspace.owner_of(key).unwrap().name == name)
}
