//! The rules of a keyspace in words, a line each: what becomes of entries, and what stands before the source.

use std::time::Duration;

use distcache::{CircuitBreaker, Eviction, GuardSettings, RateLimit, Retry};

use crate::config::KeyspaceConfig;

/// Nothing is said of what is not set.
pub(super) fn rules(keyspace: &KeyspaceConfig) -> Vec<String> {
    let lines = [
        keyspace.eviction.and_then(eviction),
        keyspace.idle_ttl.map(|idle| format!("entries that nobody read for {} go", time(idle))),
        staleness(keyspace),
        refreshing(keyspace),
        match keyspace.warm_keys.len() {
            0 => None,
            1 => Some("1 key is loaded before anybody asks".into()),
            keys => Some(format!("{keys} keys are loaded before anybody asks")),
        },
        keyspace.guard.as_ref().map(guard),
    ];
    lines.into_iter().flatten().collect()
}

fn time(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn percent(part: f32) -> String {
    format!("{:.0} %", part * 100.0)
}

fn eviction(eviction: Eviction) -> Option<String> {
    let goes = match eviction {
        Eviction::Lru => "read least recently",
        Eviction::Lfu => "read least frequently",
        Eviction::Fifo => "stored first",
        _ => return None,
    };
    Some(format!("where there is no room, what was {goes} has to go"))
}

fn staleness(keyspace: &KeyspaceConfig) -> Option<String> {
    let again = keyspace.stale_while_revalidate.map(|grace| format!("{} while it is loaded again", time(grace)));
    let failed = keyspace.stale_if_error.map(|grace| format!("{} where that fails", time(grace)));
    let late = keyspace.soft_timeout.map(|limit| format!("also where a load takes longer than {}", time(limit)));
    let graces: Vec<String> = [again, failed, late].into_iter().flatten().collect();
    (!graces.is_empty()).then(|| format!("past its lifetime an entry is answered: {}", graces.join(", ")))
}

fn refreshing(keyspace: &KeyspaceConfig) -> Option<String> {
    let ahead = keyspace.refresh_ahead.map(|part| format!("when read in the last {} of their lifetime", percent(part)));
    let hot = keyspace.refresh_hot_keys.map(|keys| format!("the {keys} hottest also unread"));
    let ways: Vec<String> = [ahead, hot].into_iter().flatten().collect();
    (!ways.is_empty()).then(|| format!("entries are loaded again beforehand: {}", ways.join(", ")))
}

fn guard(guard: &GuardSettings) -> String {
    let parts = [
        guard.loads_max.map(|loads| format!("{loads} loads at once")),
        guard.rate_limit.map(rate),
        guard.circuit_breaker.map(breaker),
        guard.retry.map(retry),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let parts = if parts.is_empty() { "nothing but the node's limits".into() } else { parts.join(", ") };
    match &guard.group {
        Some(name) => format!("before the source, shared as guard {name}: {parts}"),
        None => format!("before the source: {parts}"),
    }
}

fn rate(limit: RateLimit) -> String {
    let burst = limit.burst.map(|loads| format!(" in bursts of {loads}")).unwrap_or_default();
    let wait = match limit.wait_max {
        Duration::ZERO => String::new(),
        wait => format!(", waiting up to {}", time(wait)),
    };
    format!("{} loads a second{burst}{wait}", limit.per_second)
}

fn breaker(breaker: CircuitBreaker) -> String {
    let CircuitBreaker { failure_rate, window, calls_min, open_for, .. } = breaker;
    let (part, window, open) = (percent(failure_rate), time(window), time(open_for));
    format!("none for {open} after {part} of at least {calls_min} within {window} have failed")
}

fn retry(retry: Retry) -> String {
    format!("up to {} attempts", retry.attempts)
}
