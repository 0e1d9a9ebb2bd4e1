//! What one listener puts up with: how many clients, for how long, of what size.
//!
//! Only numbers. The invariant: no client holds a connection, a task or memory beyond what stands here.

use std::time::Duration;

/// The bounds of one listener. `[http]` and `[admin]` set them under these names.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerLimits {
    /// Connections open at once. A further one takes the place of one without a request under way, else it is answered 503.
    pub connections_max: usize,
    /// From the first byte of a request, and from the opening of a connection, to the end of the request's head.
    pub header_timeout: Duration,
    /// Request line and headers.
    pub header_bytes_max: usize,
    /// From the end of a head to the end of its body.
    pub body_timeout: Duration,
    /// From an answer to the first byte of the next request.
    pub idle_timeout: Duration,
    /// Without a byte of an answer leaving, because the client reads none.
    pub write_timeout: Duration,
    /// From the opening of a connection to the end of the TLS handshake.
    pub handshake_timeout: Duration,
}

impl ListenerLimits {
    pub const HTTP: Self = Self {
        connections_max: 4_096,
        header_timeout: Duration::from_secs(10),
        header_bytes_max: 16 << 10,
        body_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(30),
        handshake_timeout: Duration::from_secs(5),
    };

    pub const ADMIN: Self = Self { connections_max: 256, ..Self::HTTP };
}

/// The headers of a request. Not a setting: hyper keeps that many on the stack, and more of them in slower memory.
pub const HEADERS_MAX: usize = 100;

/// What is read ahead of a request or its body.
pub(super) const READ_BUFFER_BYTES_MAX: usize = 64 << 10;

/// How long a client that still sends is listened to after its connection is done with, for it to see the answer: a socket
/// closed over unread bytes takes back what it sent.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// Clients that are told at once that there is no room for them; further ones are closed without a word.
pub(super) const REFUSALS_MAX: usize = 64;

/// How long whoever was promised another's place waits for it.
pub(super) const SEAT_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that are looked at, the oldest first, for one that gives up its place.
pub(super) const SEATS_LOOKED_AT_MAX: usize = 4_096;

/// After a failed accept, most likely for want of a file descriptor, until the next.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Between two looks at the files of certificates.
pub(super) const CERTIFICATES_READ_EVERY: Duration = Duration::from_secs(1);

/// Of a certificate chain, a key or a list of CAs.
pub(super) const CERTIFICATE_FILE_BYTES_MAX: u64 = 1 << 20;
