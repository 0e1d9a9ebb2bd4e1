//! What happened in a run: every get, every write, and how the nodes stood to each other.
//!
//! Only records. The invariant: times are of the one simulated clock, and each list is in the order of its ends.

use std::time::Duration;

use distcache::Origin;

use crate::truth::Space;

/// The simulated time.
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// A node's callers read a key.
#[derive(Clone, Debug)]
pub struct Get {
    pub node: usize,
    pub space: Space,
    pub key: usize,
    pub begun: Duration,
    pub ended: Duration,
    pub outcome: Result<(u64, Origin), String>,
}

/// A caller raised the version of a key at the source, then told the cache.
#[derive(Clone, Debug)]
pub struct Write {
    pub node: usize,
    pub space: Space,
    pub key: usize,
    pub version: u64,
    pub is_put: bool,
    pub begun: Duration,
    pub ended: Duration,
    pub outcome: Result<(), String>,
}

/// How the nodes stood to each other at one moment.
#[derive(Clone, Debug)]
pub struct Standing {
    pub at: Duration,
    /// Of each node, the nodes it is in harmony with, a bit each: all see the same view, are in it, and reach each other. 0: none.
    pub harmony: Vec<u32>,
    /// A number for each node's view; 0: it is down.
    pub views: Vec<u64>,
    /// Whom each node sees, a bit each, itself included; 0: it is down, or leaves.
    pub sees: Vec<u32>,
    /// Whom each node reaches, and is reached by, as far as the links go; a bit each, itself included.
    pub reaches: Vec<u32>,
    /// Nodes that have crashed or been told to leave, and have not been started again.
    pub away: u32,
    /// All nodes are up, and all links between them whole.
    pub is_whole: bool,
    /// The source answers, and in time.
    pub is_source_well: bool,
}

/// All of a run.
#[derive(Default)]
pub struct History {
    pub gets: Vec<Get>,
    pub writes: Vec<Write>,
    pub standings: Vec<Standing>,
    /// Faults and view changes, in words.
    pub events: Vec<(Duration, String)>,
    pub faults: u64,
    /// Something broke that has no place above.
    pub broken: Vec<String>,
}

impl History {
    pub fn note(&mut self, event: impl Into<String>) {
        self.events.push((now(), event.into()));
    }

    /// A number of all that happened, the same for two runs that went the same way.
    pub fn fingerprint(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        for get in &self.gets {
            (get.node, get.space, get.key, get.begun, get.ended, format!("{:?}", get.outcome)).hash(&mut hasher);
        }
        for write in &self.writes {
            (write.node, write.space, write.key, write.version, write.begun, write.ended).hash(&mut hasher);
        }
        hasher.finish()
    }
}
