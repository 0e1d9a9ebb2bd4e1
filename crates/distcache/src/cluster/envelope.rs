//! What stands around a gossip datagram: the protocol's magic and version, which cluster it belongs to, and, where a secret is
//! kept, a seal that nobody without it can make or open.
//!
//! Knows nothing of what it carries. The invariants: nothing of another protocol, version, cluster or secret is ever opened;
//! under a secret, nothing is opened twice, nor when it is older than [`CLOCK_TOLERANCE`]. [`Envelope::seal`] and
//! [`Envelope::open`] are the only way in and out.
//!
//! A sealed datagram: header, key id, session of the sender, sequence number, then encrypted the sender's wall clock and the
//! packet. Each session of a sender has a key of its own, so that sequence numbers serve as nonces; they also make the replay
//! window of [RFC 6479](https://www.rfc-editor.org/rfc/rfc6479). The clock covers what was recorded before this node first
//! heard of the session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::trust::secret::{Cipher, Key, KeyId, random};
use crate::trust::{Gate, Refusal};

const MAGIC: [u8; 3] = *b"dcG";
/// Nodes of different versions do not talk to each other.
pub(super) const VERSION: u8 = 1;

/// How far the wall clocks of two nodes may be apart, as with Kerberos.
pub(super) const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

const HEADER_BYTES: usize = MAGIC.len() + 2 + size_of::<u64>();
const KEY_ID_BYTES: usize = 4;
const SESSION_BYTES: usize = 16;
const SEQUENCE_BYTES: usize = size_of::<u64>();
/// What is authenticated but not encrypted.
const CLEAR_BYTES: usize = HEADER_BYTES + KEY_ID_BYTES + SESSION_BYTES + SEQUENCE_BYTES;
const CLOCK_BYTES: usize = size_of::<u64>();

/// Whether what follows the header is sealed.
const OPEN: u8 = 0;
const SEALED: u8 = 1;

type SessionId = [u8; SESSION_BYTES];

/// The way in and out of one node.
pub(super) struct Envelope {
    gate: Arc<Gate>,
    cluster_name: String,
    header: [u8; HEADER_BYTES],
    sending: Option<Sending>,
    senders: HashMap<(KeyId, SessionId), Sender>,
    senders_max: usize,
    opened: Vec<u8>,
}

/// This node's session under one key.
struct Sending {
    key: Arc<Key>,
    session: SessionId,
    cipher: Cipher,
    sequence: u64,
}

/// Another node's session.
struct Sender {
    cipher: Cipher,
    window: Window,
    heard_at: u64,
}

/// Why a datagram is not for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("it is no gossip of ours")]
    Foreign,
    #[error("it speaks version {0} of the gossip, not {VERSION}")]
    OtherVersion(u8),
    #[error("it belongs to another cluster")]
    OtherCluster,
    #[error("it is not sealed: a cluster secret is set here, none there")]
    Unsealed,
    #[error("it is sealed: no cluster secret is set here, one is there")]
    Sealed,
    #[error("it is sealed under another cluster secret, or was damaged or forged")]
    OtherSecret,
    #[error("it was received before: somebody repeats what was recorded")]
    Replayed,
    #[error("it is {0:?} away from this node's time: somebody repeats what was recorded, or a clock is wrong")]
    Clock(Duration),
}

impl Refused {
    pub(super) fn reason(self) -> Refusal {
        match self {
            Self::Foreign => Refusal::Foreign,
            Self::OtherVersion(_) => Refusal::Version,
            Self::OtherCluster => Refusal::Cluster,
            Self::Unsealed | Self::Sealed | Self::OtherSecret => Refusal::Secret,
            Self::Replayed => Refusal::Replayed,
            Self::Clock(_) => Refusal::Clock,
        }
    }
}

impl Envelope {
    /// Most bytes that [`seal`](Self::seal) adds.
    pub(super) const OVERHEAD_BYTES: usize = CLEAR_BYTES + CLOCK_BYTES + Cipher::OVERHEAD_BYTES;

    /// Remembers up to `senders_max` sessions of other nodes.
    pub(super) fn new(gate: Arc<Gate>, cluster_name: &str, senders_max: usize) -> Self {
        let mut header = [0; HEADER_BYTES];
        header[..MAGIC.len()].copy_from_slice(&MAGIC);
        header[MAGIC.len()] = VERSION;
        header[MAGIC.len() + 1] = if gate.ring.is_some() { SEALED } else { OPEN };
        header[MAGIC.len() + 2..].copy_from_slice(&xxh3_64(cluster_name.as_bytes()).to_be_bytes());
        Self {
            gate,
            cluster_name: cluster_name.into(),
            header,
            sending: None,
            senders: HashMap::new(),
            senders_max,
            opened: Vec::new(),
        }
    }

    /// Replaces what is in `datagram`. `now` is the wall clock in milliseconds.
    pub(super) fn seal(&mut self, packet: &[u8], now: u64, datagram: &mut Vec<u8>) {
        datagram.clear();
        datagram.extend_from_slice(&self.header);
        let Some(ring) = &self.gate.ring else { return datagram.extend_from_slice(packet) };
        let key = ring.spoken();
        let sending = match self.sending.take() {
            Some(sending) if sending.key.id == key.id => sending,
            _ => Sending::begin(key),
        };
        let sending = self.sending.insert(sending);
        sending.sequence += 1;
        datagram.extend_from_slice(&sending.key.id.0);
        datagram.extend_from_slice(&sending.session);
        datagram.extend_from_slice(&sending.sequence.to_be_bytes());
        let context = context(datagram, &self.cluster_name);
        datagram.extend_from_slice(&now.to_be_bytes());
        datagram.extend_from_slice(packet);
        sending.cipher.seal(sending.sequence, &context, datagram, CLEAR_BYTES);
    }

    /// What was sealed, if it was sealed for this node. `now` is the wall clock in milliseconds.
    pub(super) fn open<'a>(&'a mut self, datagram: &'a [u8], now: u64) -> Result<&'a [u8], Refused> {
        let (header, rest) = datagram.split_at_checked(HEADER_BYTES).ok_or(Refused::Foreign)?;
        match header {
            header if header == self.header => {}
            header if header[..MAGIC.len()] != MAGIC => return Err(Refused::Foreign),
            header if header[MAGIC.len()] != VERSION => return Err(Refused::OtherVersion(header[MAGIC.len()])),
            header if header[MAGIC.len() + 2..] != self.header[MAGIC.len() + 2..] => return Err(Refused::OtherCluster),
            _ if self.gate.ring.is_some() => return Err(Refused::Unsealed),
            _ => return Err(Refused::Sealed),
        }
        if self.gate.ring.is_some() { self.open_sealed(datagram, now) } else { Ok(rest) }
    }

    fn open_sealed(&mut self, datagram: &[u8], now: u64) -> Result<&[u8], Refused> {
        let (clear, sealed) = datagram.split_at_checked(CLEAR_BYTES).ok_or(Refused::Foreign)?;
        let (key_id, rest) = clear[HEADER_BYTES..].split_at(KEY_ID_BYTES);
        let (session, sequence) = rest.split_at(SESSION_BYTES);
        let key_id = KeyId(array(key_id));
        let (session, sequence): (SessionId, _) = (array(session), u64::from_be_bytes(array(sequence)));

        let ring = self.gate.ring.as_ref().ok_or(Refused::Sealed)?;
        // Looked up also for a session that is known: its key may have been dropped since.
        let key = ring.find(key_id).ok_or(Refused::OtherSecret)?;
        let known = self.senders.get_mut(&(key_id, session));
        if known.as_ref().is_some_and(|sender| !sender.window.is_new(sequence)) {
            return Err(Refused::Replayed);
        }
        self.opened.clear();
        self.opened.extend_from_slice(sealed);
        let context = context(clear, &self.cluster_name);
        let fresh = known.is_none().then(|| key.cipher("gossip", &session));
        let cipher = known.as_ref().map(|sender| &sender.cipher).or(fresh.as_ref()).ok_or(Refused::OtherSecret)?;
        let opened = cipher.open(sequence, &context, &mut self.opened).ok_or(Refused::OtherSecret)?.len();
        let (clock, _) = self.opened[..opened].split_at_checked(CLOCK_BYTES).ok_or(Refused::OtherSecret)?;
        let apart = Duration::from_millis(now.abs_diff(u64::from_be_bytes(array(clock))));
        if apart > CLOCK_TOLERANCE {
            return Err(Refused::Clock(Duration::from_secs(apart.as_secs())));
        }
        match (known, fresh) {
            (Some(sender), _) => sender.heard(sequence, now),
            (None, Some(cipher)) => self.remember((key_id, session), cipher, sequence, now),
            (None, None) => {}
        }
        Ok(&self.opened[CLOCK_BYTES..opened])
    }

    fn remember(&mut self, session: (KeyId, SessionId), cipher: Cipher, sequence: u64, now: u64) {
        if self.senders.len() >= self.senders_max {
            self.forget_silent(now);
        }
        let mut sender = Sender { cipher, window: Window::default(), heard_at: now };
        sender.heard(sequence, now);
        self.senders.insert(session, sender);
    }

    /// Forgets sessions whose datagrams are too old to be repeated; if there are none, the one that was silent longest.
    fn forget_silent(&mut self, now: u64) {
        let remembered = CLOCK_TOLERANCE.as_millis() as u64 * 2;
        self.senders.retain(|_, sender| now.saturating_sub(sender.heard_at) <= remembered);
        if self.senders.len() >= self.senders_max {
            let silent = self.senders.iter().min_by_key(|(_, sender)| sender.heard_at).map(|(session, _)| *session);
            silent.map(|session| self.senders.remove(&session));
        }
    }
}

impl Sending {
    fn begin(key: Arc<Key>) -> Self {
        let session = random();
        let cipher = key.cipher("gossip", &session);
        Self { key, session, cipher, sequence: 0 }
    }
}

impl Sender {
    fn heard(&mut self, sequence: u64, now: u64) {
        self.window.take(sequence);
        self.heard_at = now;
    }
}

/// What is authenticated beside the packet.
fn context(clear: &[u8], cluster_name: &str) -> Vec<u8> {
    [clear, cluster_name.as_bytes()].concat()
}

/// The caller has cut it to the right length.
fn array<const BYTES: usize>(bytes: &[u8]) -> [u8; BYTES] {
    let mut array = [0; BYTES];
    array.copy_from_slice(bytes);
    array
}

/// Which of the latest sequence numbers have been seen. What is older counts as seen.
#[derive(Debug, Default)]
struct Window {
    newest: u64,
    /// Bit n: `newest - n` has been seen.
    seen: u128,
}

impl Window {
    fn is_new(&self, sequence: u64) -> bool {
        match self.newest.checked_sub(sequence) {
            None => true,
            Some(age) => age < u128::BITS.into() && self.seen & 1 << age == 0,
        }
    }

    fn take(&mut self, sequence: u64) {
        match self.newest.checked_sub(sequence) {
            Some(age) if age < u128::BITS.into() => self.seen |= 1 << age,
            Some(_) => {}
            None => {
                let ahead = u32::try_from(sequence - self.newest).unwrap_or(u32::MAX);
                self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
                self.newest = sequence;
            }
        }
    }
}

#[cfg(feature = "fuzz-internals")]
pub(super) mod fuzz;
#[cfg(test)]
mod tests;
