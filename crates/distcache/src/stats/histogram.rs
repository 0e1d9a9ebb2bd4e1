//! How long something took, as counts per range of durations.
//!
//! Knows durations, not what took them. The invariants: recording takes no lock and no memory; what is told of a duration is at
//! most a sixteenth (6.25 %) above it, from a nanosecond to a quarter of an hour, so that 200 ns never appears as zero.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use histogram::{AtomicHistogram, Config, Histogram};

/// Sixteen ranges between a number and its double; the last range ends at 2^40 ns, some 18 minutes, and takes what is longer.
const RANGES: Config = match Config::new(4, 40) {
    Ok(config) => config,
    Err(_) => panic!("the ranges of a histogram"),
};
const LONGEST_NANOS: u64 = (1 << 40) - 1;

/// Takes durations of one kind.
pub(super) struct Recorder {
    ranges: AtomicHistogram,
    sum_nanos: AtomicU64,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { ranges: AtomicHistogram::with_config(&RANGES), sum_nanos: AtomicU64::new(0) }
    }

    pub(super) fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // Within the ranges, so it is never refused.
        let _ = self.ranges.increment(nanos.min(LONGEST_NANOS));
        self.sum_nanos.fetch_add(nanos, Relaxed);
    }

    pub(super) fn read(&self) -> LatencyHistogram {
        let sum = Duration::from_nanos(self.sum_nanos.load(Relaxed));
        LatencyHistogram { ranges: self.ranges.load(), sum }
    }
}

/// Durations of one kind since the node started, as counts per range. Ranges are at most a sixteenth of what they begin with.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyHistogram {
    ranges: Histogram,
    sum: Duration,
}

/// The durations within one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatencyBucket {
    /// The shortest that belongs here.
    pub from: Duration,
    /// The longest that belongs here.
    pub to: Duration,
    /// How many there were.
    pub count: u64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self { ranges: Histogram::with_config(&RANGES), sum: Duration::ZERO }
    }
}

impl LatencyHistogram {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.ranges.as_slice().iter().sum()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The duration that this part of them, from 0 to 1, did not exceed: `quantile(0.99)`. At most a sixteenth above the truth.
    /// `None`: there were none, or `q` is no part.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let bucket = self.ranges.quantile_bucket(q).ok()??;
        Some(Duration::from_nanos(bucket.end()))
    }

    /// How many certainly took no longer than this: the ranges that end by it.
    pub fn count_within(&self, limit: Duration) -> u64 {
        self.buckets().take_while(|bucket| bucket.to <= limit).map(|bucket| bucket.count).sum()
    }

    /// The ranges with anything in them, the shortest durations first. The last one also holds whatever was longer.
    pub fn buckets(&self) -> impl Iterator<Item = LatencyBucket> {
        self.ranges.iter().filter(|bucket| bucket.count() > 0).map(|bucket| LatencyBucket {
            from: Duration::from_nanos(bucket.start()),
            to: Duration::from_nanos(bucket.end()),
            count: bucket.count(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(durations: impl IntoIterator<Item = Duration>) -> LatencyHistogram {
        let recorder = Recorder::new();
        durations.into_iter().for_each(|took| recorder.record(took));
        recorder.read()
    }

    #[test]
    fn what_is_told_of_a_duration_is_at_most_a_sixteenth_above_it() {
        let mut nanos = 1;
        while nanos < LONGEST_NANOS {
            for nanos in [nanos, nanos + nanos / 3, nanos * 2 - 1] {
                let told = of([Duration::from_nanos(nanos)]).quantile(0.5).unwrap().as_nanos() as u64;
                assert!(nanos <= told && told - nanos <= nanos / 16, "{nanos} ns was told as {told} ns");
            }
            nanos *= 2;
        }
    }

    #[test]
    fn quantiles_stand_in_order_and_between_the_shortest_and_the_longest() {
        let all = of((1..=1_000).map(Duration::from_micros));
        let p50 = all.quantile(0.5).unwrap().as_micros();
        let p99 = all.quantile(0.99).unwrap().as_micros();
        assert!((500..=532).contains(&p50) && (990..=1_052).contains(&p99), "{p50} {p99}");
        assert!(all.quantile(0.0).unwrap() <= all.quantile(1.0).unwrap());
        assert_eq!((all.count(), all.sum()), (1_000, Duration::from_micros(500_500)));
        assert_eq!(all.quantile(1.1), None);
        assert_eq!(LatencyHistogram::default().quantile(0.5), None);
    }

    #[test]
    fn what_is_longer_than_all_ranges_is_counted_with_the_last() {
        let all = of([Duration::from_secs(86_400), Duration::MAX]);
        assert_eq!(all.count(), 2);
        assert_eq!(all.quantile(0.5).unwrap(), Duration::from_nanos(LONGEST_NANOS));
    }

    #[test]
    fn buckets_hold_everything_once_and_a_limit_counts_what_is_within_it() {
        let all = of([150, 200, 250, 5_000_000].map(Duration::from_nanos));
        assert_eq!(all.buckets().map(|bucket| bucket.count).sum::<u64>(), 4);
        assert!(all.buckets().all(|bucket| bucket.from <= bucket.to));
        let within = |nanos| all.count_within(Duration::from_nanos(nanos));
        assert_eq!((within(100), within(210), within(1_000), within(u64::MAX)), (0, 2, 3, 4));
    }
}
