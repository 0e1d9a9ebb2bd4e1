//! What happened at one listener, for the admin interface.
//!
//! Numbers that only grow. The invariant: each limit that cuts a client off counts it under a name of its own.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One number.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add_one(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug, Default)]
pub struct Counters {
    pub connections_accepted: Counter,
    /// Beyond `connections_max`.
    pub connections_refused: Counter,
    /// Closed for somebody else's sake, since `connections_max` was reached and no request was under way.
    pub connections_displaced: Counter,
    /// The system gave no socket: no file descriptor, mostly.
    pub accepts_failed: Counter,
    pub headers_timed_out: Counter,
    /// Too long, or too many.
    pub headers_too_large: Counter,
    pub bodies_timed_out: Counter,
    pub bodies_too_large: Counter,
    pub answers_too_large: Counter,
    pub idle_closed: Counter,
    pub writes_timed_out: Counter,
    /// Of TLS, also by time.
    pub handshakes_failed: Counter,
    /// HTTP without TLS where TLS is spoken.
    pub plaintext_refused: Counter,
    pub certificates_reloaded: Counter,
    /// Files that changed and could not be used.
    pub certificates_rejected: Counter,
}

/// A limit that an answer is about, known to whoever made it: kept beside the answer for the listener to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    BodyBytes,
    AnswerBytes,
}

impl Counters {
    pub(super) fn exceeded(&self, what: Exceeded) {
        match what {
            Exceeded::BodyBytes => self.bodies_too_large.add_one(),
            Exceeded::AnswerBytes => self.answers_too_large.add_one(),
        }
    }

    /// Every counter with its name, in the order of a connection's life.
    pub fn named(&self) -> [(&'static str, u64); 15] {
        [
            ("connections_accepted", &self.connections_accepted),
            ("connections_refused", &self.connections_refused),
            ("connections_displaced", &self.connections_displaced),
            ("accepts_failed", &self.accepts_failed),
            ("handshakes_failed", &self.handshakes_failed),
            ("plaintext_refused", &self.plaintext_refused),
            ("headers_timed_out", &self.headers_timed_out),
            ("headers_too_large", &self.headers_too_large),
            ("bodies_timed_out", &self.bodies_timed_out),
            ("bodies_too_large", &self.bodies_too_large),
            ("answers_too_large", &self.answers_too_large),
            ("writes_timed_out", &self.writes_timed_out),
            ("idle_closed", &self.idle_closed),
            ("certificates_reloaded", &self.certificates_reloaded),
            ("certificates_rejected", &self.certificates_rejected),
        ]
        .map(|(name, counter)| (name, counter.get()))
    }
}
