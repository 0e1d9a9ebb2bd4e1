//! Reading through: who loads, who holds, what a caller learns about a value.

use std::time::Duration;

use distcache::{Error, GetOptions, Origin};
use futures_util::future::join_all;

use crate::harness::*;

#[tokio::test]
async fn a_value_is_loaded_once_and_then_found() {
    let source = Source::new();
    let (engine, things) = alone(&source).await;
    assert_eq!(things.cached("k"), None);
    let first = things.get_entry("k", GetOptions::new()).await.unwrap();
    assert_eq!((first.value.as_ref(), first.origin), (b"value of k".as_ref(), Origin::Loaded));
    let second = things.get_entry("k", GetOptions::new()).await.unwrap();
    assert_eq!((second.value.as_ref(), second.origin), (b"value of k".as_ref(), Origin::Owned));
    assert_eq!(engine.get(KEYSPACE, "k").await.unwrap(), "value of k");
    assert_eq!(things.cached("k").unwrap(), "value of k");
    assert_eq!(source.loads(), 1);
    let stats = things.stats();
    assert_eq!((stats.misses, stats.loads, stats.loads_found, stats.entries), (1, 1, 1, 1));
    assert_eq!(stats.hits_owned, 3);
}

/// Nodes that take each other for themselves would load every key on every node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_read_on_every_node_at_once_are_loaded_once_in_the_cluster() {
    let source = Source::slow(Duration::from_millis(20));
    let nodes = cluster(3, &source).await;
    let keys: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let reads = nodes.iter().flat_map(|node| keys.iter().map(move |key| node.get(KEYSPACE, key)));
    for (read, key) in join_all(reads).await.into_iter().zip(keys.iter().cycle()) {
        assert_eq!(read.unwrap(), value_of(key));
    }
    assert_eq!(source.loads(), 200);
    assert!(keys.iter().all(|key| source.loads_of(key) == 1));
    let entries: u64 = nodes.iter().map(|node| things(node).stats().entries).sum();
    assert_eq!(entries, 200, "each entry stands at its owner only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_callers_of_one_cold_key_on_three_nodes_cost_one_load() {
    let source = Source::slow(Duration::from_secs(2));
    let nodes = cluster(3, &source).await;
    let callers = (0..10_000).map(|n| {
        let things = things(&nodes[n % 3]);
        tokio::spawn(async move { things.get_entry("cold", GetOptions::new().timeout(PATIENCE)).await })
    });
    for caller in join_all(callers).await {
        assert_eq!(caller.unwrap().unwrap().value, "value of cold");
    }
    assert_eq!(source.loads(), 1);
    let stats: Vec<_> = nodes.iter().map(|node| things(node).stats()).collect();
    assert_eq!(stats.iter().map(|stats| stats.fetches).sum::<u64>(), 2, "one fetch from each of the two others");
    assert!(stats.iter().map(|stats| stats.coalesced).sum::<u64>() > 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_read_often_elsewhere_gets_a_hot_copy() {
    let source = Source::new();
    let nodes = cluster(3, &source).await;
    let (key, reader) = (key_of(&nodes, 0), things(&nodes[1]));
    let mut origins = Vec::new();
    for _ in 0..4 {
        origins.push(reader.get_entry(&key, GetOptions::new()).await.unwrap().origin);
    }
    assert_eq!(origins, [Origin::Loaded, Origin::Peer, Origin::HotCopy, Origin::HotCopy]);
    assert_eq!(reader.stats().hot_entries, 1);
    assert_eq!(reader.stats().entries, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_copies_can_be_switched_off() {
    let source = Source::new();
    let nodes = Plan::new(&source).spec(|spec| spec.hot_copies(false)).cluster(2).await;
    let (key, reader) = (key_of(&nodes, 0), things(&nodes[1]));
    for _ in 0..5 {
        reader.get(&key).await.unwrap();
    }
    let stats = reader.stats();
    assert_eq!((stats.hits_hot, stats.hot_entries, stats.fetches, stats.fetch_hits), (0, 0, 5, 4));
}

/// With one point on the ring per node the busiest of five had 45 % of the keys, and sequential keys met on one node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequential_keys_spread_evenly_over_five_nodes() {
    let source = Source::new();
    let nodes = cluster(5, &source).await;
    let things = things(&nodes[0]);
    let mut owned = std::collections::HashMap::<String, u32>::new();
    for n in 0..10_000 {
        *owned.entry(things.owner_of(&format!("user:{n}")).unwrap().name).or_default() += 1;
    }
    assert_eq!(owned.len(), 5);
    assert!(owned.values().all(|n| (1_800..=2_200).contains(n)), "{owned:?}");
    let ring = nodes[3].ring();
    assert!(ring.members.iter().all(|member| f64::from(member.slots) <= f64::from(ring.slots) / 5.0 * 1.05));
}

#[tokio::test]
async fn keys_that_cannot_be_are_refused() {
    let (engine, things) = alone(&Source::new()).await;
    assert!(matches!(things.get("").await, Err(Error::KeyEmpty)));
    let long = "k".repeat(1_025);
    assert!(matches!(things.get(&long).await, Err(Error::KeyTooLarge { len: 1_025, max: 1_024 })));
    assert!(matches!(things.put(&long, "v").await, Err(Error::KeyTooLarge { .. })));
    assert!(things.get(&long[..1_024]).await.is_ok());
    assert!(things.get("with\0nul and ключ").await.is_ok());
    assert!(matches!(engine.get("nowhere", "k").await, Err(Error::KeyspaceNotFound { name }) if name == "nowhere"));
}
