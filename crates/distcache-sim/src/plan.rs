//! What will befall a cluster, decided by a seed before it starts.
//!
//! Pure: knows no network and no nodes but by number. The invariant: the same seed, length and number of nodes give the same plan,
//! and between two troubles there is mostly time for the cluster to come to rest, so that something can be demanded of it.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use distcache_checker::LOAD_MAX;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// One kind of trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// These nodes and the others hear nothing of each other.
    Cut { side: Vec<usize> },
    /// What these send does not reach those.
    OneWay { from: Vec<usize>, to: Vec<usize> },
    /// The node's process dies, and is started again at the end.
    Crash { node: usize },
    /// The node is shut down in good order, and is started again at the end.
    Leave { node: usize },
    /// The node's network stands still; at the end all arrives.
    Hang { node: usize },
    /// What these two send each other takes longer and longer, up to this.
    Slow { a: usize, b: usize, latency: Duration },
    /// Every answer of the source takes long.
    SourceSlow,
    /// Many answers of the source are errors.
    SourceFails,
}

/// One kind of trouble and no other, for what only a cluster shows that is otherwise well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Only {
    /// Links that become slow.
    SlowLinks,
    /// Cuts in one direction: of pairs, of one node from or to all others, of a side from the other; and now and then a node that
    /// is started anew meanwhile.
    OneWay,
}

impl Only {
    /// As the command line has it.
    pub fn to_argument(self) -> String {
        let value = self.to_possible_value();
        format!("--only={}", value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// A fault, when it begins and how long it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub at: Duration,
    pub lasts: Duration,
    pub fault: Fault,
}

/// All that happens in one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub troubles: Vec<Trouble>,
    /// What each node's clock shows of a million ticks.
    pub rates_ppm: Vec<u64>,
    /// How long a peer may be silent: the default, or so long that answers may be late.
    pub hop_budget: Duration,
    /// How long a load may take: well below a lease, or longer than one.
    pub load_max: Duration,
    pub lease: Duration,
    /// An owner has little room for the nodes that hold what.
    pub is_crowded: bool,
    /// Values expire soon, are answered for a while after, and renewed ahead.
    pub renews: bool,
    /// Callers also ask for many keys at once, write by the calls for many, and refresh; and those of a node that is shut down do
    /// not go elsewhere before.
    pub is_varied: bool,
}

/// Runs of this length or more see a cut that lasts longer than membership remembers the dead.
const LONG_RUN: Duration = Duration::from_secs(8 * 60);
const LONG_CUT_AT: Duration = Duration::from_secs(60);
/// When two nodes of such a run lose each other, and all others see both of them.
const PAIR_CUT_AT: Duration = Duration::from_secs(270);
/// The default, twice; shorter than an answer may be under way; longer than a cut takes to heal.
const LEASES: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(5), Duration::from_millis(500), Duration::from_secs(20)];
const LONG_LOAD_MAX: Duration = Duration::from_secs(8);

const HOP_BUDGETS_MS: [u64; 2] = [250, 750];

/// A cluster has started and is warm.
const FIRST_AT: Duration = Duration::from_secs(8);
/// Clocks are fast or slow by up to a hundredth.
const RATE_PPM: u64 = 1_000_000;
const RATE_OFF_PPM: u64 = 10_000;

/// How slow links become where nothing else befalls a cluster: up to nearly as slow as a peer may be silent.
const SLOW_MS: std::ops::Range<u64> = 150..370;

impl Plan {
    /// Nothing but one kind of trouble.
    pub fn of_only(only: Only, seed: u64, nodes: usize, length: Duration) -> Self {
        match only {
            Only::SlowLinks => Self::of_slow_links(seed, nodes, length),
            Only::OneWay => Self::of_one_way_cuts(seed, nodes, length),
        }
    }

    fn of_one_way_cuts(seed: u64, nodes: usize, length: Duration) -> Self {
        let mut dice = Dice { rng: SmallRng::seed_from_u64(seed ^ 0x00DD_BA11), nodes };
        let mut plan = Self::of(seed, nodes, FIRST_AT);
        let mut at = FIRST_AT;
        loop {
            let lasts = dice.between(1_000, 30_000);
            if at + lasts + Duration::from_secs(15) > length {
                return plan;
            }
            plan.troubles.push(Trouble { at, lasts, fault: dice.one_way_cut() });
            if dice.rng.random_range(0..4) == 0 {
                let (at, lasts) = (at + lasts.mul_f64(dice.rng.random_range(0.0..0.5)), lasts.mul_f64(0.4));
                plan.troubles.push(Trouble { at, lasts, fault: Fault::Crash { node: dice.node() } });
            }
            at += lasts + dice.between(3_000, 18_000);
        }
    }

    fn of_slow_links(seed: u64, nodes: usize, length: Duration) -> Self {
        let mut dice = Dice { rng: SmallRng::seed_from_u64(seed ^ 0x00DD_BA11), nodes };
        // The rest is as in a run that is too short for any trouble.
        let mut plan = Self { hop_budget: Duration::from_millis(HOP_BUDGETS_MS[1]), ..Self::of(seed, nodes, FIRST_AT) };
        let mut at = FIRST_AT;
        while at + Duration::from_secs(25) < length {
            let ((a, b), latency) = (dice.pair(), dice.between(SLOW_MS.start, SLOW_MS.end));
            let lasts = dice.between(5_000, 10_000);
            plan.troubles.push(Trouble { at, lasts, fault: Fault::Slow { a, b, latency } });
            at += dice.between(500, 4_000);
        }
        plan
    }

    pub fn of(seed: u64, nodes: usize, length: Duration) -> Self {
        let mut dice = Dice { rng: SmallRng::seed_from_u64(seed ^ 0x00DD_BA11), nodes };
        let mut troubles = Vec::new();
        let mut at = FIRST_AT;
        loop {
            let trouble = dice.trouble(at);
            let end = trouble.at + trouble.lasts;
            if end + Duration::from_secs(15) > length {
                break;
            }
            troubles.push(trouble);
            // Now and then one trouble comes within another.
            at = match dice.rng.random_range(0..5) {
                0 => at + dice.between(500, 4_000),
                _ => end + dice.between(3_000, 18_000),
            };
        }
        let rates_ppm = (0..nodes).map(|_| dice.rng.random_range(RATE_PPM - RATE_OFF_PPM..=RATE_PPM + RATE_OFF_PPM));
        let rates_ppm = rates_ppm.collect();
        let hop_budget = Duration::from_millis(HOP_BUDGETS_MS[dice.rng.random_range(0..HOP_BUDGETS_MS.len())]);
        let (mut load_max, mut renews, mut is_crowded, mut lease) = (LOAD_MAX, false, false, LEASES[0]);
        if length >= LONG_RUN {
            troubles.push(Trouble { at: LONG_CUT_AT, lasts: dice.between(65_000, 130_000), fault: dice.cut() });
            troubles.extend(dice.pair_cut(PAIR_CUT_AT));
            load_max = [LOAD_MAX, LONG_LOAD_MAX][dice.rng.random_range(0..2)];
            renews = dice.rng.random_range(0..3) == 0;
            is_crowded = dice.rng.random_range(0..4) == 0;
            lease = LEASES[dice.rng.random_range(0..LEASES.len())];
        }
        let is_varied = length >= LONG_RUN;
        Self { rates_ppm, hop_budget, load_max, lease, is_crowded, renews, is_varied, troubles }
    }
}

struct Dice {
    rng: SmallRng,
    nodes: usize,
}

impl Dice {
    fn between(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(from_ms..to_ms))
    }

    fn node(&mut self) -> usize {
        self.rng.random_range(0..self.nodes)
    }

    fn pair(&mut self) -> (usize, usize) {
        let a = self.node();
        (a, (a + self.rng.random_range(1..self.nodes)) % self.nodes)
    }

    fn trouble(&mut self, at: Duration) -> Trouble {
        let (fault, lasts) = match self.rng.random_range(0..20) {
            0..4 => (self.cut(), self.between(2_000, 20_000)),
            4..6 => (Fault::Cut { side: vec![self.node()] }, self.between(1_000, 15_000)),
            6..9 => {
                let (from, to) = self.pair();
                (Fault::OneWay { from: vec![from], to: vec![to] }, self.between(1_000, 12_000))
            }
            9..12 => (Fault::Crash { node: self.node() }, self.between(100, 12_000)),
            12..14 => (Fault::Leave { node: self.node() }, self.between(6_000, 12_000)),
            14..16 => (Fault::Hang { node: self.node() }, self.between(300, 9_000)),
            16..18 => {
                let ((a, b), latency) = (self.pair(), self.between(10, 400));
                (Fault::Slow { a, b, latency }, self.between(2_000, 10_000))
            }
            18 => (Fault::SourceSlow, self.between(3_000, 12_000)),
            _ => (Fault::SourceFails, self.between(1_000, 6_000)),
        };
        Trouble { at, lasts, fault }
    }

    /// Two nodes lose each other; one of them may be started anew meanwhile.
    fn pair_cut(&mut self, at: Duration) -> Vec<Trouble> {
        let ((a, b), lasts) = (self.pair(), self.between(5_000, 90_000));
        let one_way = |from, to| Trouble { at, lasts, fault: Fault::OneWay { from: vec![from], to: vec![to] } };
        let mut troubles = vec![one_way(a, b), one_way(b, a)];
        if self.rng.random_range(0..2) == 0 {
            let (at, lasts) = (at + self.between(1_000, 20_000), self.between(100, 6_000));
            troubles.push(Trouble { at, lasts, fault: Fault::Crash { node: a } });
        }
        troubles
    }

    /// A pair; or some nodes, and what they send to all others or what all others send them.
    fn one_way_cut(&mut self) -> Fault {
        if self.rng.random_range(0..4) == 0 {
            let (from, to) = self.pair();
            return Fault::OneWay { from: vec![from], to: vec![to] };
        }
        let side = self.side();
        let others = (0..self.nodes).filter(|node| !side.contains(node)).collect();
        let (from, to) = if self.rng.random() { (side, others) } else { (others, side) };
        Fault::OneWay { from, to }
    }

    fn cut(&mut self) -> Fault {
        Fault::Cut { side: self.side() }
    }

    /// The nodes of a minority, or of a half.
    fn side(&mut self) -> Vec<usize> {
        let size = self.rng.random_range(1..=self.nodes / 2);
        let mut side = Vec::new();
        while side.len() < size {
            let node = self.node();
            if !side.contains(&node) {
                side.push(node);
            }
        }
        side.sort_unstable();
        side
    }
}

/// What there is besides the troubles, which are told in their time.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let off = |rate: &u64| (*rate as f64 - RATE_PPM as f64) / 10_000.0;
        let rates: Vec<_> = self.rates_ppm.iter().map(|rate| format!("{:+.2} %", off(rate))).collect();
        write!(f, "{} troubles; the nodes' clocks are off by {}; ", self.troubles.len(), rates.join(", "))?;
        write!(f, "a peer may be silent for {:?}; a load may take {:?}", self.hop_budget, self.load_max)?;
        write!(f, "; leases of {:?}{}", self.lease, if self.is_crowded { ", and little room for them" } else { "" })?;
        write!(f, "; {}", if self.renews { "values expire and are renewed" } else { "values do not expire" })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { side } => write!(f, "nodes {side:?} are cut off from the others"),
            Self::OneWay { from, to } => write!(f, "nothing of nodes {from:?} reaches nodes {to:?}"),
            Self::Crash { node } => write!(f, "node {node} crashes"),
            Self::Leave { node } => write!(f, "node {node} is shut down"),
            Self::Hang { node } => write!(f, "node {node}'s network stands still"),
            Self::Slow { a, b, latency } => write!(f, "between nodes {a} and {b} everything takes up to {latency:?}"),
            Self::SourceSlow => write!(f, "the source is slow"),
            Self::SourceFails => write!(f, "the source fails"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(300);

    #[test]
    fn slow_links_are_the_only_trouble_where_nothing_else_is_wanted() {
        let plan = Plan::of_only(Only::SlowLinks, 7, 5, LENGTH);
        assert!(plan.troubles.len() > 20);
        assert!(plan.troubles.iter().all(|trouble| matches!(trouble.fault, Fault::Slow { .. })));
    }

    #[test]
    fn one_way_cuts_are_of_pairs_and_of_sides_in_either_direction() {
        let plans = (0..20).map(|seed| Plan::of_only(Only::OneWay, seed, 5, LENGTH));
        let troubles: Vec<_> = plans.flat_map(|plan| plan.troubles).collect();
        let are_some = |from: usize, to: usize| {
            let is_such =
                |fault: &Fault| matches!(fault, Fault::OneWay { from: f, to: t } if (f.len(), t.len()) == (from, to));
            troubles.iter().any(|trouble| is_such(&trouble.fault))
        };
        assert!([(1, 1), (1, 4), (4, 1), (2, 3), (3, 2)].into_iter().all(|(from, to)| are_some(from, to)));
        assert!(troubles.iter().all(|trouble| trouble.at + trouble.lasts + Duration::from_secs(15) <= LENGTH));
    }

    #[test]
    fn a_seed_has_one_plan_and_other_seeds_have_others() {
        assert_eq!(Plan::of(7, 5, LENGTH), Plan::of(7, 5, LENGTH));
        assert_ne!(Plan::of(7, 5, LENGTH), Plan::of(8, 5, LENGTH));
    }

    #[test]
    fn a_long_run_sees_one_long_cut_and_else_what_a_shorter_one_does() {
        let (plan, long) = (Plan::of(7, 5, LENGTH), Plan::of(7, 5, LONG_RUN));
        assert_eq!(plan.troubles[..5], long.troubles[..5]);
        let is_long = |trouble: &&Trouble| trouble.lasts > Duration::from_secs(60);
        assert_eq!(plan.troubles.iter().filter(is_long).count(), 0);
        assert!(matches!(long.troubles.iter().find(is_long), Some(Trouble { fault: Fault::Cut { .. }, .. })));
    }

    #[test]
    fn every_plan_has_troubles_that_end_before_the_run_does() {
        for seed in 0..1_000 {
            let plan = Plan::of(seed, 5, LENGTH);
            assert!(plan.troubles.len() >= 5, "seed {seed}");
            for trouble in plan.troubles {
                assert!(trouble.at + trouble.lasts + Duration::from_secs(15) <= LENGTH);
            }
        }
    }
}
