//! A client process: reads from one system as it is told, and says how fast that went.
//!
//! Every reading task has keys of its own, so that no system can answer two of them with one request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::child;
use crate::error::BenchError;
use crate::systems::{self, Reader, System, distcache, groupcache, redis};
use crate::workload::{self, LARGE_VALUE_BYTES, SMALL_VALUE_BYTES};

/// Keys of one batch.
pub const BATCH_KEYS: usize = 100;

/// One measurement that the parent asks for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Work {
    pub how: How,
    /// Of the keys' values: one of the two sizes of [`workload`].
    pub value_bytes: usize,
    /// Tasks that read in a loop; each has one request, or one batch, under way.
    pub tasks: usize,
    pub millis: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// One key that another process holds.
    Remote,
    /// A batch of keys of the whole cluster, in one call.
    BatchAtOnce,
    /// The same, as single reads awaited together.
    BatchTogether,
    /// The same, as single reads one after the other.
    BatchInTurn,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Done {
    /// Reads, or batches.
    pub count: u64,
    pub elapsed: Duration,
    pub p50: Duration,
    pub p99: Duration,
    /// Reads that this process answered by itself, where the system counts them.
    pub answered_here: Option<u64>,
}

/// Connects, warms, and then works until its input ends.
pub fn run(system: System, cluster: &str, servers: &[SocketAddr]) -> Result<(), BenchError> {
    let runtime = systems::one_worker()?;
    runtime.block_on(async {
        match system {
            System::Distcache | System::DistcacheTls => {
                let security = distcache::Security::of(system, std::os::unix::process::parent_id());
                work(distcache::Node::join(security, cluster, servers).await?).await
            }
            System::Groupcache => work(groupcache::Node::join(servers).await?).await,
            System::Redis => work(redis::Connection::open(servers[0]).await?).await,
        }
    })
}

/// Keys that the reader has warmed, by what they are for.
struct Keys {
    remote_small: Arc<[String]>,
    remote_large: Arc<[String]>,
    all_small: Arc<[String]>,
}

/// A multiple of every number of tasks, so that tasks never share a key.
const REMOTE_SMALL_KEYS: usize = 8_192;
const REMOTE_LARGE_KEYS: usize = 2_048;
const ALL_SMALL_KEYS: usize = 100 * BATCH_KEYS;

impl Keys {
    async fn prepare(reader: &impl Reader) -> Result<Self, BenchError> {
        let all_small: Vec<String> = (0..ALL_SMALL_KEYS).map(|n| workload::key(SMALL_VALUE_BYTES, n)).collect();
        reader.warm(&all_small).await?;
        Ok(Self {
            all_small: all_small.into(),
            remote_small: remote(reader, SMALL_VALUE_BYTES, REMOTE_SMALL_KEYS).await?,
            remote_large: remote(reader, LARGE_VALUE_BYTES, REMOTE_LARGE_KEYS).await?,
        })
    }

    fn of(&self, work: Work) -> Arc<[String]> {
        match work.how {
            How::Remote if work.value_bytes == LARGE_VALUE_BYTES => self.remote_large.clone(),
            How::Remote => self.remote_small.clone(),
            How::BatchAtOnce | How::BatchTogether | How::BatchInTurn => self.all_small.clone(),
        }
    }
}

async fn remote(reader: &impl Reader, value_bytes: usize, count: usize) -> Result<Arc<[String]>, BenchError> {
    let mut found = Vec::with_capacity(count);
    let mut n = 0;
    while found.len() < count {
        let candidates: Vec<String> = (n..n + 256).map(|n| workload::key(value_bytes, n)).collect();
        n += candidates.len();
        reader.warm(&candidates).await?;
        found.extend(candidates.into_iter().filter(|key| reader.is_remote(key)));
    }
    found.truncate(count);
    Ok(found.into())
}

async fn work(reader: impl Reader) -> Result<(), BenchError> {
    let keys = Keys::prepare(&reader).await?;
    child::say(&"ready")?;
    // Reading the parent's lines blocks this thread, which is none of the runtime's workers.
    while let Some(work) = child::listen::<Work>()? {
        let answered_before = reader.answered_here();
        let done = measure(&reader, work, keys.of(work)).await?;
        let answered_here = reader.answered_here().zip(answered_before).map(|(after, before)| after - before);
        child::say(&Done { answered_here, ..done })?;
    }
    Ok(())
}

/// Latencies in nanoseconds, 1 µs to 60 s. One for all tasks: they run on one worker, and a histogram each would push the
/// reader's own data out of the processor's cache.
type Latencies = Arc<Mutex<Histogram<u64>>>;

async fn measure(reader: &impl Reader, work: Work, keys: Arc<[String]>) -> Result<Done, BenchError> {
    let bounds = Histogram::new_with_bounds(1_000, 60_000_000_000, 3);
    let latencies: Latencies = Arc::new(Mutex::new(bounds.map_err(std::io::Error::other)?));
    let started = Instant::now();
    let deadline = started + Duration::from_millis(work.millis);
    let tasks: Vec<_> = (0..work.tasks)
        .map(|task| {
            let (reader, keys, latencies) = (reader.clone(), keys.clone(), latencies.clone());
            tokio::spawn(async move { read_until(deadline, &reader, work, task, &keys, &latencies).await })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let elapsed = started.elapsed();
    let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
    let quantile = |q| Duration::from_nanos(latencies.value_at_quantile(q));
    Ok(Done { count: latencies.len(), elapsed, p50: quantile(0.50), p99: quantile(0.99), answered_here: None })
}

async fn read_until(
    deadline: Instant,
    reader: &impl Reader,
    work: Work,
    task: usize,
    keys: &[String],
    latencies: &Latencies,
) -> Result<(), BenchError> {
    let (mut turn, mut before) = (task, Instant::now());
    while before < deadline {
        if work.how == How::Remote {
            read_one(reader, &keys[turn % keys.len()], work.value_bytes).await?;
        } else {
            let first = turn * BATCH_KEYS % keys.len();
            read_batch(reader, work.how, &keys[first..first + BATCH_KEYS]).await?;
        }
        let now = Instant::now();
        let nanos = (now - before).as_nanos() as u64;
        latencies.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(nanos);
        turn += work.tasks;
        before = now;
    }
    Ok(())
}

async fn read_one(reader: &impl Reader, key: &str, value_bytes: usize) -> Result<(), BenchError> {
    match reader.read(key).await? {
        len if len == value_bytes => Ok(()),
        len => Err(BenchError::WrongValue { key: key.to_owned(), len }),
    }
}

async fn read_batch(reader: &impl Reader, how: How, keys: &[String]) -> Result<(), BenchError> {
    let bytes = match how {
        How::BatchAtOnce => reader.read_many(keys).await?,
        How::BatchTogether => try_join_all(keys.iter().map(|key| reader.read(key))).await?.iter().sum(),
        How::BatchInTurn | How::Remote => {
            let mut bytes = 0;
            for key in keys {
                bytes += reader.read(key).await?;
            }
            bytes
        }
    };
    match bytes {
        bytes if bytes == keys.len() * SMALL_VALUE_BYTES => Ok(()),
        len => Err(BenchError::WrongValue { key: keys.join(","), len }),
    }
}
