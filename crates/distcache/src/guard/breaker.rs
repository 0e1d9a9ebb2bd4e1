//! Whether a source is left alone: a circuit breaker over a sliding window.
//!
//! Pure: time and chance are arguments, and it never learns what was called. The invariants: while half open, one probe at a
//! time; whatever becomes of a probe (a panic, a drop, silence), another one can follow; what a call says that was let through
//! in an earlier state counts for nothing.
//!
//! The pattern is that of M. Nygard, *Release It!*, with a window of buckets in place of a row of failures.

use std::time::Duration;

use super::{CircuitBreaker, CircuitState};
use crate::net::Moment;

/// Open times are longer by up to this part, so that nodes do not all probe at once.
const OPEN_JITTER: f64 = 0.1;

pub(super) struct Breaker {
    settings: CircuitBreaker,
    /// Grows with every change of state and with every probe; what was let through in another era is not heard.
    era: u64,
    state: State,
}

enum State {
    Closed(Window),
    Open { until: Moment },
    HalfOpen { probe: Probe, successes: u32 },
}

enum Probe {
    None,
    /// Its word is waited for until then.
    Running {
        until: Moment,
    },
}

/// The duty to report how a call went.
#[derive(Debug)]
#[must_use]
pub(super) struct Permit {
    era: u64,
}

/// What a call says about its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It answers, if only that there is no such key.
    Up,
    /// It does not.
    Down,
    /// Nothing: the call was given up.
    Unknown,
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change {
    /// From closed to open.
    Opened { calls: u32, failures: u32, open_for: Duration },
    /// A probe failed.
    StaysOpen { open_for: Duration },
    /// From half open to closed.
    Closed { probes: u32 },
}

impl Breaker {
    /// A closed one. `era` is later than that of any breaker whose calls may still report here.
    pub(super) fn new(settings: CircuitBreaker, era: u64) -> Self {
        Self { settings, era, state: State::Closed(Window::new(settings.window)) }
    }

    pub(super) fn settings(&self) -> CircuitBreaker {
        self.settings
    }

    pub(super) fn era(&self) -> u64 {
        self.era
    }

    pub(super) fn state(&self, now: Moment) -> CircuitState {
        match self.state {
            State::Closed(_) => CircuitState::Closed,
            State::Open { until } if now < until => CircuitState::Open,
            State::Open { .. } | State::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    /// Whether a call would be let through now; if not, when another try is worth it.
    pub(super) fn check(&self, now: Moment) -> Result<(), Duration> {
        match self.state {
            State::Open { until } if now < until => Err(until.since(now)),
            // Should the probe fail, the next one follows after that time.
            State::HalfOpen { probe: Probe::Running { until }, .. } if now < until => Err(self.settings.open_for),
            _ => Ok(()),
        }
    }

    /// Lets a call through that ends within `limit`, or says when another try is worth it.
    pub(super) fn admit(&mut self, now: Moment, limit: Duration) -> Result<Permit, Duration> {
        self.check(now)?;
        let successes = match self.state {
            State::Closed(_) => return Ok(Permit { era: self.era }),
            State::Open { .. } => 0,
            State::HalfOpen { successes, .. } => successes,
        };
        self.era += 1;
        self.state = State::HalfOpen { probe: Probe::Running { until: now.after(limit) }, successes };
        Ok(Permit { era: self.era })
    }

    /// Takes in how a call went.
    pub(super) fn report(&mut self, permit: Permit, verdict: Verdict, now: Moment, chance: f32) -> Option<Change> {
        if permit.era != self.era {
            return None;
        }
        match (&mut self.state, verdict) {
            (State::Closed(_), Verdict::Unknown) | (State::Open { .. }, _) => None,
            (State::Closed(window), _) => {
                window.record(now, verdict == Verdict::Down);
                let (calls, failures) = window.sum(now);
                let open = calls >= self.settings.calls_min
                    && failures as f32 / calls.max(1) as f32 >= self.settings.failure_rate;
                open.then(|| Change::Opened { calls, failures, open_for: self.open(now, chance) })
            }
            (State::HalfOpen { .. }, Verdict::Down) => Some(Change::StaysOpen { open_for: self.open(now, chance) }),
            (State::HalfOpen { probe, .. }, Verdict::Unknown) => {
                *probe = Probe::None;
                None
            }
            (State::HalfOpen { probe, successes }, Verdict::Up) => {
                (*probe, *successes) = (Probe::None, *successes + 1);
                let probes = *successes;
                (probes >= self.settings.probes).then(|| self.close(probes))
            }
        }
    }

    fn open(&mut self, now: Moment, chance: f32) -> Duration {
        let open_for = self.settings.open_for.mul_f64(1.0 + OPEN_JITTER * f64::from(chance));
        self.era += 1;
        self.state = State::Open { until: now.after(open_for) };
        open_for
    }

    fn close(&mut self, probes: u32) -> Change {
        self.era += 1;
        self.state = State::Closed(Window::new(self.settings.window));
        Change::Closed { probes }
    }
}

const BUCKETS: u64 = 10;

/// Calls and failures of the last while, forgotten a tenth at a time.
struct Window {
    bucket_ms: u64,
    buckets: [Bucket; BUCKETS as usize],
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// Which stretch of time it counts.
    number: u64,
    calls: u32,
    failures: u32,
}

impl Window {
    fn new(window: Duration) -> Self {
        let bucket_ms = (window.as_millis() as u64).div_ceil(BUCKETS).max(1);
        Self { bucket_ms, buckets: Default::default() }
    }

    fn record(&mut self, now: Moment, failed: bool) {
        let number = now.0 / self.bucket_ms;
        let bucket = &mut self.buckets[(number % BUCKETS) as usize];
        if bucket.number != number {
            *bucket = Bucket { number, ..Bucket::default() };
        }
        bucket.calls = bucket.calls.saturating_add(1);
        bucket.failures = bucket.failures.saturating_add(failed.into());
    }

    /// Calls and failures.
    fn sum(&self, now: Moment) -> (u32, u32) {
        let oldest = (now.0 / self.bucket_ms).saturating_sub(BUCKETS - 1);
        let counted = self.buckets.iter().filter(|bucket| bucket.number >= oldest);
        counted.fold((0, 0), |(calls, failures): (u32, u32), bucket| {
            (calls.saturating_add(bucket.calls), failures.saturating_add(bucket.failures))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Verdict::{Down, Unknown, Up};
    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    fn settings() -> CircuitBreaker {
        let (window, open_for) = (Duration::from_millis(1_000), Duration::from_millis(500));
        CircuitBreaker::new().calls_min(4).window(window).open_for(open_for)
    }

    fn breaker(settings: CircuitBreaker) -> Breaker {
        Breaker::new(settings, 0)
    }

    /// A call that is let through and reports at once.
    fn call(breaker: &mut Breaker, at: u64, verdict: Verdict) -> Option<Change> {
        let permit = breaker.admit(Moment(at), LIMIT).unwrap();
        breaker.report(permit, verdict, Moment(at), 0.0)
    }

    fn open(settings: CircuitBreaker) -> Breaker {
        let mut breaker = breaker(settings);
        let changes: Vec<_> = (0..4).map(|_| call(&mut breaker, 0, Down)).collect();
        assert!(matches!(changes[3], Some(Change::Opened { calls: 4, failures: 4, .. })), "{changes:?}");
        breaker
    }

    #[test]
    fn it_opens_at_the_failure_rate_and_not_before_enough_calls_were_made() {
        let mut breaker = breaker(settings());
        for verdict in [Down, Up, Down] {
            assert_eq!(call(&mut breaker, 5, verdict), None);
        }
        let opened = Some(Change::Opened { calls: 4, failures: 2, open_for: Duration::from_millis(500) });
        assert_eq!(call(&mut breaker, 5, Up), opened, "a success may be the call that makes enough of them");
        assert_eq!(breaker.check(Moment(105)), Err(Duration::from_millis(400)));
        assert_eq!(breaker.state(Moment(504)), CircuitState::Open);
        assert_eq!(breaker.state(Moment(505)), CircuitState::HalfOpen);
    }

    #[test]
    fn a_rate_is_reached_when_it_is_exactly_met() {
        let mut breaker = breaker(settings().failure_rate(0.1).calls_min(10));
        for _ in 0..9 {
            assert_eq!(call(&mut breaker, 0, Up), None);
        }
        assert!(matches!(call(&mut breaker, 0, Down), Some(Change::Opened { failures: 1, .. })));
    }

    #[test]
    fn failures_out_of_the_window_are_forgotten() {
        let mut breaker = breaker(settings());
        for _ in 0..3 {
            call(&mut breaker, 50, Down);
        }
        for at in [1_050, 1_150, 1_250] {
            assert_eq!(call(&mut breaker, at, Down), None);
        }
        assert!(call(&mut breaker, 1_250, Down).is_some());
    }

    #[test]
    fn given_up_calls_say_nothing() {
        let mut breaker = breaker(settings());
        for _ in 0..100 {
            assert_eq!(call(&mut breaker, 0, Unknown), None);
        }
        assert_eq!(breaker.state(Moment(0)), CircuitState::Closed);
    }

    #[test]
    fn while_half_open_one_probe_at_a_time_is_let_through_and_enough_of_them_close_it() {
        let mut breaker = open(settings().probes(2));
        let first = breaker.admit(Moment(500), LIMIT).unwrap();
        assert_eq!(breaker.admit(Moment(510), LIMIT).unwrap_err(), Duration::from_millis(500));
        assert_eq!(breaker.report(first, Up, Moment(520), 0.0), None);
        assert_eq!(breaker.state(Moment(520)), CircuitState::HalfOpen);
        let second = breaker.admit(Moment(520), LIMIT).unwrap();
        assert_eq!(breaker.report(second, Up, Moment(530), 0.0), Some(Change::Closed { probes: 2 }));
        assert_eq!(call(&mut breaker, 530, Down), None, "and the past is forgotten");
    }

    #[test]
    fn a_failed_probe_opens_it_again_and_successes_before_it_do_not_count() {
        let mut breaker = open(settings().probes(2));
        assert_eq!(call(&mut breaker, 500, Up), None);
        let permit = breaker.admit(Moment(500), LIMIT).unwrap();
        let open_for = Duration::from_millis(525);
        assert_eq!(breaker.report(permit, Down, Moment(600), 0.5), Some(Change::StaysOpen { open_for }));
        assert!(breaker.admit(Moment(1_124), LIMIT).is_err());
        assert_eq!(call(&mut breaker, 1_125, Up), None);
        assert!(call(&mut breaker, 1_125, Up).is_some());
    }

    #[test]
    fn a_probe_that_is_given_up_or_stays_silent_makes_room_for_the_next() {
        let mut breaker = open(settings());
        assert_eq!(call(&mut breaker, 500, Unknown), None);
        let silent = breaker.admit(Moment(500), LIMIT).unwrap();
        assert!(breaker.admit(Moment(799), LIMIT).is_err());
        let next = breaker.admit(Moment(800), LIMIT).unwrap();
        assert_eq!(breaker.report(silent, Down, Moment(810), 0.0), None, "too late to be heard");
        assert_eq!(breaker.report(next, Up, Moment(820), 0.0), Some(Change::Closed { probes: 1 }));
    }

    #[test]
    fn what_began_before_it_opened_is_not_heard_afterwards() {
        let mut breaker = breaker(settings());
        let early: Vec<_> = (0..20).map(|_| breaker.admit(Moment(0), LIMIT).unwrap()).collect();
        let mut early = early.into_iter();
        for permit in early.by_ref().take(4) {
            breaker.report(permit, Down, Moment(10), 0.0);
        }
        let probe = breaker.admit(Moment(510), LIMIT).unwrap();
        for permit in early.by_ref().take(8) {
            assert_eq!(breaker.report(permit, Down, Moment(520), 0.0), None);
        }
        assert_eq!(breaker.report(probe, Up, Moment(530), 0.0), Some(Change::Closed { probes: 1 }));
        for permit in early {
            assert_eq!(breaker.report(permit, Down, Moment(540), 0.0), None);
        }
        assert_eq!(breaker.state(Moment(540)), CircuitState::Closed);
    }

    #[derive(Clone, Debug)]
    enum Act {
        Pass(u64),
        Call,
        Report(usize, Verdict),
        /// A permit of which nothing is heard any more.
        Lose(usize),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let verdict = prop_oneof![3 => Just(Down), 2 => Just(Up), 1 => Just(Unknown)];
        let act = prop_oneof![
            2 => (0u64..700).prop_map(Act::Pass),
            5 => Just(Act::Call),
            4 => (any::<usize>(), verdict).prop_map(|(which, verdict)| Act::Report(which, verdict)),
            1 => any::<usize>().prop_map(Act::Lose),
        ];
        prop::collection::vec(act, 0..120)
    }

    fn any_settings() -> impl Strategy<Value = CircuitBreaker> {
        (1u32..8, 1u32..4, 0.05f32..=1.0)
            .prop_map(|(calls, probes, rate)| settings().calls_min(calls).probes(probes).failure_rate(rate))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..Default::default() })]

        /// Whatever calls come and however they end, if they do: one probe at a time, and closed once the source answers.
        #[test]
        fn one_probe_at_a_time_and_always_a_way_back(acts in acts(), settings in any_settings(), chance in 0f32..1.0) {
            let mut breaker = breaker(settings);
            let mut now = Moment(10_000);
            // With the time until which each is a probe that runs.
            let mut under_way: Vec<(Permit, Moment)> = Vec::new();
            let mut lost: Vec<Moment> = Vec::new();
            for act in acts {
                match act {
                    Act::Pass(ms) => now = Moment(now.0 + ms),
                    Act::Call => {
                        let state = breaker.state(now);
                        let admitted = breaker.admit(now, LIMIT);
                        prop_assert!(state != CircuitState::Open || admitted.is_err());
                        prop_assert!(state != CircuitState::Closed || admitted.is_ok());
                        let Ok(permit) = admitted else { continue };
                        let is_probe = state == CircuitState::HalfOpen;
                        if is_probe {
                            let probes = under_way.iter().map(|(_, until)| until).chain(&lost);
                            prop_assert_eq!(probes.filter(|until| **until > now).count(), 0, "a second probe");
                        }
                        under_way.push((permit, if is_probe { now.after(LIMIT) } else { Moment(0) }));
                    }
                    Act::Report(which, verdict) if !under_way.is_empty() => {
                        let (permit, _) = under_way.swap_remove(which % under_way.len());
                        breaker.report(permit, verdict, now, chance);
                    }
                    Act::Lose(which) if !under_way.is_empty() => {
                        lost.push(under_way.swap_remove(which % under_way.len()).1);
                    }
                    Act::Report(..) | Act::Lose(_) => {}
                }
            }
            // Longer than any open time and any silent probe.
            now = Moment(now.0 + 1_000);
            for _ in 0..settings.probes {
                let permit = breaker.admit(now, LIMIT);
                prop_assert!(permit.is_ok(), "jammed");
                breaker.report(permit.unwrap(), Up, now, chance);
            }
            now = Moment(now.0 + 2_000);
            call(&mut breaker, now.0, Up);
            prop_assert_eq!(breaker.state(now), CircuitState::Closed);
        }
    }
}
