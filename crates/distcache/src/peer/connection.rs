//! Many questions at once over one stream to a peer.
//!
//! Knows how questions find their answers; knows neither what they mean nor how the stream came to be. The invariants: every
//! question sent gets exactly one answer or one failure, whatever happens to the stream; a late answer never reaches another
//! question; a peer that is connected but silent is found out within the hop budget, however long its loads take.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use slab::Slab;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use super::wire::{Request, RequestId, Response, cut_frame};
use crate::error::PeerFailure;
use crate::net::{Clock, Moment};

pub(crate) const READ_BUFFER_BYTES: usize = 64 << 10;
/// Bits of a request id that say where its question waits; the rest counts up and never repeats.
const PLACE_BITS: u32 = 24;

/// An idle connection is tried this often, so that a peer that hangs is known before it is needed.
const IDLE_PING: Duration = Duration::from_secs(1);
const STALL_TOLERANCE: Duration = Duration::from_millis(20);

/// Runs once, with the answer or with what became of the stream.
pub(crate) type OnAnswer = Box<dyn FnOnce(Result<Response<'_>, PeerFailure>) + Send>;

pub(crate) struct Connection {
    outbox: Outbox,
    pending: Mutex<Pending>,
    in_flight: AtomicUsize,
    in_flight_max: usize,
    room: Notify,
    last_heard: AtomicU64,
    clock: Clock,
    frame_bytes_max: usize,
    closed: CancellationToken,
}

#[derive(Default)]
struct Pending {
    questions: Slab<Question>,
    asked: u64,
    failure: Option<PeerFailure>,
}

struct Question {
    id: RequestId,
    sent: Moment,
    on_answer: OnAnswer,
}

/// Why a question was not sent; it is given back.
pub(crate) enum NotSent {
    Full(OnAnswer),
    Closed(OnAnswer, PeerFailure),
}

impl Connection {
    pub(crate) fn new(clock: Clock, in_flight_max: usize, frame_bytes_max: usize, closed: CancellationToken) -> Self {
        Self {
            outbox: Outbox::default(),
            pending: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            in_flight_max: in_flight_max.min((1 << PLACE_BITS) - 1),
            room: Notify::new(),
            last_heard: AtomicU64::new(clock.now().0),
            clock,
            frame_bytes_max,
            closed,
        }
    }

    /// When something came last.
    pub(crate) fn heard_at(&self) -> Moment {
        Moment(self.last_heard.load(Relaxed))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Sends the request that `encode` writes under the id it is given.
    ///
    /// What keeps the cluster honest (pings, invalidations) is `urgent`: it does not wait behind requests that wait for loads.
    pub(crate) fn ask(
        &self,
        urgent: bool,
        on_answer: OnAnswer,
        encode: impl FnOnce(RequestId, &mut BytesMut),
    ) -> Result<RequestId, NotSent> {
        let is_backed_up = !urgent && self.outbox.is_backed_up();
        let id = {
            let mut pending = self.pending.lock();
            if let Some(failure) = &pending.failure {
                return Err(NotSent::Closed(on_answer, failure.clone()));
            }
            if is_backed_up || !urgent && pending.questions.len() >= self.in_flight_max {
                return Err(NotSent::Full(on_answer));
            }
            pending.asked += 1;
            let asked = pending.asked;
            let place = pending.questions.vacant_entry();
            let id = RequestId(asked << PLACE_BITS | place.key() as u64);
            place.insert(Question { id, sent: self.clock.now(), on_answer });
            id
        };
        self.in_flight.fetch_add(1, Relaxed);
        let mut fits = true;
        self.outbox.push(|out| {
            let start = out.len();
            encode(id, out);
            fits = out.len() - start <= self.frame_bytes_max;
            if !fits {
                out.truncate(start);
            }
        });
        match if fits { None } else { self.take(id) } {
            Some(on_answer) => {
                let failure = PeerFailure::Refused("the request is larger than it takes".into());
                Err(NotSent::Closed(on_answer, failure))
            }
            None => Ok(id),
        }
    }

    /// Waits until a question may be asked, or the connection is closed.
    pub(crate) async fn until_room(&self) {
        loop {
            tokio::select! {
                biased;
                () = self.outbox.until_drained() => {}
                () = self.closed.cancelled() => return,
            }
            let room = self.room.notified();
            {
                let pending = self.pending.lock();
                if pending.questions.len() < self.in_flight_max || pending.failure.is_some() {
                    return;
                }
            }
            room.await;
        }
    }

    /// Gives up a question: frees its place and tells the peer.
    pub(crate) fn cancel(&self, id: RequestId) {
        if self.take(id).is_some() {
            self.outbox.push(|out| Request::Cancel.encode(id, out));
        }
    }

    fn take(&self, id: RequestId) -> Option<OnAnswer> {
        let place = (id.0 & ((1 << PLACE_BITS) - 1)) as usize;
        let question = {
            let mut pending = self.pending.lock();
            if pending.questions.get(place).is_none_or(|question| question.id != id) {
                return None;
            }
            pending.questions.remove(place)
        };
        self.in_flight.fetch_sub(1, Relaxed);
        self.room.notify_one();
        Some(question.on_answer)
    }

    /// Fails every question under way and every one to come.
    pub(crate) fn close(&self, failure: PeerFailure) {
        let questions = {
            let mut pending = self.pending.lock();
            pending.failure.get_or_insert_with(|| failure.clone());
            std::mem::take(&mut pending.questions)
        };
        self.closed.cancel();
        self.room.notify_waiters();
        for (_, question) in questions {
            (question.on_answer)(Err(failure.clone()));
        }
    }

    /// Runs the stream until it fails or the connection is closed.
    pub(crate) fn run<R, W>(
        self: Arc<Self>,
        read: R,
        mut write: W,
        silence_max: Duration,
        frame_bytes_max: usize,
    ) -> impl Future<Output = ()> + Send
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        // Made before the task runs, since it may never: whatever ends it, nobody may wait for ever.
        let close = CloseOnDrop(self.clone());
        async move {
            let _close = close;
            let failure = tokio::select! {
                biased;
                () = self.closed.cancelled() => PeerFailure::Disconnected,
                error = self.read(read, frame_bytes_max) => {
                    tracing::debug!(?error, "connection to peer ended");
                    PeerFailure::Disconnected
                }
                _ = self.outbox.write_to(&mut write, || self.in_flight.load(Relaxed) > 1) => PeerFailure::Disconnected,
                () = self.until_silent(silence_max) => PeerFailure::Silent,
            };
            self.close(failure);
        }
    }

    async fn read(&self, mut stream: impl AsyncRead + Unpin, frame_bytes_max: usize) -> io::Result<()> {
        let mut buffer = BytesMut::with_capacity(READ_BUFFER_BYTES);
        loop {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.last_heard.store(self.clock.now().0, Relaxed);
            while let Some(frame) = cut_frame(&mut buffer, frame_bytes_max).map_err(io::Error::other)? {
                let (id, response) = Response::decode(&frame).map_err(io::Error::other)?;
                if let Some(on_answer) = self.take(id) {
                    on_answer(Ok(response));
                }
            }
            buffer.reserve(READ_BUFFER_BYTES / 4);
        }
    }

    /// Returns once a question has waited for `silence_max` while not a byte came. A peer that is busy with a load answers
    /// pings meanwhile, so only one that hangs or is cut off stays silent.
    async fn until_silent(&self, silence_max: Duration) {
        let step = (silence_max / 5).max(Duration::from_millis(1));
        let mut last_look = self.clock.now();
        loop {
            tokio::time::sleep(step).await;
            let now = self.clock.now();
            // Where this process itself did not run, what the peer sent may still lie in the socket.
            let stalled_here = now.since(std::mem::replace(&mut last_look, now)) > step * 2 + STALL_TOLERANCE;
            if stalled_here {
                continue;
            }
            let heard = self.heard_at();
            let waited = self.oldest_question().map(|sent| now.since(sent.max(heard)));
            if waited.is_some_and(|waited| waited >= silence_max) {
                return;
            }
            let worth_a_ping = waited.map_or(now.since(heard) >= IDLE_PING, |waited| waited >= silence_max / 3);
            if worth_a_ping {
                let _ = self.ask(true, Box::new(|_| ()), |id, out| Request::Ping.encode(id, out));
            }
        }
    }

    fn oldest_question(&self) -> Option<Moment> {
        self.pending.lock().questions.iter().map(|(_, question)| question.sent).min()
    }
}

struct CloseOnDrop(Arc<Connection>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(PeerFailure::Disconnected);
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, BufMut};
    use tokio::io::{AsyncWriteExt, DuplexStream};
    use tokio::sync::mpsc;

    use super::*;

    const SILENCE: Duration = Duration::from_millis(200);

    fn connect(in_flight_max: usize) -> (Arc<Connection>, DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let connection = Arc::new(Connection::new(Clock::tokio(), in_flight_max, 1 << 20, CancellationToken::new()));
        let (read, write) = tokio::io::split(near);
        tokio::spawn(connection.clone().run(read, write, SILENCE, 1 << 20));
        (connection, far)
    }

    fn ask(connection: &Connection, request: &Request<'_>, on_answer: OnAnswer) -> Result<RequestId, NotSent> {
        connection.ask(false, on_answer, |id, out| request.encode(id, out))
    }

    type Heard = mpsc::UnboundedReceiver<Result<String, PeerFailure>>;

    fn listener() -> (impl Fn() -> OnAnswer, Heard) {
        let (tell, heard) = mpsc::unbounded_channel();
        let listen = move || -> OnAnswer {
            let tell = tell.clone();
            Box::new(move |answer| drop(tell.send(answer.map(|response| format!("{response:?}")))))
        };
        (listen, heard)
    }

    async fn next_id(far: &mut DuplexStream) -> RequestId {
        let len = far.read_u32().await.unwrap();
        let mut payload = vec![0; len as usize];
        far.read_exact(&mut payload).await.unwrap();
        Request::decode(&payload).unwrap().0
    }

    async fn answer(far: &mut DuplexStream, id: RequestId) {
        let mut out = BytesMut::new();
        Response::Done.encode(id, &mut out);
        far.write_all(&out).await.unwrap();
    }

    #[tokio::test]
    async fn a_late_answer_to_a_cancelled_question_reaches_nobody_else() {
        let (connection, mut far) = connect(10);
        let (listen, mut heard) = listener();
        let first = ask(&connection, &Request::Ping, listen()).ok().unwrap();
        assert_eq!(next_id(&mut far).await, first);
        connection.cancel(first);
        assert_eq!(next_id(&mut far).await, first, "the cancellation");
        let second = ask(&connection, &Request::Ping, listen()).ok().unwrap();
        assert_ne!(first, second);
        answer(&mut far, first).await;
        answer(&mut far, second).await;
        assert_eq!(heard.recv().await.unwrap().unwrap(), "Done");
        assert!(heard.try_recv().is_err(), "only one question was answered");
    }

    #[tokio::test]
    async fn a_broken_stream_fails_every_question_and_every_later_one() {
        let (connection, far) = connect(10);
        let (listen, mut heard) = listener();
        ask(&connection, &Request::Ping, listen()).ok().unwrap();
        ask(&connection, &Request::Ping, listen()).ok().unwrap();
        drop(far);
        for _ in 0..2 {
            assert_eq!(heard.recv().await.unwrap().unwrap_err(), PeerFailure::Disconnected);
        }
        assert!(matches!(
            ask(&connection, &Request::Ping, listen()),
            Err(NotSent::Closed(_, PeerFailure::Disconnected))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_connected_but_hangs_is_found_out_within_the_budget() {
        let (connection, _far) = connect(10);
        let (listen, mut heard) = listener();
        let asked = tokio::time::Instant::now();
        ask(&connection, &Request::Ping, listen()).ok().unwrap();
        assert_eq!(heard.recv().await.unwrap().unwrap_err(), PeerFailure::Silent);
        assert!(asked.elapsed() <= SILENCE * 3 / 2, "{:?}", asked.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_slow_with_its_answer_but_answers_pings_is_waited_for() {
        let (connection, mut far) = connect(10);
        let (listen, mut heard) = listener();
        let slow = ask(&connection, &Request::Registry(b""), listen()).ok().unwrap();
        let until = tokio::time::Instant::now() + SILENCE * 20;
        while tokio::time::Instant::now() < until {
            let id = next_id(&mut far).await;
            if id != slow {
                answer(&mut far, id).await;
            }
        }
        answer(&mut far, slow).await;
        assert_eq!(heard.recv().await.unwrap().unwrap(), "Done");
    }

    #[tokio::test]
    async fn questions_over_the_limit_wait_for_room() {
        let (connection, mut far) = connect(1);
        let (listen, _heard) = listener();
        let first = ask(&connection, &Request::Ping, listen()).ok().unwrap();
        assert!(matches!(ask(&connection, &Request::Ping, listen()), Err(NotSent::Full(_))));
        assert!(
            connection.ask(true, listen(), |id, out| Request::Ping.encode(id, out)).is_ok(),
            "but what is urgent is sent"
        );
        next_id(&mut far).await;
        let urgent = next_id(&mut far).await;
        answer(&mut far, urgent).await;
        let room = connection.until_room();
        answer(&mut far, first).await;
        room.await;
        assert!(ask(&connection, &Request::Ping, listen()).is_ok());
    }

    #[tokio::test]
    async fn a_connection_whose_task_is_dropped_fails_its_questions() {
        let (near, _far) = tokio::io::duplex(1 << 20);
        let connection = Arc::new(Connection::new(Clock::tokio(), 10, 1 << 20, CancellationToken::new()));
        let (read, write) = tokio::io::split(near);
        let task = tokio::spawn(connection.clone().run(read, write, SILENCE, 1 << 20));
        let (listen, mut heard) = listener();
        ask(&connection, &Request::Ping, listen()).ok().unwrap();
        task.abort();
        assert_eq!(heard.recv().await.unwrap().unwrap_err(), PeerFailure::Disconnected);
        assert!(connection.is_closed());
    }

    #[tokio::test]
    async fn a_frame_over_the_limit_ends_the_connection() {
        let (connection, mut far) = connect(10);
        let (listen, mut heard) = listener();
        ask(&connection, &Request::Ping, listen()).ok().unwrap();
        let mut length = BytesMut::new();
        length.put_u32(u32::MAX);
        far.write_all_buf(&mut length.copy_to_bytes(4)).await.unwrap();
        assert_eq!(heard.recv().await.unwrap().unwrap_err(), PeerFailure::Disconnected);
    }
}
