//! One client: its requests, one after the other, until it leaves or is made to.
//!
//! Knows HTTP and limits, not what the answers are about. The invariant: when this ends, nothing of the client is left here.

use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::ListenerState;
use super::body::Timely;
use super::counters::Exceeded;
use super::farewell::{HEAD_TOO_SLOW, linger};
use super::limits::{ListenerLimits, READ_BUFFER_BYTES_MAX};
use super::patience::{Overdue, Patient};
use super::seats::Seat;

/// What requests come over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Stream for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

pub(super) async fn serve(
    stream: impl Stream,
    listener: &Arc<ListenerState>,
    router: TowerToHyperService<Router>,
    stop: &CancellationToken,
    seat: &Seat,
) {
    let requests = seat.requests().clone();
    let mut stream = Patient::new(stream, listener.limits.clone(), requests.clone());
    let service = service_fn(|request: Request<Incoming>| {
        requests.one_read();
        let answer = router.call(request.map(|body| Timely::new(body, listener.clone(), requests.clone())));
        async {
            let answer = answer.await?;
            requests.one_answered();
            if let Some(what) = answer.extensions().get::<Exceeded>() {
                listener.counters.exceeded(*what);
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let ended = {
        let mut connection = pin!(http1(&listener.limits).serve_connection(TokioIo::new(&mut stream), service));
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = seat.wanted() => {
                if requests.are_none() {
                    return;
                }
                // An answer that is on its way arrives.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    tokio::select! {
        () = take_leave(stream, ended, listener, requests.is_body_left()) => {}
        () = seat.wanted() => {}
    }
}

fn http1(limits: &ListenerLimits) -> http1::Builder {
    let mut http1 = http1::Builder::new();
    http1
        .max_header_size(limits.header_bytes_max)
        .max_buf_size(READ_BUFFER_BYTES_MAX.max(limits.header_bytes_max))
        // The stream keeps the time, and tells a slow request from none.
        .header_read_timeout(None);
    http1
}

async fn take_leave<S: Stream>(
    mut stream: Patient<S>,
    ended: hyper::Result<()>,
    listener: &ListenerState,
    is_body_left: bool,
) {
    let counters = &listener.counters;
    match stream.overdue() {
        Some(Overdue::First | Overdue::Next) => counters.idle_closed.add_one(),
        Some(Overdue::Head) => {
            counters.headers_timed_out.add_one();
            HEAD_TOO_SLOW.say(stream.stream_mut()).await;
        }
        Some(Overdue::Reader) => {
            counters.writes_timed_out.add_one();
            // The system keeps what was not read for minutes, unless it is told that nobody waits for it.
            let _ = stream.stream().socket().set_zero_linger();
        }
        None => {
            if ended.as_ref().is_err_and(hyper::Error::is_parse_too_large) {
                counters.headers_too_large.add_one();
            }
            if ended.is_err() || is_body_left {
                linger(stream.stream_mut()).await;
            }
        }
    }
}
