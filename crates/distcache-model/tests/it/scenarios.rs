//! With every rule: no answer is older than promised in any state within the bounds, and what there is to see is seen.
//!
//! Each search has a floor under its number of states: a model that lost a step would pass everything else.

use distcache_model::{Findings, Scenario, search};

pub fn hold(scenario: Scenario, states_min: usize) {
    let Findings { states, depth, counterexample, unseen } = search(scenario);
    println!("{states} states, up to {depth} steps away");
    if let Some(story) = counterexample {
        panic!("the promise is broken:\n{story}");
    }
    assert_eq!(unseen, [""; 0], "never seen");
    assert!(states >= states_min, "{states} states, less than {states_min}: which steps are gone?");
}

#[test]
fn what_a_write_promises_holds_for_two_readers() {
    hold(Scenario { callers: [true; 3], ..Scenario::TWO_READERS }, 430_000);
}

#[test]
fn what_one_write_leaves_behind_does_not_break_the_promise_of_the_next() {
    hold(Scenario::TWO_WRITES, 180_000);
}

#[test]
fn a_fetch_that_counts_no_more_does_not_get_in_the_way_of_a_new_one() {
    hold(Scenario::OVERLAPPING_FETCHES, 440_000);
}

#[test]
fn who_takes_over_from_a_crashed_owner_keeps_its_promises() {
    hold(Scenario::CRASH, 260_000);
}

#[test]
fn what_two_owners_wrote_holds_once_the_nodes_agree() {
    hold(Scenario::PARTED, 165_000);
}

#[test]
fn an_entry_that_is_handed_over_brings_no_old_value_back() {
    hold(Scenario::HAND_OVER, 205_000);
}

#[test]
fn a_crash_amid_a_hand_over_between_two_owners_breaks_nothing() {
    hold(Scenario::EVERYTHING, 680_000);
}
