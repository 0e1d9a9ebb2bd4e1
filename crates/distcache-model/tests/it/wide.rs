//! The same within wider bounds. Each takes half a minute to some minutes and gigabytes, so they run when they are asked for,
//! one after the other:
//! `cargo test -p distcache-model -- --ignored --test-threads 1 --nocapture`.

use distcache_model::Scenario;

use crate::scenarios::hold;

#[test]
#[ignore = "minutes and gigabytes"]
fn two_writes_and_a_crash_keep_the_promise() {
    hold(Scenario { writes: 2, ..Scenario::CRASH }, 15_000_000);
}

#[test]
#[ignore = "minutes and gigabytes"]
fn two_writes_and_a_hand_over_keep_the_promise() {
    hold(Scenario { writes: 2, ..Scenario::HAND_OVER }, 5_000_000);
}

#[test]
#[ignore = "minutes and gigabytes"]
fn overlapping_fetches_from_two_owners_keep_the_promise() {
    hold(Scenario { fetches: 2, ..Scenario::PARTED }, 5_500_000);
}

#[test]
#[ignore = "minutes and gigabytes"]
fn two_writes_at_two_owners_keep_the_promise() {
    hold(Scenario { writes: 2, ..Scenario::PARTED }, 10_000_000);
}

#[test]
#[ignore = "minutes and gigabytes"]
fn two_owners_with_callers_of_their_own_keep_the_promise() {
    hold(Scenario { nodes: 2, callers: [true, true, false], ..Scenario::PARTED }, 3_000_000);
}
