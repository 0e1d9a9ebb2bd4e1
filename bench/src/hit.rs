//! A hit in this process: what a keyspace adds to the bare map, and what others add.
//!
//! A hit's time is that of its thread on a processor: on a busy machine the clock on the wall mostly tells how busy it is. Only
//! a thread that sleeps for a lock shows there alone, so both are printed. Ratios are of processor time, net of the loop around
//! the hit, which every contestant pays alike and which would flatter the slower one.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use bytes::Bytes;
use distcache::{Engine, Keyspace, KeyspaceSpec};
use groupcache::Groupcache;
use quick_cache::DefaultHashBuilder;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;

use crate::Settings;
use crate::bare::{KeyAndValue, Xxh3};
use crate::error::BenchError;
use crate::report::{Bound, Table, Target};
use crate::stats::{alternate, median, ratio, spread};
use crate::systems::{self, distcache::Made};
use crate::workload::{self, SMALL_VALUE_BYTES};

const KEYS: usize = 10_000;
const THREADS: [usize; 2] = [1, 2];

/// Many short ones: a contestant's turn takes some 10 ms, and what disturbs the machine mostly lasts longer than a round.
const ROUNDS: usize = 49;

/// Room for all keys, whatever a store counts as an entry's bytes.
const MAX_BYTES: u64 = 64 << 20;

const LOOP_ALONE: &str = "(the loop alone)";
const BARE: &str = "quick_cache";
const GROUPCACHE: &str = "groupcache 0.3, get().await";
const GET: &str = "distcache, get().await";
const CACHED: &str = "distcache, cached()";

pub fn run(settings: Settings) -> Result<Vec<Target>, BenchError> {
    let workload = Workload::new(settings);
    let stores = Stores::filled(&workload.keys)?;
    let contestants = stores.contestants();
    let mut targets = Vec::new();
    for threads in THREADS {
        let times = alternate(contestants.len(), settings.pick(ROUNDS, 1), |contestant| {
            Ok::<_, BenchError>((contestants[contestant].run)(&workload, threads))
        })?;
        let measured = Measured { names: contestants.iter().map(|contestant| contestant.name).collect(), times };
        measured.table(threads).print(settings.style());
        targets.extend(measured.targets(threads));
    }
    Ok(targets)
}

struct Workload {
    keys: Vec<String>,
    /// Which keys each thread asks for, in this order.
    orders: Vec<Vec<u32>>,
}

impl Workload {
    fn new(settings: Settings) -> Self {
        let draws = settings.pick(1 << 17, 1 << 12);
        Self {
            keys: (0..KEYS).map(|n| workload::key(SMALL_VALUE_BYTES, n)).collect(),
            orders: (0..THREADS[1]).map(|thread| workload::zipf(KEYS, draws, thread as u64)).collect(),
        }
    }

    /// The time of one key, on each of `threads` threads at the same time.
    fn time(&self, threads: usize, read_all: impl Fn(&[String], &[u32]) + Sync) -> Time {
        let start = Barrier::new(threads);
        let on_thread = |order: &[u32]| {
            start.wait();
            let (started, on_processor) = (Instant::now(), thread_time());
            read_all(&self.keys, order);
            (thread_time().saturating_sub(on_processor), started.elapsed())
        };
        let all: Vec<(Duration, Duration)> = std::thread::scope(|scope| {
            let on_thread = &on_thread;
            let running: Vec<_> =
                self.orders[..threads].iter().map(|order| scope.spawn(move || on_thread(order))).collect();
            running.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
        });
        let a_key = |time: Duration| time.as_nanos() as f64 / (threads * self.orders[0].len()) as f64;
        Time { processor: a_key(all.iter().map(|time| time.0).sum()), wall: a_key(all.iter().map(|time| time.1).sum()) }
    }
}

/// Nanoseconds of a hit.
#[derive(Clone, Copy)]
struct Time {
    processor: f64,
    wall: f64,
}

/// How long the calling thread has been on a processor.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Times a hit, on so many threads.
type Run<'a> = dyn Fn(&Workload, usize) -> Time + 'a;

struct Contestant<'a> {
    name: &'static str,
    run: Box<Run<'a>>,
}

fn called<'a, V>(name: &'static str, get: impl Fn(&str) -> V + Sync + 'a) -> Contestant<'a> {
    let run = move |workload: &Workload, threads: usize| {
        workload.time(threads, |keys, order| {
            for &n in order {
                black_box(get(&keys[n as usize]));
            }
        })
    };
    Contestant { name, run: Box::new(run) }
}

fn awaited<'a, V>(
    name: &'static str,
    runtime: &'a Runtime,
    get: impl AsyncFn(&str) -> V + Sync + 'a,
) -> Contestant<'a> {
    let run = move |workload: &Workload, threads: usize| {
        workload.time(threads, |keys, order| {
            runtime.block_on(async {
                for &n in order {
                    black_box(get(&keys[n as usize]).await);
                }
            });
        })
    };
    Contestant { name, run: Box::new(run) }
}

/// Every contestant's store, each holding all keys.
struct Stores {
    runtime: Runtime,
    bare: quick_cache::sync::Cache<String, Bytes, KeyAndValue, DefaultHashBuilder>,
    bare_xxh3: quick_cache::sync::Cache<String, Bytes, KeyAndValue, Xxh3>,
    moka: moka::sync::Cache<String, Bytes>,
    moka_future: moka::future::Cache<String, Bytes>,
    groupcache: Groupcache<Bytes>,
    _engine: Engine,
    keyspace: Keyspace,
}

impl Stores {
    fn filled(keys: &[String]) -> Result<Self, BenchError> {
        let runtime = systems::one_worker()?;
        let spec = KeyspaceSpec::new("hit", Made).max_bytes(MAX_BYTES);
        let engine = runtime.block_on(Engine::builder().keyspace(spec).start())?;
        let weigh = |key: &String, value: &Bytes| (key.len() + value.len()) as u32;
        let stores = Self {
            bare: quick_cache::sync::Cache::with(KEYS, MAX_BYTES, KeyAndValue, Default::default(), Default::default()),
            bare_xxh3: quick_cache::sync::Cache::with(KEYS, MAX_BYTES, KeyAndValue, Xxh3, Default::default()),
            moka: moka::sync::Cache::builder().max_capacity(MAX_BYTES).weigher(weigh).build(),
            moka_future: moka::future::Cache::builder().max_capacity(MAX_BYTES).weigher(weigh).build(),
            groupcache: runtime.block_on(async { systems::groupcache::alone() }),
            keyspace: engine.keyspace("hit")?,
            _engine: engine,
            runtime,
        };
        stores.fill(keys)?;
        Ok(stores)
    }

    fn fill(&self, keys: &[String]) -> Result<(), BenchError> {
        for key in keys {
            let value = || workload::value(key);
            self.bare.insert(key.clone(), value());
            self.bare_xxh3.insert(key.clone(), value());
            self.moka.insert(key.clone(), value());
            self.runtime.block_on(async {
                self.moka_future.insert(key.clone(), value()).await;
                self.groupcache.get(key).await.map_err(BenchError::groupcache)?;
                self.keyspace.get(key).await?;
                Ok::<_, BenchError>(())
            })?;
        }
        self.check(keys)
    }

    fn check(&self, keys: &[String]) -> Result<(), BenchError> {
        let absent = |key: &&String| {
            let key = key.as_str();
            self.bare.get(key).is_none()
                || self.bare_xxh3.get(key).is_none()
                || self.moka.get(key).is_none()
                || self.keyspace.cached(key).is_none()
        };
        match keys.iter().find(absent) {
            Some(key) => Err(BenchError::WrongValue { key: key.clone(), len: 0 }),
            None => Ok(()),
        }
    }

    fn contestants(&self) -> Vec<Contestant<'_>> {
        vec![
            called(LOOP_ALONE, |key| key.len()),
            called(BARE, |key| self.bare.get(key)),
            called("quick_cache with xxh3", |key| self.bare_xxh3.get(key)),
            called("moka", |key| self.moka.get(key)),
            awaited("moka, get().await", &self.runtime, async |key: &str| self.moka_future.get(key).await),
            awaited(GROUPCACHE, &self.runtime, async |key: &str| self.groupcache.get(key).await),
            called(CACHED, |key| self.keyspace.cached(key)),
            awaited(GET, &self.runtime, async |key: &str| self.keyspace.get(key).await),
        ]
    }
}

struct Measured {
    names: Vec<&'static str>,
    /// By contestant and round.
    times: Vec<Vec<Time>>,
}

impl Measured {
    fn net(&self, name: &str) -> Vec<f64> {
        let place = |name| self.names.iter().position(|&other| other == name).unwrap_or_default();
        let (hit, empty) = (&self.times[place(name)], &self.times[place(LOOP_ALONE)]);
        hit.iter().zip(empty).map(|(hit, empty)| (hit.processor - empty.processor).max(0.1)).collect()
    }

    fn ratio(&self, name: &str, other: &str) -> f64 {
        ratio(&self.net(name), &self.net(other))
    }

    fn table(&self, threads: usize) -> Table {
        let mut table = Table::new(
            format!("Hit, {KEYS} keys by Zipf's law, values of {SMALL_VALUE_BYTES} bytes, on {threads} thread(s)"),
            &["store", "ns", "±%", "ns on the wall", "of quick_cache", "of groupcache"],
        );
        for (name, times) in self.names.iter().zip(&self.times) {
            let of_loop = *name == LOOP_ALONE;
            let beside = |other| if of_loop { String::new() } else { format!("{:.2}x", self.ratio(name, other)) };
            let processor: Vec<f64> = times.iter().map(|time| time.processor).collect();
            let wall: Vec<f64> = times.iter().map(|time| time.wall).collect();
            table.row([
                name.to_string(),
                format!("{:.1}", median(&processor)),
                format!("{:.0}", spread(&processor) * 100.0),
                format!("{:.1}", median(&wall)),
                beside(BARE),
                beside(GROUPCACHE),
            ]);
        }
        table
    }

    fn targets(&self, threads: usize) -> Vec<Target> {
        let of_bare = |name, of| Target {
            what: format!("{name}: time of a hit on {threads} thread(s), in times of {of}"),
            bound: Bound::AtMost(2.0),
            measured: self.ratio(name, of),
        };
        vec![
            of_bare(GET, BARE),
            of_bare(CACHED, BARE),
            Target {
                what: format!("{GET}: times faster than groupcache's on {threads} thread(s)"),
                bound: Bound::AtLeast(3.0),
                measured: 1.0 / self.ratio(GET, GROUPCACHE),
            },
        ]
    }
}
