//! Hot keys: found, kept warm, and named to who takes over.

use std::time::Duration;

use distcache::{Fetched, KeyspaceSpec, Limits};

use crate::harness::*;

#[tokio::test]
async fn the_hottest_keys_are_reported_and_a_newcomer_is_not_locked_out() {
    let source = Source::new();
    let limits = Limits { hot_keys_max: 8, ..Default::default() };
    let spec = KeyspaceSpec::new(KEYSPACE, source.clone());
    let engine = distcache::Engine::builder().keyspace(spec).limits(limits).start().await.unwrap();
    let things = things(&engine);
    for round in 0..50 {
        for n in 0..200 {
            things.get(&format!("old-{n}")).await.unwrap();
        }
        assert!(things.hot_keys(usize::MAX).len() <= 8, "round {round}");
    }
    eventually("a key that is read more than all others is at the top", || {
        (0..10_000).for_each(|_| drop(things.cached("old-7")));
        things.hot_keys(1)[0].key == "old-7"
    })
    .await;
    things.get("newcomer").await.unwrap();
    eventually("one that came when all places were taken is, too", || {
        (0..20_000).for_each(|_| drop(things.cached("newcomer")));
        things.hot_keys(1)[0].key == "newcomer"
    })
    .await;
    assert!(things.hot_keys(1)[0].reads_per_second > 1_000.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_keys_are_loaded_again_by_their_owner_alone_without_a_read() {
    let source = Source::new();
    let plan = Plan::new(&source).spec(|spec| spec.ttl(Duration::from_secs(3)).refresh_ahead(0.8).refresh_hot_keys(5));
    let nodes = plan.cluster(2).await;
    let key = key_of(&nodes, 0);
    for _ in 0..20 {
        things(&nodes[0]).get(&key).await.unwrap();
        things(&nodes[1]).get(&key).await.unwrap();
    }
    assert_eq!(source.loads(), 1);
    eventually("it is loaded again", || source.loads_of(&key) == 2).await;
    let (owner, other) = (things(&nodes[0]).stats(), things(&nodes[1]).stats());
    assert_eq!((owner.refreshes_hot, other.refreshes_hot, other.loads), (1, 0, 0), "{owner:?}");
}

#[tokio::test]
async fn keys_that_the_user_named_are_there_before_anybody_asks() {
    let source = Source::new();
    let (engine, things) = alone_with(&source, |spec| spec.warm_keys(["a", "b"])).await;
    eventually("they are loaded", || things.cached("a").is_some() && things.cached("b").is_some()).await;
    assert_eq!((source.loads(), things.stats().warmed), (2, 2));
    engine.update_keyspace(KeyspaceSpec::new(KEYSPACE, source.clone()).warm_keys(["b", "c"])).await.unwrap();
    eventually("those named later are, too", || things.cached("c").is_some()).await;
    assert_eq!(source.loads(), 3, "what is there is not loaded again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_named_key_is_loaded_once_by_its_owner() {
    let source = Source::new();
    let plan = Plan::new(&source).spec(|spec| spec.warm_keys((0..30).map(|n| format!("key-{n}"))));
    let first = plan.start("n0").await;
    eventually("the first node has all", || source.loads() == 30).await;
    let second = plan.start("n1").await;
    let nodes = [first, second];
    agree(&nodes).await;
    let of_second =
        keys_of(&nodes, 1).take_while(|key| key.len() <= 6 && key[4..].parse::<u32>().unwrap() < 30).count();
    eventually("the second has its share", || things(&nodes[1]).stats().entries == of_second as u64).await;
    // What is not there yet when it is wanted is loaded, once more.
    let loads = source.loads();
    assert!(loads <= 30 + of_second as u64, "{loads} for {of_second} that moved");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_is_handed_what_was_hot_and_no_other_node_is() {
    let source = Source::new();
    source.answer(|key| Ok(Fetched::new(value_of(key))));
    let plan = Plan::new(&source);
    let mut nodes = plan.cluster(2).await;
    let keys: Vec<String> = (0..100).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        for _ in 0..3 {
            things(&nodes[0]).get(key).await.unwrap();
        }
    }
    nodes.push(plan.start("n2").await);
    agree(&nodes).await;
    let moved: Vec<String> = keys_of(&nodes, 2).take_while(|key| key.len() <= 6).collect();
    assert!(moved.len() > 10, "{moved:?}");
    eventually("the newcomer has what was hot", || moved.iter().all(|key| things(&nodes[2]).cached(key).is_some()))
        .await;
    assert_eq!(source.loads(), 100, "the values came with the names");
    assert_eq!(things(&nodes[2]).stats().taken_over, moved.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_hands_what_was_hot_to_its_heirs() {
    let source = Source::new();
    let nodes = cluster(2, &source).await;
    let keys: Vec<String> = keys_of(&nodes, 1).take(20).collect();
    for key in &keys {
        things(&nodes[1]).get(key).await.unwrap();
    }
    nodes[1].shutdown(Duration::from_secs(5)).await;
    eventually("the heir has what was hot", || keys.iter().all(|key| things(&nodes[0]).cached(key).is_some())).await;
    assert_eq!(source.loads(), 20, "and has loaded nothing");
}
