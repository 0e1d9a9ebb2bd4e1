//! What callers of a cluster saw: every read and write with its times, and the faults meanwhile.
//!
//! Only data, and nothing of how it came about: processes or a simulator may write it. The invariant: all times are of one clock,
//! and the versions of a key grow in the order in which its writes began.

use std::time::Duration;

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

#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub reads: Vec<Read>,
    pub writes: Vec<Write>,
    /// In their order; each with all that is granted after it over before the next begins.
    pub faults: Vec<Fault>,
    pub ended: Moment,
}
