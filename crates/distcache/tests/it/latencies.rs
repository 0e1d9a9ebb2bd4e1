//! How long things took, as a node tells it.

use std::time::Duration;

use distcache::{Latencies, SourceError};

use crate::harness::*;

fn told(node: &distcache::Engine) -> Latencies {
    let (name, latencies) = node.latencies().remove(0);
    assert_eq!(name, KEYSPACE);
    latencies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_that_takes_time_is_timed_where_it_is_taken_and_a_hit_is_none_of_them() {
    const DELAY: Duration = Duration::from_millis(20);
    let source = Source::slow(DELAY);
    let nodes = cluster(2, &source).await;
    let key = key_of(&nodes, 1);
    things(&nodes[0]).get(&key).await.unwrap();
    let (asker, owner) = (told(&nodes[0]), told(&nodes[1]));
    let counts = |told: &Latencies| [&told.get_miss, &told.fetch, &told.load, &told.put].map(|one| one.count());
    assert_eq!((counts(&asker), counts(&owner)), ([1, 1, 0, 0], [0, 0, 1, 0]));
    for took in [&asker.get_miss, &asker.fetch, &owner.load] {
        assert!(took.sum() >= DELAY && took.quantile(0.5).unwrap() >= DELAY, "{took:?}");
        assert_eq!(took.count_within(DELAY / 2), 0);
    }
    things(&nodes[1]).get(&key).await.unwrap();
    assert_eq!(counts(&told(&nodes[1])), [0, 0, 1, 0], "a hit");

    things(&nodes[0]).put(&key, "new").await.unwrap();
    things(&nodes[0]).put_many([(key.clone(), "newer")]).await.unwrap();
    assert_eq!(counts(&told(&nodes[0]))[3], 2);
    assert_eq!(counts(&told(&nodes[1]))[3], 0, "the caller's wait, not the owner's work");
}

#[tokio::test]
async fn a_node_by_itself_tells_of_itself_also_after_it_has_stopped() {
    let (engine, things) = alone(&Source::new()).await;
    things.get("k").await.unwrap();
    let me = engine.me();
    engine.shutdown(Duration::from_secs(1)).await;
    assert_eq!((engine.me(), engine.ring().members.len(), engine.peers().len()), (me, 0, 0));
    assert_eq!((told(&engine).load.count(), engine.stats()[0].1.loads), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_timed_once_and_failures_are_timed_too() {
    let source = Source::new();
    source.answer(|_| Err(SourceError::unavailable("down")));
    let nodes = cluster(2, &source).await;
    let keys: Vec<String> = keys_of(&nodes, 1).take(10).collect();
    let answers = things(&nodes[0]).get_many(&keys).await.unwrap();
    assert!(answers.iter().all(Result::is_err));
    let (asker, owner) = (told(&nodes[0]), told(&nodes[1]));
    assert_eq!((asker.get_miss.count(), asker.fetch.count(), owner.load.count()), (1, 1, 1));
}
