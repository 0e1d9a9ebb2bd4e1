//! Requests checked, lists and watches answered.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::selector::Selector;
use super::{GoneBy, Mood, NAMESPACE, Shared, State};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Fewer than are asked for, which the API allows: so every list of some length has pages.
const PAGE_PODS: usize = 3;

pub async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, Infallible> {
    let mood = shared.state().mood;
    if mood == Mood::Silent {
        return std::future::pending().await;
    }
    let question = checked(&request, &mut shared.state());
    Ok(match question {
        Err(No::Violation(what)) => {
            let no = refusal(400, "BadRequest", &what);
            shared.state().violations.push(what);
            no
        }
        Err(No::Refusal(code, reason, message)) => refusal(code, reason, &message),
        Ok(_) if mood == Mood::Flooding => flood(),
        Ok(Question::List { selector, next }) => list(&shared, &selector, next),
        Ok(Question::Watch { selector, version, until }) => watch(shared, selector, version, until),
    })
}

enum Question {
    List { selector: Selector, next: Option<String> },
    Watch { selector: Selector, version: u64, until: Instant },
}

enum No {
    /// No client has a reason to ask so.
    Violation(String),
    /// Status, reason and words of an answer that every client has to reckon with.
    Refusal(u16, &'static str, String),
}

type Query<'a> = BTreeMap<&'a str, &'a str>;

fn checked(request: &Request<Incoming>, state: &mut State) -> Result<Question, No> {
    authenticate(request, state)?;
    if request.method() != Method::GET || request.uri().path() != format!("/api/v1/namespaces/{NAMESPACE}/pods") {
        return Err(No::Violation(format!("{} {}", request.method(), request.uri())));
    }
    let query = request.uri().query().unwrap_or_default();
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let query: Query<'_> = pairs.iter().map(|(key, value)| (&**key, &**value)).collect();
    if query.len() != pairs.len() {
        return Err(No::Violation(format!("a parameter twice in {pairs:?}")));
    }
    if query.get("labelSelector") != Some(&&*state.labels) {
        return Err(No::Violation(format!("selector in {pairs:?}, and not {:?}", state.labels)));
    }
    let verb = if query.contains_key("watch") { "watch" } else { "list" };
    state.verbs.insert((String::new(), "pods".into(), verb.into()));
    match state.mood {
        Mood::Forbidding => return Err(forbidden(verb)),
        Mood::Failing(code) => {
            return Err(No::Refusal(code, "InternalError", "etcdserver: request timed out".into()));
        }
        _ => {}
    }
    let selector = Selector::parse(query["labelSelector"]).map_err(|words| No::Refusal(400, "BadRequest", words))?;
    match verb {
        "list" => as_list(&query, selector),
        _ => as_watch(&query, selector, state),
    }
}

fn forbidden(verb: &str) -> No {
    let words = format!(
        "pods is forbidden: User \"system:serviceaccount:{NAMESPACE}:distcache\" cannot {verb} resource \"pods\" in API \
         group \"\" in the namespace \"{NAMESPACE}\""
    );
    No::Refusal(403, "Forbidden", words)
}

fn authenticate(request: &Request<Incoming>, state: &mut State) -> Result<(), No> {
    let headers: Vec<_> = request.headers().get_all(AUTHORIZATION).iter().collect();
    let token = match headers[..] {
        [header] => header.to_str().unwrap_or_default().strip_prefix("Bearer ").unwrap_or_default(),
        _ => "",
    };
    if token == state.token {
        return Ok(());
    }
    if !state.tokens_expired.contains(token) {
        return Err(No::Violation(format!("a token that was never valid, in {} headers", headers.len())));
    }
    state.asked.unauthorized += 1;
    Err(No::Refusal(401, "Unauthorized", "Unauthorized".into()))
}

/// No parameter but these.
fn only(query: &Query<'_>, known: &[&str]) -> Result<(), No> {
    match query.keys().find(|key| !known.contains(key)) {
        None => Ok(()),
        Some(key) => Err(No::Violation(format!("{key} in {query:?}"))),
    }
}

fn as_list(query: &Query<'_>, selector: Selector) -> Result<Question, No> {
    only(query, &["continue", "labelSelector", "limit"])?;
    match query.get("limit").and_then(|limit| limit.parse().ok()) {
        Some(1..=500) => Ok(Question::List { selector, next: query.get("continue").map(|next| (*next).to_owned()) }),
        _ => Err(No::Violation(format!("no sensible limit in {query:?}"))),
    }
}

fn as_watch(query: &Query<'_>, selector: Selector, state: &mut State) -> Result<Question, No> {
    only(query, &["allowWatchBookmarks", "labelSelector", "resourceVersion", "timeoutSeconds", "watch"])?;
    let seconds = query.get("timeoutSeconds").and_then(|seconds| seconds.parse::<u64>().ok());
    let version = query.get("resourceVersion").and_then(|version| version.parse().ok());
    let is_fine = query["watch"] == "true" && query.get("allowWatchBookmarks") == Some(&"true");
    match (seconds, version) {
        (Some(seconds @ 1..=600), Some(version)) if is_fine && state.issued.contains(&version) => {
            state.asked.watches += 1;
            if !state.store.remembers(version) && matches!(state.gone_by, GoneBy::Status) {
                return Err(No::Refusal(410, "Expired", "too old resource version".into()));
            }
            Ok(Question::Watch { selector, version, until: Instant::now() + Duration::from_secs(seconds) })
        }
        _ => Err(No::Violation(format!("a watch of {query:?}; versions given out are {:?}", state.issued))),
    }
}

fn list(shared: &Shared, selector: &Selector, next: Option<String>) -> Response<Body> {
    let mut state = shared.state();
    state.asked.pages += 1;
    let (version, mut pods) = match next {
        None => {
            state.asked.lists += 1;
            let version = state.store.version();
            state.issued.insert(version);
            (version, state.store.list(NAMESPACE, selector))
        }
        Some(next) => match state.pages.iter().position(|(token, ..)| *token == next) {
            Some(at) => {
                let (_, version, pods) = state.pages.swap_remove(at);
                if !state.store.remembers(version) {
                    return refusal(410, "Expired", "the provided continue parameter is too old");
                }
                (version, pods)
            }
            None => {
                state.violations.push(format!("a continue token {next:?} that was not given out, or twice"));
                return refusal(400, "BadRequest", "continue key is not valid");
            }
        },
    };
    let rest = pods.split_off(pods.len().min(PAGE_PODS));
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if !rest.is_empty() {
        let token = format!("page/{}+{}==", state.asked.pages, rest.len());
        metadata["continue"] = token.clone().into();
        metadata["remainingItemCount"] = rest.len().into();
        state.pages.push((token, version, rest));
    }
    respond(200, full(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": pods })))
}

fn watch(shared: Arc<Shared>, selector: Selector, version: u64, until: Instant) -> Response<Body> {
    let state = shared.state();
    let (watches_ended, bookmarks) = (state.watches_ended, state.bookmarks);
    drop(state);
    let watch =
        Watch { changed: shared.changed.subscribe(), shared, selector, version, until, watches_ended, bookmarks };
    let lines = stream::unfold(Some(watch), async |watch| watch?.next().await);
    let frames = lines.map(|line| Ok(Frame::data(Bytes::from(format!("{line}\n")))));
    respond(200, StreamBody::new(frames).boxed_unsync())
}

struct Watch {
    shared: Arc<Shared>,
    changed: tokio::sync::watch::Receiver<()>,
    selector: Selector,
    version: u64,
    until: Instant,
    watches_ended: u64,
    bookmarks: u64,
}

impl Watch {
    /// The next line, and what goes on after it.
    async fn next(mut self) -> Option<(Value, Option<Self>)> {
        loop {
            self.changed.mark_unchanged();
            if let Some((line, goes_on)) = self.told() {
                return Some((line, goes_on.then_some(self)));
            }
            if self.shared.state().watches_ended != self.watches_ended {
                return None;
            }
            timeout_at(self.until, self.changed.changed()).await.ok()?.ok()?;
        }
    }

    fn told(&mut self) -> Option<(Value, bool)> {
        let mut state = self.shared.state();
        if !state.store.remembers(self.version) && state.watches_ended == self.watches_ended {
            let gone = status(410, "Expired", "too old resource version");
            return Some((json!({ "type": "ERROR", "object": gone }), false));
        }
        if let Some((version, event)) = state.store.event_after(self.version, NAMESPACE, &self.selector) {
            self.version = version;
            state.issued.insert(version);
            return Some((event, true));
        }
        if state.bookmarks != self.bookmarks {
            self.bookmarks = state.bookmarks;
            self.version = state.store.version();
            state.issued.insert(self.version);
            // As the real one is: the lists that a pod must have are null.
            let pod = json!({
                "kind": "Pod", "apiVersion": "v1",
                "metadata": { "resourceVersion": self.version.to_string(), "creationTimestamp": null },
                "spec": { "containers": null }, "status": {},
            });
            return Some((json!({ "type": "BOOKMARK", "object": pod }), true));
        }
        None
    }
}

/// Spaces, which JSON does not mind, without end.
fn flood() -> Response<Body> {
    let spaces = Bytes::from(vec![b' '; 1 << 20]);
    respond(200, StreamBody::new(stream::repeat(spaces).map(|bytes| Ok(Frame::data(bytes)))).boxed_unsync())
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": message })
}

fn refusal(code: u16, reason: &str, message: &str) -> Response<Body> {
    respond(code, full(&status(code, reason, message)))
}

fn full(json: &Value) -> Body {
    Full::new(Bytes::from(json.to_string())).boxed_unsync()
}

fn respond(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().unwrap());
    response
}
