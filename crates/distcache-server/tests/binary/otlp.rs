//! Traces and metrics, as a collector gets them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;

use crate::node::{Log, Node, binary, run, until};
use crate::shop::{Shop, clustered, standalone};

/// Takes OTLP over HTTP on a free port.
struct Collector {
    addr: SocketAddr,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    traces: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
}

/// A span with whom it is of.
#[derive(Clone, Debug)]
struct Span {
    node: String,
    name: String,
    kind: SpanKind,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    attributes: HashMap<String, String>,
}

impl Collector {
    fn new() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Self { addr: socket.local_addr().unwrap(), taken: Arc::default() };
        let taken = collector.taken.clone();
        std::thread::spawn(move || socket.incoming().flatten().for_each(|stream| take(stream, &taken)));
        collector
    }

    fn spans(&self) -> Vec<Span> {
        let taken = self.taken.lock().unwrap();
        let mut spans = Vec::new();
        for all in taken.traces.iter().flat_map(|traces| &traces.resource_spans) {
            let resource = attributes(&all.resource.as_ref().unwrap().attributes);
            assert_eq!(resource["service.name"], "shop-cache");
            for span in all.scope_spans.iter().flat_map(|scope| &scope.spans) {
                spans.push(Span {
                    node: resource["service.instance.id"].clone(),
                    name: span.name.clone(),
                    kind: span.kind(),
                    trace: span.trace_id.clone(),
                    id: span.span_id.clone(),
                    parent: span.parent_span_id.clone(),
                    attributes: attributes(&span.attributes),
                });
            }
        }
        spans
    }

    /// What a node said last of this one.
    fn metric(&self, node: &str, name: &str) -> Option<Metric> {
        let taken = self.taken.lock().unwrap();
        let all = taken.metrics.iter().rev().flat_map(|metrics| &metrics.resource_metrics);
        let mut of_node =
            all.filter(|all| attributes(&all.resource.as_ref().unwrap().attributes)["service.instance.id"] == node);
        let metrics = of_node.next()?.scope_metrics.iter().flat_map(|scope| &scope.metrics);
        metrics.clone().find(|metric| metric.name == name).cloned()
    }
}

fn take(stream: TcpStream, taken: &Mutex<Taken>) {
    let mut reader = BufReader::new(&stream);
    let (mut head, mut len) = (Vec::new(), 0);
    for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let line = line.to_lowercase();
        len = line.strip_prefix("content-length: ").map_or(len, |len| len.parse().unwrap());
        head.push(line);
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).unwrap();
    assert!(head.contains(&"content-type: application/x-protobuf".to_owned()), "{head:?}");
    let mut taken = taken.lock().unwrap();
    match head[0].as_str() {
        "post /v1/traces http/1.1" => taken.traces.push(Message::decode(&*body).unwrap()),
        "post /v1/metrics http/1.1" => taken.metrics.push(Message::decode(&*body).unwrap()),
        other => panic!("{other}"),
    }
    (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
}

fn attributes(all: &[KeyValue]) -> HashMap<String, String> {
    let text = |value: &KeyValue| match value.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::IntValue(n) => Some(n.to_string()),
        any_value::Value::BoolValue(is_so) => Some(is_so.to_string()),
        _ => None,
    };
    all.iter().filter_map(|one| Some((one.key.clone(), text(one)?))).collect()
}

fn telemetry(addr: SocketAddr, ratio: &str) -> String {
    format!(
        "[telemetry]\notlp_endpoint = \"http://{addr}\"\nservice_name = \"shop-cache\"\nsample_ratio = \"{ratio}\"\n"
    )
}

/// Two nodes that say what they do; the second records no trace that it begins itself.
fn two(shop: &Shop, collector: &Collector) -> [Node; 2] {
    let text = |name, seed, ratio| clustered(name, seed) + &telemetry(collector.addr, ratio);
    // What arrives in these tests is what arrives at the end.
    let seldom = [("OTEL_BSP_SCHEDULE_DELAY", "3600000")];
    let a = Node::serve_with_env(&seldom, &shop.write("a.toml", &text("a", None, "100%")));
    let b = Node::serve_with_env(&seldom, &shop.write("b.toml", &text("b", a.gossip.as_deref(), "0%")));
    let is_whole = |node: &Node| node.admin("GET", "/admin/ring").json()["members"].as_array().unwrap().len() == 2;
    until("two nodes share the keys", || is_whole(&a) && is_whole(&b));
    [a, b]
}

fn owned_by(node: &Node, owner: &str) -> String {
    let is_its = |id: &u32| node.admin("GET", &format!("/admin/owner/users/{id}")).json()["owner"]["name"] == owner;
    (1..1_000).find(is_its).unwrap().to_string()
}

#[test]
fn a_read_at_one_node_that_misses_at_its_owner_is_one_trace_with_spans_of_both() {
    let (shop, collector) = (Shop::new(), Collector::new());
    let [mut a, mut b] = two(&shop, &collector);
    let key = owned_by(&a, "b");
    assert_eq!(a.get(&format!("/v1/users/{key}")).status, 200);
    assert_eq!(b.get(&format!("/v1/users/{}", owned_by(&a, "a"))).status, 200);
    for node in [&mut a, &mut b] {
        node.signal("TERM");
        assert_eq!(node.ended().code(), Some(0));
    }
    let spans = collector.spans();
    let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:?}"));
    let [get, fetch, serve, load] = ["get", "fetch", "serve", "load"].map(find);
    assert_eq!([&*get.node, &*fetch.node, &*serve.node, &*load.node], ["a", "a", "b", "b"]);
    assert!(spans.iter().all(|span| span.trace == get.trace), "what b begins is not recorded, nor by a: {spans:?}");
    assert_eq!(get.parent, Vec::<u8>::new());
    assert_eq!([&fetch.parent, &serve.parent, &load.parent], [&get.id, &fetch.id, &serve.id]);
    assert_eq!((fetch.kind, serve.kind), (SpanKind::Client, SpanKind::Server));
    assert_eq!((&*get.attributes["owner"], &*load.attributes["outcome"]), ("b", "found"));
    assert!(spans.iter().all(|span| span.attributes.values().all(|value| *value != format!("user-{key}"))));
}

#[test]
fn metrics_arrive_as_they_stand_in_the_page_of_prometheus() {
    let (shop, collector) = (Shop::new(), Collector::new());
    let [mut a, b] = two(&shop, &collector);
    let key = owned_by(&a, "a");
    (0..3).for_each(|_| assert_eq!(a.get(&format!("/v1/users/{key}")).status, 200));
    a.signal("TERM");
    assert_eq!(a.ended().code(), Some(0));
    drop(b);
    let labels = |points: &[KeyValue]| attributes(points);
    let Some(Data::Sum(hits)) = collector.metric("a", "distcache_hits").unwrap().data else { panic!("a counter") };
    let owned = hits.data_points.iter().find(|point| {
        let labels = labels(&point.attributes);
        (&*labels["keyspace"], &*labels["kind"]) == ("users", "owned")
    });
    assert_eq!((hits.is_monotonic, hits.aggregation_temporality), (true, 2));
    assert_eq!(owned.unwrap().value, Some(number_data_point::Value::AsInt(2)));
    let load = collector.metric("a", "distcache_load_duration_seconds").unwrap();
    let Some(Data::Histogram(loads)) = load.data else { panic!("a histogram") };
    let users = loads.data_points.iter().find(|point| labels(&point.attributes)["keyspace"] == "users").unwrap();
    assert_eq!((users.count, users.bucket_counts.iter().sum::<u64>(), load.unit.as_str()), (1, 1, "s"));
    assert_eq!(users.bucket_counts.len(), users.explicit_bounds.len() + 1);
    assert!(users.start_time_unix_nano < users.time_unix_nano);
}

#[test]
fn traces_and_metrics_are_sent_while_a_node_serves() {
    let (shop, collector) = (Shop::new(), Collector::new());
    let text = clustered("a", None) + &telemetry(collector.addr, "100%");
    let often = [("OTEL_BSP_SCHEDULE_DELAY", "20"), ("OTEL_METRIC_EXPORT_INTERVAL", "20")];
    let node = Node::serve_with_env(&often, &shop.write("a.toml", &text));
    assert_eq!(node.get("/v1/users/1").status, 200);
    until("the trace is there", || collector.spans().iter().any(|span| span.name == "get"));
    until("the miss is counted", || {
        let misses = collector.metric("a", "distcache_misses").and_then(|metric| metric.data);
        let Some(Data::Sum(misses)) = misses else { return false };
        misses.data_points.iter().any(|point| point.value == Some(number_data_point::Value::AsInt(1)))
    });
}

fn serves_and_ends(collector: SocketAddr) -> Log {
    let shop = Shop::new();
    let text = standalone() + &telemetry(collector, "100%");
    let (mut node, log) = Node::serve_logged(&shop.write("node.toml", &text));
    (1..100).for_each(|id| assert_eq!(node.get(&format!("/v1/users/{id}")).status, 200));
    node.signal("TERM");
    assert_eq!(node.ended().code(), Some(0));
    log
}

#[test]
fn a_collector_that_is_down_is_one_line_in_the_log() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log = serves_and_ends(closed);
    assert_eq!(log.lines("the collector does not take them").len(), 1);
    assert!(log.lines("nobody listens on").len() == 1 && log.lines("ERROR").is_empty());
}

#[test]
fn a_collector_that_hangs_holds_up_nobody() {
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    serves_and_ends(hangs.local_addr().unwrap());
}

#[test]
fn check_says_where_traces_and_metrics_go() {
    let shop = Shop::new();
    let text = standalone() + &telemetry("127.0.0.1:4318".parse().unwrap(), "2.5%");
    let (code, out, err) = run(binary().args(["check", "--config"]).arg(shop.write("node.toml", &text)));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("metrics, and 2.5 % of the traces, to http://127.0.0.1:4318 as shop-cache"), "{out}");
}
