//! Callers that come when they come, whether or not the earlier ones have been answered.
//!
//! Knows no cache. The invariant: a caller's time begins when it should have come, not when the machine got round to it, so that a
//! stall counts for everybody who would have met it.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

/// What became of one caller.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// When it came, from the beginning.
    pub at: Duration,
    pub took: Duration,
    pub is_error: bool,
}

/// Callers at an even rate for a time; `call` is told their number and says whether it failed.
pub async fn arrive<F>(per_second: u32, time: Duration, call: impl Fn(u64) -> F) -> Vec<Call>
where
    F: Future<Output = bool> + Send + 'static,
{
    let began = Instant::now();
    let callers = (time.as_secs_f64() * f64::from(per_second)) as u64;
    let mut under_way = JoinSet::new();
    for number in 0..callers {
        let at = Duration::from_secs_f64(number as f64 / f64::from(per_second));
        tokio::time::sleep_until(began + at).await;
        let answered = call(number);
        under_way.spawn(async move {
            let is_error = answered.await;
            Call { at, took: began.elapsed() - at, is_error }
        });
    }
    let mut calls = under_way.join_all().await;
    calls.sort_unstable_by_key(|call| call.at);
    calls
}

/// The time within which this part of the callers was answered.
pub fn quantile(calls: &[Call], part: f64) -> Duration {
    let mut times: Vec<Duration> = calls.iter().map(|call| call.took).collect();
    times.sort_unstable();
    let place = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
    times.get(place).copied().unwrap_or_default()
}

pub fn errors(calls: &[Call]) -> usize {
    calls.iter().filter(|call| call.is_error).count()
}
