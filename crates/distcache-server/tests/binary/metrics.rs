//! `/metrics`: read the way a strict reader of Prometheus's text format would.

use std::collections::{HashMap, HashSet};

use crate::node::{Node, until};
use crate::shop::{Shop, clustered, standalone};

/// One scrape, checked as it was read.
struct Scrape {
    kinds: HashMap<String, String>,
    /// By name and labels, as they stand in the text.
    series: HashMap<String, f64>,
}

impl Scrape {
    fn of(node: &Node) -> Self {
        let answer = node.admin("GET", "/metrics");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        assert!(answer.text().ends_with('\n'));
        let mut scrape = Self { kinds: HashMap::new(), series: HashMap::new() };
        let (mut helped, mut family) = (HashSet::new(), String::new());
        for line in answer.text().lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect(line);
                assert!(!text.is_empty() && helped.insert(name.to_owned()), "{line}");
                family = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect(line);
                assert_eq!(name, family, "a type follows the help of its family");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(scrape.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            } else {
                let (series, value) = line.rsplit_once(' ').expect(line);
                let name = name_in(series);
                scrape.belongs(name, &family);
                let value: f64 = value.parse().expect(line);
                assert!(value.is_finite() && scrape.series.insert(series.to_owned(), value).is_none(), "{line}");
            }
        }
        scrape.histograms_add_up();
        scrape
    }

    fn belongs(&self, name: &str, family: &str) {
        let kind = &self.kinds[family];
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{name} within {family}");
        assert_eq!(kind == "counter", family.ends_with("_total"), "{family}");
    }

    /// Buckets never fall from one bound to the next, and the last one is the count.
    fn histograms_add_up(&self) {
        for (series, count) in self.series.iter().filter(|(series, _)| name_in(series).ends_with("_count")) {
            let open = series.replace("_count", "_bucket").trim_end_matches('}').to_owned() + ",le=\"";
            let bucket = |series: &str, within: f64| {
                let bound = series.strip_prefix(&open)?.strip_suffix("\"}")?.replace("+Inf", "inf");
                Some((bound.parse::<f64>().unwrap(), within))
            };
            let mut buckets: Vec<_> = self.series.iter().filter_map(|(name, within)| bucket(name, *within)).collect();
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.len() > 5 && buckets.windows(2).all(|two| two[0].1 <= two[1].1), "{series}: {buckets:?}");
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)), "{series}");
        }
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("{series} is not told"))
    }
}

/// The name of a series whose labels are well formed.
fn name_in(series: &str) -> &str {
    let (name, labels) = series.split_once('{').map_or((series, None), |(name, rest)| (name, rest.strip_suffix('}')));
    assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{series}");
    for label in labels.into_iter().flat_map(|labels| labels.split("\",")) {
        let (label, value) = label.split_once("=\"").expect(series);
        assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{series}");
        assert!(!value.trim_end_matches('"').contains(['"', '\\', '\n']), "{series}");
    }
    name
}

#[test]
fn what_a_node_measures_is_read_by_a_strict_reader_and_never_falls() {
    let shop = Shop::new();
    let node = Node::serve(&shop.write("node.toml", &standalone()));
    let before = Scrape::of(&node);
    assert_eq!(before.value("distcache_hits_total{keyspace=\"users\",kind=\"owned\"}"), 0.0, "told from the start");
    for id in ["1", "2", "2", "nobody"] {
        node.get(&format!("/v1/users/{id}"));
    }
    node.send("PUT", "/v1/plain/k", "v");
    let after = Scrape::of(&node);
    for (series, value) in [
        ("distcache_hits_total{keyspace=\"users\",kind=\"owned\"}", 1.0),
        ("distcache_misses_total{keyspace=\"users\"}", 3.0),
        ("distcache_loads_ended_total{keyspace=\"users\",outcome=\"found\"}", 2.0),
        ("distcache_loads_ended_total{keyspace=\"users\",outcome=\"not_found\"}", 1.0),
        ("distcache_load_duration_seconds_count{keyspace=\"users\"}", 3.0),
        ("distcache_get_miss_duration_seconds_count{keyspace=\"users\"}", 3.0),
        ("distcache_puts_total{keyspace=\"plain\"}", 1.0),
        ("distcache_put_duration_seconds_count{keyspace=\"plain\"}", 1.0),
        ("distcache_entries{keyspace=\"users\",kind=\"owned\"}", 2.0),
        ("distcache_circuit{keyspace=\"users\",state=\"closed\"}", 1.0),
        ("distcache_ready", 1.0),
        ("distcache_peers{state=\"ready\"}", 1.0),
        ("distcache_listener_connections_max{listener=\"admin\"}", 256.0),
    ] {
        assert_eq!(after.value(series), value, "{series}");
    }
    assert!(after.value("distcache_load_duration_seconds_sum{keyspace=\"users\"}") > 0.0);
    assert!(after.value("distcache_listener_events_total{listener=\"http\",event=\"connections_accepted\"}") >= 5.0);
    assert!(after.value("process_start_time_seconds") > 1.7e9);
    assert!(after.series.keys().any(|series| series.starts_with("distcache_build_info{version=\"")));
    let only_grow = before.series.iter().filter(|(series, _)| {
        let name = name_in(series);
        ["_total", "_bucket", "_sum", "_count"].iter().any(|suffix| name.ends_with(suffix))
    });
    for (series, value) in only_grow {
        assert!(after.value(series) >= *value, "{series}");
    }
}

#[test]
fn a_node_of_a_cluster_tells_its_peers_and_its_share() {
    let shop = Shop::new();
    let a = Node::serve(&shop.write("a.toml", &clustered("a", None)));
    let b = Node::serve(&shop.write("b.toml", &clustered("b", a.gossip.as_deref())));
    until("each sees both", || {
        [&a, &b].iter().all(|node| Scrape::of(node).value("distcache_peers{state=\"ready\"}") == 2.0)
    });
    let slots = |node: &Node| Scrape::of(node).value("distcache_slots_owned");
    let all = a.admin("GET", "/admin/ring").json()["slots"].as_f64().unwrap();
    until("the keys are shared", || slots(&a) > 0.0 && slots(&a) + slots(&b) == all);
}

#[test]
fn metrics_are_for_the_admin_listener_alone() {
    let shop = Shop::new();
    let node = Node::serve(&shop.write("node.toml", &standalone()));
    assert_eq!(node.get("/metrics").status, 404);
}

/// What `docs/metrics.md` lists is what there is.
#[test]
fn every_metric_is_documented() {
    let shop = Shop::new();
    let node = Node::serve(&shop.write("node.toml", &standalone()));
    let page = include_str!("../../../../docs/metrics.md");
    let mut named: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next()).collect();
    let mut told: Vec<String> = Scrape::of(&node).kinds.into_keys().collect();
    named.sort_unstable();
    told.sort_unstable();
    assert_eq!(named, told);
}
