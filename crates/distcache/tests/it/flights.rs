//! One load per key, whatever its callers and its source do.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use distcache::{DataSource, Engine, Error, Fetched, GetOptions, Keyspace, KeyspaceSpec, SourceError};

use crate::harness::*;

fn within(millis: u64) -> GetOptions {
    GetOptions::new().timeout(Duration::from_millis(millis))
}

/// One lock across every call would make the hit wait for the load.
#[tokio::test]
async fn a_hit_does_not_wait_behind_a_slow_load() {
    let source = Source::new();
    let (_engine, things) = alone(&source).await;
    things.get("warm").await.unwrap();
    source.set_delay(Duration::from_secs(5));
    let slow = tokio::spawn({
        let things = things.clone();
        async move { things.get("cold").await }
    });
    eventually("the slow load has begun", || source.loads_of("cold") == 1).await;
    assert_eq!(things.get_entry("warm", within(50)).await.unwrap().value, "value of warm");
    slow.abort();
}

#[tokio::test]
async fn a_source_may_read_through_the_cache_itself() {
    static CACHE: OnceLock<Keyspace> = OnceLock::new();
    struct Doubling;
    impl DataSource for Doubling {
        async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
            match key.strip_suffix('x') {
                None => Ok(Fetched::new("1")),
                Some(shorter) => {
                    let half = CACHE.get().unwrap().get(shorter).await.map_err(SourceError::failed)?;
                    Ok(Fetched::new([half.clone(), half].concat()))
                }
            }
        }
    }
    let engine = Engine::builder().keyspace(KeyspaceSpec::new("doubling", Doubling)).start().await.unwrap();
    CACHE.set(engine.keyspace("doubling").unwrap()).unwrap();
    assert_eq!(engine.get("doubling", "kxxx").await.unwrap(), "11111111");
    assert_eq!(engine.cached("doubling", "kx").unwrap(), "11");
}

/// The first caller's deadline must be nobody else's, and a later caller's deadline must be kept.
#[tokio::test]
async fn each_caller_has_its_own_deadline() {
    let source = Source::slow(Duration::from_millis(400));
    let (_engine, things) = alone(&source).await;
    let first = {
        let things = things.clone();
        tokio::spawn(async move { things.get_entry("k", within(30)).await })
    };
    eventually("the load has begun", || source.loads() == 1).await;
    let patient = {
        let things = things.clone();
        tokio::spawn(async move { things.get_entry("k", within(20_000)).await })
    };
    let asked = Instant::now();
    let hasty = things.get_entry("k", within(20)).await;
    assert!(matches!(hasty, Err(Error::Timeout { limit }) if limit == Duration::from_millis(20)));
    assert!(asked.elapsed() < Duration::from_millis(350), "{:?}", asked.elapsed());
    assert!(matches!(first.await.unwrap(), Err(Error::Timeout { .. })));
    assert_eq!(patient.await.unwrap().unwrap().value, "value of k");
    assert_eq!(source.loads(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_neither_ends_nor_repeats_the_load() {
    let source = Source::slow(Duration::from_millis(100));
    let (_engine, things) = alone(&source).await;
    let caller = {
        let things = things.clone();
        tokio::spawn(async move { things.get("k").await })
    };
    eventually("the load has begun", || source.loads() == 1).await;
    caller.abort();
    eventually("the load has landed", || things.cached("k").is_some()).await;
    assert_eq!(source.loads(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_on_another_node_that_goes_away_harms_no_other() {
    let source = Source::slow(Duration::from_millis(300));
    let nodes = cluster(2, &source).await;
    let (key, reader) = (key_of(&nodes, 0), things(&nodes[1]));
    let first = {
        let (reader, key) = (reader.clone(), key.clone());
        tokio::spawn(async move { reader.get(&key).await })
    };
    eventually("the load has begun", || source.loads() == 1).await;
    let second = {
        let (reader, key) = (reader.clone(), key.clone());
        tokio::spawn(async move { reader.get(&key).await })
    };
    eventually("the second has joined", || reader.stats().coalesced == 1).await;
    first.abort();
    assert_eq!(second.await.unwrap().unwrap(), value_of(&key));
    assert_eq!(source.loads(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_found_keeps_its_type_across_nodes_and_is_not_loaded_twice() {
    let source = Source::slow(Duration::from_millis(50));
    source.answer(|_| Err(SourceError::NotFound));
    let nodes = cluster(3, &source).await;
    let key = key_of(&nodes, 0);
    let reads = nodes.iter().map(|node| node.get(KEYSPACE, &key));
    for read in futures_util::future::join_all(reads).await {
        assert!(read.unwrap_err().is_not_found());
    }
    assert_eq!(source.loads(), 1, "asked at once, loaded once, and nobody fell back to its own load");
    let stats = things(&nodes[0]).stats();
    assert_eq!((stats.loads_not_found, stats.load_failures), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_found_is_remembered_for_its_own_lifetime() {
    let source = Source::new();
    source.answer(|_| Err(SourceError::NotFound));
    let nodes = Plan::new(&source).spec(|spec| spec.negative_ttl(PATIENCE)).cluster(2).await;
    let key = key_of(&nodes, 0);
    for node in nodes.iter().chain(&nodes) {
        assert!(node.get(KEYSPACE, &key).await.unwrap_err().is_not_found());
    }
    assert_eq!(source.loads(), 1);
    assert_eq!(things(&nodes[0]).stats().hits_negative, 1);
    things(&nodes[1]).put(&key, "now it is there").await.unwrap();
    assert_eq!(nodes[0].get(KEYSPACE, &key).await.unwrap(), "now it is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_keeps_its_type_across_nodes() {
    let source = Source::new();
    source.answer(|_| Err(SourceError::unavailable("the database is down")));
    let nodes = cluster(2, &source).await;
    let error = nodes[1].get(KEYSPACE, &key_of(&nodes, 0)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Source(SourceError::Unavailable(cause)) if cause.to_string() == "the database is down")
    );
    assert!(error.is_retryable());
    assert_eq!(source.loads(), 1, "a failure is an answer: nobody asks the source a second time for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panicking_source_is_an_error_and_frees_the_key() {
    let source = Source::new();
    source.answer(|_| panic!("the source is out of its mind"));
    let nodes = cluster(2, &source).await;
    let key = key_of(&nodes, 0);
    for node in &nodes {
        let error = node.get(KEYSPACE, &key).await.unwrap_err();
        assert!(matches!(&error, Error::SourcePanicked { message } if message.contains("out of its mind")), "{error}");
    }
    source.set_value("sane again");
    assert_eq!(nodes[1].get(KEYSPACE, &key).await.unwrap(), "sane again");
}

#[tokio::test]
async fn a_source_that_panics_before_it_gives_a_future_is_an_error_too() {
    struct Rash;
    impl DataSource for Rash {
        #[allow(clippy::manual_async_fn, reason = "the panic is outside the future")]
        fn fetch(&self, _: &str) -> impl Future<Output = Result<Fetched, SourceError>> + Send {
            if std::hint::black_box(true) {
                panic!("no future");
            }
            async { Ok(Fetched::new("")) }
        }
    }
    let engine = Engine::builder().keyspace(KeyspaceSpec::new("rash", Rash)).start().await.unwrap();
    assert!(matches!(engine.get("rash", "k").await, Err(Error::SourcePanicked { .. })));
}

#[tokio::test]
async fn a_source_that_hangs_gives_the_key_back() {
    static HANGS: AtomicBool = AtomicBool::new(true);
    struct Hanging;
    impl DataSource for Hanging {
        async fn fetch(&self, _: &str) -> Result<Fetched, SourceError> {
            if HANGS.load(SeqCst) {
                std::future::pending::<()>().await;
            }
            Ok(Fetched::new("at last"))
        }
    }
    let limit = Duration::from_millis(50);
    let spec = KeyspaceSpec::new("hanging", Hanging).load_timeout(limit);
    let engine = Engine::builder().keyspace(spec).start().await.unwrap();
    let error = engine.get("hanging", "k").await.unwrap_err();
    assert!(matches!(error, Error::LoadTimeout { limit: of } if of == limit));
    HANGS.store(false, SeqCst);
    assert_eq!(engine.get("hanging", "k").await.unwrap(), "at last");
}

#[tokio::test]
async fn loads_over_the_limit_are_refused_and_counted() {
    let source = Source::slow(PATIENCE);
    let limits = distcache::Limits { loads_running_max: 1, loads_queued_max: 2, ..Default::default() };
    let spec = KeyspaceSpec::new(KEYSPACE, source.clone());
    let engine = Engine::builder().keyspace(spec).limits(limits).start().await.unwrap();
    let things = things(&engine);
    let waiting = ["a", "b"].map(|key| {
        let things = things.clone();
        tokio::spawn(async move { things.get(key).await })
    });
    eventually("both wait", || things.stats().misses == 2 && source.loads() == 1).await;
    assert!(matches!(things.get("c").await, Err(Error::Overloaded { limit: 2, .. })));
    assert_eq!(things.stats().overloads, 1);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Connections belong to the engine, not to whoever happened to ask first.
#[test]
fn a_caller_on_a_runtime_of_its_own_does_not_take_the_connection_with_it() {
    let engine_runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let source = Source::new();
    let nodes = engine_runtime.block_on(cluster(2, &source));
    for key in keys_of(&nodes, 0).take(3) {
        let passing = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let entry = passing.block_on(things(&nodes[1]).get_entry(&key, within(5_000))).unwrap();
        assert_ne!(entry.origin, distcache::Origin::Fallback);
    }
    assert_eq!(source.loads(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_than_a_connection_takes_wait_their_turn_and_none_is_asked_twice() {
    let source = Source::slow(Duration::from_millis(300));
    let plan = Plan::new(&source);
    let limits = distcache::Limits { peer_requests_max: 4, ..Default::default() };
    let mut nodes = Vec::new();
    for name in ["n0", "n1"] {
        let builder = plan.builder(name).limits(limits.clone()).hop_budget(Duration::from_millis(150));
        nodes.push(builder.start().await.unwrap());
    }
    agree(&nodes).await;
    let reads = keys_of(&nodes, 0).take(8).map(|key| {
        let things = things(&nodes[1]);
        async move { things.get(&key).await }
    });
    for read in futures_util::future::join_all(reads).await {
        read.unwrap();
    }
    assert_eq!(source.loads(), 8, "a connection full of loads is not taken for a silent one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_panics_costs_nothing_but_the_rule() {
    let source = Source::new();
    let plan = Plan::new(&source).spec(|spec| spec.expires_at(|_, _| panic!("no rule")).ttl(PATIENCE));
    let nodes = plan.cluster(2).await;
    let key = key_of(&nodes, 0);
    for node in &nodes {
        assert_eq!(node.get(KEYSPACE, &key).await.unwrap(), value_of(&key));
        node.put(KEYSPACE, &key, value_of(&key)).await.unwrap();
    }
    assert_eq!(source.loads(), 1);
}

#[tokio::test]
async fn a_deadline_without_end_is_a_long_one() {
    let (_engine, things) = alone(&Source::new()).await;
    let endless = || GetOptions::new().timeout(Duration::MAX);
    assert!(things.get_entry("a", endless()).await.is_ok());
    assert!(things.get_many_entries(&["b", "c"], endless()).await.unwrap().iter().all(Result::is_ok));
    let refused = Engine::builder().hop_budget(Duration::MAX).start().await.err().unwrap();
    assert!(refused.to_string().starts_with("hop_budget"), "{refused}");
}
