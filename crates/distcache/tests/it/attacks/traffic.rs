//! Callers who read and write on every node while something else goes on, and who check every answer.
//!
//! Knows nothing of attacks. The invariants: a read answers what the source says; a caller reads what it wrote; others read it
//! once it was written and a lease is over; and no call takes longer than [`IN_TIME`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use distcache::{Bytes, Engine, Error, Fetched, GetOptions, Keyspace, KeyspaceSpec, Origin};
use tokio::task::JoinHandle;

use crate::harness::*;

/// The longest that a call may take, also on a busy machine. Whatever waits for a peer, a handshake or a source that hangs takes
/// longer.
const IN_TIME: Duration = Duration::from_secs(3);
/// So short that the tests see copies come and go.
const LEASE: Duration = Duration::from_secs(1);
/// Between two calls of one caller, so that the traffic is not an attack itself.
const PAUSE: Duration = Duration::from_millis(2);
const WRITTEN_KEYS: u64 = 16;

/// Callers on every node. They stop when they are asked, or with the first wrong answer.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    callers: Vec<JoinHandle<()>>,
    nodes: Vec<Engine>,
    /// Failed fetches and fallback loads before it began.
    harm_before: u64,
}

/// Nodes to be attacked, with a source that says what was written last.
pub fn plan() -> (Plan, Truth) {
    let (source, truth) = (Source::new(), Truth::default());
    let told = truth.clone();
    source.answer(move |key| Ok(Fetched::new(told.now(key))));
    (Plan::new(&source).spec(|spec: KeyspaceSpec| spec.lease(LEASE)), truth)
}

impl Traffic {
    /// Returns once every caller has had answers.
    pub async fn begin(nodes: &[Engine], truth: &Truth) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let caller = |n: usize| Caller {
            name: format!("caller-{n}-of-{}", nodes[n].me().name),
            things: things(&nodes[n]),
            truth: truth.clone(),
            stop: stop.clone(),
            calls: calls.clone(),
        };
        let readers = (0..nodes.len()).map(|n| tokio::spawn(caller(n).read()));
        let writers = (0..nodes.len()).map(|n| tokio::spawn(caller(n).write()));
        let callers: Vec<_> = readers.chain(writers).collect();
        let traffic = Self { stop, calls, callers, nodes: nodes.to_vec(), harm_before: harm(nodes) };
        traffic.goes_on().await;
        traffic
    }

    /// Waits until every caller has had some more answers.
    pub async fn goes_on(&self) {
        let enough = self.calls.load(SeqCst) + 20 * self.callers.len() as u64;
        eventually("the traffic goes on", || self.calls.load(SeqCst) > enough || self.has_failed()).await;
        assert!(!self.has_failed(), "a caller had a wrong answer, or none; see the output above");
    }

    fn has_failed(&self) -> bool {
        self.callers.iter().any(JoinHandle::is_finished)
    }

    /// Ends it. Nobody had a wrong answer or a late one.
    pub async fn end(self) {
        self.goes_on().await;
        self.stop.store(true, SeqCst);
        for caller in self.callers {
            caller.await.expect("no caller had a wrong answer");
        }
    }

    /// Ends it. Beyond that, no connection between the nodes has failed: every owner answered for its keys all the time.
    pub async fn end_unharmed(self) {
        let (nodes, before) = (self.nodes.clone(), self.harm_before);
        self.end().await;
        assert_eq!(harm(&nodes), before, "fetches that failed, and loads in their place");
    }
}

fn harm(nodes: &[Engine]) -> u64 {
    let stats = nodes.iter().map(|node| things(node).stats());
    stats.map(|stats| stats.fetch_failures + stats.fallback_loads).sum()
}

/// One caller on one node.
struct Caller {
    name: String,
    things: Keyspace,
    truth: Truth,
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
}

impl Caller {
    /// Keys that are cached everywhere, keys that nobody has asked for, several at once, and what the others write.
    async fn read(self) {
        for n in 0u64.. {
            if self.stop.load(SeqCst) {
                return;
            }
            self.read_one(&format!("known-{}", n % 50)).await;
            self.read_one(&format!("{}-{n}", self.name)).await;
            if n % 8 == 0 {
                self.read_many(n).await;
            }
            for key in self.truth.keys() {
                self.read_written(&key).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn read_one(&self, key: &str) {
        let entry = self.timed(key, self.things.get_entry(key, GetOptions::new())).await.unwrap();
        assert_eq!(entry.value, value_of(key), "{key} on {}, from {:?}", self.name, entry.origin);
    }

    async fn read_many(&self, n: u64) {
        let keys: Vec<String> = (0..20).map(|m| format!("{}-{n}-{m}", self.name)).collect();
        let values = self.timed("many keys", self.things.get_many(&keys)).await.unwrap();
        for (key, value) in keys.iter().zip(values) {
            assert_eq!(value.unwrap(), value_of(key), "{key} on {}", self.name);
        }
    }

    async fn read_written(&self, key: &str) {
        let asked = Instant::now();
        let entry = self.timed(key, self.things.get_entry(key, GetOptions::new())).await.unwrap();
        self.truth.check(key, &entry.value, asked, entry.origin);
    }

    async fn write(self) {
        for n in 0u64.. {
            if self.stop.load(SeqCst) {
                return;
            }
            let key = format!("written-{}-{}", self.name, n % WRITTEN_KEYS);
            let value = self.truth.begin(&key);
            self.put(&key, &value).await;
            self.truth.done(&key);
            let read = self.timed(&key, self.things.get(&key)).await.unwrap();
            assert_eq!(read, value, "{key} is not what {} wrote last", self.name);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Nodes may disagree for a moment while one joins; then a write says so and is tried again.
    async fn put(&self, key: &str, value: &str) {
        let until = Instant::now() + IN_TIME;
        loop {
            match self.timed(key, self.things.put(key, value.to_owned())).await {
                Ok(()) => return,
                Err(error @ Error::NotOwner { .. }) => {
                    assert!(Instant::now() < until, "{key} on {}: {error}", self.name)
                }
                Err(error) => panic!("put of {key} on {}: {error}", self.name),
            }
        }
    }

    async fn timed<T>(&self, what: &str, call: impl Future<Output = T>) -> T {
        let asked = Instant::now();
        let answer = call.await;
        let took = asked.elapsed();
        assert!(took <= IN_TIME, "{what} on {} took {took:?}", self.name);
        self.calls.fetch_add(1, SeqCst);
        answer
    }
}

/// What the source would say of every key: what was written last, else its own value.
#[derive(Clone, Default)]
pub struct Truth(Arc<Mutex<HashMap<String, Vec<Option<Instant>>>>>);

impl Truth {
    /// The next value of a key. Its number is the place among all values, the time says since when it is written.
    fn begin(&self, key: &str) -> String {
        let mut written = self.0.lock().unwrap();
        let values = written.entry(key.into()).or_default();
        values.push(None);
        text_of(values.len())
    }

    fn done(&self, key: &str) {
        *self.0.lock().unwrap().get_mut(key).unwrap().last_mut().unwrap() = Some(Instant::now());
    }

    fn now(&self, key: &str) -> String {
        self.0.lock().unwrap().get(key).map_or_else(|| value_of(key), |values| text_of(values.len()))
    }

    fn keys(&self) -> Vec<String> {
        // One of each writer is enough for one round.
        self.0.lock().unwrap().keys().filter(|key| key.ends_with("-0")).cloned().collect()
    }

    /// Whether somebody who asked then may have got this value.
    fn check(&self, key: &str, value: &Bytes, asked: Instant, origin: Origin) {
        let written = self.0.lock().unwrap();
        let values = &written[key];
        let number: usize = std::str::from_utf8(value).unwrap().strip_prefix("value ").unwrap().parse().unwrap();
        assert!(number <= values.len(), "{key}: {value:?} was never written");
        let overtaken = values.get(number).copied().flatten();
        let late = overtaken.map(|at| asked.saturating_duration_since(at));
        assert!(
            late.is_none_or(|late| late <= LEASE * 2),
            "{key}: {value:?} from {origin:?} was overtaken {late:?} before"
        );
    }
}

fn text_of(number: usize) -> String {
    format!("value {number}")
}
