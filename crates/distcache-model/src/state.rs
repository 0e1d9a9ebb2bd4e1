//! What there is at one moment: a source, three nodes, what is on its way between them, and what is promised.
//!
//! Knows no step. Time stands here as what is left or as age, never as a clock reading, and saturates: so two moments from which
//! the same can follow are the same state, and the space is finite though time goes on. The invariant: one state has one form;
//! lists are sorted, and what has run out is gone.

use crate::promise::Promise;

/// Nodes of every scenario: the first owner `x`, and two more.
pub const NODES: usize = 3;

/// Steps of the clock.
pub type Ticks = u8;

/// One of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u8);

impl NodeId {
    /// The owner in the first view.
    pub const X: Self = Self(0);
    /// The owner in the second view, in scenarios that have one.
    pub const Y: Self = Self(1);

    /// All nodes.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..NODES as u8).map(Self)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A state of the source: 0 at first, one more with every write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u8);

/// Some of the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeSet(u8);

impl NodeSet {
    /// Whether the node is one of them.
    pub fn contains(self, node: NodeId) -> bool {
        self.0 >> node.0 & 1 == 1
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn remove(&mut self, node: NodeId) {
        self.0 &= !(1 << node.0);
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = NodeId> {
        NodeId::all().filter(move |node| self.contains(*node))
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        Self(nodes.into_iter().fold(0, |set, node| set | 1 << node.0))
    }
}

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// What is asked when nobody has the value.
    pub source: Source,
    /// By their ids.
    pub nodes: [Node; NODES],
    /// What has been sent and not received, sorted; each of it may come next, or never.
    pub travelling: Vec<Message>,
    /// Writes that have not returned yet, sorted.
    pub writes: Vec<Write>,
    /// What the writes that returned promise.
    pub promise: Promise,
}

/// The truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source {
    /// What a load reads now.
    pub version: Version,
    /// The writer has changed the source, and its put or delete has not come to an owner yet.
    pub is_ahead: bool,
}

/// A node: owner, reader, or one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// It has crashed and forgotten everything.
    pub is_dead: bool,
    /// Whether it has learned that the slot belongs to `y` now.
    pub sees_y: bool,
    /// As the owner: for so long leases of an earlier owner may still run.
    pub young: Ticks,
    /// As the owner: the value.
    pub entry: Option<Entry>,
    /// As the owner: loads under way, the oldest first.
    pub loads: Vec<Load>,
    /// As the owner: questions that have arrived and are not answered yet, sorted.
    pub questions: Vec<Question>,
    /// As the owner: who may hold a copy.
    pub holders: [Holder; NODES],
    /// As the owner: how long ago the latest write was, and of what.
    pub log: Option<(Version, Ticks)>,
    /// As the owner: the key was written since it became that.
    pub is_written: bool,
    /// As a reader: the hot copy.
    pub copy: Option<Copy>,
    /// As a reader: the questions it has sent and not seen answered.
    pub fetches: [Option<Fetch>; 2],
}

/// What an owner has stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// What it says.
    pub version: Version,
    /// How long ago its load, or its put, began.
    pub age: Ticks,
    /// It came from the former owner.
    pub is_handed_over: bool,
}

/// An owner's question to the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Load {
    /// What the source said, once it has.
    pub read: Option<Version>,
    /// How long ago it began.
    pub age: Ticks,
    /// A write came in between: what it brings is not to be kept.
    pub is_fenced: bool,
    /// Later gets do not join it.
    pub is_detached: bool,
    /// What the owner's own callers have to get at least.
    pub floor: Version,
    /// The fetches that wait for it, sorted.
    pub askers: Vec<Asker>,
}

/// A fetch as the owner knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asker {
    /// Who asked.
    pub node: NodeId,
    /// Which of its fetches.
    pub fetch: u8,
}

/// A fetch that has come to the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// Whose.
    pub asker: Asker,
    /// What was found before the asker was registered, where that is the order.
    pub found: Option<Version>,
}

/// A node in the owner's books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holder {
    /// What is left of its lease; none: it holds nothing.
    pub left: Ticks,
    /// The latest write that it was told of since it asked.
    pub told: Option<Version>,
}

/// A reader's hot copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Copy {
    /// What it says.
    pub version: Version,
    /// What is left of its lease.
    pub left: Ticks,
}

/// A reader's question to the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// What would be left of a lease that began when it was sent.
    pub left: Ticks,
    /// An invalidation came in between: it answers its callers, and no more.
    pub is_detached: bool,
    /// What its callers have to get at least.
    pub floor: Version,
}

/// What nodes send each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// A reader asks the owner.
    Get {
        /// Whose question.
        asker: Asker,
        /// Whom it takes for the owner.
        to: NodeId,
    },
    /// The owner's answer.
    Reply {
        /// Whose question.
        asker: Asker,
        /// The value.
        version: Version,
        /// Whether it may be kept.
        is_leased: bool,
    },
    /// The key was written.
    Invalidate {
        /// The owner.
        from: NodeId,
        /// A holder.
        to: NodeId,
        /// By which write.
        version: Version,
    },
    /// The copy is gone.
    Ack {
        /// The holder.
        from: NodeId,
        /// The owner.
        to: NodeId,
        /// Which write.
        version: Version,
    },
    /// The former owner's writes: the latest stands for all.
    Log {
        /// The new owner.
        to: NodeId,
        /// What was written.
        version: Version,
        /// How long before the sending.
        age: Ticks,
    },
    /// The former owner's entry.
    HandOver {
        /// The new owner.
        to: NodeId,
        /// What it says.
        version: Version,
        /// How old it was at the sending.
        age: Ticks,
    },
}

impl Message {
    /// Who receives it.
    pub fn to(&self) -> NodeId {
        match *self {
            Self::Reply { asker, .. } => asker.node,
            Self::Get { to, .. }
            | Self::Invalidate { to, .. }
            | Self::Ack { to, .. }
            | Self::Log { to, .. }
            | Self::HandOver { to, .. } => to,
        }
    }
}

/// A write that has changed its owner and waits for the word of those it told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Write {
    /// Where.
    pub owner: NodeId,
    /// What.
    pub version: Version,
    /// Out of the log of the former owner, which has let its caller go already.
    pub is_relayed: bool,
    /// Who has not answered.
    pub unconfirmed: NodeSet,
    /// For how long it has waited.
    pub waited: Ticks,
}

impl State {
    /// Nothing cached, nothing on its way; all agree that `x` is the owner. Of the nodes only the first few are there.
    pub fn first(nodes: u8) -> Self {
        let node = |id| Node { is_dead: id >= nodes, ..Node::default() };
        Self {
            source: Source::default(),
            nodes: [node(0), node(1), node(2)],
            travelling: Vec::new(),
            writes: Vec::new(),
            promise: Promise::default(),
        }
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// Whether the node takes itself for the owner.
    pub fn owns(&self, id: NodeId) -> bool {
        !self.node(id).is_dead && self.node(id).owner() == id
    }

    /// Those that have not crashed.
    pub fn alive(&self) -> impl Iterator<Item = NodeId> {
        NodeId::all().filter(|id| !self.node(*id).is_dead)
    }

    pub(crate) fn send(&mut self, message: Message) {
        if self.node(message.to()).is_dead {
            return;
        }
        let place = self.travelling.partition_point(|other| *other < message);
        self.travelling.insert(place, message);
    }

    /// Whether the node has not received yet what this write sent it.
    pub fn is_untold(&self, node: NodeId, owner: NodeId, version: Version) -> bool {
        self.travelling.binary_search(&Message::Invalidate { from: owner, to: node, version }).is_ok()
    }
}

impl Node {
    /// Whom it takes for the owner.
    pub fn owner(&self) -> NodeId {
        if self.sees_y { NodeId::Y } else { NodeId::X }
    }
}
