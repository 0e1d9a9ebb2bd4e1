//! Errors as HTTP: a status for machines in between, a stable code for programs, a message for people.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use distcache::{Error, SourceError};
use serde_json::{Value, json};

use crate::listener::{BodyTooSlow, Exceeded};

#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// When the same request may succeed, where that is known.
    retry_after: Option<Duration>,
    /// A limit that the listener counts.
    exceeded: Option<Exceeded>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None, exceeded: None }
    }

    pub fn answer_too_large(max: usize) -> Self {
        let message = format!("the answer is larger than {max} bytes; ask for fewer keys at a time");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "answer_too_large", message).exceeding(Exceeded::AnswerBytes)
    }

    pub fn body_too_large(code: &'static str, max: usize) -> Self {
        let message = format!("the body is larger than {max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, code, message).exceeding(Exceeded::BodyBytes)
    }

    fn exceeding(self, what: Exceeded) -> Self {
        Self { exceeded: Some(what), ..self }
    }

    /// A body that could not be read: too large, too slow, or broken.
    fn of_body(
        too_large: &'static str,
        status: StatusCode,
        text: String,
        cause: &(dyn std::error::Error + 'static),
    ) -> Self {
        if let Some(too_slow) = cause_of::<BodyTooSlow>(cause) {
            return Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", too_slow.to_string());
        }
        match status {
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(status, too_large, text).exceeding(Exceeded::BodyBytes),
            status => Self::new(status, "bad_body", text),
        }
    }

    pub fn internal(message: &'static str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    pub fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_such_route", "there is nothing here; values are at /v1/{keyspace}/{key}")
    }

    pub fn to_json(&self) -> Value {
        json!({ "code": self.code, "message": self.message })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.to_json() }))).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, seconds(self.retry_after.unwrap_or_default()).into());
        }
        if let Some(what) = self.exceeded {
            response.extensions_mut().insert(what);
        }
        response
    }
}

impl From<&Error> for ApiError {
    fn from(error: &Error) -> Self {
        let (status, code) = status_and_code(error);
        Self { retry_after: retry_after(error), ..Self::new(status, code, error.to_string()) }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

fn retry_after(error: &Error) -> Option<Duration> {
    match error {
        Error::RateLimited { retry_after } | Error::CircuitOpen { retry_after } => Some(*retry_after),
        _ => None,
    }
}

/// Whole seconds, as the header has them: not earlier than asked, and never at once.
fn seconds(duration: Duration) -> u64 {
    let begun = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(begun).max(1)
}

/// Status and code of every error. The codes are part of the API: they are added to, never changed.
fn status_and_code(error: &Error) -> (StatusCode, &'static str) {
    match error {
        Error::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        Error::KeyspaceNotFound { .. } => (StatusCode::NOT_FOUND, "keyspace_not_found"),
        Error::KeyspaceExists { .. } => (StatusCode::CONFLICT, "keyspace_exists"),
        Error::KeyEmpty => (StatusCode::BAD_REQUEST, "key_empty"),
        Error::KeyTooLarge { .. } => (StatusCode::BAD_REQUEST, "key_too_large"),
        Error::ValueTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "value_too_large"),
        Error::BatchTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "batch_too_large"),
        Error::Source(SourceError::Unavailable(_)) => (StatusCode::BAD_GATEWAY, "source_unavailable"),
        Error::Source(_) => (StatusCode::BAD_GATEWAY, "source_failed"),
        Error::SourcePanicked { .. } => (StatusCode::BAD_GATEWAY, "source_panicked"),
        Error::Protocol { .. } => (StatusCode::BAD_GATEWAY, "peer_protocol"),
        Error::LoadTimeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "load_timeout"),
        Error::Timeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
        Error::RateLimited { .. } => (StatusCode::SERVICE_UNAVAILABLE, "rate_limited"),
        Error::CircuitOpen { .. } => (StatusCode::SERVICE_UNAVAILABLE, "circuit_open"),
        Error::Overloaded { .. } => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        Error::PeerUnavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "peer_unavailable"),
        Error::NotOwner { .. } => (StatusCode::SERVICE_UNAVAILABLE, "not_owner"),
        Error::Unreached { .. } => (StatusCode::SERVICE_UNAVAILABLE, "unreached"),
        Error::Shutdown => (StatusCode::SERVICE_UNAVAILABLE, "shutdown"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), "bad_path", rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), "bad_query", rejection.body_text())
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        Self::of_body("value_too_large", rejection.status(), rejection.body_text(), &rejection)
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::of_body("batch_too_large", rejection.status(), rejection.body_text(), &rejection)
    }
}

fn cause_of<'e, E: std::error::Error + 'static>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e E> {
    std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use distcache::Overload;

    use super::*;

    #[test]
    fn the_two_ways_of_not_being_there_can_be_told_apart() {
        let (status, code) = status_and_code(&Error::NotFound);
        let (other_status, other_code) = status_and_code(&Error::KeyspaceNotFound { name: "users".into() });
        assert_eq!((status, other_status), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
        assert_ne!(code, other_code);
    }

    fn retry_after_of(error: Error) -> Option<String> {
        let response = ApiError::from(error).into_response();
        let header = response.headers().get(RETRY_AFTER)?;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        Some(header.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_guard_says_in_whole_seconds_when_it_lets_through() {
        let millis = Duration::from_millis;
        for (retry_after, seconds) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (90_500, "91")] {
            let retry_after = millis(retry_after);
            assert_eq!(retry_after_of(Error::CircuitOpen { retry_after }).as_deref(), Some(seconds));
            assert_eq!(retry_after_of(Error::RateLimited { retry_after }).as_deref(), Some(seconds));
        }
        let endless = Error::CircuitOpen { retry_after: Duration::MAX };
        assert_eq!(retry_after_of(endless), Some(u64::MAX.to_string()));
        let overloaded = Error::Overloaded { what: Overload::Loads, limit: 1 };
        assert_eq!(retry_after_of(overloaded).as_deref(), Some("1"));
        assert_eq!(retry_after_of(Error::LoadTimeout { limit: millis(1) }), None);
    }

    #[test]
    fn what_may_work_later_says_when() {
        let response = ApiError::from(Error::Shutdown).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(RETRY_AFTER));
        assert!(!ApiError::from(Error::NotFound).into_response().headers().contains_key(RETRY_AFTER));
    }
}
