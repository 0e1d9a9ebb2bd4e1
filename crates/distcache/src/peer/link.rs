//! One peer: connect when needed, eject when it fails, probe it off the path of requests.
//!
//! Knows streams and their health, nothing of keys. The invariant: no request waits for a peer longer than the hop budget to be
//! sent, and none at all while the peer is known to fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, NotSent, OnAnswer};
use super::handshake::{self, HandshakeError, Hello};
use super::wire::{Request, RequestId, Response};
use crate::error::{Error, PeerFailure};
use crate::limits::Limits;
use crate::net::{Clock, TcpStream};
use crate::ring::NodeId;

/// Pause between two attempts to reach an ejected peer.
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// What all links of a node share.
pub(crate) struct LinkSettings {
    pub(crate) hello: Hello,
    pub(crate) limits: Limits,
    pub(crate) hop_budget: Duration,
    pub(crate) clock: Clock,
    pub(crate) tasks: TaskTracker,
}

pub(crate) struct Link {
    id: NodeId,
    name: String,
    addr: SocketAddr,
    settings: Arc<LinkSettings>,
    connection: ArcSwapOption<Connection>,
    connecting: tokio::sync::Mutex<()>,
    ejected: AtomicBool,
    closed: CancellationToken,
}

impl Link {
    /// Connects at the first request. `closed` ends the link and what runs over it.
    pub(crate) fn new(name: String, addr: SocketAddr, settings: Arc<LinkSettings>, closed: CancellationToken) -> Self {
        Self {
            id: NodeId::of(&name),
            name,
            addr,
            settings,
            connection: ArcSwapOption::empty(),
            connecting: tokio::sync::Mutex::default(),
            ejected: AtomicBool::new(false),
            closed,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    pub(crate) fn error(&self, reason: PeerFailure) -> Error {
        Error::PeerUnavailable { peer: self.name.clone(), reason }
    }

    /// Asks now if there is a connection with room, else waits for both. Where it cannot be asked, `on_answer` is told too.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        request: &Request<'_>,
        mut on_answer: OnAnswer,
    ) -> Result<(Arc<Connection>, RequestId), PeerFailure> {
        loop {
            let connection = match self.connection().await {
                Ok(connection) => connection,
                Err(failure) => {
                    on_answer(Err(failure.clone()));
                    return Err(failure);
                }
            };
            match connection.ask(request, on_answer) {
                Ok(id) => return Ok((connection, id)),
                Err(NotSent::Full(back)) => {
                    on_answer = back;
                    connection.until_room().await;
                }
                Err(NotSent::Closed(on_answer, failure)) => {
                    on_answer(Err(failure.clone()));
                    return Err(failure);
                }
            }
        }
    }

    /// Asks and waits; `read` takes from the answer what the caller wants. A caller that goes away cancels the request.
    pub(crate) async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        request: Request<'_>,
        limit: Duration,
        read: impl FnOnce(Response<'_>) -> Option<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (tell, answer) = oneshot::channel();
        let on_answer: OnAnswer = Box::new(move |outcome| drop(tell.send(outcome.map(read))));
        let asked = async {
            let (connection, id) = self.ask(&request, on_answer).await?;
            let mut cancel = CancelOnDrop(Some((connection, id)));
            let answer = answer.await.unwrap_or(Err(PeerFailure::Disconnected));
            cancel.0 = None;
            answer
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => {
                Err(Error::Protocol { peer: self.name.clone(), reason: "an answer to another question".into() })
            }
            Ok(Err(failure)) => Err(self.error(failure)),
            Err(_) => Err(Error::Timeout { limit }),
        }
    }

    /// The connection, if it stands.
    pub(crate) fn standing(&self) -> Option<Arc<Connection>> {
        self.connection.load_full().filter(|connection| !connection.is_closed())
    }

    async fn connection(self: &Arc<Self>) -> Result<Arc<Connection>, PeerFailure> {
        if let Some(connection) = self.standing() {
            return Ok(connection);
        }
        if self.ejected.load(Relaxed) {
            return Err(PeerFailure::Ejected);
        }
        let _turn = self.connecting.lock().await;
        if let Some(connection) = self.standing() {
            return Ok(connection);
        }
        if self.ejected.load(Relaxed) {
            return Err(PeerFailure::Ejected);
        }
        let connected = self.connect().await;
        if connected.is_err() {
            self.eject();
        }
        connected
    }

    async fn connect(&self) -> Result<Arc<Connection>, PeerFailure> {
        let settings = &self.settings;
        let connect = async {
            let mut stream = TcpStream::connect(self.addr).await?;
            stream.set_nodelay(true)?;
            let them = handshake::greet(&mut stream, &settings.hello, settings.hop_budget).await?;
            if them.node != self.name {
                let why = format!("{} is {:?}, not {:?}", self.addr, them.node, self.name);
                return Err(HandshakeError::Refused(why));
            }
            Ok((stream, them))
        };
        let connected = tokio::select! {
            connected = tokio::time::timeout(settings.hop_budget, connect) => connected,
            () = self.closed.cancelled() => return Err(PeerFailure::NotConnected),
        };
        match connected {
            Ok(Ok((stream, them))) => Ok(self.start(stream, &them)),
            Ok(Err(HandshakeError::Refused(why))) => {
                tracing::warn!(peer = self.name, addr = %self.addr, why, "a peer refused the connection");
                Err(PeerFailure::Refused(why))
            }
            Ok(Err(error)) => {
                tracing::debug!(peer = self.name, addr = %self.addr, %error, "cannot connect to peer");
                Err(PeerFailure::NotConnected)
            }
            Err(_) => Err(PeerFailure::NotConnected),
        }
    }

    fn start(&self, stream: TcpStream, them: &Hello) -> Arc<Connection> {
        let settings = &self.settings;
        let frame_bytes_max = settings.limits.frame_bytes_max();
        let connection = Arc::new(Connection::new(
            settings.clock,
            settings.limits.peer_requests_max,
            frame_bytes_max.min(them.frame_bytes_max as usize),
            self.closed.child_token(),
        ));
        let (read, write) = stream.into_split();
        settings.tasks.spawn(connection.clone().run(read, write, settings.hop_budget, frame_bytes_max));
        self.connection.store(Some(connection.clone()));
        connection
    }

    /// Takes the peer off the path of requests until a probe reaches it.
    fn eject(self: &Arc<Self>) {
        if self.ejected.swap(true, Relaxed) || self.closed.is_cancelled() {
            return;
        }
        tracing::debug!(peer = self.name, addr = %self.addr, "peer ejected until a probe reaches it");
        let link = self.clone();
        self.settings.tasks.spawn(async move {
            while !link.closed.is_cancelled() {
                tokio::select! {
                    () = tokio::time::sleep(PROBE_PAUSE) => {}
                    () = link.closed.cancelled() => return,
                }
                if link.connect().await.is_ok() {
                    link.ejected.store(false, Relaxed);
                    tracing::debug!(peer = link.name, "peer reached again");
                    return;
                }
            }
        });
    }
}

struct CancelOnDrop(Option<(Arc<Connection>, RequestId)>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some((connection, id)) = self.0.take() {
            connection.cancel(id);
        }
    }
}
