//! An HTTP origin as a data source: a GET for each key.
//!
//! Knows HTTP and what its headers say of lifetimes, nothing of caches. The invariant: a source that was built has a URL that
//! makes a request for every key, and no key reaches another path, host or header than its place in that URL.

use std::time::{Duration, SystemTime};

use distcache::{DataSource, Fetched, SourceError};
use hyper::StatusCode;
use hyper::header::{AGE, CONTENT_ENCODING, HeaderMap};

mod builder;
mod client;
mod error;
mod freshness;
mod redirect;
mod template;
mod tls;
mod validator;

pub use builder::HttpSourceBuilder;
pub use error::HttpSourceError;

use client::{Answer, Client};
use error::Problem;
use freshness::Freshness;
use template::Template;
use validator::Validator;

/// A data source that asks an HTTP server.
///
/// ```
/// use distcache_sources::http::HttpSource;
///
/// # fn build() -> Result<(), Box<dyn std::error::Error>> {
/// let users = HttpSource::at("https://api.example.com/users/{key}").header("Authorization", "Bearer …").build()?;
/// # Ok(()) }
/// ```
///
/// # The key
/// It takes the place of `{key}` in the path or in the query of the URL, percent-encoded: a slash in a key is `%2F` and begins no
/// new segment. The keys `""`, `"."` and `".."` would mean another path; they are [`SourceError::NotFound`] without a request.
///
/// # The value
/// The body of the answer, as it is. Its headers are not kept.
///
/// | answer | means |
/// |---|---|
/// | 200 | the value |
/// | 301, 302, 303, 307, 308 | asked there, a few times; from https only to https; headers of your own go to the same host and port alone |
/// | 404, 410 | [`SourceError::NotFound`] |
/// | 408, 425, 429, 500 to 599, no connection, no answer in time, an answer cut short | [`SourceError::Unavailable`] |
/// | any other, and a body over the limit | [`SourceError::Failed`] |
///
/// # Lifetimes
/// As RFC 9111 says for a shared cache, and RFC 5861 for stale answers; they win over those of the keyspace.
///
/// | the answer has | the value |
/// |---|---|
/// | `s-maxage`, else `max-age`, else `Expires` | lives so long, less its `Age` |
/// | `no-store`, `private`, `no-cache` or `Vary: *` | answers those who wait and is not kept |
/// | `stale-while-revalidate`, `stale-if-error` | may be answered so much longer while it is loaded anew, or cannot be |
/// | `must-revalidate`, `proxy-revalidate`, or `s-maxage` without these two | is never answered stale |
/// | none of these | lives as its keyspace says |
///
/// An `ETag` or `Last-Modified` becomes the value's [validator](distcache::Fetched::validator); a value that is still held is asked
/// for with `If-None-Match` and `If-Modified-Since`, and 304 lets it live on.
///
/// One rule of RFC 9111 is left out on purpose, section 3.5 on requests with `Authorization`: the credentials are the source's, the
/// same for whoever reads the keyspace.
#[derive(Debug)]
pub struct HttpSource {
    template: Template,
    client: Client,
}

impl HttpSource {
    /// Begins to describe a source whose values stand under this URL, in which `{key}` stands for the key: in the path or in the
    /// query, once.
    pub fn at(url: impl Into<String>) -> HttpSourceBuilder {
        HttpSourceBuilder::new(url.into())
    }

    async fn ask(&self, key: &str, held: Option<&Fetched>) -> Result<Fetched, SourceError> {
        let url = self.template.url(key).ok_or(SourceError::NotFound)?;
        let conditions = held.and_then(Fetched::held_validator).map(|bytes| Validator::read(bytes).conditions());
        let began = SystemTime::now();
        let answer = self.client.get(url, conditions.unwrap_or_default()).await.map_err(Problem::of_source)?;
        let freshness = Freshness::of(&answer.headers, began, SystemTime::now());
        match (answer.status, held) {
            (StatusCode::OK, _) => Ok(freshness.given_to(Fetched::new(value(&answer)?), &answer.headers)),
            (StatusCode::NOT_MODIFIED, Some(held)) => Ok(freshness.given_to(held.clone(), &answer.headers)),
            (status, _) => Err(refusal(status)),
        }
    }
}

impl DataSource for HttpSource {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        self.ask(key, None).await
    }

    async fn revalidate(&self, key: &str, held: &Fetched) -> Result<Fetched, SourceError> {
        self.ask(key, Some(held)).await
    }
}

/// A body that nobody has asked to encode.
fn value(answer: &Answer) -> Result<bytes::Bytes, SourceError> {
    match answer.headers.get(CONTENT_ENCODING) {
        Some(coding) if coding != "identity" => Err(Problem::Encoded.of_source()),
        _ => Ok(answer.body.clone()),
    }
}

fn refusal(status: StatusCode) -> SourceError {
    match status.as_u16() {
        404 | 410 => SourceError::NotFound,
        408 | 425 | 429 | 500..=599 => SourceError::unavailable(Problem::Status(status)),
        _ => SourceError::failed(Problem::Status(status)),
    }
}

impl Freshness {
    fn given_to(self, mut fetched: Fetched, headers: &HeaderMap) -> Fetched {
        if let Some(ttl) = self.ttl {
            fetched = fetched.ttl(ttl);
        }
        if let Some(grace) = self.stale_while_revalidate {
            fetched = fetched.stale_while_revalidate(grace);
        }
        if let Some(grace) = self.stale_if_error {
            fetched = fetched.stale_if_error(grace);
        }
        match Validator::of(headers) {
            Some(validator) => fetched.validator(validator.bytes()),
            None => fetched,
        }
    }
}

/// What the server says of how long an answer has been on its way.
fn age(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}
