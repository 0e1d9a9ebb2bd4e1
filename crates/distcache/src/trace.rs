//! What a tracer sees of a miss: a span for each step, and the trace's way from node to node.
//!
//! A get that misses is a span `get`, within it `fetch` (the owner is asked); at the owner `serve` and within it `load`, in which
//! the source runs. Hits have none. Knows no tracing system: what one calls the trace of a span, a [`Propagator`] says. The
//! invariants: no span holds a key or a value; without a propagator nothing of a trace is sent.

use std::fmt;
use std::sync::Arc;

use tracing::field::Empty;
use tracing::{Span, debug_span};

use crate::error::{Error, PeerFailure};
use crate::peer::wire::{Answer, Request, Response};

/// All spans have this target, so that they can be had, or not, by themselves.
const TARGET: &str = "distcache::trace";

const IS_SAMPLED: u8 = 1;

/// The place of a span in its trace, as it is told to another node: the
/// [trace context of the W3C](https://www.w3.org/TR/trace-context/).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Traceparent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

impl Traceparent {
    /// `None`: an id of zeros is none.
    pub const fn new(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) -> Option<Self> {
        if u128::from_be_bytes(trace_id) == 0 || u64::from_be_bytes(span_id) == 0 {
            return None;
        }
        Some(Self { trace_id, span_id, flags })
    }

    /// The same in all spans of a trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// Of the span that asks.
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Bit 0: the trace is recorded.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & IS_SAMPLED != 0
    }
}

/// What connects the spans of different nodes: implemented for a tracing system, set by
/// [`EngineBuilder::propagator`](crate::EngineBuilder::propagator).
///
/// The spans of this crate have the target `distcache::trace` and the level `debug`. They are made for misses and writes only:
/// `get`, `get_many`, `fetch`, `serve`, `load`, `put`, `delete`, `refresh`. [`DataSource::fetch`](crate::DataSource::fetch) runs
/// within `load`. A load or fetch that several callers wait for is part of the trace of the first; the spans of the others say
/// `coalesced`.
pub trait Propagator: Send + Sync + 'static {
    /// The place of the current span in its trace; `None`: it has none, and nothing is sent.
    fn current(&self) -> Option<Traceparent>;

    /// Makes `span`, which has just been created and not been entered, a part of the trace of another node's span.
    fn adopt(&self, span: &Span, remote: Traceparent);
}

/// The propagator of a node, if it has one.
#[derive(Clone, Default)]
pub(crate) struct Traces(pub(crate) Option<Arc<dyn Propagator>>);

impl Traces {
    pub(crate) fn current(&self) -> Option<Traceparent> {
        self.0.as_ref()?.current()
    }

    /// The span of a request of another node.
    pub(crate) fn serve(&self, request: &Request<'_>, peer: impl FnOnce() -> String) -> Span {
        let (name, keyspace) = match request {
            Request::Get(get) => ("get", &get.keyspace),
            Request::GetMany { get } => ("get_many", &get.keyspace),
            Request::Put { keyspace, .. } => ("put", keyspace),
            Request::Delete { keyspace, .. } => ("delete", keyspace),
            Request::Refresh { keyspace, .. } => ("refresh", keyspace),
            _ => return Span::none(),
        };
        let span = debug_span!(
            target: TARGET, "serve", otel.kind = "server", request = name, keyspace = keyspace.name, peer = Empty,
            coalesced = Empty
        );
        if !span.is_disabled() {
            span.record("peer", peer());
        }
        if let (Some(propagator), Some(remote)) = (&self.0, keyspace.trace) {
            propagator.adopt(&span, remote);
        }
        span
    }
}

/// A hash in place of a key, which may tell of a person.
struct KeyHash(u64);

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A get that missed.
pub(crate) fn get(keyspace: &str, hash: u64, owner: impl FnOnce() -> String) -> Span {
    let span = debug_span!(
        target: TARGET, "get", keyspace, key_hash = %KeyHash(hash), owner = Empty, coalesced = Empty, outcome = Empty,
        otel.status_code = Empty
    );
    if !span.is_disabled() {
        span.record("owner", owner());
    }
    span
}

/// The keys of a batch that missed.
pub(crate) fn get_many(keyspace: &str, keys: usize) -> Span {
    debug_span!(target: TARGET, "get_many", keyspace, keys, coalesced = Empty)
}

/// A request to an owner.
pub(crate) fn fetch(keyspace: &str, peer: &str, keys: usize) -> Span {
    debug_span!(
        target: TARGET, "fetch", otel.kind = "client", keyspace, peer, keys, outcome = Empty, otel.status_code = Empty
    )
}

/// A call of the source, from when it is decided.
pub(crate) fn load(keyspace: &str, keys: usize) -> Span {
    debug_span!(
        target: TARGET, "load", keyspace, keys, attempts = Empty, outcome = Empty, otel.status_code = Empty
    )
}

pub(crate) fn put(keyspace: &str, keys: usize) -> Span {
    debug_span!(target: TARGET, "put", keyspace, keys, failed = Empty, otel.status_code = Empty)
}

pub(crate) fn delete(keyspace: &str, keys: usize) -> Span {
    debug_span!(target: TARGET, "delete", keyspace, keys, failed = Empty, otel.status_code = Empty)
}

pub(crate) fn refresh(keyspace: &str, hash: u64) -> Span {
    debug_span!(target: TARGET, "refresh", keyspace, key_hash = %KeyHash(hash))
}

/// The current span waits for what another one asks.
pub(crate) fn joined() {
    Span::current().record("coalesced", true);
}

/// How a get ended.
pub(crate) fn ended<T>(span: &Span, outcome: &Result<T, Error>) {
    if !span.is_disabled() {
        tell(span, outcome.as_ref().map_or_else(word_of, |_| "found"));
    }
}

/// How a load ended, in the current span: the worst of it.
pub(crate) fn loaded<T>(attempts: u32, answers: &[Result<T, Error>]) {
    let span = Span::current();
    if !span.is_disabled() {
        span.record("attempts", attempts);
        let failure =
            answers.iter().filter_map(|answer| answer.as_ref().err()).max_by_key(|error| !error.is_not_found());
        tell(&span, failure.map_or("found", word_of));
    }
}

/// How a fetch ended.
pub(crate) fn answered(span: &Span, answer: &Result<Response<'_>, PeerFailure>) {
    if !span.is_disabled() {
        tell(
            span,
            match answer {
                Ok(Response::One(Answer::Value(_))) => "found",
                Ok(Response::One(Answer::NotFound)) => "not_found",
                Ok(Response::One(Answer::NotOwner)) => "not_owner",
                Ok(Response::One(Answer::Failed(error)) | Response::Refused(error)) => word_of(error),
                Ok(_) => "answered",
                Err(_) => "not_reached",
            },
        );
    }
}

/// How many keys a write failed for.
pub(crate) fn written(span: &Span, failed: usize) {
    if failed > 0 {
        span.record("failed", failed).record("otel.status_code", "ERROR");
    }
}

fn tell(span: &Span, outcome: &'static str) {
    span.record("outcome", outcome);
    if !matches!(outcome, "found" | "not_found" | "answered" | "not_owner") {
        // What OpenTelemetry's layer for `tracing` makes the state of a span of; to others it is a field.
        span.record("otel.status_code", "ERROR");
    }
}

fn word_of(error: &Error) -> &'static str {
    match error {
        Error::NotFound => "not_found",
        Error::Timeout { .. } | Error::LoadTimeout { .. } => "timed_out",
        Error::Overloaded { .. } | Error::RateLimited { .. } | Error::CircuitOpen { .. } => "refused",
        Error::PeerUnavailable { .. } => "not_reached",
        Error::NotOwner { .. } => "not_owner",
        Error::SourcePanicked { .. } => "panicked",
        _ => "failed",
    }
}
