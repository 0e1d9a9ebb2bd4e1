//! Nodes that die under load, and what their peers' callers notice of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use distcache::{Engine, GetOptions, Origin};

use crate::harness::*;

const HOP_BUDGET: Duration = Duration::from_millis(500);
const LOAD: Duration = Duration::from_millis(20);

async fn hasty_cluster(source: &Source) -> Vec<Engine> {
    let plan = Plan::new(source);
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(plan.builder(&format!("n{n}")).hop_budget(HOP_BUDGET).start().await.unwrap());
    }
    agree(&nodes).await;
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_node_dies_under_load_no_get_elsewhere_fails_or_waits_longer_than_a_hop_and_a_load() {
    let source = Source::slow(LOAD);
    let mut nodes = hasty_cluster(&source).await;
    let (stop, reads, slowest) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..8)
        .map(|n| {
            let things = things(&nodes[n % 2]);
            let (stop, reads, slowest) = (stop.clone(), reads.clone(), slowest.clone());
            tokio::spawn(async move {
                for n in (n..).step_by(8) {
                    if stop.load(SeqCst) {
                        break;
                    }
                    let asked = Instant::now();
                    things.get(&(n % 3_000).to_string()).await.unwrap();
                    slowest.fetch_max(asked.elapsed().as_millis() as u64, SeqCst);
                    reads.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    eventually("the readers read", || reads.load(SeqCst) > 500).await;
    slowest.store(0, SeqCst);
    drop(nodes.pop());
    agree(&nodes).await;
    let after = reads.load(SeqCst);
    eventually("the readers go on", || reads.load(SeqCst) > after + 500).await;
    stop.store(true, SeqCst);
    for reader in readers {
        reader.await.expect("no get failed");
    }
    let slowest = Duration::from_millis(slowest.load(SeqCst));
    assert!(slowest <= HOP_BUDGET + LOAD + Duration::from_millis(500), "the slowest get took {slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_owner_cannot_answer_is_loaded_here_and_kept_no_longer_than_a_lease() {
    let source = Source::new();
    let mut nodes = hasty_cluster(&source).await;
    let key = key_of(&nodes, 2);
    nodes[0].get(KEYSPACE, &key).await.unwrap();
    drop(nodes.pop());
    let things = things(&nodes[0]);
    let entry = things.get_entry(&key, GetOptions::new()).await.unwrap();
    assert_eq!((entry.origin, source.loads()), (Origin::Fallback, 2));
    let entry = things.get_entry(&key, GetOptions::new()).await.unwrap();
    assert!(entry.remaining.unwrap() <= Duration::from_secs(5), "{entry:?}");
    assert_eq!(things.stats().fallback_loads, 1);
    agree(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_many_loads_what_a_dead_owner_cannot_answer_in_one_batch() {
    let source = Source::new();
    let mut nodes = hasty_cluster(&source).await;
    let keys: Vec<String> = keys_of(&nodes, 2).take(30).collect();
    drop(nodes.pop());
    for (key, value) in keys.iter().zip(nodes[0].get_many(KEYSPACE, &keys).await.unwrap()) {
        assert_eq!(value.unwrap(), value_of(key));
    }
    assert_eq!((source.loads(), source.batches()), (30, 1));
}
