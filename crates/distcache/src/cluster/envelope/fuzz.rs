//! Datagrams of strangers, and datagrams that were changed, repeated or held back on their way: what opens is what was sealed,
//! once.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::*;
use crate::fuzz_support::{Script, Seed, Target};
use crate::trust::{ClusterSecret, KeyRing};

/// Strange datagrams, or a script of what happens between two nodes.
pub const GOSSIP_ENVELOPE: Target = Target { name: "gossip_envelope", run, seeds };

// What the first byte of an input says.
const STRANGE: u8 = 0;
const ON_ITS_WAY: u8 = 1;

// What happens on the way.
const SEALED_NOW: u8 = 0;
const DELIVERED: u8 = 1;
const CHANGED: u8 = 2;
const CUT: u8 = 3;

const CLUSTER: &str = "shop";
const NOW: u64 = 1_700_000_000_000;
const DATAGRAMS_MAX: usize = 512;

static OPEN_GATE: LazyLock<Arc<Gate>> = LazyLock::new(Arc::default);
static SECRET_GATE: LazyLock<Arc<Gate>> = LazyLock::new(|| gate("a secret that nobody can guess"));

fn gate(secret: &str) -> Arc<Gate> {
    let secret = ClusterSecret::new(secret).expect("it is long enough");
    Arc::new(Gate { ring: Some(KeyRing::new(&secret, CLUSTER)), ..Gate::default() })
}

fn envelope(gate: &Arc<Gate>) -> Envelope {
    Envelope::new(gate.clone(), CLUSTER, 4)
}

fn run(data: &[u8]) {
    let mut script = Script(data);
    match script.byte() {
        STRANGE => open_strange(script.0),
        _ => Way::new().follow(script),
    }
}

fn open_strange(datagram: &[u8]) {
    if let Ok(packet) = envelope(&OPEN_GATE).open(datagram, NOW) {
        assert_eq!(packet, &datagram[HEADER_BYTES..]);
    }
    let refused = envelope(&SECRET_GATE).open(datagram, NOW).expect_err("nobody without the secret can seal");
    assert!(!refused.to_string().is_empty());
}

/// Between a sender and a receiver who keep a secret.
struct Way {
    sender: Envelope,
    receiver: Envelope,
    sent: Vec<Sent>,
    arrived: HashSet<usize>,
}

struct Sent {
    packet: Vec<u8>,
    clock: u64,
    datagram: Vec<u8>,
}

impl Way {
    fn new() -> Self {
        let [sender, receiver] = [(); 2].map(|()| envelope(&SECRET_GATE));
        Self { sender, receiver, sent: Vec::new(), arrived: HashSet::new() }
    }

    fn follow(&mut self, mut script: Script<'_>) {
        while !script.is_over() {
            match script.byte() & 3 {
                SEALED_NOW if self.sent.len() < DATAGRAMS_MAX => self.seal(&mut script),
                DELIVERED => {
                    if let Some(which) = self.which(&mut script) {
                        self.deliver(which);
                    }
                }
                kind => self.damage(kind, &mut script),
            }
        }
    }

    fn seal(&mut self, script: &mut Script<'_>) {
        let ahead = i64::from(script.number() as i16) * 50;
        let (clock, len) = (NOW.saturating_add_signed(ahead), script.byte());
        let packet = script.bytes(len.into()).to_vec();
        let mut datagram = Vec::new();
        self.sender.seal(&packet, clock, &mut datagram);
        assert!(datagram.len() <= packet.len() + Envelope::OVERHEAD_BYTES);
        self.sent.push(Sent { packet, clock, datagram });
    }

    /// One of those that were sent, counted from the latest.
    fn which(&self, script: &mut Script<'_>) -> Option<usize> {
        self.sent.len().checked_sub(1 + usize::from(script.byte()))
    }

    fn deliver(&mut self, which: usize) {
        let Sent { packet, clock, datagram } = &self.sent[which];
        let newest = self.arrived.iter().max();
        let is_too_late = newest.is_some_and(|newest| newest.saturating_sub(which) >= u128::BITS as usize);
        let is_in_time = NOW.abs_diff(*clock) <= CLOCK_TOLERANCE.as_millis() as u64;
        match self.receiver.open(datagram, NOW) {
            Ok(opened) => {
                assert_eq!(opened, packet);
                assert!(is_in_time && !is_too_late);
                assert!(self.arrived.insert(which), "it was received before");
            }
            Err(Refused::Replayed) => assert!(is_too_late || self.arrived.contains(&which)),
            Err(Refused::Clock(_)) => assert!(!is_in_time),
            Err(refused) => panic!("it is as it was sent: {refused}"),
        }
    }

    fn damage(&mut self, kind: u8, script: &mut Script<'_>) {
        let Some(which) = self.which(script) else { return };
        let mut datagram = self.sent[which].datagram.clone();
        let at = usize::from(script.number()) % datagram.len();
        match kind {
            CUT => datagram.truncate(at),
            // CHANGED; all that is sent has more than one byte.
            _ => datagram[at] ^= script.byte().max(1),
        }
        assert!(self.receiver.open(&datagram, NOW).is_err(), "it is not what was sealed");
    }
}

fn seeds() -> Vec<Seed> {
    let of = |gate: &Arc<Gate>| {
        let mut datagram = vec![];
        envelope(gate).seal(b"a packet", NOW, &mut datagram);
        [&[STRANGE][..], &datagram].concat()
    };
    let sealed = [SEALED_NOW, 0, 0, 4, b'h', b'i', b'g', b'h'];
    let late = [SEALED_NOW, 0x7f, 0xff, 1, b'x', DELIVERED, 0];
    vec![
        ("open".into(), of(&OPEN_GATE)),
        ("sealed-by-another".into(), of(&gate("the secret of somebody else"))),
        ("delivered-twice".into(), [&[ON_ITS_WAY][..], &sealed, &[DELIVERED, 0, DELIVERED, 0]].concat()),
        ("out-of-order".into(), [&[ON_ITS_WAY][..], &sealed, &sealed, &[DELIVERED, 0, DELIVERED, 1]].concat()),
        ("clock-ahead".into(), [&[ON_ITS_WAY][..], &late].concat()),
        ("changed".into(), [&[ON_ITS_WAY][..], &sealed, &[CHANGED, 0, 0, 20, 1, DELIVERED, 0]].concat()),
        ("cut".into(), [&[ON_ITS_WAY][..], &sealed, &[CUT, 0, 0, 40]].concat()),
        ("window".into(), [&[ON_ITS_WAY][..], &sealed.repeat(140), &[DELIVERED, 0, DELIVERED, 139]].concat()),
    ]
}
