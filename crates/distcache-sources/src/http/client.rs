//! One GET with its redirections, within its time and size.
//!
//! Knows requests and answers, not what they mean. The invariant: no more of a body is held than the limit, and headers of the
//! user go to nobody but the server that the user named.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use super::error::Problem;
use super::redirect;

/// Idle connections live no longer than most servers let them.
const IDLE: Duration = Duration::from_secs(20);

pub(super) struct Limits {
    pub(super) timeout: Duration,
    pub(super) body_bytes_max: usize,
    pub(super) redirects_max: usize,
}

pub(super) struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    headers: HeaderMap,
    limits: Limits,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Read for the status 200 alone.
    pub(super) body: Bytes,
}

impl Client {
    pub(super) fn new(tls: ClientConfig, headers: HeaderMap, limits: Limits) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(limits.timeout));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let pool = Pool::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector.wrap_connector(http));
        Self { pool, headers, limits }
    }

    pub(super) async fn get(&self, url: Uri, conditions: HeaderMap) -> Result<Answer, Problem> {
        let whole = self.follow(url, conditions);
        let answer = tokio::time::timeout(self.limits.timeout, whole).await;
        answer.unwrap_or(Err(Problem::TimedOut(self.limits.timeout)))
    }

    async fn follow(&self, first: Uri, conditions: HeaderMap) -> Result<Answer, Problem> {
        let mut url = first.clone();
        for _ in 0..=self.limits.redirects_max {
            let request = self.request(&url, redirect::is_same_origin(&first, &url), &conditions);
            let response = self.pool.request(request).await.map_err(Problem::NotReached)?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return self.answer(response).await;
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            url = location.and_then(|location| redirect::target(&url, location)).ok_or(Problem::Redirect)?;
        }
        Err(Problem::TooManyRedirects(self.limits.redirects_max))
    }

    fn request(&self, url: &Uri, is_first_host: bool, conditions: &HeaderMap) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("distcache/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if is_first_host {
            headers.extend(self.headers.clone());
        }
        headers.extend(conditions.clone());
        request
    }

    async fn answer(&self, response: Response<Incoming>) -> Result<Answer, Problem> {
        let (parts, body) = response.into_parts();
        let body = if parts.status == StatusCode::OK { self.body(body).await? } else { Bytes::new() };
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    async fn body(&self, mut body: Incoming) -> Result<Bytes, Problem> {
        let max = self.limits.body_bytes_max;
        if body.size_hint().lower() > max as u64 {
            return Err(Problem::TooLarge(max));
        }
        // Zero where the length is not announced.
        let mut whole = BytesMut::with_capacity(body.size_hint().lower() as usize);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(Problem::BrokenOff)?;
            let Ok(data) = frame.into_data() else { continue };
            if data.len() > max - whole.len() {
                return Err(Problem::TooLarge(max));
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }
}

/// Names of headers alone: their values may be secret.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().collect();
        f.debug_struct("Client").field("headers", &names).field("timeout", &self.limits.timeout).finish_non_exhaustive()
    }
}
