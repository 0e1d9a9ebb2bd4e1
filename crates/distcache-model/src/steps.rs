//! What can happen next, and what it makes of a state.
//!
//! The invariant: the same state gives the same steps in the same order, and each of them can be taken.

use stateright::{Model, Property};

use crate::rule::Rule;
use crate::scenario::{Scenario, Takeover};
use crate::state::{Copy, Holder, Message, Node, NodeId, Question, State, Ticks};

/// The protocol within the bounds of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Protocol(pub Scenario);

/// The name of the property that no answer is older than promised.
pub const BOUNDED: &str = "no get is answered with less than what a write before it promised";

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A caller asks.
    Get(NodeId),
    /// A message arrives.
    Receive(Message),
    /// An owner answers a question that has arrived, or lets it wait for a load.
    Answer(NodeId, Question),
    /// A load reads the source.
    Read(NodeId, usize),
    /// A load has come back to its owner.
    Land(NodeId, usize),
    /// A writer changes the source.
    Change,
    /// And tells the owner.
    Write(NodeId, Way),
    /// A node learns of the new owner.
    Learn(NodeId),
    /// A node crashes.
    Crash(NodeId),
    /// Time passes.
    Tick,
}

/// How a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// The new value comes along.
    Put,
    /// The old one goes.
    Delete,
}

/// A state in the making.
pub(crate) struct Next<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) state: State,
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(self.0.nodes)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.promise.broken.is_some() {
            return;
        }
        let gets = state.alive().filter(|id| self.0.callers[id.index()]);
        steps.extend(gets.map(Step::Get));
        let mut travelling = state.travelling.clone();
        travelling.dedup();
        steps.extend(travelling.into_iter().map(Step::Receive));
        state.alive().for_each(|id| self.steps_of_owner(state, id, steps));
        if !state.source.is_ahead && state.source.version.0 < self.0.writes {
            steps.push(Step::Change);
        }
        self.steps_of_takeover(state, steps);
        steps.push(Step::Tick);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = Next { scenario: &self.0, state: state.clone() };
        next.take(step);
        next.state.settle();
        next.state.forget_ages(&self.0);
        (next.state != *state).then_some(next.state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![Property::always(BOUNDED, |_, state: &State| state.promise.broken.is_none())];
        properties.extend(self.0.sights.iter().map(|sight| Property {
            expectation: stateright::Expectation::Sometimes,
            name: sight.0,
            condition: sight.1,
        }));
        properties
    }
}

impl Protocol {
    fn steps_of_owner(&self, state: &State, id: NodeId, steps: &mut Vec<Step>) {
        let node = state.node(id);
        let can_answer =
            |question: &&Question| question.found.is_some() || !state.owns(id) || node.has_answer_or_room(self.0.loads);
        steps.extend(node.questions.iter().filter(can_answer).map(|question| Step::Answer(id, *question)));
        for (place, load) in node.loads.iter().enumerate() {
            steps.push(if load.read.is_none() { Step::Read(id, place) } else { Step::Land(id, place) });
        }
        if state.source.is_ahead && state.owns(id) {
            steps.extend([Step::Write(id, Way::Put), Step::Write(id, Way::Delete)]);
        }
    }

    fn steps_of_takeover(&self, state: &State, steps: &mut Vec<Step>) {
        let x_is_dead = state.node(NodeId::X).is_dead;
        let may_learn = match self.0.takeover {
            Takeover::Never => return,
            Takeover::AfterCrash => x_is_dead,
            Takeover::WhileAlive => true,
        };
        if may_learn {
            steps.extend(state.alive().filter(|id| !state.node(*id).sees_y).map(Step::Learn));
        }
        if !x_is_dead && self.0.crashes {
            steps.push(Step::Crash(NodeId::X));
        }
    }
}

impl Next<'_> {
    fn take(&mut self, step: Step) {
        match step {
            Step::Get(id) if self.state.owns(id) => self.get_here(id),
            Step::Get(id) => self.get_from_owner(id),
            Step::Receive(message) => self.receive(message),
            Step::Answer(id, question) => self.answer(id, question),
            Step::Read(id, load) => self.read(id, load),
            Step::Land(id, load) => self.land(id, load),
            Step::Change => {
                self.state.source.version.0 += 1;
                self.state.source.is_ahead = true;
            }
            Step::Write(id, way) => self.write(id, way),
            Step::Learn(id) => self.learn(id),
            Step::Crash(id) => self.crash(id),
            Step::Tick => self.tick(),
        }
    }

    fn receive(&mut self, message: Message) {
        let Ok(place) = self.state.travelling.binary_search(&message) else { return };
        self.state.travelling.remove(place);
        match message {
            Message::Get { asker, to } => self.arrive(to, asker),
            Message::Reply { asker, version, is_leased } => self.reply(asker, version, is_leased),
            Message::Invalidate { from, to, version } => self.invalidate(to, from, version),
            Message::Ack { from, to, version } => self.ack(to, from, version),
            Message::Log { to, version, age } => self.hear_log(to, version, age),
            Message::HandOver { to, version, age } => self.accept(to, version, age),
        }
    }

    fn tick(&mut self) {
        let (age_max, joins_within_lease) = (self.scenario.age_max, self.scenario.keeps(Rule::JoinWithinLease));
        for node in &mut self.state.nodes {
            node.tick(age_max);
            for fetch in node.fetches.iter_mut().flatten() {
                fetch.left = fetch.left.saturating_sub(1);
                fetch.is_detached |= fetch.left == 0 && joins_within_lease;
            }
        }
        self.state.promise.tick();
        self.state.writes.iter_mut().for_each(|write| write.waited += 1);
        self.finish_writes();
    }
}

impl Node {
    fn tick(&mut self, age_max: Ticks) {
        let older = |age: &mut Ticks| *age = (*age + 1).min(age_max);
        self.young = self.young.saturating_sub(1);
        self.entry.iter_mut().for_each(|entry| older(&mut entry.age));
        self.loads.iter_mut().for_each(|load| older(&mut load.age));
        self.log.iter_mut().for_each(|(_, age)| older(age));
        for holder in &mut self.holders {
            holder.left = holder.left.saturating_sub(1);
            if holder.left == 0 {
                *holder = Holder::default();
            }
        }
        self.copy = self.copy.filter(|copy| copy.left > 1).map(|copy| Copy { left: copy.left - 1, ..copy });
    }
}
