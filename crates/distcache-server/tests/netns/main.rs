//! Five nodes of the built binary in network namespaces of their own, under load, while their network is cut and their processes
//! are killed and stopped; then a verdict on all that callers saw.
//!
//! In reading order: this file (the story), [`history`] and [`checker`] (pure: what was seen, and whether it may be, by the faults),
//! [`load`] (callers), [`origin`] (the source), [`node`] (processes), [`standings`] (their views all the time, for the checker that
//! judges the simulation, too), [`network`] and [`sandbox`] (namespaces), [`client`].
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod checker;
mod client;
mod history;
mod load;
mod network;
mod node;
mod origin;
mod sandbox;
mod standings;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use checker::{Promises, Told, Verdict, Violation, judge};
use history::{Fault, History};
use load::{KEYS, Load, SELDOM_READ};
use network::Network;
use node::{NODES, Node};
use origin::Origin;
use standings::Standings;

const PROMISES: Promises = Promises {
    lease: Duration::from_secs(5),
    detection: Duration::from_secs(5),
    recovery: Duration::from_secs(10),
    warm_again: Duration::from_secs(30),
    hits: 0.95,
    hits_sample: Duration::from_secs(5),
    seldom_read_from: KEYS,
};
/// Until all keys are there.
const WARM_UP: Duration = Duration::from_secs(6);
/// Without a fault: enough to see that nothing is wrong then, after all that is granted is over.
const CALM: Duration = Duration::from_secs(7);
const SIDES: [&[history::Node]; 2] = [&[0, 1], &[2, 3, 4]];
const SPLIT: Duration = Duration::from_secs(14);
const ONE_WAY: Duration = Duration::from_secs(12);
const DEAD: Duration = Duration::from_secs(4);
const STOPPED: Duration = Duration::from_secs(30);
/// How long one view is waited for.
const ONE_VIEW_MAX: Duration = Duration::from_secs(20);
/// Of each kind.
const VIOLATIONS_SHOWN: usize = 8;

#[test]
fn a_cluster_keeps_its_promises_while_its_network_and_its_nodes_fail() {
    if !sandbox::is_inside() {
        return sandbox::run_inside("a_cluster_keeps_its_promises_while_its_network_and_its_nodes_fail");
    }
    sandbox::settle();
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    sleep(WARM_UP + CALM);
    cluster.split(Fault { name: "split 2|3".into(), ..Fault::default() }, Network::split);
    cluster.one_way(0, 3);
    cluster.kill(2);
    cluster.stop(4);
    // The last: what is seldom read need not be there after it.
    let one_way = Fault { name: "split 2|3, one way".into(), drops: true, ..Fault::default() };
    cluster.split(one_way, Network::cut);
    let history = cluster.end();
    let verdict = judge(&history, &PROMISES);
    tell(&verdict);
    let broken = verdict.violations.len() + judge_as_simulated(&history);
    if broken > 0 {
        panic!("{broken} violations; the logs of the nodes are in {}", dir.keep().display());
    }
}

/// What cuts two sides, and says who does not reach whom.
type Cut = fn(&Network, &[history::Node], &[history::Node]) -> Vec<(history::Node, history::Node)>;

struct Cluster {
    network: Network,
    nodes: Vec<Node>,
    load: Load,
    standings: Standings,
    faults: Vec<Fault>,
}

impl Cluster {
    fn start(dir: &Path) -> Self {
        let network = Network::of(NODES);
        let origin = Arc::new(Origin::start(network::OUTSIDE, KEYS + SELDOM_READ));
        let nodes: Vec<Node> = (0..NODES).map(|number| Node::start(number, &origin, dir)).collect();
        assert!(one_view_after(&nodes).is_some(), "the nodes do not find each other");
        load::warm_up();
        let load = Load::start(&origin);
        let standings = Standings::watch(load.clock());
        Self { network, nodes, load, standings, faults: Vec::new() }
    }

    /// Cuts the network in two, in both directions or one: either way neither side hears an answer of the other.
    fn split(&mut self, fault: Fault, how: Cut) {
        let (begin, [side, other]) = (self.load.now(), SIDES);
        for (from, to) in how(&self.network, side, other) {
            self.standings.cut(from, to);
        }
        sleep(SPLIT);
        let parts = vec![side.to_vec(), other.to_vec()];
        let is_noticed = parts.iter().all(|part| part.iter().all(|node| self.sees(*node, part)));
        self.network.heal();
        self.recover(Fault { begin, parts, is_noticed, ..fault });
    }

    /// One node does not hear another any more. The rest hears both, so that nobody is taken for dead.
    fn one_way(&mut self, from: history::Node, to: history::Node) {
        let begin = self.load.now();
        self.standings.cut(from, to);
        self.network.cut(&[from], &[to]);
        sleep(ONE_WAY);
        let is_noticed = self.network.lost(to) > 0 && self.network.lost(from) == 0;
        self.network.heal();
        let name = format!("cut one way, {from} to {to}");
        self.recover(Fault { name, begin, unheard: Some((from, to)), is_noticed, ..Fault::default() });
    }

    fn kill(&mut self, node: history::Node) {
        let begin = self.load.now();
        self.standings.kill(node);
        self.nodes[node].kill();
        sleep(DEAD);
        let is_noticed = (0..NODES).filter(|other| *other != node).all(|other| self.sees(other, &all_but(node)));
        self.nodes[node].start_again();
        self.recover(Fault { name: "kill -9".into(), begin, silent: Some(node), is_noticed, ..Fault::default() });
    }

    fn stop(&mut self, node: history::Node) {
        let begin = self.load.now();
        self.standings.stop(node);
        self.nodes[node].stop();
        sleep(STOPPED);
        let is_noticed = all_but(node).into_iter().all(|other| self.sees(other, &all_but(node)));
        self.nodes[node].go_on();
        let parts = vec![vec![node], all_but(node)];
        self.recover(Fault {
            name: "stop 30 s".into(),
            begin,
            parts,
            silent: Some(node),
            is_noticed,
            ..Fault::default()
        });
    }

    /// Whether these are the members that a node sees.
    fn sees(&self, node: history::Node, members: &[history::Node]) -> bool {
        let mut expected: Vec<String> = members.iter().map(|member| network::name(*member)).collect();
        expected.sort_unstable();
        self.nodes[node].ring().is_some_and(|(_, members)| members == expected)
    }

    /// The fault is over as of now: notes what follows, and lets the cluster rest.
    fn recover(&mut self, mut fault: Fault) {
        self.standings.heal();
        fault.end = self.load.now();
        fault.one_view_after = one_view_after(&self.nodes);
        sleep((fault.end + PROMISES.recovery + CALM).saturating_sub(self.load.now()));
        self.faults.push(fault);
    }

    fn end(self) -> History {
        let ended = self.load.now();
        let (reads, writes) = self.load.end();
        History { reads, writes, faults: self.faults, standings: self.standings.end(), ended }
    }
}

fn all_but(node: history::Node) -> Vec<history::Node> {
    (0..NODES).filter(|other| *other != node).collect()
}

/// How long it takes until all nodes have the same view, with all of them in it.
fn one_view_after(nodes: &[Node]) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() < ONE_VIEW_MAX {
        let rings: Vec<_> = nodes.iter().map(Node::ring).collect();
        let is_whole = |ring: &Option<(String, Vec<String>)>| {
            ring.as_ref().is_some_and(|(view, members)| {
                members.len() == NODES && rings[0].as_ref().is_some_and(|(first, _)| first == view)
            })
        };
        if rings.iter().all(is_whole) {
            return Some(began.elapsed());
        }
        sleep(Duration::from_millis(20));
    }
    None
}

/// By the checker of the simulation: from what the nodes' views were, and who reached whom, instead of from the faults. How much of it
/// was wrong.
fn judge_as_simulated(history: &History) -> usize {
    let verdict = distcache_checker::judge(&history.recorded(), history.ended);
    let all = (1 << NODES) - 1;
    let is_whole = |standing: &&distcache_checker::Standing| standing.harmony.iter().all(|seen| *seen == all);
    let (looks, whole) = (history.standings.len(), history.standings.iter().filter(is_whole).count());
    println!("by the checker of the simulation: {} ops; {whole} of {looks} looks found all in harmony", verdict.ops);
    println!(
        "{} of {} gets after a write had to answer it; {} missed a write that died with its side",
        verdict.strict, verdict.after_a_write, verdict.forgotten
    );
    verdict.violations.iter().take(VIOLATIONS_SHOWN).for_each(|violation| println!("VIOLATED: {violation}"));
    verdict.void.iter().for_each(|why| println!("VOID: {why}"));
    verdict.violations.len() + usize::from(verdict.void.is_some())
}

fn tell(verdict: &Verdict) {
    println!(
        "{} reads ({} of copies), {} writes; {} reads of what a failed put had brought",
        verdict.reads, verdict.copies, verdict.writes, verdict.of_failed_puts
    );
    for told in &verdict.faults {
        let Told { name, reads, writes, stale, stale_for_max, errors, one_view_after, .. } = told;
        println!("{name}: {reads} reads, {writes} writes, until all is as before");
        println!("  older versions, as granted: {stale}, the latest {stale_for_max:.2?} after the write");
        println!("  one view after the end: {one_view_after:.2?}");
        let [before, after, seldom_before, seldom_after] =
            [told.hits_before, told.hits_after, told.seldom_before, told.seldom_after].map(|part| part * 100.0);
        println!("  hits: {before:.1} % before, {after:.1} % after");
        println!("  of keys that are seldom read: {seldom_before:.1} % before, {seldom_after:.1} % after");
        for (error, count) in errors {
            println!("  error, as granted: {count} x {error}");
        }
    }
    let mut kinds: BTreeMap<&str, Vec<&Violation>> = BTreeMap::new();
    verdict.violations.iter().for_each(|violation| kinds.entry(violation.kind()).or_default().push(violation));
    for (kind, violations) in kinds {
        println!("VIOLATED: {kind}, {} times, such as", violations.len());
        violations.iter().take(VIOLATIONS_SHOWN).for_each(|violation| println!("  {violation}"));
    }
}
