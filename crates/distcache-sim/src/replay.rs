//! One seed again, in words.
//!
//! The invariant: what is printed is what the checker judged, in the order of time.

use std::collections::BTreeSet;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use distcache_checker::{Get, History, Space, Violation, Write, judge};

use crate::cluster::{self, Setting};

/// Prints faults and views, and the gets and writes of one key or of those in violations.
pub fn replay(setting: Setting, key: Option<usize>, seconds: Range<f64>) -> ExitCode {
    let history = cluster::run(setting);
    let verdict = judge(&history, setting.length);
    let concerned: BTreeSet<(Space, usize)> = match key {
        Some(key) => Space::ALL.into_iter().map(|space| (space, key)).collect(),
        None => verdict.violations.iter().filter_map(key_of).collect(),
    };
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
        Violation::Parted { .. } | Violation::Broken(_) => None,
    }
}

fn time_of(violation: &Violation) -> Option<Duration> {
    match violation {
        Violation::Stale { get, .. } | Violation::Untrue { get, .. } | Violation::Error { get } => Some(get.ended),
        Violation::Parted { at, .. } => Some(*at),
        Violation::Broken(_) => None,
    }
}

fn lines(history: &History, concerned: &BTreeSet<(Space, usize)>) -> Vec<(Duration, String)> {
    let mut lines = history.events.clone();
    let gets = history.gets.iter().filter(|get| concerned.contains(&(get.space, get.key)));
    lines.extend(gets.map(|get| (get.ended, line_of_get(get))));
    let writes = history.writes.iter().filter(|write| concerned.contains(&(write.space, write.key)));
    lines.extend(writes.map(|write| (write.ended, line_of_write(write))));
    lines
}

fn line_of_get(get: &Get) -> String {
    let (took, space) = (get.ended.saturating_sub(get.begun), get.space.name());
    match &get.outcome {
        Ok((version, origin)) => {
            format!("  get   node {} {space} key {}: version {version} ({origin:?}), {took:?}", get.node, get.key)
        }
        Err(error) => format!("  get   node {} {space} key {}: {error}, {took:?}", get.node, get.key),
    }
}

fn line_of_write(write: &Write) -> String {
    let verb = if write.is_put { "put  " } else { "delete" };
    let outcome = match &write.outcome {
        Ok(()) => "ok",
        Err(error) => error,
    };
    let begun = write.begun.as_secs_f64();
    format!(
        "  {verb} node {} {} key {}: version {} since {begun:.3}, {outcome}",
        write.node,
        write.space.name(),
        write.key,
        write.version
    )
}
