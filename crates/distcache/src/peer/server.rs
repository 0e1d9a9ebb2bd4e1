//! Answering peers: accept, shake hands, answer hits at once and let misses wait elsewhere.
//!
//! Knows frames and connections; what the answers are, [`Serve`] knows. The invariants: a request that waits for a load holds
//! up no other; a peer that does not read its answers is not read from; every task ends with the node.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::READ_BUFFER_BYTES;
use super::outbox::Outbox;
use super::wire::{Request, RequestId, Response, WireError, cut_frame};
use crate::error::{Error, Overload};
use crate::limits::Limits;
use crate::net::{TcpListener, TcpStream};
use crate::ring::NodeId;
use crate::trust::handshake::Hello;
use crate::trust::{Gate, Guest, Lobby, Refusal, Stream};

/// A peer that says nothing for this long is taken for gone.
const IDLE_MAX: Duration = Duration::from_secs(15);

/// What the node answers its peers.
pub(crate) trait Serve: Send + Sync + 'static {
    /// The answer, if it needs no waiting: `answer` is called with it, once, and `true` returned.
    fn serve_at_once(&self, from: NodeId, request: &Request<'_>, answer: &mut dyn FnMut(Response<'_>)) -> bool;

    /// The answer to anything else; `reply` is called once with it.
    fn serve(self: Arc<Self>, from: NodeId, request: Request<'_>, reply: Reply) -> impl Future<Output = ()> + Send;
}

/// The place where the answer to one request goes. Dropped without one (a panic, a task that ended), it refuses the request,
/// so that nobody waits for it.
pub(crate) struct Reply {
    id: RequestId,
    to: Option<Arc<Answers>>,
}

impl Reply {
    pub(crate) async fn send(mut self, response: &Response<'_>) {
        if let Some(to) = self.to.take() {
            to.outbox.until_drained().await;
            to.send(self.id, response);
        }
    }

    /// Bytes that one answer may take.
    pub(crate) fn frame_bytes_max(&self) -> usize {
        self.to.as_ref().map_or(0, |to| to.frame_bytes_max)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            let message = "the request's task ended without an answer".into();
            to.send(self.id, &Response::Refused(Error::SourcePanicked { message }));
        }
    }
}

/// The way back to one peer.
struct Answers {
    outbox: Outbox,
    /// The largest frame that the peer takes.
    frame_bytes_max: usize,
}

impl Answers {
    fn send(&self, id: RequestId, response: &Response<'_>) {
        let max = self.frame_bytes_max;
        self.outbox.push(|out| {
            let start = out.len();
            response.encode(id, out);
            let len = out.len() - start;
            if len > max {
                // The peer would close the connection, and with it every other request on it.
                out.truncate(start);
                Response::Refused(Error::ValueTooLarge { len, max }).encode(id, out);
            }
        });
    }
}

pub(crate) struct Server<S> {
    pub(crate) serve: Arc<S>,
    pub(crate) hello: Hello,
    pub(crate) gate: Arc<Gate>,
    pub(crate) limits: Limits,
    pub(crate) tasks: TaskTracker,
    /// Requests under way, which a shutdown waits for.
    pub(crate) work: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl<S: Serve> Server<S> {
    /// Accepts until stopped.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener) {
        let lobby = Lobby::new(self.limits.handshakes_max);
        let places = Arc::new(Semaphore::new(self.limits.peer_connections_max));
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            let (stream, addr) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: accepting again at once would spin.
                    tracing::warn!(%error, "cannot accept peers");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (server, visitor, places) = (self.clone(), lobby.enter(), places.clone());
            self.tasks.spawn(async move {
                let greeting = visitor.unless_shown_out(server.greet(stream, addr, places));
                let greeted = tokio::select! {
                    biased;
                    greeted = greeting => greeted,
                    () = server.stop.cancelled() => return,
                };
                drop(visitor);
                match greeted {
                    Some(Some((guest, _place))) => server.attend(guest, addr).await,
                    Some(None) => {}
                    None => server.turn_away(addr),
                }
            });
        }
    }

    /// Who it is, with its place among those that are connected.
    async fn greet(
        &self,
        stream: TcpStream,
        addr: SocketAddr,
        places: Arc<Semaphore>,
    ) -> Option<(Guest, OwnedSemaphorePermit)> {
        let place = OnceLock::new();
        let has_room = || places.clone().try_acquire_owned().is_ok_and(|taken| place.set(taken).is_ok());
        let admitted = self.gate.admit(stream, &self.hello, self.limits.handshake_timeout, &has_room).await;
        let guest = admitted.inspect_err(|error| self.gate.note(addr, error)).ok()?;
        Some((guest, place.into_inner()?))
    }

    fn turn_away(&self, addr: SocketAddr) {
        if self.gate.refusals.note(Refusal::Crowded, addr.ip()) {
            let limit = self.limits.handshakes_max;
            tracing::warn!(%addr, limit, "a connection was turned away: too many have not said who they are");
        }
    }

    async fn attend(&self, guest: Guest, addr: SocketAddr) {
        let ended = match guest.stream {
            Stream::Plain(stream) => {
                let (read, write) = stream.into_split();
                self.converse(&guest.them, read, write).await
            }
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => {
                let (read, write) = tokio::io::split(stream);
                self.converse(&guest.them, read, write).await
            }
        };
        match ended {
            Ok(()) => {}
            Err(error) if is_nonsense(&error) && self.gate.refusals.note(Refusal::Implausible, addr.ip()) => {
                tracing::warn!(%addr, %error, "what a peer asks makes no sense; its connection was closed");
            }
            Err(error) => tracing::debug!(%addr, %error, "connection from peer ended"),
        }
    }

    async fn converse<R, W>(&self, them: &Hello, read: R, mut write: W) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let session = Session {
            serve: self.serve.clone(),
            from: them.node_id(),
            answers: Arc::new(Answers {
                outbox: Outbox::default(),
                frame_bytes_max: self.limits.frame_bytes_max().min(them.frame_bytes_max as usize),
            }),
            waiting: Arc::default(),
            under_way: Arc::default(),
            under_way_max: self.limits.peer_requests_served_max,
            work: self.work.clone(),
        };
        let outcome = tokio::select! {
            biased;
            ended = session.read(read, self.limits.frame_bytes_max()) => ended,
            ended = session.answers.outbox.write_to(&mut write, || session.under_way.load(Relaxed) > 1) => ended,
            () = self.stop.cancelled() => Ok(()),
        };
        session.abort_waiting();
        outcome
    }
}

/// The bytes came, and no peer sends such.
fn is_nonsense(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<WireError>())
}

/// One peer's connection to this node.
struct Session<S> {
    serve: Arc<S>,
    from: NodeId,
    answers: Arc<Answers>,
    /// Requests that wait for something, so that the peer can cancel them.
    waiting: Arc<Mutex<HashMap<RequestId, AbortHandle>>>,
    under_way: Arc<AtomicUsize>,
    under_way_max: usize,
    work: TaskTracker,
}

impl<S: Serve> Session<S> {
    async fn read(&self, mut stream: impl AsyncRead + Unpin, frame_bytes_max: usize) -> io::Result<()> {
        let mut buffer = BytesMut::with_capacity(READ_BUFFER_BYTES);
        loop {
            let read = tokio::time::timeout(IDLE_MAX, stream.read_buf(&mut buffer)).await;
            // A peer pings when it has nothing to ask: one that is silent is gone, or cut off.
            if read.unwrap_or(Err(io::ErrorKind::TimedOut.into()))? == 0 {
                return Ok(());
            }
            while let Some(frame) = cut_frame(&mut buffer, frame_bytes_max).map_err(io::Error::other)? {
                self.handle(frame)?;
                if self.answers.outbox.is_backed_up() {
                    self.answers.outbox.until_drained().await;
                }
            }
            buffer.reserve(READ_BUFFER_BYTES / 4);
        }
    }

    fn handle(&self, frame: BytesMut) -> io::Result<()> {
        let (id, request) = Request::decode(&frame).map_err(io::Error::other)?;
        match &request {
            Request::Ping => {
                self.answers.send(id, &Response::Done);
                return Ok(());
            }
            Request::Cancel => {
                let task = self.waiting.lock().remove(&id);
                task.inspect(AbortHandle::abort);
                return Ok(());
            }
            _ => {}
        }
        if !self.serve.serve_at_once(self.from, &request, &mut |response| self.answers.send(id, &response)) {
            self.serve_later(id, frame.freeze());
        }
        Ok(())
    }

    fn serve_later(&self, id: RequestId, frame: Bytes) {
        let limit = self.under_way_max;
        if self.under_way.fetch_add(1, Relaxed) >= limit {
            self.under_way.fetch_sub(1, Relaxed);
            let busy = Error::Overloaded { what: Overload::PeerRequests, limit };
            return self.answers.send(id, &Response::Refused(busy));
        }
        let done = Done { id, waiting: self.waiting.clone(), under_way: self.under_way.clone() };
        let reply = Reply { id, to: Some(self.answers.clone()) };
        let (serve, from) = (self.serve.clone(), self.from);
        // Locked over the spawn, so that the task cannot end before it is entered here.
        let mut waiting = self.waiting.lock();
        let task = self.work.spawn(async move {
            let _done = done;
            // Decoded before, by `handle`; again here because the request borrows from its frame.
            if let Ok((_, request)) = Request::decode(&frame) {
                serve.serve(from, request, reply).await;
            }
        });
        waiting.insert(id, task.abort_handle());
    }

    fn abort_waiting(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.values().for_each(AbortHandle::abort);
    }
}

/// Ends a request's entry in the books, also when its task is aborted.
struct Done {
    id: RequestId,
    waiting: Arc<Mutex<HashMap<RequestId, AbortHandle>>>,
    under_way: Arc<AtomicUsize>,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.id);
        self.under_way.fetch_sub(1, Relaxed);
    }
}
