//! Packets of strangers, of liars and of an honest node, with time passing in between: whatever they say, the members that are
//! remembered are bounded and what is sent fits a datagram.

use bytes::BufMut;
use foca::{Codec as _, Header, Incarnation, Member, Message, PostcardCodec, State};
use rand::SeedableRng;

use super::*;
use crate::fuzz_support::{Script, Seed, Target};

/// A script of what one node hears.
pub const GOSSIP_PACKET: Target = Target { name: "gossip_packet", run, seeds };

const EPOCH: u64 = 1_700_000_000_000;
const EPOCH_MAX: u64 = u64::MAX / 2;
const KNOWN_MAX: usize = 8;
const STEPS_MAX: usize = 64;
/// Packets that go to and fro in one step.
const CARRIED_MAX: usize = 64;

// What happens, one after the other.
const STRANGE: u8 = 0;
const LIE: u8 = 1;
const TIME: u8 = 2;
const CARRY: u8 = 3;
const ANNOUNCE: u8 = 4;
const CHANGE: u8 = 5;

fn id(host: u8) -> Identity {
    Identity { addr: ([10, 0, 0, host], 3322).into(), epoch: EPOCH, meta_version: 0 }
}

fn gossip(host: u8) -> Gossip {
    Gossip::with_rng(id(host), KNOWN_MAX, || SmallRng::seed_from_u64(host.into()))
}

fn run(data: &[u8]) {
    let mut story = Story { nodes: [gossip(1), gossip(2)], now: Instant::now() };
    story.nodes[0].announce(Identity::unknown(id(2).addr), story.now);
    story.carry();
    let mut script = Script(data);
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        story.step(&mut script);
        story.check();
    }
    story.nodes[0].leave(story.now);
    story.check();
}

/// A node that is lied to, and an honest one.
struct Story {
    nodes: [Gossip; 2],
    now: Instant,
}

impl Story {
    fn step(&mut self, script: &mut Script<'_>) {
        let now = self.now;
        match script.byte() {
            STRANGE => {
                let len = script.number();
                self.hear(script.bytes(len.into()));
            }
            LIE => self.hear(&lie(script, self.nodes[0].identity())),
            TIME => {
                for _ in 0..script.byte() {
                    self.pass_time();
                }
            }
            CARRY => self.carry(),
            ANNOUNCE => self.nodes[0].announce(Identity::unknown(id(script.byte()).addr), now),
            CHANGE => {
                let bumped = self.nodes[0].identity().bumped();
                self.nodes[0].change_identity(bumped, now);
            }
            _ => {}
        }
    }

    fn hear(&mut self, packet: &[u8]) {
        if let Err(implausible) = self.nodes[0].receive(packet, EPOCH_MAX, self.now) {
            assert!(!implausible.to_string().is_empty());
        }
    }

    fn pass_time(&mut self) {
        if let Some(due) = self.nodes[0].next_due() {
            self.now = self.now.max(due);
            self.nodes[0].fire(self.now);
        }
    }

    /// What the two say to each other; what is said to others is lost.
    fn carry(&mut self) {
        for _ in 0..CARRIED_MAX {
            let Some((to, packet)) = self.nodes.iter_mut().find_map(Gossip::next_packet) else { return };
            if let Some(node) = self.nodes.iter_mut().find(|node| node.identity().addr == to) {
                let _ = node.receive(&packet, EPOCH_MAX, self.now);
            }
        }
    }

    fn check(&mut self) {
        for node in &mut self.nodes {
            let members = node.foca.iter_membership_state().count();
            assert!(members <= KNOWN_MAX, "{members} members are remembered");
            while let Some((_, packet)) = node.next_packet() {
                assert!(packet.len() <= PACKET_BYTES_MAX);
            }
            while node.next_change().is_some() {}
        }
    }
}

/// A packet as it should be, saying anything.
fn lie(script: &mut Script<'_>, to: Identity) -> Vec<u8> {
    let src = named(script);
    let message = message(script);
    let header = Header { src, src_incarnation: incarnation(script), dst: to, message };
    let mut packet = Vec::new();
    PostcardCodec.encode_header(&header, &mut packet).expect("a vector takes all");
    let members = script.byte() & 31;
    packet.put_u16(members.into());
    for _ in 0..members {
        let state = [State::Alive, State::Suspect, State::Down][usize::from(script.byte()) % 3];
        let member = Member::new(named(script), incarnation(script), state);
        PostcardCodec.encode_member(&member, &mut packet).expect("a vector takes all");
    }
    packet
}

/// One of few, so that it is often spoken of.
fn named(script: &mut Script<'_>) -> Identity {
    let (host, age) = (script.byte(), script.byte());
    let epoch = match age >> 6 {
        0 => EPOCH,
        1 => EPOCH + u64::from(age & 63),
        2 => EPOCH - u64::from(age & 63),
        _ => u64::MAX - u64::from(age & 63),
    };
    Identity { epoch, meta_version: u32::from(age & 3), ..id(host & 31) }
}

fn incarnation(script: &mut Script<'_>) -> Incarnation {
    match script.byte() {
        close @ 0..=250 => close.into(),
        far => Incarnation::MAX - Incarnation::from(far - 251),
    }
}

fn message(script: &mut Script<'_>) -> Message<Identity> {
    let kind = script.byte();
    match kind % 11 {
        0 => Message::Gossip,
        1 => Message::Announce,
        2 => Message::Feed,
        3 => Message::Ping(script.byte()),
        4 => Message::Ack(script.byte()),
        5 => Message::PingReq { target: named(script), probe_number: script.byte() },
        6 => Message::IndirectPing { origin: named(script), probe_number: script.byte() },
        7 => Message::IndirectAck { target: named(script), probe_number: script.byte() },
        8 => Message::ForwardedAck { origin: named(script), probe_number: script.byte() },
        9 => Message::TurnUndead,
        _ => Message::Broadcast,
    }
}

fn seeds() -> Vec<Seed> {
    let mut honest = gossip(2);
    honest.announce(id(1), Instant::now());
    let (_, packet) = honest.next_packet().expect("it announces itself");
    let strange = [&[STRANGE][..], &(packet.len() as u16).to_be_bytes(), &packet].concat();
    let suspected = [LIE, 2, 0, 0, 0, 1, 1, 1, 0, 9];
    let crowd: Vec<u8> = (10..30).flat_map(|host| [0, host, 0, 0]).collect();
    vec![
        ("announced".into(), strange),
        ("suspected".into(), suspected.into()),
        ("suspected-for-ever".into(), [&suspected[..9], &[255, TIME, 40]].concat()),
        ("crowd".into(), [&[LIE, 2, 0, 0, 0, 20][..], &crowd, &[TIME, 60]].concat()),
        ("turned-undead".into(), vec![LIE, 2, 0, 9, 0, 0, TIME, 9, CARRY, TIME, 200]),
        ("probed-through-others".into(), vec![LIE, 2, 0, 5, 3, 0, 7, 0, 0, TIME, 9]),
        ("changes".into(), vec![CHANGE, CARRY, TIME, 3, CHANGE, CARRY, ANNOUNCE, 9, TIME, 200]),
    ]
}
