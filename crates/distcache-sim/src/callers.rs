//! A node of the simulated cluster and those who call it: readers, and writers who change the source first and the cache then.
//!
//! Knows the engine by its public API alone. The invariant: one write of a key at a time in the whole cluster, so that the order of
//! its versions is the order of time; whatever is answered is recorded.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use distcache::sim_support::Rule;
use distcache::{
    DeleteOptions, Engine, Entry, Error, GetOptions, Keyspace, KeyspaceSpec, Limits, Origin, StaticDiscovery,
};
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
/// Keys of a keyspace of which an owner knows who holds them.
const CROWDED: usize = 4;
const TTL: Duration = Duration::from_secs(3);
const REFRESH_AHEAD: f32 = 0.8;
/// Of so many calls one is for many keys, and of so many more one is a refresh.
const MANY_OF: u32 = 8;
const REFRESH_OF: u32 = 50;
const MANY: usize = 3;
/// A write is tried a few times, a refresh as long as a load may take.
const WRITE_MAX: Duration = Duration::from_secs(10);
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
    pub load_max: Duration,
    pub lease: Duration,
    pub is_crowded: bool,
    pub renews: bool,
    pub is_varied: bool,
    pub without: Option<Rule>,
    pub seed: u64,
}

impl NodePlan {
    fn builder(&self, shared: &Arc<Shared>) -> distcache::EngineBuilder {
        let others = self.all.iter().filter(|ip| **ip != self.ip).map(|ip| format!("{ip}:{GOSSIP_PORT}"));
        let limits = Limits::default();
        let builder = Engine::builder()
            .name(format!("n{}", self.number))
            .discovery(StaticDiscovery::new(others))
            .peer_listen(SocketAddr::new([0, 0, 0, 0].into(), PEER_PORT))
            .gossip_listen(SocketAddr::new([0, 0, 0, 0].into(), GOSSIP_PORT))
            .advertise(self.ip)
            .hop_budget(self.hop_budget)
            .limits(if self.is_crowded { Limits { leased_keys_max: CROWDED, ..limits } } else { limits })
            .simulated(self.rate_ppm, self.without);
        Space::ALL.into_iter().fold(builder, |builder, space| {
            // What may be overlooked of the lagging one is counted with this.
            let load_max = if space == Space::Lagging { LOAD_MAX } else { self.load_max };
            let source = Source { space, load_max, truth: shared.truth.clone() };
            // Short, so that owners forget early whom they answered.
            let spec = KeyspaceSpec::new(space.name(), source).max_bytes(1 << 20);
            let spec = spec.load_timeout(load_max).lease(self.lease);
            let expires = self.renews && space == Space::Exact;
            let expiring = |spec: KeyspaceSpec| {
                spec.ttl(TTL).stale_while_revalidate(TTL).stale_if_error(2 * TTL).refresh_ahead(REFRESH_AHEAD)
            };
            builder.keyspace(if expires { expiring(spec) } else { spec })
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
            let (node, is_varied) = (self.number, self.is_varied);
            let caller_of = Caller { node, is_varied, keyspaces: [exact, lagging], shared: shared.clone(), rng };
            match caller < READERS {
                true => callers.spawn(caller_of.read_for_ever()),
                false => callers.spawn(caller_of.write_for_ever()),
            };
        }
        shared.leave[self.number].notified().await;
        shared.engines.lock()[self.number] = None;
        if !self.is_varied {
            // As behind a load balancer: callers go elsewhere before the node does.
            callers.shutdown().await;
        }
        engine.shutdown(Duration::from_secs(5)).await;
        callers.shutdown().await;
        shared.note(format!("node {} has left", self.number));
        std::future::pending().await
    }
}

struct Caller {
    node: usize,
    is_varied: bool,
    keyspaces: [Keyspace; 2],
    shared: Arc<Shared>,
    rng: SmallRng,
}

/// A write that is recorded however it ends, also where its caller dies with its node; then its key is free again.
struct Writing {
    shared: Arc<Shared>,
    write: Write,
}

/// A call that has to come back, also where nothing else says that it did not.
struct Call {
    shared: Arc<Shared>,
    begun: Duration,
    limit: Duration,
    what: &'static str,
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut history = self.shared.history.lock();
        // At the end of the run its time stands still already.
        let now = now().max(history.standings.last().map_or(Duration::ZERO, |last| last.at));
        if now > self.begun + self.limit + Duration::from_secs(1) {
            history.broken.push(format!("a {} that began at {:?} had not come back at {now:?}", self.what, self.begun));
        }
    }
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

    /// One in so many, where callers vary what they do.
    fn now_and_then(&mut self, one_of: u32) -> bool {
        self.is_varied && self.rng.random_range(0..one_of) == 0
    }

    async fn read_for_ever(mut self) {
        loop {
            self.pause(READ_PAUSE_MS).await;
            let (space, key) = (self.space(), self.key());
            let (keyspace, options) = (&self.keyspaces[space as usize].clone(), GetOptions::new().timeout(GET_TIMEOUT));
            let begun = now();
            let is_refresh = self.now_and_then(REFRESH_OF);
            let limit = if is_refresh { WRITE_MAX } else { GET_TIMEOUT };
            let _call = self.call("get", begun, limit);
            if self.now_and_then(MANY_OF) && !is_refresh {
                let keys: Vec<usize> = (0..MANY).map(|next| (key + next) % KEYS).collect();
                let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
                match keyspace.get_many_entries(&names, options).await {
                    Ok(got) => keys.into_iter().zip(got).for_each(|(key, got)| self.record(space, key, begun, got)),
                    Err(error) => self.record(space, key, begun, Err(error)),
                }
            } else if is_refresh {
                // It has the deadline of the engine, not this caller's.
                if let Ok(value) = keyspace.refresh(&key.to_string()).await {
                    self.record_value(space, key, begun, &value, Origin::Loaded);
                }
            } else {
                let got = keyspace.get_entry(&key.to_string(), options).await;
                self.record(space, key, begun, got);
            }
        }
    }

    fn call(&self, what: &'static str, begun: Duration, limit: Duration) -> Call {
        Call { shared: self.shared.clone(), begun, limit, what }
    }

    /// As this node sees it.
    fn owner_of(&self, space: Space, key: usize) -> Option<usize> {
        let owner = self.keyspaces[space as usize].owner_of(&key.to_string()).ok()?;
        owner.name.strip_prefix('n')?.parse().ok()
    }

    fn record(&self, space: Space, key: usize, begun: Duration, got: Result<Entry, Error>) {
        match got {
            Ok(entry) => self.record_value(space, key, begun, &entry.value, entry.origin),
            Err(error) => self.record_outcome(space, key, begun, Err(error.to_string())),
        }
    }

    fn record_value(&self, space: Space, key: usize, begun: Duration, value: &[u8], origin: Origin) {
        match parse(value) {
            Some((named, version)) if named == key => self.record_outcome(space, key, begun, Ok((version, origin))),
            _ => self.shared.history.lock().broken.push(format!("key {key} has the value {value:?}")),
        }
    }

    fn record_outcome(&self, space: Space, key: usize, begun: Duration, outcome: Result<(u64, Origin), String>) {
        let owner = self.owner_of(space, key);
        let get = Get { node: self.node, space, key, begun, ended: now(), owner, outcome };
        self.shared.history.lock().gets.push(get);
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
            let by_many = self.now_and_then(MANY_OF);
            let (owner, outcome) = (self.owner_of(space, key), Err("its caller died".into()));
            let write = Write { node: self.node, space, key, version, is_put, begun, ended: begun, owner, outcome };
            let _call = self.call("write", begun, WRITE_MAX);
            let mut writing = Writing { shared: self.shared.clone(), write };
            let (name, keyspace) = (key.to_string(), &self.keyspaces[space as usize]);
            let hold = if space == Space::Lagging { HOLD.max(LAG) } else { Duration::ZERO };
            let options = DeleteOptions::new().hold(hold);
            let outcome = match (is_put, by_many) {
                (true, false) => keyspace.put(&name, value_of(key, version)).await,
                (true, true) => keyspace.put_many([(name, value_of(key, version))]).await,
                (false, false) => keyspace.delete_with(&name, options).await,
                (false, true) => keyspace.delete_many_with(&[name], options).await,
            };
            writing.write.outcome = outcome.map_err(|error| error.to_string());
        }
    }
}
