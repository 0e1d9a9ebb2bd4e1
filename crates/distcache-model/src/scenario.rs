//! How much there is of everything: the bounds within which a search is exhaustive.
//!
//! Knows no step. The invariant: a scenario says everything that a search depends on.

use crate::rule::Rule;
use crate::sights::{self, Sight};
use crate::state::{NODES, NodeId, Ticks};

/// The bounds of one search.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// How the nodes are called in a story.
    pub names: [&'static str; NODES],
    /// How many of the nodes there are.
    pub nodes: u8,
    /// Which nodes have callers that ask.
    pub callers: [bool; NODES],
    /// Questions that a reader has under way at most: one to join, the others detached; two at most.
    pub fetches: usize,
    /// Loads that an owner has under way at most.
    pub loads: usize,
    /// Writes, one begun after the other has changed its owner.
    pub writes: u8,
    /// How long a lease is.
    pub lease: Ticks,
    /// How long a write waits for those it told.
    pub wait: Ticks,
    /// Where ages stop: what is as old as that or older is told apart no more, and dropped in doubt.
    pub age_max: Ticks,
    /// How the slot changes hands.
    pub takeover: Takeover,
    /// Whether `x` may crash.
    pub crashes: bool,
    /// Whether the former owner offers its entry to the new one.
    pub hands_over: bool,
    /// The rule that is left out.
    pub without: Option<Rule>,
    /// What has to come to pass, or the search shows nothing.
    pub sights: &'static [Sight],
}

/// How the slot changes hands, from `x` to `y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// It does not.
    Never,
    /// `x` crashes; the others learn of it at some time after.
    AfterCrash,
    /// Each node learns at a time of its own that `y` owns the slot: a join, a leave, a partition that heals.
    WhileAlive,
}

impl Scenario {
    /// One owner, two readers, one write.
    pub const TWO_READERS: Self = Self {
        names: ["x", "n", "m"],
        nodes: 3,
        callers: [false, true, true],
        fetches: 1,
        loads: 1,
        writes: 1,
        lease: 2,
        wait: 1,
        age_max: 0,
        takeover: Takeover::Never,
        crashes: false,
        hands_over: false,
        without: None,
        sights: &[sights::HOT_HIT, sights::FENCED_LOAD, sights::CUT_OFF_TO_THE_LAST],
    };

    /// One owner with callers of its own, one reader, two writes: what the first leaves behind meets the second.
    pub const TWO_WRITES: Self = Self {
        nodes: 2,
        callers: [true, true, false],
        loads: 2,
        writes: 2,
        sights: &[sights::HOT_HIT, sights::FENCED_LOAD, sights::TWO_WRITES_WAIT, sights::ASKED_BEFORE_ACK],
        ..Self::TWO_READERS
    };

    /// One owner, one reader with a new fetch while an old one is under way, two writes.
    pub const OVERLAPPING_FETCHES: Self = Self {
        callers: [false, true, false],
        fetches: 2,
        sights: &[sights::CUT_OFF_TO_THE_LAST, sights::TWO_FETCHES],
        ..Self::TWO_WRITES
    };

    /// The owner crashes, and a reader takes over before or after the other reader knows.
    pub const CRASH: Self = Self {
        names: ["x", "y", "n"],
        takeover: Takeover::AfterCrash,
        crashes: true,
        sights: &[sights::ANSWER_OF_THE_DEAD, sights::TOLD_BEYOND_THE_BOOKS],
        ..Self::TWO_READERS
    };

    /// Two nodes take themselves for the owner and take writes, and a third reads from the one or the other.
    pub const PARTED: Self = Self {
        callers: [false, false, true],
        age_max: 2,
        takeover: Takeover::WhileAlive,
        crashes: false,
        sights: &[sights::TWO_OWNERS, sights::LOG_MEETS_OLDER, sights::LOG_MEETS_YOUNGER, sights::LOG_IS_TOLD_ON],
        ..Self::CRASH
    };

    /// The former owner offers its entry to the new one, which has callers before and after.
    pub const HAND_OVER: Self = Self {
        nodes: 2,
        callers: [false, true, false],
        hands_over: true,
        sights: &[sights::HANDED_OVER, sights::HAND_OVER_MEETS_WRITE],
        ..Self::PARTED
    };

    /// All of it: two owners, an entry handed over, a crash in between, and a third node that reads.
    pub const EVERYTHING: Self = Self {
        crashes: true,
        hands_over: true,
        sights: &[sights::TWO_OWNERS, sights::HANDED_OVER, sights::LOG_IS_TOLD_ON, sights::LOG_OF_THE_DEAD],
        ..Self::PARTED
    };

    /// The same without one of the rules.
    pub fn without(self, rule: Rule) -> Self {
        Self { without: Some(rule), ..self }
    }

    /// Whether a rule holds here.
    pub fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// The name of a node.
    pub fn name(&self, node: NodeId) -> &'static str {
        self.names[node.index()]
    }
}
