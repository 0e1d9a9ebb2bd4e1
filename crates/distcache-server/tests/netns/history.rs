//! What callers of a cluster saw: every read and write with its times, and the faults meanwhile.
//!
//! Only data, and nothing of how it came about: processes or a simulator may write it. The invariant: all times are of one clock,
//! and the versions of a key grow in the order in which its writes began.

use std::time::Duration;

use distcache::Origin;
use distcache_checker::{Get, Space, Standing};

/// Time from the beginning.
pub type Moment = Duration;

/// A node, by number.
pub type Node = usize;

#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    pub node: Node,
    pub key: u32,
    pub start: Moment,
    pub end: Moment,
    pub outcome: Result<Seen, String>,
}

/// What a read was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub version: u64,
    /// The source was spared.
    pub is_hit: bool,
    /// It came from a copy at a node that does not own the key.
    pub is_copy: bool,
}

impl Seen {
    fn origin(self) -> Origin {
        match (self.is_copy, self.is_hit) {
            (true, _) => Origin::HotCopy,
            (false, true) => Origin::Peer,
            (false, false) => Origin::Loaded,
        }
    }
}

/// The source was changed first, then the cache told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    pub node: Node,
    pub key: u32,
    pub start: Moment,
    pub end: Moment,
    /// What the source has from a moment after `start` on.
    pub version: u64,
    pub kind: Kind,
    pub outcome: Result<(), String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Put,
    Delete,
}

/// A time in which the cluster was in trouble.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fault {
    pub name: String,
    pub begin: Moment,
    /// When it was mended: the network whole again, the process on its feet.
    pub end: Moment,
    /// The nodes that could reach each other, where not all could.
    pub parts: Vec<Vec<Node>>,
    /// One node, and another that did not hear it.
    pub unheard: Option<(Node, Node)>,
    /// The node that answered nobody.
    pub silent: Option<Node>,
    /// Some heard during it that they were missed, from nodes that they could not ask: what they own is dropped then.
    pub drops: bool,
    /// Whether the nodes noticed, where they had to.
    pub is_noticed: bool,
    /// How long after the end all nodes had the same view, with all of them in it.
    pub one_view_after: Option<Duration>,
}

impl Fault {
    /// Whether neither reached the other.
    pub fn parts_from(&self, one: Node, other: Node) -> bool {
        let part = |node: Node| self.parts.iter().position(|part| part.contains(&node));
        part(one) != part(other)
    }
}

#[derive(Clone, Debug, Default)]
pub struct History {
    pub reads: Vec<Read>,
    pub writes: Vec<Write>,
    /// In their order; each with all that is granted after it over before the next begins.
    pub faults: Vec<Fault>,
    pub standings: Vec<Standing>,
    pub ended: Moment,
}

impl History {
    /// The same as the simulation records it.
    pub fn recorded(&self) -> distcache_checker::History {
        // What a key begins with is version 1 here, and 0 there.
        let get = |read: &Read| Get {
            node: read.node,
            space: Space::Exact,
            key: read.key as usize,
            begun: read.start,
            ended: read.end,
            owner: None,
            outcome: read.outcome.clone().map(|seen| (seen.version - 1, seen.origin())),
        };
        let write = |write: &Write| distcache_checker::Write {
            node: write.node,
            space: Space::Exact,
            key: write.key as usize,
            version: write.version - 1,
            is_put: write.kind == Kind::Put,
            begun: write.start,
            ended: write.end,
            owner: None,
            outcome: write.outcome.clone(),
        };
        distcache_checker::History {
            gets: self.reads.iter().map(get).collect(),
            writes: self.writes.iter().map(write).collect(),
            standings: self.standings.clone(),
            faults: self.faults.len() as u64,
            ..distcache_checker::History::default()
        }
    }
}
