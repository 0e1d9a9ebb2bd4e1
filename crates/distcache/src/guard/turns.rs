//! Waiting for the rate limit, in the order of coming.
//!
//! Knows the bucket and nothing of loads. The invariants: nobody waits who could not have its turn in time; nobody overtakes;
//! whoever leaves before its turn has taken nothing, and whoever does not use its turn gives it back.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::RateLimit;
use super::rate::Bucket;
use crate::error::Error;
use crate::net::Clock;

pub(super) struct Turns {
    clock: Clock,
    state: Mutex<State>,
    /// Held by whoever is the next; semaphores are fair.
    next: Semaphore,
    /// The next turn may come earlier than was thought.
    changed: Notify,
}

struct State {
    /// `None`: no limit.
    bucket: Option<Bucket>,
    waiting: usize,
}

/// A token taken from the bucket.
#[must_use]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    used: bool,
}

enum Arrival<'a> {
    Now(Turn<'a>),
    Queued(Queued<'a>, Instant),
}

/// One of those that wait.
struct Queued<'a>(&'a Turns);

impl Turns {
    pub(super) fn new(limit: Option<RateLimit>, clock: Clock) -> Self {
        let bucket = limit.map(|limit| Bucket::new(limit, clock.now()));
        Self { clock, state: Mutex::new(State { bucket, waiting: 0 }), next: Semaphore::new(1), changed: Notify::new() }
    }

    /// A turn before `deadline`, and before the limit's own wait is over, or the error that there is none.
    pub(super) async fn take(&self, deadline: Instant) -> Result<Turn<'_>, Error> {
        match self.arrive(deadline)? {
            Arrival::Now(turn) => Ok(turn),
            Arrival::Queued(queued, until) => match timeout_at(until, self.wait()).await {
                Ok(turn) => Ok(turn),
                Err(_) => {
                    drop(queued);
                    Err(self.refusal(&mut self.state.lock()))
                }
            },
        }
    }

    fn arrive(&self, deadline: Instant) -> Result<Arrival<'_>, Error> {
        let (mut state, now) = (self.state.lock(), self.clock.now());
        let State { bucket, waiting } = &mut *state;
        let Some(bucket) = bucket else { return Ok(Arrival::Now(Turn { turns: self, used: true })) };
        if *waiting == 0 && bucket.take(now) {
            return Ok(Arrival::Now(Turn { turns: self, used: false }));
        }
        let arrived = Instant::now();
        let patience = bucket.wait_max().min(deadline.saturating_duration_since(arrived));
        if bucket.wait_for(*waiting + 1, now) > patience {
            return Err(self.refusal(&mut state));
        }
        *waiting += 1;
        Ok(Arrival::Queued(Queued(self), arrived + patience))
    }

    fn refusal(&self, state: &mut State) -> Error {
        let nth = state.waiting + 1;
        let wait = state.bucket.as_mut().map(|bucket| bucket.wait_for(nth, self.clock.now()));
        Error::RateLimited { retry_after: wait.unwrap_or_default() }
    }

    async fn wait(&self) -> Turn<'_> {
        let _next = self.next.acquire().await;
        loop {
            // Before looking, so that no change is missed.
            let changed = self.changed.notified();
            match self.try_take() {
                Ok(turn) => return turn,
                Err(pause) => tokio::select! {
                    biased;
                    () = sleep(pause) => {}
                    () = changed => {}
                },
            }
        }
    }

    fn try_take(&self) -> Result<Turn<'_>, Duration> {
        let (mut state, now) = (self.state.lock(), self.clock.now());
        let Some(bucket) = &mut state.bucket else { return Ok(Turn { turns: self, used: true }) };
        match bucket.take(now) {
            true => Ok(Turn { turns: self, used: false }),
            false => Err(bucket.wait_for(1, now)),
        }
    }

    /// Another limit from now on, also for those that wait. What was taken under the old one stays taken.
    pub(super) fn retune(&self, limit: Option<RateLimit>) {
        let (mut state, now) = (self.state.lock(), self.clock.now());
        match (&mut state.bucket, limit) {
            (Some(bucket), Some(limit)) => bucket.retune(limit, now),
            (bucket, limit) => *bucket = limit.map(|limit| Bucket::new(limit, now)),
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

impl Turn<'_> {
    pub(super) fn use_up(mut self) {
        self.used = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.used {
            return;
        }
        if let Some(bucket) = &mut self.turns.state.lock().bucket {
            bucket.give_back();
        }
        self.turns.changed.notify_waiters();
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.state.lock().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;

    use futures_util::FutureExt;
    use tokio::task::{JoinHandle, yield_now};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn turns(limit: RateLimit) -> Arc<Turns> {
        Arc::new(Turns::new(Some(limit), Clock::tokio()))
    }

    /// When it got its turn, in milliseconds from `start`.
    fn ask(turns: &Arc<Turns>, start: Instant, within: Duration) -> JoinHandle<Result<u128, Error>> {
        let turns = turns.clone();
        tokio::spawn(async move {
            let turn = turns.take(Instant::now() + within).await?;
            turn.use_up();
            Ok(start.elapsed().as_millis())
        })
    }

    fn retry_after(result: Result<u128, Error>) -> Duration {
        match result {
            Err(Error::RateLimited { retry_after }) => retry_after,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_get_their_turns_in_order_and_those_that_would_wait_too_long_are_refused_at_once() {
        let turns = turns(RateLimit::per_second(2.0).burst(1).wait(SECOND));
        let start = Instant::now();
        let mut asked = Vec::new();
        for _ in 0..4 {
            asked.push(ask(&turns, start, 60 * SECOND));
            yield_now().await;
        }
        let refused = retry_after(asked.pop().unwrap().await.unwrap());
        assert_eq!((start.elapsed(), refused), (Duration::ZERO, Duration::from_millis(1_500)));
        for expected in [0, 500, 1_000] {
            let at = asked.remove(0).await.unwrap().unwrap();
            assert!((expected..expected + 5).contains(&at), "{at} instead of {expected} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_overtakes_also_when_looking_first() {
        let turns = turns(RateLimit::per_second(1.0).wait(60 * SECOND));
        let start = Instant::now();
        turns.take(start + SECOND).await.unwrap().use_up();
        let (mut first, mut second) = (pin!(turns.take(start + 9 * SECOND)), pin!(turns.take(start + 9 * SECOND)));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        tokio::time::advance(SECOND + SECOND / 2).await;
        assert!(second.as_mut().now_or_never().is_none());
        assert!(first.as_mut().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_wait_what_is_over_the_limit_is_refused() {
        let turns = turns(RateLimit::per_second(0.5));
        let start = Instant::now();
        assert_eq!(ask(&turns, start, SECOND).await.unwrap().unwrap(), 0);
        assert_eq!(retry_after(ask(&turns, start, SECOND).await.unwrap()), 2 * SECOND);
        assert_eq!(turns.state.lock().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_turn_after_its_deadline() {
        let turns = turns(RateLimit::per_second(1.0).wait(60 * SECOND));
        let start = Instant::now();
        ask(&turns, start, SECOND).await.unwrap().unwrap();
        assert_eq!(retry_after(ask(&turns, start, SECOND / 2).await.unwrap()), SECOND);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_leaves_its_turn_to_those_behind() {
        let turns = turns(RateLimit::per_second(1.0).wait(60 * SECOND));
        let start = Instant::now();
        ask(&turns, start, SECOND).await.unwrap().unwrap();
        let impatient: Vec<_> = (0..5).map(|_| ask(&turns, start, 60 * SECOND)).collect();
        yield_now().await;
        let patient = ask(&turns, start, 60 * SECOND);
        yield_now().await;
        impatient.iter().for_each(JoinHandle::abort);
        let at = patient.await.unwrap().unwrap();
        assert!((1_000..1_005).contains(&at), "{at}");
        assert_eq!(turns.state.lock().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_turn_is_given_to_the_next_at_once() {
        let turns = turns(RateLimit::per_second(0.1).wait(60 * SECOND));
        let start = Instant::now();
        let unused = turns.take(start + SECOND).await.unwrap();
        let waiting = ask(&turns, start, 60 * SECOND);
        yield_now().await;
        drop(unused);
        assert_eq!(waiting.await.unwrap().unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_limit_holds_for_those_that_wait() {
        let turns = turns(RateLimit::per_second(0.1).wait(60 * SECOND));
        let start = Instant::now();
        ask(&turns, start, SECOND).await.unwrap().unwrap();
        let waiting = [ask(&turns, start, 60 * SECOND), ask(&turns, start, 60 * SECOND)];
        yield_now().await;
        turns.retune(Some(RateLimit::per_second(10.0).wait(60 * SECOND)));
        let [first, second] = waiting;
        let at = first.await.unwrap().unwrap();
        assert!((100..105).contains(&at), "{at}");
        turns.retune(None);
        assert_eq!(second.await.unwrap().unwrap(), at);
    }
}
