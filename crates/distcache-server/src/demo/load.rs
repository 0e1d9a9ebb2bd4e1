//! Readers: each asks one node after the other over kept-alive connections, and elsewhere when a node is gone.
//!
//! The invariant: a read counts once, with the time from the first attempt to the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use hyper::Method;
use tokio::task::JoinSet;

use super::cluster::{Cluster, KEYSPACE};
use super::zipf::Zipf;
use crate::call::{CallError, Connection, NodeUrl, Trust};

const READ_LIMIT: Duration = Duration::from_secs(10);

/// Microseconds up to a minute, to three digits.
pub fn histogram() -> Histogram<u64> {
    const MICROS_MAX: u64 = 60_000_000;
    const DIGITS: u8 = 3;
    Histogram::new_with_max(MICROS_MAX, DIGITS).expect("the bounds are within what a histogram can do")
}

/// Where the values came from, as the nodes say; the order is that of the report.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    Owned,
    HotCopy,
    Peer,
    Loaded,
    Fallback,
}

/// What one reader, or all of them, saw.
pub struct Tally {
    pub times: Histogram<u64>,
    pub origins: [u64; 5],
    /// Attempts that had to be repeated at another node, because the connection to the first broke.
    pub resent: u64,
    pub errors: u64,
    pub first_error: Option<String>,
    /// Which places were read.
    places: Vec<bool>,
}

pub struct Readers(Arc<Shared>);

struct Shared {
    targets: Vec<Target>,
    keys: Arc<[String]>,
    zipf: Zipf,
    reads: AtomicU64,
    runs: AtomicU64,
}

struct Target {
    url: NodeUrl,
    is_up: AtomicBool,
}

impl Readers {
    pub fn new(cluster: &Cluster, keys: Arc<[String]>) -> Self {
        let target = |url: &NodeUrl| Target { url: url.clone(), is_up: AtomicBool::new(true) };
        let targets = cluster.nodes().iter().map(|node| target(node.http())).collect();
        let zipf = Zipf::new(keys.len());
        Self(Arc::new(Shared { targets, keys, zipf, reads: AtomicU64::new(0), runs: AtomicU64::new(0) }))
    }

    /// Reads answered so far.
    pub fn reads(&self) -> u64 {
        self.0.reads.load(Relaxed)
    }

    /// Reads for as long as told, with as many readers. Ends with its future: the readers are its tasks.
    pub async fn run(&self, readers: usize, duration: Duration) -> Tally {
        let until = Instant::now() + duration;
        let run = self.0.runs.fetch_add(1, Relaxed);
        let mut tasks = JoinSet::new();
        for reader in 0..readers {
            let shared = self.0.clone();
            let random = fastrand::Rng::with_seed(run << 32 | reader as u64);
            tasks.spawn(async move { Reader::new(shared, random).run(until).await });
        }
        let mut all = Tally::new(self.0.keys.len());
        while let Some(tally) = tasks.join_next().await {
            match tally {
                Ok(tally) => all.add(&tally),
                Err(panicked) => all.failed(format!("a reader ended: {panicked}")),
            }
        }
        all
    }
}

struct Reader {
    shared: Arc<Shared>,
    random: fastrand::Rng,
    connections: Vec<Option<Connection>>,
    tally: Tally,
}

impl Reader {
    fn new(shared: Arc<Shared>, random: fastrand::Rng) -> Self {
        let connections = shared.targets.iter().map(|_| None).collect();
        let tally = Tally::new(shared.keys.len());
        Self { shared, random, connections, tally }
    }

    async fn run(mut self, until: Instant) -> Tally {
        while Instant::now() < until {
            let place = self.shared.zipf.rank(self.random.f64());
            let begun = Instant::now();
            match self.read(place).await {
                Ok(origin) => self.tally.answered(place, origin, begun.elapsed()),
                Err(error) => self.tally.failed(error.to_string()),
            }
            self.shared.reads.fetch_add(1, Relaxed);
        }
        self.tally
    }

    /// Asks a node at random, and while that node turns out to be gone, another.
    async fn read(&mut self, place: usize) -> Result<Option<Origin>, CallError> {
        let first = self.random.usize(..self.shared.targets.len());
        let mut last = None;
        for offset in 0..self.shared.targets.len() {
            let target = (first + offset) % self.shared.targets.len();
            if !self.shared.targets[target].is_up.load(Relaxed) {
                continue;
            }
            match self.ask(target, place).await {
                Err(error @ (CallError::NotConnected { .. } | CallError::Broken { .. })) => {
                    self.shared.targets[target].is_up.store(false, Relaxed);
                    self.tally.resent += 1;
                    last = Some(error);
                }
                answer => return answer,
            }
        }
        let url = self.shared.targets[first].url.clone();
        Err(last.unwrap_or(CallError::Nonsense { url, reason: "no node is left".into() }))
    }

    async fn ask(&mut self, target: usize, place: usize) -> Result<Option<Origin>, CallError> {
        let connection = match &mut self.connections[target] {
            Some(connection) => connection,
            none => {
                none.insert(Connection::open(&self.shared.targets[target].url, &Trust::default(), READ_LIMIT).await?)
            }
        };
        let path = format!("/v1/{KEYSPACE}/{}", self.shared.keys[place]);
        let reply = connection.call(Method::GET, &path, Bytes::new(), READ_LIMIT).await;
        if !matches!(reply, Ok(_) | Err(CallError::Refused { .. })) {
            self.connections[target] = None;
        }
        let reply = reply?;
        Ok(reply.headers.get("x-cache-origin").and_then(|name| Origin::named(name.to_str().ok()?)))
    }
}

impl Origin {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "owned" => Self::Owned,
            "hot-copy" => Self::HotCopy,
            "peer" => Self::Peer,
            "loaded" => Self::Loaded,
            "fallback" => Self::Fallback,
            _ => return None,
        })
    }
}

impl Tally {
    pub fn new(places: usize) -> Self {
        let times = histogram();
        Self { times, origins: [0; 5], resent: 0, errors: 0, first_error: None, places: vec![false; places] }
    }

    pub fn answered(&mut self, place: usize, origin: Option<Origin>, time: Duration) {
        self.times.saturating_record(time.as_micros() as u64);
        self.places[place] = true;
        if let Some(origin) = origin {
            self.origins[origin as usize] += 1;
        }
    }

    pub fn failed(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    pub fn reads(&self) -> u64 {
        self.times.len()
    }

    pub fn from(&self, origin: Origin) -> u64 {
        self.origins[origin as usize]
    }

    /// Different places that were read.
    pub fn places(&self) -> u64 {
        self.places.iter().filter(|read| **read).count() as u64
    }

    /// Different places that were read here and not there.
    pub fn places_beyond(&self, other: &Self) -> u64 {
        self.places.iter().zip(&other.places).filter(|(here, there)| **here && !**there).count() as u64
    }

    fn add(&mut self, other: &Self) {
        self.times += &other.times;
        self.origins.iter_mut().zip(other.origins).for_each(|(sum, n)| *sum += n);
        self.resent += other.resent;
        self.note(other);
    }

    /// Takes over which places were read and what failed, but no numbers of reads and no times.
    pub fn note(&mut self, other: &Self) {
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
        self.places.iter_mut().zip(&other.places).for_each(|(any, read)| *any |= read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let (mut a, mut b) = (Tally::new(4), Tally::new(4));
        a.answered(0, Some(Origin::Owned), Duration::from_micros(10));
        a.answered(1, Some(Origin::Loaded), Duration::from_micros(900));
        b.answered(1, Some(Origin::Owned), Duration::from_micros(20));
        b.answered(3, None, Duration::from_micros(30));
        b.failed("gone".into());
        assert_eq!((b.places_beyond(&a), a.places_beyond(&b)), (1, 1));
        a.add(&b);
        assert_eq!((a.reads(), a.places(), a.errors), (4, 3, 1));
        assert_eq!((a.from(Origin::Owned), a.from(Origin::Loaded), a.from(Origin::Peer)), (2, 1, 0));
        assert_eq!(a.times.max(), 900);
    }
}
