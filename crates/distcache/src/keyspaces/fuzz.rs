//! What other nodes say of the keyspaces: in whatever order and however often it is heard, all come to know the same, and the
//! next clear still clears. And what they ask: answered within a frame.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::BytesMut;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::cluster::Peer;
use crate::fuzz_support::{RUNTIME, Script, Seed, Target};
use crate::limits::Limits;
use crate::net::Clock;
use crate::node::NodeParts;
use crate::peer::link::LinkSettings;
use crate::peer::wire::{Get, GetMany, HandedOver, LENGTH_BYTES, Lost, PutEntry, RequestId, Told, ToldChange};
use crate::promise::Promise;
use crate::spec::KeyspaceSettings;
use crate::trace::{Traceparent, Traces};
use crate::trust::handshake::{Hello, Topic};
use crate::{DataSource, Fetched, SourceError};

/// A clear that a peer names, then what three nodes say of the registry, the first two behind their lengths.
pub const REGISTRY: Target = Target { name: "registry", run, seeds };

/// Requests of one peer, each behind its length.
pub const PEER_SERVE: Target = Target { name: "peer_serve", run: serve, seeds: serve_seeds };

const NAME: &str = "users";
const PEER: NodeId = NodeId(7);
const REQUESTS_MAX: usize = 32;
/// What no peer takes less than, so that answers do not always fit.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// How it goes is in the first letter of the key.
struct Source;

impl DataSource for Source {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        match key.as_bytes().first() {
            Some(b'n') => Err(SourceError::NotFound),
            Some(b'u') => Err(SourceError::unavailable("it is down")),
            Some(b'f') => Err(SourceError::failed(key.repeat(9))),
            Some(b's') => Ok(Fetched::new(key.to_owned()).ttl(Duration::ZERO)),
            _ => Ok(Fetched::new(key.repeat(99))),
        }
    }
}

static NODE: LazyLock<Arc<Node>> = LazyLock::new(|| {
    let limits = Limits { value_bytes_max: 1 << 10, ..Limits::default() };
    let link_settings = LinkSettings {
        hello: Hello::new(Topic::Requests, "shop", "a", 1, limits.frame_bytes_max()),
        gate: Arc::default(),
        limits: limits.clone(),
        hop_budget: Duration::from_millis(200),
        clock: Clock::Kernel,
        tasks: TaskTracker::new(),
        runtime: RUNTIME.handle().clone(),
        reached: tokio::sync::mpsc::unbounded_channel().0,
    };
    let node = Node::new(NodeParts {
        name: "a".into(),
        limits,
        clock: Clock::Kernel,
        began: Clock::Kernel.now(),
        request_timeout: Duration::from_secs(10),
        clustered: true,
        link_settings,
        traces: Traces::default(),
        promise: Promise::default(),
        stop: CancellationToken::new(),
    });
    node.adopt(vec![Peer::alone("a".into(), 100)]);
    Arc::new(node)
});

fn keyspaces() -> Keyspaces {
    Keyspaces::new(NODE.clone(), vec![spec()])
}

fn spec() -> KeyspaceSpec {
    KeyspaceSpec::new(NAME, Source).max_bytes(64 << 10)
}

fn run(data: &[u8]) {
    let mut script = Script(data);
    let generation = [(); 4].iter().fold(0, |number, ()| number << 16 | u64::from(script.number()));
    let [first, second] = [(); 2].map(|()| {
        let len = script.number();
        script.bytes(len.into())
    });
    let said = [first, second, script.0];
    keep_the_laws(said.map(|bytes| Registry::decode(bytes).unwrap_or_default()));
    take_in(said, generation);
}

fn keep_the_laws(said: [Registry; 3]) {
    let heard = |order: &[usize]| {
        let mut all = Registry::default();
        order.iter().for_each(|which| all.merge(said[*which].clone()));
        // Compared in bytes: settings may hold what is not equal to itself.
        all.encode()
    };
    let all = heard(&[0, 1, 2]);
    assert_eq!(all, heard(&[2, 1, 0]), "the order does not matter");
    assert_eq!(all, heard(&[1, 2, 0, 1, 1]), "nor how often");
    let decoded = Registry::decode(&all).expect("what was encoded decodes");
    assert_eq!(decoded.encode(), all);
}

fn take_in(said: [&[u8]; 3], generation: u64) {
    let keyspaces = keyspaces();
    said.iter().for_each(|bytes| keyspaces.merge(bytes));
    let keyspace = Named { name: NAME, generation, trace: None };
    let invalidate = Request::Invalidate { keyspace, hashes: Vec::new(), is_relayed: false };
    assert!(keyspaces.serve_at_once(PEER, &invalidate, &mut |_| ()));
    let known = keyspaces.export();
    keyspaces.merge(&known);
    assert_eq!(keyspaces.export(), known, "it knew that");
    if let Ok(core) = keyspaces.get(NAME) {
        assert!(core.settings().check().is_ok(), "settings that make no sense are not taken");
        let before = core.generation();
        keyspaces.clear(NAME).expect("it is defined");
        assert!(core.generation() > before, "it is cleared");
        keyspaces.delete(NAME).expect("it is defined");
    }
    assert!(keyspaces.get(NAME).is_err());
    keyspaces.create(spec()).expect("it is not defined");
    assert!(keyspaces.get(NAME).is_ok(), "it is defined");
}

fn seeds() -> Vec<Seed> {
    fn registry(act: impl FnOnce(&mut Registry)) -> Vec<u8> {
        let mut registry = Registry::default();
        act(&mut registry);
        registry.encode()
    }
    let cleared = registry(|registry| registry.clear(NAME, 1_700_000_000_000));
    let deleted = registry(|registry| registry.delete(NAME, 1_700_000_000_000, 7));
    let settled = |settings| registry(|registry| registry.settle(NAME, 1_700_000_000_001, 8, settings));
    let sensible = KeyspaceSettings { ttl: Some(Duration::from_secs(300)), ttl_jitter: 0.1, ..Default::default() };
    let huge = KeyspaceSettings { max_bytes: u64::MAX, load_timeout: Duration::MAX, ..Default::default() };
    let senseless = KeyspaceSettings { ttl_jitter: f32::NAN, ..Default::default() };
    let [sensible, huge, senseless] = [sensible, huge, senseless].map(settled);
    let at_the_end = registry(|registry| {
        registry.clear(NAME, u64::MAX);
        registry.settle(NAME, u64::MAX, 9, KeyspaceSettings::default());
    });
    let heard = |generation: u64, [first, second, third]: [&[u8]; 3]| {
        let len = |bytes: &[u8]| (bytes.len() as u16).to_be_bytes();
        [&generation.to_be_bytes(), &len(first)[..], first, &len(second), second, third].concat()
    };
    let said = |first: &[u8], second: &[u8], third: &[u8]| heard(0, [first, second, third]);
    vec![
        ("nothing".into(), said(b"", b"", b"")),
        ("cleared".into(), said(&cleared, b"", b"")),
        ("deleted".into(), said(&deleted, &cleared, b"")),
        ("settled".into(), said(&sensible, &cleared, b"")),
        ("cleared-by-request".into(), heard(1_700_000_000_002, [&cleared, b"", b""])),
        ("cleared-for-ever".into(), heard(u64::MAX, [b"", b"", b""])),
        ("all".into(), said(&cleared, &deleted, &sensible)),
        ("rivals".into(), said(&sensible, &huge, &senseless)),
        ("huge".into(), said(&huge, b"", b"")),
        ("at-the-end-of-all-numbers".into(), said(&at_the_end, b"", b"")),
    ]
}

fn serve(data: &[u8]) {
    let (keyspaces, mut script) = (keyspaces(), Script(data));
    for _ in 0..REQUESTS_MAX {
        let len = script.number();
        // Otherwise the connection ends here.
        let Ok((id, request)) = Request::decode(script.bytes(len.into())) else { return };
        let mut out = BytesMut::new();
        if !keyspaces.serve_at_once(PEER, &request, &mut |response| response.encode(id, &mut out)) {
            match RUNTIME.block_on(keyspaces.answer(PEER, &request, FRAME_BYTES_MAX)) {
                Ok(prepared) => prepared.as_response().encode(id, &mut out),
                Err(error) => Response::Refused(error).encode(id, &mut out),
            }
        }
        assert!(out.len() <= LENGTH_BYTES + FRAME_BYTES_MAX, "an answer of {} bytes to {request:?}", out.len());
        let (answered, _) = Response::decode(&out[LENGTH_BYTES..]).expect("an answer decodes");
        assert_eq!(answered, id);
    }
}

fn serve_seeds() -> Vec<Seed> {
    let keyspace = Named { name: NAME, generation: 0, trace: None };
    let traced = Named { trace: Traceparent::new([7; 16], [9; 8], 1), ..keyspace };
    let deadline = Duration::from_secs(1);
    let get = |key| Request::Get(Get { keyspace, key, wants_copy: true, deadline });
    let delete = |keyspace, key| Request::Delete { keyspace, keys: vec![key], hold: deadline };
    let handed_over = HandedOver { key: "a", value: b"a value", age: deadline, remaining: Some(deadline) };
    let changes = vec![ToldChange { hash: 7, age: deadline, hold: deadline }];
    let told = Told { changes, lost: Some(Lost { age: deadline, slots: &[255; 8] }) };
    let put = |key, ttl| Request::Put { keyspace, entries: vec![PutEntry { key, value: b"a value", ttl }] };
    let names: Vec<String> = (0..200).map(|n| format!("a key of some length, number {n}")).collect();
    let many = |keys: &[&'static str]| Request::GetMany {
        get: GetMany { keyspace, keys: keys.iter().map(|key| (*key, true)).collect(), deadline },
    };
    let crowd = GetMany { keyspace, keys: names.iter().map(|name| (name.as_str(), false)).collect(), deadline };
    let seed = |name: &str, requests: &[Request<'_>]| (name.into(), requests.iter().flat_map(framed).collect());
    vec![
        seed("get-twice", &[get("a"), get("a")]),
        seed("get-failing", &[get("u"), get("f"), get("n"), get("s"), get("")]),
        seed("put-get-delete", &[put("a", Some(deadline)), get("a"), delete(keyspace, "a")]),
        seed("put-for-ever", &[put("a", Some(Duration::MAX)), put("b", Some(Duration::ZERO)), get("b")]),
        seed("get-many", &[put("a", None), many(&["a", "b", "n", "u", "f", "s", ""])]),
        seed("get-too-many", &[Request::GetMany { get: crowd }]),
        seed("refresh", &[put("a", None), Request::Refresh { keyspace, key: "a", deadline }, get("a")]),
        seed("traced", &[delete(traced, "a"), get("a")]),
        seed("invalidate", &[get("a"), Request::Invalidate { keyspace, hashes: vec![7], is_relayed: false }]),
        seed("peek", &[get("a"), Request::Peek { keyspace, keys: vec!["a"] }]),
        seed("hand-over", &[Request::HandOver { keyspace, entries: vec![handed_over] }, get("a")]),
        seed(
            "tell",
            &[get("a"), Request::Tell { keyspace, told }, Request::Part { out_of_sight: Vec::new() }, Request::Missed],
        ),
        seed("drop-copies", &[get("a"), Request::DropCopies { keyspace, slots: &[0xFF; 9] }, get("a")]),
        seed("registry", &[Request::Registry(&[0]), Request::Ping, Request::Cancel]),
        seed("no-keyspace", &[delete(Named { name: "nothing", generation: 9, trace: None }, "a")]),
    ]
}

/// With a length of two bytes, as the script reads it.
fn framed(request: &Request<'_>) -> Vec<u8> {
    let mut out = BytesMut::new();
    request.encode(RequestId(42), &mut out);
    out[LENGTH_BYTES / 2..].to_vec()
}
