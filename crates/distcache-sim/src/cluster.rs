//! One run: nodes as hosts of a simulated network, a plan of troubles brought upon them, and a look at how they stand.
//!
//! Judges nothing. The invariant: all that happens follows from the seed; what is brought upon two nodes by several troubles at once
//! ends with the last of them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use distcache::sim_support::{self, Rule};
use distcache_checker::{History, NO_VIEW, Standing, bits};
use turmoil::{Builder, Sim};

use crate::callers::{NodePlan, Shared};
use crate::plan::{Fault, Only, Plan};

const TICK: Duration = Duration::from_millis(1);
/// An owner waits for its holders' word for two of these and more.
const WHOLE_LATENCY_MAX: Duration = Duration::from_millis(60);
/// How often it is looked how the nodes stand.
const LOOK_EVERY: u32 = 10;
const LATENCY: Duration = Duration::from_millis(1);
/// By how much a link becomes slower from one look to the next: as queues fill, so that nothing is silent meanwhile.
const SLOWER_BY: Duration = Duration::from_millis(5);
/// 2026-01-01.
const WALL_CLOCK_BEGINS_MS: u64 = 1_767_225_600_000;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub seed: u64,
    pub nodes: usize,
    pub length: Duration,
    pub without: Option<Rule>,
    pub only: Option<Only>,
}

impl Setting {
    pub fn plan(self) -> Plan {
        match self.only {
            Some(only) => Plan::of_only(only, self.seed, self.nodes, self.length),
            None => Plan::of(self.seed, self.nodes, self.length),
        }
    }
}

/// Runs one simulation to its end.
pub fn run(setting: Setting) -> History {
    sim_support::seed(setting.seed);
    sim_support::wall_clock_begins(WALL_CLOCK_BEGINS_MS);
    let plan = setting.plan();
    let mut cluster = Cluster::new(setting, &plan);
    cluster.run(&plan, setting.length);
    cluster.into_history()
}

struct Cluster<'a> {
    sim: Sim<'a>,
    shared: Arc<Shared>,
    ips: Vec<IpAddr>,
    /// How many troubles keep packets of the first from the second.
    cuts: Vec<Vec<u32>>,
    hangs: Vec<u32>,
    slow: Vec<Vec<u32>>,
    /// How slow each link is, and how slow it is to become.
    latencies: Vec<Vec<(Duration, Duration)>>,
    /// What was last done to each pair.
    links: Vec<Vec<LinkState>>,
    source_slow: u32,
    source_fails: u32,
    away: Vec<u32>,
    views: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LinkState {
    is_cut: bool,
    is_held: bool,
}

impl Cluster<'_> {
    fn new(setting: Setting, plan: &Plan) -> Self {
        let nodes = setting.nodes;
        let mut builder = Builder::new();
        builder
            .rng_seed(setting.seed)
            .tick_duration(TICK)
            .simulation_duration(setting.length + Duration::from_secs(60))
            .min_message_latency(Duration::from_micros(200))
            .max_message_latency(LATENCY * 3)
            .tcp_capacity(1 << 16)
            .udp_capacity(1 << 16);
        let mut sim = builder.build();
        let shared = Arc::new(Shared::new(nodes, setting.seed));
        shared.history.lock().lease = plan.lease;
        let ips: Vec<IpAddr> = (0..nodes).map(|node| Ipv4Addr::new(10, 0, 0, node as u8 + 1).into()).collect();
        for number in 0..nodes {
            let node = NodePlan {
                number,
                ip: ips[number],
                all: ips.clone(),
                rate_ppm: plan.rates_ppm[number],
                hop_budget: plan.hop_budget,
                load_max: plan.load_max,
                lease: plan.lease,
                is_crowded: plan.is_crowded,
                renews: plan.renews,
                is_varied: plan.is_varied,
                without: setting.without,
                seed: setting.seed.wrapping_mul(31).wrapping_add(number as u64),
            };
            let shared = shared.clone();
            sim.host(ips[number], move || node.clone().run(shared.clone()));
        }
        let square = || vec![vec![0; nodes]; nodes];
        Self {
            sim,
            shared,
            ips,
            cuts: square(),
            hangs: vec![0; nodes],
            slow: square(),
            latencies: vec![vec![(LATENCY, LATENCY); nodes]; nodes],
            links: vec![vec![LinkState::default(); nodes]; nodes],
            source_slow: 0,
            source_fails: 0,
            away: vec![0; nodes],
            views: vec![NO_VIEW; nodes],
        }
    }

    fn into_history(self) -> History {
        self.shared.engines.lock().clear();
        drop(self.sim);
        std::mem::take(&mut self.shared.history.lock())
    }

    fn run(&mut self, plan: &Plan, length: Duration) {
        let begin = plan.troubles.iter().map(|trouble| (trouble.at, true, &trouble.fault));
        let end = plan.troubles.iter().map(|trouble| (trouble.at + trouble.lasts, false, &trouble.fault));
        let mut acts: Vec<_> = begin.chain(end).collect();
        acts.sort_by_key(|(at, begins, _)| (*at, *begins));
        let mut acts = acts.into_iter().peekable();
        let mut ticks = 0;
        while self.sim.elapsed() < length {
            while let Some((_, begins, fault)) = acts.next_if(|(at, ..)| *at <= self.sim.elapsed()) {
                self.act(fault, begins);
            }
            if let Err(error) = self.sim.step() {
                self.shared.history.lock().broken.push(format!("at {:?}: {error}", self.sim.elapsed()));
                return;
            }
            ticks += 1;
            if ticks % LOOK_EVERY == 0 {
                self.set_latencies();
                self.look();
            }
        }
    }

    fn act(&mut self, fault: &Fault, begins: bool) {
        {
            let mut history = self.shared.history.lock();
            let (at, end) = (self.sim.elapsed(), if begins { "" } else { "no longer: " });
            history.events.push((at, format!("{end}{fault}")));
            history.faults += u64::from(begins);
        }
        let nodes = self.ips.len();
        match fault {
            Fault::Cut { side } => {
                let apart = |a: usize, b: usize| side.contains(&a) != side.contains(&b);
                for (a, b) in pairs(nodes).filter(|(a, b)| apart(*a, *b)) {
                    count(&mut self.cuts[a][b], begins);
                }
            }
            Fault::OneWay { from, to } => {
                for (a, b) in from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b))) {
                    count(&mut self.cuts[a][b], begins);
                }
            }
            Fault::Hang { node } => count(&mut self.hangs[*node], begins),
            Fault::Slow { a, b, latency } => self.slow_down(*a, *b, *latency, begins),
            Fault::Crash { node } => self.crash(*node, begins),
            Fault::Leave { node } => self.leave(*node, begins),
            Fault::SourceSlow => count(&mut self.source_slow, begins),
            Fault::SourceFails => count(&mut self.source_fails, begins),
        }
        let mut truth = self.shared.truth.lock();
        (truth.is_slow, truth.fails) = (self.source_slow > 0, self.source_fails > 0);
        drop(truth);
        self.set_links();
    }

    fn slow_down(&mut self, a: usize, b: usize, latency: Duration, begins: bool) {
        count(&mut self.slow[a][b], begins);
        count(&mut self.slow[b][a], begins);
        let goal = &mut self.latencies[a.min(b)][a.max(b)].1;
        *goal = if self.slow[a][b] > 0 { latency } else { LATENCY };
    }

    /// Lets slow links become slower, and such as no longer are as fast as the others.
    fn set_latencies(&mut self) {
        for (a, b) in pairs(self.ips.len()) {
            let (now, goal) = &mut self.latencies[a][b];
            if now != goal {
                *now = (*now + SLOWER_BY).min(*goal);
                self.sim.set_link_latency(self.ips[a], self.ips[b], *now);
            }
        }
    }

    fn crash(&mut self, node: usize, begins: bool) {
        count(&mut self.away[node], begins);
        if begins && self.away[node] == 1 {
            self.shared.engines.lock()[node] = None;
            self.sim.crash(self.ips[node]);
        } else if !begins && self.away[node] == 0 {
            self.sim.bounce(self.ips[node]);
        }
    }

    fn leave(&mut self, node: usize, begins: bool) {
        count(&mut self.away[node], begins);
        if begins && self.away[node] == 1 {
            self.shared.leave[node].notify_one();
        } else if !begins && self.away[node] == 0 {
            self.shared.engines.lock()[node] = None;
            self.sim.crash(self.ips[node]);
            self.sim.bounce(self.ips[node]);
        }
    }

    /// Brings the simulated links in line with all troubles that there are now.
    fn set_links(&mut self) {
        for (a, b) in pairs(self.ips.len()) {
            let is_held = self.hangs[a] + self.hangs[b] > 0;
            let wanted = LinkState { is_cut: self.cuts[a][b] > 0, is_held };
            let was = std::mem::replace(&mut self.links[a][b], wanted);
            if was == wanted {
                continue;
            }
            let (from, to) = (self.ips[a], self.ips[b]);
            match (was.is_held, wanted) {
                (_, LinkState { is_cut: true, .. }) => {
                    if was.is_held {
                        self.sim.release(from, to);
                    }
                    self.sim.partition_oneway(from, to);
                }
                (_, LinkState { is_held: true, .. }) => {
                    if was.is_cut {
                        self.sim.repair_oneway(from, to);
                    }
                    self.sim.hold(from, to);
                }
                (true, _) if !was.is_cut => self.sim.release(from, to),
                _ => self.sim.repair_oneway(from, to),
            }
        }
    }

    fn look(&mut self) {
        let engines: Vec<_> = self.shared.engines.lock().clone();
        let seen: Vec<Vec<(u64, u64)>> =
            engines.iter().map(|engine| engine.as_ref().map(distcache::Engine::sim_view).unwrap_or_default()).collect();
        let ids: Vec<u64> = (0..seen.len()).map(|node| distcache::sim_support::node_id(&format!("n{node}"))).collect();
        let views: Vec<u64> = seen.iter().map(|view| number_of(view)).collect();
        let before = std::mem::replace(&mut self.views, views.clone());
        let at = self.sim.elapsed();
        let is_whole = pairs(seen.len()).all(|(a, b)| self.is_link_whole(a, b));
        let is_whole = is_whole && engines.iter().all(Option::is_some);
        let is_source_well = self.source_slow + self.source_fails == 0;
        let mut history = self.shared.history.lock();
        for node in (0..seen.len()).filter(|node| before[*node] != views[*node]) {
            let owners: Vec<usize> = members(&seen[node], &ids);
            history.events.push((at, format!("node {node} sees the owners {owners:?}")));
        }
        let sees = seen.iter().map(|view| bits(members(view, &ids))).collect();
        let reaches = (0..seen.len()).map(|a| bits((0..seen.len()).filter(|b| self.is_link_whole(a, *b)))).collect();
        let away = bits((0..seen.len()).filter(|node| self.away[*node] > 0));
        let harmony = Vec::new();
        let standing = Standing { at, harmony, views, sees, reaches, away, stopped: 0, is_whole, is_source_well };
        history.standings.push(standing.compared_with(&before));
    }

    /// In both directions.
    fn is_link_whole(&self, a: usize, b: usize) -> bool {
        let is_well = |a: usize, b: usize| self.links[a][b] == LinkState::default();
        let (latency, _) = self.latencies[a.min(b)][a.max(b)];
        a == b || is_well(a, b) && is_well(b, a) && latency <= WHOLE_LATENCY_MAX
    }
}

fn members(view: &[(u64, u64)], ids: &[u64]) -> Vec<usize> {
    ids.iter().enumerate().filter(|(_, id)| view.iter().any(|(seen, _)| seen == *id)).map(|(node, _)| node).collect()
}

fn number_of(view: &[(u64, u64)]) -> u64 {
    let fold = |number: u64, (id, incarnation): &(u64, u64)| (number ^ id).rotate_left(17).wrapping_add(*incarnation);
    if view.is_empty() { NO_VIEW } else { view.iter().fold(1, fold).max(1) }
}

fn pairs(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |a| (0..nodes).filter(move |b| *b != a).map(move |b| (a, b)))
}

fn count(troubles: &mut u32, begins: bool) {
    *troubles = if begins { *troubles + 1 } else { troubles.saturating_sub(1) };
}
