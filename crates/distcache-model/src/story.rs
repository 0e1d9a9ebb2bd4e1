//! A path through the states, told: what happens, what each node has after it, and how it ends.
//!
//! Decides nothing. The invariant: whatever a step changes at a node or in what is promised is said.

use std::fmt::{Display, Formatter, Result, Write as _};

use stateright::Path;

use crate::scenario::Scenario;
use crate::state::{Asker, Fetch, Holder, Load, Message, Node, NodeId, State, Version};
use crate::steps::{Step, Way};

impl Display for Version {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "v{}", self.0)
    }
}

/// The steps of a path, numbered; under each what it changed.
pub fn tell(scenario: &Scenario, path: Path<State, Step>) -> String {
    let (mut story, moments) = (String::new(), path.into_vec());
    for (place, pair) in moments.windows(2).enumerate() {
        let [(before, Some(step)), (after, _)] = pair else { continue };
        let _ = writeln!(story, "{:>3}  {}", place + 1, scenario.sentence(*step, before));
        for id in NodeId::all().filter(|id| before.node(*id) != after.node(*id)) {
            let _ = writeln!(story, "       {}: {}", scenario.name(id), scenario.digest(after.node(id)));
        }
        if after.promise.broken.is_none() && before.promise != after.promise {
            let _ = writeln!(story, "       promised: {}", scenario.promised(after));
        }
    }
    if let Some(broken) = moments.last().and_then(|(last, _)| last.promise.broken) {
        let name = scenario.name(broken.node);
        let _ = writeln!(story, "     {name} answers {}; {} was promised", broken.answered, broken.floor);
    }
    story
}

impl Scenario {
    /// What happens.
    fn sentence(&self, step: Step, before: &State) -> String {
        let name = |id| self.name(id);
        let source = before.source.version;
        match step {
            Step::Get(id) => format!("a caller asks at {}", name(id)),
            Step::Receive(message) => self.arrival(message),
            Step::Answer(id, question) => format!("{} sees to the question of {}", name(id), name(question.asker.node)),
            Step::Read(id, _) => format!("a load of {} reads {source}", name(id)),
            Step::Land(id, _) => format!("a load of {} lands", name(id)),
            Step::Change => format!("the source changes from {source}"),
            Step::Write(id, Way::Put) => format!("{source} is put at {}", name(id)),
            Step::Write(id, Way::Delete) => format!("the key is deleted at {}: it is {source} now", name(id)),
            Step::Learn(id) => format!("{} learns that {} owns the slot", name(id), name(NodeId::Y)),
            Step::Crash(id) => format!("{} crashes", name(id)),
            Step::Tick => "time passes".into(),
        }
    }

    fn arrival(&self, message: Message) -> String {
        let name = |id| self.name(id);
        match message {
            Message::Get { asker, to } => format!("the question of {} comes to {}", self.asker(asker), name(to)),
            Message::Reply { asker, version, is_leased } => {
                let leave = if is_leased { "to be kept" } else { "not to be kept" };
                format!("the answer comes to {}: {version}, {leave}", self.asker(asker))
            }
            Message::Invalidate { from, to, version } => format!("{} tells {} of {version}", name(from), name(to)),
            Message::Ack { from, to, version } => format!("{} confirms {version} to {}", name(from), name(to)),
            Message::Log { to, version, age } => format!("the log comes to {}: {version}, {age} ago", name(to)),
            Message::HandOver { to, version, age } => {
                format!("the former owner's {version}, begun {age} ago, comes to {}", name(to))
            }
        }
    }

    fn asker(&self, asker: Asker) -> String {
        let second = if asker.fetch == 0 { "" } else { "'s second fetch" };
        format!("{}{second}", self.name(asker.node))
    }

    /// What a node has.
    fn digest(&self, node: &Node) -> String {
        let mut has = Vec::new();
        let flags = [(node.is_dead, "dead"), (node.sees_y, "sees the new owner"), (node.is_written, "written here")];
        has.extend(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| (*flag).to_owned()));
        has.extend((node.young > 0).then(|| format!("young for {}", node.young)));
        has.extend(node.entry.map(|entry| {
            let origin = if entry.is_handed_over { ", handed over" } else { "" };
            format!("entry {} begun {} ago{origin}", entry.version, entry.age)
        }));
        has.extend(node.log.map(|(version, age)| format!("log {version} {age} ago")));
        has.extend(node.loads.iter().map(|load| self.load(load)));
        has.extend(node.questions.iter().map(|question| format!("asked by {}", self.asker(question.asker))));
        let holders = NodeId::all().zip(node.holders).filter(|(_, holder)| *holder != Holder::default());
        has.extend(holders.map(|(id, holder)| self.holder(id, holder)));
        has.extend(node.copy.map(|copy| format!("copy {} for {}", copy.version, copy.left)));
        has.extend(node.fetches.iter().flatten().map(fetch));
        if has.is_empty() { "nothing".into() } else { has.join(" · ") }
    }

    fn load(&self, load: &Load) -> String {
        let mut text = load.read.map_or("load".into(), |version| format!("load that read {version}"));
        text += &at_least(load.floor);
        if load.is_fenced {
            text += ", fenced";
        }
        if load.is_detached {
            text += ", detached";
        }
        for asker in &load.askers {
            let _ = write!(text, ", for {}", self.asker(*asker));
        }
        text
    }

    fn holder(&self, id: NodeId, holder: Holder) -> String {
        let told = holder.told.map_or(String::new(), |version| format!(", told of {version}"));
        format!("{} holds for {}{told}", self.name(id), holder.left)
    }

    /// What a get that begins now may be answered with.
    fn promised(&self, state: &State) -> String {
        let nodes = NodeId::all().take(usize::from(self.nodes));
        let mut parts: Vec<_> = nodes.map(|id| format!("{} at {}", state.promise.floor(id), self.name(id))).collect();
        parts.extend(state.promise.owed.iter().map(|owed| {
            if owed.is_deferred {
                return format!("{} once they agree", owed.version);
            }
            let spared = NodeId::all().zip(owed.spared).filter(|(_, left)| *left > 0);
            let spared: Vec<_> = spared.map(|(id, left)| format!("{} in {left}", self.name(id))).collect();
            format!("{} at {}", owed.version, spared.join(", "))
        }));
        parts.extend(state.promise.is_parted.then(|| "parted".to_owned()));
        parts.join(" · ")
    }
}

fn fetch(fetch: &Fetch) -> String {
    let detached = if fetch.is_detached { ", detached" } else { "" };
    format!("fetch with {} left{}{detached}", fetch.left, at_least(fetch.floor))
}

fn at_least(floor: Version) -> String {
    if floor == Version(0) { String::new() } else { format!(", owes {floor}") }
}
