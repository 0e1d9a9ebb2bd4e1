//! Callers at every node, and what they saw.
//!
//! Readers read all the time, some keys more than others. A writer changes the source first and then puts or deletes the key at
//! any node. Knows no fault. The invariants: the writes of a key come from one writer, each after the end of the one before; what
//! was sent is noted, however it ended.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::Answer;
use crate::history::{Kind, Moment, Node, Read, Seen, Write};
use crate::node::{NODES, http_of};
use crate::origin::Origin;

/// Keys that are written, and read all the time.
pub const KEYS: u32 = 240;
/// More keys, which are only read, and each of them so seldom that it would be missing for a while had it been dropped.
pub const SELDOM_READ: u32 = 30_000;
const WARMING_AT_ONCE: u32 = 40;
const READERS_PER_NODE: usize = 3;
const READ_PAUSE: Duration = Duration::from_millis(8);
/// Enough that some are left while others wait for a node that does not answer.
const WRITERS: u32 = 12;
const WRITE_PAUSE: Duration = Duration::from_millis(500);

pub struct Load {
    clock: Instant,
    done: Arc<AtomicBool>,
    readers: Vec<JoinHandle<Vec<Read>>>,
    writers: Vec<JoinHandle<Vec<Write>>>,
}

impl Load {
    pub fn start(origin: &Arc<Origin>) -> Self {
        let (clock, done) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let caller = || Caller { clock, done: done.clone(), random: Random::new() };
        let readers = (0..NODES * READERS_PER_NODE).map(|number| {
            let caller = caller();
            std::thread::spawn(move || caller.read_at(number % NODES))
        });
        let writers = (0..WRITERS).map(|number| {
            let (caller, origin) = (caller(), origin.clone());
            std::thread::spawn(move || caller.write(number, &origin))
        });
        let (readers, writers) = (readers.collect(), writers.collect());
        Self { clock, done, readers, writers }
    }

    pub fn now(&self) -> Moment {
        self.clock.elapsed()
    }

    /// When it began.
    pub fn clock(&self) -> Instant {
        self.clock
    }

    /// Ends the load; all reads and all writes.
    pub fn end(self) -> (Vec<Read>, Vec<Write>) {
        self.done.store(true, Relaxed);
        let reads = self.readers.into_iter().flat_map(|reader| reader.join().unwrap());
        let writes = self.writers.into_iter().flat_map(|writer| writer.join().unwrap());
        (reads.collect(), writes.collect())
    }
}

/// Reads every key once.
pub fn warm_up() {
    let warm = |first: u32| {
        let mut client = http_of(first as usize % NODES);
        for key in (first..KEYS + SELDOM_READ).step_by(WARMING_AT_ONCE as usize) {
            seen(client.send("GET", &path(key), "")).unwrap();
        }
    };
    std::thread::scope(|scope| (0..WARMING_AT_ONCE).for_each(|first| drop(scope.spawn(move || warm(first)))));
}

struct Caller {
    clock: Instant,
    done: Arc<AtomicBool>,
    random: Random,
}

impl Caller {
    fn read_at(mut self, node: Node) -> Vec<Read> {
        let (mut client, mut reads) = (http_of(node), Vec::new());
        while !self.done.load(Relaxed) {
            let is_seldom = self.random.below(2) == 0;
            let key = if is_seldom { KEYS + self.random.below(SELDOM_READ.into()) as u32 } else { self.random.key() };
            let start = self.clock.elapsed();
            let outcome = seen(client.send("GET", &path(key), ""));
            reads.push(Read { node, key, start, end: self.clock.elapsed(), outcome });
            std::thread::sleep(READ_PAUSE);
        }
        reads
    }

    /// Every second writer only deletes: a put that failed may take effect later, so that less can be said of its key.
    fn write(mut self, number: u32, origin: &Origin) -> Vec<Write> {
        let mut writes = Vec::new();
        while !self.done.load(Relaxed) {
            let (key, node) = (self.random.key() / WRITERS * WRITERS + number, self.random.below(NODES as u64) as Node);
            let is_put = number.is_multiple_of(2) && self.random.below(2) == 0;
            let start = self.clock.elapsed();
            let version = origin.change(key);
            // A connection of its own: one that was kept may have lost its node meanwhile.
            let mut client = http_of(node);
            let answer = match is_put {
                true => client.send("PUT", &path(key), &version.to_string()),
                false => client.send("DELETE", &path(key), ""),
            };
            let outcome = accepted(answer).map(drop);
            let kind = if is_put { Kind::Put } else { Kind::Delete };
            writes.push(Write { node, key, start, end: self.clock.elapsed(), version, kind, outcome });
            std::thread::sleep(WRITE_PAUSE);
        }
        writes
    }
}

fn path(key: u32) -> String {
    format!("/v1/versions/{key}")
}

fn seen(answer: std::io::Result<Answer>) -> Result<Seen, String> {
    let answer = accepted(answer)?;
    let header = |name: &str| answer.headers.get(name).map(String::as_str);
    Ok(Seen {
        version: answer.body.parse().map_err(|_| format!("{:?} is no version", answer.body))?,
        is_hit: header("x-cache") == Some("hit"),
        is_copy: header("x-cache-origin") == Some("hot-copy"),
    })
}

/// An error as its kind or its code, without what differs from one to the next.
fn accepted(answer: std::io::Result<Answer>) -> Result<Answer, String> {
    match answer {
        Ok(answer) if matches!(answer.status, 200 | 204) => Ok(answer),
        Ok(answer) => {
            let body: Option<serde_json::Value> = serde_json::from_str(&answer.body).ok();
            let code = body.as_ref().and_then(|body| body["error"]["code"].as_str());
            Err(format!("{} {}", answer.status, code.unwrap_or("without a code")))
        }
        // What a socket says whose time-out is over.
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err("no answer".into()),
        Err(error) => Err(format!("{:?}", error.kind())),
    }
}

/// Numbers that no two callers have alike. Marsaglia, "Xorshift RNGs", 2003.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(RandomState::new().hash_one(0) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    /// The lower ones more often.
    fn key(&mut self) -> u32 {
        let keys = u64::from(KEYS);
        (self.below(keys) * self.below(keys) / keys) as u32
    }
}
