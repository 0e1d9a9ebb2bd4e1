//! The two questions to the API server and their answers: a page of the list of pods, and a watch.
//!
//! Knows paths, statuses and JSON; does not retry and remembers nothing. The invariant: no more of an answer is held than its
//! bound, and every wait for one ends.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use kube::api::{ListParams, WatchParams};
use serde::Deserialize;
use tokio::time::{Duration, Instant, timeout, timeout_at};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;
use tower::{Service as _, ServiceExt};

use crate::access::{self, Response, Service};
use crate::failure::{Failure, Status};
use crate::limits::{
    ANSWER_TIMEOUT, EVENT_BYTES_MAX, PAGE_BYTES_MAX, PAGE_PODS, REFUSAL_BYTES_MAX, WATCH_GRACE, WATCH_SECONDS_MAX,
};
use crate::pod::{Metadata, Pod};
use crate::settings::Settings;

/// One page of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(crate) metadata: PageMetadata,
    #[serde(default)]
    pub(crate) items: Option<Vec<Pod>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageMetadata {
    #[serde(default)]
    pub(crate) resource_version: String,
    /// Where the next page begins; empty after the last.
    #[serde(default, rename = "continue")]
    pub(crate) next: String,
}

/// What a watch tells.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
pub(crate) enum Event {
    Added(Pod),
    Modified(Pod),
    Deleted(Pod),
    /// Nothing has changed up to this version.
    Bookmark(Bookmark),
    Error(Status),
}

#[derive(Debug, Deserialize)]
pub(crate) struct Bookmark {
    pub(crate) metadata: Metadata,
}

/// The API server, asked with one set of credentials.
pub(crate) struct Api {
    service: Service,
    settings: Arc<Settings>,
    namespace: String,
    pods: kube::core::Request,
}

impl Api {
    /// Reads the credentials. No connection is made yet.
    pub(crate) async fn open(settings: Arc<Settings>) -> Result<Self, Failure> {
        let blocking = tokio::task::spawn_blocking(move || {
            let config = settings.access.config()?;
            let service = access::service(&config)?;
            let namespace = settings.namespace.clone().unwrap_or(config.default_namespace);
            let pods = kube::core::Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
            Ok(Self { service, settings, namespace, pods })
        });
        blocking
            .await
            .unwrap_or_else(|error| Err(Failure::settings(format!("reading the credentials failed: {error}"))))
    }

    /// The page that begins at `next`, the first one if that is empty.
    pub(crate) async fn page(&mut self, next: &str) -> Result<Page, Failure> {
        let mut params = ListParams::default().labels(&self.settings.labels).limit(PAGE_PODS);
        if !next.is_empty() {
            params = params.continue_token(next);
        }
        let request = self.pods.list(&params).map_err(Failure::nonsense)?;
        let body = self.ask("list", request).await?.into_body();
        let bytes = read(body, "a list", PAGE_BYTES_MAX).await?;
        serde_json::from_slice(&bytes).map_err(Failure::nonsense)
    }

    /// What happens after `version`.
    pub(crate) async fn watch(&mut self, version: &str) -> Result<Events, Failure> {
        let seconds = rand::random_range(WATCH_SECONDS_MAX / 2..=WATCH_SECONDS_MAX);
        let params = WatchParams::default().labels(&self.settings.labels).timeout(seconds);
        let request = self.pods.watch(&params, version).map_err(Failure::nonsense)?;
        let until = Instant::now() + Duration::from_secs(seconds.into()) + WATCH_GRACE;
        Ok(Events::of(self.ask("watch", request).await?.into_body(), until))
    }

    async fn ask(&mut self, verb: &'static str, request: http::Request<Vec<u8>>) -> Result<Response, Failure> {
        let request = request.map(|_| Empty::new());
        let answer = async {
            let service = self.service.ready().await?;
            service.call(request).await
        };
        let response = match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(answer) => answer.map_err(|error| Failure::unreachable(&*error))?,
            Err(_) => return Err(Failure::Unreachable(format!("no answer within {ANSWER_TIMEOUT:?}"))),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let body = read(response.into_body(), "a refusal", REFUSAL_BYTES_MAX).await.unwrap_or_default();
        Err(self.failure(verb, &Status::of_response(code, &body)))
    }

    /// What a status means here.
    pub(crate) fn failure(&self, verb: &'static str, status: &Status) -> Failure {
        let said = status.to_string();
        match status.code {
            400 | 422 => Failure::Refused { labels: self.settings.labels.clone(), said },
            403 => Failure::Forbidden { verb, namespace: self.namespace.clone(), said },
            410 => Failure::Gone { said },
            code => Failure::Said { code, said },
        }
    }
}

/// A whole body, within its bound.
async fn read(body: Incoming, what: &'static str, bytes_max: usize) -> Result<Bytes, Failure> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(read) => Ok(read.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::TooLarge { what, bytes_max }),
        Err(error) => Err(Failure::unreachable(&*error)),
    }
}

type Lines = futures_util::stream::BoxStream<'static, Result<String, LinesCodecError>>;

/// A watch under way.
pub(crate) struct Events {
    lines: Lines,
    /// Later than the API server ends it.
    until: Instant,
}

impl Events {
    fn of(body: Incoming, until: Instant) -> Self {
        let bytes = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
        let lines = FramedRead::new(bytes, LinesCodec::new_with_max_length(EVENT_BYTES_MAX));
        Self { lines: lines.boxed(), until }
    }

    /// `None`: the watch has ended in order.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Failure> {
        let line = match timeout_at(self.until, self.lines.next()).await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(None),
            Err(_) => return Err(Failure::Unreachable("a watch neither tells anything nor ends".into())),
        };
        let line = line.map_err(|error| match error {
            LinesCodecError::MaxLineLengthExceeded => {
                Failure::TooLarge { what: "an event", bytes_max: EVENT_BYTES_MAX }
            }
            LinesCodecError::Io(error) => Failure::unreachable(&error),
        })?;
        serde_json::from_str(&line).map(Some).map_err(Failure::nonsense)
    }
}
