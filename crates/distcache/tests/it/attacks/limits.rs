//! Every limit that there is: reached, refused by type, counted.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use distcache::{Engine, Error, Keyspace, Limits, Overload, PeerFailure};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::siege;
use super::stranger::Topic;
use super::traffic::{self, Traffic};
use crate::harness::*;

/// One test for each; a new limit does not compile before it has one.
#[test]
fn every_limit_has_a_test_here() {
    let Limits {
        key_bytes_max: _,             // keys_values_and_batches_over_the_limits
        value_bytes_max: _,           // keys_values_and_batches_over_the_limits
        batch_keys_max: _,            // keys_values_and_batches_over_the_limits
        loads_running_max: _,         // loads_over_the_limits
        loads_queued_max: _,          // loads_over_the_limits
        waiters_per_key_max: _,       // callers_of_one_key_over_the_limit
        peer_requests_max: _,         // requests_to_a_peer_over_the_limits
        peer_requests_waiting_max: _, // requests_to_a_peer_over_the_limits
        peer_connections_max: _,      // connections_over_the_limit
        handshakes_max: _,            // strangers_over_the_limit
        peer_requests_served_max: _,  // requests_of_a_peer_over_the_limit
        leased_keys_max: _,           // leases_over_the_limit
        hot_keys_max: _,              // hot_keys_over_the_limit
        warm_keys_max: _,             // warm_keys_over_the_limit
        changes_logged_max: _,        // what it does shows inside: changes.rs, keyspace/tests/told.rs
        holds_max: _,                 // holds_over_the_limit
        hand_over_bytes_max: _,       // a_hand_over_beyond_its_limit
        members_max: _,               // members_over_the_limit
        handshake_timeout: _,         // strangers_over_the_limit
    } = Limits::default();
}

/// Two nodes under these limits and callers on both, beside a source for what they do not ask for.
struct Bounded {
    siege: super::Siege,
    nodes: Vec<Engine>,
    traffic: Traffic,
    source: Source,
}

/// The keyspace that reaches its limits; the traffic has one of its own.
const NARROW: &str = "narrow";

async fn bounded(limits: Limits) -> Bounded {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let (source, mut nodes) = (Source::new(), Vec::new());
    for name in ["n0", "n1"] {
        let spec = distcache::KeyspaceSpec::new(NARROW, source.clone());
        nodes.push(plan.builder(name).limits(limits.clone()).keyspace(spec).start().await.unwrap());
    }
    agree(&nodes).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    Bounded { siege, nodes, traffic, source }
}

impl Bounded {
    fn narrow(&self, node: usize) -> Keyspace {
        self.nodes[node].keyspace(NARROW).unwrap()
    }

    fn keys(&self, owner: usize) -> impl Iterator<Item = String> {
        let (narrow, name) = (self.narrow(0), self.nodes[owner].me().name);
        (0..).map(|n| format!("key-{n}")).filter(move |key| narrow.owner_of(key).unwrap().name == name)
    }

    async fn end(self) {
        self.source.set_delay(Duration::ZERO);
        self.traffic.end_unharmed().await;
        self.siege.assert_no_panic();
    }
}

fn refusals(node: &Engine, name: &str) -> u64 {
    node.refusals().iter().find(|(reason, _)| reason.name() == name).map_or(0, |(_, count)| *count)
}

fn is_overloaded(error: &Error, by: Overload, by_limit: usize) -> bool {
    matches!(error, Error::Overloaded { what, limit } if (*what, *limit) == (by, by_limit)) && error.is_retryable()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_values_and_batches_over_the_limits() {
    let limits = Limits { key_bytes_max: 64, value_bytes_max: 1_000, batch_keys_max: 20, ..Default::default() };
    let bounded = bounded(limits).await;
    for (n, key) in [0, 1].map(|owner| (owner as u64, bounded.keys(owner).next().unwrap())) {
        let narrow = bounded.narrow(0);
        let error = narrow.get(&"k".repeat(65)).await.unwrap_err();
        assert!(matches!(error, Error::KeyTooLarge { len: 65, max: 64 }), "{error}");
        let error = narrow.put(&key, vec![0; 1_001]).await.unwrap_err();
        assert!(matches!(error, Error::ValueTooLarge { len: 1_001, max: 1_000 }), "{error}");
        let many = vec![key.as_str(); 21];
        let errors = [
            narrow.get_many(&many).await.unwrap_err(),
            narrow.delete_many(&many).await.unwrap_err(),
            narrow.put_many(many.iter().map(|key| (*key, "v"))).await.unwrap_err(),
        ];
        assert!(errors.iter().all(|error| matches!(error, Error::BatchTooLarge { len: 21, max: 20 })), "{errors:?}");
        assert_eq!(narrow.stats().refused_too_large, 5 * (n + 1));
    }
    bounded.source.answer(|_| Ok(distcache::Fetched::new(vec![0; 1_001])));
    for owner in 0..2 {
        let error = bounded.narrow(0).get(&bounded.keys(owner).nth(1).unwrap()).await.unwrap_err();
        assert!(matches!(error, Error::ValueTooLarge { len: 1_001, max: 1_000 }), "{error}");
        let stats = bounded.narrow(owner).stats();
        assert_eq!((stats.refused_too_large, stats.load_failures), (if owner == 0 { 11 } else { 1 }, 1));
    }
    bounded.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_over_the_limits() {
    let bounded = bounded(Limits { loads_running_max: 1, loads_queued_max: 3, ..Default::default() }).await;
    let (narrow, keys) = (bounded.narrow(0), bounded.keys(0).take(4).collect::<Vec<_>>());
    bounded.source.set_delay(Duration::from_millis(500));
    let waiting = join_all(keys[..3].iter().map(|key| narrow.get(key)));
    let refused = async {
        eventually("one is loaded, two wait", || narrow.stats().misses == 3 && bounded.source.loads() == 1).await;
        narrow.get(&keys[3]).await.unwrap_err()
    };
    let (values, error) = tokio::join!(waiting, refused);
    assert!(is_overloaded(&error, Overload::Loads, 3), "{error}");
    assert!(values.into_iter().all(|value| value.is_ok()), "those that wait get their turn");
    assert_eq!(narrow.stats().overloads, 1);
    bounded.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_one_key_over_the_limit() {
    let bounded = bounded(Limits { waiters_per_key_max: 2, ..Default::default() }).await;
    bounded.source.set_delay(Duration::from_millis(500));
    for owner in 0..2 {
        let (narrow, key) = (bounded.narrow(0), bounded.keys(owner).next().unwrap());
        let before = narrow.stats();
        let answers = join_all((0..5).map(|_| narrow.get(&key))).await;
        let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        assert!(
            refused.len() == 3 && refused.iter().all(|error| is_overloaded(error, Overload::Waiters, 2)),
            "{refused:?}"
        );
        assert_eq!(narrow.stats().overloads - before.overloads, 3);
    }
    bounded.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_to_a_peer_over_the_limits() {
    let siege = siege();
    let source = Source::new();
    let plan = Plan::new(&source);
    let limits = Limits { peer_requests_max: 1, peer_requests_waiting_max: 2, ..Default::default() };
    let nodes = [plan.builder("n0").limits(limits).start().await.unwrap(), plan.start("n1").await];
    agree(&nodes).await;
    let keys: Vec<String> = keys_of(&nodes, 1).take(12).collect();
    things(&nodes[0]).get(&keys[0]).await.unwrap();
    source.set_delay(Duration::from_millis(500));
    let answers = join_all(keys[1..].iter().map(|key| nodes[0].get(KEYSPACE, key))).await;
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(
        refused.len() == 8 && refused.iter().all(|error| is_overloaded(error, Overload::PeerRequests, 2)),
        "{refused:?}"
    );
    assert_eq!(things(&nodes[0]).stats().overloads, 8);
    siege.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_a_peer_over_the_limit() {
    let siege = siege();
    let source = Source::new();
    let plan = Plan::new(&source);
    let limits = Limits { peer_requests_served_max: 2, ..Default::default() };
    let nodes = [plan.builder("n0").limits(limits).start().await.unwrap(), plan.start("n1").await];
    agree(&nodes).await;
    let keys: Vec<String> = keys_of(&nodes, 0).take(6).collect();
    things(&nodes[1]).get(&keys[0]).await.unwrap();
    source.set_delay(Duration::from_millis(500));
    let answers = join_all(keys[1..].iter().map(|key| nodes[1].get(KEYSPACE, key))).await;
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(
        refused.len() == 3 && refused.iter().all(|error| is_overloaded(error, Overload::PeerRequests, 2)),
        "{refused:?}"
    );
    assert_eq!(things(&nodes[1]).stats().overloads, 3);
    assert_eq!(nodes[1].get(KEYSPACE, &keys[0]).await.unwrap(), value_of(&keys[0]), "what needs no load is answered");
    let put = nodes[1].put(KEYSPACE, &keys[0], "v");
    let (gets, put) = tokio::join!(
        join_all(keys_of(&nodes, 0).skip(6).take(2).map(|key| {
            let things = things(&nodes[1]);
            async move { things.get(&key).await }
        })),
        put
    );
    assert!(gets.iter().all(Result::is_ok));
    assert!(is_overloaded(&put.unwrap_err(), Overload::PeerRequests, 2));
    assert_eq!(things(&nodes[1]).stats().overloads, 4);
    siege.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_over_the_limit() {
    let siege = siege();
    let source = Source::new();
    let plan = Plan::new(&source);
    let limits = Limits { peer_connections_max: 1, ..Default::default() };
    let nodes =
        [plan.builder("n0").limits(limits).start().await.unwrap(), plan.start("n1").await, plan.start("n2").await];
    agree(&nodes).await;
    let key = key_of(&nodes, 0);
    nodes[1].put(KEYSPACE, &key, "first come").await.unwrap();
    let error = nodes[2].put(KEYSPACE, &key, "too late").await.unwrap_err();
    let Error::PeerUnavailable { peer, reason: PeerFailure::Refused(why) } = &error else { panic!("{error}") };
    assert!(peer == "n0" && why.contains("as many nodes are connected as there may be"), "{error}");
    // The one that is refused hears it before it is counted.
    eventually("the refusal is counted", || refusals(&nodes[0], "crowded") >= 1).await;
    assert_eq!(nodes[1].get(KEYSPACE, &key).await.unwrap(), "first come", "who is there stays");
    assert_eq!(nodes[2].get(KEYSPACE, &key).await.unwrap(), value_of(&key), "who is not asks the source");
    siege.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_over_the_limit() {
    let limits = Limits { handshakes_max: 2, handshake_timeout: Duration::from_secs(5), ..Default::default() };
    let bounded = bounded(limits).await;
    let me = bounded.nodes[0].me();
    for (port, addr) in [me.peer_addr, me.gossip_addr].into_iter().enumerate() {
        let mut strangers: Vec<_> = (0..3).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let longest = strangers.remove(0);
        let ended = tokio::task::spawn_blocking(move || (&longest).read(&mut [0]).unwrap_or(0));
        assert_eq!(ended.await.unwrap(), 0, "whoever has waited longest is shown out");
        eventually("it is counted", || refusals(&bounded.nodes[0], "crowded") > port as u64).await;
        drop(strangers);
        let mut silent = tokio::net::TcpStream::connect(addr).await.unwrap();
        let ended = tokio::time::timeout(PATIENCE, silent.read_u8()).await;
        assert!(ended.is_ok_and(|byte| byte.is_err()), "whoever says nothing is cut off");
        eventually("it is counted", || refusals(&bounded.nodes[0], "silent") > port as u64).await;
    }
    super::stranger::admitted(me.peer_addr, Topic::Requests).await;
    bounded.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_over_the_limit() {
    // The books are kept in sixteen parts, each with room for one key.
    let bounded = bounded(Limits { leased_keys_max: 16, ..Default::default() }).await;
    let (owner, reader) = (bounded.narrow(0), bounded.narrow(1));
    let keys: Vec<String> = bounded.keys(0).take(100).collect();
    for key in keys.iter().chain(&keys).chain(&keys) {
        assert_eq!(reader.get(key).await.unwrap(), value_of(key));
    }
    assert!(owner.stats().leases_refused >= 100, "{:?}", owner.stats());
    assert!(reader.stats().hot_entries <= 16, "{:?}", reader.stats());
    for key in &keys {
        owner.put(key, "new").await.unwrap();
        assert_eq!(reader.get(key).await.unwrap(), "new", "who got a value without a lease keeps none");
    }
    bounded.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_over_the_limit() {
    let bounded = bounded(Limits { members_max: 2, ..Default::default() }).await;
    // Whom the two find by its own word: they know its address from nobody else.
    let seeds = bounded.nodes.iter().map(|node| node.me().gossip_addr.to_string());
    let late = Plan::new(&Source::new()).builder("late").discovery(distcache::StaticDiscovery::new(seeds));
    let late = late.start().await.unwrap();
    for node in &bounded.nodes {
        eventually("it is turned away", || refusals(node, "crowded") >= 1).await;
        assert_eq!(node.peers().len(), 2);
    }
    let key = "a key of somebody's";
    assert_eq!(late.get(KEYSPACE, key).await.unwrap(), value_of(key), "it answers its callers all the same");
    late.shutdown(Duration::from_secs(1)).await;
    bounded.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_keys_over_the_limit() {
    let bounded = bounded(Limits { hot_keys_max: 8, ..Default::default() }).await;
    let keys: Vec<String> = bounded.keys(0).take(200).collect();
    for key in &keys {
        bounded.narrow(0).get(key).await.unwrap();
    }
    assert_eq!(bounded.narrow(0).hot_keys(usize::MAX).len(), 8, "nothing is refused, the sketch is only so large");
    bounded.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warm_keys_over_the_limit() {
    let bounded = bounded(Limits { warm_keys_max: 1, ..Default::default() }).await;
    let too_many = || distcache::KeyspaceSpec::new("warm", bounded.source.clone()).warm_keys(["a", "b"]);
    let reason = "keyspace.warm_keys = 2: must be at most 1 keys";
    assert_eq!(bounded.nodes[0].create_keyspace(too_many()).await.unwrap_err().to_string(), reason);
    let limits = Limits { warm_keys_max: 1, ..Default::default() };
    let start = Engine::builder().keyspace(too_many()).limits(limits).start();
    assert_eq!(start.await.unwrap_err().to_string(), reason);

    let warm = super::stranger::requests().into_iter().find(|(name, _)| *name == "warm").unwrap().1;
    let mut peer = super::stranger::admitted(bounded.nodes[0].me().peer_addr, Topic::Requests).await;
    peer.write_all(&warm).await.unwrap();
    let things = bounded.nodes[0].keyspace(KEYSPACE).unwrap();
    eventually("a key too many is counted", || things.stats().warm_refused == 1).await;
    bounded.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_over_the_limit() {
    let bounded = bounded(Limits { holds_max: 2, ..Default::default() }).await;
    let narrow = bounded.nodes[0].keyspace(NARROW).unwrap();
    let mine = (0..).map(|n| format!("k{n}")).filter(|key| narrow.owner_of(key).unwrap().name == "n0");
    let keys: Vec<String> = mine.take(3).collect();
    let options = distcache::DeleteOptions::new().hold(Duration::from_secs(60));
    narrow.delete_with(&keys[0], options).await.unwrap();
    narrow.delete_with(&keys[1], options).await.unwrap();
    narrow.delete_with(&keys[1], options).await.unwrap();
    narrow.get(&keys[2]).await.unwrap();
    let refused = narrow.delete_with(&keys[2], options).await.unwrap_err();
    assert!(matches!(refused, Error::Overloaded { what: Overload::Holds, limit: 2 }), "{refused}");
    assert!(narrow.cached(&keys[2]).is_some(), "what was refused has changed nothing");
    narrow.delete(&keys[2]).await.unwrap();
    bounded.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_beyond_its_limit() {
    let source = Source::new();
    let plan = crate::harness::Plan::new(&source);
    let limits = || Limits { hand_over_bytes_max: 500, ..Default::default() };
    let first = plan.builder("n0").limits(limits()).start().await.unwrap();
    for n in 0..100 {
        things(&first).get(&format!("key-{n}")).await.unwrap();
    }
    let hot: Vec<String> = (80..100).map(|n| format!("key-{n}")).collect();
    for key in hot.iter().cycle().take(20 * 50) {
        things(&first).get(key).await.unwrap();
    }
    // What is named as hot, too, and loaded, would be taken for what was handed over.
    let limits = Limits { warm_keys_max: 1, ..limits() };
    let second = plan.builder("n1").limits(limits).start().await.unwrap();
    let nodes = [first, second];
    agree(&nodes).await;
    eventually("some are handed over", || things(&nodes[1]).stats().taken_over > 0).await;
    let taken = things(&nodes[1]).stats().taken_over;
    assert!(taken < 15, "{taken} of some fifty");
    let is_there = |key: &String| things(&nodes[1]).cached(key).is_some();
    let (there, missing): (Vec<_>, Vec<_>) =
        hot.iter().filter(|key| things(&nodes[1]).owner_of(key).unwrap().is_self).partition(|key| is_there(key));
    let is_room_used = there.len() as u64 >= taken;
    assert!(missing.is_empty() || is_room_used, "{taken} were taken, of what is read the most {there:?}");
    for n in 0..100 {
        let key = format!("key-{n}");
        assert_eq!(things(&nodes[1]).get(&key).await.unwrap(), value_of(&key));
    }
}
