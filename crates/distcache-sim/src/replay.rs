//! One seed again, in words.
//!
//! The invariant: what is printed is what the checker judged, in the order of time.

use std::collections::BTreeSet;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use distcache_checker::{History, Space, Violation, judge};

use crate::cluster::{self, Setting};

/// Prints what was planned, faults and views, and the gets and writes of one key or of those in violations.
pub fn replay(setting: Setting, key: Option<usize>, seconds: Range<f64>) -> ExitCode {
    let history = cluster::run(setting);
    let verdict = judge(&history, setting.length);
    let concerned: BTreeSet<(Space, usize)> = match key {
        Some(key) => Space::ALL.into_iter().map(|space| (space, key)).collect(),
        None => verdict.violations.iter().filter_map(key_of).collect(),
    };
    println!("{}", setting.plan());
    let mut lines = lines(&history, &concerned);
    lines.extend(
        verdict.violations.iter().filter_map(|violation| Some((time_of(violation)?, format!("VIOLATION {violation}")))),
    );
    lines.sort_by_key(|(at, _)| *at);
    for (at, line) in lines.into_iter().filter(|(at, _)| seconds.contains(&at.as_secs_f64())) {
        println!("{:9.3} {line}", at.as_secs_f64());
    }
    let pending = verdict.violations.iter().filter(|violation| time_of(violation).is_none());
    pending.for_each(|violation| println!("VIOLATION {violation}"));
    if concerned.is_empty() {
        println!(
            "(no get and no write is shown where nothing was wrong: choose a key by --key, seconds by --from and --to)"
        );
    }
    println!(
        "seed={} ops={} faults={} hot_hits={} violations={} void={} fingerprint={:016x}",
        setting.seed,
        verdict.ops,
        verdict.faults,
        verdict.hot_hits,
        verdict.violations.len(),
        verdict.void.unwrap_or("no"),
        history.fingerprint(),
    );
    if verdict.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn key_of(violation: &Violation) -> Option<(Space, usize)> {
    match violation {
        Violation::Stale { get, .. } | Violation::Untrue { get, .. } | Violation::Error { get } => {
            Some((get.space, get.key))
        }
        Violation::WriteError { write } => Some((write.space, write.key)),
        Violation::Parted { .. } | Violation::Broken(_) => None,
    }
}

fn time_of(violation: &Violation) -> Option<Duration> {
    match violation {
        Violation::Stale { get, .. } | Violation::Untrue { get, .. } | Violation::Error { get } => Some(get.ended),
        Violation::WriteError { write } => Some(write.ended),
        Violation::Parted { at, .. } => Some(*at),
        Violation::Broken(_) => None,
    }
}

fn lines(history: &History, concerned: &BTreeSet<(Space, usize)>) -> Vec<(Duration, String)> {
    let mut lines = history.events.clone();
    let gets = history.gets.iter().filter(|get| concerned.contains(&(get.space, get.key)));
    lines.extend(gets.map(|get| (get.ended, format!("  {get}"))));
    let writes = history.writes.iter().filter(|write| concerned.contains(&(write.space, write.key)));
    lines.extend(writes.map(|write| (write.ended, format!("  {write}"))));
    lines
}
