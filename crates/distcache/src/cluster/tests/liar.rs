//! A node of the cluster that names thousands of members who do not exist.

use tokio::sync::watch;

use super::*;
use crate::cluster::sync::{Exchange, FRAME_BYTES_MAX, Known};
use crate::limits::Limits;

/// Nearly as many as a node takes in at once.
const INVENTED: u32 = 4_000;
const ROUNDS: u32 = 10;

/// Nobody is at these addresses, and no round names one of another round.
fn invented(round: u32) -> Vec<Metadata> {
    let metadata = |n: u32| {
        let [_, b, c, d] = (0x7F01_0000 + round * INVENTED + n).to_be_bytes();
        let addr = SocketAddr::from(([127, b, c, d], 9));
        let id = Identity { addr, epoch: wall_clock_ms(), meta_version: 1 };
        let mut invented = Metadata::joining(id, format!("invented-{round}-{n}"), id.epoch, addr);
        invented.set_state(PeerState::Ready);
        invented
    };
    (0..INVENTED).map(metadata).collect()
}

/// What the liar says whenever it is this round.
fn exchange(liar: &Node, cluster: &str, round: u32) -> Exchange {
    let me = liar.cluster.known.borrow().me.clone();
    let hello = Hello::new(Topic::Exchange, cluster, &liar.name, me.incarnation, FRAME_BYTES_MAX);
    let (_, known) = watch::channel(Arc::new(Known { me, others: invented(round) }));
    Exchange { gate: Arc::default(), hello, limits: Limits::default(), known, shared: Arc::new(Words::default()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_members_that_one_of_the_cluster_invents_hurt_nobody() {
    let mut nodes = five("liar").await;
    let mut events = nodes[0].cluster.events();
    for _ in 0..4 {
        assert_eq!(told(&next_event(&mut events).await).0, "joined");
    }
    let liar = nodes.pop().unwrap();
    for round in 0..ROUNDS {
        let exchange = exchange(&liar, "liar", round);
        for node in &nodes {
            exchange.ask(node.addr()).await.unwrap();
        }
        // What the others have to say goes on.
        let word = format!("word-{round}");
        nodes[round as usize % nodes.len()].say(&word);
        for node in &nodes {
            node.has_heard(&word).await;
        }
    }
    all_see(&nodes, &names(5)).await;

    let newcomer = Node::start("liar", "n05", localhost(), &[nodes[1].addr()]).await;
    newcomer.cluster.join().await;
    nodes.extend([liar, newcomer]);
    all_see(&nodes, &names(6)).await;
    loop {
        match next_event(&mut events).await {
            Event::Updated(_) => {}
            event => break assert_eq!(told(&event), ("joined", "n05"), "nobody was lost, and nobody invented was met"),
        }
    }
}
