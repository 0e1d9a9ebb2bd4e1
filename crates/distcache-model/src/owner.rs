//! What an owner does: answers, loads, and tells those that hold copies when the key is written.
//!
//! Knows nothing of how it became the owner. The invariant: whoever may keep what it was answered is among the holders, and a
//! write changes the entry, fences and detaches the load, and tells, all in one step.

use crate::rule::Rule;
use crate::scenario::Takeover;
use crate::state::{Asker, Entry, Holder, Load, Message, Node, NodeId, NodeSet, Question, Ticks, Version, Write};
use crate::steps::{Next, Way};

impl Next<'_> {
    /// A caller asks at the owner itself.
    pub(crate) fn get_here(&mut self, id: NodeId) {
        let floor = self.state.promise.floor(id);
        if let Some(entry) = self.state.node(id).entry {
            self.state.promise.answer(id, entry.version, floor);
        } else if let Some(load) = self.load_to_join(id) {
            load.floor = load.floor.max(floor);
        }
    }

    /// Joins the load under way or starts one. `None`: with too many under way, which is beyond the bounds.
    fn load_to_join(&mut self, id: NodeId) -> Option<&mut Load> {
        let loads = &mut self.state.node_mut(id).loads;
        if loads.iter().all(|load| load.is_detached) && loads.len() < self.scenario.loads {
            loads.push(Load::default());
        }
        loads.iter_mut().find(|load| !load.is_detached)
    }

    pub(crate) fn arrive(&mut self, id: NodeId, asker: Asker) {
        if !self.state.owns(id) {
            return self.refuse(asker);
        }
        let found = if self.scenario.keeps(Rule::RegisterOnArrival) {
            self.register(id, asker.node);
            None
        } else {
            self.state.node(id).entry.map(|entry| entry.version)
        };
        let questions = &mut self.state.node_mut(id).questions;
        questions.push(Question { asker, found });
        questions.sort();
    }

    fn register(&mut self, id: NodeId, holder: NodeId) {
        let left = self.scenario.lease;
        self.state.node_mut(id).holders[holder.index()] = Holder { left, told: None };
    }

    pub(crate) fn answer(&mut self, id: NodeId, question: Question) {
        let Question { asker, found } = question;
        self.state.node_mut(id).questions.retain(|other| *other != question);
        if !self.state.owns(id) {
            return self.refuse(asker);
        }
        if !self.scenario.keeps(Rule::RegisterOnArrival) {
            self.register(id, asker.node);
        }
        let entry = self.state.node(id).entry;
        if let Some(version) = found.or(entry.map(|entry| entry.version)) {
            self.state.send(Message::Reply { asker, version, is_leased: true });
        } else if let Some(load) = self.load_to_join(id) {
            load.askers.push(asker);
            load.askers.sort();
        }
    }

    pub(crate) fn read(&mut self, id: NodeId, load: usize) {
        self.state.node_mut(id).loads[load].read = Some(self.state.source.version);
    }

    pub(crate) fn land(&mut self, id: NodeId, load: usize) {
        let owns = self.state.owns(id);
        let has_fence = self.scenario.keeps(Rule::LoadFence);
        let node = self.state.node_mut(id);
        let load = node.loads.remove(load);
        let Some(version) = load.read else { return };
        let is_kept = !(load.is_fenced && has_fence);
        if is_kept && owns {
            node.entry = Some(Entry { version, age: load.age, is_handed_over: false });
        }
        self.state.promise.answer(id, version, load.floor);
        for asker in load.askers {
            self.state.send(Message::Reply { asker, version, is_leased: is_kept });
        }
    }

    pub(crate) fn write(&mut self, id: NodeId, way: Way) {
        let version = self.state.source.version;
        self.state.source.is_ahead = false;
        self.change(id, (way == Way::Put).then_some(version));
        if id == NodeId::X && self.scenario.takeover == Takeover::WhileAlive {
            self.state.node_mut(id).log = Some((version, 0));
        }
        self.tell(id, version, false);
    }

    /// Sets the entry or drops it, and overtakes the load under way.
    pub(crate) fn change(&mut self, id: NodeId, version: Option<Version>) {
        let node = self.state.node_mut(id);
        node.entry = version.map(|version| Entry { version, age: 0, is_handed_over: false });
        // Noted only where an entry may be handed over to.
        node.is_written = id == NodeId::Y && self.scenario.hands_over;
        self.overtake_loads(id, 0);
    }

    /// Loads at least this old began before what was written.
    pub(crate) fn overtake_loads(&mut self, id: NodeId, age: Ticks) {
        let detaches = self.scenario.keeps(Rule::Detach);
        for load in self.state.node_mut(id).loads.iter_mut().filter(|load| load.age >= age) {
            load.is_fenced = true;
            load.is_detached |= detaches;
        }
    }

    pub(crate) fn tell(&mut self, id: NodeId, version: Version, is_relayed: bool) {
        let everybody = self.state.node(id).young > 0 && self.scenario.keeps(Rule::AllWhileYoung);
        let may_hold = |other: &NodeId| everybody || self.state.node(id).holders[other.index()].left > 0;
        let told: NodeSet = self.state.alive().filter(|other| *other != id).filter(may_hold).collect();
        for to in told.iter() {
            self.state.send(Message::Invalidate { from: id, to, version });
            let holder = &mut self.state.node_mut(id).holders[to.index()];
            holder.told = (holder.left > 0).then_some(version);
        }
        let write = Write { owner: id, version, is_relayed, unconfirmed: told, waited: 0 };
        if told.is_empty() || !self.scenario.keeps(Rule::AwaitAcks) {
            return self.state.finish(&write, self.scenario);
        }
        self.state.writes.push(write);
        self.state.writes.sort();
    }

    pub(crate) fn ack(&mut self, id: NodeId, from: NodeId, version: Version) {
        let holder = &mut self.state.node_mut(id).holders[from.index()];
        if holder.told == Some(version) || !self.scenario.keeps(Rule::AckEndsWhatWasTold) {
            *holder = Holder::default();
        }
        let write = self.state.writes.iter_mut().find(|write| write.owner == id && write.version == version);
        write.into_iter().for_each(|write| write.unconfirmed.remove(from));
        self.finish_writes();
    }

    /// A write returns as soon as it may: at any later time less would be promised.
    pub(crate) fn finish_writes(&mut self) {
        let wait = self.scenario.wait;
        let is_over = |write: &Write| write.unconfirmed.is_empty() || write.waited >= wait;
        let (over, mut under_way): (Vec<_>, Vec<_>) = self.state.writes.drain(..).partition(is_over);
        under_way.sort();
        self.state.writes = under_way;
        over.iter().for_each(|write| self.state.finish(write, self.scenario));
    }
}

impl Node {
    /// Whether a question can be answered at once, or wait for a load.
    pub(crate) fn has_answer_or_room(&self, loads_max: usize) -> bool {
        self.entry.is_some() || self.loads.len() < loads_max || self.loads.iter().any(|load| !load.is_detached)
    }
}
