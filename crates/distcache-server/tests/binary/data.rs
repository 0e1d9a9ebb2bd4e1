//! The data API.

use serde_json::json;

use crate::node::{Node, until};
use crate::shop::{Shop, standalone};

fn node(shop: &Shop) -> Node {
    Node::serve(&shop.write("node.toml", &standalone()))
}

#[test]
fn a_miss_becomes_a_hit() {
    let shop = Shop::new();
    let node = node(&shop);
    let first = node.get("/v1/users/42");
    assert_eq!((first.status, first.text()), (200, "user-42"));
    assert_eq!(first.headers["x-cache"], "miss");
    assert_eq!(first.headers["x-cache-origin"], "loaded");
    let second = node.get("/v1/users/42");
    assert_eq!((second.status, second.text()), (200, "user-42"));
    assert_eq!(second.headers["x-cache"], "hit");
    assert_eq!(second.headers["x-cache-origin"], "owned");
    assert!(second.headers["age"].parse::<u64>().unwrap() < 60);
    let max_age: u64 = second.headers["cache-control"].strip_prefix("max-age=").unwrap().parse().unwrap();
    assert!((200..=300).contains(&max_age), "{max_age}");
    assert_eq!(node.stat("users", "loads"), 1);
    let head = node.send("HEAD", "/v1/users/42", "");
    assert_eq!((head.status, head.body.len(), head.headers["content-length"].as_str()), (200, 0, "7"));
}

#[test]
fn the_age_of_an_entry_grows() {
    let shop = Shop::new();
    let node = node(&shop);
    node.get("/v1/users/1");
    until("the entry is a second old", || node.get("/v1/users/1").headers["age"] != "0");
}

#[test]
fn what_is_not_there_says_which_part_is_not() {
    let shop = Shop::new();
    let node = node(&shop);
    let cases = [("/v1/users/100000", "not_found"), ("/v1/nobody/1", "keyspace_not_found"), ("/v2", "no_such_route")];
    for (path, code) in cases {
        let answer = node.get(path);
        assert_eq!((answer.status, answer.code()), (404, code.into()), "{path}");
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    assert_eq!(node.get("/v1/users/").code(), "key_empty");
    assert_eq!(node.send("PATCH", "/v1/users/1", "").status, 405);
}

#[test]
fn keys_are_any_text_and_values_any_bytes() {
    let shop = Shop::new();
    let node = node(&shop);
    assert_eq!(node.get("/v1/words/a/b%20c").text(), "slash");
    assert_eq!(node.get("/v1/words/a%2Fb%20c").text(), "slash");
    assert_eq!(node.get("/v1/words/na%C3%AFve%20%E6%9D%B1%E4%BA%AC").text(), "unicode");
    assert_eq!(node.get("/v1/words/raw").body, [0xff, 0x00, 0xfe]);
    assert_eq!(node.get("/v1/words/%ff").status, 400);
}

#[test]
fn what_was_put_is_read_until_its_time_is_over() {
    let shop = Shop::new();
    let node = node(&shop);
    assert_eq!(node.send("PUT", "/v1/plain/k", "v1").status, 204);
    let read = node.get("/v1/plain/k");
    assert_eq!((read.status, read.text(), read.headers["x-cache"].as_str()), (200, "v1", "hit"));
    assert!(!read.headers.contains_key("cache-control"));
    assert_eq!(node.send("PUT", "/v1/plain/k?ttl=300ms", "v2").status, 204);
    assert_eq!(node.get("/v1/plain/k").text(), "v2");
    until("the value expires", || node.get("/v1/plain/k").status == 404);
    let wrong = node.send("PUT", "/v1/plain/k?ttl=soon", "v");
    assert_eq!((wrong.status, wrong.code()), (400, "bad_query".into()));
}

#[test]
fn what_was_deleted_is_loaded_anew() {
    let shop = Shop::new();
    let node = node(&shop);
    node.send("PUT", "/v1/users/7", "other");
    assert_eq!(node.get("/v1/users/7").text(), "other");
    assert_eq!(node.send("DELETE", "/v1/users/7", "").status, 204);
    let read = node.get("/v1/users/7");
    assert_eq!((read.text(), read.headers["x-cache"].as_str()), ("user-7", "miss"));
}

#[test]
fn what_is_loaded_within_a_hold_is_answered_and_not_kept() {
    let shop = Shop::new();
    let node = node(&shop);
    assert_eq!(node.send("DELETE", "/v1/users/7?hold=2s", "").status, 204);
    let status = || node.get("/v1/users/7").headers["x-cache"].clone();
    assert_eq!([status(), status()], ["miss", "miss"]);
    until("the hold ends", || status() == "hit");
    let wrong = node.send("DELETE", "/v1/users/7?hold=0s", "");
    assert_eq!((wrong.status, wrong.code()), (400, "bad_query".into()));
}

#[test]
fn limits_are_told_before_memory_is_taken() {
    let shop = Shop::new();
    let node = node(&shop);
    let answer = node.get(&format!("/v1/users/{}", "k".repeat(2_000)));
    assert_eq!((answer.status, answer.code()), (400, "key_too_large".into()));
    let answer = node.send("PUT", "/v1/plain/big", vec![b'v'; (8 << 20) + 1]);
    assert_eq!((answer.status, answer.code()), (413, "value_too_large".into()));
    assert_eq!(node.get("/v1/users/1?timeout=never").code(), "bad_query");
    assert_eq!(node.get("/v1/users/1?timeuot=1s").code(), "bad_query");
}

#[test]
fn a_batch_is_answered_in_its_order() {
    let shop = Shop::new();
    let node = node(&shop);
    node.get("/v1/users/3");
    let answer = node.send("POST", "/v1/users:batchGet", json!({ "keys": ["5", "0", "3", "5"] }).to_string());
    assert_eq!(answer.status, 200);
    let values = answer.json()["values"].clone();
    let part = |name: &str| values.as_array().unwrap().iter().map(|value| value[name].clone()).collect::<Vec<_>>();
    assert_eq!(part("key"), ["5", "0", "3", "5"]);
    assert_eq!(part("value"), [json!("user-5"), json!(null), json!("user-3"), json!("user-5")]);
    let status = part("status");
    assert_eq!((&status[0], &status[1], &status[2]), (&json!("miss"), &json!("not_found"), &json!("hit")));
    let raw = node.send("POST", "/v1/words:batchGet", json!({ "keys": ["raw"] }).to_string()).json();
    assert_eq!(raw["values"][0]["value_base64"], "/wD+");
    assert_eq!(
        node.send("POST", "/v1/nobody:batchGet", json!({ "keys": ["1"] }).to_string()).code(),
        "keyspace_not_found"
    );
    assert_eq!(node.send("POST", "/v1/users:batchGet", "{\"kesy\": []}").code(), "bad_body");
    assert_eq!(node.send("POST", "/v1/users:scan", "{}").code(), "no_such_route");
    let too_many: Vec<String> = (0..10_001).map(|n| n.to_string()).collect();
    let answer = node.send("POST", "/v1/users:batchGet", json!({ "keys": too_many }).to_string());
    assert_eq!((answer.status, answer.code()), (413, "batch_too_large".into()));
}

#[test]
fn a_source_that_fails_is_a_bad_gateway() {
    let shop = Shop::new();
    let broken =
        "[keyspaces.bad]\nsource = { kind = \"sql\", url = \"sqlite::memory:\", query = \"SELECT json(?1)\" }\n";
    let node = Node::serve(&shop.write("node.toml", &(standalone() + broken)));
    assert_eq!(node.get("/v1/bad/1").status, 200);
    let answer = node.get("/v1/bad/%7Bnot%20json");
    assert_eq!((answer.status, answer.code()), (502, "source_failed".into()));
}
