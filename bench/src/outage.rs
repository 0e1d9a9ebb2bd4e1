//! A source that fails, then slows, then recovers: how many calls reach it in each second, with and without a guard before it.
//!
//! Every read is of a key of its own, so that each needs a load. All guards run at the same time, each on a node of its own, with
//! the same readers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use distcache::{
    CircuitBreaker, DataSource, Engine, Fetched, GuardSettings, KeyspaceSpec, Limits, RateLimit, Retry, SourceError,
};
use futures_util::future::try_join_all;
use tokio::time::Instant;

use crate::Settings;
use crate::arrivals::{Call, arrive, errors, quantile};
use crate::error::BenchError;
use crate::picture::Picture;
use crate::report::{Bound, Table, Target};

const READS_PER_SECOND: u32 = 500;
const LOAD: Duration = Duration::from_millis(10);
const SLOW_LOAD: Duration = Duration::from_secs(2);
const LOAD_TIMEOUT: Duration = Duration::from_secs(1);
/// Not to be reached: without a guard nothing stands before the source.
const UNBOUNDED: usize = 100_000;

/// What the source is like, one after the other, for a quarter of the time each.
const PHASES: [&str; 4] = ["healthy", "fails", "slow", "recovered"];

struct Contestant {
    name: &'static str,
    guard: fn() -> GuardSettings,
}

fn breaker() -> CircuitBreaker {
    CircuitBreaker::new().window(Duration::from_secs(2)).open_for(Duration::from_secs(1))
}

const CONTESTANTS: [Contestant; 4] = [
    Contestant { name: "no guard", guard: || GuardSettings::new().loads_max(UNBOUNDED) },
    Contestant { name: "32 at once", guard: || GuardSettings::new().loads_max(32) },
    Contestant { name: "circuit breaker", guard: || GuardSettings::new().circuit_breaker(breaker()) },
    Contestant {
        name: "breaker, 400/s, 32 at once, retry",
        guard: || {
            let limit = RateLimit::per_second(400.0).burst(40).wait(Duration::from_millis(100));
            GuardSettings::new().loads_max(32).circuit_breaker(breaker()).rate_limit(limit).retry(Retry::new())
        },
    },
];

/// The calls that reached a source, by second.
#[derive(Clone)]
struct Ailing {
    calls: Arc<Mutex<Vec<u32>>>,
    at_once: Arc<AtomicU64>,
    at_once_max: Arc<AtomicU64>,
    begun: Instant,
    phase: Duration,
}

impl DataSource for Ailing {
    async fn fetch(&self, _: &str) -> Result<Fetched, SourceError> {
        let elapsed = self.begun.elapsed();
        self.note(elapsed.as_secs() as usize);
        let _leaves = AtOnce::enter(self);
        match (elapsed.as_secs_f64() / self.phase.as_secs_f64()) as usize {
            1 => {
                tokio::time::sleep(LOAD).await;
                Err(SourceError::unavailable("the source is down"))
            }
            phase => {
                tokio::time::sleep(if phase == 2 { SLOW_LOAD } else { LOAD }).await;
                Ok(Fetched::new("v"))
            }
        }
    }
}

impl Ailing {
    fn note(&self, second: usize) {
        let mut calls = self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(count) = calls.get_mut(second) {
            *count += 1;
        }
    }
}

struct AtOnce<'a>(&'a Ailing);

impl<'a> AtOnce<'a> {
    fn enter(source: &'a Ailing) -> Self {
        let now = source.at_once.fetch_add(1, Relaxed) + 1;
        source.at_once_max.fetch_max(now, Relaxed);
        Self(source)
    }
}

impl Drop for AtOnce<'_> {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Relaxed);
    }
}

struct Outcome {
    per_second: Vec<u32>,
    at_once_max: u64,
    reads: Vec<Call>,
}

pub fn run(settings: Settings, picture: Option<PathBuf>) -> Result<Vec<Target>, BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let phase = Duration::from_secs(settings.pick(15, 3));
    let outcomes = runtime.block_on(async { try_join_all(CONTESTANTS.iter().map(|one| play(one, phase))).await })?;
    let title = format!(
        "{READS_PER_SECOND} reads a second that each need a load; the source is healthy, fails, is slow ({SLOW_LOAD:?} a call) and \
         has recovered for {phase:?} each"
    );
    print_calls(&outcomes, phase, settings, title);
    print_readers(&outcomes, phase, settings);
    let series: Vec<(&str, &[u32])> =
        CONTESTANTS.iter().zip(&outcomes).map(|(one, outcome)| (one.name, &*outcome.per_second)).collect();
    if let Some(path) = picture {
        let marks: Vec<_> =
            PHASES.iter().enumerate().map(|(number, name)| (phase_begins(phase, number), (*name).to_owned())).collect();
        let seconds = phase_begins(phase, PHASES.len());
        Picture { counted: "calls of the source a second", series: &series, marks: &marks, seconds }.draw(&path)?;
        println!("\n  Calls of the source over time: {}", path.display());
    }
    Ok(targets(&outcomes, phase))
}

fn phase_begins(phase: Duration, number: usize) -> u32 {
    phase.as_secs() as u32 * number as u32
}

async fn play(contestant: &Contestant, phase: Duration) -> Result<Outcome, BenchError> {
    let time = phase * PHASES.len() as u32;
    let source = Ailing {
        calls: Arc::new(Mutex::new(vec![0; time.as_secs() as usize])),
        at_once: Arc::default(),
        at_once_max: Arc::default(),
        begun: Instant::now(),
        phase,
    };
    let spec = KeyspaceSpec::new("outage", source.clone()).load_timeout(LOAD_TIMEOUT).guard((contestant.guard)());
    let limits = Limits { loads_queued_max: UNBOUNDED, ..Default::default() };
    let engine = Engine::builder().keyspace(spec).limits(limits).start().await?;
    let keyspace = engine.keyspace("outage")?;
    let reads = arrive(READS_PER_SECOND, time, |number| {
        let keyspace = keyspace.clone();
        async move { keyspace.get(&number.to_string()).await.is_err() }
    });
    let reads = reads.await;
    engine.shutdown(Duration::from_secs(1)).await;
    let per_second = source.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    Ok(Outcome { per_second, at_once_max: source.at_once_max.load(Relaxed), reads })
}

/// A table of the calls that reached the source, a few seconds a row.
fn print_calls(outcomes: &[Outcome], phase: Duration, settings: Settings, title: String) {
    let step = (phase.as_secs() as usize / 3).max(1);
    let mut columns = vec!["second, the source: calls a second"];
    columns.extend(CONTESTANTS.iter().map(|one| one.name));
    let mut table = Table::new(title, &columns);
    for start in (0..outcomes[0].per_second.len()).step_by(step) {
        let name = format!("{start} to {}, {}", start + step, PHASES[start / phase.as_secs() as usize]);
        let mean = |outcome: &Outcome| {
            let seconds = outcome.per_second.iter().skip(start).take(step);
            format!("{:.0}", f64::from(seconds.sum::<u32>()) / step as f64)
        };
        table.row(std::iter::once(name).chain(outcomes.iter().map(mean)));
    }
    let most = outcomes.iter().map(|outcome| outcome.at_once_max.to_string());
    table.row(std::iter::once("most calls at once".to_owned()).chain(most));
    table.print(settings.style());
}

/// What the readers got meanwhile.
fn print_readers(outcomes: &[Outcome], phase: Duration, settings: Settings) {
    let mut columns = vec!["what readers got: errors, p99 ms"];
    columns.extend(CONTESTANTS.iter().map(|one| one.name));
    let mut table = Table::new("The readers", &columns);
    for (number, name) in PHASES.iter().enumerate() {
        let cell = |outcome: &Outcome| {
            let reads = of_phase(&outcome.reads, phase, number);
            let part = errors(&reads) as f64 / reads.len().max(1) as f64 * 100.0;
            format!("{part:.1} %, {:.0}", quantile(&reads, 0.99).as_secs_f64() * 1e3)
        };
        table.row(std::iter::once((*name).to_owned()).chain(outcomes.iter().map(cell)));
    }
    table.print(settings.style());
}

fn of_phase(reads: &[Call], phase: Duration, number: usize) -> Vec<Call> {
    let (from, to) = (phase * number as u32, phase * (number as u32 + 1));
    reads.iter().filter(|read| read.at >= from && read.at < to).copied().collect()
}

fn targets(outcomes: &[Outcome], phase: Duration) -> Vec<Target> {
    let seconds = phase.as_secs() as usize;
    let calls = |outcome: &Outcome, phase: usize| -> f64 {
        outcome.per_second.iter().skip(phase * seconds).take(seconds).map(|count| f64::from(*count)).sum()
    };
    let recovered = of_phase(&outcomes[2].reads, phase, 3);
    // The circuit closes within its open time of the recovery; from the second half of the phase on all is as before.
    let late = recovered.split_at(recovered.len() / 2).1;
    vec![
        Target {
            what: "calls that reach a failing source, circuit breaker beside no guard".into(),
            bound: Bound::AtMost(0.1),
            measured: calls(&outcomes[2], 1) / calls(&outcomes[0], 1),
        },
        Target {
            what: "calls at once of a slow source, 32 at once".into(),
            bound: Bound::AtMost(32.0),
            measured: outcomes[1].at_once_max as f64,
        },
        Target {
            what: "errors of readers once the source has recovered, circuit breaker".into(),
            bound: Bound::AtMost(0.0),
            measured: errors(late) as f64,
        },
    ]
}
