//! Every promise broken once, by a planted history, beside what is just granted.

use super::*;
use crate::PROMISES;
use crate::history::Seen;

const ERROR: &str = "nobody there";

fn at(seconds: f64) -> Moment {
    Duration::from_secs_f64(seconds)
}

fn read(seconds: f64, node: Node, version: u64) -> Read {
    let outcome = Ok(Seen { version, is_hit: true, is_copy: true });
    Read { node, key: 1, start: at(seconds), end: at(seconds + 0.01), outcome }
}

fn write(seconds: f64, node: Node, version: u64) -> Write {
    let (start, end) = (at(seconds - 0.01), at(seconds));
    Write { node, key: 1, start, end, version, kind: Kind::Delete, outcome: Ok(()) }
}

fn other_key(write: Write) -> Write {
    Write { key: 3, ..write }
}

/// Nodes 0 and 1 are cut from 2, 3 and 4 for a minute from second 100 on; before and after, all read what is there.
fn split() -> History {
    let fault = Fault {
        name: "split".into(),
        begin: at(100.0),
        end: at(160.0),
        parts: vec![vec![0, 1], vec![2, 3, 4]],
        unheard: None,
        silent: None,
        drops: false,
        is_noticed: true,
        one_view_after: Some(at(1.0)),
    };
    let reads = (1..=250).map(|second| Read { key: 2, ..read(f64::from(second), 0, 2) }).collect();
    let writes = vec![other_key(write(101.0, 0, 2)), other_key(write(102.0, 4, 3))];
    History { reads, writes, faults: vec![fault], standings: Vec::new(), ended: at(250.0) }
}

/// The same, but node 3 answers nobody.
fn stopped() -> History {
    let mut history = split();
    history.faults[0].silent = Some(3);
    history.faults[0].parts = vec![vec![3], vec![0, 1, 2, 4]];
    history
}

fn violations(mut history: History, reads: &[Read], writes: &[Write]) -> Vec<Violation> {
    history.reads.extend_from_slice(reads);
    history.writes.extend_from_slice(writes);
    judge(&history, &PROMISES).violations
}

fn is_stale(found: &[Violation]) -> bool {
    matches!(found, [Violation::Stale { .. }])
}

#[test]
fn a_history_without_fault_is_found_without_fault() {
    let verdict = judge(&split(), &PROMISES);
    assert_eq!(verdict.violations, []);
    assert_eq!((verdict.reads, verdict.copies, verdict.writes), (250, 250, 2));
    assert_eq!((verdict.faults[0].reads, verdict.faults[0].writes), (70, 2));
}

#[test]
fn in_the_calm_a_read_after_a_write_sees_it() {
    let writes = [write(50.0, 0, 7)];
    assert!(is_stale(&violations(split(), &[read(50.0, 4, 6)], &writes)));
    assert!(is_stale(&violations(split(), &[read(99.0, 0, 6)], &writes)));
    assert_eq!(violations(split(), &[read(49.999, 4, 6), read(50.0, 4, 7)], &writes), [], "begun before, or seen");
    let unknown = Write { outcome: Err(ERROR.into()), ..write(50.0, 0, 7) };
    let found = violations(split(), &[read(51.0, 4, 6)], &[unknown]);
    assert!(matches!(&found[..], [Violation::Failed { .. }]), "what failed need not be seen: {found:?}");
}

#[test]
fn what_was_written_before_a_fault_is_seen_in_it_too() {
    assert!(is_stale(&violations(split(), &[read(100.5, 4, 6)], &[write(99.9, 0, 7)])));
    assert_eq!(violations(split(), &[read(100.5, 1, 6)], &[write(100.0, 0, 7)]), [], "while it began");
}

#[test]
fn on_one_side_a_copy_lives_no_longer_than_lease_and_detection() {
    let writes = [write(110.0, 0, 7)];
    assert_eq!(violations(split(), &[read(119.9, 1, 6)], &writes), []);
    assert!(is_stale(&violations(split(), &[read(120.1, 1, 6)], &writes)));
}

#[test]
fn across_sides_nothing_old_is_answered_once_the_recovery_is_over() {
    let writes = [write(110.0, 0, 7)];
    assert_eq!(violations(split(), &[read(169.9, 4, 6), read(169.995, 4, 6)], &writes), [], "begun before");
    for node in 0..5 {
        assert!(is_stale(&violations(split(), &[read(170.0, node, 6)], &writes)), "{node}");
    }
    assert!(is_stale(&violations(split(), &[read(240.0, 4, 6)], &writes)));
}

#[test]
fn one_grant_does_not_cover_another_write() {
    let writes = [write(110.0, 0, 7), write(111.0, 4, 8)];
    assert_eq!(violations(split(), &[read(120.0, 4, 6)], &writes), []);
    assert!(is_stale(&violations(split(), &[read(121.1, 4, 6)], &writes)), "version 8 was written on its own side");
    assert_eq!(violations(split(), &[read(121.1, 4, 8)], &writes), []);
}

#[test]
fn what_is_granted_is_told() {
    let mut history = split();
    history.reads.extend([read(112.0, 4, 6), read(165.0, 4, 6)]);
    history.writes.push(write(110.0, 0, 7));
    let verdict = judge(&history, &PROMISES);
    assert_eq!((verdict.violations.len(), verdict.faults[0].stale), (0, 2));
    assert_eq!(verdict.faults[0].stale_for_max, at(55.0));
}

#[test]
fn a_node_that_was_stopped_answers_what_it_knew_until_it_has_recovered() {
    let writes = [write(110.0, 0, 7)];
    assert_eq!(violations(stopped(), &[read(169.0, 3, 6)], &writes), []);
    assert!(is_stale(&violations(stopped(), &[read(171.0, 3, 6)], &writes)));
    assert!(is_stale(&violations(stopped(), &[read(169.0, 2, 6)], &writes)), "the others have no such excuse");
}

#[test]
fn a_put_that_failed_may_take_effect_later_and_a_delete_that_failed_may_not() {
    let failed = |kind| Write { kind, outcome: Err(ERROR.into()), ..write(103.0, 0, 7) };
    let (later, reads) = (write(105.0, 0, 8), [read(200.0, 1, 7)]);
    let mut history = split();
    history.writes.extend([failed(Kind::Put), later.clone()]);
    history.reads.extend(reads.clone());
    let verdict = judge(&history, &PROMISES);
    assert_eq!((verdict.violations.len(), verdict.of_failed_puts), (0, 1));
    assert!(is_stale(&violations(split(), &reads, &[failed(Kind::Delete), later.clone()])));
    assert!(is_stale(&violations(split(), &[read(200.0, 1, 6)], &[failed(Kind::Put), later])));
}

#[test]
fn a_version_that_nobody_has_written_yet_is_invented() {
    let found = violations(split(), &[read(40.0, 1, 7)], &[write(50.0, 0, 7)]);
    assert!(matches!(&found[..], [Violation::Invented { .. }]), "{found:?}");
    assert_eq!(violations(split(), &[read(49.99, 1, 7)], &[write(50.0, 0, 7)]), [], "it was being written");
}

#[test]
fn an_error_has_to_be_that_of_a_node_that_is_not_there() {
    let failed = |seconds, node| Read { outcome: Err(ERROR.into()), ..read(seconds, node, 0) };
    assert_eq!(violations(stopped(), &[failed(100.0, 3), failed(160.0, 3), failed(99.995, 3)], &[]), []);
    for (seconds, node) in [(130.0, 2), (99.0, 3), (160.1, 3), (50.0, 0)] {
        let found = violations(stopped(), &[failed(seconds, node)], &[]);
        assert!(matches!(&found[..], [Violation::Failed { what: "get", .. }]), "{seconds} at {node}: {found:?}");
    }
}

#[test]
fn a_write_may_miss_its_owner_until_the_fault_is_noticed() {
    let failed = |seconds| Write { outcome: Err(ERROR.into()), ..write(seconds, 0, 7) };
    assert_eq!(violations(split(), &[], &[failed(100.0), failed(104.9)]), []);
    for seconds in [99.0, 105.1, 162.0] {
        let found = violations(split(), &[], &[failed(seconds)]);
        assert!(matches!(&found[..], [Violation::Failed { what: "delete", .. }]), "{seconds}: {found:?}");
    }
}

#[test]
fn a_write_between_two_that_do_not_hear_each_other_may_fail_all_the_time() {
    let failed = |node| Write { outcome: Err(ERROR.into()), ..write(140.0, node, 7) };
    let one_way = || {
        let mut history = split();
        history.faults[0].unheard = Some((0, 3));
        history
    };
    assert_eq!(violations(one_way(), &[], &[failed(0), other_key(failed(3))]), []);
    assert!(matches!(&violations(one_way(), &[], &[failed(1)])[..], [Violation::Failed { node: 1, .. }]));
}

#[test]
fn a_get_needs_no_owner() {
    let failed = Read { outcome: Err(ERROR.into()), ..read(101.0, 0, 0) };
    let found = violations(split(), &[failed], &[]);
    assert!(matches!(&found[..], [Violation::Failed { what: "get", .. }]), "{found:?}");
}

#[test]
fn all_nodes_are_of_one_view_before_the_recovery_is_over() {
    for (after, is_late) in [(Some(at(9.9)), false), (Some(at(10.1)), true), (None, true)] {
        let mut history = split();
        history.faults[0].one_view_after = after;
        let found = violations(history, &[], &[]);
        assert_eq!(matches!(&found[..], [Violation::Apart { .. }]), is_late, "{found:?}");
    }
}

#[test]
fn a_cache_that_stays_cold_is_found() {
    let cold = |from: f64, to: f64| {
        let mut history = split();
        let missed = |read: &mut Read| read.outcome = Ok(Seen { version: 2, is_hit: false, is_copy: true });
        history.reads.iter_mut().filter(|read| read.start >= at(from) && read.start < at(to)).for_each(missed);
        violations(history, &[], &[])
    };
    assert_eq!(cold(160.0, 185.0), [], "warm again within half a minute");
    assert!(matches!(&cold(160.0, 186.0)[..], [Violation::Cold { before: 1.0, after: 0.8, .. }]));
}

/// What is read all the time is there again at once, whatever was dropped.
#[test]
fn entries_that_a_heal_has_dropped_are_found_among_the_keys_that_are_seldom_read() {
    let with = |is_hit: fn(u32) -> bool, is_healed: bool, drops: bool| {
        let mut history = split();
        history.faults[0].drops = drops;
        let seldom = |second: u32| {
            let outcome = Ok(Seen { version: 1, is_hit: is_hit(second), is_copy: false });
            Read { key: PROMISES.seldom_read_from, outcome, ..read(f64::from(second), 0, 1) }
        };
        history.reads.extend((1..=250).map(seldom));
        if !is_healed {
            (history.faults[0].parts, history.faults[0].silent) = (Vec::new(), Some(3));
        }
        violations(history, &[], &[])
    };
    assert_eq!(with(|_| true, true, false), []);
    assert!(matches!(&with(|at| at < 160, true, false)[..], [Violation::Cold { before: 1.0, after: 0.0, .. }]));
    assert_eq!(with(|at| at < 160, true, true), [], "a doubt has dropped them");
    assert_eq!(with(|at| at < 160, false, false), [], "who was killed comes back with nothing");
    assert!(matches!(&with(|_| false, true, false)[..], [Violation::Void { .. }]), "there was nothing to drop");
}

#[test]
fn a_history_that_shows_too_little_is_void() {
    let why = |history: &History| match &judge(history, &PROMISES).violations[..] {
        [Violation::Void { why }] => why.clone(),
        other => panic!("{other:?}"),
    };
    let mut no_copies = split();
    for read in &mut no_copies.reads {
        read.outcome = Ok(Seen { version: 2, is_hit: true, is_copy: false });
    }
    assert_eq!(why(&no_copies), "no read was answered by a copy");
    let mut unnoticed = split();
    unnoticed.faults[0].is_noticed = false;
    assert_eq!(why(&unnoticed), "split: no node noticed");
    let mut one_sided = split();
    one_sided.writes.retain(|write| write.node != 4);
    assert_eq!(why(&one_sided), "split: nothing was written at [2, 3, 4]");
    let mut hasty = split();
    hasty.faults.push(Fault {
        name: "next".into(),
        begin: at(165.0),
        end: at(170.0),
        parts: Vec::new(),
        ..hasty.faults[0].clone()
    });
    assert_eq!(why(&hasty), "next began before the recovery from split was over");
    assert_eq!(why(&History { faults: Vec::new(), ..split() }), "nothing ever failed");
}
