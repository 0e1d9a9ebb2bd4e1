//! The first words on a connection between nodes: who is there, do both speak the same, do both know the secret.
//!
//! Knows neither TLS nor what is said later. The invariants: nothing is read from, and nothing sent to, a node of another
//! cluster, another ring, another protocol or without the secret; a refusal says why in words; a proof is good for the one
//! connection that it was made on.
//!
//! Both sides say [`Hello`]; then, where a secret is kept, the side that connected proves first that it knows it, so that no
//! stranger gets a proof to try guesses on. What precedes a `Hello` (magic, versions, length) stays as it is in all versions.

use std::io;
use std::time::Duration;

use ring::digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::refusals::Refusal;
use super::secret::{Cipher, Key, KeyId, KeyRing, random};
use crate::ring::{NodeId, SLOT_BITS};

const MAGIC: &[u8; 8] = b"distcach";
/// Oldest and newest protocol spoken, of peers and of membership together.
const VERSIONS: (u16, u16) = (1, 1);
/// No setting leads to frames smaller than this.
const FRAME_BYTES_MIN: u64 = 64 << 10;
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Of what the other side says when it refuses.
const REASON_CHARS_MAX: usize = 300;
/// How long whoever is refused may take to hear why.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(200);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Topic {
    /// Requests for keys.
    Requests,
    /// One exchange of metadata.
    Exchange,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Reserved: what is spoken beyond the version.
    pub(crate) features: u64,
    pub(crate) cluster: String,
    pub(crate) topic: Topic,
    pub(crate) slot_bits: u8,
    pub(crate) frame_bytes_max: u64,
    pub(crate) node: String,
    pub(crate) incarnation: u64,
    pub(crate) keeps_secret: bool,
    /// Makes the proofs of this connection its own.
    nonce: [u8; 32],
}

impl Hello {
    pub(crate) fn new(topic: Topic, cluster: &str, node: &str, incarnation: u64, frame_bytes_max: usize) -> Self {
        Self {
            features: 0,
            cluster: cluster.into(),
            topic,
            slot_bits: SLOT_BITS as u8,
            frame_bytes_max: frame_bytes_max as u64,
            node: node.into(),
            incarnation,
            keeps_secret: false,
            nonce: [0; 32],
        }
    }

    /// The same for one connection.
    fn said(&self, ring: Option<&KeyRing>) -> Self {
        Self { keeps_secret: ring.is_some(), nonce: random(), ..self.clone() }
    }

    pub(crate) fn node_id(&self) -> NodeId {
        NodeId::of(&self.node)
    }

    /// Why these two cannot talk, if they cannot.
    fn objection(&self, other: &Self) -> Option<(Refusal, String)> {
        let objection = if self.cluster != other.cluster {
            (Refusal::Cluster, format!("this is cluster {:?}, not {:?}", self.cluster, other.cluster))
        } else if self.topic != other.topic {
            let port = if self.topic == Topic::Requests { "peer" } else { "gossip" };
            (Refusal::Incompatible, format!("this is the {port} port, and something else was asked for"))
        } else if other.frame_bytes_max < FRAME_BYTES_MIN {
            (Refusal::Incompatible, format!("frames of {} bytes are too small", other.frame_bytes_max))
        } else if self.slot_bits != other.slot_bits {
            let why = format!("the ring has 2^{} slots here, 2^{} there", self.slot_bits, other.slot_bits);
            (Refusal::Incompatible, why)
        } else if self.keeps_secret && !other.keeps_secret {
            (Refusal::Secret, "a cluster secret is set here, none there".into())
        } else if !self.keeps_secret && other.keeps_secret {
            (Refusal::Secret, "no cluster secret is set here, one is there".into())
        } else {
            return None;
        };
        Some(objection)
    }
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("nothing was said within {0:?}")]
    Silent(Duration),
    #[error("whoever is there does not speak distcache's protocol")]
    Foreign,
    /// This side refuses.
    #[error("{1}")]
    Refused(Refusal, String),
    /// The other side refuses.
    #[error("it refuses this node: {0}")]
    TurnedAway(String),
}

impl HandshakeError {
    /// What to count, if this node has refused somebody.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Io(_) | Self::TurnedAway(_) => None,
            Self::Silent(_) => Some(Refusal::Silent),
            Self::Foreign => Some(Refusal::Foreign),
            Self::Refused(reason, _) => Some(*reason),
        }
    }
}

/// Who is on the other side, and what is shared with it.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) them: Hello,
    /// Where a secret is kept.
    pub(crate) session: Option<Session>,
}

/// Ciphers for this connection alone: one for each direction.
pub(crate) struct Session {
    pub(crate) sending: Cipher,
    pub(crate) receiving: Cipher,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session(redacted)")
    }
}

/// This node's part in a handshake.
#[derive(Clone, Copy)]
pub(crate) struct Party<'a> {
    pub(crate) me: &'a Hello,
    pub(crate) ring: Option<&'a KeyRing>,
    /// Of the TLS session below, so that nobody can pass on what was said in another one.
    pub(crate) binding: [u8; 32],
    /// Why the certificate that the other side has shown is not that of the node that it says it is, if so.
    pub(crate) name_error: &'a (dyn Fn(&str) -> Option<String> + Send + Sync),
}

/// What the side that answers thinks of what it has heard.
#[derive(Serialize, Deserialize)]
enum Verdict<T> {
    Accepted(T),
    Refused(String),
}

#[derive(Serialize, Deserialize)]
struct Proof {
    key: KeyId,
    proof: [u8; 32],
}

/// Takes a place for whoever has connected, if there is one.
pub(crate) type HasRoom<'a> = &'a (dyn Fn() -> bool + Send + Sync);

const CONNECTED: &str = "connected";
const ACCEPTED: &str = "accepted";

impl Party<'_> {
    /// The side that connected. Whoever calls limits the time.
    pub(crate) async fn greet<S>(&self, stream: &mut S) -> Result<Met, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let me = self.me.said(self.ring);
        send(stream, &me).await?;
        let them: Hello = accepted(receive(stream).await?)?;
        self.object(&me, &them)?;
        let Some(ring) = self.ring else { return Ok(Met { them, session: None }) };
        let (key, said) = (ring.spoken(), self.transcript(&me, &them));
        send(stream, &Proof { key: key.id, proof: key.prove(CONNECTED, &said) }).await?;
        let proof: [u8; 32] = accepted(receive(stream).await?)?;
        if !key.is_proof(&proof, ACCEPTED, &said) {
            let why = "it claims to know the cluster secret and does not";
            return Err(HandshakeError::Refused(Refusal::Secret, why.into()));
        }
        Ok(Met { them, session: Some(session(&key, &said, [CONNECTED, ACCEPTED])) })
    }

    /// The side that was connected to. Whoever calls limits the time.
    /// `has_room` is asked last, once it is clear that the other may come in.
    pub(crate) async fn receive_greeting<S>(&self, stream: &mut S, has_room: HasRoom<'_>) -> Result<Met, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let met = self.hear(stream, has_room).await;
        if let Err(HandshakeError::Refused(_, why)) = &met {
            refuse(stream, why).await;
        }
        met
    }

    async fn hear<S>(&self, stream: &mut S, has_room: HasRoom<'_>) -> Result<Met, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let them: Hello = receive(stream).await?;
        let me = self.me.said(self.ring);
        self.object(&me, &them)?;
        let Some(ring) = self.ring else {
            room(has_room)?;
            send(stream, &Verdict::Accepted(&me)).await?;
            return Ok(Met { them, session: None });
        };
        send(stream, &Verdict::Accepted(&me)).await?;
        let (said, theirs) = (self.transcript(&them, &me), receive::<_, Proof>(stream).await?);
        let known = ring.find(theirs.key).filter(|key| key.is_proof(&theirs.proof, CONNECTED, &said));
        let Some(key) = known else {
            let why = format!("node {:?} knows another cluster secret than this one", them.node);
            return Err(HandshakeError::Refused(Refusal::Secret, why));
        };
        room(has_room)?;
        send(stream, &Verdict::Accepted(key.prove(ACCEPTED, &said))).await?;
        Ok(Met { them, session: Some(session(&key, &said, [ACCEPTED, CONNECTED])) })
    }

    fn object(&self, me: &Hello, them: &Hello) -> Result<(), HandshakeError> {
        let unnamed = || (self.name_error)(&them.node).map(|why| (Refusal::Name, why));
        match me.objection(them).or_else(unnamed) {
            Some((reason, why)) => Err(HandshakeError::Refused(reason, why)),
            None => Ok(()),
        }
    }

    /// All that has been said, and where.
    fn transcript(&self, connected: &Hello, accepted: &Hello) -> Vec<u8> {
        let mut said = digest::Context::new(&digest::SHA256);
        for hello in [connected, accepted] {
            let bytes = postcard::to_stdvec(hello).unwrap_or_default();
            said.update(&(bytes.len() as u64).to_be_bytes());
            said.update(&bytes);
        }
        said.update(&self.binding);
        said.finish().as_ref().to_vec()
    }
}

fn room(has_room: HasRoom<'_>) -> Result<(), HandshakeError> {
    let crowded = || HandshakeError::Refused(Refusal::Crowded, "as many nodes are connected as there may be".into());
    has_room().then_some(()).ok_or_else(crowded)
}

fn session(key: &Key, said: &[u8], [mine, theirs]: [&str; 2]) -> Session {
    Session { sending: key.cipher(mine, said), receiving: key.cipher(theirs, said) }
}

fn accepted<T>(verdict: Verdict<T>) -> Result<T, HandshakeError> {
    match verdict {
        Verdict::Accepted(said) => Ok(said),
        Verdict::Refused(why) => Err(HandshakeError::TurnedAway(in_a_line(&why))),
    }
}

/// Whoever is there says what it likes, and it goes into this node's log: no line of its own, and no longer than one.
fn in_a_line(why: &str) -> String {
    why.chars().take(REASON_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Says why, as far as the other side listens. It is a courtesy: the connection ends either way.
pub(crate) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, why: &str) {
    let refusal = Verdict::<()>::Refused(why.into());
    if let Ok(Ok(())) = tokio::time::timeout(REFUSAL_TIMEOUT, send(stream, &refusal)).await {
        let_it_arrive(stream).await;
    }
}

/// Closing a socket that has unread bytes in it would overtake the last word that was said on it.
pub(crate) async fn let_it_arrive<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let mut unread = [0; 1024];
    let drained = async {
        stream.shutdown().await?;
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, drained).await;
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, message: &impl Serialize) -> Result<(), HandshakeError> {
    let body = postcard::to_stdvec(message).map_err(|_| HandshakeError::Foreign)?;
    let mut out = Vec::with_capacity(MAGIC.len() + 6 + body.len());
    out.extend_from_slice(MAGIC);
    for number in [VERSIONS.0, VERSIONS.1, body.len() as u16] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&body);
    stream.write_all(&out).await?;
    Ok(stream.flush().await?)
}

async fn receive<S, T>(stream: &mut S) -> Result<T, HandshakeError>
where
    S: AsyncRead + Unpin,
    T: DeserializeOwned,
{
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).await?;
    if magic != *MAGIC {
        return Err(HandshakeError::Foreign);
    }
    let (low, high) = (stream.read_u16().await?, stream.read_u16().await?);
    if low > VERSIONS.1 || high < VERSIONS.0 {
        let why = format!("protocol {} to {} is spoken here, {low} to {high} there", VERSIONS.0, VERSIONS.1);
        return Err(HandshakeError::Refused(Refusal::Version, why));
    }
    let len = stream.read_u16().await? as usize;
    if len > MESSAGE_BYTES_MAX {
        return Err(HandshakeError::Foreign);
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    decode(&body).ok_or(HandshakeError::Foreign)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    postcard::take_from_bytes(body).ok().filter(|(_, rest)| rest.is_empty()).map(|(message, _)| message)
}

#[cfg(feature = "fuzz-internals")]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
