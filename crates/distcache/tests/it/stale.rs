//! Values past their lifetime: who gets them, who loads them again, and what never happens meanwhile.

use std::time::Duration;

use distcache::{Entry, Error, Fetched, GetOptions, Keyspace, Origin, SourceError};

use crate::harness::*;

const SHORT: Duration = Duration::from_millis(80);
const HOUR: Duration = Duration::from_secs(3600);

async fn entry(things: &Keyspace, key: &str) -> Entry {
    things.get_entry(key, GetOptions::new()).await.unwrap()
}

/// Waits until the entry under this key, which was loaded, is past its lifetime.
async fn expired(things: &Keyspace, key: &str) {
    let remaining = entry(things, key).await.remaining.unwrap();
    // Whole ticks of the coarse clock.
    tokio::time::sleep(remaining + Duration::from_millis(15)).await;
}

fn fail(source: &Source) {
    source.answer(|_| Err(SourceError::unavailable("down")));
}

#[tokio::test]
async fn a_stale_value_is_answered_at_once_while_one_load_brings_the_next() {
    let source = Source::new();
    let (_engine, things) = alone_with(&source, |spec| spec.ttl(SHORT).stale_while_revalidate(HOUR)).await;
    things.get("k").await.unwrap();
    expired(&things, "k").await;
    source.set_value("newer");
    source.set_delay(PATIENCE);
    let stale = entry(&things, "k").await;
    assert_eq!((stale.value, stale.is_stale, stale.remaining), (value_of("k").into(), true, Some(Duration::ZERO)));
    for _ in 0..100 {
        assert_eq!(things.get("k").await.unwrap(), value_of("k"), "nobody waits");
    }
    assert_eq!(things.cached("k"), None, "who asks for what is fresh gets nothing else");
    eventually("the source is asked", || source.loads_of("k") == 2).await;
    let stats = things.stats();
    assert_eq!((stats.refreshes_stale, stats.hits_stale), (1, 101), "{stats:?}");
}

#[tokio::test]
async fn what_the_background_load_brings_replaces_the_stale_value() {
    let source = Source::new();
    let (_engine, things) = alone_with(&source, |spec| spec.ttl(SHORT).stale_while_revalidate(HOUR)).await;
    things.get("k").await.unwrap();
    expired(&things, "k").await;
    source.answer(|_| Ok(Fetched::new("newer").ttl(HOUR)));
    things.get("k").await.unwrap();
    eventually("the newer value is there", || things.cached("k").is_some_and(|value| value == "newer")).await;
    assert!(!entry(&things, "k").await.is_stale);
    assert_eq!(source.loads(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_value_crosses_to_other_nodes_as_stale_and_without_a_lease() {
    let source = Source::new();
    let plan = Plan::new(&source).spec(|spec| spec.ttl(SHORT).stale_while_revalidate(HOUR));
    let nodes = plan.cluster(2).await;
    let (key, reader) = (key_of(&nodes, 0), things(&nodes[1]));
    reader.get(&key).await.unwrap();
    expired(&things(&nodes[0]), &key).await;
    source.set_delay(PATIENCE);
    for _ in 0..5 {
        let stale = entry(&reader, &key).await;
        assert_eq!((stale.is_stale, stale.origin), (true, Origin::Peer));
    }
    assert_eq!(reader.stats().hot_entries, 0, "nobody keeps what is over already");
    eventually("the owner alone asks the source", || source.loads_of(&key) == 2).await;
    assert_eq!((things(&nodes[0]).stats().refreshes_stale, reader.stats().loads), (1, 0));
}

#[tokio::test]
async fn an_error_is_not_answered_where_a_stale_value_may_be() {
    let source = Source::new();
    let (_engine, things) = alone_with(&source, |spec| spec.ttl(SHORT).stale_if_error(HOUR)).await;
    things.get("k").await.unwrap();
    things.get("other").await.unwrap();
    expired(&things, "k").await;
    fail(&source);
    let stale = entry(&things, "k").await;
    assert_eq!((stale.value, stale.is_stale), (value_of("k").into(), true));
    assert_eq!(
        things.get_many(&["k", "other", "new"]).await.unwrap().iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, true, false]
    );
    let asked = source.loads_of("k");
    for _ in 0..50 {
        things.get("k").await.unwrap();
    }
    assert!(source.loads_of("k") <= asked + 1, "a source that has just failed is left alone: {}", source.loads_of("k"));
    assert!(matches!(things.refresh("k").await, Err(Error::Source(_))), "who asks for the newest is told");
    assert!(things.stats().stale_on_error >= 52, "{:?}", things.stats());
    assert!(matches!(things.get("never loaded").await, Err(Error::Source(SourceError::Unavailable(_)))));
    source.set_value("newer");
    eventually("the source is tried again", || {
        futures_util::FutureExt::now_or_never(things.get("k")).is_some_and(|value| value.unwrap() == "newer")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_source_is_not_one_of_readers_on_other_nodes() {
    let source = Source::new();
    let plan = Plan::new(&source).spec(|spec| spec.ttl(SHORT).stale_if_error(HOUR));
    let nodes = plan.cluster(2).await;
    let (key, reader) = (key_of(&nodes, 0), things(&nodes[1]));
    let keys: Vec<String> = keys_of(&nodes, 0).take(20).collect();
    reader.get_many(&keys).await.unwrap().into_iter().for_each(|value| drop(value.unwrap()));
    expired(&things(&nodes[0]), &keys[19]).await;
    fail(&source);
    assert!(entry(&reader, &key).await.is_stale);
    for (key, value) in keys.iter().zip(reader.get_many(&keys).await.unwrap()) {
        assert_eq!(value.unwrap(), value_of(key));
    }
}

#[tokio::test]
async fn a_value_is_gone_when_its_grace_is_over() {
    let source = Source::new();
    let (_engine, things) =
        alone_with(&source, |spec| spec.ttl(SHORT).stale_while_revalidate(SHORT).stale_if_error(SHORT * 2)).await;
    things.get("k").await.unwrap();
    fail(&source);
    let outcome = async || things.get("k").await;
    let deadline = std::time::Instant::now() + PATIENCE;
    while outcome().await.is_ok() {
        assert!(std::time::Instant::now() < deadline, "stale for ever");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eventually("its bytes are free", || things.stats().entries == 0).await;
}

#[tokio::test]
async fn a_late_source_gives_the_stale_value_now_and_its_own_later() {
    let source = Source::new();
    let change = |spec: distcache::KeyspaceSpec| spec.ttl(SHORT).stale_if_error(HOUR).soft_timeout(SHORT);
    let (_engine, things) = alone_with(&source, change).await;
    things.get("k").await.unwrap();
    expired(&things, "k").await;
    source.answer(|_| Ok(Fetched::new("newer").ttl(HOUR)));
    source.set_delay(Duration::from_secs(1));
    assert_eq!(things.get("k").await.unwrap(), value_of("k"), "now");
    eventually("the newer value comes later", || things.cached("k").is_some_and(|value| value == "newer")).await;
    assert_eq!(source.loads(), 2, "the load went on");
    assert_eq!(things.get("without a value").await.unwrap(), "newer", "who has no stale value waits");
}

#[tokio::test]
async fn a_caller_whose_time_is_up_gets_the_stale_value() {
    let source = Source::new();
    let (_engine, things) = alone_with(&source, |spec| spec.ttl(SHORT).stale_if_error(HOUR)).await;
    things.get("k").await.unwrap();
    expired(&things, "k").await;
    source.set_delay(PATIENCE);
    let hasty = || GetOptions::new().timeout(SHORT);
    assert!(things.get_entry("k", hasty()).await.unwrap().is_stale);
    let many = things.get_many_entries(&["k", "never loaded"], hasty()).await.unwrap();
    assert!(many[0].as_ref().unwrap().is_stale);
    assert!(matches!(many[1], Err(Error::Timeout { .. })));
}

#[tokio::test]
async fn a_refresh_never_overwrites_a_newer_put_nor_revives_a_deleted_key() {
    let source = Source::new();
    let (_engine, things) = alone_with(&source, |spec| spec.ttl(SHORT).stale_while_revalidate(HOUR)).await;
    for key in ["put", "deleted"] {
        things.get(key).await.unwrap();
    }
    expired(&things, "put").await;
    source.set_value("from before the write");
    source.set_delay(SHORT * 3);
    for key in ["put", "deleted"] {
        assert!(entry(&things, key).await.is_stale);
    }
    eventually("both loads are under way", || source.loads() == 4).await;
    things.put_with("put", "newer", distcache::PutOptions::new().ttl(HOUR)).await.unwrap();
    things.delete("deleted").await.unwrap();
    eventually("both loads have ended", || things.stats().loads_found == 4).await;
    assert_eq!(things.cached("put").unwrap(), "newer");
    assert_eq!(things.cached("deleted"), None);
}

#[tokio::test]
async fn not_found_ends_a_stale_value() {
    let source = Source::new();
    let (_engine, things) =
        alone_with(&source, |spec| spec.ttl(SHORT).stale_while_revalidate(HOUR).stale_if_error(HOUR)).await;
    things.get("k").await.unwrap();
    expired(&things, "k").await;
    source.answer(|_| Err(SourceError::NotFound));
    things.get("k").await.unwrap();
    eventually("the source has said so", || things.stats().loads_not_found == 1).await;
    assert!(matches!(things.get("k").await, Err(Error::NotFound)));
}

#[tokio::test]
async fn the_graces_of_a_source_win_over_the_keyspaces() {
    let source = Source::new();
    source.answer(|key| {
        let value = Fetched::new("v").ttl(SHORT);
        Ok(if key == "strict" { value.stale_if_error(Duration::ZERO) } else { value.stale_if_error(HOUR) })
    });
    let (_engine, things) = alone_with(&source, |spec| spec.stale_if_error(HOUR)).await;
    things.get("strict").await.unwrap();
    things.get("lenient").await.unwrap();
    expired(&things, "lenient").await;
    fail(&source);
    assert!(things.get("strict").await.is_err());
    assert!(things.get("lenient").await.is_ok());
}

#[tokio::test]
async fn a_read_near_the_end_of_a_lifetime_has_it_loaded_before_it_ends() {
    let source = Source::new();
    let (_engine, things) = alone_with(&source, |spec| spec.ttl(Duration::from_secs(2)).refresh_ahead(0.9)).await;
    things.get("k").await.unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while source.loads() < 3 {
        assert_eq!(things.get("k").await.unwrap(), value_of("k"), "a key that is read never expires");
        assert!(std::time::Instant::now() < deadline, "it is not loaded again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(things.stats().misses, 1);
    assert!(things.stats().refreshes_ahead >= 2);
}

#[tokio::test]
async fn an_entry_that_nobody_reads_is_gone_and_one_that_is_read_stays() {
    let source = Source::new();
    let idle = Duration::from_millis(1_500);
    let (_engine, things) = alone_with(&source, |spec| spec.idle_ttl(idle).stale_if_error(HOUR)).await;
    things.put("read", "v").await.unwrap();
    things.put("left", "v").await.unwrap();
    eventually("the one that nobody reads is swept", || {
        assert!(things.cached("read").is_some());
        things.stats().entries == 1
    })
    .await;
    assert_eq!(things.stats().evicted_idle, 1);
}

#[tokio::test]
async fn an_idle_time_that_comes_later_begins_when_it_comes() {
    let source = Source::new();
    let (engine, things) = alone(&source).await;
    things.put("k", "v").await.unwrap();
    let idle = Duration::from_millis(1_200);
    engine.update_keyspace(distcache::KeyspaceSpec::new(KEYSPACE, source.clone()).idle_ttl(idle)).await.unwrap();
    assert!(things.cached("k").is_some());
    eventually("it is swept", || things.stats().evicted_idle == 1).await;
}

/// A source that knows whether a value has changed; counts how often it had to send one.
#[derive(Clone)]
struct Versioned(std::sync::Arc<[std::sync::atomic::AtomicU64; 3]>);

impl distcache::DataSource for Versioned {
    async fn fetch(&self, _: &str) -> Result<Fetched, SourceError> {
        self.0[0].fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let version = self.0[2].load(std::sync::atomic::Ordering::SeqCst).to_string();
        Ok(Fetched::new(format!("value {version}")).ttl(SHORT).validator(version))
    }

    async fn revalidate(&self, key: &str, held: &Fetched) -> Result<Fetched, SourceError> {
        self.0[1].fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let version = self.0[2].load(std::sync::atomic::Ordering::SeqCst).to_string();
        match held.held_validator().is_some_and(|validator| *validator == version) {
            true => Ok(held.clone().ttl(SHORT)),
            false => self.fetch(key).await,
        }
    }
}

#[tokio::test]
async fn a_source_that_gave_a_validator_is_asked_whether_the_value_has_changed() {
    let source = Versioned(std::sync::Arc::default());
    let counts = || [0, 1].map(|n| source.0[n].load(std::sync::atomic::Ordering::SeqCst));
    let spec = distcache::KeyspaceSpec::new(KEYSPACE, source.clone()).stale_if_error(HOUR);
    let engine = distcache::Engine::builder().keyspace(spec).start().await.unwrap();
    let things = things(&engine);
    assert_eq!(things.get("k").await.unwrap(), "value 0");
    for round in 1..=3 {
        expired(&things, "k").await;
        assert_eq!(things.get("k").await.unwrap(), "value 0");
        assert_eq!(counts(), [1, round], "the value is not sent again");
        assert!(!entry(&things, "k").await.is_stale);
    }
    expired(&things, "k").await;
    source.0[2].store(1, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(things.get("k").await.unwrap(), "value 1");
    assert_eq!(counts(), [2, 4]);
    things.delete("k").await.unwrap();
    assert_eq!(things.get("k").await.unwrap(), "value 1");
    assert_eq!(counts(), [3, 4], "what is not held cannot be revalidated");
}
