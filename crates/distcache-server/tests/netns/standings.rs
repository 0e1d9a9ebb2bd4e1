//! How the nodes stood to each other, looked at all the time.
//!
//! Knows how a node is asked for its view, and is told what is done to the network and to processes. Judges nothing. The invariant:
//! what is done is noted before it is done, and its end after it, so that no look misses it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use distcache_checker::{NO_VIEW, Standing, bits};

use crate::history::Node;
use crate::network::name;
use crate::node::{Admin, NODES};

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A node that does not answer for so long has no view.
const LOOK_MAX: Duration = Duration::from_millis(100);

/// What is wrong by the test's doing, a bit for each node.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    /// Of each node, those that do not hear it.
    cut: [u32; NODES],
    /// Processes that are stopped.
    stopped: u32,
    /// Processes that are not there.
    away: u32,
}

impl Trouble {
    fn or(self, other: Self) -> Self {
        let mut cut = self.cut;
        cut.iter_mut().zip(other.cut).for_each(|(cut, other)| *cut |= other);
        Self { cut, stopped: self.stopped | other.stopped, away: self.away | other.away }
    }

    /// Whom a node reaches and is reached by.
    fn reached_by(&self, node: Node) -> u32 {
        let silent = self.stopped | self.away;
        let hears = |other: &Node| (self.cut[node] & 1 << other | self.cut[*other] & 1 << node) == 0;
        let is_up = |other: &Node| silent & (1 << node | 1 << other) == 0;
        bits((0..NODES).filter(|other| *other == node || hears(other) && is_up(other)))
    }
}

pub struct Standings {
    trouble: Arc<Mutex<Trouble>>,
    done: Arc<AtomicBool>,
    looking: JoinHandle<Vec<Standing>>,
}

impl Standings {
    /// Times count from `clock` on.
    pub fn watch(clock: Instant) -> Self {
        let (trouble, done) = (Arc::new(Mutex::new(Trouble::default())), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (trouble.clone(), done.clone());
        let looking = std::thread::spawn(move || {
            let mut admins: Vec<Admin> = (0..NODES).map(|node| Admin::of(node, LOOK_MAX)).collect();
            let mut standings: Vec<Standing> = Vec::new();
            while !ended.load(Relaxed) {
                let before = standings.last().map_or(&[][..], |last| &last.views);
                let standing = look(clock, &mut admins, &seen).compared_with(before);
                standings.push(standing);
                std::thread::sleep(LOOK_EVERY);
            }
            standings
        });
        Self { trouble, done, looking }
    }

    pub fn end(self) -> Vec<Standing> {
        self.done.store(true, Relaxed);
        self.looking.join().unwrap()
    }

    /// Nothing that `from` sends will come to `to`.
    pub fn cut(&self, from: Node, to: Node) {
        self.trouble.lock().unwrap().cut[from] |= 1 << to;
    }

    pub fn stop(&self, node: Node) {
        self.trouble.lock().unwrap().stopped |= 1 << node;
    }

    pub fn kill(&self, node: Node) {
        self.trouble.lock().unwrap().away |= 1 << node;
    }

    /// All of it is over.
    pub fn heal(&self) {
        *self.trouble.lock().unwrap() = Trouble::default();
    }
}

/// Asks all at once: what is wrong at the beginning or the end of it counts for all of it.
fn look(clock: Instant, admins: &mut [Admin], trouble: &Mutex<Trouble>) -> Standing {
    let first = *trouble.lock().unwrap();
    let rings: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = admins.iter_mut().map(|admin| scope.spawn(|| admin.ring())).collect();
        asked.into_iter().map(|ring| ring.join().unwrap()).collect()
    });
    let trouble = first.or(*trouble.lock().unwrap());
    let view = |ring: &Option<(String, Vec<String>)>| ring.as_ref().map_or(NO_VIEW, |(view, _)| number_of(view));
    let seen_in = |ring: &Option<(String, Vec<String>)>| {
        let members = ring.as_ref().map_or(&[][..], |(_, members)| members);
        bits((0..NODES).filter(|node| members.contains(&name(*node))))
    };
    let reaches: Vec<u32> = (0..NODES).map(|node| trouble.reached_by(node)).collect();
    let is_whole = reaches.iter().all(|reached| *reached == bits(0..NODES)) && rings.iter().all(Option::is_some);
    Standing {
        at: clock.elapsed(),
        harmony: Vec::new(),
        views: rings.iter().map(view).collect(),
        sees: rings.iter().map(seen_in).collect(),
        reaches,
        away: trouble.away,
        stopped: trouble.stopped,
        is_whole,
        is_source_well: true,
    }
}

fn number_of(view: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    view.hash(&mut hasher);
    hasher.finish().max(NO_VIEW + 1)
}
