//! What happened in a run: every get, every write, and how the nodes stood to each other.
//!
//! Only records, simulated or of real processes. The invariant: times are of one clock, and the standings are in their order.

use std::fmt;
use std::time::Duration;

use distcache::Origin;

/// How far the replicas of a lagging source are behind.
pub const LAG: Duration = Duration::from_millis(300);
/// The longest that one load of a lagging source takes.
pub const LOAD_MAX: Duration = Duration::from_secs(2);

/// What kind of source a key is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Answers what is true when it reads.
    Exact,
    /// Answers what was true [`LAG`] ago; its keys are deleted with a hold.
    Lagging,
}

impl Space {
    pub const ALL: [Self; 2] = [Self::Exact, Self::Lagging];

    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Lagging => "lagging",
        }
    }
}

/// A node's callers read a key.
#[derive(Clone, Debug)]
pub struct Get {
    pub node: usize,
    pub space: Space,
    pub key: usize,
    pub begun: Duration,
    pub ended: Duration,
    /// The key's owner as the node saw it at the end, where that is known.
    pub owner: Option<usize>,
    pub outcome: Result<(u64, Origin), String>,
}

impl fmt::Display for Get {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (begun, space) = (self.begun.as_secs_f64(), self.space.name());
        write!(f, "{begun:.3} s: get at node {} of {space} key {}: ", self.node, self.key)?;
        match &self.outcome {
            Ok((version, origin)) => write!(f, "version {version}, {}", words(*origin)),
            Err(error) => write!(f, "{error}"),
        }
    }
}

/// Where a value came from.
fn words(origin: Origin) -> &'static str {
    match origin {
        Origin::Owned => "owned",
        Origin::HotCopy => "a hot copy",
        Origin::Peer => "the owner's",
        Origin::Loaded => "loaded",
        Origin::Fallback => "loaded in place of the owner",
        _ => "from elsewhere",
    }
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
    /// The key's owner as the node saw it at the beginning, where that is known.
    pub owner: Option<usize>,
    pub outcome: Result<(), String>,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.is_put { "put" } else { "delete" };
        let (begun, ended, space) = (self.begun.as_secs_f64(), self.ended.as_secs_f64(), self.space.name());
        write!(f, "{verb} at node {} of {space} key {}, {begun:.3} to {ended:.3} s, ", self.node, self.key)?;
        match &self.outcome {
            Ok(()) => write!(f, "version {}", self.version),
            Err(error) => write!(f, "version {}: {error}", self.version),
        }
    }
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
    /// Nodes whose process stands still: what is sent to them takes effect when they go on.
    pub stopped: u32,
    /// All nodes are up, and all links between them whole.
    pub is_whole: bool,
    /// The source answers, and in time.
    pub is_source_well: bool,
}

impl Standing {
    /// Fills in who is in harmony; `before`: the views of the look before, since only what stays counts.
    pub fn compared_with(mut self, before: &[u64]) -> Self {
        self.harmony = (0..self.views.len()).map(|node| self.harmony_of(node, before)).collect();
        self
    }

    /// Nodes that are up, a bit each.
    pub(crate) fn up(&self) -> u32 {
        bits((0..self.sees.len()).filter(|node| self.sees[*node] != 0))
    }

    fn harmony_of(&self, node: usize, before: &[u64]) -> u32 {
        let seen = self.sees[node];
        let is_in_tune = |member: usize| {
            let (view, was) = (self.views[member], before.get(member));
            view == self.views[node] && was == Some(&view) && self.reaches[member] & seen == seen
        };
        let is_in_harmony = seen & 1 << node != 0 && nodes_of(seen).all(is_in_tune);
        if is_in_harmony { seen } else { 0 }
    }
}

/// A bit for each of these nodes.
pub fn bits(nodes: impl IntoIterator<Item = usize>) -> u32 {
    nodes.into_iter().fold(0, |bits, node| bits | 1 << node)
}

/// The nodes whose bits are set.
pub(crate) fn nodes_of(bits: u32) -> impl Iterator<Item = usize> {
    (0..u32::BITS as usize).filter(move |node| bits & 1 << node != 0)
}

/// All of a run.
pub struct History {
    /// How long a hot copy lasts.
    pub lease: Duration,
    pub gets: Vec<Get>,
    pub writes: Vec<Write>,
    pub standings: Vec<Standing>,
    /// Faults and view changes, in words.
    pub events: Vec<(Duration, String)>,
    pub faults: u64,
    /// Something broke that has no place above.
    pub broken: Vec<String>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(5),
            gets: Vec::new(),
            writes: Vec::new(),
            standings: Vec::new(),
            events: Vec::new(),
            faults: 0,
            broken: Vec::new(),
        }
    }
}

impl History {
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
