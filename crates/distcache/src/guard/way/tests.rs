//! Loads that fail, hang, panic and give up on every stretch of the way.

use std::cell::{Cell, RefCell};

use futures_util::future::join_all;

use super::*;
use crate::guard::{CircuitBreaker, RateLimit};
use crate::stats::KeyspaceStats;

const LIMIT: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

type Answers = Vec<Result<&'static str, Error>>;
type Raw = Vec<Result<&'static str, SourceError>>;

/// A guard and the keyspace that passes it.
struct Post {
    guard: Guard,
    counters: Counters,
    gauges: Gauges,
    asked: Cell<usize>,
}

fn post(settings: GuardSettings) -> Post {
    let guard = Guard::new(&settings, 100, Whose::Keyspace("things".into()), Clock::tokio());
    Post { guard, counters: Counters::new(), gauges: Gauges::default(), asked: Cell::new(0) }
}

impl Post {
    async fn load<F: Future<Output = Raw>>(&self, keys: &[&str], call: impl Fn(Vec<&str>) -> F) -> Answers {
        let errand = Errand { limit: LIMIT, counters: &self.counters, gauges: &self.gauges };
        let call = |keys: Vec<_>| {
            self.asked.set(self.asked.get() + 1);
            call(keys)
        };
        self.guard.run(&errand, keys, call).await
    }

    /// A load of one key that the source answers so, after a while.
    async fn one(&self, after: Duration, answer: Result<&'static str, SourceError>) -> Result<&'static str, Error> {
        let call = |_: Vec<&str>| async {
            sleep(after).await;
            vec![answer.clone()]
        };
        self.load(&["k"], call).await.remove(0)
    }

    async fn panic(&self) -> Result<&'static str, Error> {
        self.load(&["k"], |_| async { panic!("out of its mind") }).await.remove(0)
    }

    async fn hang(&self) -> Result<&'static str, Error> {
        self.load(&["k"], |_| std::future::pending()).await.remove(0)
    }

    fn stats(&self) -> KeyspaceStats {
        self.counters.read()
    }

    fn on_the_way(&self) -> (u64, u64) {
        (self.gauges.running.load(Relaxed), self.gauges.waiting.load(Relaxed))
    }
}

fn down() -> SourceError {
    SourceError::unavailable("down")
}

fn touchy() -> CircuitBreaker {
    CircuitBreaker::new().calls_min(2).open_for(5 * SECOND)
}

#[tokio::test(start_paused = true)]
async fn a_load_that_gets_no_place_in_its_time_is_overload_and_not_a_slow_source() {
    let post = post(GuardSettings::new().loads_max(1).circuit_breaker(CircuitBreaker::new().calls_min(1)));
    let taken = post.guard.places.try_take().unwrap();
    let start = Instant::now();
    let error = post.one(SECOND, Ok("v")).await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { what: Overload::Loads, limit: 1 }), "{error}");
    assert!(start.elapsed() <= LIMIT / 2 + SECOND / 100, "half is for the call: {:?}", start.elapsed());
    assert_eq!((post.asked.get(), post.guard.circuit()), (0, CircuitState::Closed));
    let (late, ()) = tokio::join!(post.one(LIMIT * 2 / 3, Ok("v")), async {
        sleep(LIMIT * 2 / 5).await;
        drop(taken);
    });
    assert!(matches!(late, Err(Error::LoadTimeout { limit: LIMIT })), "waiting is part of the load's time: {late:?}");
    let stats = post.stats();
    assert_eq!((post.asked.get(), stats.guard_waits, stats.overloads), (1, 2, 1));
    assert_eq!(post.on_the_way(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn panics_and_hangs_are_failures_and_not_found_and_lasting_errors_are_answers() {
    let post = post(GuardSettings::new().circuit_breaker(touchy()));
    for _ in 0..10 {
        assert!(post.one(SECOND / 1_000, Err(SourceError::NotFound)).await.unwrap_err().is_not_found());
        assert!(matches!(post.one(SECOND / 1_000, Err(SourceError::failed("bad row"))).await, Err(Error::Source(_))));
    }
    assert_eq!(post.guard.circuit(), CircuitState::Closed);
    sleep(10 * SECOND).await;
    assert!(matches!(post.panic().await, Err(Error::SourcePanicked { message }) if message == "out of its mind"));
    // The panic lies within the window still when the time of the other is over.
    let hang = async {
        let errand = Errand { limit: SECOND, counters: &post.counters, gauges: &post.gauges };
        post.guard.run(&errand, &["k"], |_| std::future::pending::<Raw>()).await.remove(0)
    };
    assert!(matches!(hang.await, Err(Error::LoadTimeout { limit: SECOND })));
    assert_eq!(post.guard.circuit(), CircuitState::Open);
    assert_eq!((post.on_the_way(), post.stats().circuit_opened), ((0, 0), 1));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_hangs_or_is_dropped_does_not_jam_the_breaker() {
    let post = post(GuardSettings::new().circuit_breaker(touchy().calls_min(1)));
    post.panic().await.unwrap_err();
    assert!(matches!(post.panic().await, Err(Error::CircuitOpen { .. })));
    sleep(6 * SECOND).await;
    assert!(matches!(post.panic().await, Err(Error::SourcePanicked { .. })), "the probe");
    sleep(6 * SECOND).await;
    assert!(matches!(post.hang().await, Err(Error::LoadTimeout { .. })), "the probe");
    sleep(6 * SECOND).await;
    let dropped = tokio::time::timeout(SECOND, post.hang()).await;
    assert!(dropped.is_err(), "the probe");
    assert_eq!(post.one(SECOND, Ok("back")).await.unwrap(), "back");
    assert_eq!((post.guard.circuit(), post.on_the_way()), (CircuitState::Closed, (0, 0)));
    assert_eq!((post.asked.get(), post.stats().circuit_refused, post.stats().circuit_opened), (5, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_one_call_and_fails_only_if_no_key_got_an_answer() {
    let post = post(GuardSettings::new().circuit_breaker(touchy()).rate_limit(RateLimit::per_second(3.0)));
    for lone in [Ok("v"), Err(SourceError::NotFound), Err(SourceError::failed("bad row"))] {
        let lone = &lone;
        post.load(&["a", "b", "c"], |_| async move { vec![Err(down()), lone.clone(), Err(down())] }).await;
    }
    assert_eq!(post.guard.circuit(), CircuitState::Closed);
    let refused = post.load(&["a", "b"], |_| async { vec![Ok("v"), Ok("v")] }).await;
    assert!(refused.iter().all(|answer| matches!(answer, Err(Error::RateLimited { .. }))), "three calls were made");
    assert_eq!((post.asked.get(), post.stats().rate_limited), (3, 2));
    sleep(11 * SECOND).await;
    for _ in 0..2 {
        post.load(&["a", "b"], |_| async { vec![Err(down()), Err(down())] }).await;
    }
    assert_eq!(post.guard.circuit(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_every_key_or_none_is_taken() {
    let post = post(GuardSettings::new());
    let answers = post.load(&["a", "b"], |_| async { vec![Ok("one too few")] }).await;
    let text = "the source failed: fetch_many gave 1 answers to 2 keys";
    assert!(answers.len() == 2 && answers.iter().all(|answer| answer.as_ref().unwrap_err().to_string() == text));
}

#[tokio::test(start_paused = true)]
async fn only_the_keys_that_failed_in_passing_are_asked_again() {
    let post = post(GuardSettings::new().retry(Retry::new().attempts(4)));
    let asked = RefCell::new(Vec::new());
    let answers = post
        .load(&["a", "b", "c", "d", "e"], |keys| {
            let attempt = asked.borrow().len();
            asked.borrow_mut().push(keys.join(""));
            let answer = move |key: &str| match (key, attempt) {
                ("b", _) => Err(SourceError::NotFound),
                ("d", _) => Err(SourceError::failed("bad row")),
                ("e", _) | ("c", 0) => Err(down()),
                _ => Ok("v"),
            };
            let answers = keys.into_iter().map(answer).collect();
            async { answers }
        })
        .await;
    assert_eq!(asked.into_inner(), ["abcde", "ce", "e", "e"]);
    assert!(
        matches!(
            &answers[..],
            [
                Ok("v"),
                Err(Error::NotFound),
                Ok("v"),
                Err(Error::Source(SourceError::Failed(_))),
                Err(Error::Source(SourceError::Unavailable(_)))
            ]
        ),
        "{answers:?}"
    );
    assert_eq!(post.stats().load_retries, 4);
    assert_eq!(post.on_the_way(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn no_place_is_taken_between_attempts() {
    let hour = 3_600 * SECOND;
    let post = post(GuardSettings::new().loads_max(1).retry(Retry::new().attempts(2).backoff(hour, hour)));
    // The pause is drawn; most of the time it ends behind the load's limit, and then there is none.
    let (_, other) = tokio::join!(post.one(SECOND, Err(down())), async {
        tokio::task::yield_now().await;
        post.one(SECOND, Ok("v")).await
    });
    assert_eq!(other.unwrap(), "v");
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_or_the_rate_limit_ends_the_retries_with_what_the_source_said() {
    let retry = Retry::new().attempts(50).backoff(SECOND / 1_000, SECOND / 1_000);
    let post_open = post(GuardSettings::new().retry(retry).circuit_breaker(touchy()));
    assert!(matches!(post_open.one(Duration::ZERO, Err(down())).await, Err(Error::Source(_))));
    assert_eq!((post_open.asked.get(), post_open.guard.circuit()), (2, CircuitState::Open));
    let post_slow = post(GuardSettings::new().retry(retry).rate_limit(RateLimit::per_second(0.1).burst(3)));
    assert!(matches!(post_slow.one(Duration::ZERO, Err(down())).await, Err(Error::Source(_))));
    assert_eq!((post_slow.asked.get(), post_slow.stats().load_retries), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_the_load() {
    let post = post(GuardSettings::new().retry(Retry::new().attempts(100)));
    let start = Instant::now();
    let failed = post.one(SECOND, Err(down())).await.unwrap_err();
    assert!(start.elapsed() <= LIMIT + SECOND / 100, "{:?}", start.elapsed());
    assert!(failed.is_retryable() && (2..=10).contains(&post.asked.get()), "{failed}, asked {}", post.asked.get());
    let asked = post.asked.get();
    let start = Instant::now();
    assert!(matches!(post.hang().await, Err(Error::LoadTimeout { limit: LIMIT })));
    assert_eq!(post.asked.get(), asked + 1, "an attempt that timed out was the last");
    assert!(start.elapsed() <= LIMIT + SECOND / 100);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_waited_until_the_circuit_opened_does_not_ask() {
    let rate = RateLimit::per_second(0.01).burst(3);
    let post = post(GuardSettings::new().loads_max(2).circuit_breaker(touchy()).rate_limit(rate));
    let loads = (0..3).map(|_| post.one(SECOND, Err(down())));
    let results = join_all(loads).await;
    assert!(matches!(results[2], Err(Error::CircuitOpen { .. })), "{:?}", results[2]);
    assert_eq!((post.asked.get(), post.on_the_way()), (2, (0, 0)));
    sleep(6 * SECOND).await;
    assert_eq!(post.one(SECOND, Ok("v")).await.unwrap(), "v", "its turn was given back");
    assert!(matches!(post.one(SECOND, Ok("v")).await, Err(Error::RateLimited { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_refuses_before_anything_is_waited_for() {
    let rate = RateLimit::per_second(0.5).burst(1).wait(LIMIT);
    let post = post(GuardSettings::new().circuit_breaker(touchy().calls_min(1)).rate_limit(rate));
    post.panic().await.unwrap_err();
    let start = Instant::now();
    assert!(matches!(post.panic().await, Err(Error::CircuitOpen { .. })));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn loads_that_are_given_up_give_everything_back() {
    let rate = RateLimit::per_second(0.01).burst(3).wait(LIMIT);
    let post = post(GuardSettings::new().loads_max(1).rate_limit(rate));
    let loads = join_all((0..3).map(|_| post.hang()));
    assert!(tokio::time::timeout(SECOND, loads).await.is_err());
    assert_eq!((post.asked.get(), post.on_the_way()), (1, (0, 0)));
    for _ in 0..2 {
        assert_eq!(post.one(SECOND, Ok("v")).await.unwrap(), "v");
    }
    assert!(matches!(post.one(SECOND, Ok("v")).await, Err(Error::RateLimited { .. })), "one of three asked");
}

#[tokio::test(start_paused = true)]
async fn other_settings_hold_for_loads_that_wait_and_harm_none_that_runs() {
    let guard = GuardSettings::new().loads_max(1);
    let post = post(guard.clone());
    let start = Instant::now();
    let loads = join_all((0..4).map(|_| post.one(2 * SECOND, Ok("v"))));
    let (values, ()) = tokio::join!(loads, async {
        sleep(SECOND).await;
        assert_eq!(post.on_the_way(), (1, 3));
        post.guard.update(&guard.clone().loads_max(10));
        sleep(SECOND / 2).await;
        assert_eq!(post.on_the_way(), (4, 0));
        post.guard.update(&guard);
    });
    assert!(values.iter().all(Result::is_ok));
    assert!(start.elapsed() < 4 * SECOND, "{:?}", start.elapsed());
    let both = join_all((0..2).map(|_| post.one(SECOND, Ok("v"))));
    let (_, ()) = tokio::join!(both, async {
        sleep(SECOND / 2).await;
        assert_eq!(post.on_the_way(), (1, 1), "one at a time again");
    });
}
