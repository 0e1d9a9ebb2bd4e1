//! The commands that talk to a node, and their exit codes.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;

use serde_json::json;

use crate::node::{Node, binary, run};
use crate::shop::{Shop, guarded, standalone};

fn told(node: &Node, args: &[&str]) -> (i32, String, String) {
    let http = format!("http://{}", node.http);
    let admin = format!("http://{}", node.admin);
    run(binary().args(args).env("DISTCACHE_HTTP", http).env("DISTCACHE_ADMIN", admin))
}

#[test]
fn read_write_remove() {
    let shop = Shop::new();
    let node = Node::serve(&shop.write("node.toml", &standalone()));
    assert_eq!(told(&node, &["get", "users", "42"]), (0, "user-42".into(), String::new()));
    assert_eq!(told(&node, &["get", "words", "a/b c"]).1, "slash");
    let (code, out, err) = told(&node, &["get", "users", "42", "-v"]);
    assert_eq!((code, out.as_str()), (0, "user-42"));
    assert!(err.contains("x-cache: hit"), "{err}");

    assert_eq!(told(&node, &["put", "plain", "k", "v", "--ttl", "1h"]).0, 0);
    assert_eq!(told(&node, &["get", "plain", "k"]).1, "v");
    assert_eq!(told(&node, &["delete", "plain", "k"]).0, 0);
    let (code, out, err) = told(&node, &["get", "plain", "k"]);
    assert_eq!((code, out.as_str(), err.lines().count()), (3, "", 1), "{err}");

    assert_eq!(told(&node, &["delete", "users", "42", "--hold", "1h"]).0, 0);
    assert!((0..2).all(|_| told(&node, &["get", "users", "42", "-v"]).2.contains("x-cache: miss")));
}

#[test]
fn a_value_from_standard_input() {
    let shop = Shop::new();
    let node = Node::serve(&shop.write("node.toml", &standalone()));
    let mut put = binary();
    put.args(["put", "plain", "k", "--http", &format!("http://{}", node.http)]).stdin(Stdio::piped());
    let mut child = put.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"\x00\xffraw").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(node.get("/v1/plain/k").body, b"\x00\xffraw");
}

#[test]
fn what_a_node_knows_for_people_and_for_machines() {
    let shop = Shop::new();
    let node = Node::serve(&shop.write("node.toml", &standalone()));
    node.get("/v1/users/1");
    node.get("/v1/users/1");
    let (code, out, _) = told(&node, &["keyspaces"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("NAME"), "{out}");
    let users = out.lines().find(|line| line.starts_with("users")).unwrap();
    assert!(users.contains("50.0 %"), "{users}");
    let json: serde_json::Value = serde_json::from_str(&told(&node, &["keyspaces", "--json"]).1).unwrap();
    assert_eq!(json["keyspaces"].as_array().unwrap().len(), 3);
    let users = json["keyspaces"].as_array().unwrap().iter().find(|keyspace| keyspace["name"] == "users").unwrap();
    assert_eq!(users["settings"]["ttl_ms"], 300_000);

    let (code, out, _) = told(&node, &["peers"]);
    assert_eq!(code, 0);
    assert!(out.contains("ready") && out.contains("100.0 %"), "{out}");
    let json: serde_json::Value = serde_json::from_str(&told(&node, &["peers", "--json"]).1).unwrap();
    let name = json["peers"][0]["name"].as_str().unwrap();
    assert_eq!(told(&node, &["owner", "users", "1"]).1.trim(), name);
    assert_eq!(told(&node, &["clear", "users"]).0, 0);
    assert_eq!(node.get("/v1/users/1").headers["x-cache"], "miss");
}

#[test]
fn failures_are_one_line_and_exit_code_one() {
    let shop = Shop::new();
    let node = Node::serve(&shop.write("node.toml", &standalone()));
    let (code, _, err) = told(&node, &["get", "nobody", "1"]);
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert!(err.contains("keyspace \"nobody\" is not defined"), "{err}");

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    for args in
        [["get", "users", "1", "--http", url.as_str()].as_slice(), ["peers", "--admin", url.as_str()].as_slice()]
    {
        let (code, _, err) = run(binary().args(args));
        assert_eq!((code, err.lines().count()), (1, 1), "{err}");
        assert!(err.contains(&url) && err.contains("distcache serve"), "{err}");
    }
    assert_eq!(run(binary().args(["get", "users", "1", "--http", "ftp://x"])).0, 2);
    assert_eq!(run(binary().args(["get", "users"])).0, 2);
}

#[test]
fn every_rule_of_a_keyspace_can_be_seen() {
    let shop = Shop::new();
    let node = Node::serve(&shop.write("node.toml", &guarded()));
    let answer = node.admin("GET", "/admin/keyspaces").json();
    let all = answer["keyspaces"].as_array().unwrap();
    let settings = |name: &str| all.iter().find(|one| one["name"] == name).unwrap()["settings"].clone();
    let mut guarded = settings("guarded");
    // A part is a number of 32 bits, which JSON writes with all the digits of 64.
    let ahead = guarded["refresh_ahead"].take().as_f64().unwrap();
    assert!((ahead - 0.2).abs() < 1e-6, "{ahead}");
    let expected = json!({
        "max_bytes": 64 << 20,
        "eviction": "lru",
        "ttl_ms": 300_000,
        "ttl_jitter": 0.0,
        "idle_ttl_ms": 3_600_000,
        "negative_ttl_ms": null,
        "stale_while_revalidate_ms": 30_000,
        "stale_if_error_ms": 3_600_000,
        "refresh_ahead": null,
        "refresh_hot_keys": 100,
        "soft_timeout_ms": 200,
        "load_timeout_ms": 10_000,
        "hot_copies": true,
        "lease_ms": 5_000,
        "guard": {
            "group": "db",
            "loads_max": 32,
            "rate_limit": { "per_second": 500.0, "burst": 100, "wait_max_ms": 50 },
            "circuit_breaker":
                { "failure_rate": 0.5, "window_ms": 10_000, "calls_min": 20, "open_for_ms": 5_000, "probes": 1 },
            "retry": { "attempts": 5, "backoff_ms": 50, "backoff_max_ms": 2_000 },
        },
    });
    assert_eq!(guarded, expected);
    let unguarded =
        json!({ "group": null, "loads_max": null, "rate_limit": null, "circuit_breaker": null, "retry": null });
    let plain = settings("plain");
    assert_eq!((&plain["eviction"], &plain["guard"]), (&json!("scan-resistant"), &unguarded));
    let stats = &all.iter().find(|one| one["name"] == "guarded").unwrap()["stats"];
    assert_eq!((&stats["circuit"], &stats["rate_limited"]), (&json!("closed"), &json!(0)));
}
