//! After others took this node for dead: hears from each of them what it wrote meanwhile of the keys that are this node's.
//!
//! It goes on with what it has, because most of it is good: who took over tells what was written, and that is dropped. Knows no
//! keys. The invariant: within [`PATIENCE`] either everybody who may have written has told, those that they have met meanwhile
//! included, or everything owned here is dropped: a doubt is never kept, and never passed on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::error::Error;
use crate::keyspaces::Keyspaces;
use crate::node::Node;
use crate::peer::link::Link;
use crate::peer::wire::{Parted, Request, Response};
use crate::promise::Rule;
use crate::ring::NodeId;

/// All of the promise after a heal is ten seconds; membership takes its part of them.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
const ASK_WAIT: Duration = Duration::from_secs(2);

/// How a peer that was asked stands to this node.
pub(crate) async fn ask(link: &Arc<Link>, limit: Duration) -> Result<Parted, Error> {
    let parted = |response: Response<'_>| match response {
        Response::Parted(parted) => Some(Ok(parted)),
        Response::Refused(error) => Some(Err(error)),
        _ => None,
    };
    link.call(Request::Part, limit, parted).await?
}

/// Asks until all have told, or drops what is owned here. The node is in doubt from the call on, not from the first poll.
pub(crate) fn heal(node: Arc<Node>, keyspaces: Arc<Keyspaces>) -> impl Future<Output = ()> {
    let doubt = node.promise.keeps(Rule::Heal).then(|| node.doubt());
    async move {
        if let Some(_doubt) = doubt {
            hear_all(&node, &keyspaces).await;
        }
    }
}

async fn hear_all(node: &Node, keyspaces: &Keyspaces) {
    let mut inquiry = Inquiry::default();
    let asked = tokio::time::timeout(PATIENCE, async {
        while inquiry.concerned.is_empty() || !inquiry.missing(node).is_empty() {
            inquiry.ask_those_left(node).await;
            tokio::time::sleep(PAUSE).await;
        }
    });
    // It may be that nobody has lost sight of this node for long enough to write: at the end all have said so.
    let _ = asked.await;
    match inquiry.missing(node).len() {
        0 => tracing::info!("what was written elsewhere while this node was taken for dead has been told"),
        missing => {
            let why = "not everybody who may have written in this node's place has told: what it owns is dropped";
            tracing::warn!(missing, "{why}");
            keyspaces.doubt_all();
        }
    }
}

#[derive(Default)]
struct Inquiry {
    /// Nodes, with their incarnations, that have told.
    told: BTreeSet<(u64, u64)>,
    /// Nodes that may know of writes, as those say that lost sight of this one: empty until the first of them is met again.
    concerned: BTreeSet<(u64, u64)>,
}

impl Inquiry {
    /// Those in sight, and those of whom others have said that they met them meanwhile.
    fn missing(&self, node: &Node) -> Vec<(u64, u64)> {
        let in_sight = peers(node).into_iter().map(|(who, _)| who);
        let concerned = self.concerned.iter().copied().filter(|(id, _)| *id != node.id.0);
        in_sight.chain(concerned).filter(|who| !self.told.contains(who)).collect()
    }

    async fn ask_those_left(&mut self, node: &Node) {
        let left = peers(node).into_iter().filter(|(who, _)| !self.told.contains(who));
        let answers = join_all(left.map(|(who, link)| async move { (who, ask(&link, ASK_WAIT).await) }));
        for (who, answer) in answers.await {
            match answer {
                Ok(parted) if parted.places_you => {
                    self.told.insert(who);
                    self.concerned.extend(parted.met);
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "a peer has not told yet what it wrote"),
            }
        }
    }
}

/// The others in the view, each with its incarnation.
fn peers(node: &Node) -> Vec<((u64, u64), Arc<Link>)> {
    let topology = node.topology();
    let others = topology.peers.iter().filter(|peer| !peer.is_self);
    let with_link = others.filter_map(|peer| {
        let id = NodeId::of(&peer.name);
        Some(((id.0, peer.incarnation), topology.link(id)?.clone()))
    });
    with_link.collect()
}
