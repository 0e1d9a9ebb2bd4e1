//! The views of the cluster as this node takes them, one after the other: what each of them sets off, and in which order.
//!
//! Knows no keys. The invariant: one task takes views until the node stops, and a node that is back is in doubt before the view counts in
//! which it is.

use std::sync::Arc;

use tokio::sync::watch;

use crate::cluster::{Cluster, PeerState, View};
use crate::heal;
use crate::keyspaces::Keyspaces;
use crate::node::{Node, Topology};

/// Gets to know the others, then takes a share of the keys, and from then on follows what changes.
pub(crate) async fn join(node: &Arc<Node>, cluster: &Cluster, keyspaces: &Arc<Keyspaces>) {
    cluster.join().await;
    let mut views = cluster.views();
    node.adopt(views.borrow_and_update().peers.clone());
    cluster.set_state(PeerState::Ready);
    let is_ready = |view: &Arc<View>| view.peers.iter().any(|peer| peer.is_self && peer.state == PeerState::Ready);
    // The driver ends only with the node, so there is a view to wait for.
    if let Ok(view) = views.wait_for(is_ready).await {
        let before = node.adopt(view.peers.clone());
        keyspaces.follow(&before);
    }
    node.spawn(follow(node.clone(), cluster.clone(), keyspaces.clone(), views));
}

/// Takes each new view; and each time that the others have taken this node for dead, it hears what was written elsewhere.
async fn follow(node: Arc<Node>, cluster: Cluster, keyspaces: Arc<Keyspaces>, mut views: watch::Receiver<Arc<View>>) {
    let mut epoch = cluster.epoch();
    // The view in which this node was when it heard that it was missed, until who took entries over in it has been told.
    let mut missed_in: Option<Arc<Topology>> = None;
    loop {
        let (is_over, was_missed) = tokio::select! {
            biased;
            returned = cluster.returned_since(epoch) => (returned.is_none(), true),
            () = node.until_missed() => (false, true),
            changed = views.changed() => (changed.is_err(), false),
        };
        if is_over {
            return;
        }
        let view = views.borrow_and_update().clone();
        // After the view was read, and before it counts: nothing is answered to those who are back without a doubt.
        let known = std::mem::replace(&mut epoch, cluster.epoch());
        if was_missed || known != epoch {
            node.spawn(heal::heal(node.clone(), keyspaces.clone()));
            missed_in.get_or_insert_with(|| node.topology_held());
        }
        let before = node.adopt(view.peers.clone());
        keyspaces.follow(&before);
        let is_told = missed_in.as_ref().is_some_and(|view| !node.is_in_doubt() || keyspaces.tell_doubt(view));
        if is_told {
            missed_in = None;
        }
        heal::remind(&node, &before);
        heal::ask_newcomers(&node, &before);
    }
}
