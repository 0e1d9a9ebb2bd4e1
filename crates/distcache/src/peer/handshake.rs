//! The first words on a connection between peers: who is there, and do both speak the same.
//!
//! Knows nothing of what is asked later. The invariant: no request is read from, and none sent to, a peer of another cluster,
//! another ring or another protocol; a refusal says why in words.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::ring::{NodeId, SLOT_BITS};

const MAGIC: &[u8; 8] = b"distcach";
const VERSION: u16 = 1;
/// No setting leads to frames smaller than this.
const FRAME_BYTES_MIN: u64 = 64 << 10;
const HELLO_BYTES_MAX: usize = 4 << 10;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Oldest and newest protocol spoken.
    pub(crate) versions: (u16, u16),
    /// Reserved: what is spoken beyond the version.
    pub(crate) features: u64,
    pub(crate) cluster: String,
    pub(crate) slot_bits: u8,
    pub(crate) frame_bytes_max: u64,
    pub(crate) node: String,
    pub(crate) incarnation: u64,
}

impl Hello {
    pub(crate) fn new(cluster: &str, node: &str, incarnation: u64, frame_bytes_max: usize) -> Self {
        Self {
            versions: (VERSION, VERSION),
            features: 0,
            cluster: cluster.into(),
            slot_bits: SLOT_BITS as u8,
            frame_bytes_max: frame_bytes_max as u64,
            node: node.into(),
            incarnation,
        }
    }

    pub(crate) fn node_id(&self) -> NodeId {
        NodeId::of(&self.node)
    }

    /// Why these two cannot talk, if they cannot.
    fn objection(&self, other: &Self) -> Option<String> {
        if self.cluster != other.cluster {
            return Some(format!("this is cluster {:?}, not {:?}", self.cluster, other.cluster));
        }
        if self.versions.0 > other.versions.1 || other.versions.0 > self.versions.1 {
            let ((low, high), (their_low, their_high)) = (self.versions, other.versions);
            return Some(format!("protocol {low} to {high} is spoken here, {their_low} to {their_high} there"));
        }
        if other.frame_bytes_max < FRAME_BYTES_MIN {
            return Some(format!("frames of {} bytes are too small", other.frame_bytes_max));
        }
        if self.slot_bits != other.slot_bits {
            return Some(format!("the ring has 2^{} slots here, 2^{} there", self.slot_bits, other.slot_bits));
        }
        None
    }
}

/// Why a connection was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("nothing was said within {0:?}")]
    Silent(Duration),
    #[error("whoever is there does not speak distcache's peer protocol")]
    Foreign,
    #[error("{0}")]
    Refused(String),
}

#[derive(Serialize, Deserialize)]
enum Verdict {
    Welcome(Hello),
    Refused(String),
}

/// The side that connected: says hello, hears the verdict.
pub(crate) async fn greet<S>(stream: &mut S, me: &Hello, limit: Duration) -> Result<Hello, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    within(limit, async {
        send(stream, me).await?;
        match receive(stream).await? {
            Verdict::Welcome(them) => me.objection(&them).map_or(Ok(them), |why| Err(HandshakeError::Refused(why))),
            Verdict::Refused(why) => Err(HandshakeError::Refused(why)),
        }
    })
    .await
}

/// The side that was connected to: hears hello, gives the verdict.
pub(crate) async fn receive_greeting<S>(stream: &mut S, me: &Hello, limit: Duration) -> Result<Hello, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    within(limit, async {
        let them: Hello = receive(stream).await?;
        let objection = me.objection(&them);
        let verdict = objection.clone().map_or_else(|| Verdict::Welcome(me.clone()), Verdict::Refused);
        send(stream, &verdict).await?;
        objection.map_or(Ok(them), |why| Err(HandshakeError::Refused(why)))
    })
    .await
}

async fn within<T>(
    limit: Duration,
    talk: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(limit, talk).await.unwrap_or(Err(HandshakeError::Silent(limit)))
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, message: &impl Serialize) -> Result<(), HandshakeError> {
    let body = postcard::to_stdvec(message).map_err(|_| HandshakeError::Foreign)?;
    let mut out = BytesMut::with_capacity(MAGIC.len() + 2 + body.len());
    out.put_slice(MAGIC);
    out.put_u16(body.len() as u16);
    out.put_slice(&body);
    Ok(stream.write_all(&out).await?)
}

async fn receive<S, T>(stream: &mut S) -> Result<T, HandshakeError>
where
    S: AsyncRead + Unpin,
    T: for<'de> Deserialize<'de>,
{
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).await?;
    if magic != *MAGIC {
        return Err(HandshakeError::Foreign);
    }
    let len = stream.read_u16().await? as usize;
    if len > HELLO_BYTES_MAX {
        return Err(HandshakeError::Foreign);
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    postcard::from_bytes(&Bytes::from(body)).map_err(|_| HandshakeError::Foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn hello(cluster: &str) -> Hello {
        Hello::new(cluster, "a", 1, 1 << 20)
    }

    async fn meet(one: Hello, two: Hello) -> (Result<Hello, HandshakeError>, Result<Hello, HandshakeError>) {
        let (mut here, mut there) = tokio::io::duplex(64);
        tokio::join!(greet(&mut here, &one, LIMIT), receive_greeting(&mut there, &two, LIMIT))
    }

    #[tokio::test]
    async fn two_of_a_kind_learn_who_the_other_is() {
        let other = Hello { node: "b".into(), ..hello("shop") };
        let (here, there) = meet(hello("shop"), other.clone()).await;
        assert_eq!((here.unwrap(), there.unwrap()), (other, hello("shop")));
    }

    #[tokio::test]
    async fn another_cluster_is_refused_and_both_sides_are_told_why() {
        let (here, there) = meet(hello("shop"), hello("bank")).await;
        for error in [here.unwrap_err(), there.unwrap_err()] {
            assert_eq!(error.to_string(), "this is cluster \"bank\", not \"shop\"");
        }
    }

    #[tokio::test]
    async fn a_newer_protocol_without_common_version_is_refused() {
        let (here, _) = meet(Hello { versions: (7, 9), ..hello("shop") }, hello("shop")).await;
        assert_eq!(here.unwrap_err().to_string(), "protocol 1 to 1 is spoken here, 7 to 9 there");
    }

    #[tokio::test]
    async fn a_stranger_is_told_from_a_peer() {
        let (mut here, mut there) = tokio::io::duplex(64);
        here.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let error = receive_greeting(&mut there, &hello("shop"), LIMIT).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Foreign));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_does_not_wait_for_ever() {
        let (_here, mut there) = tokio::io::duplex(64);
        let error = receive_greeting(&mut there, &hello("shop"), LIMIT).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Silent(LIMIT)));
    }
}
