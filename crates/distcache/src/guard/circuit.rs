//! The breaker of a source that is being asked: under its lock, on its clock, and in the log.
//!
//! Decides nothing that `breaker` does not. The invariant: who was let through reports, also by a panic or by being dropped.

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;

use super::breaker::{Breaker, Change, Permit, Verdict};
use super::{CircuitBreaker, CircuitState};
use crate::error::Error;
use crate::net::{self, Clock};

pub(super) struct Circuit {
    whose: Whose,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    /// `None`: everything is let through.
    breaker: Option<Breaker>,
    /// The latest of any breaker before this one.
    era: u64,
}

/// For whom a guard stands, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Keyspace(String),
    Group(String),
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyspace(name) => write!(f, "keyspace {name}"),
            Self::Group(name) => write!(f, "group {name}"),
        }
    }
}

/// Leave to ask the source once.
#[must_use]
pub(super) struct Leave<'a> {
    circuit: &'a Circuit,
    permit: Option<Permit>,
}

impl Circuit {
    pub(super) fn new(settings: Option<CircuitBreaker>, whose: Whose, clock: Clock) -> Self {
        let breaker = settings.map(|settings| Breaker::new(settings, 0));
        Self { whose, clock, state: Mutex::new(State { breaker, era: 0 }) }
    }

    pub(super) fn whose(&self) -> &Whose {
        &self.whose
    }

    pub(super) fn state(&self) -> CircuitState {
        let state = self.state.lock();
        state.breaker.as_ref().map(|breaker| breaker.state(self.clock.now())).unwrap_or_default()
    }

    /// Refuses what would be refused, before it waits for anything.
    pub(super) fn check(&self) -> Result<(), Error> {
        let state = self.state.lock();
        let checked = state.breaker.as_ref().map_or(Ok(()), |breaker| breaker.check(self.clock.now()));
        checked.map_err(|retry_after| Error::CircuitOpen { retry_after })
    }

    /// Leave for a call that ends within `limit`.
    pub(super) fn admit(&self, limit: Duration) -> Result<Leave<'_>, Error> {
        let mut state = self.state.lock();
        let permit = state.breaker.as_mut().map(|breaker| breaker.admit(self.clock.now(), limit)).transpose();
        let permit = permit.map_err(|retry_after| Error::CircuitOpen { retry_after })?;
        Ok(Leave { circuit: self, permit })
    }

    /// Other settings make another breaker, a closed one; the same settings leave the one there is alone.
    pub(super) fn retune(&self, settings: Option<CircuitBreaker>) {
        let mut state = self.state.lock();
        if state.breaker.as_ref().map(Breaker::settings) != settings {
            state.era = state.breaker.as_ref().map_or(state.era, Breaker::era) + 1;
            state.breaker = settings.map(|settings| Breaker::new(settings, state.era));
        }
    }

    fn take_in(&self, permit: Permit, verdict: Verdict) -> Option<Change> {
        let mut state = self.state.lock();
        state.breaker.as_mut()?.report(permit, verdict, self.clock.now(), net::chance())
    }

    fn log(&self, change: Change) {
        let whose = &self.whose;
        match change {
            Change::Opened { calls, failures, open_for } => {
                tracing::warn!(%whose, calls, failures, ?open_for, "the source fails: the circuit is open, it is left alone");
            }
            Change::StaysOpen { open_for } => {
                tracing::debug!(%whose, ?open_for, "the source still fails: the circuit stays open");
            }
            Change::Closed { probes } => {
                tracing::info!(%whose, probes, "the source answers again: the circuit is closed");
            }
        }
    }
}

impl Leave<'_> {
    /// How the call went; whether the circuit opened by it.
    pub(super) fn report(mut self, verdict: Verdict) -> bool {
        let change = self.permit.take().and_then(|permit| self.circuit.take_in(permit, verdict));
        change.into_iter().for_each(|change| self.circuit.log(change));
        matches!(change, Some(Change::Opened { .. }))
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.circuit.take_in(permit, Verdict::Unknown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn circuit(settings: CircuitBreaker) -> Circuit {
        Circuit::new(Some(settings), Whose::Keyspace("things".into()), Clock::tokio())
    }

    fn touchy() -> CircuitBreaker {
        CircuitBreaker::new().calls_min(1).open_for(SECOND)
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_makes_room_for_the_next() {
        let circuit = circuit(touchy());
        assert!(circuit.admit(SECOND).unwrap().report(Verdict::Down));
        tokio::time::advance(2 * SECOND).await;
        let probe = circuit.admit(60 * SECOND).unwrap();
        assert!(matches!(circuit.check(), Err(Error::CircuitOpen { retry_after: SECOND })));
        drop(probe);
        assert!(!circuit.admit(SECOND).unwrap().report(Verdict::Up));
        assert_eq!(circuit.state(), CircuitState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_settings_change_nothing_and_others_begin_anew() {
        let circuit = circuit(touchy());
        let early = circuit.admit(SECOND).unwrap();
        assert!(circuit.admit(SECOND).unwrap().report(Verdict::Down));
        circuit.retune(Some(touchy()));
        assert_eq!(circuit.state(), CircuitState::Open);
        circuit.retune(Some(touchy().probes(2)));
        assert_eq!(circuit.state(), CircuitState::Closed);
        assert!(!early.report(Verdict::Down), "a call from before is not heard");
        let late = circuit.admit(SECOND).unwrap();
        circuit.retune(None);
        circuit.retune(Some(touchy()));
        assert!(!late.report(Verdict::Down));
        assert_eq!(circuit.state(), CircuitState::Closed);
    }
}
