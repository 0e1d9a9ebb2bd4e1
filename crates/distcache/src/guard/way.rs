//! The way of a load to its source: circuit, rate limit, a place among those that run, the call itself, and all of it again
//! where it failed in passing.
//!
//! Knows no keyspace and no store; keys are only what is asked again. The invariants: the way takes no longer than its caller
//! said, and every key gets one answer; a source that panics or hangs gives its place back and has its failure counted; the
//! source is not asked before all have let the load through.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use super::breaker::Verdict;
use super::circuit::{Circuit, Whose};
use super::places::{Place, Places};
use super::turns::Turns;
use super::{CircuitState, GuardSettings, Retry};
use crate::builder::TIMEOUT_MAX;
use crate::error::{Error, Overload};
use crate::net::{self, Clock};
use crate::source::SourceError;
use crate::stats::{Count, Counters, Took};

/// What stands before one source, for all keyspaces that ask it.
pub(super) struct Guard {
    loads_max_default: usize,
    circuit: Circuit,
    turns: Turns,
    places: Places,
    retry: Mutex<Option<Retry>>,
}

/// For whom a load is made, and how long it may take.
pub(super) struct Errand<'a> {
    pub(super) limit: Duration,
    pub(super) counters: &'a Counters,
    pub(super) gauges: &'a Gauges,
}

/// Loads of one keyspace that are on their way now, a batch counted once.
#[derive(Default)]
pub(super) struct Gauges {
    pub(super) running: AtomicU64,
    pub(super) waiting: AtomicU64,
}

/// One more, until it is dropped.
struct Gauged<'a>(&'a AtomicU64);

impl Guard {
    pub(super) fn new(settings: &GuardSettings, loads_max_default: usize, whose: Whose, clock: Clock) -> Self {
        Self {
            loads_max_default,
            circuit: Circuit::new(settings.circuit_breaker, whose, clock),
            turns: Turns::new(settings.rate_limit, clock),
            places: Places::new(settings.loads_max.unwrap_or(loads_max_default)),
            retry: Mutex::new(settings.retry),
        }
    }

    /// Takes other settings while loads are on their way. What has been seen of the source is kept where its settings are.
    pub(super) fn update(&self, settings: &GuardSettings) {
        self.circuit.retune(settings.circuit_breaker);
        self.turns.retune(settings.rate_limit);
        self.places.resize(settings.loads_max.unwrap_or(self.loads_max_default));
        *self.retry.lock() = settings.retry;
    }

    pub(super) fn whose(&self) -> &Whose {
        self.circuit.whose()
    }

    pub(super) fn circuit(&self) -> CircuitState {
        self.circuit.state()
    }

    /// Makes one call for all of these keys, and further ones for those that it failed in passing.
    pub(super) async fn run<'k, T, F>(
        &self,
        errand: &Errand<'_>,
        keys: &[&'k str],
        call: impl Fn(Vec<&'k str>) -> F,
    ) -> Vec<Result<T, Error>>
    where
        F: Future<Output = Vec<Result<T, SourceError>>>,
    {
        let deadline = Instant::now() + errand.limit.min(TIMEOUT_MAX);
        let retry = *self.retry.lock();
        let mut answers = match self.attempt(errand, deadline, keys.to_vec(), &call).await {
            Ok(answers) => answers,
            Err(refusal) => return errand.refused(&refusal, keys.len()),
        };
        for made in 1.. {
            let again = failed_in_passing(&answers);
            let left = deadline.saturating_duration_since(Instant::now());
            let pause = retry.filter(|_| !again.is_empty()).and_then(|retry| retry.pause(made, left, net::chance()));
            let Some(pause) = pause else { break };
            {
                let _waiting = Gauged::new(&errand.gauges.waiting);
                sleep(pause).await;
            }
            let wanted = again.iter().map(|&n| keys[n]).collect();
            // What the source said tells more than that it is not to be asked again.
            let Ok(anew) = self.attempt(errand, deadline, wanted, &call).await else { break };
            errand.counters.add(Count::LoadRetries, again.len() as u64);
            again.into_iter().zip(anew).for_each(|(n, answer)| answers[n] = answer);
        }
        answers
    }

    /// One call, or the reason why the source was not asked.
    async fn attempt<'k, T, F>(
        &self,
        errand: &Errand<'_>,
        deadline: Instant,
        keys: Vec<&'k str>,
        call: &impl Fn(Vec<&'k str>) -> F,
    ) -> Result<Vec<Result<T, Error>>, Error>
    where
        F: Future<Output = Vec<Result<T, SourceError>>>,
    {
        let waiting = Gauged::new(&errand.gauges.waiting);
        self.circuit.check()?;
        let turn = self.turns.take(deadline).await?;
        let _place = self.place(errand, deadline).await?;
        // Again and for good: it may have opened in the meantime, and a probe is not to hold others up while it waits.
        let leave = self.circuit.admit(deadline.saturating_duration_since(Instant::now()))?;
        turn.use_up();
        drop(waiting);
        let _running = Gauged::new(&errand.gauges.running);
        let begun = std::time::Instant::now();
        let answers = ask(errand.limit, deadline, keys, call).await;
        let took = begun.elapsed();
        errand.counters.add(Count::LoadMicros, took.as_micros() as u64);
        errand.counters.took(Took::Load, took);
        if leave.report(verdict(&answers)) {
            errand.counters.one(Count::CircuitOpened);
        }
        Ok(answers)
    }

    async fn place(&self, errand: &Errand<'_>, deadline: Instant) -> Result<Place<'_>, Error> {
        if let Some(place) = self.places.try_take() {
            return Ok(place);
        }
        errand.counters.one(Count::GuardWaits);
        // The other half is for the call: one that begins with its time all but over only bothers the source.
        let now = Instant::now();
        let wait_max = deadline.saturating_duration_since(now) / 2;
        let place = timeout_at(now + wait_max, self.places.take()).await;
        place.map_err(|_| Error::Overloaded { what: Overload::Loads, limit: self.places.len() })
    }
}

impl Errand<'_> {
    fn refused<T>(&self, refusal: &Error, keys: usize) -> Vec<Result<T, Error>> {
        let count = match refusal {
            Error::RateLimited { .. } => Count::RateLimited,
            Error::CircuitOpen { .. } => Count::CircuitRefused,
            _ => Count::Overloads,
        };
        self.counters.add(count, keys as u64);
        (0..keys).map(|_| Err(refusal.clone())).collect()
    }
}

impl<'a> Gauged<'a> {
    fn new(gauge: &'a AtomicU64) -> Self {
        gauge.fetch_add(1, Relaxed);
        Self(gauge)
    }
}

impl Drop for Gauged<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Asks the source, and turns whatever it does into one answer per key.
async fn ask<'k, T, F>(
    limit: Duration,
    deadline: Instant,
    keys: Vec<&'k str>,
    call: &impl Fn(Vec<&'k str>) -> F,
) -> Vec<Result<T, Error>>
where
    F: Future<Output = Vec<Result<T, SourceError>>>,
{
    let wanted = keys.len();
    let failed = |error: Error| (0..wanted).map(|_| Err(error.clone())).collect();
    // The call itself stands inside, since a source may panic before it gives a future.
    let asked = AssertUnwindSafe(async { call(keys).await });
    match timeout_at(deadline, asked.catch_unwind()).await {
        Ok(Ok(answers)) if answers.len() == wanted => {
            answers.into_iter().map(|answer| answer.map_err(Error::from)).collect()
        }
        Ok(Ok(answers)) => {
            let reason = format!("fetch_many gave {} answers to {wanted} keys", answers.len());
            failed(Error::Source(SourceError::failed(reason)))
        }
        Ok(Err(panic)) => failed(Error::SourcePanicked { message: panic_message(panic.as_ref()) }),
        Err(_) => failed(Error::LoadTimeout { limit }),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// What the answers to one call say of the source: one real answer among them, if only "not found", and it is up.
fn verdict<T>(answers: &[Result<T, Error>]) -> Verdict {
    let is_answer = |answer: &Result<T, Error>| match answer {
        Ok(_) | Err(Error::NotFound) => true,
        Err(Error::Source(error)) => !error.is_retryable(),
        Err(_) => false,
    };
    if answers.iter().any(is_answer) { Verdict::Up } else { Verdict::Down }
}

fn failed_in_passing<T>(answers: &[Result<T, Error>]) -> Vec<usize> {
    let passes = |answer: &Result<T, Error>| matches!(answer, Err(Error::Source(error)) if error.is_retryable());
    answers.iter().enumerate().filter(|(_, answer)| passes(answer)).map(|(n, _)| n).collect()
}

#[cfg(test)]
mod tests;
