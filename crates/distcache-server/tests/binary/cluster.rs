//! Three nodes of the binary.

use crate::node::{Node, until};
use crate::shop::{Shop, clustered};

fn three(shop: &Shop) -> [Node; 3] {
    let a = Node::serve(&shop.write("a.toml", &clustered("a", None)));
    let seed = a.gossip.clone().unwrap();
    let [b, c] =
        ["b", "c"].map(|name| Node::serve(&shop.write(&format!("{name}.toml"), &clustered(name, Some(&seed)))));
    let nodes = [a, b, c];
    until("one view of three", || {
        let views: Vec<_> = nodes.iter().map(|node| node.admin("GET", "/admin/ring").json()).collect();
        let is_whole = views.iter().all(|view| view["members"].as_array().unwrap().len() == 3);
        is_whole
            && views.iter().all(|view| view["view"] == views[0]["view"])
            && nodes.iter().all(|node| node.get("/readyz").status == 200)
    });
    nodes
}

#[test]
fn what_one_node_loads_all_have() {
    let shop = Shop::new();
    let nodes = three(&shop);
    const KEYS: usize = 200;
    for id in 1..=KEYS {
        for node in &nodes {
            assert_eq!(node.get(&format!("/v1/users/{id}")).text(), format!("user-{id}"));
        }
    }
    let loads: Vec<u64> = nodes.iter().map(|node| node.stat("users", "loads")).collect();
    assert_eq!(loads.iter().sum::<u64>(), KEYS as u64, "{loads:?}");
    assert!(loads.iter().all(|loads| *loads > 0), "{loads:?}");
    assert_eq!(nodes.iter().map(|node| node.stat("users", "entries")).sum::<u64>(), KEYS as u64);
}

#[test]
fn all_nodes_name_the_same_owner() {
    let shop = Shop::new();
    let nodes = three(&shop);
    for id in 1..20 {
        let path = format!("/admin/owner/users/{id}");
        let owners: Vec<_> =
            nodes.iter().map(|node| node.admin("GET", &path).json()["owner"]["name"].clone()).collect();
        assert!(owners.iter().all(|owner| *owner == owners[0]), "{owners:?}");
    }
    assert_eq!(nodes[0].admin("GET", "/admin/owner/nobody/1").code(), "keyspace_not_found");
}

#[test]
fn the_hottest_keys_of_a_node_are_named() {
    let shop = Shop::new();
    let nodes = three(&shop);
    for id in [1, 1, 2] {
        nodes[0].get(&format!("/v1/users/{id}"));
    }
    let hot = |query: &str| nodes[0].admin("GET", &format!("/admin/hot-keys/users{query}")).json();
    let keys: Vec<String> =
        hot("")["hot_keys"].as_array().unwrap().iter().map(|hot| hot["key"].as_str().unwrap().to_owned()).collect();
    assert!(keys.contains(&"1".into()) && keys.contains(&"2".into()), "{keys:?}");
    assert_eq!(hot("?limit=1")["hot_keys"].as_array().unwrap().len(), 1);
    assert!(hot("")["hot_keys"][0]["reads_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(nodes[0].admin("GET", "/admin/hot-keys/nobody").code(), "keyspace_not_found");
    assert_eq!(nodes[0].admin("GET", "/admin/hot-keys/users?limit=many").status, 400);
}

#[test]
fn a_write_at_one_node_is_read_at_the_others() {
    let shop = Shop::new();
    let nodes = three(&shop);
    for id in 1..=30 {
        let path = format!("/v1/users/{id}");
        nodes.iter().for_each(|node| assert_eq!(node.get(&path).status, 200));
        assert_eq!(nodes[id % 3].send("PUT", &path, "new").status, 204);
        nodes.iter().for_each(|node| assert_eq!(node.get(&path).text(), "new", "{id}"));
        assert_eq!(nodes[(id + 1) % 3].send("DELETE", &path, "").status, 204);
        nodes.iter().for_each(|node| assert_eq!(node.get(&path).text(), format!("user-{id}")));
    }
}

#[test]
fn a_cleared_keyspace_is_empty_everywhere() {
    let shop = Shop::new();
    let nodes = three(&shop);
    for id in 1..=50 {
        nodes[id % 3].get(&format!("/v1/users/{id}"));
    }
    assert_eq!(nodes[1].admin("POST", "/admin/keyspaces/users:clear").status, 204);
    until("the entries are gone", || nodes.iter().all(|node| node.stat("users", "entries") == 0));
    assert_eq!(nodes[0].get("/v1/users/1").headers["x-cache"], "miss");
    assert_eq!(nodes[0].admin("POST", "/admin/keyspaces/nobody:clear").code(), "keyspace_not_found");
}
