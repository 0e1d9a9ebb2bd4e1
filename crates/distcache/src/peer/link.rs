//! One peer: connect when needed, eject when it fails, probe it off the path of requests.
//!
//! Knows streams and their health, nothing of keys. The invariant: no request waits longer than the hop budget for a connection,
//! and none at all while the peer is known to fail; connections belong to the engine, not to whoever asked first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, NotSent, OnAnswer};
use super::wire::{Frame, Request, RequestId, Response};
use crate::error::{Error, Overload, PeerFailure};
use crate::limits::Limits;
use crate::net::{Clock, Moment};
use crate::ring::NodeId;
use crate::trust::handshake::{HandshakeError, Hello};
use crate::trust::{Gate, Guest, Refusal, Stream};

/// Pause between two attempts to reach an ejected peer.
const PROBE_PAUSE: Duration = Duration::from_millis(100);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(30);

/// What all links of a node share.
pub(crate) struct LinkSettings {
    pub(crate) hello: Hello,
    pub(crate) gate: Arc<Gate>,
    pub(crate) limits: Limits,
    pub(crate) hop_budget: Duration,
    pub(crate) clock: Clock,
    pub(crate) tasks: TaskTracker,
    pub(crate) runtime: Handle,
    /// Told of each peer that a connection to has been made.
    pub(crate) reached: mpsc::UnboundedSender<NodeId>,
}

pub(crate) struct Link {
    id: NodeId,
    name: String,
    addr: SocketAddr,
    settings: Arc<LinkSettings>,
    connection: ArcSwapOption<Connection>,
    connecting: tokio::sync::Mutex<()>,
    ejected: AtomicBool,
    /// Questions that wait for a connection or for room on it.
    waiting: AtomicUsize,
    closed: CancellationToken,
    /// Asked so far.
    #[cfg(test)]
    pub(crate) questions: AtomicUsize,
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
            waiting: AtomicUsize::new(0),
            closed,
            #[cfg(test)]
            questions: AtomicUsize::new(0),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// When something came from it last, or a connection was made; `None`: never.
    pub(crate) fn heard_at(&self) -> Option<Moment> {
        self.connection.load().as_ref().map(|connection| connection.heard_at())
    }

    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    pub(crate) fn error(&self, reason: PeerFailure) -> Error {
        Error::PeerUnavailable { peer: self.name.clone(), reason }
    }

    /// Asks: now if there is a connection with room, else from a task of the engine's, so that no caller's going away takes
    /// the question with it. `on_answer` is told in any case.
    pub(crate) fn ask(
        self: &Arc<Self>,
        request: &Request<'_>,
        on_answer: OnAnswer,
    ) -> Option<(Arc<Connection>, RequestId)> {
        #[cfg(test)]
        self.questions.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let urgent = matches!(request, Request::Invalidate { .. });
        let mut on_answer = on_answer;
        if let Some(connection) = self.standing() {
            match connection.ask(urgent, on_answer, |id, out| request.encode(id, out)) {
                Ok(id) => return Some((connection, id)),
                Err(NotSent::Full(back) | NotSent::Closed(back, PeerFailure::Disconnected | PeerFailure::Silent)) => {
                    on_answer = back;
                }
                Err(NotSent::Closed(back, failure)) => {
                    back(Err(failure));
                    return None;
                }
            }
        }
        if self.is_ejected() {
            on_answer(Err(PeerFailure::Ejected));
            return None;
        }
        self.ask_later(Frame::of(request), urgent, on_answer);
        None
    }

    fn ask_later(self: &Arc<Self>, frame: Frame, urgent: bool, on_answer: OnAnswer) {
        let limit = self.settings.limits.peer_requests_waiting_max;
        if self.waiting.fetch_add(1, Relaxed) >= limit && !urgent {
            self.waiting.fetch_sub(1, Relaxed);
            return on_answer(Ok(Response::Refused(Error::Overloaded { what: Overload::PeerRequests, limit })));
        }
        let link = self.clone();
        self.spawn(async move {
            let _waiting = Waiting(link.clone());
            link.ask_when_possible(&frame, urgent, on_answer).await;
        });
    }

    async fn ask_when_possible(self: &Arc<Self>, frame: &Frame, urgent: bool, mut on_answer: OnAnswer) {
        loop {
            let connection = match self.connection().await {
                Ok(connection) => connection,
                Err(failure) => return on_answer(Err(failure)),
            };
            match connection.ask(urgent, on_answer, |id, out| frame.append(id, out)) {
                Ok(_) => return,
                Err(NotSent::Full(back)) => {
                    on_answer = back;
                    connection.until_room().await;
                }
                Err(NotSent::Closed(back, failure)) => return back(Err(failure)),
            }
        }
    }

    /// On the engine's own runtime, whichever the caller is on: the connection serves others after that one has ended.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.settings.tasks.spawn_on(task, &self.settings.runtime);
    }

    /// Asks and waits; `read` takes from the answer what the caller wants. A caller that goes away
    /// gives up a load, but never a write half-way.
    pub(crate) async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        request: Request<'_>,
        limit: Duration,
        read: impl FnOnce(Response<'_>) -> Option<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (tell, answer) = oneshot::channel();
        let on_answer: OnAnswer = Box::new(move |outcome| drop(tell.send(outcome.map(read))));
        let is_load = matches!(request, Request::Refresh { .. });
        let asked = self.ask(&request, on_answer);
        let mut cancel = CancelOnDrop(asked.filter(|_| is_load));
        let answer = tokio::time::timeout(limit, answer).await;
        let Ok(answer) = answer else { return Err(Error::Timeout { limit }) };
        cancel.0 = None;
        match answer.unwrap_or(Err(PeerFailure::Disconnected)) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => {
                Err(Error::Protocol { peer: self.name.clone(), reason: "an answer to another question".into() })
            }
            Err(failure) => Err(self.error(failure)),
        }
    }

    /// The same for what is answered by its being done: an error says that it was refused, or not heard.
    pub(crate) async fn call_done(self: &Arc<Self>, request: Request<'_>, limit: Duration) -> Result<(), Error> {
        let done = |response: Response<'_>| match response {
            Response::Done => Some(Ok(())),
            Response::Refused(error) => Some(Err(error)),
            _ => None,
        };
        self.call(request, limit, done).await?
    }

    fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// Whether there is a connection.
    pub(crate) fn stands(&self) -> bool {
        self.standing().is_some()
    }

    /// The connection, if it stands.
    fn standing(&self) -> Option<Arc<Connection>> {
        self.connection.load_full().filter(|connection| !connection.is_closed())
    }

    async fn connection(self: &Arc<Self>) -> Result<Arc<Connection>, PeerFailure> {
        if let Some(connection) = self.standing() {
            return Ok(connection);
        }
        if self.is_ejected() {
            return Err(PeerFailure::Ejected);
        }
        let _turn = self.connecting.lock().await;
        if let Some(connection) = self.standing() {
            return Ok(connection);
        }
        if self.is_ejected() {
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
        let greeting = settings.gate.connect(self.addr, Some(&self.name), &settings.hello, settings.hop_budget);
        let connected = tokio::select! {
            biased;
            connected = greeting => connected.and_then(|guest| self.expected(guest)),
            () = self.closed.cancelled() => return Err(PeerFailure::NotConnected),
        };
        match connected {
            Ok(guest) => Ok(self.start(guest.stream, &guest.them)),
            Err(error @ (HandshakeError::Refused(..) | HandshakeError::TurnedAway(_))) => {
                settings.gate.note(self.addr, &error);
                Err(PeerFailure::Refused(error.to_string()))
            }
            Err(error) => {
                tracing::debug!(peer = self.name, addr = %self.addr, %error, "cannot connect to peer");
                Err(PeerFailure::NotConnected)
            }
        }
    }

    fn expected(&self, guest: Guest) -> Result<Guest, HandshakeError> {
        if guest.them.node == self.name {
            return Ok(guest);
        }
        let why = format!("{} is {:?}, not {:?}", self.addr, guest.them.node, self.name);
        Err(HandshakeError::Refused(Refusal::Name, why))
    }

    fn start(&self, stream: Stream, them: &Hello) -> Arc<Connection> {
        let settings = &self.settings;
        let frame_bytes_max = settings.limits.frame_bytes_max();
        let connection = Arc::new(Connection::new(
            settings.clock,
            settings.limits.peer_requests_max,
            frame_bytes_max.min(them.frame_bytes_max as usize),
            self.closed.child_token(),
        ));
        match stream {
            Stream::Plain(stream) => {
                let (read, write) = stream.into_split();
                self.spawn(connection.clone().run(read, write, settings.hop_budget, frame_bytes_max));
            }
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => {
                let (read, write) = tokio::io::split(stream);
                self.spawn(connection.clone().run(read, write, settings.hop_budget, frame_bytes_max));
            }
        }
        self.connection.store(Some(connection.clone()));
        // Nobody listens in a node that stops.
        let _ = settings.reached.send(self.id);
        connection
    }

    /// Takes the peer off the path of requests until a probe reaches it.
    fn eject(self: &Arc<Self>) {
        if self.ejected.swap(true, Relaxed) || self.closed.is_cancelled() {
            return;
        }
        tracing::debug!(peer = self.name, addr = %self.addr, "peer ejected until a probe reaches it");
        let link = self.clone();
        self.spawn(async move {
            let mut pause = PROBE_PAUSE;
            while !link.closed.is_cancelled() {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(pause) => {}
                    () = link.closed.cancelled() => return,
                }
                match link.connect().await {
                    Ok(_) => {
                        link.ejected.store(false, Relaxed);
                        tracing::debug!(peer = link.name, "peer reached again");
                        return;
                    }
                    // A refusal is a matter of configuration: it will not pass by itself, and each one is logged.
                    Err(PeerFailure::Refused(_)) => pause = (pause * 2).min(REFUSED_PAUSE_MAX),
                    Err(_) => {}
                }
            }
        });
    }
}

struct Waiting(Arc<Link>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
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
