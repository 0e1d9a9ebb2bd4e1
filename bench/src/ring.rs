//! The slot table: how evenly it spreads keys, how much it moves when a node comes or goes, how long it takes.
//!
//! Beside it the classic ring (Karger et al., "Consistent hashing and random trees", 1997) with one and with several points
//! a node, which is what groupcache and its kin place keys with. Both use the same hash.

use std::collections::HashMap;
use std::time::Instant;

use distcache::bench_support::{Member, NodeId, Ring};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::Settings;
use crate::error::BenchError;
use crate::report::{Bound, Table, Target};
use crate::stats::{median, worst};
use crate::workload::SplitMix;

const NODES: [usize; 9] = [3, 5, 10, 20, 50, 100, 200, 500, 1_000];

/// Evenly spaced points of the hash space by which shares and movement are counted: the slots, for a slot table.
const POINTS: u64 = 1 << 16;

/// A way to place keys on nodes.
trait Placement {
    fn new(nodes: &[u64]) -> Self;
    fn owner(&self, hash: u64) -> u64;
    /// Another set of nodes, derived from this one.
    fn changed(&self, nodes: &[u64]) -> Self;
}

struct Slots(Ring);

impl Placement for Slots {
    fn new(nodes: &[u64]) -> Self {
        Self(Ring::new(members(nodes)))
    }

    fn owner(&self, hash: u64) -> u64 {
        self.0.owner(hash).map_or(0, |id| id.0)
    }

    fn changed(&self, nodes: &[u64]) -> Self {
        Self(self.0.next(members(nodes)))
    }
}

fn members(nodes: &[u64]) -> impl Iterator<Item = Member> {
    nodes.iter().map(|&node| Member { id: NodeId(node), weight: 100 })
}

/// Points on a circle; the owner of the next point owns the key.
struct Classic<const POINTS_A_NODE: u64>(Vec<(u64, u64)>);

impl<const POINTS_A_NODE: u64> Placement for Classic<POINTS_A_NODE> {
    fn new(nodes: &[u64]) -> Self {
        let points_of =
            |&node: &u64| (0..POINTS_A_NODE).map(move |n| (xxh3_64_with_seed(&node.to_le_bytes(), n), node));
        let mut points: Vec<_> = nodes.iter().flat_map(points_of).collect();
        points.sort_unstable();
        Self(points)
    }

    fn owner(&self, hash: u64) -> u64 {
        let next = self.0.partition_point(|&(point, _)| point < hash);
        self.0.get(next).unwrap_or(&self.0[0]).1
    }

    fn changed(&self, nodes: &[u64]) -> Self {
        Self::new(nodes)
    }
}

/// Hashes of the keys, in ascending order: counting owners then is a walk.
struct Keys {
    random: Vec<u64>,
    sequential: Vec<u64>,
}

impl Keys {
    fn new(count: usize) -> Self {
        let mut generator = SplitMix(0);
        let sorted = |mut hashes: Vec<u64>| {
            hashes.sort_unstable();
            hashes
        };
        Self {
            random: sorted((0..count).map(|_| xxh3_64(format!("{:016x}", generator.next()).as_bytes())).collect()),
            sequential: sorted((0..count).map(|n| xxh3_64(format!("user:{n}").as_bytes())).collect()),
        }
    }
}

/// What one seed showed.
struct Trial {
    /// The busiest node's share, in fair shares.
    points: f64,
    random: f64,
    sequential: f64,
    /// Points that changed hands, in those that had to.
    join: f64,
    leave: f64,
    join_micros: f64,
    new_micros: f64,
}

pub fn run(settings: Settings) -> Result<Vec<Target>, BenchError> {
    let keys = Keys::new(settings.pick(1_000_000, 20_000));
    let seeds = settings.pick(20, 2);
    let sizes = &NODES[..settings.pick(NODES.len(), 4)];
    let mut targets = Vec::new();
    let ours = compare::<Slots>("distcache: 65,536 slots", sizes, seeds, &keys, settings);
    targets.extend(targets_of(sizes, &ours));
    compare::<Classic<1>>("Classic ring, 1 point a node", sizes, seeds, &keys, settings);
    compare::<Classic<50>>("Classic ring, 50 points a node", sizes, seeds, &keys, settings);
    compare::<Classic<160>>("Classic ring, 160 points a node", sizes, seeds, &keys, settings);
    Ok(targets)
}

fn compare<P: Placement>(name: &str, sizes: &[usize], seeds: u64, keys: &Keys, settings: Settings) -> Vec<Vec<Trial>> {
    let mut table = Table::new(
        format!("{name}: median (worst) of {seeds} seeds"),
        &[
            "nodes",
            "busiest, slots",
            "busiest, random keys",
            "busiest, sequential",
            "moved on a join",
            "moved on a leave",
            "join µs",
            "new µs",
        ],
    );
    let mut results = Vec::new();
    for &nodes in sizes {
        let trials: Vec<Trial> = (0..seeds).map(|seed| trial::<P>(nodes, seed, keys)).collect();
        table.row(row(nodes, &trials));
        results.push(trials);
    }
    table.print(settings.style());
    results
}

fn trial<P: Placement>(nodes: usize, seed: u64, keys: &Keys) -> Trial {
    let mut generator = SplitMix(seed ^ (nodes as u64) << 32);
    let more: Vec<u64> = (0..=nodes).map(|_| generator.next()).collect();
    let (newcomer, before) = (more[nodes], &more[..nodes]);
    let (leaver, after_leave) = (more[0], &more[1..nodes]);
    let (ring, new_micros) = timed(|| P::new(before));
    let (joined, join_micros) = timed(|| ring.changed(&more));
    let left = ring.changed(after_leave);
    let owners = |ring: &P| -> Vec<u64> { (0..POINTS).map(|point| ring.owner(point << 48)).collect() };
    let (owners, owners_joined, owners_left) = (owners(&ring), owners(&joined), owners(&left));
    Trial {
        points: busiest(&owners, nodes),
        random: busiest_of_keys(&ring, &keys.random, nodes),
        sequential: busiest_of_keys(&ring, &keys.sequential, nodes),
        join: moved(&owners, &owners_joined) / had_to_move(&owners_joined, newcomer),
        leave: moved(&owners, &owners_left) / had_to_move(&owners, leaver),
        join_micros,
        new_micros,
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let started = Instant::now();
    let result = work();
    (result, started.elapsed().as_nanos() as f64 / 1_000.0)
}

/// The most that one node owns, in fair shares.
fn busiest(owners: &[u64], nodes: usize) -> f64 {
    busiest_of_runs(owners.iter().copied(), owners.len(), nodes)
}

fn busiest_of_keys(ring: &impl Placement, hashes: &[u64], nodes: usize) -> f64 {
    busiest_of_runs(hashes.iter().map(|&hash| ring.owner(hash)), hashes.len(), nodes)
}

/// Neighbours often have the same owner, so a run of them is counted before the table of counts is touched.
fn busiest_of_runs(owners: impl Iterator<Item = u64>, total: usize, nodes: usize) -> f64 {
    let mut counts: HashMap<u64, usize> = HashMap::new();
    let (mut owner_of_run, mut run) = (0, 0);
    for owner in owners {
        if owner != owner_of_run {
            *counts.entry(owner_of_run).or_default() += run;
            (owner_of_run, run) = (owner, 0);
        }
        run += 1;
    }
    *counts.entry(owner_of_run).or_default() += run;
    let most = counts.values().copied().max().unwrap_or(0);
    most as f64 * nodes as f64 / total as f64
}

fn moved(earlier: &[u64], later: &[u64]) -> f64 {
    earlier.iter().zip(later).filter(|(earlier, later)| earlier != later).count() as f64
}

/// What the node that came or went owns while it is there. Never less than one point, to divide by.
fn had_to_move(owners: &[u64], node: u64) -> f64 {
    owners.iter().filter(|&&owner| owner == node).count().max(1) as f64
}

fn of(trials: &[Trial], number: impl Fn(&Trial) -> f64) -> Vec<f64> {
    trials.iter().map(number).collect()
}

fn row(nodes: usize, trials: &[Trial]) -> [String; 8] {
    let both = |number: fn(&Trial) -> f64| {
        let values = of(trials, number);
        format!("{:.3} ({:.3})", median(&values), worst(&values))
    };
    let time = |number: fn(&Trial) -> f64| {
        let values = of(trials, number);
        format!("{:.0} ({:.0})", median(&values), worst(&values))
    };
    [
        nodes.to_string(),
        both(|trial| trial.points),
        both(|trial| trial.random),
        both(|trial| trial.sequential),
        both(|trial| trial.join),
        both(|trial| trial.leave),
        time(|trial| trial.join_micros),
        time(|trial| trial.new_micros),
    ]
}

fn targets_of(sizes: &[usize], results: &[Vec<Trial>]) -> Vec<Target> {
    let worst_of = |nodes_max: usize, number: fn(&Trial) -> f64| {
        let within = sizes.iter().zip(results).filter(|(nodes, _)| **nodes <= nodes_max);
        worst(&within.flat_map(|(_, trials)| of(trials, number)).collect::<Vec<_>>())
    };
    let most = sizes.last().copied().unwrap_or(0);
    let joins = results.last().map_or(0.0, |trials| median(&of(trials, |trial| trial.join_micros)));
    let target = |what: String, limit, measured| Target { what, bound: Bound::AtMost(limit), measured };
    vec![
        target(
            "fair shares of the busiest node, up to 200 nodes, worst seed".into(),
            1.05,
            worst_of(200, |t| t.points),
        ),
        target("minimum moved on a join, worst seed".into(), 1.25, worst_of(most, |t| t.join)),
        target("minimum moved on a leave, worst seed".into(), 1.25, worst_of(most, |t| t.leave)),
        target(format!("milliseconds for one join at {most} nodes"), 20.0, joins / 1_000.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_classic_ring_moves_only_what_it_must() {
        let keys = Keys::new(1_000);
        let trial = trial::<Classic<50>>(5, 1, &keys);
        assert_eq!((trial.join, trial.leave), (1.0, 1.0));
        assert!(trial.points > 1.0 && trial.points < 2.0, "{}", trial.points);
    }

    #[test]
    fn the_busiest_is_counted_over_all_its_runs() {
        assert_eq!(busiest(&[1, 1, 2, 1, 2, 1], 2), 4.0 / 3.0);
    }
}
