//! Keyspaces with values of a type, across nodes.

use std::time::Duration;

use distcache::{
    Bytes, Codec, CodecError, Engine, Error, Fetched, GetOptions, Json, KeyspaceSpec, Origin, Postcard, PutOptions,
    Raw, SourceError, TypedFetched, TypedKeyspace, TypedSource,
};
use serde::{Deserialize, Serialize};

use crate::harness::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: u32,
}

fn user(key: &str) -> User {
    User { name: format!("user {key}"), age: 36 }
}

/// Answers every key with its user, as JSON, and `broken` with something else.
fn users_as_json() -> Source {
    let source = Source::new();
    source.answer(|key| match key {
        key if key.starts_with("broken") => Ok(Fetched::new("{\"name\": 7}")),
        "missing" => Err(SourceError::NotFound),
        key => Ok(Fetched::new(format!("{{\"name\": \"user {key}\", \"age\": 36}}"))),
    });
    source
}

fn users(engine: &Engine) -> TypedKeyspace<User> {
    engine.typed::<User>(KEYSPACE, Json).unwrap()
}

fn is_decode_error_of(key: &str, error: &Error) -> bool {
    matches!(error, Error::Decode { key: named, .. } if named == key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_put_on_one_node_is_the_same_value_on_the_other() {
    let source = users_as_json();
    let nodes = cluster(2, &source).await;
    for (owner, key) in [key_of(&nodes, 0), key_of(&nodes, 1)].iter().enumerate() {
        let (here, there) = (users(&nodes[0]), users(&nodes[1]));
        assert_eq!(there.get(key).await.unwrap(), user(key), "from the source");
        let ada = User { name: "Ada".into(), age: 28 };
        here.put(key, &ada).await.unwrap();
        assert_eq!(there.get(key).await.unwrap(), ada);
        assert_eq!(here.refresh(key).await.unwrap(), user(key));
        assert_eq!(there.get(key).await.unwrap(), user(key));
        assert_eq!(there.owner_of(key).unwrap().name, nodes[owner].me().name);
        let at_owner = users(&nodes[owner]);
        assert_eq!(at_owner.cached(key).unwrap(), Some(user(key)));
        there.delete(key).await.unwrap();
        assert_eq!(at_owner.cached(key).unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_says_what_the_cache_knows_about_a_typed_value() {
    let source = users_as_json();
    let (engine, _) = alone(&source).await;
    let users = users(&engine);
    let loaded = users.get_entry("1", GetOptions::new()).await.unwrap();
    assert_eq!((loaded.value, loaded.origin, loaded.remaining), (user("1"), Origin::Loaded, None));
    let hour = Duration::from_secs(3600);
    users.put_with("1", &user("2"), PutOptions::new().ttl(hour)).await.unwrap();
    let put = users.get_entry("1", GetOptions::new()).await.unwrap();
    assert_eq!((&put.value, put.origin, put.is_stale), (&user("2"), Origin::Owned, false));
    assert!(put.remaining.is_some_and(|remaining| remaining <= hour));
    let entries = users.get_many_entries(&["1", "missing"], GetOptions::new()).await.unwrap();
    assert_eq!(entries[0].as_ref().unwrap().value, user("2"));
    assert!(matches!(entries[1], Err(Error::NotFound)));
    assert_eq!((users.name(), users.raw().name()), (KEYSPACE, KEYSPACE));
    assert_eq!(users.stats().puts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_broken_entry_among_many_is_named_by_its_key() {
    let source = users_as_json();
    let nodes = cluster(2, &source).await;
    let mut keys: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    keys.splice(17..17, ["broken".into(), "missing".into()]);
    for node in &nodes {
        let values = users(node).get_many(&keys).await.unwrap();
        assert_eq!(values.len(), keys.len());
        for (key, value) in keys.iter().zip(values) {
            match key.as_str() {
                "broken" => assert!(is_decode_error_of("broken", &value.unwrap_err())),
                "missing" => assert!(value.unwrap_err().is_not_found()),
                key => assert_eq!(value.unwrap(), user(key)),
            }
        }
    }
    let error = users(&nodes[0]).get("broken").await.unwrap_err();
    assert!(!error.is_retryable());
    let text = error.to_string();
    assert!(text.starts_with("the value under \"broken\" does not decode as "), "{text}");
    assert!(text.contains("typed::User: ") && text.contains("line 1 column"), "{text}");
}

#[tokio::test]
async fn a_broken_entry_is_replaced_by_put_or_refresh() {
    let source = users_as_json();
    let (engine, things) = alone(&source).await;
    let users = users(&engine);
    things.put("1", "no user").await.unwrap();
    things.put("2", "no user").await.unwrap();
    assert!(is_decode_error_of("1", &users.get("1").await.unwrap_err()));
    assert!(is_decode_error_of("1", &users.cached("1").unwrap_err()));
    assert!(is_decode_error_of("1", &users.get_entry("1", GetOptions::new()).await.unwrap_err()));
    users.put("1", &user("1")).await.unwrap();
    assert_eq!(users.get("1").await.unwrap(), user("1"));
    assert_eq!(users.refresh("2").await.unwrap(), user("2"));
    assert!(is_decode_error_of("broken", &users.refresh("broken").await.unwrap_err()));
}

#[tokio::test]
async fn many_values_are_put_at_once_or_none_of_them() {
    /// Writes names without a space in them.
    struct Words;
    impl Codec<String> for Words {
        fn encode(&self, value: &String) -> Result<Bytes, CodecError> {
            match value.contains(' ') {
                true => Err("a word has no space".into()),
                false => Raw.encode(value),
            }
        }
        fn decode(&self, bytes: &Bytes) -> Result<String, CodecError> {
            Raw.decode(bytes)
        }
    }
    let source = Source::new();
    let (engine, _) = alone(&source).await;
    let words = engine.typed::<String>(KEYSPACE, Words).unwrap();
    let refused = words.put_many([("1", "one".to_owned()), ("2", "number two".to_owned())]).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the value for \"2\" does not encode from alloc::string::String: a word has no space"
    );
    assert!(matches!(words.put("3", &"a b".to_owned()).await, Err(Error::Encode { key, .. }) if key == "3"));
    assert_eq!((words.stats().puts, words.stats().entries), (0, 0));
    let (one, two) = ("one".to_owned(), "two".to_owned());
    words.put_many([("1", &one), ("2", &two)]).await.unwrap();
    let values: Vec<String> = words.get_many(&["2", "1"]).await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(values, ["two", "one"]);
    words.delete_many(&["1", "2"]).await.unwrap();
    assert_eq!(source.loads(), 0);
    assert_eq!(words.cached("1").unwrap(), None);
    assert!(matches!(engine.typed::<String>("nothing", Raw), Err(Error::KeyspaceNotFound { .. })));
}

/// A source of users whose answers live an hour, under a keyspace of a day.
struct Users;

const HOUR: Duration = Duration::from_secs(3600);

impl TypedSource for Users {
    type Value = User;

    async fn fetch(&self, key: &str) -> Result<TypedFetched<User>, SourceError> {
        match key {
            "missing" => Err(SourceError::NotFound),
            key => Ok(TypedFetched::new(user(key)).ttl(HOUR)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typed_source_is_read_on_every_node_and_its_lifetimes_count() {
    let plan = Plan::new(&Source::new());
    let node = |name: &'static str| {
        let spec = KeyspaceSpec::typed("users", Users, Postcard).ttl(HOUR * 24).negative_ttl(HOUR);
        plan.builder(name).keyspace(spec).start()
    };
    let nodes = [node("n0").await.unwrap(), node("n1").await.unwrap()];
    agree(&nodes).await;
    for node in &nodes {
        let users = node.typed::<User>("users", Postcard).unwrap();
        for key in ["1", "2", "3", "4"] {
            let entry = users.get_entry(key, GetOptions::new()).await.unwrap();
            assert_eq!(entry.value, user(key));
            assert!(entry.remaining.is_some_and(|remaining| remaining <= HOUR), "{:?}", entry.remaining);
        }
        assert!(users.get("missing").await.unwrap_err().is_not_found());
        let many = users.get_many(&["1", "missing", "5"]).await.unwrap();
        assert_eq!((many[0].as_ref().unwrap(), many[2].as_ref().unwrap()), (&user("1"), &user("5")));
        assert!(matches!(many[1], Err(Error::NotFound)));
    }
}
