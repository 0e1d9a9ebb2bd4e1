//! The scenarios: what happens to nodes and to the service, and what shall come of it.
//!
//! Knows no provider; a scenario is the same for all of them. The invariant: a scenario panics exactly when what it is named
//! after does not come about.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::node::Node;
use crate::stage::{Calm, Stage, agree, asked, eventually, share_keys};
use crate::strangers::Babbler;
use crate::world::{NODES_MAX, World};

/// For so long nothing shall flap.
const OBSERVED: Duration = Duration::from_secs(5);

/// A node that finds nobody is ready and serves, and stays alone.
pub async fn boots_alone<W: World>(world: W) {
    let stage = Stage::new(world);
    let nodes = [stage.start(0).await];
    assert!(nodes[0].engine.is_ready());
    asked(&nodes, 3).await;
    is_alone(&nodes[0]);
    share_keys(&nodes).await;
    stage.end(nodes.into()).await;
}

/// Three nodes started at the same moment form one cluster, not two.
pub async fn boots_together<W: World>(world: W) {
    let stage = Stage::new(world);
    let nodes = stage.start_together(3).await;
    agree(&nodes).await;
    share_keys(&nodes).await;
    stage.end(nodes).await;
}

/// A node that starts later joins those that are there, and the next one too.
pub async fn a_node_joins<W: World>(world: W) {
    let stage = Stage::new(world);
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(stage.start(n).await);
        agree(&nodes).await;
        share_keys(&nodes).await;
    }
    stage.end(nodes).await;
}

/// A node that is shut down is gone for the others and for the service, and a newcomer is not sent to it.
pub async fn a_node_leaves<W: World>(world: W) {
    let stage = Stage::new(world);
    let mut nodes = stage.start_together(3).await;
    agree(&nodes).await;
    let (left, name) = (nodes[1].addr, nodes[1].name.clone());
    stage.stop(nodes.remove(1)).await;
    agree(&nodes).await;
    for node in &nodes {
        assert!(node.engine.peers().iter().all(|peer| peer.name != name), "{} still lists {name}", node.name);
    }
    if stage.world.has_service() {
        let is_forgotten = || !nodes.iter().any(|node| node.was_told_of(left));
        eventually(&format!("the service no longer names {left}"), &nodes, is_forgotten).await;
    }
    share_keys(&nodes).await;
    nodes.push(stage.start(3).await);
    agree(&nodes).await;
    share_keys(&nodes).await;
    stage.end(nodes).await;
}

/// Nodes that start while the service is down run alone, and find each other once it is up.
pub async fn service_down_at_boot<W: World>(world: W) {
    if !world.has_service() {
        return;
    }
    let stage = Stage::new(world);
    stage.world.stop_service().await;
    let nodes = stage.start_together(3).await;
    asked(&nodes, 1).await;
    for node in &nodes {
        assert!(node.engine.is_ready(), "{} is not ready without the service", node.name);
        is_alone(node);
        share_keys(std::slice::from_ref(node)).await;
    }
    stage.world.start_service().await;
    agree(&nodes).await;
    share_keys(&nodes).await;
    stage.end(nodes).await;
}

/// A cluster that has formed does not notice that the service is down, and once it is back a newcomer joins.
pub async fn service_down_later<W: World>(world: W) {
    if !world.has_service() {
        return;
    }
    let stage = Stage::new(world);
    let mut nodes = stage.start_together(3).await;
    agree(&nodes).await;
    let calm = Calm::from_now(&nodes);
    stage.world.stop_service().await;
    asked(&nodes, 2).await;
    share_keys(&nodes).await;
    calm.held(&nodes);
    stage.world.start_service().await;
    asked(&nodes, 2).await;
    calm.held(&nodes);
    nodes.push(stage.start(3).await);
    agree(&nodes).await;
    share_keys(&nodes).await;
    stage.end(nodes).await;
}

/// Where nobody listens, where something else listens, where another cluster is: all that may be named, and none of it
/// becomes a member or keeps the cluster from forming.
pub async fn wrong_answers<W: World>(world: W) {
    let stage = Stage::new(world);
    let [nobody, babbler, foreigner] = [0, 1, 2].map(|n| stage.world.address(NODES_MAX + n));
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, nobody.port()));
    let _babbler = Babbler::at(babbler).await;
    let other_cluster = stage.start_foreigner(foreigner).await;
    stage.world.mislead(vec![nobody, babbler, foreigner, nowhere]).await;

    let mut nodes = stage.start_together(3).await;
    let are_misled =
        || nodes.iter().all(|node| [nobody, babbler, foreigner].iter().all(|addr| node.was_told_of(*addr)));
    eventually("the answers name the strangers", &nodes, are_misled).await;
    agree(&nodes).await;
    let calm = Calm::from_now(&nodes);
    asked(&nodes, 5).await;
    calm.held(&nodes);
    assert_eq!(other_cluster.peers().len(), 1, "the node of the other cluster has been drawn in");
    share_keys(&nodes).await;

    stage.world.mislead(Vec::new()).await;
    nodes.push(stage.start(3).await);
    agree(&nodes).await;
    other_cluster.shutdown(Duration::from_secs(1)).await;
    stage.end(nodes).await;
}

/// Answers that name everybody several times, and the asker itself, are as good as any.
pub async fn duplicates_and_self<W: World>(world: W) {
    let stage = Stage::new(world);
    let named: Vec<_> = (0..3).map(|n| stage.world.address(n)).collect();
    stage.world.mislead(named.repeat(3)).await;
    let nodes = stage.start_together(3).await;
    agree(&nodes).await;
    let calm = Calm::from_now(&nodes);
    asked(&nodes, 5).await;
    calm.held(&nodes);
    for node in &nodes {
        assert_eq!(node.engine.peers().iter().filter(|peer| peer.is_self).count(), 1, "{} knows itself", node.name);
    }
    share_keys(&nodes).await;
    stage.end(nodes).await;
}

/// Once the cluster has formed nobody comes or goes, however often discovery is asked and though the service restarts.
pub async fn nothing_flaps<W: World>(world: W) {
    let stage = Stage::new(world);
    let nodes = stage.start_together(3).await;
    agree(&nodes).await;
    let (calm, begun) = (Calm::from_now(&nodes), Instant::now());
    asked(&nodes, 4).await;
    if stage.world.has_service() {
        stage.world.stop_service().await;
        stage.world.start_service().await;
    }
    asked(&nodes, 4).await;
    tokio::time::sleep(OBSERVED.saturating_sub(begun.elapsed())).await;
    calm.held(&nodes);
    share_keys(&nodes).await;
    stage.end(nodes).await;
}

fn is_alone(node: &Node) {
    assert_eq!(
        node.members(),
        std::slice::from_ref(&node.name),
        "{} found somebody where nobody is to be found",
        node.name
    );
}
