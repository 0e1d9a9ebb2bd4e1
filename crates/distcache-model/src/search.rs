//! The search: through every state that a scenario can come to, or to the nearest broken promise.
//!
//! Knows no protocol. The invariant: without a counterexample nothing within the bounds was left out. (States are told apart by
//! 64 bits of hash: among a million of them two fall together once in some forty million searches.)

use stateright::{Checker, HasDiscoveries, Model};

use crate::scenario::Scenario;
use crate::steps::{BOUNDED, Protocol};
use crate::story::tell;

/// What a search found.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Different states that it came to.
    pub states: usize,
    /// The most steps it took to a state by the shortest way.
    pub depth: usize,
    /// The shortest way to a broken promise.
    pub counterexample: Option<String>,
    /// What the scenario should show and did not.
    pub unseen: Vec<&'static str>,
}

/// Searches breadth first, in one thread: of several searches each gives the same.
///
/// # Panics
///
/// If the search ended before its end without having found anything.
pub fn search(scenario: Scenario) -> Findings {
    let checker = Protocol(scenario).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let mut found = checker.discoveries();
    let counterexample = found.remove(BOUNDED).map(|path| tell(&scenario, path));
    assert!(counterexample.is_some() || checker.is_done(), "the search is not complete");
    let sights = scenario.sights.iter().map(|(name, _)| *name);
    Findings {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        counterexample,
        unseen: sights.filter(|name| !found.contains_key(name)).collect(),
    }
}
