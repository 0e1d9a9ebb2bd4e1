//! Put, delete, refresh: what is seen afterwards, and where.

use std::time::Duration;

use distcache::{Error, GetOptions, Limits, Origin, SourceError};
use futures_util::future::join_all;

use crate::harness::*;

/// Reads until the node holds a copy of its own.
async fn warm(reader: &distcache::Keyspace, key: &str) {
    for _ in 0..3 {
        reader.get(key).await.unwrap();
    }
    assert_eq!(reader.get_entry(key, GetOptions::new()).await.unwrap().origin, Origin::HotCopy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_is_seen_on_every_node_at_once_also_where_copies_were() {
    let source = Source::new();
    let nodes = cluster(3, &source).await;
    let key = key_of(&nodes, 0);
    for writer in [0, 1, 2] {
        warm(&things(&nodes[1]), &key).await;
        warm(&things(&nodes[2]), &key).await;
        let value = format!("written by {writer}");
        nodes[writer].put(KEYSPACE, &key, value.clone()).await.unwrap();
        for node in &nodes {
            assert_eq!(node.get(KEYSPACE, &key).await.unwrap(), value);
        }
    }
    assert_eq!(source.loads(), 1, "what is put is not loaded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_stands_at_its_owner_only() {
    let source = Source::new();
    let nodes = cluster(3, &source).await;
    for n in 0..300 {
        nodes[n % 3].put(KEYSPACE, &n.to_string(), "v").await.unwrap();
    }
    let stats: Vec<_> = nodes.iter().map(|node| things(node).stats()).collect();
    assert_eq!(stats.iter().map(|stats| stats.entries).sum::<u64>(), 300);
    assert_eq!(stats.iter().map(|stats| stats.hot_entries).sum::<u64>(), 0);
}

/// A cache that coalesces writes like reads would answer Ok to the second and drop it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_puts_none_is_dropped() {
    let source = Source::new();
    let nodes = cluster(3, &source).await;
    let key = key_of(&nodes, 0);
    let puts = (0..300).map(|n| nodes[n % 3].put(KEYSPACE, &key, n.to_string()));
    join_all(puts).await.into_iter().for_each(|put| put.unwrap());
    let puts: u64 = nodes.iter().map(|node| things(node).stats().puts).sum();
    assert_eq!(puts, 300, "each was carried out");
    let settled = nodes[0].get(KEYSPACE, &key).await.unwrap();
    for node in &nodes {
        assert_eq!(node.get(KEYSPACE, &key).await.unwrap(), settled);
    }
    for node in &nodes {
        let (one, two) = (node.put(KEYSPACE, &key, "one"), async {
            node.put(KEYSPACE, &key, "two").await.unwrap();
            node.put(KEYSPACE, &key, "last").await
        });
        let (one, two) = tokio::join!(one, two);
        one.unwrap();
        two.unwrap();
        assert_ne!(node.get(KEYSPACE, &key).await.unwrap(), "two", "the later put of the same caller counts");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_many_leaves_no_copy_anywhere() {
    let source = Source::new();
    let nodes = cluster(3, &source).await;
    let keys: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    for node in &nodes {
        for _ in 0..3 {
            node.get_many(KEYSPACE, &keys).await.unwrap();
        }
    }
    for node in &nodes {
        let missing: Vec<_> = keys.iter().filter(|key| node.cached(KEYSPACE, key).is_none()).collect();
        assert!(missing.is_empty(), "{} {missing:?} {:?}", node.me().name, things(node).stats());
    }
    source.set_value("newer");
    nodes[0].delete_many(KEYSPACE, &keys).await.unwrap();
    for node in &nodes {
        assert!(keys.iter().all(|key| node.cached(KEYSPACE, key).is_none()));
    }
    for value in nodes[1].get_many(KEYSPACE, &keys).await.unwrap() {
        assert_eq!(value.unwrap(), "newer");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_many_names_the_keys_and_peers_that_it_did_not_reach() {
    let source = Source::new();
    let nodes = cluster(3, &source).await;
    let gone = nodes[2].me().name;
    let unreachable: Vec<String> = keys_of(&nodes, 2).take(5).collect();
    let reachable: Vec<String> = keys_of(&nodes, 1).take(5).collect();
    let all: Vec<&String> = unreachable.iter().chain(&reachable).collect();
    nodes[0].get_many(KEYSPACE, &all).await.unwrap();
    let mut nodes = nodes;
    // Gone without a word: the others still take it for the owner.
    drop(nodes.pop());
    let error = nodes[0].delete_many(KEYSPACE, &all).await.unwrap_err();
    let Error::Unreached { unreached } = &error else { panic!("{error}") };
    let mut named: Vec<_> = unreached.iter().map(|one| one.key.clone().unwrap()).collect();
    named.sort();
    let mut expected = unreachable.clone();
    expected.sort();
    assert_eq!(named, expected, "each key that was not reached, and no other");
    assert!(unreached.iter().all(|one| one.peer == gone && one.error.is_retryable()));
    assert!(reachable.iter().all(|key| nodes[1].cached(KEYSPACE, key).is_none()), "the others are deleted");
}

/// A load that began before a delete must not bring the old value back after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_overtaken_by_a_write_stores_nothing() {
    let source = Source::slow(Duration::from_millis(300));
    source.set_value("old");
    let nodes = cluster(2, &source).await;
    for (round, writer) in [(0, 0), (1, 1)] {
        let mut keys = keys_of(&nodes, 0).skip(round * 2);
        let (deleted, put) = (keys.next().unwrap(), keys.next().unwrap());
        source.set_delay(Duration::from_millis(300));
        let readers: Vec<_> = nodes
            .iter()
            .flat_map(|node| [(things(node), deleted.clone()), (things(node), put.clone())])
            .map(|(things, key)| tokio::spawn(async move { things.get(&key).await }))
            .collect();
        eventually("the loads have begun", || source.loads_of(&deleted) + source.loads_of(&put) == 2).await;
        source.set_value("new");
        source.set_delay(Duration::ZERO);
        nodes[writer].delete(KEYSPACE, &deleted).await.unwrap();
        nodes[writer].put(KEYSPACE, &put, "put").await.unwrap();
        for node in &nodes {
            assert_eq!(node.get(KEYSPACE, &deleted).await.unwrap(), "new", "round {round}");
            assert_eq!(node.get(KEYSPACE, &put).await.unwrap(), "put");
        }
        for reader in readers {
            reader.await.unwrap().unwrap();
        }
        for node in nodes.iter().chain(&nodes) {
            assert_eq!(node.get(KEYSPACE, &deleted).await.unwrap(), "new");
            assert_eq!(node.get(KEYSPACE, &put).await.unwrap(), "put");
        }
        source.set_value("old");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refresh_replaces_the_value_everywhere_and_keeps_it_when_the_source_fails() {
    let source = Source::new();
    let nodes = cluster(3, &source).await;
    let key = key_of(&nodes, 0);
    for node in &nodes[1..] {
        warm(&things(node), &key).await;
    }
    for (refresher, value) in [(0, "second"), (1, "third")] {
        source.set_value(value);
        assert_eq!(nodes[refresher].refresh(KEYSPACE, &key).await.unwrap(), value);
        for node in &nodes {
            assert_eq!(node.get(KEYSPACE, &key).await.unwrap(), value);
        }
    }
    source.answer(|_| Ok(distcache::Fetched::new("not to be kept").ttl(Duration::ZERO)));
    nodes[1].refresh(KEYSPACE, &key).await.unwrap();
    assert_eq!(nodes[0].cached(KEYSPACE, &key), None, "what was replaced is not found again");
    nodes[0].put(KEYSPACE, &key, "third").await.unwrap();
    source.answer(|_| Err(SourceError::unavailable("down")));
    assert!(matches!(nodes[2].refresh(KEYSPACE, &key).await, Err(Error::Source(_))));
    assert_eq!(nodes[2].get(KEYSPACE, &key).await.unwrap(), "third");
    source.answer(|_| Err(SourceError::NotFound));
    assert!(nodes[1].refresh(KEYSPACE, &key).await.unwrap_err().is_not_found());
    assert!(nodes[2].get(KEYSPACE, &key).await.unwrap_err().is_not_found(), "what is gone at the source is gone here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_larger_than_the_keyspace_takes_is_refused_by_type_and_evicts_nothing() {
    let source = Source::new();
    let nodes = Plan::new(&source).spec(|spec| spec.max_bytes(1 << 20)).cluster(2).await;
    let keys: Vec<String> = keys_of(&nodes, 0).take(100).collect();
    for node in &nodes {
        node.get_many(KEYSPACE, &keys).await.unwrap();
        nodes[0].put(KEYSPACE, &keys[0], "kept").await.unwrap();
        let error = node.put(KEYSPACE, &keys[0], vec![0; 2 << 20]).await.unwrap_err();
        assert!(matches!(error, Error::ValueTooLarge { len, max } if len == 2 << 20 && max < 300 << 10), "{error}");
        assert_eq!(node.get(KEYSPACE, &keys[0]).await.unwrap(), "kept");
    }
    let stats = things(&nodes[0]).stats();
    assert_eq!((stats.entries, stats.evicted_capacity, stats.refused_too_large), (100, 0, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loaded_value_that_cannot_be_kept_still_answers_and_one_over_the_limit_is_an_error() {
    let source = Source::new();
    source.answer(|key| Ok(distcache::Fetched::new(vec![7; key.split('-').nth(2).unwrap().parse().unwrap()])));
    let plan = Plan::new(&source).spec(|spec| spec.max_bytes(1 << 20));
    let limits = Limits { value_bytes_max: 1 << 20, ..Default::default() };
    let mut nodes = Vec::new();
    for name in ["n0", "n1"] {
        nodes.push(plan.builder(name).limits(limits.clone()).start().await.unwrap());
    }
    agree(&nodes).await;
    let owned = |size: usize| {
        let things = things(&nodes[0]);
        (0..).map(|n| format!("key-{n}-{size}")).find(|key| things.owner_of(key).unwrap().name == "n0").unwrap()
    };
    for node in nodes.iter().chain(&nodes) {
        assert_eq!(node.get(KEYSPACE, &owned(600 << 10)).await.unwrap().len(), 600 << 10);
        let error = node.get(KEYSPACE, &owned(2 << 20)).await.unwrap_err();
        assert!(matches!(error, Error::ValueTooLarge { .. }), "{error}");
    }
    assert_eq!(things(&nodes[0]).stats().entries, 0);
}

/// A caller that gives up in the middle of a write must not leave a copy untold that a later write relies on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_given_up_half_way_still_tells_the_holders() {
    let source = Source::new();
    let nodes = cluster(2, &source).await;
    let mut given_up = 0;
    for key in keys_of(&nodes, 0).take(20) {
        warm(&things(&nodes[1]), &key).await;
        let (owner, abandoned) = (things(&nodes[0]), key.clone());
        // Polled once: the entry is changed, the holder not yet told, unless it was very quick.
        let mut put = Box::pin(async move { owner.put(&abandoned, "given up").await });
        given_up += u32::from(futures_util::poll!(put.as_mut()).is_pending());
        drop(put);
        nodes[0].put(KEYSPACE, &key, "second").await.unwrap();
        assert_eq!(nodes[1].get(KEYSPACE, &key).await.unwrap(), "second");
    }
    assert!(given_up > 0);
}
