//! What every eviction policy has to do, run for each; what each does by itself. LRU and FIFO stand beside a plain model in
//! `model`.

mod model;

use std::collections::HashMap;
use std::future::ready;
use std::sync::atomic::AtomicBool;

use super::policy::{Chosen, Pushed};
use super::shard::Shard;
use super::*;
use crate::spec::Eviction::{self, Fifo, Lfu, Lru, ScanResistant};

const ALL: [Eviction; 4] = [ScanResistant, Lru, Lfu, Fifo];
const ALWAYS: Validity = Validity { now: Now::At(Moment(1)), epoch: 0, slot_since: 0 };
const VALUE: [u8; 100] = [7; 100];

pub(super) fn hash(n: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes())
}

fn settings(eviction: Eviction, max_bytes: u64) -> KeyspaceSettings {
    KeyspaceSettings { eviction, max_bytes, ..Default::default() }
}

fn store(eviction: Eviction, max_bytes: u64) -> Store {
    Store::new(&settings(eviction, max_bytes), 4 << 20, true, Arc::new(Counters::new()))
}

fn stats(store: &Store) -> KeyspaceStats {
    let mut stats = store.counters.read();
    store.fill_in(&mut stats);
    stats
}

fn record(n: u64, value: &[u8]) -> Record {
    Record::new(&n.to_string(), Some(value))
}

fn put(store: &Store, n: u64, value: &[u8]) {
    store.insert(Holding::Owned, hash(n), record(n, value)).unwrap();
}

fn get(store: &Store, n: u64) -> Option<Bytes> {
    store.get_value(Holding::Owned, hash(n), &n.to_string(), ALWAYS).flatten()
}

fn remove(store: &Store, n: u64) -> bool {
    store.remove(Holding::Owned, hash(n), &n.to_string())
}

/// The weight of every record, one by one.
fn weighed(shelf: &Shelf, eviction: Eviction) -> u64 {
    let mut hashes = Vec::new();
    (0..shelf.shards()).for_each(|shard| shelf.hashes(shard, &mut hashes));
    let weight = |record: &Record| record.weight(overhead_bytes(eviction));
    hashes.into_iter().map(|hash| shelf.peek(hash, weight).unwrap()).sum()
}

#[test]
fn bytes_stay_under_the_limit_and_every_eviction_is_counted_once() {
    for eviction in ALL {
        let store = store(eviction, 1 << 20);
        for n in 0..20_000 {
            put(&store, n, &VALUE);
            assert_eq!(get(&store, n).unwrap(), &VALUE[..], "{eviction:?}: what was put last is there");
            let bytes = store.owned.weight();
            assert!(bytes <= 1 << 20, "{eviction:?}: {bytes}");
        }
        let stats = stats(&store);
        assert!(stats.entries > 2_500, "{eviction:?}: {stats:?}");
        assert_eq!(stats.evicted_capacity + stats.entries, 20_000, "{eviction:?}");
        assert_eq!(stats.bytes, weighed(&store.owned, eviction), "{eviction:?}");
    }
}

#[test]
fn an_overwrite_is_no_eviction_and_weighs_what_it_weighs() {
    for eviction in ALL {
        let store = store(eviction, 1 << 20);
        for len in [100, 5_000, 10, 0, 700] {
            put(&store, 1, &vec![1; len]);
            assert_eq!(get(&store, 1).map(|value| value.len()), Some(len));
            let stats = stats(&store);
            assert_eq!((stats.entries, stats.evicted_capacity), (1, 0), "{eviction:?}");
            assert_eq!(stats.bytes, (1 + len + overhead_bytes(eviction)) as u64, "{eviction:?}");
        }
    }
}

#[test]
fn an_overwrite_that_grows_evicts_others_and_not_itself() {
    for eviction in ALL {
        let store = store(eviction, 1 << 20);
        (0..5_000).for_each(|n| put(&store, n, &VALUE));
        let large = vec![3; store.value_bytes_max() - 4];
        for n in [4_999, 4_990] {
            put(&store, n, &VALUE);
            put(&store, n, &large);
            assert_eq!(get(&store, n).map(|value| value.len()), Some(large.len()), "{eviction:?}");
            assert!(store.owned.weight() <= 1 << 20);
        }
    }
}

#[test]
fn what_was_removed_is_gone_and_weighs_nothing() {
    for eviction in ALL {
        let store = store(eviction, 1 << 20);
        (0..1_000).for_each(|n| put(&store, n, &VALUE));
        for n in (0..1_000).rev() {
            assert!(remove(&store, n), "{eviction:?}: {n}");
            assert!(!remove(&store, n));
            assert_eq!(get(&store, n), None);
        }
        let stats = stats(&store);
        assert_eq!((stats.entries, stats.bytes, stats.evicted_capacity), (0, 0, 0), "{eviction:?}");
    }
}

#[tokio::test]
async fn a_sweep_drops_what_expired_was_cleared_or_moved_and_nothing_else() {
    for eviction in ALL {
        let store = store(eviction, 4 << 20);
        let put = |n: u64, epoch, view_seq, expires_at| {
            let record =
                Record { epoch, view_seq, times: Times::until(Moment(0), Moment(expires_at)), ..record(n, &VALUE) };
            store.insert(Holding::Owned, hash(n), record).unwrap();
        };
        for n in 0..800 {
            match n % 4 {
                0 => put(n, 1, 5, 100),
                1 => put(n, 1, 5, 1_000),
                2 => put(n, 0, 5, 1_000),
                _ => put(n, 1, 2, 1_000),
            }
        }
        let validity = Validity { now: Now::At(Moment(100)), epoch: 1, slot_since: 3 };
        store.sweep(|_| validity, || ready(())).await;
        assert!(!store.may_hold_expired(Moment(999)) && store.may_hold_expired(Moment(1_000)));
        let stats = stats(&store);
        let dropped = (stats.evicted_expired, stats.evicted_cleared, stats.evicted_moved, stats.evicted_capacity);
        assert_eq!((stats.entries, dropped), (200, (200, 200, 200, 0)), "{eviction:?}");
        assert!((0..800).all(|n| {
            let held = store.get(Holding::Owned, hash(n), &n.to_string(), validity);
            held.hit().is_some() == (n % 4 == 1)
        }));
    }
}

#[test]
fn a_smaller_limit_keeps_what_still_fits_and_a_larger_one_everything() {
    for eviction in ALL {
        let store = store(eviction, 4 << 20);
        (0..1_000).for_each(|n| put(&store, n, &VALUE));
        for max_bytes in [1 << 20, 8 << 20] {
            store.resize(&settings(eviction, max_bytes), true);
            assert_eq!(stats(&store).entries, 1_000, "{eviction:?}");
        }
        store.resize(&settings(eviction, 128 << 10), true);
        let small = stats(&store);
        assert!(small.entries > 200 && small.bytes <= 128 << 10, "{eviction:?}: {small:?}");
        assert_eq!(small.entries + small.evicted_capacity, 1_000, "{eviction:?}");
        assert_eq!((0..1_000).filter(|&n| get(&store, n).is_some()).count() as u64, small.entries);
    }
}

#[test]
fn a_value_over_the_share_is_refused_counted_and_flushes_nothing() {
    for eviction in ALL {
        let store = store(eviction, 1 << 20);
        (0..1_000).for_each(|n| put(&store, n, &VALUE));
        let max = store.value_bytes_max();
        assert!((100 << 10..=256 << 10).contains(&max), "{eviction:?}: {max}");
        let refused = store.insert(Holding::Owned, hash(5), record(5, &vec![0; max]));
        assert_eq!(refused, Err(max), "{eviction:?}");
        let stats = stats(&store);
        // What stood under the key is older than what was refused.
        assert_eq!((stats.entries, stats.refused_too_large, stats.evicted_capacity), (999, 1, 0), "{eviction:?}");
        put(&store, 5, &vec![0; max - 1]);
        assert_eq!(get(&store, 5).map(|value| value.len()), Some(max - 1), "{eviction:?}");
    }
}

#[test]
fn the_largest_value_that_is_promised_is_kept_whatever_the_limit() {
    for (eviction, max_bytes) in ALL.into_iter().flat_map(|e| [64 << 10, 300 << 10, 10 << 20, 64 << 20].map(|b| (e, b)))
    {
        let store = store(eviction, max_bytes);
        (0..1_000).for_each(|n| put(&store, n, &VALUE));
        let value = vec![1; store.value_bytes_max() - 1];
        put(&store, 9, &value);
        assert_eq!(get(&store, 9).map(|value| value.len()), Some(value.len()), "{eviction:?} {max_bytes}");
    }
}

#[test]
fn an_amended_record_is_changed_in_place_and_was_not_used() {
    for eviction in ALL {
        let bytes = 10 * (101 + overhead_bytes(eviction)) as u64;
        let mut policy = Chosen::new(eviction, bytes);
        let mut out = Pushed::new();
        (0..10).for_each(|n| drop(policy.insert(hash(n), record(n, &VALUE), &mut out)));
        let mut other = Chosen::new(eviction, bytes);
        (0..10).for_each(|n| drop(other.insert(hash(n), record(n, &VALUE), &mut out)));
        for n in [0, 0, 0, 3, 3, 3] {
            let amended = policy.amend(hash(n), |record| std::mem::replace(&mut record.version, n + 1)).unwrap();
            assert!(amended == 0 || amended == n + 1);
            assert_eq!(policy.peek(hash(n)).unwrap().version, n + 1);
        }
        assert_eq!(policy.amend(hash(99), |_| ()), None);
        for n in 10..40 {
            let (mut ours, mut theirs) = (Pushed::new(), Pushed::new());
            policy.insert(hash(n), record(n, &VALUE), &mut ours);
            other.insert(hash(n), record(n, &VALUE), &mut theirs);
            let order = |pushed: Pushed| pushed.into_iter().map(|(hash, _)| hash).collect::<Vec<_>>();
            assert_eq!(order(ours), order(theirs), "{eviction:?}");
        }
    }
}

#[test]
fn an_amended_lifetime_is_known_to_the_sweep() {
    for eviction in ALL {
        let store = store(eviction, 1 << 20);
        put(&store, 1, &VALUE);
        assert!(!store.may_hold_expired(Moment(70)));
        store.amend(Holding::Owned, hash(1), 7, |times| times.expires_at = Moment(70));
        assert!(!store.may_hold_expired(Moment(70)), "{eviction:?}: a record of another version");
        store.amend(Holding::Owned, hash(1), 0, |times| times.expires_at = Moment(70));
        assert!(store.may_hold_expired(Moment(70)), "{eviction:?}");
    }
}

/// Threads write, read and remove, each the sole writer of its keys, so that each knows what it must find: the latest value or,
/// since anything may be evicted, nothing. `meanwhile` runs until they are done.
fn write_and_check_from_threads(store: &Store, meanwhile: impl Fn() + Sync) {
    const THREADS: u64 = 4;
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers =
            (0..THREADS).map(|thread| scope.spawn(move || write_and_check(store, thread * 10_000))).collect::<Vec<_>>();
        scope.spawn(|| {
            while !is_done.load(Relaxed) {
                meanwhile();
            }
        });
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        is_done.store(true, Relaxed);
        ended.into_iter().for_each(|end| end.unwrap());
    });
    let bytes = store.owned.weight();
    assert!(bytes > 0 && bytes <= stats(store).bytes_max, "{bytes}");
}

fn write_and_check(store: &Store, first: u64) {
    let mut latest = HashMap::new();
    for round in 0..30_000_u64 {
        let choice = hash(first + round);
        let n = first + choice % 400;
        match (choice >> 32) % 8 {
            0 => {
                remove(store, n);
                latest.remove(&n);
            }
            1..4 => {
                let value = Bytes::from(vec![round as u8; 1 + (choice >> 40) as usize % 300]);
                put(store, n, &value);
                latest.insert(n, value);
            }
            _ => {
                if let Some(found) = get(store, n) {
                    assert_eq!(Some(&found), latest.get(&n), "what was removed or overwritten came back");
                }
            }
        }
    }
}

#[test]
fn threads_find_what_they_wrote_last_or_nothing() {
    for eviction in ALL {
        let store = store(eviction, 256 << 10);
        write_and_check_from_threads(&store, || {
            store.amend(Holding::Owned, hash(3), 0, |times| times.used += 1);
        });
    }
}

#[test]
fn threads_find_what_they_wrote_last_or_nothing_while_the_policy_and_the_limit_change() {
    let store = store(ScanResistant, 256 << 10);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let runtime = Mutex::new(runtime);
    write_and_check_from_threads(&store, || {
        for (eviction, max_bytes) in [(Lru, 200 << 10), (Lfu, 256 << 10), (Fifo, 128 << 10), (ScanResistant, 256 << 10)]
        {
            store.resize(&settings(eviction, max_bytes), true);
            std::thread::yield_now();
            // Every other time the next change comes before the sweep.
            if eviction != Lfu {
                runtime.lock().block_on(store.sweep(|_| ALWAYS, tokio::task::yield_now));
            }
        }
    });
}

#[tokio::test]
async fn another_policy_takes_over_what_is_there_and_brings_nothing_back() {
    for (from, to) in ALL.into_iter().flat_map(|from| ALL.map(|to| (from, to))).filter(|(from, to)| from != to) {
        let store = store(from, 8 << 20);
        (0..4_000).for_each(|n| put(&store, n, &VALUE));
        store.resize(&settings(to, 8 << 20), true);
        assert!(store.may_hold_expired(Moment(1)), "a sweep has something to do");
        // Before anything was moved.
        assert!((0..4_000).all(|n| get(&store, n).is_some()), "{from:?} to {to:?}");
        assert!((0..100).all(|n| remove(&store, n)));
        (100..200).for_each(|n| put(&store, n, b"new"));
        assert_eq!(stats(&store).entries, 3_900);
        let mut steps = 0_u64;
        store
            .sweep(
                |_| ALWAYS,
                || {
                    // In between, too.
                    steps += 1;
                    let n = 1_000 + steps;
                    assert!(get(&store, n).is_some() && remove(&store, n) && get(&store, n).is_none());
                    ready(())
                },
            )
            .await;
        assert!(steps > 16, "{steps}");
        assert!(!store.may_hold_expired(Moment(1)));
        assert!((0..100).all(|n| get(&store, n).is_none()), "{from:?} to {to:?}");
        assert!((100..200).all(|n| get(&store, n).unwrap() == "new"), "{from:?} to {to:?}");
        assert!((200..1_000).all(|n| get(&store, n).is_some()), "{from:?} to {to:?}");
        let stats = stats(&store);
        assert_eq!((stats.entries, stats.evicted_capacity), (3_900 - steps, 0), "{from:?} to {to:?}");
        assert_eq!(stats.bytes, weighed(&store.owned, to), "{from:?} to {to:?}");
    }
}

#[test]
fn a_full_store_changes_its_policy_by_writes_alone_and_stays_under_its_limit() {
    for (from, to) in ALL.into_iter().flat_map(|from| ALL.map(|to| (from, to))).filter(|(from, to)| from != to) {
        let store = store(from, 1 << 20);
        (0..10_000).for_each(|n| put(&store, n, &VALUE));
        let before = stats(&store).entries;
        store.resize(&settings(to, 1 << 20), true);
        let (most, _) = split(&settings(to, 1 << 20), true);
        for n in 10_000..12_000 {
            put(&store, n, &VALUE);
            assert!(get(&store, n).is_some() && store.owned.weight() <= most, "{from:?} to {to:?}");
        }
        let after = stats(&store).entries;
        assert!(after * 100 >= before * 80, "{from:?} to {to:?}: {before} and then {after}");
    }
}

/// One shard with room for ten records, filled with 0 to 9; then what a story does to it; then as many newcomers as it takes to
/// push everything out. Returns the order in which the ten went.
fn order_of_eviction(eviction: Eviction, story: impl Fn(&mut Chosen)) -> Vec<u64> {
    let mut policy = Chosen::new(eviction, 10 * (101 + overhead_bytes(eviction)) as u64);
    let mut out = Pushed::new();
    (0..10).for_each(|n| drop(policy.insert(hash(n), record(n, &VALUE), &mut out)));
    story(&mut policy);
    // Keys of one digit, so that all weigh the same; the hashes tell them apart.
    for newcomer in 100..200 {
        policy.insert(hash(newcomer), record(0, &VALUE), &mut out);
    }
    out.iter().filter_map(|(pushed, _)| (0..10).find(|&n| hash(n) == *pushed)).collect()
}

fn read(policy: &mut Chosen, keys: impl IntoIterator<Item = u64>) {
    keys.into_iter().for_each(|n| assert!(policy.get(hash(n)).is_some()));
}

#[test]
fn lru_evicts_what_was_used_longest_ago() {
    let order = order_of_eviction(Lru, |policy| read(policy, [3, 0, 3]));
    assert_eq!(order, [1, 2, 4, 5, 6, 7, 8, 9, 0, 3]);
}

#[test]
fn what_was_taken_over_goes_in_its_old_order_and_before_what_came_since() {
    for (from, to) in [(Lru, Fifo), (Fifo, Lru)] {
        let mut shard = Shard::new(from, 10 * (101 + overhead_bytes(from)) as u64);
        let mut out = Pushed::new();
        (0..10).for_each(|n| drop(shard.insert(hash(n), record(n, &VALUE), &mut out)));
        shard.get(hash(0));
        shard.change_policy(to);
        (20..40).for_each(|n| drop(shard.insert(hash(n), record(0, &VALUE), &mut out)));
        let renewed = if from == Lru { [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] } else { [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] };
        let order: Vec<u64> = out.iter().map(|(hash, _)| *hash).collect();
        assert_eq!(order, renewed.into_iter().chain(20..30).map(hash).collect::<Vec<_>>(), "{from:?} to {to:?}");
    }
}

#[test]
fn fifo_evicts_what_came_first_however_often_it_was_used() {
    let order = order_of_eviction(Fifo, |policy| {
        read(policy, [3, 0, 3]);
        policy.insert(hash(1), record(1, b"again"), &mut Pushed::new());
    });
    assert_eq!(order, [0, 2, 3, 4, 5, 6, 7, 8, 9, 1]);
}

#[test]
fn lfu_evicts_what_was_used_less_often() {
    let popular = [2, 5, 7];
    let come_once = order_of_eviction(Lfu, |policy| (0..6).for_each(|_| read(policy, popular)));
    assert!(popular.iter().all(|n| !come_once.contains(n)), "{come_once:?}");
    let come_often = order_of_eviction(Lfu, |policy| {
        (0..6).for_each(|_| read(policy, popular));
        for n in 50..70 {
            policy.insert(hash(n), record(0, &VALUE), &mut Pushed::new());
            read(policy, [n, n]);
        }
        assert!((0..10).filter(|&n| policy.peek(hash(n)).is_some()).eq(popular));
    });
    assert!(come_often.is_empty(), "{come_often:?}");
}

#[test]
fn lfu_forgets_what_was_used_often_long_ago() {
    let mut policy = Chosen::new(Lfu, 10 * (101 + overhead_bytes(Lfu)) as u64);
    let mut out = Pushed::new();
    (0..10).for_each(|n| drop(policy.insert(hash(n), record(n, &VALUE), &mut out)));
    (0..12).for_each(|_| read(&mut policy, 0..10));
    // Other keys are popular now.
    for _ in 0..400 {
        for n in 20..26 {
            if policy.get(hash(n)).is_none() {
                policy.insert(hash(n), record(0, &VALUE), &mut out);
            }
        }
    }
    assert!((20..26).filter(|&n| policy.peek(hash(n)).is_some()).count() >= 5);
}

#[test]
fn a_scan_pushes_out_nothing_that_is_in_use() {
    let order = order_of_eviction(ScanResistant, |policy| (0..3).for_each(|_| read(policy, [2, 5, 7])));
    assert!(!order.contains(&2) && !order.contains(&5) && !order.contains(&7), "{order:?}");
}
