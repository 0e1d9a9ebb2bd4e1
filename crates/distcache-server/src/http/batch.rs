//! `POST /v1/{keyspace}:batchGet`: many keys, one answer each, in order.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
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
pub(super) struct Reply {
    values: Vec<Answer>,
}

#[derive(Serialize)]
struct Answer {
    key: String,
    status: &'static str,
    /// The value, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
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

/// Room for the most keys of the greatest length.
pub(super) fn body_bytes_max(limits: &Limits) -> usize {
    const PUNCTUATION_BYTES: usize = 8;
    limits.batch_keys_max.saturating_mul(limits.key_bytes_max + PUNCTUATION_BYTES)
}

pub(super) async fn run(
    State(engine): State<Engine>,
    path: Result<Path<String>, PathRejection>,
    request: Result<Json<Request>, JsonRejection>,
) -> Result<Json<Reply>, ApiError> {
    let Path(path) = path?;
    let keyspace = path.strip_suffix(":batchGet").ok_or_else(ApiError::no_route)?;
    let Json(request) = request?;
    let options = match super::duration("timeout", request.timeout)? {
        Some(timeout) => GetOptions::new().timeout(timeout),
        None => GetOptions::new(),
    };
    let entries = engine.keyspace(keyspace)?.get_many_entries(&request.keys, options).await?;
    let values = request.keys.into_iter().zip(entries).map(|(key, entry)| answer(key, entry)).collect();
    Ok(Json(Reply { values }))
}

fn answer(key: String, entry: Result<Entry, Error>) -> Answer {
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
                Ok(text) => (Some(text.to_owned()), None),
                Err(_) => (None, Some(STANDARD.encode(&entry.value))),
            };
            let status = if entry.origin.is_hit() { "hit" } else { "miss" };
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
        let found = serde_json::to_value(answer("k".into(), Err(Error::NotFound))).unwrap();
        assert_eq!(found, serde_json::json!({ "key": "k", "status": "not_found" }));
        let failed = serde_json::to_value(answer("k".into(), Err(Error::Shutdown))).unwrap();
        assert_eq!(failed["status"], "error");
        assert_eq!(failed["error"]["code"], "shutdown");
    }
}
