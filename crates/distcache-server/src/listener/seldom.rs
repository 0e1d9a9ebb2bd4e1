//! Something to log that may happen thousands of times a second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(1);

/// Says at most once a second that it is time for a line, and how many events the line stands for.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// One more event: the number of events to log now, if any.
    pub fn event(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.unsaid += 1;
        if state.said.is_some_and(|said| now.duration_since(said) < EVERY) {
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_stands_for_all_events_since() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.event(start), Some(1));
        assert_eq!([1, 500, 999].map(|ms| seldom.event(start + Duration::from_millis(ms))), [None; 3]);
        assert_eq!(seldom.event(start + EVERY), Some(4));
        assert_eq!(seldom.event(start + EVERY), None);
    }
}
