//! The program as it is called.

#![allow(clippy::unwrap_used)]

use std::process::Command;

fn last_line(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_distcache-sim")).args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned()
}

/// With cuts and crashes, after which many who wait go on at once.
#[test]
fn a_seed_goes_the_same_way_each_time() {
    let replayed = || last_line(&["replay", "--seed", "185"]);
    let first = replayed();
    assert!(first.starts_with("seed=185 ops=") && first.contains("fingerprint="), "{first}");
    assert_eq!(first, replayed());
}

/// Also of a run that means nothing: a scripted check looks at the status alone.
#[test]
fn the_status_says_whether_the_promise_was_kept() {
    let status =
        |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_distcache-sim")).args(args).output().unwrap().status.code();
    assert_eq!(status(&["replay", "--seed", "2", "--minutes", "5"]), Some(0));
    assert_eq!(status(&["replay", "--seed", "2", "--minutes", "5", "--without", "Detach"]), Some(1));
    assert_eq!(status(&["run", "--seeds", "1", "--minutes", "0.5"]), Some(1), "no fault fires so soon");
    assert_eq!(status(&["run", "--seeds", "1", "--minutes", "0.2"]), Some(2), "nothing befalls it");
}

/// What is said of a seed among others is what is said of it alone.
#[test]
fn a_seed_that_comes_second_goes_as_it_does_first() {
    let ops = |line: &str| line.split(' ').find_map(|part| part.strip_prefix("ops=")?.parse::<u64>().ok()).unwrap();
    let size = ["--minutes", "1"];
    let of = |first: &str, seeds: &str| {
        ops(&last_line(&[&["run", "--first-seed", first, "--seeds", seeds], &size[..]].concat()))
    };
    assert_eq!(of("1", "3"), of("1", "1") + of("2", "1") + of("3", "1"));
}
