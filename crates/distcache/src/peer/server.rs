//! Answering peers: accept, shake hands, answer hits at once and let misses wait elsewhere.
//!
//! Knows frames and connections; what the answers are, [`Serve`] knows. The invariants: a request that waits for a load holds
//! up no other; a peer that does not read its answers is not read from; every task ends with the node.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_util::codec::{Decoder, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::READ_BUFFER_BYTES;
use super::handshake::{self, HandshakeError, Hello};
use super::outbox::Outbox;
use super::wire::{Answer, Get, Request, RequestId, Response};
use crate::error::{Error, Overload};
use crate::limits::Limits;
use crate::net::{TcpListener, TcpStream};
use crate::ring::NodeId;

/// What the node answers its peers.
pub(crate) trait Serve: Send + Sync + 'static {
    /// The answer, if it needs no waiting: `answer` is called with it.
    fn serve_at_once(&self, from: NodeId, get: &Get<'_>, answer: &mut dyn FnMut(Answer<'_>)) -> bool;

    /// The answer to anything else; `reply` is called once with it.
    fn serve(self: Arc<Self>, from: NodeId, request: Request<'_>, reply: Reply) -> impl Future<Output = ()> + Send;
}

/// The place where the answer to one request goes.
pub(crate) struct Reply {
    id: RequestId,
    outbox: Arc<Outbox>,
    frame_bytes_max: usize,
}

impl Reply {
    pub(crate) fn send(self, response: &Response<'_>) {
        self.outbox.push(|out| response.encode(self.id, out));
    }

    /// Bytes that one answer may take.
    pub(crate) fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }
}

pub(crate) struct Server<S> {
    pub(crate) serve: Arc<S>,
    pub(crate) hello: Hello,
    pub(crate) limits: Limits,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl<S: Serve> Server<S> {
    /// Accepts until stopped.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(self.limits.peer_connections_max));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            let (stream, addr) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: accepting again at once would spin.
                    tracing::warn!(%error, "cannot accept peers");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                tracing::warn!(%addr, limit = self.limits.peer_connections_max, "a peer was turned away: too many connections");
                continue;
            };
            let server = self.clone();
            self.tasks.spawn(async move {
                let _place = place;
                match server.attend(stream).await {
                    Err(HandshakeError::Io(error)) => tracing::debug!(%addr, %error, "connection from peer ended"),
                    Err(error) => tracing::warn!(%addr, %error, "a connection was refused"),
                    Ok(()) => {}
                }
            });
        }
    }

    async fn attend(&self, mut stream: TcpStream) -> Result<(), HandshakeError> {
        stream.set_nodelay(true)?;
        let greeting = handshake::receive_greeting(&mut stream, &self.hello, self.limits.handshake_timeout);
        let them = tokio::select! {
            them = greeting => them?,
            () = self.stop.cancelled() => return Ok(()),
        };
        let (read, mut write) = stream.into_split();
        let session = Session {
            serve: self.serve.clone(),
            from: them.node_id(),
            outbox: Arc::new(Outbox::default()),
            waiting: Arc::default(),
            under_way: Arc::default(),
            under_way_max: self.limits.peer_requests_served_max,
            frame_bytes_max: self.limits.frame_bytes_max().min(them.frame_bytes_max as usize),
            tasks: self.tasks.clone(),
        };
        let outcome = tokio::select! {
            ended = session.read(read, self.limits.frame_bytes_max()) => ended,
            ended = session.outbox.write_to(&mut write, || session.under_way.load(Relaxed) > 1) => ended,
            () = self.stop.cancelled() => Ok(()),
        };
        session.abort_waiting();
        Ok(outcome?)
    }
}

/// One peer's connection to this node.
struct Session<S> {
    serve: Arc<S>,
    from: NodeId,
    outbox: Arc<Outbox>,
    /// Requests that wait for something, so that the peer can cancel them.
    waiting: Arc<Mutex<HashMap<RequestId, AbortHandle>>>,
    under_way: Arc<AtomicUsize>,
    under_way_max: usize,
    frame_bytes_max: usize,
    tasks: TaskTracker,
}

impl<S: Serve> Session<S> {
    async fn read(&self, mut stream: impl AsyncRead + Unpin, frame_bytes_max: usize) -> io::Result<()> {
        let mut codec = LengthDelimitedCodec::builder().max_frame_length(frame_bytes_max).new_codec();
        let mut buffer = BytesMut::with_capacity(READ_BUFFER_BYTES);
        loop {
            self.outbox.until_drained().await;
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            while let Some(frame) = codec.decode(&mut buffer)? {
                self.handle(frame)?;
            }
            buffer.reserve(READ_BUFFER_BYTES / 4);
        }
    }

    fn handle(&self, frame: BytesMut) -> io::Result<()> {
        let (id, request) = Request::decode(&frame).map_err(io::Error::other)?;
        match &request {
            Request::Get(get) => {
                let mut send = |answer: Answer<'_>| self.outbox.push(|out| Response::One(answer).encode(id, out));
                if self.serve.serve_at_once(self.from, get, &mut send) {
                    return Ok(());
                }
            }
            Request::Ping => {
                self.outbox.push(|out| Response::Done.encode(id, out));
                return Ok(());
            }
            Request::Cancel => {
                let task = self.waiting.lock().remove(&id);
                task.inspect(AbortHandle::abort);
                return Ok(());
            }
            _ => {}
        }
        self.serve_later(id, frame.freeze());
        Ok(())
    }

    fn serve_later(&self, id: RequestId, frame: Bytes) {
        let limit = self.under_way_max;
        if self.under_way.fetch_add(1, Relaxed) >= limit {
            self.under_way.fetch_sub(1, Relaxed);
            let busy = Error::Overloaded { what: Overload::PeerRequests, limit };
            self.outbox.push(|out| Response::Refused(busy).encode(id, out));
            return;
        }
        let done = Done { id, waiting: self.waiting.clone(), under_way: self.under_way.clone() };
        let reply = Reply { id, outbox: self.outbox.clone(), frame_bytes_max: self.frame_bytes_max };
        let (serve, from) = (self.serve.clone(), self.from);
        // Locked over the spawn, so that the task cannot end before it is entered here.
        let mut waiting = self.waiting.lock();
        let task = self.tasks.spawn(async move {
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
