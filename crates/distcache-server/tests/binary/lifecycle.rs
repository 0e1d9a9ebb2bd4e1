//! Starting, draining, ending.

use std::net::TcpListener;

use crate::node::{Node, binary, run, until};
use crate::shop::{Shop, clustered, standalone};

#[test]
fn a_node_that_serves_is_alive_and_ready_on_both_listeners() {
    let shop = Shop::new();
    let node = Node::serve(&shop.write("node.toml", &standalone()));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(node.get(path).status, 200);
        assert_eq!(node.admin("GET", path).status, 200);
    }
    assert_eq!(node.get("/admin/peers").status, 404);
}

#[test]
fn a_port_in_use_is_one_line_that_names_it() {
    let shop = Shop::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for (section, what) in [("http", "http"), ("admin", "admin")] {
        let text = standalone().replacen(
            &format!("[{section}]\nlisten = \"127.0.0.1:0\""),
            &format!("[{section}]\nlisten = \"{addr}\""),
            1,
        );
        let (code, _, err) = run(binary().args(["serve", "--config"]).arg(shop.write("node.toml", &text)));
        assert_eq!(code, 1);
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(err.contains(&format!("cannot listen on {addr} for {what}")), "{err}");
    }
    let text = clustered("a", None).replacen("peer = \"127.0.0.1:0\"", &format!("peer = \"{addr}\""), 1);
    let (code, _, err) = run(binary().args(["serve", "--config"]).arg(shop.write("node.toml", &text)));
    assert_eq!(code, 1);
    assert!(err.contains(&addr), "{err}");
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_node_in_order() {
    let shop = Shop::new();
    for signal in ["TERM", "INT"] {
        let mut node = Node::serve(&shop.write("node.toml", &standalone()));
        assert_eq!(node.get("/v1/users/1").status, 200);
        node.signal(signal);
        assert_eq!(node.ended().code(), Some(0));
    }
}

#[test]
fn a_node_ends_with_its_standard_input_when_told_to() {
    let shop = Shop::new();
    let mut node = Node::serve(&shop.write("node.toml", &standalone()));
    drop(node.stdin.take());
    assert_eq!(node.ended().code(), Some(0));
}

#[cfg(unix)]
#[test]
fn a_node_that_drains_says_so_and_answers_what_it_was_asked() {
    let shop = Shop::new();
    let text = standalone().replacen("[http]", "[node]\nshutdown_grace = \"30s\"\n[http]", 1);
    let mut node = Node::serve(&shop.write("node.toml", &text));
    let locked = shop.locked();
    std::thread::scope(|threads| {
        let asked = threads.spawn(|| node.get("/v1/users/1"));
        until("the load waits for the database", || node.stat("users", "misses") == 1);
        node.signal("TERM");
        until("the node drains", || node.get("/readyz").status == 503);
        for answer in [node.get("/readyz"), node.admin("GET", "/readyz")] {
            assert_eq!((answer.status, answer.json()["reason"].as_str()), (503, Some("draining")));
        }
        assert_eq!(node.get("/healthz").status, 200);
        drop(locked);
        let answer = asked.join().unwrap();
        assert_eq!((answer.status, answer.text()), (200, "user-1"));
    });
    assert_eq!(node.ended().code(), Some(0));
}

#[cfg(unix)]
#[test]
fn a_node_that_leaves_is_gone_for_the_others_at_once() {
    let shop = Shop::new();
    let a = Node::serve(&shop.write("a.toml", &clustered("a", None)));
    let mut b = Node::serve(&shop.write("b.toml", &clustered("b", a.gossip.as_deref())));
    let peers = |node: &Node| node.admin("GET", "/admin/peers").json()["peers"].as_array().unwrap().len();
    until("two peers", || peers(&a) == 2 && peers(&b) == 2);
    b.signal("TERM");
    assert_eq!(b.ended().code(), Some(0));
    until("one peer", || peers(&a) == 1);
    assert_eq!(a.get("/readyz").status, 200);
}
