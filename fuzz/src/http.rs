//! Any request to the HTTP API, head and body: an answer that says what became of it, in JSON unless it is a value.

use std::sync::LazyLock;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Response, StatusCode};
use distcache::fuzz_support::{Seed, Target};
use distcache::{DataSource, Engine, Fetched, KeyspaceSpec, Limits, SourceError};
use distcache_server::fuzz_support::router;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

/// `METHOD TARGET`, a line for each header, an empty line, the body.
pub const HTTP: Target = Target { name: "http", run, seeds };

const KEYSPACE: &str = "users";
const ANSWER_BYTES_MAX: usize = 1 << 24;

/// Keys that begin with a word that says how it goes.
struct Source;

impl DataSource for Source {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        match key.as_bytes().first() {
            Some(b'n') => Err(SourceError::NotFound),
            Some(b'u') => Err(SourceError::unavailable("it is down")),
            Some(b'f') => Err(SourceError::failed("it is broken")),
            Some(b'b') => Ok(Fetched::new(vec![0, 159, 146, 150])),
            _ => Ok(Fetched::new(format!("value of {key}"))),
        }
    }
}

struct Node {
    runtime: Runtime,
    engine: Engine,
    router: Router,
}

static NODE: LazyLock<Node> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let limits = Limits { value_bytes_max: 1 << 10, batch_keys_max: 64, ..Limits::default() };
    let keyspace = KeyspaceSpec::new(KEYSPACE, Source).max_bytes(1 << 20);
    let engine = Engine::builder().keyspace(keyspace).limits(limits.clone()).start();
    let engine = runtime.block_on(engine).expect("a node by itself starts");
    let router = router(engine.clone(), &limits, 1 << 20);
    Node { runtime, engine, router }
});

fn run(data: &[u8]) {
    let Some(request) = request(data) else { return };
    let Node { runtime, engine, router } = &*NODE;
    let (head, body) = runtime.block_on(async {
        // Whatever an earlier input has stored.
        engine.clear_keyspace(KEYSPACE).await.expect("a node by itself clears");
        let answer: Response<Body> = router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let (head, body) = answer.into_parts();
        (head, to_bytes(body, ANSWER_BYTES_MAX).await.expect("an answer that was made already"))
    });
    assert_ne!(head.status, StatusCode::INTERNAL_SERVER_ERROR, "{body:?}");
    let is_value = head.status == StatusCode::OK && head.headers.contains_key("x-cache");
    if is_value || body.is_empty() {
        return;
    }
    let answer: Value = serde_json::from_slice(&body).expect("what is no value is JSON");
    if !head.status.is_success() {
        let says = |field: &str| answer["error"][field].as_str().is_some_and(|text| !text.is_empty());
        assert!(says("code") && says("message"), "{answer}");
    }
}

fn request(data: &[u8]) -> Option<Request<Body>> {
    let head_len = data.windows(2).position(|two| two == b"\n\n").unwrap_or(data.len());
    let (head, body) = data.split_at(head_len);
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, target) = first.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    request.body(Bytes::copy_from_slice(body.get(2..).unwrap_or_default()).into()).ok()
}

fn seeds() -> Vec<Seed> {
    let seed = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    let batch = |name: &str, body: &str| {
        seed(name, &format!("POST /v1/users:batchGet\ncontent-type: application/json\n\n{body}"))
    };
    vec![
        seed("get", "GET /v1/users/42"),
        seed("get-timeout", "GET /v1/users/a%2Fb/c?timeout=250ms"),
        seed("get-unavailable", "GET /v1/users/u"),
        seed("put", "PUT /v1/users/42?ttl=1m%2030s\n\na value"),
        seed("delete", "DELETE /v1/users/42"),
        seed("no-keyspace", "GET /v1/nothing/42"),
        seed("no-key", "GET /v1/users/"),
        seed("no-route", "PATCH /v2"),
        batch("batch", r#"{"keys":["1","n","u","f","b","1",""],"timeout":"2s"}"#),
        batch("batch-unknown-field", r#"{"keys":[],"limit":1}"#),
        batch("batch-broken", r#"{"keys":["a","#),
        batch("batch-escapes", "{\"keys\":[\"\\u00e9\\ud83d\\ude00\\n\"]}"),
    ]
}
