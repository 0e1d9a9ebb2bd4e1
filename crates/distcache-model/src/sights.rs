//! What has to be seen in some state of a search, or it went past what it was meant to look at.
//!
//! Each is about one state: most are the moment before, when nothing stands in the way any more. The invariant: none of them
//! judges; what may not happen is the promise's to say.

use crate::state::{Holder, Message, Node, NodeId, State, Ticks, Version};
use crate::steps::Protocol;

/// A name, and whether a state shows it.
pub type Sight = (&'static str, fn(&Protocol, &State) -> bool);

/// A reader has a copy, which its callers are answered with.
pub const HOT_HIT: Sight = ("a hot hit", |_, state| state.nodes.iter().any(|node| node.copy.is_some()));

/// A load that a write overtook has answered those that waited for it.
pub const FENCED_LOAD: Sight = ("a fenced load answers", |_, state| {
    state.travelling.iter().any(|message| matches!(message, Message::Reply { is_leased: false, .. }))
});

/// A reader that an invalidation does not reach keeps its copy to the end of the time that the promise leaves it.
pub const CUT_OFF_TO_THE_LAST: Sight = ("a lease runs out while its holder is cut off", |_, state| {
    NodeId::all().any(|id| {
        let last = state.node(id).copy.filter(|copy| copy.left == 1);
        let owed = state.promise.owed.iter().find(|owed| owed.spared[id.index()] == 1);
        last.zip(owed).is_some_and(|(copy, owed)| copy.version < owed.version)
    })
});

/// A second write does not wait for the first.
pub const TWO_WRITES_WAIT: Sight = ("two writes wait for their holders", |_, state| state.writes.len() == 2);

/// A holder asks again, and its question comes before its word that the old copy is gone.
pub const ASKED_BEFORE_ACK: Sight = ("a question overtakes an ack", |_, state| {
    state.travelling.iter().any(|message| {
        let Message::Ack { from, to, .. } = message else { return false };
        let holder = state.node(*to).holders[from.index()];
        holder != Holder::default() && holder.told.is_none()
    })
});

/// A fetch is under way beside one that counts no more.
pub const TWO_FETCHES: Sight = ("a new fetch beside a detached one", |_, state| {
    state.nodes.iter().any(|node| node.fetches.iter().flatten().any(|fetch| fetch.is_detached) && has_live_fetch(node))
});

fn has_live_fetch(node: &Node) -> bool {
    node.fetches.iter().flatten().any(|fetch| !fetch.is_detached)
}

/// An answer is on its way when its sender has crashed.
pub const ANSWER_OF_THE_DEAD: Sight = ("an answer outlives its sender", |_, state| {
    let is_answer = |message: &Message| matches!(message, Message::Reply { is_leased: true, .. });
    state.node(NodeId::X).is_dead && state.travelling.iter().any(is_answer)
});

/// A new owner tells a node that it gave no lease.
pub const TOLD_BEYOND_THE_BOOKS: Sight = ("a young owner tells whom it does not know", |_, state| {
    state.travelling.iter().any(|message| {
        let Message::Invalidate { from, to, .. } = message else { return false };
        let owner = state.node(*from);
        owner.young > 0 && owner.holders[to.index()] == Holder::default()
    })
});

/// Two nodes take gets and writes.
pub const TWO_OWNERS: Sight = ("two owners at once", |_, state| state.owns(NodeId::X) && state.owns(NodeId::Y));

/// A log comes to an owner that loaded before what it names.
pub const LOG_MEETS_OLDER: Sight = ("a log meets an older entry", |_, state| {
    let entry = state.node(NodeId::Y).entry;
    logs(state).any(|(version, age)| entry.is_some_and(|entry| entry.age >= age && entry.version < version))
});

/// A log comes to an owner that loaded after what it names.
pub const LOG_MEETS_YOUNGER: Sight = ("a log meets a younger entry", |_, state| {
    let entry = state.node(NodeId::Y).entry;
    logs(state).any(|(_, age)| entry.is_some_and(|entry| entry.age < age))
});

fn logs(state: &State) -> impl Iterator<Item = (Version, Ticks)> {
    state.travelling.iter().filter_map(|message| match *message {
        Message::Log { version, age, .. } => Some((version, age)),
        _ => None,
    })
}

/// The new owner's holders are told what the former owner wrote.
pub const LOG_IS_TOLD_ON: Sight = ("a log is told on", |_, state| state.writes.iter().any(|write| write.is_relayed));

/// The former owner has crashed, and its log is on its way.
pub const LOG_OF_THE_DEAD: Sight =
    ("a log outlives its sender", |_, state| state.node(NodeId::X).is_dead && logs(state).next().is_some());

/// The new owner has the former owner's entry.
pub const HANDED_OVER: Sight =
    ("a hand-over is accepted", |_, state| state.node(NodeId::Y).entry.is_some_and(|entry| entry.is_handed_over));

/// The former owner's entry comes when the key was written, and has nothing but the fence against it.
pub const HAND_OVER_MEETS_WRITE: Sight = ("a hand-over is refused", |_, state| {
    let owner = state.node(NodeId::Y);
    let offered = state.travelling.iter().any(|message| matches!(message, Message::HandOver { .. }));
    offered && state.owns(NodeId::Y) && owner.is_written && owner.entry.is_none()
});
