//! The client side of HTTP: one kept-alive connection to one node.
//!
//! Knows URLs, status codes and the shape of errors; does not retry and does not choose between nodes. Over TLS, [`trust`] says
//! whom to believe.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

mod trust;

pub use trust::{Trust, TrustArgs, TrustError};
use trust::{asks_for_certificate, speaks_no_tls};

/// Where a node speaks HTTP: `http://host:port` or `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUrl {
    is_tls: bool,
    authority: String,
    host: String,
    port: u16,
}

impl FromStr for NodeUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: &str| Err(format!("{why}; expected http://host:port or https://host:port"));
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let Ok(uri) = with_scheme.parse::<Uri>() else { return wrong("not a URL") };
        let (is_tls, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return wrong("only HTTP is spoken"),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return wrong("a path is not expected");
        }
        let Some(authority) = uri.authority() else { return wrong("no host") };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(port);
        Ok(Self { is_tls, authority: authority.as_str().to_owned(), host, port })
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority)
    }
}

/// Why a call has no answer, or one that is an error.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("nobody listens on {url}: {error}")]
    NotConnected {
        url: NodeUrl,
        #[source]
        error: std::io::Error,
    },
    #[error("no TLS with {url}: {error}")]
    NoTls {
        url: NodeUrl,
        #[source]
        error: std::io::Error,
    },
    #[error("{url} does not speak TLS; try http://{}", .url.authority)]
    Plaintext { url: NodeUrl },
    #[error("to speak TLS with {url}, name the CA of its certificate with --ca FILE or DISTCACHE_CA")]
    NoCa { url: NodeUrl },
    #[error("{url} asks for a certificate; name yours with --cert FILE and --key FILE")]
    CertificateRequired { url: NodeUrl },
    #[error("the connection to {url} broke: {error}")]
    Broken {
        url: NodeUrl,
        #[source]
        error: hyper::Error,
    },
    #[error("{url} did not answer within {}", humantime::format_duration(*.limit))]
    Timeout { url: NodeUrl, limit: Duration },
    #[error("{message} ({code})")]
    Refused { status: StatusCode, code: String, message: String },
    #[error("{url} answers something that is not understood: {reason}")]
    Nonsense { url: NodeUrl, reason: String },
}

impl CallError {
    /// Whether the source has no value under the key.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "not_found")
    }
}

/// An answer with a status of success.
#[derive(Debug)]
pub struct Reply {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A connection, kept alive between calls.
pub struct Connection {
    url: NodeUrl,
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes; ends with the connection.
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    pub async fn open(url: &NodeUrl, trust: &Trust, limit: Duration) -> Result<Self, CallError> {
        let opened = tokio::time::timeout(limit, Self::open_unbounded(url, trust)).await;
        opened.unwrap_or_else(|_| Err(CallError::Timeout { url: url.clone(), limit }))
    }

    async fn open_unbounded(url: &NodeUrl, trust: &Trust) -> Result<Self, CallError> {
        let not_connected = |error| CallError::NotConnected { url: url.clone(), error };
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(not_connected)?;
        stream.set_nodelay(true).map_err(not_connected)?;
        if !url.is_tls {
            return Self::over(stream, url).await;
        }
        let no_ca = || CallError::NoCa { url: url.clone() };
        let handshake = trust.handshake(&url.host, stream).ok_or_else(no_ca)?.await;
        let stream = handshake.map_err(|error| match speaks_no_tls(&error) {
            true => CallError::Plaintext { url: url.clone() },
            false => CallError::NoTls { url: url.clone(), error },
        })?;
        Self::over(stream, url).await
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        url: &NodeUrl,
    ) -> Result<Self, CallError> {
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| broken(url, error))?;
        let driver = tokio::spawn(async move {
            // What goes wrong here, the call under way is told.
            let _ = connection.await;
        });
        Ok(Self { url: url.clone(), sender, _driver: AbortOnDropHandle::new(driver) })
    }

    /// One call. After an error other than [`CallError::Refused`] the connection is of no more use.
    pub async fn call(&mut self, method: Method, path: &str, body: Bytes, limit: Duration) -> Result<Reply, CallError> {
        self.call_with(method, path, HeaderMap::new(), body, limit).await
    }

    /// The same with these headers.
    pub async fn call_with(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
        limit: Duration,
    ) -> Result<Reply, CallError> {
        let answered = tokio::time::timeout(limit, self.call_unbounded(method, path, headers, body)).await;
        answered.unwrap_or_else(|_| Err(CallError::Timeout { url: self.url.clone(), limit }))
    }

    async fn call_unbounded(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Reply, CallError> {
        let broken = |error| broken(&self.url, error);
        let nonsense =
            |error: hyper::http::Error| CallError::Nonsense { url: self.url.clone(), reason: error.to_string() };
        let request = Request::builder().method(method).uri(path).header(HOST, &self.url.authority);
        let mut request = request.body(Full::new(body)).map_err(nonsense)?;
        request.headers_mut().extend(headers);
        self.sender.ready().await.map_err(broken)?;
        let (head, body) = self.sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = body.collect().await.map_err(broken)?.to_bytes();
        if head.status.is_success() {
            return Ok(Reply { headers: head.headers, body });
        }
        Err(self.refusal(head.status, &body))
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> CallError {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let part = |name: &str| Some(json.as_ref()?.get("error")?.get(name)?.as_str()?.to_owned());
        match (part("code"), part("message")) {
            (Some(code), Some(message)) => CallError::Refused { status, code, message },
            _ => CallError::Nonsense { url: self.url.clone(), reason: format!("status {status}") },
        }
    }
}

/// A server that wants a certificate says so only after the handshake, from the client's view.
fn broken(url: &NodeUrl, error: hyper::Error) -> CallError {
    match asks_for_certificate(&error) {
        true => CallError::CertificateRequired { url: url.clone() },
        false => CallError::Broken { url: url.clone(), error },
    }
}

/// One call on a connection of its own.
pub async fn call_once(
    url: &NodeUrl,
    trust: &Trust,
    method: Method,
    path: &str,
    body: Bytes,
    limit: Duration,
) -> Result<Reply, CallError> {
    Connection::open(url, trust, limit).await?.call(method, path, body, limit).await
}

/// One `GET` of JSON on a connection of its own.
pub async fn json(url: &NodeUrl, trust: &Trust, path: &str, limit: Duration) -> Result<Value, CallError> {
    let reply = call_once(url, trust, Method::GET, path, Bytes::new(), limit).await?;
    let nonsense = |error: serde_json::Error| CallError::Nonsense { url: url.clone(), reason: error.to_string() };
    serde_json::from_slice(&reply.body).map_err(nonsense)
}

/// Any text as one segment of a path.
pub fn segment(text: &str) -> impl fmt::Display + '_ {
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, ESCAPED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_nodes() {
        let port = |text: &str| text.parse::<NodeUrl>().map(|url| (url.host, url.port));
        assert_eq!(port("http://127.0.0.1:8080"), Ok(("127.0.0.1".into(), 8080)));
        assert_eq!(port("cache-1:8080/"), Ok(("cache-1".into(), 8080)));
        assert_eq!(port("http://[::1]:81"), Ok(("::1".into(), 81)));
        assert_eq!(port("https://cache"), Ok(("cache".into(), 443)));
        assert_eq!("https://cache:8443/".parse::<NodeUrl>().unwrap().to_string(), "https://cache:8443");
        assert!(port("ftp://cache").is_err());
        assert!(port("http://cache/v1").is_err());
    }

    #[test]
    fn any_text_is_one_segment() {
        assert_eq!(segment("a/b?c=%#é").to_string(), "a%2Fb%3Fc%3D%25%23%C3%A9");
        assert_eq!(segment("plain-1_2.3~").to_string(), "plain-1_2.3~");
    }
}
