//! Keys and lifetimes that nobody thinks of.

use std::time::{Duration, SystemTime};

use distcache::{Engine, Error, Fetched, GetOptions, KeyspaceSpec, PutOptions, StartError};

use super::siege;
use super::traffic::{self, Traffic};
use crate::harness::*;

const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Lifetimes that are as good as endless.
const ENDLESS: [Duration; 3] = [Duration::MAX, Duration::from_millis(u64::MAX), Duration::from_millis(u64::MAX - 1)];

/// Keys that have led somebody astray.
fn odd_keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "\0",
        "a\0b",
        "\0\0\0",
        " ",
        "\n",
        "\r\n",
        "\t",
        "\u{7f}",
        "\u{80}",
        "\u{feff}",
        "\u{202e}abc",
        "\u{200d}",
        "e\u{301}",
        "\u{e9}",
        "ﬁ",
        "K",
        "İ",
        "ß",
        "👩‍👩‍👧‍👦",
        "\u{d7ff}\u{e000}",
        "\u{fffd}",
        "\u{ffff}",
        "\u{10ffff}",
        "../..",
        "%00",
        "{}",
        "'; --",
        "*",
    ]
    .map(String::from)
    .into();
    keys.push("k".repeat(1024));
    keys.push("\u{10ffff}".repeat(256));
    keys
}

/// Every character that there is, many to a key.
fn all_characters() -> Vec<String> {
    ('\0'..=char::MAX).collect::<Vec<_>>().chunks(250).map(|chunk| chunk.iter().collect()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_character_makes_a_key_and_no_two_are_one() {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let nodes = plan.cluster(2).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    let (one, two) = (things(&nodes[0]), things(&nodes[1]));
    for key in odd_keys() {
        assert_eq!(one.get(&key).await.unwrap(), value_of(&key), "{key:?}");
        two.put(&key, format!("put under {key}")).await.unwrap();
        assert_eq!(one.get(&key).await.unwrap(), format!("put under {key}"), "{key:?}");
        one.delete(&key).await.unwrap();
        assert_eq!(two.refresh(&key).await.unwrap(), value_of(&key), "{key:?}");
    }
    let keys = all_characters();
    assert!(keys.len() > 4_000);
    for (key, value) in keys.iter().zip(one.get_many(&keys).await.unwrap()) {
        assert_eq!(value.unwrap(), value_of(key), "{key:?}");
    }
    two.put_many(keys.iter().map(|key| (key.clone(), format!("put under {key}")))).await.unwrap();
    for (key, value) in keys.iter().zip(one.get_many(&keys).await.unwrap()) {
        assert_eq!(value.unwrap(), format!("put under {key}"), "{key:?}");
    }
    one.delete_many(&keys).await.unwrap();
    traffic.end_unharmed().await;
    siege.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_key_is_refused_by_type_in_every_call() {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let nodes = plan.cluster(2).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    let things = things(&nodes[0]);
    let huge = "k".repeat(1 << 20);
    let is_refused = |key: &str, error: &Error| match error {
        Error::KeyEmpty => key.is_empty(),
        Error::KeyTooLarge { len, max: 1024 } => *len == key.len(),
        _ => false,
    };
    for key in ["", &huge, &"k".repeat(1025)] {
        let errors = [
            things.get(key).await.unwrap_err(),
            things.get_entry(key, GetOptions::new()).await.unwrap_err(),
            things.get_many(&[key, "known-1"]).await.unwrap().remove(0).unwrap_err(),
            things.put(key, "v").await.unwrap_err(),
            things.put_many([("attack", "v"), (key, "v")]).await.unwrap_err(),
            things.delete(key).await.unwrap_err(),
            things.delete_many(&["attack", key]).await.unwrap_err(),
            things.refresh(key).await.unwrap_err(),
            things.owner_of(key).unwrap_err(),
        ];
        for error in errors {
            assert!(is_refused(key, &error) && !error.is_retryable(), "{} bytes: {error}", key.len());
        }
        assert_eq!(things.cached(key), None);
    }
    assert_eq!(things.stats().refused_too_large, 2 * 9);
    traffic.end_unharmed().await;
    siege.assert_no_panic();
}

fn is_endless(remaining: Option<Duration>) -> bool {
    remaining.is_none_or(|remaining| remaining > CENTURY)
}

/// Under a keyspace whose own lifetime is over at once, so that a lifetime that was lost on the way shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lifetime_without_end_is_endless_on_every_node_and_one_of_nothing_is_over() {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let nodes = plan.spec(|spec: KeyspaceSpec| spec.ttl(Duration::from_millis(300))).cluster(2).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    let (asker, keys) = (things(&nodes[0]), [0, 1].map(|owner| keys_of(&nodes, owner).take(8).collect::<Vec<_>>()));
    for (n, keys) in keys.iter().enumerate() {
        let owner = things(&nodes[n]);
        for (ttl, key) in ENDLESS.iter().zip(keys) {
            asker.put_with(key, "stays", PutOptions::new().ttl(*ttl)).await.unwrap();
            for _ in 0..2 {
                let entry = owner.get_entry(key, GetOptions::new()).await.unwrap();
                assert!(entry.value == "stays" && is_endless(entry.remaining), "{ttl:?}: {entry:?}");
            }
        }
        let far = SystemTime::now() + CENTURY * 2;
        asker.put_with(&keys[3], "stays", PutOptions::new().expires_at(far)).await.unwrap();
        assert!(is_endless(owner.get_entry(&keys[3], GetOptions::new()).await.unwrap().remaining));
        for (options, key) in
            [PutOptions::new().ttl(Duration::ZERO), PutOptions::new().expires_at(SystemTime::UNIX_EPOCH)]
                .iter()
                .zip(&keys[4..])
        {
            asker.put_with(key, "is over", *options).await.unwrap();
            assert_eq!(owner.cached(key), None);
            assert_eq!(asker.get(key).await.unwrap(), value_of(key));
        }
    }
    traffic.end_unharmed().await;
    siege.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_names_any_lifetime_harms_nobody() {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let source = Source::new();
    source.answer(|key| {
        let ttl = key.split('-').nth(1).and_then(|n| n.parse().ok()).map_or(Duration::ZERO, |n: usize| ENDLESS[n]);
        Ok(Fetched::new(value_of(key)).ttl(ttl))
    });
    let mut nodes = Vec::new();
    for name in ["n0", "n1"] {
        let spec = KeyspaceSpec::new("lived", source.clone()).ttl(Duration::from_millis(300));
        nodes.push(plan.builder(name).keyspace(spec).start().await.unwrap());
    }
    agree(&nodes).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    for (name, asker) in nodes.iter().map(|node| (node.me().name, node.keyspace("lived").unwrap())) {
        for n in 0..20 {
            for ttl in 0..ENDLESS.len() {
                let key = format!("{name}{n}-{ttl}");
                for _ in 0..2 {
                    let entry = asker.get_entry(&key, GetOptions::new()).await.unwrap();
                    assert!(entry.value == value_of(&key) && is_endless(entry.remaining), "{key}: {entry:?}");
                }
                assert_eq!(source.loads_of(&key), 1);
            }
            let fleeting = format!("{name}{n}-zero");
            for loads in 1..3 {
                assert_eq!(asker.get(&fleeting).await.unwrap(), value_of(&fleeting));
                assert_eq!(source.loads_of(&fleeting), loads, "answered, not stored");
            }
        }
    }
    traffic.end_unharmed().await;
    siege.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyspace_whose_settings_cannot_work_is_refused_by_type_at_any_time() {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let nodes = plan.cluster(2).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    let spec = || KeyspaceSpec::new("odd", Source::new());
    for ttl in ENDLESS.into_iter().chain([Duration::ZERO]) {
        let odd = [("keyspace.ttl", spec().ttl(ttl)), ("keyspace.negative_ttl", spec().negative_ttl(ttl))];
        let odd = odd
            .into_iter()
            .chain([("keyspace.load_timeout", spec().load_timeout(ttl)), ("keyspace.lease", spec().lease(ttl))]);
        for (named, spec) in odd {
            let error = Engine::builder().keyspace(spec.clone()).start().await.unwrap_err();
            assert!(matches!(error, StartError::Invalid { field, .. } if field == named), "{named}: {error}");
            let error = nodes[0].create_keyspace(spec).await.unwrap_err();
            assert!(matches!(&error, Error::InvalidSpec { field, .. } if *field == named), "{named}: {error}");
        }
    }
    // What may be asked for is not taken before it is needed.
    let spec = spec().max_bytes(u64::MAX).ttl(CENTURY).negative_ttl(CENTURY);
    nodes[0].create_keyspace(spec).await.unwrap();
    assert_eq!(nodes[0].get("odd", "k").await.unwrap(), value_of("k"));
    nodes[0].put("odd", "k", "v").await.unwrap();
    assert_eq!(nodes[0].get("odd", "k").await.unwrap(), "v");
    traffic.end_unharmed().await;
    siege.assert_no_panic();
}
