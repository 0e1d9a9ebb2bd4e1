//! After others took this node for dead: hears from each of them what it wrote meanwhile of the keys that are this node's.
//!
//! Membership says that it was missed; after a cut that lasted longer than membership remembers the dead, a peer says so itself.
//! This node goes on with what it has, because most of it is good: who took over tells what was written, and that is dropped. Knows no
//! keys. The invariant: within [`PATIENCE`] either everybody who may have written has told, those that they have met meanwhile
//! included, or everything owned here is dropped: a doubt is never kept, and never passed on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::error::Error;
use crate::keyspaces::Keyspaces;
use crate::node::{Node, Topology};
use crate::partings::{Life, OutOfSight, has_ended};
use crate::peer::link::Link;
use crate::peer::wire::{Parted, Request, Response};
use crate::promise::Rule;
use crate::ring::NodeId;

/// All of the promise after a heal is ten seconds; membership takes its part of them.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
const ASK_WAIT: Duration = Duration::from_secs(2);
/// Who is back has asked by then, if it knows that it was missed.
const REMIND_AFTER: Duration = Duration::from_secs(1);
/// Who is not reached is reminded for as long as it is a member, but not so often any more.
const REMIND_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Who does not answer so often is about to go again.
const QUESTIONS_MAX: usize = 5;

/// How a peer that was asked stands to this node.
pub(crate) async fn ask(link: &Arc<Link>, out_of_sight: Vec<OutOfSight>, limit: Duration) -> Result<Parted, Error> {
    let parted = |response: Response<'_>| match response {
        Response::Parted(parted) => Some(Ok(parted)),
        Response::Refused(error) => Some(Err(error)),
        _ => None,
    };
    link.call(Request::Part { out_of_sight }, limit, parted).await?
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

/// Begins an inquiry, if none is under way, where a newcomer has met somebody after this node had lost sight of him: he lived on
/// elsewhere, and if nobody who missed this node is left there, nobody else will say so.
pub(crate) fn ask_newcomers(node: &Arc<Node>, before: &Topology) {
    let topology = node.topology();
    if node.out_of_sight().is_empty() {
        return;
    }
    for link in topology.links_new_since(before).filter(|link| node.parted_at(link.id()).is_none()) {
        ask_whether_missed(node, link);
    }
}

/// A peer says that this node had been out of its sight: believed when it can say who may know of changes.
pub(crate) fn heed(node: &Arc<Node>, reminder: NodeId) {
    if let Some(link) = node.topology().link(reminder).filter(|_| !node.is_in_doubt()) {
        ask_whether_missed(node, link);
    }
}

/// A question to a peer that is under way: one at a time, however often it sends reminders.
struct Question {
    node: Arc<Node>,
    asked: NodeId,
}

impl Question {
    fn begin(node: &Arc<Node>, asked: NodeId) -> Option<Self> {
        node.asking.lock().insert(asked).then(|| Self { node: node.clone(), asked })
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.node.asking.lock().remove(&self.asked);
    }
}

fn ask_whether_missed(node: &Arc<Node>, link: &Arc<Link>) {
    // Asking is not free of effect: who is asked tells what it wrote.
    if !node.promise.keeps(Rule::Heal) {
        return;
    }
    let Some(question) = Question::begin(node, link.id()) else { return };
    let (asking, link) = (node.clone(), link.clone());
    node.spawn(async move {
        let _question = question;
        for _ in 0..QUESTIONS_MAX {
            match ask(&link, asking.out_of_sight(), ASK_WAIT).await {
                Ok(parted) if parted.met.is_empty() => return,
                Ok(_) => return asking.note_missed(),
                Err(error) => tracing::debug!(peer = link.name(), %error, "a peer does not say whom it has met"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
}

/// Whether a peer that this node had lost sight of is back and has not asked yet what it missed.
pub(crate) fn is_untold(node: &Node, id: NodeId) -> bool {
    node.parted_at(id).is_some() && !node.partings.is_told(id)
}

/// Peers that are in sight again since `before`, and have not asked soon what they missed, are told that they were missed.
pub(crate) fn remind(node: &Arc<Node>, before: &Topology) {
    let topology = node.topology();
    for link in topology.links_new_since(before).filter(|link| is_untold(node, link.id())) {
        let (node, link) = (node.clone(), link.clone());
        node.clone().spawn(async move {
            let mut pause = REMIND_AFTER;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause + pause / 8).min(REMIND_PAUSE_MAX);
                let stands = node.topology().link(link.id()).is_some_and(|known| Arc::ptr_eq(known, &link));
                if !stands || !is_untold(&node, link.id()) {
                    return;
                }
                if let Err(error) = link.call_done(Request::Missed, ASK_WAIT).await {
                    tracing::debug!(peer = link.name(), %error, "a peer does not hear that it was missed");
                }
            }
        });
    }
}

async fn hear_all(node: &Node, keyspaces: &Keyspaces) {
    // Owners that did not see this node have told it nothing.
    keyspaces.drop_copies().await;
    let mut inquiry = Inquiry::default();
    let asked = tokio::time::timeout(PATIENCE, async {
        while !inquiry.is_over(node) {
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
            node.partings.note_cleared(node.clock.now());
        }
    }
}

#[derive(Default)]
struct Inquiry {
    /// Nodes, with their incarnations, that have told.
    told: BTreeSet<Life>,
    /// Nodes that may know of writes, as those say that lost sight of this one: empty until the first of them is met again.
    concerned: BTreeSet<Life>,
}

impl Inquiry {
    /// Those in sight, and those of whom others have said that they met them meanwhile.
    fn missing(&self, node: &Node) -> Vec<Life> {
        let in_sight = peers(node).into_iter().map(|(who, _)| who);
        let concerned = self.concerned.iter().copied().filter(|life| life.id != node.id);
        in_sight.chain(concerned).filter(|who| !self.told.contains(who)).collect()
    }

    /// All have told, or never will.
    fn is_over(&self, node: &Node) -> bool {
        !self.concerned.is_empty() && self.missing(node).iter().all(|life| has_ended(*life, &node.topology().in_sight))
    }

    async fn ask_those_left(&mut self, node: &Node) {
        let left = peers(node).into_iter().filter(|(who, _)| !self.told.contains(who));
        let answers =
            join_all(left.map(|(who, link)| async move { (who, ask(&link, node.out_of_sight(), ASK_WAIT).await) }));
        for (who, answer) in answers.await {
            match answer {
                Ok(parted) if parted.places_you || node.topology().owns_nothing(node.id) => {
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
fn peers(node: &Node) -> Vec<(Life, Arc<Link>)> {
    let topology = node.topology();
    let others = topology.peers.iter().filter(|peer| !peer.is_self);
    let with_link = others.filter_map(|peer| {
        let id = NodeId::of(&peer.name);
        Some((Life { id, incarnation: peer.incarnation }, topology.link(id)?.clone()))
    });
    with_link.collect()
}
