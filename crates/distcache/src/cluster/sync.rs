//! The exchange of metadata over TCP: two nodes tell each other all they know, and both know the same afterwards.
//!
//! Knows neither gossip nor views, and not what the shared state means. The invariant: whoever knows the metadata of an
//! identity has merged the shared state that was behind it; so metadata is read before the state is exported, and the state
//! merged before the metadata is passed on. A node of another cluster learns this cluster's name and nothing else.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::codec::{Encoder, FramedRead, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SharedState;
use super::driver::Input;
use super::envelope::{MAGIC, VERSION};
use super::member::{Metadata, NAME_BYTES_MAX};
use crate::net::{TcpListener, TcpStream};

/// Largest message. Also the most that a node takes of another's shared state.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 20;
/// A greeting: magic, version and a name.
const HELLO_BYTES_MAX: usize = NAME_BYTES_MAX + 16;
/// A whole exchange, from the connection to the last byte.
pub(super) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWERED_AT_ONCE_MAX: usize = 64;
/// Addresses of other clusters that are remembered as logged.
const STRANGERS_MAX: usize = 1024;

/// The first message of each side.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    magic: [u8; 3],
    version: u8,
    cluster: String,
}

/// The second message of each side: all that it knows.
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
    Io(#[from] io::Error),
    #[error("no answer within {EXCHANGE_TIMEOUT:?}")]
    Timeout,
    #[error("the connection was closed too early")]
    Closed,
    #[error("it does not speak this protocol")]
    Foreign,
    #[error("it speaks version {0}, not {VERSION}")]
    OtherVersion(u8),
    #[error("it belongs to the cluster {0:?}")]
    OtherCluster(String),
    #[error("the message makes no sense: {0}")]
    Malformed(&'static str),
}

/// This node's side of every exchange.
pub(super) struct Exchange {
    cluster_name: String,
    members_max: usize,
    known: watch::Receiver<Arc<Known>>,
    shared: Arc<dyn SharedState>,
    strangers: Mutex<HashSet<String>>,
}

impl Exchange {
    pub(super) fn new(
        cluster_name: String,
        members_max: usize,
        known: watch::Receiver<Arc<Known>>,
        shared: Arc<dyn SharedState>,
    ) -> Self {
        Self { cluster_name, members_max, known, shared, strangers: Mutex::default() }
    }

    /// Asks the node at `addr`. Its shared state is merged when this returns.
    pub(super) async fn ask(&self, addr: SocketAddr) -> Result<Knowledge, ExchangeError> {
        if super::is_severed(self.my_addr(), addr) {
            return Err(ExchangeError::Closed);
        }
        let asked = async {
            let mut wire = Wire::new(TcpStream::connect(addr).await?);
            wire.send(&self.hello()).await?;
            self.check(wire.receive(HELLO_BYTES_MAX).await?)?;
            wire.send(&self.knowledge()?).await?;
            self.take_in(wire.receive(FRAME_BYTES_MAX).await?)
        };
        let result = timeout(EXCHANGE_TIMEOUT, asked).await.unwrap_or(Err(ExchangeError::Timeout));
        result.inspect_err(|error| self.log_stranger(error, addr.to_string()))
    }

    /// Answers a node that has connected.
    async fn answer(&self, stream: TcpStream) -> Result<Knowledge, ExchangeError> {
        let answered = async {
            let mut wire = Wire::new(stream);
            let greeted = self.check(wire.receive(HELLO_BYTES_MAX).await?);
            if !matches!(greeted, Err(ExchangeError::Foreign)) {
                wire.send(&self.hello()).await?;
            }
            greeted?;
            let theirs = self.take_in(wire.receive(FRAME_BYTES_MAX).await?)?;
            wire.send(&self.knowledge()?).await?;
            Ok(theirs)
        };
        timeout(EXCHANGE_TIMEOUT, answered).await.unwrap_or(Err(ExchangeError::Timeout))
    }

    fn my_addr(&self) -> SocketAddr {
        self.known.borrow().me.id.addr
    }

    fn hello(&self) -> Hello {
        Hello { magic: MAGIC, version: VERSION, cluster: self.cluster_name.clone() }
    }

    fn check(&self, hello: Hello) -> Result<(), ExchangeError> {
        match hello {
            hello if hello.magic != MAGIC => Err(ExchangeError::Foreign),
            hello if hello.version != VERSION => Err(ExchangeError::OtherVersion(hello.version)),
            hello if hello.cluster != self.cluster_name => Err(ExchangeError::OtherCluster(hello.cluster)),
            _ => Ok(()),
        }
    }

    /// Metadata first, then the state behind it; as much of the metadata as fits.
    fn knowledge(&self) -> Result<Knowledge, ExchangeError> {
        let known = Arc::clone(&self.known.borrow());
        let shared = self.shared.export();
        let mut knowledge = Knowledge { me: known.me.clone(), others: known.others.clone(), shared };
        while encoded(&knowledge)?.len() > FRAME_BYTES_MAX {
            if knowledge.others.is_empty() {
                tracing::warn!(bytes = knowledge.shared.len(), max = FRAME_BYTES_MAX, "the shared state is too large");
                return Err(ExchangeError::Malformed("shared state"));
            }
            knowledge.others.truncate(knowledge.others.len() / 2);
        }
        Ok(knowledge)
    }

    fn take_in(&self, theirs: Knowledge) -> Result<Knowledge, ExchangeError> {
        if theirs.others.len() > self.members_max {
            return Err(ExchangeError::Malformed("more members than the limit"));
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

    /// Once an address, with both names: a wrong cluster name is a mistake that somebody has to find.
    fn log_stranger(&self, error: &ExchangeError, address: String) {
        let (ExchangeError::OtherCluster(_) | ExchangeError::OtherVersion(_)) = error else { return };
        let mut strangers = self.strangers.lock();
        if strangers.len() < STRANGERS_MAX && strangers.insert(address.clone()) {
            tracing::warn!(address, cluster = self.cluster_name, %error, "a node of another cluster is left alone");
        }
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
        // Over the bound the connection is closed at once; the asker tries again.
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let (exchange, inputs, stop) = (Arc::clone(&exchange), inputs.clone(), stop.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(answer_one(&exchange, stream, from, &inputs)).await;
            drop(permit);
        });
    }
}

async fn answer_one(exchange: &Exchange, stream: TcpStream, from: SocketAddr, inputs: &mpsc::Sender<Input>) {
    match exchange.answer(stream).await {
        // The driver has ended: so does this node.
        Ok(theirs) => drop(inputs.send(Input::Heard(Box::new(theirs))).await),
        Err(error) => {
            // Its port changes with every connection.
            exchange.log_stranger(&error, from.ip().to_string());
            tracing::debug!(address = %from, %error, "an exchange came to nothing");
        }
    }
}

/// Length-delimited messages on a connection.
struct Wire {
    reader: FramedRead<ReadHalf<TcpStream>, LengthDelimitedCodec>,
    writer: WriteHalf<TcpStream>,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        // Small messages back and forth. Without it they are slower and still right.
        let _ = stream.set_nodelay(true);
        let (reader, writer) = tokio::io::split(stream);
        Self { reader: FramedRead::new(reader, LengthDelimitedCodec::new()), writer }
    }

    async fn send(&mut self, message: &impl Serialize) -> Result<(), ExchangeError> {
        let mut frame = BytesMut::new();
        let mut codec = LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_codec();
        codec.encode(encoded(message)?, &mut frame)?;
        Ok(self.writer.write_all(&frame).await?)
    }

    /// The next message; one that claims to be longer than `bytes_max` is refused before memory is taken for it.
    async fn receive<M: DeserializeOwned>(&mut self, bytes_max: usize) -> Result<M, ExchangeError> {
        self.reader.decoder_mut().set_max_frame_length(bytes_max);
        let frame = self.reader.next().await.ok_or(ExchangeError::Closed)??;
        decoded(&frame)
    }
}

fn encoded(message: &impl Serialize) -> Result<Bytes, ExchangeError> {
    postcard::to_stdvec(message).map(Bytes::from).map_err(|_| ExchangeError::Malformed("cannot be encoded"))
}

fn decoded<M: DeserializeOwned>(frame: &[u8]) -> Result<M, ExchangeError> {
    match postcard::take_from_bytes(frame) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(ExchangeError::Malformed("trailing bytes")),
        Err(_) => Err(ExchangeError::Malformed("cannot be decoded")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::member::Identity;
    use super::*;

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
        Exchange::new("shop".into(), 4096, known, Arc::new(Nothing(shared_bytes)))
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
        assert!(matches!(exchange(0, 0).take_in(theirs), Err(ExchangeError::Malformed("name"))));
        let crowd = Knowledge { me: metadata(1), others: vec![metadata(2); 4097], shared: Vec::new() };
        assert!(exchange(0, 0).take_in(crowd).is_err());
    }

    #[test]
    fn only_the_same_protocol_version_and_cluster_are_greeted() {
        let exchange = exchange(0, 0);
        let hello = |change: fn(&mut Hello)| {
            let mut hello = exchange.hello();
            change(&mut hello);
            exchange.check(hello)
        };
        assert!(hello(|_| {}).is_ok());
        assert!(matches!(hello(|hello| hello.magic = *b"GET"), Err(ExchangeError::Foreign)));
        assert!(matches!(hello(|hello| hello.version = 9), Err(ExchangeError::OtherVersion(9))));
        assert!(matches!(hello(|hello| hello.cluster = "b".into()), Err(ExchangeError::OtherCluster(_))));
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = decoded::<Hello>(&bytes);
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
