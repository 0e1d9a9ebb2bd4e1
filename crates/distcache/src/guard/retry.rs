//! Whether a load that failed in passing is tried again, and when.
//!
//! Pure: what is left of the load's time, and chance, are arguments. The invariant: no attempt is due that the load's end would
//! forestall.

use std::time::Duration;

use super::Retry;

impl Retry {
    /// The pause before the next attempt after `made` ones, if there is to be one in the time that is `left`: "full jitter",
    /// anything from zero to a ceiling that doubles.
    pub(super) fn pause(&self, made: u32, left: Duration, chance: f32) -> Option<Duration> {
        if made >= self.attempts {
            return None;
        }
        let doublings = 1u32.checked_shl(made.saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = self.backoff.saturating_mul(doublings).min(self.backoff_max).mul_f32(chance);
        (pause < left).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[test]
    fn the_ceiling_doubles_up_to_the_longest_pause() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_millis(300));
        let retry = Retry::new().attempts(70).backoff(first, longest);
        let pauses: Vec<_> = (1..=6).map(|made| retry.pause(made, LONG, 0.5).unwrap().as_millis()).collect();
        assert_eq!(pauses, [25, 50, 100, 150, 150, 150]);
        assert_eq!(retry.pause(69, LONG, 0.5).unwrap().as_millis(), 150);
        assert_eq!(retry.pause(3, LONG, 0.0), Some(Duration::ZERO));
    }

    #[test]
    fn as_many_attempts_as_were_said_the_first_included() {
        assert_eq!(Retry::new().attempts(1).pause(1, LONG, 0.0), None);
        let retry = Retry::new().attempts(3);
        assert!(retry.pause(2, LONG, 0.9).is_some());
        assert_eq!(retry.pause(3, LONG, 0.0), None);
    }

    proptest! {
        #[test]
        fn an_attempt_always_has_time_left(made in 1u32..100, left_ms in 0u64..5_000, chance in 0f32..1.0) {
            let left = Duration::from_millis(left_ms);
            let pause = Retry::new().attempts(50).pause(made, left, chance);
            prop_assert!(pause.is_none_or(|pause| pause < left && pause <= Retry::new().backoff_max));
        }
    }
}
