//! How the slot changes hands: nodes learn of it one by one, and the former owner passes on what it knows, or has crashed.
//!
//! The invariant: nothing that was begun under one owner counts under the next, save what the next one has accepted.

use crate::rule::Rule;
use crate::scenario::Scenario;
use crate::state::{Entry, Holder, Message, Node, NodeId, State, Ticks, Version};
use crate::steps::Next;

impl Next<'_> {
    /// The node learns that `y` owns the slot.
    pub(crate) fn learn(&mut self, id: NodeId) {
        if !self.state.node(NodeId::X).is_dead {
            self.state.promise.is_parted = true;
        }
        if id == NodeId::X {
            self.give_up(id);
        }
        let (lease, drops) = (self.scenario.lease, self.scenario.keeps(Rule::CopiesLeaveWithTheSlot));
        let node = self.state.node_mut(id);
        node.sees_y = true;
        if id == NodeId::Y {
            node.young = lease;
        }
        if drops {
            node.copy = None;
            node.detach_fetches();
        }
    }

    fn give_up(&mut self, id: NodeId) {
        let node = self.state.node_mut(id);
        let (entry, log) = (node.entry.take(), node.log.take());
        node.holders = Default::default();
        node.is_written = false;
        for load in &mut node.loads {
            (load.is_fenced, load.is_detached) = (true, true);
        }
        if let Some((version, age)) = log.filter(|_| self.scenario.keeps(Rule::TellTheNext)) {
            self.state.send(Message::Log { to: NodeId::Y, version, age });
        }
        if let Some(Entry { version, age, .. }) = entry.filter(|_| self.scenario.hands_over) {
            self.state.send(Message::HandOver { to: NodeId::Y, version, age });
        }
    }

    /// The former owner's writes come to the new one. A message grows no older on its way, so what was written seems to have been
    /// written later than it was: more is dropped than need be, never less.
    pub(crate) fn hear_log(&mut self, id: NodeId, version: Version, age: Ticks) {
        if !self.state.owns(id) {
            return;
        }
        let node = self.state.node_mut(id);
        node.entry = node.entry.filter(|entry| entry.age < age);
        self.overtake_loads(id, age);
        self.tell(id, version, true);
    }

    pub(crate) fn accept(&mut self, id: NodeId, version: Version, age: Ticks) {
        let has_fence = self.scenario.keeps(Rule::HandOverFence);
        let owns = self.state.owns(id);
        let node = self.state.node_mut(id);
        if owns && node.entry.is_none() && !(node.is_written && has_fence) {
            node.entry = Some(Entry { version, age, is_handed_over: true });
        }
    }

    /// What waited at the crashed node is answered by nobody; what it had sent may still arrive.
    pub(crate) fn crash(&mut self, id: NodeId) {
        let node = std::mem::replace(self.state.node_mut(id), Node { is_dead: true, ..Node::default() });
        let (questions, loads) = (node.questions.iter(), node.loads.iter());
        let askers = questions.map(|question| question.asker).chain(loads.flat_map(|load| load.askers.iter().copied()));
        askers.for_each(|asker| self.refuse(asker));
        let lost = self.state.travelling.extract_if(.., |message| message.to() == id);
        let lost: Vec<_> = lost.collect();
        for message in lost {
            if let Message::Get { asker, .. } = message {
                self.refuse(asker);
            }
        }
        self.state.writes.retain(|write| write.owner != id);
        for write in &mut self.state.writes {
            write.unconfirmed.remove(id);
        }
        self.finish_writes();
        for other in &mut self.state.nodes {
            other.holders[id.index()] = Holder::default();
        }
        if !node.sees_y {
            self.state.promise.forget_log_of(id);
        }
    }
}

impl State {
    /// Ages are held against the age of a log, and nothing else: where none can come they say nothing, and states that differ in
    /// them alone are one.
    pub(crate) fn forget_ages(&mut self, scenario: &Scenario) {
        let is_written_yet = self.source.is_ahead || self.source.version.0 < scenario.writes;
        let x = self.node(NodeId::X);
        let may_be_sent = !x.is_dead && !x.sees_y && (x.log.is_some() || is_written_yet);
        let may_come = may_be_sent || self.travelling.iter().any(|message| matches!(message, Message::Log { .. }));
        for id in NodeId::all() {
            let is_passed_on = id == NodeId::Y || scenario.hands_over;
            if !(may_come && is_passed_on) {
                let node = self.node_mut(id);
                node.entry.iter_mut().for_each(|entry| entry.age = 0);
                node.loads.iter_mut().for_each(|load| load.age = 0);
            }
        }
    }
}
