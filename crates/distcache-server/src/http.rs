//! The data API over HTTP: values of keyspaces by key.
//!
//! Translates and decides nothing. The invariant: a body is either the value's own bytes with status 200, or JSON.

use std::time::Duration;

use axum::body::Bytes;
use axum::body::HttpBody;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router, body::Body};
use distcache::{DeleteOptions, Engine, Entry, GetOptions, Limits, Origin, PutOptions};
use serde::Deserialize;

mod batch;
mod error;

pub use error::ApiError;

use crate::config::parse_duration;

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const X_CACHE_ORIGIN: HeaderName = HeaderName::from_static("x-cache-origin");

/// `answer_bytes_max` bounds the answer to one batch.
pub fn router(engine: Engine, limits: &Limits, answer_bytes_max: usize) -> Router {
    let one = bounded(get(read).put(write).delete(remove), limits.value_bytes_max, "value_too_large");
    let many = bounded(post(batch::run), batch::body_bytes_max(limits), "batch_too_large");
    Router::new()
        .route("/v1/{keyspace}/{*key}", one)
        .route("/v1/{keyspace}/", get(no_key).put(no_key).delete(no_key))
        .route("/v1/{keyspace}", many)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(Extension(batch::AnswerBytesMax(answer_bytes_max)))
        .with_state(engine)
}

/// No larger body is read, and none is begun that says itself that it is larger.
fn bounded(route: MethodRouter<Engine>, max: usize, too_large: &'static str) -> MethodRouter<Engine> {
    let declared = move |request: Request, next: Next| async move {
        match request.body().size_hint().lower() > max as u64 {
            true => ApiError::body_too_large(too_large, max).into_response(),
            false => next.run(request).await,
        }
    };
    route.layer(DefaultBodyLimit::max(max)).layer(middleware::from_fn(declared))
}

type KeyPath = Result<Path<(String, String)>, PathRejection>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadQuery {
    timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteQuery {
    ttl: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    hold: Option<String>,
}

async fn read(
    State(engine): State<Engine>,
    path: KeyPath,
    query: Result<Query<ReadQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (Path((keyspace, key)), Query(query)) = (path?, query?);
    let options = match duration("timeout", query.timeout)? {
        Some(timeout) => GetOptions::new().timeout(timeout),
        None => GetOptions::new(),
    };
    let entry = engine.keyspace(&keyspace)?.get_entry(&key, options).await?;
    Ok((headers_of(&entry), Body::from(entry.value)).into_response())
}

async fn write(
    State(engine): State<Engine>,
    path: KeyPath,
    query: Result<Query<WriteQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    let (Path((keyspace, key)), Query(query)) = (path?, query?);
    let options = match duration("ttl", query.ttl)? {
        Some(ttl) => PutOptions::new().ttl(ttl),
        None => PutOptions::new(),
    };
    engine.keyspace(&keyspace)?.put_with(&key, body?, options).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(
    State(engine): State<Engine>,
    path: KeyPath,
    query: Result<Query<RemoveQuery>, QueryRejection>,
) -> Result<StatusCode, ApiError> {
    let (Path((keyspace, key)), Query(query)) = (path?, query?);
    let options = DeleteOptions::new().hold(duration("hold", query.hold)?.unwrap_or_default());
    engine.keyspace(&keyspace)?.delete_with(&key, options).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn no_key() -> ApiError {
    distcache::Error::KeyEmpty.into()
}

pub async fn no_route() -> ApiError {
    ApiError::no_route()
}

pub async fn no_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this resource does not take this method")
}

fn duration(parameter: &str, text: Option<String>) -> Result<Option<Duration>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    match parse_duration(&text) {
        Some(duration) => Ok(Some(duration)),
        None => {
            let message = format!("{parameter}={text}: expected a duration longer than zero, such as 30s or 250ms");
            Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_query", message))
        }
    }
}

fn headers_of(entry: &Entry) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(X_CACHE, HeaderValue::from_static(cache_status(entry)));
    headers.insert(X_CACHE_ORIGIN, HeaderValue::from_static(name_of(entry.origin)));
    headers.insert(AGE, entry.age.as_secs().into());
    // Nobody downstream may take a value for fresh that is not.
    let remaining = if entry.is_stale { Some(Duration::ZERO) } else { entry.remaining };
    if let Some(remaining) = remaining
        && let Ok(value) = HeaderValue::try_from(format!("max-age={}", remaining.as_secs()))
    {
        headers.insert(CACHE_CONTROL, value);
    }
    headers
}

/// Whether the source was asked for this answer; `stale`: it was not, or could not be, and the lifetime is over.
fn cache_status(entry: &Entry) -> &'static str {
    match entry.origin.is_hit() {
        _ if entry.is_stale => "stale",
        true => "hit",
        false => "miss",
    }
}

fn name_of(origin: Origin) -> &'static str {
    match origin {
        Origin::Owned => "owned",
        Origin::HotCopy => "hot-copy",
        Origin::Peer => "peer",
        Origin::Loaded => "loaded",
        Origin::Fallback => "fallback",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use distcache::{DataSource, Fetched, KeyspaceSpec, SourceError};

    use super::*;

    struct Hello;

    impl DataSource for Hello {
        async fn fetch(&self, _: &str) -> Result<Fetched, SourceError> {
            Ok(Fetched::new("hello").ttl(Duration::from_secs(60)))
        }
    }

    #[tokio::test]
    async fn a_value_past_its_lifetime_is_called_stale_and_fresh_for_nobody() {
        let engine = Engine::builder().keyspace(KeyspaceSpec::new("k", Hello)).start().await.unwrap();
        let keyspace = engine.keyspace("k").unwrap();
        let told = |entry: &Entry| {
            let headers = headers_of(entry);
            [X_CACHE, CACHE_CONTROL, AGE].map(|name| headers[name].to_str().unwrap().to_owned())
        };
        let mut entry = keyspace.get_entry("a", GetOptions::new()).await.unwrap();
        entry.remaining = Some(Duration::from_secs(59));
        assert_eq!(told(&entry), ["miss", "max-age=59", "0"]);
        entry.origin = Origin::Owned;
        assert_eq!(told(&entry), ["hit", "max-age=59", "0"]);
        (entry.is_stale, entry.age) = (true, Duration::from_secs(75));
        assert_eq!(told(&entry), ["stale", "max-age=0", "75"]);
        entry.remaining = None;
        assert_eq!(told(&entry), ["stale", "max-age=0", "75"]);
    }
}
