//! How long entries live, as a caller sees it.

use std::time::{Duration, SystemTime};

use distcache::{Fetched, GetOptions, KeyspaceSpec, PutOptions};

use crate::harness::*;

const SHORT: Duration = Duration::from_millis(80);
const HOUR: Duration = Duration::from_secs(3600);

async fn remaining(things: &distcache::Keyspace, key: &str) -> Option<Duration> {
    things.get_entry(key, GetOptions::new()).await.unwrap().remaining
}

#[tokio::test]
async fn the_lifetime_of_put_wins_over_the_sources_which_wins_over_the_keyspaces() {
    let source = Source::new();
    source.answer(|key| match key {
        "named" => Ok(Fetched::new("v").ttl(HOUR * 2)),
        _ => Ok(Fetched::new("v")),
    });
    let (_engine, things) = alone_with(&source, |spec| spec.ttl(HOUR)).await;
    for key in ["plain", "named"] {
        things.get(key).await.unwrap();
    }
    things.put_with("put", "v", PutOptions::new().ttl(HOUR * 3)).await.unwrap();
    let at = SystemTime::now() + HOUR * 4;
    things.put_with("put at", "v", PutOptions::new().expires_at(at)).await.unwrap();
    for (key, hours) in [("plain", 1), ("named", 2), ("put", 3), ("put at", 4)] {
        let remaining = remaining(&things, key).await.unwrap();
        assert!(
            remaining <= HOUR * hours && remaining > HOUR * hours - Duration::from_secs(60),
            "{key}: {remaining:?}"
        );
    }
}

#[tokio::test]
async fn an_expired_entry_is_loaded_anew() {
    let source = Source::new();
    let (_engine, things) = alone_with(&source, |spec| spec.ttl(SHORT)).await;
    things.get("k").await.unwrap();
    source.set_value("newer");
    eventually("the entry has expired", || things.cached("k").is_none()).await;
    assert_eq!(things.get("k").await.unwrap(), "newer");
    assert_eq!(source.loads(), 2);
}

#[tokio::test]
async fn expired_entries_free_their_bytes_without_a_read() {
    let source = Source::new();
    let (_engine, things) = alone(&source).await;
    let entries = (0..1_000).map(|n| (n.to_string(), vec![0; 1_000]));
    for (key, value) in entries {
        things.put_with(&key, value, PutOptions::new().ttl(SHORT)).await.unwrap();
    }
    things.put("stays", "v").await.unwrap();
    assert!(things.stats().bytes > 1_000_000);
    eventually("the bytes are free", || things.stats().bytes < 1_000).await;
    let stats = things.stats();
    assert_eq!((stats.entries, stats.evicted_expired), (1, 1_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_copy_does_not_outlive_the_entry() {
    let source = Source::new();
    let nodes = Plan::new(&source).spec(|spec| spec.ttl(Duration::from_millis(400))).cluster(2).await;
    let (key, reader) = (key_of(&nodes, 0), things(&nodes[1]));
    for _ in 0..3 {
        reader.get(&key).await.unwrap();
    }
    let remaining = remaining(&reader, &key).await.unwrap();
    assert!(remaining <= Duration::from_millis(400), "{remaining:?}");
    source.set_value("newer");
    eventually("the copy has expired", || reader.cached(&key).is_none()).await;
    eventually("the entry has expired", || things(&nodes[0]).cached(&key).is_none()).await;
    assert_eq!(reader.get(&key).await.unwrap(), "newer");
}

#[tokio::test]
async fn a_rule_computes_the_expiry_from_key_and_value() {
    let source = Source::new();
    let rule = |key: &str, value: &distcache::Bytes| {
        (key == "ruled" && value.ends_with(b"ruled")).then(|| SystemTime::now() + HOUR * 5)
    };
    let spec = KeyspaceSpec::new(KEYSPACE, source.clone()).ttl(HOUR).expires_at(rule);
    let engine = distcache::Engine::builder().keyspace(spec).start().await.unwrap();
    let things = things(&engine);
    assert!(remaining(&things, "ruled").await.is_some() && remaining(&things, "ruled").await.unwrap() > HOUR * 4);
    things.get("other").await.unwrap();
    assert!(remaining(&things, "other").await.unwrap() <= HOUR);
}

#[tokio::test]
async fn a_lifetime_of_zero_stores_nothing() {
    let source = Source::new();
    source.answer(|_| Ok(Fetched::new("v").ttl(Duration::ZERO)));
    let (_engine, things) = alone(&source).await;
    assert_eq!(things.get("k").await.unwrap(), "v");
    assert_eq!(things.cached("k"), None);
    assert_eq!(things.get("k").await.unwrap(), "v");
    assert_eq!(source.loads(), 2);
}
