//! `POST /v1/{keyspace}:batchGet`: many keys, one answer each, in order.
//!
//! The invariant: an answer takes no more memory than its limit, which is found out while it is written.

use std::io;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use distcache::{Engine, Entry, Error, GetOptions, Limits};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::ApiError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    keys: Vec<String>,
    timeout: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    key: &'a str,
    status: &'static str,
    /// The value, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    /// The value, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
}

/// The largest answer that is given.
#[derive(Clone, Copy)]
pub struct AnswerBytesMax(pub usize);

/// Room for the most keys of the greatest length.
pub(super) fn body_bytes_max(limits: &Limits) -> usize {
    const PUNCTUATION_BYTES: usize = 8;
    limits.batch_keys_max.saturating_mul(limits.key_bytes_max + PUNCTUATION_BYTES)
}

pub(super) async fn run(
    State(engine): State<Engine>,
    Extension(AnswerBytesMax(max)): Extension<AnswerBytesMax>,
    path: Result<Path<String>, PathRejection>,
    request: Result<Json<Request>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Path(path) = path?;
    let keyspace = path.strip_suffix(":batchGet").ok_or_else(ApiError::no_route)?;
    let Json(request) = request?;
    let options = match super::duration("timeout", request.timeout)? {
        Some(timeout) => GetOptions::new().timeout(timeout),
        None => GetOptions::new(),
    };
    let entries = engine.keyspace(keyspace)?.get_many_entries(&request.keys, options).await?;
    let body = written(&request.keys, entries, max).map_err(|TooLarge| ApiError::answer_too_large(max))?;
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// The answer would be larger than it may.
#[derive(Debug, PartialEq)]
struct TooLarge;

/// `{"values":[…]}`. Each entry is let go once it is written.
fn written(keys: &[String], entries: Vec<Result<Entry, Error>>, max: usize) -> Result<Vec<u8>, TooLarge> {
    let mut body = Bounded { bytes: Vec::new(), max };
    body.put(b"{\"values\":[")?;
    for (i, (key, entry)) in keys.iter().zip(entries).enumerate() {
        body.put(if i == 0 { b"" } else { b"," })?;
        body.put_answer(key, &entry)?;
    }
    body.put(b"]}")?;
    Ok(body.bytes)
}

struct Bounded {
    bytes: Vec<u8>,
    max: usize,
}

impl Bounded {
    fn put(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        if bytes.len() > self.max - self.bytes.len() {
            return Err(TooLarge);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn put_answer(&mut self, key: &str, entry: &Result<Entry, Error>) -> Result<(), TooLarge> {
        // Encoding a value takes memory of its own, so it is not begun in vain.
        let len = entry.as_ref().map_or(0, |entry| entry.value.len());
        if len > self.max - self.bytes.len() {
            return Err(TooLarge);
        }
        // Nothing else can fail: the keys of the object are strings.
        serde_json::to_writer(self, &answer(key, entry)).map_err(|_| TooLarge)
    }
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.put(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(TooLarge) => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn answer<'a>(key: &'a str, entry: &'a Result<Entry, Error>) -> Answer<'a> {
    let empty = Answer {
        key,
        status: "not_found",
        value: None,
        value_base64: None,
        age_ms: None,
        remaining_ms: None,
        error: None,
    };
    match entry {
        Ok(entry) => {
            let (value, value_base64) = match std::str::from_utf8(&entry.value) {
                Ok(text) => (Some(text), None),
                Err(_) => (None, Some(STANDARD.encode(&entry.value))),
            };
            let status = super::cache_status(entry);
            let age_ms = Some(entry.age.as_millis() as u64);
            let remaining_ms = entry.remaining.map(|remaining| remaining.as_millis() as u64);
            Answer { status, value, value_base64, age_ms, remaining_ms, ..empty }
        }
        Err(Error::NotFound) => empty,
        Err(error) => Answer { status: "error", error: Some(ApiError::from(error).to_json()), ..empty },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_found_is_no_error() {
        let found = serde_json::to_value(answer("k", &Err(Error::NotFound))).unwrap();
        assert_eq!(found, serde_json::json!({ "key": "k", "status": "not_found" }));
        let failed = serde_json::to_value(answer("k", &Err(Error::Shutdown))).unwrap();
        assert_eq!(failed["status"], "error");
        assert_eq!(failed["error"]["code"], "shutdown");
    }

    #[test]
    fn an_answer_is_as_large_as_it_may_and_no_larger() {
        let keys: Vec<String> = ["a", "b"].map(str::to_owned).to_vec();
        let entries = || vec![Err(Error::NotFound), Err(Error::Shutdown)];
        let whole = written(&keys, entries(), 1_000).unwrap();
        let json: Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!(json["values"][0], serde_json::json!({ "key": "a", "status": "not_found" }));
        assert_eq!(json["values"][1]["key"], "b");
        assert_eq!(written(&keys, entries(), whole.len()).unwrap(), whole);
        for max in 0..whole.len() {
            assert_eq!(written(&keys, entries(), max), Err(TooLarge), "{max}");
        }
    }
}
