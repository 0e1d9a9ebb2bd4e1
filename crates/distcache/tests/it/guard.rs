//! What stands before a source: circuit breaker, rate limit, places, retries, and groups that share them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use distcache::{
    CircuitBreaker, CircuitState, DataSource, Engine, Error, Fetched, GuardSettings, Keyspace, KeyspaceSpec, RateLimit,
    Retry, SourceError,
};
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use crate::harness::*;
use crate::logbook;

const SOON: Duration = Duration::from_millis(100);
/// Longer than any test.
const LATE: Duration = Duration::from_secs(600);

fn down() -> SourceError {
    SourceError::unavailable("down")
}

fn breaker() -> CircuitBreaker {
    CircuitBreaker::new().calls_min(4).open_for(LATE)
}

fn guarded(guard: GuardSettings) -> impl Fn(KeyspaceSpec) -> KeyspaceSpec + Send + Sync + 'static {
    move |spec| spec.guard(guard.clone())
}

async fn fail_until_open(things: &Keyspace) {
    for n in 0.. {
        match things.get(&format!("failing {n}")).await.unwrap_err() {
            Error::CircuitOpen { .. } => return,
            error => assert!(n < 100, "the circuit does not open: {error}"),
        }
    }
}

/// Asks until the source answers, through however many probes.
async fn get_when_back(things: &Keyspace, key: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while let Err(error) = things.get(key).await {
        assert!(std::time::Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A source of which each load waits until the test lets it end.
#[derive(Clone)]
struct Held(Arc<Semaphore>);

impl Held {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    fn let_end(&self, loads: usize) {
        self.0.add_permits(loads);
    }
}

impl DataSource for Held {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        self.0.acquire().await.unwrap().forget();
        Ok(Fetched::new(value_of(key)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_found_never_trips_the_breaker_on_any_node() {
    let source = Source::new();
    source.answer(|key| match key.starts_with("missing") {
        true => Err(SourceError::NotFound),
        false => Err(SourceError::failed("bad row")),
    });
    let nodes = Plan::new(&source).spec(guarded(GuardSettings::new().circuit_breaker(breaker()))).cluster(2).await;
    for n in 0..60 {
        let node = &nodes[n % 2];
        assert!(node.get(KEYSPACE, &format!("missing {n}")).await.unwrap_err().is_not_found());
        let error = node.get(KEYSPACE, &format!("broken {n}")).await.unwrap_err();
        assert!(matches!(error, Error::Source(SourceError::Failed(_))), "{error}");
    }
    assert_eq!(source.loads(), 120, "each was loaded once");
    for node in &nodes {
        let stats = things(node).stats();
        assert_eq!((stats.circuit, stats.circuit_opened, stats.circuit_refused), (CircuitState::Closed, 0, 0));
    }
}

#[tokio::test]
async fn a_source_that_fails_is_left_alone_and_asked_again_later() {
    logbook::open();
    let source = Source::new();
    source.answer(|_| Err(down()));
    let guard = GuardSettings::new().group("left-alone").circuit_breaker(breaker().open_for(SOON).probes(2));
    let (_engine, things) = alone_with(&source, guarded(guard)).await;
    fail_until_open(&things).await;
    let (loads, stats) = (source.loads(), things.stats());
    assert_eq!(
        (stats.circuit_opened, stats.circuit_refused, stats.load_failures),
        (1, 1, loads),
        "a refusal is no load"
    );
    logbook::warns(&["group left-alone", "calls=4", "failures=4"]).await;
    eventually("a probe is due", || things.stats().circuit == CircuitState::HalfOpen).await;
    things.get("probe").await.unwrap_err();
    assert_eq!((source.loads(), things.stats().circuit_opened), (loads + 1, 1), "it stayed open");
    source.set_value("back");
    get_when_back(&things, "a").await;
    get_when_back(&things, "b").await;
    assert_eq!(things.stats().circuit, CircuitState::Closed);
    let lines = logbook::text();
    let of_this =
        |word: &str| lines.lines().filter(|line| line.contains("group left-alone") && line.contains(word)).count();
    assert_eq!((of_this("WARN"), of_this("INFO")), (1, 1), "once each, however many calls were refused");
}

#[tokio::test]
async fn a_panic_in_the_half_open_probe_does_not_jam_the_breaker() {
    let source = Source::new();
    source.answer(|_| panic!("as the test says"));
    let guard = GuardSettings::new().circuit_breaker(breaker().open_for(SOON));
    let (_engine, things) = alone_with(&source, guarded(guard)).await;
    fail_until_open(&things).await;
    for n in 0..3 {
        eventually("a probe is due", || things.stats().circuit == CircuitState::HalfOpen).await;
        let error = things.get(&format!("probe {n}")).await.unwrap_err();
        assert!(matches!(error, Error::SourcePanicked { .. }), "{error}");
    }
    source.set_value("sane again");
    get_when_back(&things, "k").await;
    assert_eq!(things.get("another").await.unwrap(), "sane again");
    let stats = things.stats();
    assert_eq!((stats.circuit, stats.loads_running, stats.loads_waiting), (CircuitState::Closed, 0, 0));
}

#[tokio::test]
async fn a_rate_limit_without_a_burst_lets_loads_through() {
    for (per_second, burst) in [(0.001, 1), (3.0, 3)] {
        let source = Source::new();
        let guard = GuardSettings::new().rate_limit(RateLimit::per_second(per_second));
        let (_engine, things) = alone_with(&source, guarded(guard)).await;
        for n in 0..burst {
            assert_eq!(things.get(&n.to_string()).await.unwrap(), value_of(&n.to_string()));
        }
    }
}

#[tokio::test]
async fn loads_over_the_rate_limit_are_refused_or_wait_as_they_were_told() {
    let source = Source::new();
    let one_in_a_while = RateLimit::per_second(0.01).burst(2);
    let (_engine, things) = alone_with(&source, guarded(GuardSettings::new().rate_limit(one_in_a_while))).await;
    let keys = ["a", "b", "c"];
    assert!(things.get_many(&keys).await.unwrap().iter().all(Result::is_ok), "a batch counts once");
    things.get("d").await.unwrap();
    let error = things.get("e").await.unwrap_err();
    let Error::RateLimited { retry_after } = error else { panic!("{error}") };
    assert!(error.is_retryable() && (50..=100).contains(&retry_after.as_secs()), "{retry_after:?}");
    assert_eq!(things.get("a").await.unwrap(), value_of("a"), "what is cached is answered");
    assert_eq!((things.stats().rate_limited, source.loads()), (1, 4));

    let patient = RateLimit::per_second(20.0).burst(1).wait(PATIENCE);
    let (_engine, things) = alone_with(&source, guarded(GuardSettings::new().rate_limit(patient))).await;
    let begun = std::time::Instant::now();
    let keys: Vec<_> = (0..5).map(|n| n.to_string()).collect();
    for value in join_all(keys.iter().map(|key| things.get(key))).await {
        value.unwrap();
    }
    assert!(begun.elapsed() >= Duration::from_millis(180), "four had to wait, 50 ms each: {:?}", begun.elapsed());
    assert_eq!((things.stats().rate_limited, things.stats().loads_waiting), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_owners_guard_refuses_keeps_its_type_and_is_not_loaded_elsewhere() {
    let source = Source::new();
    source.answer(|_| Err(down()));
    let guard = GuardSettings::new().circuit_breaker(breaker());
    let nodes = Plan::new(&source).spec(guarded(guard)).cluster(2).await;
    let mut keys = keys_of(&nodes, 0);
    while things(&nodes[0]).stats().circuit == CircuitState::Closed {
        nodes[1].get(KEYSPACE, &keys.next().unwrap()).await.unwrap_err();
    }
    let error = nodes[1].get(KEYSPACE, &keys.next().unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::CircuitOpen { retry_after } if retry_after > LATE / 2), "{error}");
    assert_eq!((source.loads(), things(&nodes[1]).stats().circuit), (4, CircuitState::Closed), "each node has its own");

    let source = Source::new();
    let guard = GuardSettings::new().rate_limit(RateLimit::per_second(0.001));
    let nodes = Plan::new(&source).spec(guarded(guard)).cluster(2).await;
    let keys: Vec<_> = keys_of(&nodes, 0).take(2).collect();
    nodes[1].get(KEYSPACE, &keys[0]).await.unwrap();
    let error = nodes[1].get(KEYSPACE, &keys[1]).await.unwrap_err();
    assert!(matches!(error, Error::RateLimited { retry_after } if retry_after > LATE), "{error}");
    assert_eq!(source.loads(), 1);
}

#[tokio::test]
async fn a_load_that_gets_no_place_in_its_time_says_so() {
    let source = Held::new();
    let spec = |limit| {
        KeyspaceSpec::new(KEYSPACE, source.clone()).guard(GuardSettings::new().loads_max(1)).load_timeout(limit)
    };
    let engine = Engine::builder().keyspace(spec(LATE)).start().await.unwrap();
    let things = things(&engine);
    let first = tokio::spawn({
        let things = things.clone();
        async move { things.get("a").await }
    });
    eventually("the first runs", || things.stats().loads_running == 1).await;
    engine.update_keyspace(spec(SOON)).await.unwrap();
    let error = things.get("b").await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { what: distcache::Overload::Loads, limit: 1 }), "{error}");
    let stats = things.stats();
    assert_eq!((stats.guard_waits, stats.overloads, stats.loads_running, stats.loads_waiting), (1, 1, 1, 0));
    source.let_end(1);
    assert_eq!(first.await.unwrap().unwrap(), value_of("a"), "under the limit that it began with");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_recovers_a_source_that_fails_once() {
    let source = Source::new();
    let failed = Arc::new(AtomicBool::new(false));
    source.answer(move |key| match key.starts_with("flaky") && !failed.swap(true, SeqCst) {
        true => Err(down()),
        false => Ok(Fetched::new(value_of(key))),
    });
    let retry = Retry::new().backoff(Duration::from_millis(1), Duration::from_millis(5));
    let (_engine, things) = alone_with(&source, guarded(GuardSettings::new().retry(retry))).await;
    let values = things.get_many(&["a", "flaky", "b"]).await.unwrap();
    assert!(values.iter().all(Result::is_ok), "{values:?}");
    assert_eq!((source.loads_of("a"), source.loads_of("flaky"), source.loads_of("b")), (1, 2, 1));
    let stats = things.stats();
    assert_eq!((stats.load_retries, stats.loads, stats.loads_found, stats.load_failures), (1, 3, 3, 0));
    source.answer(|_| Err(down()));
    assert!(matches!(things.get("gone").await, Err(Error::Source(SourceError::Unavailable(_)))));
    assert_eq!(source.loads_of("gone"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bound_on_loads_changes_while_they_run() {
    let source = Held::new();
    let spec = |loads| KeyspaceSpec::new(KEYSPACE, source.clone()).guard(GuardSettings::new().loads_max(loads));
    let engine = Engine::builder().keyspace(spec(1)).start().await.unwrap();
    let things = things(&engine);
    let reads: Vec<_> = (0..6)
        .map(|n| {
            let things = things.clone();
            tokio::spawn(async move { things.get(&n.to_string()).await })
        })
        .collect();
    let under_way = |running, waiting| {
        let stats = things.stats();
        (stats.loads_running, stats.loads_waiting) == (running, waiting)
    };
    eventually("one runs", || under_way(1, 5)).await;
    engine.update_keyspace(spec(4)).await.unwrap();
    eventually("four run", || under_way(4, 2)).await;
    engine.update_keyspace(spec(2)).await.unwrap();
    source.let_end(2);
    eventually("those that ran are not replaced", || under_way(2, 2)).await;
    source.let_end(4);
    for read in reads {
        read.await.unwrap().expect("an update ends no load");
    }
    assert!(under_way(0, 0));
}

#[tokio::test]
async fn an_update_of_other_settings_does_not_close_the_circuit() {
    let source = Source::new();
    source.answer(|_| Err(down()));
    let guard = GuardSettings::new().circuit_breaker(breaker());
    let (engine, things) = alone_with(&source, guarded(guard.clone())).await;
    fail_until_open(&things).await;
    let spec = |guard| KeyspaceSpec::new(KEYSPACE, source.clone()).guard(guard);
    engine.update_keyspace(spec(guard.clone().loads_max(7).retry(Retry::new()))).await.unwrap();
    assert!(matches!(things.get("k").await, Err(Error::CircuitOpen { .. })));
    engine.update_keyspace(spec(GuardSettings::new())).await.unwrap();
    assert!(matches!(things.get("k").await, Err(Error::Source(_))), "without a breaker it is asked");
    let refused = engine.update_keyspace(spec(GuardSettings::new().rate_limit(RateLimit::per_second(f64::NAN)))).await;
    assert!(matches!(refused, Err(Error::InvalidSpec { field: "keyspace.guard.rate_limit.per_second", .. })));
}

#[tokio::test]
async fn a_shared_group_opens_for_both_keyspaces_and_keeps_to_the_last_settings() {
    let (failing, sound) = (Source::new(), Source::new());
    failing.answer(|_| Err(down()));
    let guard = GuardSettings::new().group("db").circuit_breaker(breaker());
    let spec =
        |name, source: &Source, guard: &GuardSettings| KeyspaceSpec::new(name, source.clone()).guard(guard.clone());
    let builder = Engine::builder().keyspace(spec("a", &failing, &guard)).keyspace(spec("b", &sound, &guard));
    let engine = builder.keyspace(KeyspaceSpec::new("c", sound.clone())).start().await.unwrap();
    let [a, b] = ["a", "b"].map(|name| engine.keyspace(name).unwrap());
    fail_until_open(&a).await;
    assert!(matches!(b.get("k").await, Err(Error::CircuitOpen { .. })));
    assert_eq!((b.stats().circuit, b.stats().circuit_refused, sound.loads()), (CircuitState::Open, 1, 0));
    assert_eq!(engine.get("c", "k").await.unwrap(), value_of("k"), "who is not of the group goes on");

    let open_door = GuardSettings::new().group("db");
    engine.update_keyspace(spec("b", &sound, &open_door)).await.unwrap();
    assert!(matches!(a.get("k").await, Err(Error::Source(_))), "the last settings hold for all of it");
    engine.update_keyspace(spec("b", &sound, &GuardSettings::new().loads_max(1))).await.unwrap();
    engine.update_keyspace(spec("a", &failing, &guard)).await.unwrap();
    fail_until_open(&a).await;
    assert_eq!(b.get("k").await.unwrap(), value_of("k"), "it has left the group");

    let taken = engine.create_keyspace(spec("b", &sound, &open_door)).await;
    assert!(matches!(taken, Err(Error::KeyspaceExists { .. })));
    assert!(matches!(a.get("l").await, Err(Error::CircuitOpen { .. })), "a keyspace that is not made settles nothing");
    engine.create_keyspace(spec("d", &sound, &open_door)).await.unwrap();
    assert!(matches!(a.get("l").await, Err(Error::Source(_))));
    engine.update_keyspace(spec("b", &sound, &guard)).await.unwrap();
    fail_until_open(&a).await;
    assert!(matches!(b.get("m").await, Err(Error::CircuitOpen { .. })), "who comes back brings its settings along");
}

#[tokio::test]
async fn keyspaces_of_one_group_that_say_different_things_of_it_do_not_start() {
    let guard = |loads| GuardSettings::new().group("db").loads_max(loads);
    let spec = |name, loads| KeyspaceSpec::new(name, Source::new()).guard(guard(loads));
    let refused = Engine::builder().keyspace(spec("a", 1)).keyspace(spec("b", 2)).start().await.err().unwrap();
    let reason = "keyspaces \"a\" and \"b\" of this group have different guards";
    assert_eq!(refused.to_string(), format!("keyspace.guard.group = \"db\": {reason}"));
}
