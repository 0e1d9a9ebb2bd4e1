//! A request's body that has to arrive in time.
//!
//! Knows no sizes: those are bounded where a body is put together. The invariant: whoever reads the body gets an end or an
//! error within the time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::ListenerState;
use super::patience::{Alarm, Requests};

/// The client took too long over its body.
#[derive(Debug, thiserror::Error)]
#[error("the body took longer than {}", humantime::format_duration(*.0))]
pub struct BodyTooSlow(std::time::Duration);

/// What a request brings behind its head.
pub(super) struct Timely {
    body: Incoming,
    until: Instant,
    alarm: Alarm,
    listener: Arc<ListenerState>,
    is_at_end: bool,
    requests: Requests,
}

impl Timely {
    pub(super) fn new(body: Incoming, listener: Arc<ListenerState>, requests: Requests) -> Self {
        let until = Instant::now() + listener.limits.body_timeout;
        Self { body, until, alarm: Alarm::default(), listener, is_at_end: false, requests }
    }
}

impl Body for Timely {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.is_at_end = frame.is_none();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let until = self.until;
        self.alarm.poll(cx, until).map(|()| {
            self.listener.counters.bodies_timed_out.add_one();
            Some(Err(BodyTooSlow(self.listener.limits.body_timeout).into()))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Timely {
    fn drop(&mut self) {
        if !self.is_at_end && !self.body.is_end_stream() {
            self.requests.body_left();
        }
    }
}
