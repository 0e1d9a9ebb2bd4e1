//! One key that everybody reads, expiring again and again in front of a slow source, which dies for a while: what its callers
//! notice, with and without answers past their lifetime.
//!
//! All settings run at the same time, each on three nodes of its own, with the same callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use distcache::{DataSource, Engine, Fetched, KeyspaceSpec, SourceError, StaticDiscovery};
use futures_util::future::{join_all, try_join_all};
use tokio::time::Instant;

use crate::Settings;
use crate::arrivals::{Call, arrive, errors, quantile};
use crate::error::BenchError;
use crate::report::{Bound, Table, Target};

const NODES: usize = 3;
const CALLERS_PER_SECOND: u32 = 1_000;
const TTL: Duration = Duration::from_secs(2);
const LOAD: Duration = Duration::from_millis(300);
const KEY: &str = "everybody's";

struct Setting {
    name: &'static str,
    spec: fn(KeyspaceSpec) -> KeyspaceSpec,
}

const WHILE_REVALIDATE: Duration = Duration::from_secs(10);
const IF_ERROR: Duration = Duration::from_secs(3_600);

const SETTINGS: [Setting; 5] = [
    Setting { name: "ttl alone", spec: |spec| spec },
    Setting { name: "stale_while_revalidate 10 s", spec: |spec| spec.stale_while_revalidate(WHILE_REVALIDATE) },
    Setting { name: "stale_if_error 1 h", spec: |spec| spec.stale_if_error(IF_ERROR) },
    Setting {
        name: "stale_if_error 1 h, soft_timeout 20 ms",
        spec: |spec| spec.stale_if_error(IF_ERROR).soft_timeout(Duration::from_millis(20)),
    },
    Setting {
        name: "all, and refresh_ahead 30 %",
        spec: |spec| {
            spec.stale_while_revalidate(WHILE_REVALIDATE)
                .stale_if_error(IF_ERROR)
                .soft_timeout(Duration::from_millis(20))
                .refresh_ahead(0.3)
        },
    },
];

/// A source that takes its time, and is down between two moments.
#[derive(Clone)]
struct Slow {
    loads: Arc<AtomicU64>,
    down: (Instant, Instant),
}

impl DataSource for Slow {
    async fn fetch(&self, _: &str) -> Result<Fetched, SourceError> {
        self.loads.fetch_add(1, Relaxed);
        tokio::time::sleep(LOAD).await;
        match Instant::now() {
            now if now >= self.down.0 && now < self.down.1 => Err(SourceError::unavailable("the source is down")),
            _ => Ok(Fetched::new("v")),
        }
    }
}

pub fn run(settings: Settings) -> Result<Vec<Target>, BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let seconds = settings.pick(60, 9);
    let time = Duration::from_secs(seconds);
    // The last third but a sixth: after enough expiries to see them, with time to see the recovery.
    let down = (time / 2, time / 2 + time / 3);
    let outcomes = runtime.block_on(async { try_join_all(SETTINGS.iter().map(|one| play(one, time, down))).await })?;
    let mut table = Table::new(
        format!(
            "{CALLERS_PER_SECOND} callers a second of one key for {seconds} s on {NODES} nodes; ttl {TTL:?}, a load takes {LOAD:?}, \
             the source is down from {:?} to {:?}",
            down.0, down.1
        ),
        &["setting", "loads", "up: p99 ms", "slowest ms", "errors", "down: slowest ms", "errors"],
    );
    for (setting, outcome) in SETTINGS.iter().zip(&outcomes) {
        table.row(outcome.row(setting.name));
    }
    table.print(settings.style());
    println!("\n  Without a cache: {} calls of the source.", outcomes[0].up.len() + outcomes[0].down.len());
    Ok(targets(&outcomes))
}

struct Outcome {
    loads: u64,
    up: Vec<Call>,
    down: Vec<Call>,
}

async fn play(setting: &Setting, time: Duration, down: (Duration, Duration)) -> Result<Outcome, BenchError> {
    let loads = Arc::new(AtomicU64::new(0));
    // Nodes need a moment to find each other, and the first value one to be loaded.
    let begin = Instant::now() + Duration::from_secs(3);
    let source = Slow { loads: loads.clone(), down: (begin + down.0, begin + down.1) };
    let nodes = start(setting, &source).await?;
    let keyspaces: Vec<_> = nodes.iter().map(|node| node.keyspace("stampede")).collect::<Result<_, _>>()?;
    keyspaces[0].get(KEY).await?;
    tokio::time::sleep_until(begin).await;
    loads.store(0, Relaxed);
    let calls = arrive(CALLERS_PER_SECOND, time, |number| {
        let keyspace = keyspaces[number as usize % NODES].clone();
        async move { keyspace.get(KEY).await.is_err() }
    });
    let calls = calls.await;
    join_all(nodes.iter().map(|node| node.shutdown(Duration::from_secs(1)))).await;
    // A load that was begun before the source died fails after it has; one that waits for the first after it, waits.
    let is_down = |call: &Call| call.at + LOAD >= down.0 && call.at < down.1 + LOAD;
    let (down, up) = calls.into_iter().partition(is_down);
    Ok(Outcome { loads: loads.load(Relaxed), up, down })
}

async fn start(setting: &Setting, source: &Slow) -> Result<Vec<Engine>, BenchError> {
    let mut nodes: Vec<Engine> = Vec::new();
    for number in 0..NODES {
        let spec = KeyspaceSpec::new("stampede", source.clone()).ttl(TTL);
        let seeds: Vec<String> = nodes.iter().map(|node| node.me().gossip_addr.to_string()).collect();
        let any = || ([127, 0, 0, 1], 0).into();
        let node = Engine::builder()
            .name(format!("{}-{number}", setting.name))
            .cluster_name(setting.name)
            .keyspace((setting.spec)(spec))
            .discovery(StaticDiscovery::new(seeds))
            .peer_listen(any())
            .gossip_listen(any());
        nodes.push(node.start().await?);
    }
    let started = Instant::now();
    while nodes.iter().any(|node| node.ring().members.len() < NODES) {
        if started.elapsed() > Duration::from_secs(10) {
            return Err(BenchError::TimedOut { what: "a cluster of three nodes", seconds: 10 });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(nodes)
}

impl Outcome {
    fn row(&self, name: &str) -> Vec<String> {
        let millis = |calls: &[Call], part| format!("{:.1}", quantile(calls, part).as_secs_f64() * 1e3);
        vec![
            name.to_owned(),
            self.loads.to_string(),
            millis(&self.up, 0.99),
            millis(&self.up, 1.0),
            errors(&self.up).to_string(),
            millis(&self.down, 1.0),
            errors(&self.down).to_string(),
        ]
    }
}

fn targets(outcomes: &[Outcome]) -> Vec<Target> {
    let millis = |calls: &[Call]| quantile(calls, 0.99).as_secs_f64() * 1e3;
    vec![
        Target {
            what: "p99 of the callers in milliseconds while the source is up, with stale_while_revalidate".into(),
            bound: Bound::AtMost(20.0),
            measured: millis(&outcomes[1].up),
        },
        Target {
            what: "errors while the source is down, with stale_if_error".into(),
            bound: Bound::AtMost(0.0),
            measured: errors(&outcomes[2].down) as f64,
        },
        Target {
            what: "errors in the whole run, with everything".into(),
            bound: Bound::AtMost(0.0),
            measured: (errors(&outcomes[4].down) + errors(&outcomes[4].up)) as f64,
        },
    ]
}
