//! What a reading node does: asks the owner, keeps what it may keep, and drops it when told.
//!
//! Knows nothing of loads and holders. The invariant: a copy lives no longer than a lease that began when its question was sent,
//! and is not kept if an invalidation came in between.

use crate::rule::Rule;
use crate::state::{Asker, Copy, Fetch, Message, Node, NodeId, Version};
use crate::steps::Next;

impl Next<'_> {
    /// A caller asks at a node that knows another owner.
    pub(crate) fn get_from_owner(&mut self, id: NodeId) {
        let floor = self.state.promise.floor(id);
        let node = self.state.node_mut(id);
        if let Some(copy) = node.copy {
            self.state.promise.answer(id, copy.version, floor);
        } else if let Some(fetch) = node.fetch_to_join() {
            fetch.floor = fetch.floor.max(floor);
        } else {
            self.ask(id, floor);
        }
    }

    /// Sends a question. Where the owner is dead the caller loads for itself; with too many under way it is beyond the bounds.
    fn ask(&mut self, id: NodeId, floor: Version) {
        let left = self.scenario.lease;
        let to = self.state.node(id).owner();
        if self.state.node(to).is_dead {
            return;
        }
        let fetches = &mut self.state.node_mut(id).fetches;
        if let Some(place) = fetches.iter().take(self.scenario.fetches).position(Option::is_none) {
            fetches[place] = Some(Fetch { left, is_detached: false, floor });
            self.state.send(Message::Get { asker: Asker { node: id, fetch: place as u8 }, to });
        }
    }

    pub(crate) fn reply(&mut self, asker: Asker, version: Version, is_leased: bool) {
        let counts_from_send = self.scenario.keeps(Rule::LeaseFromSend);
        let lease = self.scenario.lease;
        let node = self.state.node_mut(asker.node);
        let Some(fetch) = node.fetches[usize::from(asker.fetch)].take() else { return };
        let left = if counts_from_send { fetch.left } else { lease };
        if is_leased && !fetch.is_detached && left > 0 {
            node.copy = Some(Copy { version, left });
        }
        self.state.promise.answer(asker.node, version, fetch.floor);
    }

    /// Nobody answers: the callers load for themselves and keep nothing, which is as new as can be.
    pub(crate) fn refuse(&mut self, asker: Asker) {
        self.state.node_mut(asker.node).fetches[usize::from(asker.fetch)] = None;
    }

    pub(crate) fn invalidate(&mut self, id: NodeId, from: NodeId, version: Version) {
        let node = self.state.node_mut(id);
        node.copy = None;
        if self.scenario.keeps(Rule::FetchDetach) {
            node.detach_fetches();
        }
        if self.state.owns(id) {
            self.change(id, None);
        }
        self.state.send(Message::Ack { from: id, to: from, version });
    }
}

impl Node {
    /// The fetch that a get joins.
    fn fetch_to_join(&mut self) -> Option<&mut Fetch> {
        self.fetches.iter_mut().flatten().find(|fetch| !fetch.is_detached)
    }

    pub(crate) fn detach_fetches(&mut self) {
        self.fetches.iter_mut().flatten().for_each(|fetch| fetch.is_detached = true);
    }
}
