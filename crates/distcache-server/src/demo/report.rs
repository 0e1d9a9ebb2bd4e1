//! What the demo shows, in plain words and few colours.
//!
//! Only words: measures nothing. Colours vanish where there is no terminal, or where `NO_COLOR` asks for it.

use std::time::Duration;

use anstream::println;
use anstyle::{AnsiColor, Style};
use hdrhistogram::Histogram;

use super::cluster::{Cluster, KEYSPACE, Node, NodeStats};
use super::load::{Origin, Tally};
use super::places::{Alone, Places};
use crate::table::{bytes, count, percent, time};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const BAR: Style = AnsiColor::Cyan.on_default();

/// The cluster under load, all nodes up.
pub struct Reading {
    pub tally: Tally,
    pub took: Duration,
    /// One reader alone.
    pub calm: Tally,
    pub calm_took: Duration,
    pub readers: usize,
    pub nodes: Vec<(String, NodeStats)>,
}

impl Reading {
    /// All nodes together.
    pub fn total(&self) -> NodeStats {
        let mut total = NodeStats::default();
        self.nodes.iter().for_each(|(_, stats)| total.add(stats));
        total
    }
}

/// The cluster under load while one node dies.
pub struct Outage {
    pub victim: String,
    pub tally: Tally,
    /// Questions to the database, and those of them by a node that could not ask the owner.
    pub loads: u64,
    pub fallback_loads: u64,
    /// Places that nobody had read before.
    pub new_places: u64,
    /// Origin the kill until the survivors had one view without the victim.
    pub agreed: Option<Duration>,
}

pub fn title() {
    println!();
    println!("{BOLD}distcache demo{BOLD:#}  three nodes in front of one database");
    println!();
}

pub fn data(places: &Places) {
    let (rows, took) = (count(places.rows() as u64), time(places.took()));
    label("data", &format!("{rows} places of the world in an SQLite file {DIM}(filled in {took}){DIM:#}"));
    label("", &format!("{DIM}GeoNames, geonames.org, CC BY 4.0, by way of the crate cities-json{DIM:#}"));
    label("query", "a place and its ten nearest, as JSON: a box of an index, sorted by distance");
}

pub fn nodes(cluster: &Cluster) {
    let names: Vec<String> = cluster.nodes().iter().map(|node| format!("{} {}", node.name(), node.http())).collect();
    label("nodes", &names.join("   "));
    label("", &format!("{DIM}one process each, one cluster after {}{DIM:#}", time(cluster.joined_in())));
    println!();
}

pub fn reading(reading: &Reading, alone: &Alone, places: &Places) {
    let tally = &reading.tally;
    let rate = tally.reads() as f64 / reading.took.as_secs_f64();
    heading(&format!("{} reads in {}", count(tally.reads()), time(reading.took)));
    println!(
        "  {} a second over {} connections to all nodes, beginning with empty caches;",
        count(rate as u64),
        reading.readers * reading.nodes.len()
    );
    println!("  {} places, popular ones far more often (Zipf)", count(places.keys().len() as u64));
    origins(tally);
    loads(reading);
    spread(&reading.nodes);
    comparison(reading, alone);
}

fn comparison(reading: &Reading, alone: &Alone) {
    heading("With and without the cache");
    println!("  {DIM}{:<26}{:>11}{:>9}{:>9}{:>9}{:>9}{DIM:#}", "", "a second", "p50", "p90", "p99", "max");
    let many = reading.readers;
    times(&format!("cache, {many} readers"), &reading.tally.times, reading.took, GOOD);
    times(&format!("database alone, {many} readers"), &alone.at_once, alone.took, Style::new());
    times("cache, one reader", &reading.calm.times, reading.calm_took, GOOD);
    times("database alone, one reader", &alone.one_at_a_time, alone.took, Style::new());
    println!("  {DIM}alone: the same query on the same file in this process, {} connections{DIM:#}", alone.connections);
    println!();
}

fn origins(tally: &Tally) {
    println!();
    let rows = [
        ("the node asked owned the place", Origin::Owned),
        ("the node asked had a hot copy", Origin::HotCopy),
        ("the owner had it, one hop away", Origin::Peer),
        ("waited for the database", Origin::Loaded),
        ("the owner was out of reach", Origin::Fallback),
    ];
    for (what, origin) in rows {
        let reads = tally.from(origin);
        if reads > 0 {
            let share = percent(reads, tally.reads());
            println!("  {what:<32}{:>11}{share:>9}  {}", count(reads), bar(reads, tally.reads()));
        }
    }
    println!();
}

fn loads(reading: &Reading) {
    let NodeStats { loads, coalesced, .. } = reading.total();
    let places = reading.tally.places();
    let mark = if loads == places { GOOD } else { BAD };
    println!(
        "  {mark}{} loads for {} different places{mark:#}: what one node loads, all have",
        count(loads),
        count(places)
    );
    println!("  {} reads came while their place was being loaded, and joined", count(coalesced));
    println!();
}

fn spread(nodes: &[(String, NodeStats)]) {
    let total: u64 = nodes.iter().map(|(_, stats)| stats.entries).sum();
    for (name, stats) in nodes {
        let share = percent(stats.entries, total);
        println!(
            "  node {name}  owns {:>7}{share:>9}  {}  {DIM}{} hot copies, {}{DIM:#}",
            count(stats.entries),
            bar(stats.entries, total),
            count(stats.hot_entries),
            bytes(stats.bytes)
        );
    }
    println!();
}

pub fn killed(victim: &str) {
    println!("  {BAD}kill -9{BAD:#} node {victim}, while everybody reads on");
}

pub fn outage(outage: &Outage) {
    let tally = &outage.tally;
    println!();
    heading(&format!("What the death of node {} cost", outage.victim));
    let mark = if tally.errors == 0 { GOOD } else { BAD };
    let lost = outage.loads.saturating_sub(outage.new_places);
    fact(mark, count(tally.errors), &format!("of {} reads failed", count(tally.reads())));
    fact(BOLD, count(tally.resent), "reads were sent again to another node: their connection had broken");
    fact(BOLD, count(lost), &format!("loads of what node {} had owned", outage.victim));
    fact(BOLD, count(outage.fallback_loads), "of them before the survivors had shared out its keys");
    fact(BOLD, time(Duration::from_micros(tally.times.max())), "took the slowest read");
    match outage.agreed {
        Some(took) => fact(BOLD, time(took), "after the kill the survivors had shared out its keys"),
        None => fact(BAD, "never".into(), "did the survivors share out its keys"),
    }
    println!();
}

fn fact(style: Style, value: String, what: &str) {
    println!("  {style}{value:>9}{style:#}  {what}");
}

pub fn verdict(broken: &[String]) {
    if broken.is_empty() {
        println!("  {GOOD}✓{GOOD:#} {BOLD}as promised{BOLD:#}: one load for each place, no read lost");
    }
    for promise in broken {
        println!("  {BAD}✗ not as promised:{BAD:#} {promise}");
    }
    println!();
}

pub fn rejoined(node: &Node, took: Duration) {
    println!("  node {} is back at {}, {} after its start", node.name(), node.http(), time(took));
    println!();
}

pub fn commands(cluster: &Cluster, places: &Places) {
    let (key, name) = places.example();
    let binary = std::env::args().next().unwrap_or_else(|| "distcache".into());
    let [first, second] = [&cluster.nodes()[0], &cluster.nodes()[1]];
    heading("The cluster is yours: try");
    println!("  curl -i {}/v1/{KEYSPACE}/{key}  {DIM}# {name}{DIM:#}", first.http());
    println!("  curl -i {}/v1/{KEYSPACE}/{key}  {DIM}# the same by another node{DIM:#}", second.http());
    println!("  {binary} owner {KEYSPACE} {key} --admin {}", first.admin());
    println!("  {binary} peers --admin {}", first.admin());
    println!("  {binary} keyspaces --admin {}", first.admin());
    println!();
    println!("  Ctrl-C ends it and leaves nothing behind.");
}

fn heading(text: &str) {
    println!("{BOLD}{text}{BOLD:#}");
}

fn label(name: &str, text: &str) {
    println!("  {BOLD}{name:<7}{BOLD:#}{text}");
}

fn times(what: &str, times: &Histogram<u64>, took: Duration, style: Style) {
    let at = |percentile: f64| time(Duration::from_micros(times.value_at_percentile(percentile)));
    let [p50, p90, p99] = [at(50.0), at(90.0), at(99.0)];
    let max = time(Duration::from_micros(times.max()));
    let rate = count((times.len() as f64 / took.as_secs_f64()) as u64);
    println!("  {what:<26}{style}{rate:>11}{p50:>9}{p90:>9}{p99:>9}{max:>9}{style:#}");
}

/// A bar of twenty, at least a trace of what is not nothing.
fn bar(part: u64, whole: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    const WIDTH: u64 = 20;
    let eighths = (part * WIDTH * 8 + whole / 2).checked_div(whole).unwrap_or(0).max(u64::from(part > 0));
    let filled = "█".repeat((eighths / 8) as usize) + EIGHTHS[(eighths % 8) as usize];
    let gap = " ".repeat(WIDTH as usize - filled.chars().count());
    format!("{BAR}{filled}{BAR:#}{gap}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_one_width() {
        let plain = |part, whole| anstream::adapter::strip_str(&bar(part, whole)).to_string();
        for (part, whole) in [(0, 0), (0, 9), (1, 1_000_000), (1, 3), (9, 9)] {
            assert_eq!(plain(part, whole).chars().count(), 20, "{part}/{whole}");
        }
        assert!(plain(1, 1_000_000).starts_with('▏'));
        assert!(plain(9, 9).chars().all(|c| c == '█'));
    }
}
