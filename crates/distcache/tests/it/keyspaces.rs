//! Keyspaces as a whole: clear, delete, update, create, in the whole cluster and over time.

use std::time::Duration;

use distcache::{Error, Eviction, KeyspaceSpec};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cleared_keyspace_is_empty_on_every_node_and_stays_defined() {
    let source = Source::new();
    let nodes = cluster(3, &source).await;
    let keys: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    for node in nodes.iter().chain(&nodes).chain(&nodes) {
        node.get_many(KEYSPACE, &keys).await.unwrap();
    }
    source.set_value("newer");
    nodes[1].clear_keyspace(KEYSPACE).await.unwrap();
    for node in &nodes {
        assert!(keys.iter().all(|key| node.cached(KEYSPACE, key).is_none()));
    }
    for node in &nodes {
        assert_eq!(node.get(KEYSPACE, "7").await.unwrap(), "newer");
    }
    eventually("the bytes are free", || nodes.iter().map(|node| things(node).stats().entries).sum::<u64>() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_began_before_a_clear_is_not_kept() {
    let source = Source::slow(Duration::from_millis(200));
    let nodes = cluster(2, &source).await;
    let key = key_of(&nodes, 0);
    let reader = {
        let (things, key) = (things(&nodes[0]), key.clone());
        tokio::spawn(async move { things.get(&key).await })
    };
    eventually("the load has begun", || source.loads() == 1).await;
    source.set_value("newer");
    nodes[1].clear_keyspace(KEYSPACE).await.unwrap();
    for node in &nodes {
        assert_eq!(node.get(KEYSPACE, &key).await.unwrap(), "newer", "nor joined by who asks after the clear");
    }
    assert_eq!(reader.await.unwrap().unwrap(), value_of(&key));
    assert_eq!(nodes[0].get(KEYSPACE, &key).await.unwrap(), "newer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_keyspace_is_gone_on_every_node_also_on_one_that_joins_later() {
    let source = Source::new();
    let plan = Plan::new(&source);
    let mut nodes = plan.cluster(2).await;
    let handle = things(&nodes[1]);
    handle.get("k").await.unwrap();
    nodes[0].delete_keyspace(KEYSPACE).await.unwrap();
    nodes.push(plan.start("late").await);
    for node in &nodes {
        assert!(matches!(node.get(KEYSPACE, "k").await, Err(Error::KeyspaceNotFound { .. })));
        assert!(node.keyspaces().is_empty());
    }
    assert!(matches!(handle.get("k").await, Err(Error::KeyspaceNotFound { .. })), "also for a handle taken before");
    assert_eq!(handle.cached("k"), None);
    assert!(matches!(nodes[0].delete_keyspace(KEYSPACE).await, Err(Error::KeyspaceNotFound { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_keyspaces_are_deleted_or_none() {
    let source = Source::new();
    let spec = |name: &str| KeyspaceSpec::new(name, source.clone());
    let engine = distcache::Engine::builder().keyspace(spec("a")).keyspace(spec("b")).keyspace(spec("c"));
    let engine = engine.start().await.unwrap();
    assert!(matches!(engine.delete_keyspaces(&["a", "nowhere"]).await, Err(Error::KeyspaceNotFound { .. })));
    assert_eq!(engine.keyspaces().len(), 3);
    engine.delete_keyspaces(&["a", "c"]).await.unwrap();
    assert_eq!(engine.keyspaces().iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_keyspace_can_be_created_again_and_starts_empty() {
    let source = Source::new();
    let nodes = cluster(2, &source).await;
    nodes[0].get(KEYSPACE, "k").await.unwrap();
    let spec = || KeyspaceSpec::new(KEYSPACE, source.clone());
    assert!(matches!(nodes[0].create_keyspace(spec()).await, Err(Error::KeyspaceExists { .. })));
    nodes[0].delete_keyspace(KEYSPACE).await.unwrap();
    for node in &nodes {
        node.create_keyspace(spec()).await.unwrap();
    }
    source.set_value("newer");
    for node in &nodes {
        assert_eq!(node.get(KEYSPACE, "k").await.unwrap(), "newer");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_changes_the_rules_on_every_node_and_drops_nothing_that_still_fits() {
    let source = Source::new();
    let plan = Plan::new(&source);
    let mut nodes = plan.cluster(2).await;
    let keys: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    nodes[0].get_many(KEYSPACE, &keys).await.unwrap();
    let new_source = Source::new();
    new_source.set_value("of the new source");
    let spec = KeyspaceSpec::new(KEYSPACE, new_source.clone()).max_bytes(8 << 20).ttl(Duration::from_secs(77));
    nodes[0].update_keyspace(spec).await.unwrap();
    nodes.push(plan.start("late").await);
    for node in &nodes {
        let settings = &node.keyspaces()[0].settings;
        assert_eq!((settings.max_bytes, settings.ttl), (8 << 20, Some(Duration::from_secs(77))));
        assert_eq!(things(node).stats().bytes_max, 8 << 20);
    }
    agree(&nodes).await;
    let held = |node: &distcache::Engine| keys.iter().filter(|key| node.cached(KEYSPACE, key).is_some()).count();
    assert!(held(&nodes[0]) + held(&nodes[1]) > 50, "two thirds have their owner still");
    let mine = keys_of(&nodes, 0).find(|key| key.len() > 6).unwrap();
    assert_eq!(nodes[0].get(KEYSPACE, &mine).await.unwrap(), "of the new source");
    assert!(matches!(
        nodes[0].update_keyspace(KeyspaceSpec::new("nowhere", source.clone())).await,
        Err(Error::KeyspaceNotFound { .. })
    ));
    let refused = nodes[0].update_keyspace(KeyspaceSpec::new(KEYSPACE, source).max_bytes(1)).await;
    assert!(matches!(refused, Err(Error::InvalidSpec { field: "keyspace.max_bytes", .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_eviction_policy_keeps_what_fits_and_is_in_force_on_every_node() {
    let source = Source::new();
    let nodes = cluster(2, &source).await;
    let keys: Vec<String> = (0..2_000).map(|n| format!("{n:04}")).collect();
    for keys in keys.chunks(100) {
        nodes[0].get_many(KEYSPACE, keys).await.unwrap();
    }
    let owned = || nodes.iter().map(|node| things(node).stats().entries).sum::<u64>();
    assert_eq!(owned(), 2_000);
    for eviction in [Eviction::Lru, Eviction::Lfu, Eviction::Fifo, Eviction::ScanResistant] {
        let spec = KeyspaceSpec::new(KEYSPACE, source.clone()).eviction(eviction);
        nodes[1].update_keyspace(spec).await.unwrap();
        eventually("the other node knows", || nodes[0].keyspaces()[0].settings.eviction == eviction).await;
        for keys in keys.chunks(100) {
            nodes[0].get_many(KEYSPACE, keys).await.unwrap();
        }
        assert_eq!((owned(), source.loads()), (2_000, 2_000), "{eviction:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clear_reaches_a_node_that_was_away() {
    let source = Source::new();
    let plan = Plan::new(&source);
    let nodes = plan.cluster(2).await;
    // Knows neither of the two, as if it had been cut off.
    let apart = plan.apart();
    let away = apart.start("away").await;
    away.get(KEYSPACE, "k").await.unwrap();
    nodes[0].clear_keyspace(KEYSPACE).await.unwrap();
    source.set_value("newer");
    assert_eq!(away.get(KEYSPACE, "k").await.unwrap(), "value of k", "it cannot know");
    distcache::Discovery::register(&apart.board, nodes[0].me().gossip_addr).await.unwrap();
    let all = [nodes[0].clone(), nodes[1].clone(), away];
    agree(&all).await;
    for node in &all {
        assert_eq!(node.get(KEYSPACE, "k").await.unwrap(), "newer");
    }
}

/// A source of which a test can see whether it is still there.
struct Held(Source, #[expect(dead_code, reason = "what is held is only counted")] std::sync::Arc<()>);

impl distcache::DataSource for Held {
    async fn fetch(&self, key: &str) -> Result<distcache::Fetched, distcache::SourceError> {
        self.0.fetch(key).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_a_keyspace_under_traffic_neither_stalls_nor_leaks() {
    let (source, token) = (Source::new(), std::sync::Arc::new(()));
    let spec = |source: &Source| {
        KeyspaceSpec::new(KEYSPACE, Held(source.clone(), token.clone())).max_bytes(4 << 20).hot_copies(false)
    };
    let engine = distcache::Engine::builder().keyspace(spec(&source)).start().await.unwrap();
    let things = things(&engine);
    let keys: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    things.get_many(&keys).await.unwrap().into_iter().for_each(|value| drop(value.unwrap()));
    source.set_delay(Duration::from_secs(2));
    let slow = tokio::spawn({
        let things = things.clone();
        async move { things.get("slow").await }
    });
    eventually("the slow load is under way", || source.loads_of("slow") == 1).await;

    let policies = [Eviction::Lru, Eviction::Fifo, Eviction::Lfu, Eviction::ScanResistant];
    for round in 0..40 {
        let guard = distcache::GuardSettings::new().loads_max(1 + round % 3);
        let changed = spec(&Source::new()).eviction(policies[round % 4]).guard(guard);
        let changed = changed.ttl(Duration::from_secs(1_000 + round as u64)).idle_ttl(Duration::from_secs(500));
        engine.update_keyspace(changed).await.unwrap();
        for key in &keys {
            assert!(things.cached(key).is_some(), "round {round}: {key} still fits");
        }
    }
    assert!(!slow.is_finished(), "no change has waited for a load");
    assert_eq!(slow.await.unwrap().unwrap(), value_of("slow"), "nor ended it");
    let stats = things.stats();
    assert_eq!((stats.entries, stats.evicted_capacity), (501, 0), "{stats:?}");
    assert!(stats.bytes < stats.bytes_max);
    eventually("of all sources the last one is left", || std::sync::Arc::strong_count(&token) == 2).await;
    engine.shutdown(Duration::from_secs(1)).await;
}
