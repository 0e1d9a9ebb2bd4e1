//! What stands before a source, so that a cache in trouble does not make a database's trouble worse: a bound on concurrent
//! loads, a rate limit, a circuit breaker, retries.
//!
//! Knows neither keys nor stores. The invariants: nothing here waits longer than its caller said; whoever was let through gives
//! its place back whatever becomes of it, also by a panic; `NotFound` is a success.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::StartError;

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
        Ok(())
    }
}

impl RateLimit {
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
