//! Who is let in: what every connection between nodes passes before a word is said over it.
//!
//! Knows nothing of keys, gossip or requests. The invariant: whoever comes out of [`Gate`] is who it says it is, as far as this
//! node was given the means to tell: under TLS its certificate names it, under a secret it knows the secret.
//!
//! In reading order: `handshake` (the first words), `secret` (ciphers and proofs), `tls`, `lobby` (bounds on those who have not
//! said who they are), `refusals` (the book of those who were turned away).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::TcpStream;

pub(crate) mod handshake;
mod lobby;
mod refusals;
pub(crate) mod secret;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "trust/no_tls.rs"]
mod tls;

use handshake::{HandshakeError, HasRoom, Hello, Met, Party, Session};
pub(crate) use lobby::{Lobby, Visitor};
pub use refusals::Refusal;
pub(crate) use refusals::Refusals;
pub(crate) use secret::KeyRing;
pub use secret::{ClusterSecret, SecretError};
pub use tls::Tls;
#[cfg(feature = "tls")]
pub use tls::TlsError;
#[cfg(all(feature = "fuzz-internals", feature = "tls"))]
pub(crate) use tls::fuzz as tls_fuzz;

/// The first byte of a TLS connection; the protocol without TLS begins with a letter.
const TLS_HANDSHAKE: u8 = 0x16;

/// What this node was given to tell members from strangers.
#[derive(Default)]
pub(crate) struct Gate {
    pub(crate) ring: Option<KeyRing>,
    pub(crate) tls: Option<Tls>,
    pub(crate) refusals: Refusals,
}

/// A connection whose other side has said who it is.
pub(crate) struct Guest {
    pub(crate) stream: Stream,
    pub(crate) them: Hello,
    /// Where a secret is kept.
    pub(crate) session: Option<Session>,
}

/// A connection between nodes.
pub(crate) enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::TlsStream<TcpStream>>),
}

impl Gate {
    /// Connects to `addr`, where `node` is expected, if that is known.
    pub(crate) async fn connect(
        &self,
        addr: SocketAddr,
        node: Option<&str>,
        me: &Hello,
        limit: Duration,
    ) -> Result<Guest, HandshakeError> {
        within(limit, async {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            let channel = match &self.tls {
                None => Channel::plain(stream),
                Some(tls) => Channel::tls(Box::pin(tls.connect(stream, addr, node)).await?),
            };
            self.meet(channel, me, None).await
        })
        .await
    }

    /// Hears who has connected. `has_room` is asked for a place once it is clear that it may come in.
    pub(crate) async fn admit(
        &self,
        mut stream: TcpStream,
        me: &Hello,
        limit: Duration,
        has_room: HasRoom<'_>,
    ) -> Result<Guest, HandshakeError> {
        within(limit, async {
            stream.set_nodelay(true)?;
            let is_tls = first_byte(&mut stream).await? == TLS_HANDSHAKE;
            let channel = match &self.tls {
                Some(tls) if is_tls => Channel::tls(Box::pin(tls.accept(stream)).await?),
                None if !is_tls => Channel::plain(stream),
                tls => {
                    let why = if tls.is_some() { REQUIRES_TLS } else { SPEAKS_NO_TLS };
                    handshake::refuse(&mut stream, why).await;
                    return Err(HandshakeError::Refused(Refusal::Plaintext, why.into()));
                }
            };
            self.meet(channel, me, Some(has_room)).await
        })
        .await
    }

    /// `has_room` where it is the other side that has connected.
    async fn meet(&self, channel: Channel, me: &Hello, has_room: Option<HasRoom<'_>>) -> Result<Guest, HandshakeError> {
        let Channel { mut stream, binding, shown } = channel;
        let name_error = |node: &str| self.tls.as_ref()?.name_error(&shown, node);
        let party = Party { me, ring: self.ring.as_ref(), binding, name_error: &name_error };
        let met = match has_room {
            None => party.greet(&mut stream).await,
            Some(has_room) => party.receive_greeting(&mut stream, has_room).await,
        };
        let Met { them, session } = met.map_err(tls::worded)?;
        Ok(Guest { stream, them, session })
    }

    /// Counts and logs what an attempt came to, of this node at another or of another here.
    pub(crate) fn note(&self, addr: SocketAddr, error: &HandshakeError) {
        let is_news = match error {
            HandshakeError::TurnedAway(_) => self.refusals.is_news(None, addr.ip()),
            error => error.refusal().is_some_and(|reason| self.refusals.note(reason, addr.ip())),
        };
        match error {
            _ if !is_news => tracing::debug!(%addr, %error, "a connection came to nothing"),
            HandshakeError::TurnedAway(_) => tracing::warn!(%addr, %error, "a node refuses this one"),
            _ => tracing::warn!(%addr, %error, "a connection was refused"),
        }
    }
}

const REQUIRES_TLS: &str = "it was tried without TLS, which is required";
const SPEAKS_NO_TLS: &str = "it was tried with TLS, which is not set up";

async fn within<T>(
    limit: Duration,
    talk: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(limit, talk).await.unwrap_or(Err(HandshakeError::Silent(limit)))
}

/// Mutable for the simulator's sake.
async fn first_byte(stream: &mut TcpStream) -> io::Result<u8> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0]),
    }
}

/// A connection over which nobody has said who it is.
struct Channel {
    stream: Stream,
    /// Of the TLS session, if it is one.
    binding: [u8; 32],
    shown: tls::Shown,
}

impl Channel {
    fn plain(stream: TcpStream) -> Self {
        Self { stream: Stream::Plain(stream), binding: [0; 32], shown: Default::default() }
    }

    #[cfg(feature = "tls")]
    fn tls(secured: tls::Secured) -> Self {
        Self { stream: Stream::Tls(secured.stream), binding: secured.binding, shown: secured.shown }
    }

    #[cfg(not(feature = "tls"))]
    fn tls(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// The same call on whichever stream it is.
macro_rules! on_either {
    ($stream:expr, $method:ident($($argument:expr),*)) => {
        match $stream.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).$method($($argument),*),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_either!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_either!(self, poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, poll_shutdown(cx))
    }
}
