//! Keys that change their owner, and what was written meanwhile.

use std::time::Duration;

use distcache::{DeleteOptions, Event, Limits};

use crate::harness::*;

const MANY: usize = 2_000;

fn keys() -> impl Iterator<Item = String> {
    (0..MANY).map(|n| format!("key-{n}"))
}

async fn read_all(engine: &distcache::Engine) {
    let keys: Vec<String> = keys().collect();
    for answer in things(engine).get_many(&keys).await.unwrap() {
        answer.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_is_handed_what_it_owns_and_nothing_is_loaded_twice() {
    let source = Source::new();
    let plan = Plan::new(&source);
    let mut nodes = plan.cluster(2).await;
    read_all(&nodes[0]).await;
    nodes.push(plan.start("n2").await);
    agree(&nodes).await;
    let owned = keys().filter(|key| things(&nodes[2]).owner_of(key).unwrap().is_self).count();
    assert!(owned > MANY / 5, "{owned}");
    eventually("it has what it owns", || things(&nodes[2]).stats().entries as usize >= owned).await;
    for node in &nodes {
        read_all(node).await;
    }
    assert_eq!(source.loads(), MANY as u64);
    eventually("what has left is given up by who had it", || {
        nodes[..2].iter().map(|node| things(node).stats().entries as usize).sum::<usize>() <= MANY - owned
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_owner_asks_the_last_one_before_it_asks_the_source() {
    let source = Source::new();
    let plan = Plan::new(&source);
    // Too little to hand over any entry.
    let limits = Limits { hand_over_bytes_max: 1, ..Default::default() };
    let first = plan.builder("n0").limits(limits).start().await.unwrap();
    read_all(&first).await;
    let second = plan.start("n1").await;
    let nodes = [first, second];
    agree(&nodes).await;
    read_all(&nodes[1]).await;
    let (stats, loads) = (things(&nodes[1]).stats(), source.loads() as usize);
    assert_eq!((stats.taken_over, things(&nodes[0]).stats().handed_over), (0, 0));
    assert!(stats.peek_hits > 0);
    // Who does not hear from the last one in time asks the source.
    assert!(loads - MANY < stats.peek_hits as usize / 10, "{loads} loads, {} of the last owner", stats.peek_hits);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_hands_over_all_it_has_and_refuses_nobody() {
    let source = Source::new();
    let plan = Plan::new(&source);
    let nodes = plan.cluster(3).await;
    read_all(&nodes[0]).await;
    let reader = tokio::spawn({
        let things = things(&nodes[0]);
        async move {
            for key in (0..5).flat_map(|_| keys()) {
                assert_eq!(things.get(&key).await.unwrap(), value_of(&key));
            }
        }
    });
    nodes[2].shutdown(Duration::from_secs(10)).await;
    agree(&nodes[..2]).await;
    reader.await.unwrap();
    read_all(&nodes[1]).await;
    assert_eq!(source.loads(), MANY as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_while_a_node_joins_is_what_every_node_answers() {
    let source = Source::new();
    let plan = Plan::new(&source);
    let mut nodes = plan.cluster(2).await;
    read_all(&nodes[0]).await;
    let writer = tokio::spawn({
        let things = things(&nodes[0]);
        async move {
            for key in keys() {
                things.put(&key, "written").await.unwrap();
            }
        }
    });
    nodes.push(plan.start("n2").await);
    writer.await.unwrap();
    agree(&nodes).await;
    eventually("everybody has what was written", || {
        let things = nodes.iter().map(things).collect::<Vec<_>>();
        keys().all(|key| things.iter().filter_map(|things| things.cached(&key)).all(|value| value != value_of(&key)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_with_a_hold_keeps_nothing_that_is_loaded_within_it() {
    let source = Source::new();
    let nodes = cluster(2, &source).await;
    let key = key_of(&nodes, 1);
    let (near, far) = (things(&nodes[0]), things(&nodes[1]));
    near.get(&key).await.unwrap();
    let hold = Duration::from_millis(700);
    let deleted = std::time::Instant::now();
    near.delete_with(&key, DeleteOptions::new().hold(hold)).await.unwrap();
    let mut within = 0;
    while deleted.elapsed() < hold / 2 {
        near.get(&key).await.unwrap();
        within += 1;
    }
    assert!(within > 1);
    assert_eq!(source.loads_of(&key), within + 1, "each read has loaded anew");
    assert_eq!((near.cached(&key), far.cached(&key)), (None, None));
    near.put(&key, "put").await.unwrap();
    assert_eq!(near.get(&key).await.unwrap(), "put", "what is put is kept all the same");
    near.delete(&key).await.unwrap();
    // The put has not ended the hold for what is loaded: reads go on to load until it is over.
    let deadline = deleted + PATIENCE;
    while far.cached(&key).is_none() {
        assert!(std::time::Instant::now() < deadline, "the hold ends");
        far.get(&key).await.unwrap();
    }
    // Less the tick of the node's clock.
    assert!(deleted.elapsed() >= hold - Duration::from_millis(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_returns_when_everything_is_handed_over_not_when_its_grace_ends() {
    let nodes = cluster(2, &Source::new()).await;
    let mut events = nodes[0].events();
    let begun = std::time::Instant::now();
    nodes[1].shutdown(Duration::from_secs(60)).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    while !matches!(events.next().await, Some(Event::Left(peer)) if peer.name == "n1") {}
}
