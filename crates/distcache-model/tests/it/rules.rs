//! Without any one rule: a short way to an answer that is older than promised.

use distcache_model::{Rule, Scenario, search};

fn is_needed(rule: Rule, scenario: Scenario) {
    let found = search(scenario.without(rule));
    let story = found.counterexample.unwrap_or_else(|| panic!("{} states, and nothing is broken", found.states));
    println!("{story}");
}

#[test]
fn a_load_that_a_write_overtook_may_not_be_stored() {
    is_needed(Rule::LoadFence, Scenario::TWO_WRITES);
}

#[test]
fn a_get_after_a_write_may_not_join_a_load_from_before_it() {
    is_needed(Rule::Detach, Scenario::TWO_WRITES);
}

#[test]
fn a_holder_is_registered_before_anything_is_read_for_it() {
    is_needed(Rule::RegisterOnArrival, Scenario::TWO_READERS);
}

#[test]
fn a_lease_counts_from_the_sending_of_the_question() {
    is_needed(Rule::LeaseFromSend, Scenario::TWO_READERS);
}

#[test]
fn a_new_owner_tells_everybody_while_old_leases_may_run() {
    is_needed(Rule::AllWhileYoung, Scenario::CRASH);
}

#[test]
fn an_invalidation_detaches_the_fetch_under_way() {
    is_needed(Rule::FetchDetach, Scenario::TWO_READERS);
}

#[test]
fn a_get_may_not_join_a_fetch_that_is_older_than_a_lease() {
    is_needed(Rule::JoinWithinLease, Scenario::TWO_READERS);
}

#[test]
fn a_write_waits_for_those_it_told() {
    is_needed(Rule::AwaitAcks, Scenario::TWO_READERS);
}

#[test]
fn an_ack_ends_only_the_registration_it_was_sent_for() {
    is_needed(Rule::AckEndsWhatWasTold, Scenario::TWO_WRITES);
}

#[test]
fn copies_leave_with_the_slot() {
    is_needed(Rule::CopiesLeaveWithTheSlot, Scenario::PARTED);
}

#[test]
fn who_loses_a_slot_says_what_it_wrote() {
    is_needed(Rule::TellTheNext, Scenario::PARTED);
}

#[test]
fn a_handed_over_entry_is_refused_once_the_key_was_written() {
    is_needed(Rule::HandOverFence, Scenario::HAND_OVER);
}
