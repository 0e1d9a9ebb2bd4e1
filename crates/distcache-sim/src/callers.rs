//! A node of the simulated cluster and those who call it: readers, and writers who change the source first and the cache then.
//!
//! Knows the engine by its public API alone. The invariant: one write of a key at a time in the whole cluster, so that the order of
//! its versions is the order of time; whatever is answered is recorded.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use distcache::sim_support::Rule;
use distcache::{DeleteOptions, Engine, GetOptions, Keyspace, KeyspaceSpec, StaticDiscovery};
use distcache_checker::{Get, History, LAG, LOAD_MAX, Space, Write};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;

use crate::truth::{KEYS, Source, Truth, now, parse, value_of};

const READERS: usize = 5;
const READ_PAUSE_MS: u64 = 40;
const WRITERS: usize = 2;
const WRITE_PAUSE_MS: u64 = 500;
const GET_TIMEOUT: Duration = Duration::from_secs(4);
const HOLD: Duration = Duration::from_secs(1);
pub const PEER_PORT: u16 = 3320;
pub const GOSSIP_PORT: u16 = 3322;

/// What all nodes of a run share, and the run with them.
pub struct Shared {
    pub truth: Arc<Mutex<Truth>>,
    pub history: Mutex<History>,
    pub engines: Mutex<Vec<Option<Engine>>>,
    /// A node that is told to leave does so.
    pub leave: Vec<Notify>,
    /// Keys that somebody is writing.
    writing: Mutex<[Vec<bool>; 2]>,
}

impl Shared {
    pub fn new(nodes: usize, seed: u64) -> Self {
        Self {
            truth: Arc::new(Mutex::new(Truth::new(SmallRng::seed_from_u64(seed)))),
            history: Mutex::default(),
            engines: Mutex::new((0..nodes).map(|_| None).collect()),
            leave: (0..nodes).map(|_| Notify::new()).collect(),
            writing: Mutex::new([vec![false; KEYS], vec![false; KEYS]]),
        }
    }

    fn note(&self, event: String) {
        self.history.lock().events.push((now(), event));
    }
}

/// What one node is.
#[derive(Clone)]
pub struct NodePlan {
    pub number: usize,
    pub ip: IpAddr,
    pub all: Vec<IpAddr>,
    pub rate_ppm: u64,
    pub hop_budget: Duration,
    pub without: Option<Rule>,
    pub seed: u64,
}

impl NodePlan {
    fn builder(&self, shared: &Arc<Shared>) -> distcache::EngineBuilder {
        let others = self.all.iter().filter(|ip| **ip != self.ip).map(|ip| format!("{ip}:{GOSSIP_PORT}"));
        let builder = Engine::builder()
            .name(format!("n{}", self.number))
            .discovery(StaticDiscovery::new(others))
            .peer_listen(SocketAddr::new([0, 0, 0, 0].into(), PEER_PORT))
            .gossip_listen(SocketAddr::new([0, 0, 0, 0].into(), GOSSIP_PORT))
            .advertise(self.ip)
            .hop_budget(self.hop_budget)
            .simulated(self.rate_ppm, self.without);
        Space::ALL.into_iter().fold(builder, |builder, space| {
            let source = Source { space, truth: shared.truth.clone() };
            // Short, so that owners forget early whom they answered.
            builder.keyspace(KeyspaceSpec::new(space.name(), source).max_bytes(1 << 20).load_timeout(LOAD_MAX))
        })
    }

    /// Runs until told to leave; then until it is ended from outside.
    pub async fn run(self, shared: Arc<Shared>) -> turmoil::Result {
        let engine = self.builder(&shared).start().await?;
        shared.note(format!("node {} has started", self.number));
        shared.engines.lock()[self.number] = Some(engine.clone());
        let mut rng = SmallRng::seed_from_u64(self.seed ^ now().as_micros() as u64);
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..READERS + WRITERS {
            let keyspaces = Space::ALL.map(|space| engine.keyspace(space.name()));
            let [Ok(exact), Ok(lagging)] = keyspaces else { return Err("a keyspace is missing".into()) };
            let rng = SmallRng::seed_from_u64(rng.random());
            let caller_of = Caller { node: self.number, keyspaces: [exact, lagging], shared: shared.clone(), rng };
            match caller < READERS {
                true => callers.spawn(caller_of.read_for_ever()),
                false => callers.spawn(caller_of.write_for_ever()),
            };
        }
        shared.leave[self.number].notified().await;
        shared.engines.lock()[self.number] = None;
        // As behind a load balancer: callers go elsewhere before the node does.
        callers.shutdown().await;
        engine.shutdown(Duration::from_secs(5)).await;
        shared.note(format!("node {} has left", self.number));
        std::future::pending().await
    }
}

struct Caller {
    node: usize,
    keyspaces: [Keyspace; 2],
    shared: Arc<Shared>,
    rng: SmallRng,
}

/// A write that is recorded however it ends, also where its caller dies with its node; then its key is free again.
struct Writing {
    shared: Arc<Shared>,
    write: Write,
}

impl Drop for Writing {
    fn drop(&mut self) {
        let write = Write { ended: now(), ..self.write.clone() };
        self.shared.writing.lock()[write.space as usize][write.key] = false;
        self.shared.history.lock().writes.push(write);
    }
}

impl Caller {
    fn space(&mut self) -> Space {
        if self.rng.random_range(0..5) == 0 { Space::Lagging } else { Space::Exact }
    }

    /// By Zipf's law, roughly: half of all choices fall on a few keys.
    fn key(&mut self) -> usize {
        let chance: f64 = self.rng.random();
        ((KEYS as f64).powf(chance) - 1.0) as usize % KEYS
    }

    async fn pause(&mut self, mean_ms: u64) {
        let millis = self.rng.random_range(0..2 * mean_ms);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    async fn read_for_ever(mut self) {
        loop {
            self.pause(READ_PAUSE_MS).await;
            let (space, key, begun) = (self.space(), self.key(), now());
            let name = key.to_string();
            let got = self.keyspaces[space as usize].get_entry(&name, GetOptions::new().timeout(GET_TIMEOUT)).await;
            let mut history = self.shared.history.lock();
            let outcome = match got {
                Err(error) => Err(error.to_string()),
                Ok(entry) => match parse(&entry.value) {
                    Some((named, version)) if named == key => Ok((version, entry.origin)),
                    _ => {
                        history.broken.push(format!("key {key} has the value {:?}", entry.value));
                        continue;
                    }
                },
            };
            history.gets.push(Get { node: self.node, space, key, begun, ended: now(), outcome });
        }
    }

    async fn write_for_ever(mut self) {
        loop {
            self.pause(WRITE_PAUSE_MS).await;
            let (space, key) = (self.space(), self.key());
            if std::mem::replace(&mut self.shared.writing.lock()[space as usize][key], true) {
                continue;
            }
            let begun = now();
            let version = self.shared.truth.lock().write(space, key);
            let is_put = space == Space::Exact && self.rng.random_range(0..2) == 0;
            let outcome = Err("its caller died".into());
            let write = Write { node: self.node, space, key, version, is_put, begun, ended: begun, outcome };
            let mut writing = Writing { shared: self.shared.clone(), write };
            let (name, keyspace) = (key.to_string(), &self.keyspaces[space as usize]);
            let outcome = match (space, is_put) {
                (_, true) => keyspace.put(&name, value_of(key, version)).await,
                (Space::Exact, false) => keyspace.delete(&name).await,
                (Space::Lagging, false) => keyspace.delete_with(&name, DeleteOptions::new().hold(HOLD.max(LAG))).await,
            };
            writing.write.outcome = outcome.map_err(|error| error.to_string());
        }
    }
}
