//! The store as its askers see it: keys and hashes, what counts, what is refused.

use super::*;

const ALWAYS: Validity = Validity { now: Now::At(Moment(1)), epoch: 0, slot_since: 0 };

fn store(max_bytes: u64) -> Store {
    let settings = KeyspaceSettings { max_bytes, ..Default::default() };
    Store::new(&settings, 4 << 20, true, Arc::new(Counters::new()))
}

fn record(key: &str, value: &[u8]) -> Record {
    Record::new(key, Some(value))
}

fn stats(store: &Store) -> KeyspaceStats {
    let mut stats = store.counters.read();
    store.fill_in(&mut stats);
    stats
}

fn value_of(store: &Store, hash: u64, key: &str, validity: Validity) -> Option<Bytes> {
    store.get(Holding::Owned, hash, key, validity).hit().and_then(Record::into_value)
}

#[test]
fn keys_with_the_same_hash_are_never_taken_for_each_other() {
    let store = store(1 << 20);
    store.insert(Holding::Owned, 7, record("a", b"of a")).unwrap();
    assert_eq!(value_of(&store, 7, "a", ALWAYS).unwrap(), "of a");
    assert!(value_of(&store, 7, "b", ALWAYS).is_none());
    assert!(!store.remove(Holding::Owned, 7, "b"));
    store.insert(Holding::Owned, 7, record("b", b"of b")).unwrap();
    assert!(value_of(&store, 7, "a", ALWAYS).is_none());
    assert_eq!(value_of(&store, 7, "b", ALWAYS).unwrap(), "of b");
}

#[test]
fn a_value_larger_than_the_cache_is_refused_and_flushes_nothing() {
    let store = store(1 << 20);
    for n in 0..1_000u64 {
        store.insert(Holding::Owned, n << 40 | n, record(&n.to_string(), &[0; 100])).unwrap();
    }
    let before = stats(&store);
    let max = store.insert(Holding::Owned, 1 << 60, record("big", &vec![0; 2 << 20])).unwrap_err();
    assert!((100 << 10..=256 << 10).contains(&max), "{max}");
    let after = stats(&store);
    assert_eq!(after.entries, before.entries);
    assert_eq!((after.refused_too_large, after.evicted_capacity), (1, before.evicted_capacity));
}

#[test]
fn the_largest_value_that_is_promised_is_also_kept() {
    for max_bytes in [64 << 10, 300 << 10, 1 << 20, 10 << 20, 64 << 20, 1 << 30] {
        let store = store(max_bytes);
        let value = vec![1; store.value_bytes_max() - 1];
        store.insert(Holding::Owned, 99, record("k", &value)).unwrap();
        assert_eq!(value_of(&store, 99, "k", ALWAYS).map(|v| v.len()), Some(value.len()), "limit {max_bytes}");
    }
}

#[test]
fn bytes_stay_under_the_limit_and_overwrites_are_not_evictions() {
    let store = store(1 << 20);
    for _ in 0..10 {
        store.insert(Holding::Owned, 5, record("same", &[0; 100])).unwrap();
    }
    assert_eq!(stats(&store).evicted_capacity, 0);
    assert_eq!(stats(&store).entries, 1);
    for n in 0..20_000u64 {
        let hash = xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes());
        store.insert(Holding::Owned, hash, record(&n.to_string(), &[0; 100])).unwrap();
    }
    let stats = stats(&store);
    assert!(stats.bytes <= stats.bytes_max, "{} of {}", stats.bytes, stats.bytes_max);
    assert!(stats.entries > 2_000);
    assert_eq!(stats.evicted_capacity + stats.entries, 20_001);
}

#[tokio::test]
async fn what_no_longer_counts_frees_its_bytes_without_a_read() {
    let store = store(1 << 20);
    let put = |hash: u64, epoch, view_seq, expires_at| {
        let record =
            Record { epoch, view_seq, times: Times::until(Moment(0), Moment(expires_at)), ..record("k", &[0; 100]) };
        store.insert(Holding::Owned, hash, record).unwrap();
    };
    put(1, 1, 5, 100);
    put(2, 1, 5, 1_000);
    put(3, 0, 5, 1_000);
    put(4, 1, 2, 1_000);
    let validity = Validity { now: Now::At(Moment(100)), epoch: 1, slot_since: 3 };
    assert!(store.may_hold_expired(Moment(100)));
    store.sweep(|_| validity, || async {}).await;
    assert!(!store.may_hold_expired(Moment(100)));
    assert!(store.may_hold_expired(Moment(1_000)));
    let stats = stats(&store);
    assert_eq!((stats.entries, stats.evicted_expired, stats.evicted_cleared, stats.evicted_moved), (1, 1, 1, 1));
    assert_eq!(stats.bytes, 101 + overhead_bytes(Eviction::ScanResistant) as u64);
}

#[test]
fn a_record_that_ended_is_not_returned() {
    let store = store(1 << 20);
    store.insert(Holding::Hot, 1, Record { times: Times::until(Moment(0), Moment(10)), ..record("k", b"v") }).unwrap();
    let at = |now| Validity { now: Now::At(Moment(now)), ..ALWAYS };
    assert!(store.get(Holding::Hot, 1, "k", at(9)).hit().is_some());
    assert!(store.get(Holding::Hot, 1, "k", at(10)).hit().is_none());
    assert_eq!(stats(&store).hot_entries, 0);
}

#[test]
fn a_smaller_limit_keeps_what_still_fits() {
    let store = store(4 << 20);
    for n in 0..1_000u64 {
        let hash = xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes());
        store.insert(Holding::Owned, hash, record(&n.to_string(), &[0; 100])).unwrap();
    }
    store.resize(&KeyspaceSettings { max_bytes: 1 << 20, ..Default::default() }, true);
    assert_eq!(stats(&store).entries, 1_000);
    store.resize(&KeyspaceSettings { max_bytes: 128 << 10, ..Default::default() }, true);
    let stats = stats(&store);
    assert!(stats.entries > 100 && stats.entries < 600 && stats.bytes <= 128 << 10, "{stats:?}");
}

#[test]
fn a_record_copies_out_of_the_buffer_it_came_in() {
    let network_buffer = Bytes::from(vec![7; 6_000]);
    let small = network_buffer.slice(10..20);
    let value = Record::new("k", Some(&small)).value().unwrap();
    assert_eq!(value, small);
    assert!(value.as_ptr() < network_buffer.as_ptr() || value.as_ptr() > network_buffer.as_ptr().wrapping_add(6_000));
}
