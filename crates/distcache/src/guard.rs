//! What stands before a source, so that a cache in trouble does not make a database's trouble worse: a bound on concurrent
//! loads, a rate limit, a circuit breaker, retries.
//!
//! Knows neither keys nor stores. The invariants: nothing here waits longer than its caller said; whoever was let through gives
//! its place back whatever becomes of it, also by a panic; `NotFound` is a success.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::StartError;
use crate::spec::{NAME_BYTES_MAX, is_keyspace_name};

mod access;
mod breaker;
mod circuit;
mod places;
mod rate;
mod retry;
mod turns;
mod way;

pub(crate) use access::{Access, Guards};

/// What no guard is set to, since it would guard nothing or let nothing through.
const LOADS_MAX: usize = 1 << 20;
const PER_SECOND_MIN: f64 = 1.0 / 86_400.0;
const PER_SECOND_MAX: f64 = 1e9;
const WINDOW_MIN: Duration = Duration::from_millis(100);
const CALLS_MAX: u32 = 1_000_000;
const PROBES_MAX: u32 = 1_000;
const ATTEMPTS_MAX: u32 = 100;
const DAY: Duration = Duration::from_secs(86_400);

/// What stands between the loads of a keyspace and its source, on each node. Data: it travels with the keyspace's settings.
///
/// ```
/// use std::time::Duration;
/// use distcache::{CircuitBreaker, GuardSettings, RateLimit, Retry};
///
/// let guard = GuardSettings::new()
///     .loads_max(32)
///     .rate_limit(RateLimit::per_second(500.0).wait(Duration::from_millis(100)))
///     .circuit_breaker(CircuitBreaker::new())
///     .retry(Retry::new());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GuardSettings {
    /// Keyspaces that name the same group stand behind one guard on each node, because they share a source; `None`: a guard
    /// of the keyspace's own.
    pub group: Option<String>,
    /// Loads that run at once, a batch counted once; further ones wait. `None`:
    /// [`Limits::loads_running_max`](crate::Limits::loads_running_max).
    pub loads_max: Option<usize>,
    /// How many loads may begin in a time; `None`: any number.
    pub rate_limit: Option<RateLimit>,
    /// Whether a source that fails is left alone for a while; `None`: it is asked all the same.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Whether a load that failed in passing is tried again; `None`: it is not.
    pub retry: Option<Retry>,
}

/// How many loads may begin in a time: a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RateLimit {
    /// Loads a second in the long run, a batch counted once.
    pub per_second: f64,
    /// Loads that may begin at once after a quiet time; `None`: those of one second, at least one.
    pub burst: Option<u32>,
    /// How long a load waits for its turn before it is refused; zero: not at all.
    pub wait_max: Duration,
}

/// When a source counts as down, and for how long it is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CircuitBreaker {
    /// Part of the calls, 0 to 1, that must fail for the circuit to open. Time-outs, panics and
    /// [`SourceError::Unavailable`](crate::SourceError::Unavailable) are failures; `NotFound` and
    /// [`SourceError::Failed`](crate::SourceError::Failed) are answers.
    pub failure_rate: f32,
    /// The time looked back on.
    pub window: Duration,
    /// Calls that must have been made within it before anything is concluded.
    pub calls_min: u32,
    /// How long the circuit stays open before the source is tried again.
    pub open_for: Duration,
    /// Probes that must succeed one after the other before the circuit closes.
    pub probes: u32,
}

/// How a load that failed in passing is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Retry {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// The longest pause before the second attempt; each later one may be twice as long. The pause is drawn from zero to that
    /// (["full jitter"](https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/)).
    pub backoff: Duration,
    /// The longest pause of all.
    pub backoff_max: Duration,
}

/// Whether loads are let through to the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CircuitState {
    /// They are.
    #[default]
    Closed,
    /// They are refused: the source has failed too often.
    Open,
    /// One at a time is, to see whether the source is back.
    HalfOpen,
}

impl GuardSettings {
    /// A bound on concurrent loads, nothing else.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shares one guard with the other keyspaces that name this group, because they share a source. They have to name the
    /// same settings too.
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// Bounds the loads that run at once, a batch counted once.
    pub fn loads_max(mut self, loads: usize) -> Self {
        self.loads_max = Some(loads);
        self
    }

    /// Bounds how many loads may begin in a time.
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.rate_limit = Some(limit);
        self
    }

    /// Leaves a source that fails alone for a while.
    pub fn circuit_breaker(mut self, breaker: CircuitBreaker) -> Self {
        self.circuit_breaker = Some(breaker);
        self
    }

    /// Tries a load that failed in passing again.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        if let Some(name) = self.group.as_ref().filter(|name| !is_keyspace_name(name)) {
            let reason = format!("must be 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.'");
            return Err(StartError::invalid("keyspace.guard.group", name, reason));
        }
        within("keyspace.guard.loads_max", self.loads_max.unwrap_or(1), 1, LOADS_MAX)?;
        self.rate_limit.map_or(Ok(()), |limit| limit.check())?;
        self.circuit_breaker.map_or(Ok(()), |breaker| breaker.check())?;
        self.retry.map_or(Ok(()), |retry| retry.check())
    }
}

/// Refuses what is not between these, and what cannot be compared.
fn within<T: Copy + PartialOrd + fmt::Debug>(field: &'static str, value: T, min: T, max: T) -> Result<(), StartError> {
    match (min..=max).contains(&value) {
        true => Ok(()),
        false => {
            let reason = format!("must be from {min:?} to {max:?}");
            Err(StartError::invalid(field, value, reason))
        }
    }
}

impl RateLimit {
    fn check(&self) -> Result<(), StartError> {
        within("keyspace.guard.rate_limit.per_second", self.per_second, PER_SECOND_MIN, PER_SECOND_MAX)?;
        within("keyspace.guard.rate_limit.burst", self.burst.unwrap_or(1), 1, u32::MAX)?;
        within("keyspace.guard.rate_limit.wait_max", self.wait_max, Duration::ZERO, DAY)
    }

    /// So many loads a second, with a burst of one second's; what is over it is refused at once.
    pub fn per_second(loads: f64) -> Self {
        Self { per_second: loads, burst: None, wait_max: Duration::ZERO }
    }

    /// So many loads may begin at once after a quiet time.
    pub fn burst(mut self, loads: u32) -> Self {
        self.burst = Some(loads);
        self
    }

    /// A load waits up to this long for its turn.
    pub fn wait(mut self, wait_max: Duration) -> Self {
        self.wait_max = wait_max;
        self
    }
}

impl CircuitBreaker {
    fn check(&self) -> Result<(), StartError> {
        // Of a part of zero, no failure at all would be enough.
        if !(self.failure_rate > 0.0 && self.failure_rate <= 1.0) {
            let (field, reason) = ("keyspace.guard.circuit_breaker.failure_rate", "must be over 0 and at most 1");
            return Err(StartError::invalid(field, self.failure_rate, reason));
        }
        within("keyspace.guard.circuit_breaker.window", self.window, WINDOW_MIN, DAY)?;
        within("keyspace.guard.circuit_breaker.calls_min", self.calls_min, 1, CALLS_MAX)?;
        within("keyspace.guard.circuit_breaker.open_for", self.open_for, Duration::from_millis(1), DAY)?;
        within("keyspace.guard.circuit_breaker.probes", self.probes, 1, PROBES_MAX)
    }

    /// Opens for 5 s when half of at least 20 calls within 10 s have failed; closes after one probe that did not.
    pub fn new() -> Self {
        Self {
            failure_rate: 0.5,
            window: Duration::from_secs(10),
            calls_min: 20,
            open_for: Duration::from_secs(5),
            probes: 1,
        }
    }

    /// Part of the calls, 0 to 1, that must fail.
    pub fn failure_rate(mut self, part: f32) -> Self {
        self.failure_rate = part;
        self
    }

    /// The time looked back on.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Calls within the window before anything is concluded.
    pub fn calls_min(mut self, calls: u32) -> Self {
        self.calls_min = calls;
        self
    }

    /// How long the circuit stays open.
    pub fn open_for(mut self, time: Duration) -> Self {
        self.open_for = time;
        self
    }

    /// Probes that must succeed before it closes.
    pub fn probes(mut self, probes: u32) -> Self {
        self.probes = probes;
        self
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self::new()
    }
}

impl Retry {
    fn check(&self) -> Result<(), StartError> {
        within("keyspace.guard.retry.attempts", self.attempts, 1, ATTEMPTS_MAX)?;
        within("keyspace.guard.retry.backoff", self.backoff, Duration::from_millis(1), DAY)?;
        within("keyspace.guard.retry.backoff_max", self.backoff_max, self.backoff, DAY)
    }

    /// Three attempts, pauses of up to 50 ms and 100 ms.
    pub fn new() -> Self {
        Self { attempts: 3, backoff: Duration::from_millis(50), backoff_max: Duration::from_secs(2) }
    }

    /// Attempts in all, the first included.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The longest pause before the second attempt; it doubles from there up to `max`.
    pub fn backoff(mut self, first: Duration, max: Duration) -> Self {
        (self.backoff, self.backoff_max) = (first, max);
        self
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_that_cannot_work_are_refused_by_field_and_value() {
        let refused = |guard: GuardSettings| guard.check().unwrap_err().to_string();
        let rate = |limit: RateLimit| refused(GuardSettings::new().rate_limit(limit));
        let breaker = |breaker: CircuitBreaker| refused(GuardSettings::new().circuit_breaker(breaker));
        let retry = |retry: Retry| refused(GuardSettings::new().retry(retry));
        for per_second in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9, 1e12] {
            let expected = format!("keyspace.guard.rate_limit.per_second = {per_second:?}: must be from");
            assert!(rate(RateLimit::per_second(per_second)).starts_with(&expected), "{expected}");
        }
        assert!(rate(RateLimit::per_second(1.0).burst(0)).starts_with("keyspace.guard.rate_limit.burst = 0:"));
        let endless = RateLimit::per_second(1.0).wait(Duration::MAX);
        assert!(rate(endless).starts_with("keyspace.guard.rate_limit.wait_max = "));
        for part in [0.0, -0.5, f32::NAN, f32::INFINITY, 1.1] {
            let expected =
                format!("keyspace.guard.circuit_breaker.failure_rate = {part:?}: must be over 0 and at most 1");
            assert_eq!(breaker(CircuitBreaker::new().failure_rate(part)), expected);
        }
        let no_window = CircuitBreaker::new().window(Duration::ZERO);
        assert_eq!(breaker(no_window), "keyspace.guard.circuit_breaker.window = 0ns: must be from 100ms to 86400s");
        let calls = CircuitBreaker::new().calls_min(0);
        assert!(breaker(calls).starts_with("keyspace.guard.circuit_breaker.calls_min = 0:"));
        let never = CircuitBreaker::new().open_for(Duration::ZERO);
        assert!(breaker(never).starts_with("keyspace.guard.circuit_breaker.open_for = 0ns:"));
        assert!(breaker(CircuitBreaker::new().probes(0)).starts_with("keyspace.guard.circuit_breaker.probes = 0:"));
        assert!(retry(Retry::new().attempts(0)).starts_with("keyspace.guard.retry.attempts = 0:"));
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3_600));
        assert!(retry(Retry::new().backoff(Duration::ZERO, hour)).starts_with("keyspace.guard.retry.backoff = 0ns:"));
        assert!(retry(Retry::new().backoff(hour, second)).starts_with("keyspace.guard.retry.backoff_max = 1s:"));
        assert!(refused(GuardSettings::new().loads_max(0)).starts_with("keyspace.guard.loads_max = 0:"));
        assert!(refused(GuardSettings::new().group("a b")).starts_with("keyspace.guard.group = \"a b\":"));
    }

    #[test]
    fn the_defaults_and_a_load_a_day_pass() {
        GuardSettings::new().check().unwrap();
        let rate = RateLimit::per_second(1.0 / 86_400.0);
        let all = GuardSettings::new().group("db").loads_max(1).rate_limit(rate).retry(Retry::new());
        all.circuit_breaker(CircuitBreaker::new()).check().unwrap();
    }
}
