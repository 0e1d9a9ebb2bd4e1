//! What another node says of the cluster: taken in as it was said, within limits, or refused.

use std::sync::LazyLock;

use tokio::time::Instant;

use super::super::member::Identity;
use super::super::state::{Change, Members};
use super::*;
use crate::fuzz_support::{Seed, Target};
use crate::trust::handshake::Topic;

/// A message of an exchange.
pub const METADATA: Target = Target { name: "metadata", run, seeds };

const MEMBERS_MAX: usize = 8;

struct Nothing;

impl SharedState for Nothing {
    fn export(&self) -> Vec<u8> {
        Vec::new()
    }
    fn merge(&self, _: &[u8]) {}
}

static EXCHANGE: LazyLock<Exchange> = LazyLock::new(|| Exchange {
    gate: Arc::default(),
    hello: Hello::new(Topic::Exchange, "shop", "n1", 1, FRAME_BYTES_MAX),
    limits: Limits { members_max: MEMBERS_MAX, ..Limits::default() },
    known: watch::channel(Arc::new(Known { me: metadata(1), others: Vec::new() })).1,
    shared: Arc::new(Nothing),
});

fn metadata(host: u8) -> Metadata {
    let addr = ([10, 0, 0, host], 3322).into();
    let id = Identity { addr, epoch: 1_700_000_000_000, meta_version: 2 };
    Metadata::joining(id, format!("n{host}"), id.epoch, addr)
}

fn run(data: &[u8]) {
    let Ok(knowledge) = decoded::<Knowledge>(data) else { return };
    let sent = encoded(&knowledge).expect("what was decoded can be sent on");
    assert_eq!(decoded::<Knowledge>(&sent).expect("and decodes again"), knowledge);
    let name = knowledge.me.name.clone();
    match EXCHANGE.take_in(knowledge, &name) {
        Ok(knowledge) => learn(knowledge),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// As the driver does, for whoever is up and then is not.
fn learn(knowledge: Knowledge) {
    let (mut members, now) = (Members::new(metadata(1), MEMBERS_MAX), Instant::now());
    let told = [vec![knowledge.me], knowledge.others].concat();
    for metadata in &told {
        members.apply(Change::Up(metadata.id), now);
        members.learn(metadata.clone(), now);
        members.refresh();
    }
    assert!(members.known().len() < MEMBERS_MAX);
    assert_eq!(members.refresh(), None, "nothing has changed since");
    for metadata in told {
        members.apply(Change::Down(metadata.id), now);
    }
    if let Some((view, _)) = members.refresh() {
        assert!(view.peers.iter().any(|peer| peer.is_self));
    }
    assert_eq!(members.up().count(), 0);
}

fn seeds() -> Vec<Seed> {
    let alone = Knowledge { me: metadata(2), others: Vec::new(), shared: Vec::new() };
    let mut several = Knowledge { others: vec![metadata(3), metadata(4)], shared: vec![7; 9], ..alone.clone() };
    several.others[0].zone = Some("z".into());
    several.others[1].admin_addr = Some("10.0.0.4:3321".into());
    several.others[1].id.addr = "[fd00::4]:3322".parse().expect("an address");
    let mut namesakes = Knowledge { others: vec![metadata(5)], ..alone.clone() };
    namesakes.others[0].name = "n2".into();
    let crowd = Knowledge { others: (3..20).map(metadata).collect(), ..alone.clone() };
    let all = [("alone", alone), ("several", several), ("namesakes", namesakes), ("crowd", crowd)];
    all.map(|(name, knowledge)| (name.into(), encoded(&knowledge).expect("it is small"))).into()
}
