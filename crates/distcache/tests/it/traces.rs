//! The spans of a miss, over two nodes of one process, under a tracing system of a page.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{LazyLock, Mutex};

use distcache::{DataSource, Engine, Fetched, KeyspaceSpec, Propagator, SourceError, Traceparent};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Instrument, Span, debug_span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::harness::*;
use crate::logbook;

#[derive(Clone, Debug, Default)]
struct Seen {
    name: &'static str,
    parent: Option<usize>,
    /// Of another node.
    remote: Option<usize>,
    fields: HashMap<&'static str, String>,
}

#[derive(Default)]
struct Book {
    spans: Vec<Seen>,
    /// Where an open span stands.
    open: HashMap<u64, usize>,
}

static BOOK: LazyLock<Mutex<Book>> = LazyLock::new(Mutex::default);

/// Writes down every span of the process.
pub struct SpanBook;

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanBook {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let parent = context.span(id).unwrap().parent().map(|parent| parent.id().into_u64());
        let mut book = BOOK.lock().unwrap();
        let mut seen = Seen { name: attributes.metadata().name(), ..Seen::default() };
        seen.parent = parent.and_then(|parent| book.open.get(&parent).copied());
        attributes.record(&mut Fields(&mut seen.fields));
        book.spans.push(seen);
        let place = book.spans.len() - 1;
        book.open.insert(id.into_u64(), place);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut book = BOOK.lock().unwrap();
        let place = book.open[&id.into_u64()];
        values.record(&mut Fields(&mut book.spans[place].fields));
    }
}

struct Fields<'a>(&'a mut HashMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

fn place_of(span: &Span) -> Option<usize> {
    BOOK.lock().unwrap().open.get(&span.id()?.into_u64()).copied()
}

/// Names a span by its place in the book.
struct Places;

impl Propagator for Places {
    fn current(&self) -> Option<Traceparent> {
        let place = place_of(&Span::current())? as u64;
        Traceparent::new([1; 16], (place + 1).to_be_bytes(), 1)
    }

    fn adopt(&self, span: &Span, remote: Traceparent) {
        let (place, remote) = (place_of(span).unwrap(), u64::from_be_bytes(remote.span_id()) as usize - 1);
        BOOK.lock().unwrap().spans[place].remote = Some(remote);
    }
}

/// Does its work in a span of its own.
struct Spanned(Source);

impl DataSource for Spanned {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        self.0.fetch(key).instrument(debug_span!("query", key)).await
    }
}

async fn traced_cluster(source: &Source, is_connected: bool) -> Vec<Engine> {
    logbook::open();
    let plan = Plan::new(source);
    let mut nodes = Vec::new();
    for name in ["n0", "n1"] {
        let builder = plan.builder(name).keyspace(KeyspaceSpec::new("traced", Spanned(source.clone())));
        let builder = if is_connected { builder.propagator(Places) } else { builder };
        nodes.push(builder.start().await.unwrap());
    }
    agree(&nodes).await;
    nodes
}

/// A key of the keyspace `traced` that this node owns, named so that no other test has it.
fn key_for(nodes: &[Engine], owner: usize, name: &str) -> String {
    let keyspace = nodes[0].keyspace("traced").unwrap();
    let mut keys = (0..).map(|n| format!("{name}-{n}"));
    keys.find(|key| keyspace.owner_of(key).unwrap().name == nodes[owner].me().name).unwrap()
}

fn spans(is_it: impl Fn(&Seen) -> bool) -> Vec<Seen> {
    BOOK.lock().unwrap().spans.iter().filter(|seen| is_it(seen)).cloned().collect()
}

/// The names from this span up to the top, over all nodes.
fn way_up(span: &Seen) -> Vec<Seen> {
    let book = BOOK.lock().unwrap();
    let next = |seen: &Seen| seen.parent.or(seen.remote).map(|place| book.spans[place].clone());
    std::iter::successors(Some(span.clone()), next).collect()
}

fn names(way: &[Seen]) -> Vec<&'static str> {
    way.iter().map(|seen| seen.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miss_is_one_trace_over_both_nodes_with_the_source_inside() {
    let nodes = traced_cluster(&Source::new(), true).await;
    let key = key_for(&nodes, 1, "one-trace");
    nodes[0].get("traced", &key).instrument(debug_span!("caller")).await.unwrap();
    let query = spans(|seen| seen.name == "query" && seen.fields["key"] == key);
    let way = way_up(&query[0]);
    assert_eq!(names(&way), ["query", "load", "serve", "fetch", "get", "caller"]);
    let field = |span: usize, name: &str| way[span].fields[name].clone();
    assert_eq!((field(1, "outcome"), field(1, "attempts")), ("found".into(), "1".into()));
    assert_eq!((field(2, "peer"), field(2, "request")), ("n0".into(), "get".into()));
    assert_eq!((field(3, "peer"), field(3, "outcome")), ("n1".into(), "found".into()));
    assert_eq!(
        (field(4, "owner"), field(4, "outcome"), field(4, "keyspace")),
        ("n1".into(), "found".into(), "traced".into())
    );
    assert_eq!(field(4, "key_hash").len(), 16);
    let tells = |seen: &Seen| seen.fields.values().any(|value| value.contains(&key) || value.contains("value of"));
    assert!(!way[1..].iter().any(tells), "no span of the cache holds a key or a value: {way:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_has_no_span_neither_here_nor_at_the_owner() {
    let nodes = traced_cluster(&Source::new(), true).await;
    let key = key_for(&nodes, 1, "hit");
    nodes[1].get("traced", &key).await.unwrap();
    let caller = debug_span!("caller_of_a_hit");
    nodes[1].get("traced", &key).instrument(caller.clone()).await.unwrap();
    let place = place_of(&caller).unwrap();
    assert!(spans(|seen| seen.parent == Some(place)).is_empty());
    nodes[0].get("traced", &key).instrument(caller).await.unwrap();
    let get = spans(|seen| seen.parent == Some(place));
    assert_eq!(names(&get), ["get"]);
    let get = BOOK.lock().unwrap().spans.iter().position(|seen| seen.parent == Some(place)).unwrap();
    let fetch = BOOK.lock().unwrap().spans.iter().position(|seen| seen.parent == Some(get)).unwrap();
    assert!(spans(|seen| seen.remote == Some(fetch)).is_empty(), "the owner had it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_a_load_is_answered_and_told_apart_from_who_began_it() {
    let source = Source::slow(std::time::Duration::from_millis(100));
    let nodes = traced_cluster(&source, true).await;
    let key = key_for(&nodes, 0, "joined");
    let get = |caller: Span| nodes[0].get("traced", &key).instrument(caller);
    let callers = [debug_span!("first"), debug_span!("second")];
    let places = callers.each_ref().map(|caller| place_of(caller).unwrap());
    let [first, second] = callers.map(get);
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.unwrap(), second.unwrap()), (value_of(&key).into(), value_of(&key).into()));
    let query = spans(|seen| seen.name == "query" && seen.fields["key"] == key);
    assert_eq!((query.len(), names(&way_up(&query[0]))), (1, vec!["query", "load", "get", "first"]));
    let is_joined = places.map(|place| spans(|seen| seen.parent == Some(place))[0].fields.get("coalesced").cloned());
    assert_eq!(is_joined, [None, Some("true".into())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_and_writes_and_refreshes_reach_the_owner_as_one_trace_too() {
    let nodes = traced_cluster(&Source::new(), true).await;
    let key = key_for(&nodes, 1, "ways");
    let traced = nodes[0].keyspace("traced").unwrap();
    let caller = debug_span!("caller_of_all");
    let place = place_of(&caller).unwrap();
    let all = async {
        traced.get_many(&[&key]).await.unwrap();
        traced.put(&key, "new").await.unwrap();
        traced.refresh(&key).await.unwrap();
        traced.delete(&key).await.unwrap();
    };
    all.instrument(caller).await;
    let is_of_caller = |seen: &Seen| seen.name == "serve" && way_up_holds(seen, place);
    let served = BOOK.lock().unwrap().spans.clone().into_iter().filter(is_of_caller);
    let ways: Vec<_> = served.map(|seen| (seen.fields["request"].clone(), names(&way_up(&seen)[1..]))).collect();
    let way = |request: &str, steps: &[&'static str]| (request.to_owned(), [steps, &["caller_of_all"]].concat());
    assert_eq!(
        ways,
        [
            way("get_many", &["fetch", "get_many"]),
            way("put", &["put"]),
            way("refresh", &["refresh"]),
            way("delete", &["delete"])
        ]
    );
    let loads: Vec<_> = spans(|seen| seen.name == "query" && seen.fields["key"] == key);
    assert_eq!(names(&way_up(&loads[1])), ["query", "load", "serve", "refresh", "caller_of_all"]);
}

fn way_up_holds(span: &Seen, place: usize) -> bool {
    let book = BOOK.lock().unwrap();
    let next = |seen: &Seen| seen.parent.or(seen.remote);
    let mut at = next(span);
    while let Some(found) = at {
        if found == place {
            return true;
        }
        at = next(&book.spans[found]);
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_propagator_each_node_has_spans_of_its_own() {
    let nodes = traced_cluster(&Source::new(), false).await;
    let key = key_for(&nodes, 1, "apart");
    nodes[0].get("traced", &key).await.unwrap();
    let query = spans(|seen| seen.name == "query" && seen.fields["key"] == key);
    assert_eq!(names(&way_up(&query[0])), ["query", "load", "serve"]);
}
