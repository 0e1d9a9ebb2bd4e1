//! Five nodes under a steady load, restarted one after the other: what the source and the callers notice, with a shutdown that is
//! given time, with one that says farewell and hands nothing over, and with a kill.
//!
//! In reading order: [`fleet`] (the processes), [`node`] (one of them), [`callers`] (who uses it), [`origin`] (the source behind
//! all). All ways run one after the other, with the same callers, on nodes that begin as full as a long time would have left them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::Settings;
use crate::arrivals::{Call, errors, quantile};
use crate::error::BenchError;
use crate::machine;
use crate::picture::Picture;
use crate::report::{Bound, Table, Target};
use crate::stats::median;

mod callers;
mod fleet;
pub mod node;
mod origin;

use callers::Called;
use fleet::{Fleet, NODES, Restarted, Stop};
use node::{KEYS, TTL};
use origin::{LATENCY, Origin};

const CALLS_PER_SECOND: u32 = 2_000;
/// How many different errors are shown.
const ERRORS_SHOWN: usize = 5;

/// How long everything takes.
#[derive(Clone, Copy)]
struct Plan {
    /// Under load, before anything counts: which keys are hot shows only then.
    settle: Duration,
    steady: Duration,
    /// From the beginning of one restart to that of the next.
    every: Duration,
    grace: Duration,
}

impl Plan {
    fn of(settings: Settings) -> Self {
        let seconds = |real, quick| Duration::from_secs(settings.pick(real, quick));
        Self { settle: seconds(15, 1), steady: seconds(30, 2), every: seconds(8, 2), grace: seconds(5, 1) }
    }

    fn ways(self) -> [(&'static str, Stop); 3] {
        let without_grace = Stop::Shutdown { grace: Duration::ZERO };
        [("shutdown", Stop::Shutdown { grace: self.grace }), ("no grace", without_grace), ("kill -9", Stop::Kill)]
    }

    /// Loads a second from the beginning of each restart to when the next is due.
    fn each_restart(self, from: Duration, ended: Duration, loads: &[Duration]) -> Vec<f64> {
        let begins = (0..NODES as u32).map(|number| from + self.every * number);
        let rate = |begin: Duration| {
            let end = (begin + self.every).min(ended);
            let within = loads.iter().filter(|moment| **moment >= begin && **moment < end);
            within.count() as f64 / (end - begin).as_secs_f64()
        };
        begins.map(rate).collect()
    }
}

pub fn run(settings: Settings, picture: Option<PathBuf>) -> Result<Vec<Target>, BenchError> {
    let plan = Plan::of(settings);
    let mut outcomes = Vec::new();
    for (number, (name, stop)) in plan.ways().into_iter().enumerate() {
        outcomes.push(play(name, stop, plan, &number.to_string())?);
    }
    let mut table = Table::new(
        format!(
            "{NODES} nodes, restarted one after the other, every {:?}; {CALLS_PER_SECOND} calls a second of {KEYS} keys by Zipf's law, \
             1 % writes; ttl {TTL:?}, a load takes {LATENCY:?}; shutdown may take {:?}",
            plan.every, plan.grace
        ),
        &["way, phase", "calls/s", "loads/s", "of steady", "errors", "get: p50 ms", "p99 ms", "slowest ms"],
    );
    for outcome in &outcomes {
        for phase in [&outcome.steady, &outcome.restarts] {
            table.row(outcome.row(phase));
        }
    }
    table.print(settings.style());
    outcomes.iter().for_each(Outcome::print_notes);
    if let Some(path) = picture {
        draw(&outcomes, plan, path)?;
    }
    Ok(targets(&outcomes[0]))
}

/// A part of the run.
struct Phase {
    name: &'static str,
    time: Duration,
    loads: usize,
    gets: Vec<Call>,
    writes: Vec<Call>,
}

struct Outcome {
    way: &'static str,
    steady: Phase,
    restarts: Phase,
    /// From the beginning of the steady phase on.
    loads_per_second: Vec<u32>,
    /// Loads a second of each restart.
    each_restart: Vec<f64>,
    restarts_took: Vec<Restarted>,
    /// What errors said, and how often.
    errors: BTreeMap<String, usize>,
}

fn play(way: &'static str, stop: Stop, plan: Plan, cluster: &str) -> Result<Outcome, BenchError> {
    let source = Origin::start()?;
    let mut fleet = Fleet::start(cluster, source.addr, CALLS_PER_SECOND)?;
    std::thread::sleep(plan.settle);
    let began = machine::uptime();
    let restarts_from = began + plan.steady;
    sleep_until(restarts_from);
    let mut restarts_took = Vec::new();
    for number in 0..NODES {
        restarts_took.push(fleet.restart(number, stop)?);
        sleep_until(restarts_from + plan.every * (number as u32 + 1));
    }
    // Restarts that take longer than planned are no reason to look away.
    let ended = machine::uptime();
    let called = fleet.rest()?;
    let loads = source.loads();
    let phase = |name, from: Duration, to: Duration| Phase::of(name, from, to, &loads, &called);
    let mut errors = BTreeMap::new();
    for text in called.iter().filter(|call| call.at() >= began).filter_map(|call| call.error.clone()) {
        *errors.entry(text).or_default() += 1;
    }
    Ok(Outcome {
        way,
        steady: phase("steady", began, restarts_from),
        restarts: phase("restarts", restarts_from, ended),
        loads_per_second: per_second(&loads, began, ended),
        each_restart: plan.each_restart(restarts_from, ended, &loads),
        restarts_took,
        errors,
    })
}

fn sleep_until(moment: Duration) {
    std::thread::sleep(moment.saturating_sub(machine::uptime()));
}

/// Whole seconds only: the last one may have been cut off.
fn per_second(moments: &[Duration], from: Duration, to: Duration) -> Vec<u32> {
    let mut counts = vec![0; (to - from).as_secs() as usize];
    for moment in moments.iter().filter(|moment| **moment >= from) {
        if let Some(count) = counts.get_mut((*moment - from).as_secs() as usize) {
            *count += 1;
        }
    }
    counts
}

impl Phase {
    fn of(name: &'static str, from: Duration, to: Duration, loads: &[Duration], called: &[Called]) -> Self {
        let within = |moment: Duration| moment >= from && moment < to;
        let of_phase = called.iter().filter(|call| within(call.at()));
        let (writes, gets): (Vec<&Called>, Vec<&Called>) = of_phase.partition(|call| call.is_write);
        let since = |calls: Vec<&Called>| calls.into_iter().map(|call| call.since(from)).collect();
        let loads = loads.iter().filter(|moment| within(**moment)).count();
        Self { name, time: to - from, loads, gets: since(gets), writes: since(writes) }
    }

    fn loads_per_second(&self) -> f64 {
        self.loads as f64 / self.time.as_secs_f64()
    }

    fn errors(&self) -> usize {
        errors(&self.gets) + errors(&self.writes)
    }

    fn millis(&self, part: f64) -> f64 {
        quantile(&self.gets, part).as_secs_f64() * 1e3
    }
}

impl Outcome {
    fn row(&self, phase: &Phase) -> Vec<String> {
        let calls = (phase.gets.len() + phase.writes.len()) as f64 / phase.time.as_secs_f64();
        vec![
            format!("{}, {}", self.way, phase.name),
            format!("{calls:.0}"),
            format!("{:.1}", phase.loads_per_second()),
            format!("{:.2}x", phase.loads_per_second() / self.steady.loads_per_second()),
            phase.errors().to_string(),
            format!("{:.2}", phase.millis(0.5)),
            format!("{:.2}", phase.millis(0.99)),
            format!("{:.1}", phase.millis(1.0)),
        ]
    }

    /// The restart that the source noticed most, in times of the steady load.
    fn worst_restart(&self) -> f64 {
        self.each_restart.iter().fold(0.0, |worst: f64, loads| worst.max(*loads)) / self.steady.loads_per_second()
    }

    fn print_notes(&self) {
        let middle = |time: fn(&Restarted) -> Duration| {
            let seconds: Vec<f64> = self.restarts_took.iter().map(|one| time(one).as_secs_f64()).collect();
            median(&seconds)
        };
        let (leaving, away) = (middle(|one| one.leaving), middle(|one| one.away));
        println!("\n  {}: a node took {leaving:.2} s to leave and was ready {away:.2} s later (median)", self.way);
        println!("    the restart with the most loads: {:.2}x of steady", self.worst_restart());
        let mut errors: Vec<_> = self.errors.iter().collect();
        errors.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (text, count) in errors.into_iter().take(ERRORS_SHOWN) {
            println!("    {count} calls: {text}");
        }
    }
}

fn draw(outcomes: &[Outcome], plan: Plan, path: PathBuf) -> Result<(), BenchError> {
    let series: Vec<(&str, &[u32])> =
        outcomes.iter().map(|outcome| (outcome.way, &*outcome.loads_per_second)).collect();
    let restart = |number: u32| ((plan.steady + plan.every * number).as_secs() as u32, format!("node {}", number + 1));
    let mut marks = vec![(0, "steady".to_owned())];
    marks.extend((0..NODES as u32).map(restart));
    let seconds = series.iter().map(|(_, counts)| counts.len() as u32).max().unwrap_or_default();
    Picture { counted: "loads a second", series: &series, marks: &marks, seconds }.draw(&path)?;
    println!("\n  Loads over time: {}", path.display());
    Ok(())
}

fn targets(shutdown: &Outcome) -> Vec<Target> {
    vec![
        Target {
            what: "loads a second while nodes are restarted by shutdown, in times of the steady load".into(),
            bound: Bound::AtMost(1.2),
            measured: shutdown.restarts.loads_per_second() / shutdown.steady.loads_per_second(),
        },
        Target {
            what: "errors that callers see while nodes are restarted by shutdown".into(),
            bound: Bound::AtMost(0.0),
            measured: shutdown.restarts.errors() as f64,
        },
        Target {
            what: "p99 of the gets while nodes are restarted by shutdown, in times of that before".into(),
            bound: Bound::AtMost(3.0),
            measured: shutdown.restarts.millis(0.99) / shutdown.steady.millis(0.99),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Duration = Duration::from_secs(100);

    fn after(seconds: f64) -> Duration {
        Duration::from_secs_f64(BEGAN.as_secs_f64() + seconds)
    }

    #[test]
    fn loads_are_counted_in_the_second_they_came_in_and_only_while_it_is_whole() {
        let loads = [after(-0.1), after(0.0), after(0.9), after(1.0), after(2.1), after(2.6)];
        assert_eq!(per_second(&loads, BEGAN - Duration::from_millis(50), after(2.5)), [2, 1]);
    }

    #[test]
    fn each_restart_lasts_until_the_next_begins() {
        let plan = Plan { every: Duration::from_secs(2), ..Plan::of(Settings { quick: true, markdown: false }) };
        let loads = [after(-0.5), after(0.0), after(1.9), after(2.0), after(9.5), after(10.0)];
        let rates = plan.each_restart(BEGAN, after(10.0), &loads);
        assert_eq!(rates, [1.0, 0.5, 0.0, 0.0, 0.5]);
    }

    #[test]
    fn a_phase_has_what_came_within_it() {
        let called = |seconds, is_write, error: Option<&str>| {
            Called::new(after(seconds), Duration::from_millis(3), is_write, error.map(str::to_owned))
        };
        let called = [
            called(-0.1, false, Some("before")),
            called(0.0, false, None),
            called(1.0, true, Some("a write")),
            called(1.9, false, Some("a get")),
            called(2.0, true, None),
        ];
        let phase = Phase::of("steady", BEGAN, after(2.0), &[after(-1.0), after(1.0), after(2.0)], &called);
        assert_eq!((phase.gets.len(), phase.writes.len(), phase.loads, phase.errors()), (2, 1, 1, 2));
        assert_eq!((phase.loads_per_second(), phase.millis(1.0)), (0.5, 3.0));
    }
}
