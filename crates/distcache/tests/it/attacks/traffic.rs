//! Callers who read and write on every node while something else goes on, and who check every answer.
//!
//! Knows nothing of attacks. The invariants: a read answers what the source says; a caller reads what it wrote; others read it
//! once it was written and a lease is over; and no call takes longer than [`IN_TIME`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use distcache::{Bytes, Engine, Entry, Error, Fetched, GetOptions, Keyspace, KeyspaceSpec, Origin};
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
    callers: Vec<Called>,
    /// Keys that callers had answers for from elsewhere than the owner.
    unanswered: Unanswered,
    nodes: Vec<Engine>,
    failures_before: Vec<u64>,
}

type Unanswered = Arc<Mutex<Vec<String>>>;

/// A caller, as whoever waits for it sees it.
struct Called {
    calls: Arc<AtomicU64>,
    task: JoinHandle<()>,
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
        let (stop, unanswered) = (Arc::new(AtomicBool::new(false)), Unanswered::default());
        let caller = |n: usize| Caller {
            name: format!("caller-{n}-of-{}", nodes[n].me().name),
            things: things(&nodes[n]),
            truth: truth.clone(),
            stop: stop.clone(),
            calls: Arc::default(),
            unanswered: unanswered.clone(),
        };
        let reader = |n| Called::begin(caller(n), Caller::read);
        let writer = |n| Called::begin(caller(n), Caller::write);
        let callers = (0..nodes.len()).flat_map(|n| [reader(n), writer(n)]).collect();
        let failures_before = fetch_failures(nodes);
        let traffic = Self { stop, callers, unanswered, nodes: nodes.to_vec(), failures_before };
        traffic.goes_on().await;
        traffic
    }

    /// Waits until every caller has had some more answers.
    pub async fn goes_on(&self) {
        let before: Vec<u64> = self.callers.iter().map(Called::calls).collect();
        let go_on = || self.callers.iter().zip(&before).all(|(caller, before)| caller.calls() > before + 20);
        eventually("the traffic goes on", || go_on() || self.has_failed()).await;
        assert!(!self.has_failed(), "a caller had a wrong answer, or none; see the output above");
    }

    fn has_failed(&self) -> bool {
        self.callers.iter().any(|caller| caller.task.is_finished())
    }

    /// Ends it. Nobody had a wrong answer or a late one.
    pub async fn end(self) {
        self.goes_on().await;
        self.stop.store(true, SeqCst);
        for caller in self.callers {
            caller.task.await.expect("no caller had a wrong answer");
        }
    }

    /// Ends it. Beyond that, no connection between the nodes has failed: every owner answered for its keys all the time.
    pub async fn end_unharmed(self) {
        let (nodes, before, unanswered) = (self.nodes.clone(), self.failures_before.clone(), self.unanswered.clone());
        self.end().await;
        let unanswered = unanswered.lock().unwrap();
        assert!(unanswered.is_empty(), "owners did not answer for {unanswered:?}");
        assert_eq!(fetch_failures(&nodes), before, "fetches that failed, of each node");
    }
}

impl Called {
    fn begin<T>(caller: Caller, calls: impl FnOnce(Caller) -> T) -> Self
    where
        T: Future<Output = ()> + Send + 'static,
    {
        Self { calls: caller.calls.clone(), task: tokio::spawn(calls(caller)) }
    }

    fn calls(&self) -> u64 {
        self.calls.load(SeqCst)
    }
}

/// What each node has asked its peers in vain.
fn fetch_failures(nodes: &[Engine]) -> Vec<u64> {
    nodes.iter().map(|node| things(node).stats().fetch_failures).collect()
}

/// Whether another node owns this key and did not answer for it. An owner has fallbacks too, where whoever owned the key a few
/// seconds ago takes longer than 50 ms to say what it has: that is no harm, and happens on a busy machine.
pub fn is_in_owners_place(keyspace: &Keyspace, key: &str, origin: Origin) -> bool {
    origin == Origin::Fallback && !keyspace.owner_of(key).unwrap().is_self
}

/// One caller on one node.
struct Caller {
    name: String,
    things: Keyspace,
    truth: Truth,
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    unanswered: Unanswered,
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
        let entry = self.read_entry(key).await;
        assert_eq!(entry.value, value_of(key), "{key} on {}, from {:?}", self.name, entry.origin);
    }

    async fn read_entry(&self, key: &str) -> Entry {
        let entry = self.timed(key, self.things.get_entry(key, GetOptions::new())).await.unwrap();
        if is_in_owners_place(&self.things, key, entry.origin) {
            self.unanswered.lock().unwrap().push(format!("{key} on {}", self.name));
        }
        entry
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
        let entry = self.read_entry(key).await;
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
