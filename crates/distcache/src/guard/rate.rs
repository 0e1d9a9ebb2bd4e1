//! How many loads may begin in a time: a token bucket.
//!
//! Pure: time is an argument, counted in milliseconds; tokens are counted in fractions, so that rates far below one a second
//! and far above one a millisecond are kept alike. Knows nobody who waits. The invariant: in any stretch of time, however it is
//! cut out, no more is taken (and not given back) than the burst and what the rate adds in that time.

use std::time::Duration;

use super::RateLimit;
use crate::net::Moment;

/// What rounding may have cost a token that is due.
const ROUNDING: f64 = 1e-6;

pub(super) struct Bucket {
    settings: RateLimit,
    tokens: f64,
    at: Moment,
}

impl RateLimit {
    fn per_ms(&self) -> f64 {
        self.per_second / 1_000.0
    }

    /// At least one: with less in the bucket nothing would ever be let through.
    fn burst_tokens(&self) -> f64 {
        self.burst.map_or(self.per_second, f64::from).max(1.0)
    }
}

impl Bucket {
    /// A full one.
    pub(super) fn new(settings: RateLimit, now: Moment) -> Self {
        Self { settings, tokens: settings.burst_tokens(), at: now }
    }

    pub(super) fn wait_max(&self) -> Duration {
        self.settings.wait_max
    }

    /// Other settings from now on; what was taken stays taken.
    pub(super) fn retune(&mut self, settings: RateLimit, now: Moment) {
        self.refill(now);
        self.settings = settings;
        self.tokens = self.tokens.min(settings.burst_tokens());
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Moment) -> bool {
        self.refill(now);
        let is_there = self.tokens >= 1.0 - ROUNDING;
        if is_there {
            self.tokens -= 1.0;
        }
        is_there
    }

    /// What was taken and not used.
    pub(super) fn give_back(&mut self) {
        self.tokens = (self.tokens + 1.0).min(self.settings.burst_tokens());
    }

    /// Time until the `nth` token from now can be taken, if all before it are; in whole milliseconds, rounded up.
    pub(super) fn wait_for(&mut self, nth: usize, now: Moment) -> Duration {
        self.refill(now);
        let missing = nth as f64 - ROUNDING - self.tokens;
        Duration::from_millis((missing.max(0.0) / self.settings.per_ms()).ceil() as u64)
    }

    fn refill(&mut self, now: Moment) {
        let added = now.since(self.at).as_millis() as f64 * self.settings.per_ms();
        self.tokens = (self.tokens + added).min(self.settings.burst_tokens());
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take_all(bucket: &mut Bucket, now: u64) -> usize {
        std::iter::from_fn(|| bucket.take(Moment(now)).then_some(())).take(10_000).count()
    }

    #[test]
    fn without_a_burst_that_of_a_second_is_meant_and_at_least_one() {
        for (per_second, burst) in [(500.0, 500), (1.0, 1), (0.01, 1), (2.5, 2)] {
            let mut bucket = Bucket::new(RateLimit::per_second(per_second), Moment(7));
            assert_eq!(take_all(&mut bucket, 7), burst, "{per_second} a second");
        }
        let mut bucket = Bucket::new(RateLimit::per_second(1.0).burst(3), Moment(7));
        assert_eq!(take_all(&mut bucket, 7), 3);
    }

    #[test]
    fn one_load_in_a_hundred_seconds_comes_after_a_hundred_seconds() {
        let mut bucket = Bucket::new(RateLimit::per_second(0.01), Moment(0));
        assert!(bucket.take(Moment(0)));
        assert_eq!(bucket.wait_for(1, Moment(40_000)), Duration::from_secs(60));
        // Looking does not lose what a millisecond adds.
        assert_eq!((0..100_000).filter(|ms| bucket.take(Moment(*ms))).count(), 0);
        assert!(bucket.take(Moment(100_000)));
    }

    #[test]
    fn rates_above_one_a_millisecond_are_kept() {
        let mut bucket = Bucket::new(RateLimit::per_second(3_500.0).burst(10), Moment(0));
        take_all(&mut bucket, 0);
        let taken: usize = (1..=1_000).map(|ms| take_all(&mut bucket, ms)).sum();
        assert_eq!(taken, 3_500);
    }

    #[test]
    fn new_settings_give_no_new_burst() {
        let mut bucket = Bucket::new(RateLimit::per_second(10.0), Moment(0));
        take_all(&mut bucket, 0);
        bucket.retune(RateLimit::per_second(1_000.0), Moment(0));
        assert_eq!(take_all(&mut bucket, 0), 0);
        assert_eq!(take_all(&mut bucket, 5), 5);
        bucket.retune(RateLimit::per_second(1.0).burst(2), Moment(1_000));
        assert_eq!(take_all(&mut bucket, 1_000), 2, "nor do they leave more than theirs");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() })]

        #[test]
        fn never_more_than_burst_and_rate_allow_and_never_nothing_for_ever(
            per_second in prop_oneof![0.01f64..1.0, 1.0f64..50.0, 50.0f64..5_000.0],
            burst in prop::option::of(1u32..40),
            acts in prop::collection::vec((0u64..400, 0usize..12, any::<bool>()), 1..60),
        ) {
            let settings = RateLimit { burst, ..RateLimit::per_second(per_second) };
            let mut bucket = Bucket::new(settings, Moment(0));
            let (mut now, mut taken) = (0, Vec::new());
            for (gap, wanted, gives_back) in acts {
                now += gap;
                taken.extend((0..wanted).filter(|_| bucket.take(Moment(now))).map(|_| now));
                if gives_back && taken.pop().is_some() {
                    bucket.give_back();
                }
            }
            for (i, from) in taken.iter().enumerate() {
                for (j, to) in taken.iter().enumerate().skip(i) {
                    let allowed = settings.burst_tokens() + (to - from) as f64 * settings.per_ms() + 0.001;
                    prop_assert!((j - i + 1) as f64 <= allowed, "{} from {from} to {to} ms", j - i + 1);
                }
            }
            let wait = bucket.wait_for(1, Moment(now));
            prop_assert!(wait <= Duration::from_millis((1_000.0 / per_second) as u64 + 1), "{wait:?}");
            if let Some(before) = wait.checked_sub(Duration::from_millis(1)) {
                prop_assert!(!bucket.take(Moment(now).after(before)), "the wait is not too long");
            }
            prop_assert!(bucket.take(Moment(now).after(wait)), "and not too short");
        }
    }
}
