//! How long five and thirty nodes take for what happens to them; printed, not asserted.

use tokio::time::Instant;

use super::harness::{Cut, Node, all_see, launch, localhost, names};
use crate::cluster::PeerState;

/// Prints what five and thirty nodes take: `cargo test -p distcache cluster::tests::timings::timings -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test"]
async fn timings() {
    for round in 0..5 {
        measure(&format!("timing-{round}"), 5).await;
    }
    measure("timing-large", 30).await;
}

async fn measure(cluster: &str, count: usize) {
    let begun = Instant::now();
    let mut nodes = launch(cluster, count).await;
    all_see(&nodes, &names(count)).await;
    let start = begun.elapsed();

    let begun = Instant::now();
    nodes.push(Node::start(cluster, "zz", localhost(), &[nodes[0].addr()]).await);
    let with_newcomer: Vec<_> = names(count).into_iter().chain(["zz".into()]).collect();
    all_see(&nodes, &with_newcomer).await;
    let join = begun.elapsed();

    let begun = Instant::now();
    nodes[1].cluster.set_state(PeerState::Ready);
    for node in &nodes {
        node.sees_where("n01 ready", |view| view.peers[1].state == PeerState::Ready).await;
    }
    let update = begun.elapsed();

    let begun = Instant::now();
    nodes.pop().unwrap().leave().await;
    all_see(&nodes, &names(count)).await;
    let leave = begun.elapsed();

    let crashed = nodes.pop().unwrap();
    let begun = Instant::now();
    crashed.crash().await;
    all_see(&nodes, &names(count - 1)).await;
    let crash = begun.elapsed();

    let (one, two) = nodes.split_at(nodes.len() / 2);
    let cut = Cut::off(&one.iter().collect::<Vec<_>>());
    all_see(one, &names(one.len())).await;
    all_see(two, &names(count - 1)[one.len()..]).await;
    let begun = Instant::now();
    drop(cut);
    all_see(&nodes, &names(count - 1)).await;
    let merge = begun.elapsed();
    println!(
        "{count} nodes: start {start:?}, join {join:?}, update {update:?}, leave {leave:?}, crash {crash:?}, merge {merge:?}"
    );
    for node in nodes {
        node.crash().await;
    }
}
