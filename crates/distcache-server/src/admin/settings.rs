//! A keyspace's settings as JSON: the library's names, `_ms` behind durations, `null` for what is not set.

use std::time::Duration;

use distcache::{CircuitBreaker, GuardSettings, KeyspaceSettings, RateLimit, Retry};
use serde_json::{Value, json};

use crate::config::eviction_name;

pub(super) fn settings(settings: &KeyspaceSettings) -> Value {
    json!({
        "max_bytes": settings.max_bytes,
        "eviction": eviction_name(settings.eviction),
        "ttl_ms": settings.ttl.map(ms),
        "ttl_jitter": settings.ttl_jitter,
        "idle_ttl_ms": settings.idle_ttl.map(ms),
        "negative_ttl_ms": settings.negative_ttl.map(ms),
        "stale_while_revalidate_ms": ms(settings.stale_while_revalidate),
        "stale_if_error_ms": ms(settings.stale_if_error),
        "refresh_ahead": settings.refresh_ahead,
        "refresh_hot_keys": settings.refresh_hot_keys,
        "soft_timeout_ms": settings.soft_timeout.map(ms),
        "load_timeout_ms": ms(settings.load_timeout),
        "hot_copies": settings.hot_copies,
        "lease_ms": ms(settings.lease),
        "guard": guard(&settings.guard),
    })
}

fn guard(guard: &GuardSettings) -> Value {
    json!({
        "group": guard.group,
        "loads_max": guard.loads_max,
        "rate_limit": guard.rate_limit.map(rate_limit),
        "circuit_breaker": guard.circuit_breaker.map(circuit_breaker),
        "retry": guard.retry.map(retry),
    })
}

fn rate_limit(limit: RateLimit) -> Value {
    json!({ "per_second": limit.per_second, "burst": limit.burst, "wait_max_ms": ms(limit.wait_max) })
}

fn circuit_breaker(breaker: CircuitBreaker) -> Value {
    json!({
        "failure_rate": breaker.failure_rate,
        "window_ms": ms(breaker.window),
        "calls_min": breaker.calls_min,
        "open_for_ms": ms(breaker.open_for),
        "probes": breaker.probes,
    })
}

fn retry(retry: Retry) -> Value {
    json!({ "attempts": retry.attempts, "backoff_ms": ms(retry.backoff), "backoff_max_ms": ms(retry.backoff_max) })
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
