//! The exchange of metadata over TCP: two nodes tell each other all they know, and both know the same afterwards.
//!
//! Knows neither gossip nor views, and not what the shared state means. The invariant: whoever knows the metadata of an
//! identity has merged the shared state that was behind it; so metadata is read before the state is exported, and the state
//! merged before the metadata is passed on. Nothing is told to, or taken from, anybody whom the gate has not let in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::codec::{Encoder, FramedRead, LengthDelimitedCodec, LengthDelimitedCodecError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SharedState;
use super::driver::Input;
use super::member::Metadata;
use crate::limits::Limits;
use crate::net::{TcpListener, TcpStream};
use crate::trust::handshake::{HandshakeError, Hello, Session};
use crate::trust::secret::Cipher;
use crate::trust::{Gate, Guest, Lobby, Refusal, Stream, Visitor};

/// Largest message. Also the most that a node takes of another's shared state.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 20;
/// A whole exchange, from the connection to the last byte.
pub(super) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWERED_AT_ONCE_MAX: usize = 64;

/// The message of each side: all that it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Knowledge {
    pub(super) me: Metadata,
    pub(super) others: Vec<Metadata>,
    shared: Vec<u8>,
}

/// The metadata that an exchange hands out, always the newest.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) me: Metadata,
    pub(super) others: Vec<Metadata>,
}

/// Why an exchange came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("no answer within {EXCHANGE_TIMEOUT:?}")]
    Timeout,
    #[error("the connection was closed too early")]
    Closed,
    #[error("a message was damaged or forged")]
    Forged,
    #[error("the message makes no sense: {0}")]
    Malformed(&'static str),
}

impl ExchangeError {
    /// The bytes came, and no honest node sends such.
    fn is_nonsense(&self) -> bool {
        match self {
            Self::Forged | Self::Malformed(_) => true,
            Self::Io(error) => error.get_ref().is_some_and(|cause| cause.is::<LengthDelimitedCodecError>()),
            Self::Handshake(_) | Self::Timeout | Self::Closed => false,
        }
    }
}

/// This node's side of every exchange.
pub(super) struct Exchange {
    pub(super) gate: Arc<Gate>,
    pub(super) hello: Hello,
    pub(super) limits: Limits,
    pub(super) known: watch::Receiver<Arc<Known>>,
    pub(super) shared: Arc<dyn SharedState>,
}

impl Exchange {
    /// Asks the node at `addr`. Its shared state is merged when this returns.
    pub(super) async fn ask(&self, addr: SocketAddr) -> Result<Knowledge, ExchangeError> {
        if super::is_severed(self.my_addr(), addr) {
            return Err(ExchangeError::Closed);
        }
        let asked = async {
            let mut wire = Wire::new(self.gate.connect(addr, None, &self.hello, EXCHANGE_TIMEOUT).await?);
            wire.send(&self.knowledge()?).await?;
            let theirs = wire.receive().await?;
            self.take_in(theirs, &wire.node)
        };
        let result = timeout(EXCHANGE_TIMEOUT, asked).await.unwrap_or(Err(ExchangeError::Timeout));
        result.inspect_err(|error| self.note(addr, error))
    }

    /// Answers a node that has connected and said who it is.
    async fn answer(&self, guest: Guest) -> Result<Knowledge, ExchangeError> {
        let answered = async {
            let mut wire = Wire::new(guest);
            let theirs = wire.receive().await?;
            let theirs = self.take_in(theirs, &wire.node)?;
            wire.send(&self.knowledge()?).await?;
            Ok(theirs)
        };
        timeout(EXCHANGE_TIMEOUT, answered).await.unwrap_or(Err(ExchangeError::Timeout))
    }

    fn note(&self, addr: SocketAddr, error: &ExchangeError) {
        match error {
            ExchangeError::Handshake(error) => self.gate.note(addr, error),
            error if error.is_nonsense() && self.gate.refusals.note(Refusal::Implausible, addr.ip()) => {
                tracing::warn!(%addr, %error, "what a node says of the cluster was refused");
            }
            error => tracing::debug!(%addr, %error, "an exchange came to nothing"),
        }
    }

    fn turn_away(&self, addr: SocketAddr, what: &str, limit: usize) {
        if self.gate.refusals.note(Refusal::Crowded, addr.ip()) {
            tracing::warn!(%addr, limit, "a connection was turned away: {what}");
        }
    }

    fn my_addr(&self) -> SocketAddr {
        self.known.borrow().me.id.addr
    }

    /// Metadata first, then the state behind it; as much of the metadata as fits.
    fn knowledge(&self) -> Result<Knowledge, ExchangeError> {
        let known = Arc::clone(&self.known.borrow());
        let shared = self.shared.export();
        let mut knowledge = Knowledge { me: known.me.clone(), others: known.others.clone(), shared };
        while encoded(&knowledge)?.len() + Cipher::OVERHEAD_BYTES > FRAME_BYTES_MAX {
            if knowledge.others.is_empty() {
                tracing::warn!(bytes = knowledge.shared.len(), max = FRAME_BYTES_MAX, "the shared state is too large");
                return Err(ExchangeError::Malformed("shared state"));
            }
            knowledge.others.truncate(knowledge.others.len() / 2);
        }
        Ok(knowledge)
    }

    /// `node` is who the other side has shown to be.
    fn take_in(&self, theirs: Knowledge, node: &str) -> Result<Knowledge, ExchangeError> {
        if theirs.others.len() > self.limits.members_max {
            return Err(ExchangeError::Malformed("more members than the limit"));
        }
        if theirs.me.name != node {
            return Err(ExchangeError::Malformed("it speaks for another node"));
        }
        if super::is_severed(self.my_addr(), theirs.me.id.addr) {
            return Err(ExchangeError::Closed);
        }
        for metadata in theirs.others.iter().chain([&theirs.me]) {
            metadata.check().map_err(ExchangeError::Malformed)?;
        }
        self.shared.merge(&theirs.shared);
        Ok(theirs)
    }
}

/// Answers exchanges until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    exchange: Arc<Exchange>,
    inputs: mpsc::Sender<Input>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let lobby = Lobby::new(exchange.limits.handshakes_max);
    let permits = Arc::new(Semaphore::new(ANSWERED_AT_ONCE_MAX));
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (exchange, inputs, stop) = (Arc::clone(&exchange), inputs.clone(), stop.clone());
        let (visitor, permits) = (lobby.enter(), Arc::clone(&permits));
        tasks.spawn(async move {
            let answered = Box::pin(answer_one(&exchange, stream, from, visitor, &permits));
            if let Some(Some(theirs)) = stop.run_until_cancelled(answered).await {
                // It fails when the driver has ended: so does this node.
                drop(inputs.send(Input::Heard(Box::new(theirs))).await);
            }
        });
    }
}

async fn answer_one(
    exchange: &Exchange,
    stream: TcpStream,
    from: SocketAddr,
    visitor: Visitor,
    permits: &Semaphore,
) -> Option<Knowledge> {
    let admitted = Box::pin(exchange.gate.admit(stream, &exchange.hello, exchange.limits.handshake_timeout, &|| true));
    let Some(admitted) = visitor.unless_shown_out(admitted).await else {
        exchange.turn_away(from, "too many have not said who they are", exchange.limits.handshakes_max);
        return None;
    };
    drop(visitor);
    let guest = admitted.inspect_err(|error| exchange.gate.note(from, error)).ok()?;
    let Ok(_permit) = permits.try_acquire() else {
        // The asker tries again.
        exchange.turn_away(from, "too many are being answered", ANSWERED_AT_ONCE_MAX);
        return None;
    };
    exchange.answer(guest).await.inspect_err(|error| exchange.note(from, error)).ok()
}

/// Length-delimited messages on a connection, sealed where a secret is kept.
struct Wire {
    node: String,
    session: Option<Session>,
    /// Of each direction; a message out of turn does not open.
    sent: u64,
    received: u64,
    reader: FramedRead<ReadHalf<Stream>, LengthDelimitedCodec>,
    writer: WriteHalf<Stream>,
}

impl Wire {
    fn new(guest: Guest) -> Self {
        let (reader, writer) = tokio::io::split(guest.stream);
        let codec = LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_codec();
        let reader = FramedRead::new(reader, codec);
        Self { node: guest.them.node, session: guest.session, sent: 0, received: 0, reader, writer }
    }

    async fn send(&mut self, message: &impl Serialize) -> Result<(), ExchangeError> {
        let mut body = encoded(message)?;
        if let Some(session) = &self.session {
            session.sending.seal(self.sent, b"", &mut body, 0);
        }
        self.sent += 1;
        let mut frame = BytesMut::new();
        let mut codec = LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_codec();
        codec.encode(Bytes::from(body), &mut frame)?;
        self.writer.write_all(&frame).await?;
        Ok(self.writer.flush().await?)
    }

    /// The next message; one that claims to be longer than the limit is refused before memory is taken for it.
    async fn receive<M: DeserializeOwned>(&mut self) -> Result<M, ExchangeError> {
        let mut frame = self.reader.next().await.ok_or(ExchangeError::Closed)??;
        let body: &[u8] = match &self.session {
            Some(session) => session.receiving.open(self.received, b"", &mut frame).ok_or(ExchangeError::Forged)?,
            None => &frame,
        };
        self.received += 1;
        decoded(body)
    }
}

fn encoded(message: &impl Serialize) -> Result<Vec<u8>, ExchangeError> {
    postcard::to_stdvec(message).map_err(|_| ExchangeError::Malformed("cannot be encoded"))
}

fn decoded<M: DeserializeOwned>(frame: &[u8]) -> Result<M, ExchangeError> {
    match postcard::take_from_bytes(frame) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(ExchangeError::Malformed("trailing bytes")),
        Err(_) => Err(ExchangeError::Malformed("cannot be decoded")),
    }
}

#[cfg(feature = "fuzz-internals")]
pub(super) mod fuzz;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::member::{Identity, NAME_BYTES_MAX};
    use super::*;
    use crate::trust::handshake::Topic;

    struct Nothing(usize);

    impl SharedState for Nothing {
        fn export(&self) -> Vec<u8> {
            vec![7; self.0]
        }
        fn merge(&self, _: &[u8]) {}
    }

    fn metadata(port: u16) -> Metadata {
        let addr = ([127, 0, 0, 1], port).into();
        Metadata::joining(Identity { addr, epoch: 1, meta_version: 2 }, format!("n{port}"), 1, addr)
    }

    fn exchange(others: usize, shared_bytes: usize) -> Exchange {
        let others = (1..=others).map(|port| metadata(port as u16 + 1)).collect();
        let (_, known) = watch::channel(Arc::new(Known { me: metadata(1), others }));
        Exchange {
            gate: Arc::default(),
            hello: Hello::new(Topic::Exchange, "shop", "n1", 1, FRAME_BYTES_MAX),
            limits: Limits::default(),
            known,
            shared: Arc::new(Nothing(shared_bytes)),
        }
    }

    #[test]
    fn knowledge_survives_the_wire() {
        let knowledge = exchange(3, 10).knowledge().unwrap();
        assert_eq!(decoded::<Knowledge>(&encoded(&knowledge).unwrap()).unwrap(), knowledge);
    }

    #[test]
    fn too_much_knowledge_is_cut_down_to_a_frame_and_the_shared_state_comes_first() {
        let cut = exchange(4000, FRAME_BYTES_MAX - 60_000).knowledge().unwrap();
        assert_eq!(cut.shared.len(), FRAME_BYTES_MAX - 60_000);
        assert!(!cut.others.is_empty() && cut.others.len() < 4000);
        assert!(exchange(1, FRAME_BYTES_MAX).knowledge().is_err());
    }

    #[test]
    fn metadata_out_of_its_limits_is_not_taken_in() {
        let mut theirs = exchange(1, 0).knowledge().unwrap();
        theirs.others[0].name = "n".repeat(NAME_BYTES_MAX + 1);
        assert!(matches!(exchange(0, 0).take_in(theirs, "n1"), Err(ExchangeError::Malformed("name"))));
        let crowd = Knowledge { me: metadata(1), others: vec![metadata(2); 4097], shared: Vec::new() };
        assert!(exchange(0, 0).take_in(crowd, "n1").is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            if let Ok(knowledge) = decoded::<Knowledge>(&bytes) {
                prop_assert!(encoded(&knowledge).is_ok());
            }
        }

        #[test]
        fn a_damaged_message_is_an_error_or_another_message(at: prop::sample::Index, byte: u8, len: prop::sample::Index) {
            let mut bytes = encoded(&exchange(3, 10).knowledge().unwrap()).unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decoded::<Knowledge>(&bytes);
            bytes.truncate(len.index(bytes.len()));
            prop_assert!(decoded::<Knowledge>(&bytes).is_err());
        }
    }
}
