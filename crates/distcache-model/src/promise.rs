//! The property: how old an answer may be.
//!
//! Watches the protocol and never steers it. A *floor* is the oldest version that a get beginning now at a node may be answered
//! with. The invariant: a floor never sinks, and every answer is held against the floor of when its get began.

use crate::scenario::Scenario;
use crate::state::{Message, NODES, NodeId, State, Ticks, Version, Write};

/// What is owed to callers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Promise {
    /// By node.
    pub floors: [Version; NODES],
    /// Writes that returned and do not count everywhere yet, the oldest first.
    pub owed: Vec<Owed>,
    /// Views differ, and the former owner was alive when the first node turned from it.
    pub is_parted: bool,
    /// An answer that was too old; nothing happens after it.
    pub broken: Option<Broken>,
}

/// A write that returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owed {
    /// What it wrote.
    pub version: Version,
    /// Where.
    pub owner: NodeId,
    /// For how long a node that it could not reach may answer its copy.
    pub spared: [Ticks; NODES],
    /// Counts from when the nodes agree again.
    pub is_deferred: bool,
}

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Broken {
    /// Whose caller was answered.
    pub node: NodeId,
    /// With what.
    pub answered: Version,
    /// What it had to be at least.
    pub floor: Version,
}

impl Promise {
    /// The oldest answer that a get may have which begins now.
    pub fn floor(&self, node: NodeId) -> Version {
        self.floors[node.index()]
    }

    pub(crate) fn answer(&mut self, node: NodeId, answered: Version, floor: Version) {
        if answered < floor {
            self.broken = Some(Broken { node, answered, floor });
        }
    }

    pub(crate) fn tick(&mut self) {
        for spared in self.owed.iter_mut().flat_map(|owed| &mut owed.spared) {
            *spared = spared.saturating_sub(1);
        }
    }

    /// The log of a crashed owner is lost: what only it knew of is owed to nobody.
    pub(crate) fn forget_log_of(&mut self, owner: NodeId) {
        self.owed.retain(|owed| !(owed.is_deferred && owed.owner == owner));
    }

    /// A write returns; those it told and did not reach are spared while a lease can run that they had before it.
    pub(crate) fn returned(&mut self, write: &Write, unreached: impl Iterator<Item = NodeId>, lease: Ticks) {
        let mut spared = [0; NODES];
        unreached.for_each(|node| spared[node.index()] = lease.saturating_sub(write.waited));
        // A log stands for all that the former owner wrote up to there: who missed it missed all of that. What counted before the
        // nodes parted is put off no further.
        let is_among = |owed: &&mut Owed| {
            let is_logged = write.is_relayed && owed.owner != write.owner && owed.version < write.version;
            owed.is_deferred && (is_logged || owed.version == write.version)
        };
        for owed in self.owed.iter_mut().filter(is_among) {
            owed.spared.iter_mut().zip(spared).for_each(|(before, now)| *before = now.max(*before));
        }
        if self.owed.iter().all(|owed| owed.version != write.version) {
            let is_deferred = self.is_parted;
            self.owed.push(Owed { version: write.version, owner: write.owner, spared, is_deferred });
            self.owed.sort_by_key(|owed| owed.version);
        }
    }

    /// Raises the floors by what is owed by now.
    pub(crate) fn settle(&mut self) {
        for owed in self.owed.iter().filter(|owed| !owed.is_deferred) {
            for (floor, spared) in self.floors.iter_mut().zip(owed.spared) {
                if spared == 0 {
                    *floor = owed.version.max(*floor);
                }
            }
        }
        self.owed.retain(|owed| owed.is_deferred || owed.spared != [0; NODES]);
    }

    pub(crate) fn rejoined(&mut self) {
        self.is_parted = false;
        self.owed.iter_mut().for_each(|owed| owed.is_deferred = false);
    }
}

impl State {
    /// Whether all that live know the same owner, and it has heard of every write that the other one took.
    pub(crate) fn is_agreed(&self) -> bool {
        let mut owners = self.alive().map(|id| self.node(id).owner());
        let first = owners.next();
        owners.all(|owner| Some(owner) == first)
            && !self.travelling.iter().any(|message| matches!(message, Message::Log { .. }))
            && !self.writes.iter().any(|write| write.is_relayed)
    }

    /// Ends a write: its caller, if it still waits, hears Ok.
    pub(crate) fn finish(&mut self, write: &Write, scenario: &Scenario) {
        // Who is not reached before the wait is over counts as cut off; before that it is the owner's to wait.
        let waited = write.waited >= scenario.wait;
        let unreached = NodeId::all().filter(|node| waited && self.is_untold(*node, write.owner, write.version));
        let unreached: Vec<_> = unreached.collect();
        self.promise.returned(write, unreached.into_iter(), scenario.lease);
    }

    pub(crate) fn settle(&mut self) {
        if self.promise.is_parted && self.is_agreed() {
            self.promise.rejoined();
        }
        self.promise.settle();
    }
}
