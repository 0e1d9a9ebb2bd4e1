//! Many keys in one call.

use std::time::Duration;

use distcache::{Error, Fetched, GetOptions, SourceError};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_many_makes_one_request_and_one_batch_load_per_owner() {
    let source = Source::new();
    let nodes = cluster(3, &source).await;
    let keys: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let values = nodes[0].get_many(KEYSPACE, &keys).await.unwrap();
    for (key, value) in keys.iter().zip(values) {
        assert_eq!(value.unwrap(), value_of(key), "in the order of the keys");
    }
    assert_eq!((source.loads(), source.batches()), (100, 3));
    assert_eq!(things(&nodes[0]).stats().fetches, 2);
    nodes[1].get_many(KEYSPACE, &keys).await.unwrap();
    assert_eq!((source.loads(), source.batches()), (100, 3), "found at the owners");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_has_its_own_answer_and_a_key_twice_has_it_twice() {
    let source = Source::new();
    source.answer(|key| match key {
        "missing" => Err(SourceError::NotFound),
        "broken" => Err(SourceError::failed("no")),
        key => Ok(Fetched::new(value_of(key))),
    });
    let nodes = cluster(3, &source).await;
    for node in &nodes {
        let keys = ["a", "missing", "a", "broken", "", "b"];
        let values = node.get_many(KEYSPACE, &keys).await.unwrap();
        assert_eq!(values[0].as_ref().unwrap(), "value of a");
        assert!(matches!(values[1], Err(Error::NotFound)));
        assert_eq!(values[2].as_ref().unwrap(), "value of a");
        assert!(matches!(values[3], Err(Error::Source(SourceError::Failed(_)))));
        assert!(matches!(values[4], Err(Error::KeyEmpty)));
        assert_eq!(values[5].as_ref().unwrap(), "value of b");
    }
    assert_eq!(source.loads_of("a"), 1);
    let none: [&str; 0] = [];
    assert!(nodes[0].get_many(KEYSPACE, &none).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_and_single_gets_of_the_same_keys_share_their_loads() {
    let source = Source::slow(Duration::from_millis(100));
    let nodes = cluster(3, &source).await;
    let keys: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let (one, two) = (nodes[0].get_many(KEYSPACE, &keys), nodes[1].get_many(KEYSPACE, &keys));
    let singles = futures_util::future::join_all(keys.iter().map(|key| nodes[2].get(KEYSPACE, key)));
    let (one, two, singles) = tokio::join!(one, two, singles);
    for value in one.unwrap().into_iter().chain(two.unwrap()).chain(singles) {
        value.unwrap();
    }
    assert_eq!(source.loads(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_fill_more_than_one_frame_all_arrive() {
    let source = Source::new();
    source.answer(|key| Ok(Fetched::new(key.repeat(1 << 20).into_bytes()[..1 << 20].to_vec())));
    let nodes = cluster(2, &source).await;
    let keys: Vec<String> = keys_of(&nodes, 0).take(12).collect();
    for (key, value) in keys.iter().zip(nodes[1].get_many(KEYSPACE, &keys).await.unwrap()) {
        let value = value.unwrap();
        assert!(value.len() == 1 << 20 && value.starts_with(key.as_bytes()));
    }
    assert_eq!(source.loads(), 12);
    let entries = keys.iter().map(|key| (key.clone(), vec![1; 1 << 20]));
    things(&nodes[1]).put_many(entries).await.unwrap();
    assert_eq!(nodes[0].get(KEYSPACE, &keys[11]).await.unwrap(), vec![1; 1 << 20]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn put_many_stores_everything_and_of_one_key_twice_the_last() {
    let source = Source::new();
    let nodes = cluster(3, &source).await;
    let entries = (0..200).map(|n| ((n % 100).to_string(), n.to_string()));
    nodes[0].put_many(KEYSPACE, entries).await.unwrap();
    for n in 0..100 {
        assert_eq!(nodes[n % 3].get(KEYSPACE, &n.to_string()).await.unwrap(), (n + 100).to_string());
    }
    assert_eq!(source.loads(), 0);
}

#[tokio::test]
async fn a_batch_over_the_limit_is_refused() {
    let (_engine, things) = alone(&Source::new()).await;
    let keys = vec!["k"; 10_001];
    assert!(matches!(things.get_many(&keys).await, Err(Error::BatchTooLarge { len: 10_001, max: 10_000 })));
    assert!(matches!(things.delete_many(&keys).await, Err(Error::BatchTooLarge { .. })));
}

#[tokio::test]
async fn what_is_there_at_the_deadline_is_answered() {
    let source = Source::new();
    let (_engine, things) = alone(&source).await;
    things.get("warm").await.unwrap();
    source.set_delay(PATIENCE);
    let options = GetOptions::new().timeout(Duration::from_millis(50));
    let values = things.get_many_entries(&["warm", "cold"], options).await.unwrap();
    assert_eq!(values[0].as_ref().unwrap().value, "value of warm");
    assert!(matches!(values[1], Err(Error::Timeout { .. })));
}

/// What fills the frame is answered; the others are asked for again, not loaded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_answers_overflow_the_frame_is_answered_from_the_cache() {
    let source = Source::new();
    let nodes = cluster(2, &source).await;
    let keys: Vec<String> = keys_of(&nodes, 0).take(3_000).collect();
    let entries = keys.iter().enumerate().map(|(n, key)| (key.clone(), vec![1; if n < 60 { 70 << 10 } else { 10 }]));
    things(&nodes[0]).put_many(entries).await.unwrap();
    for value in nodes[1].get_many(KEYSPACE, &keys).await.unwrap() {
        assert!(value.unwrap().starts_with(&[1]));
    }
    assert_eq!(source.loads(), 0);
}
