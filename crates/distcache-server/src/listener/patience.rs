//! A client's byte stream that is not waited for without end.
//!
//! Knows no HTTP: it is told when a request has been read and when it is answered, and otherwise sees bytes come and go. The
//! invariant: a read or a write that waits for the client ends, with the bytes or with an error that says what was due.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::limits::ListenerLimits;

/// What did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The first byte of a first request.
    First,
    /// The rest of a request's head.
    Head,
    /// A next request.
    Next,
    /// The client's reading of its answer.
    Reader,
}

/// How far the requests of one connection are; they come one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    read: AtomicU32,
    answered: AtomicU32,
    is_body_left: AtomicBool,
}

impl Requests {
    /// The head of one.
    pub(super) fn one_read(&self) {
        self.0.read.fetch_add(1, Relaxed);
    }

    pub(super) fn one_answered(&self) {
        self.0.answered.fetch_add(1, Relaxed);
    }

    /// A body was not read to its end.
    pub(super) fn body_left(&self) {
        self.0.is_body_left.store(true, Relaxed);
    }

    pub(super) fn is_body_left(&self) -> bool {
        self.0.is_body_left.load(Relaxed)
    }

    fn read(&self) -> u32 {
        self.0.read.load(Relaxed)
    }

    pub(super) fn are_none(&self) -> bool {
        self.read() == 0
    }

    pub(super) fn is_one_under_way(&self) -> bool {
        self.read() != self.0.answered.load(Relaxed)
    }
}

/// A stream with the limits of its listener.
pub(super) struct Patient<S> {
    stream: S,
    limits: Arc<ListenerLimits>,
    requests: Requests,
    /// Of [`Requests`], when `expected` was set.
    read: u32,
    expected: Option<Expected>,
    reading: Alarm,
    /// Until when a blocked write may stay blocked.
    blocked: Option<Instant>,
    writing: Alarm,
    overdue: Option<Overdue>,
}

#[derive(Clone, Copy)]
struct Expected {
    what: Overdue,
    until: Instant,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, limits: Arc<ListenerLimits>, requests: Requests) -> Self {
        let first = Expected { what: Overdue::First, until: Instant::now() + limits.header_timeout };
        Self {
            stream,
            limits,
            requests,
            read: 0,
            expected: Some(first),
            reading: Alarm::default(),
            blocked: None,
            writing: Alarm::default(),
            overdue: None,
        }
    }

    /// What ended the stream, if the client's slowness did.
    pub(super) fn overdue(&self) -> Option<Overdue> {
        self.overdue
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    pub(super) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Bytes came. Unless they belong to a request under way they begin a head, or go on with one.
    fn received(&mut self) {
        self.forget_what_came();
        let is_begun = self.expected.is_some_and(|expected| expected.what == Overdue::Head);
        if !is_begun && !self.requests.is_one_under_way() {
            let until = match self.expected {
                // The time for a first request runs since the connection was opened.
                Some(Expected { what: Overdue::First, until }) => until,
                _ => Instant::now() + self.limits.header_timeout,
            };
            self.expected = Some(Expected { what: Overdue::Head, until });
        }
    }

    /// A request has been read since: what was expected before came.
    fn forget_what_came(&mut self) {
        if self.read != self.requests.read() {
            self.read = self.requests.read();
            self.expected = None;
        }
    }

    /// A read waits: for how long depends on what for.
    fn poll_expected(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.forget_what_came();
        // The node is at work, or its answer is on the way: the client is not late.
        if self.requests.is_one_under_way() || self.blocked.is_some() {
            return Poll::Pending;
        }
        let idle = self.limits.idle_timeout;
        let expected =
            *self.expected.get_or_insert_with(|| Expected { what: Overdue::Next, until: Instant::now() + idle });
        ready!(self.reading.poll(cx, expected.until));
        Poll::Ready(self.late(expected.what))
    }

    /// A client that takes its answer slowly is not idle meanwhile.
    fn sent(&mut self) {
        if self.expected.is_some_and(|expected| expected.what == Overdue::Next) {
            self.expected = None;
        }
    }

    /// An answer has left. Its writer may be content with the read that it began meanwhile, and not begin another: so the wait
    /// for the next request begins here.
    fn await_next(&mut self, cx: &mut Context<'_>) {
        self.forget_what_came();
        if self.expected.is_none() && self.poll_expected(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    fn sent_if(&mut self, outcome: &Poll<io::Result<usize>>) {
        if matches!(outcome, Poll::Ready(Ok(1..))) {
            self.sent();
        }
    }

    /// The outcome of anything that writes: kept waiting no longer than the client may.
    fn written<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            if self.blocked.take().is_some() {
                self.sent();
            }
            return outcome;
        }
        let until = *self.blocked.get_or_insert(Instant::now() + self.limits.write_timeout);
        ready!(self.writing.poll(cx, until));
        Poll::Ready(Err(self.late(Overdue::Reader)))
    }

    fn late(&mut self, what: Overdue) -> io::Error {
        self.overdue = Some(what);
        io::ErrorKind::TimedOut.into()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending => self.poll_expected(cx).map(Err),
            outcome => {
                if buf.filled().len() > before {
                    self.received();
                }
                outcome
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.sent_if(&outcome);
        self.written(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.sent_if(&outcome);
        self.written(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        if outcome.is_ready() {
            self.await_next(cx);
        }
        self.written(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.written(cx, outcome)
    }
}

/// One timer that is set anew only when it goes off early: most waits end long before.
#[derive(Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if until < sleep.deadline() {
            sleep.as_mut().reset(until);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= until {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(until);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{sleep, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The client's end, the node's end, and what the node says of the requests.
    fn connected() -> (DuplexStream, Patient<DuplexStream>, Requests) {
        let limits = ListenerLimits { write_timeout: 5 * SECOND, ..ListenerLimits::HTTP };
        let (client, node) = duplex(64);
        let requests = Requests::default();
        (client, Patient::new(node, Arc::new(limits), requests.clone()), requests)
    }

    /// What is read until it takes too long, what was due then, and how long all of it took.
    async fn read_out(node: &mut Patient<DuplexStream>) -> (usize, Option<Overdue>, Duration) {
        let (begun, mut bytes) = (Instant::now(), Vec::new());
        let ended = node.read_to_end(&mut bytes).await.map_err(|error| error.kind());
        assert!(ended.is_ok() || ended == Err(io::ErrorKind::TimedOut), "{ended:?}");
        (bytes.len(), node.overdue(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_however_its_bytes_come() {
        let (mut client, mut node, _) = connected();
        let slow = tokio::spawn(async move {
            for _ in 0..100 {
                sleep(SECOND).await;
                client.write_all(b"x").await.unwrap();
            }
        });
        let (bytes, overdue, took) = read_out(&mut node).await;
        assert_eq!((overdue, took.as_secs()), (Some(Overdue::Head), 10));
        assert!((9..=10).contains(&bytes), "{bytes}");
        slow.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_late_with_its_next_request_only_after_the_answer() {
        let (mut client, mut node, requests) = connected();
        client.write_all(b"one").await.unwrap();
        node.read_exact(&mut [0; 3]).await.unwrap();
        requests.one_read();
        // The node works longer than any limit.
        let waited = timeout(1_000 * SECOND, node.read_u8()).await;
        assert!(waited.is_err(), "{waited:?}");
        requests.one_answered();
        assert_eq!(read_out(&mut node).await, (0, Some(Overdue::Next), 60 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_next_request_has_the_time_of_a_head_from_its_first_byte() {
        let (mut client, mut node, requests) = connected();
        client.write_all(b"one").await.unwrap();
        node.read_exact(&mut [0; 3]).await.unwrap();
        requests.one_read();
        requests.one_answered();
        let begun = Instant::now();
        let (read, sent) = tokio::join!(node.read_u8(), async {
            sleep(50 * SECOND).await;
            client.write_u8(b't').await
        });
        assert!(read.is_ok() && sent.is_ok());
        let (_, overdue, _) = read_out(&mut node).await;
        assert_eq!((overdue, begun.elapsed()), (Some(Overdue::Head), 60 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_may_be_slow_and_may_not_stop() {
        let (mut client, mut node, requests) = connected();
        requests.one_read();
        let reader = tokio::spawn(async move {
            for _ in 0..10 {
                sleep(4 * SECOND).await;
                client.read_exact(&mut [0; 64]).await.unwrap();
            }
            sleep(1_000 * SECOND).await;
        });
        let begun = Instant::now();
        let written = node.write_all(&[0; 64 * 100]).await.map_err(|error| error.kind());
        assert_eq!((written, node.overdue()), (Err(io::ErrorKind::TimedOut), Some(Overdue::Reader)));
        assert_eq!(begun.elapsed(), 45 * SECOND);
        reader.abort();
    }
}
