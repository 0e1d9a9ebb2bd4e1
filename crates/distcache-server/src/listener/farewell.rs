//! The last words to a client whose request was not read, or not to its end.
//!
//! The invariant: a farewell takes no longer than [`LINGER`], whatever the client does.

use hyper::StatusCode;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::limits::LINGER;

/// An answer that no request is needed for.
#[derive(Clone, Copy)]
pub(super) struct Farewell {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
}

pub(super) const NO_ROOM: Farewell = Farewell {
    status: StatusCode::SERVICE_UNAVAILABLE,
    code: "too_many_connections",
    message: "this node has as many connections as it may; try again",
};

pub(super) const HEAD_TOO_SLOW: Farewell = Farewell {
    status: StatusCode::REQUEST_TIMEOUT,
    code: "header_timeout",
    message: "the head of the request did not arrive in time",
};

pub(super) const TLS_REQUIRED: Farewell = Farewell {
    status: StatusCode::BAD_REQUEST,
    code: "tls_required",
    message: "this port speaks TLS: use https:// instead of http://",
};

impl Farewell {
    fn to_text(self) -> String {
        let Self { status, code, message } = self;
        let body = json!({ "error": { "code": code, "message": message } }).to_string();
        let again = if status == StatusCode::SERVICE_UNAVAILABLE { "retry-after: 1\r\n" } else { "" };
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n{again}content-length: {}\r\n\r\n\
             {body}",
            body.len()
        )
    }

    /// Says it, and leaves.
    pub(super) async fn say(self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
        let said = async {
            stream.write_all(self.to_text().as_bytes()).await?;
            stream.shutdown().await?;
            tokio::io::copy(stream, &mut tokio::io::sink()).await
        };
        let _ = tokio::time::timeout(LINGER, said).await;
    }
}

/// Lets a client that still sends see the answer that is on its way.
pub(super) async fn linger(stream: &mut (impl AsyncRead + Unpin)) {
    let _ = tokio::time::timeout(LINGER, tokio::io::copy(stream, &mut tokio::io::sink())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farewell_is_an_answer_with_an_error_like_any_other() {
        let text = NO_ROOM.to_text();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        assert!(head.contains("\r\nretry-after: 1\r\n") && head.contains("\r\nconnection: close\r\n"), "{head}");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], "too_many_connections");
    }
}
