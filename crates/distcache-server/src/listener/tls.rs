//! The begin of a connection where TLS is spoken.
//!
//! The invariant: however a client begins, it is talking TLS, told that it should, or gone, within the handshake's time.

use std::io;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::ListenerState;
use super::certificates::Certificates;
use super::farewell::TLS_REQUIRED;

/// The first byte of every TLS handshake: the record type (RFC 8446, 5.1).
const HANDSHAKE: u8 = 0x16;

enum Begin {
    Tls(Box<TlsStream<TcpStream>>),
    Plaintext(TcpStream),
    /// The client left without a word.
    Nothing,
}

/// The client's stream, if it came to talk TLS and that worked.
pub(super) async fn handshake(
    stream: TcpStream,
    certificates: &Certificates,
    listener: &ListenerState,
) -> Option<Box<TlsStream<TcpStream>>> {
    let peer = stream.peer_addr().ok();
    let begun = tokio::time::timeout(listener.limits.handshake_timeout, begin(stream, certificates)).await;
    match begun.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"))) {
        Ok(Begin::Tls(stream)) => return Some(stream),
        Ok(Begin::Nothing) => {}
        Ok(Begin::Plaintext(mut stream)) => {
            listener.counters.plaintext_refused.add_one();
            if let Some(times) = listener.seldom.plaintext.event(std::time::Instant::now()) {
                let name = listener.name;
                tracing::warn!(listener = name, ?peer, times, "a client speaks HTTP without TLS to a port of TLS");
            }
            TLS_REQUIRED.say(&mut stream).await;
        }
        Err(error) => {
            listener.counters.handshakes_failed.add_one();
            if let Some(times) = listener.seldom.handshakes.event(std::time::Instant::now()) {
                tracing::warn!(listener = listener.name, ?peer, times, %error, "a TLS handshake failed");
            }
        }
    }
    None
}

async fn begin(stream: TcpStream, certificates: &Certificates) -> io::Result<Begin> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Ok(Begin::Nothing),
        _ if first[0] != HANDSHAKE => Ok(Begin::Plaintext(stream)),
        _ => Ok(Begin::Tls(Box::new(TlsAcceptor::from(certificates.current()).accept(stream).await?))),
    }
}
