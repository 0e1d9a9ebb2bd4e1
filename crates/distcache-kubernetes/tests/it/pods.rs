//! Which pods are answered, and with which address.

use std::net::SocketAddr;

use distcache::Discovery;
use distcache_kubernetes::{IpFamily, KubernetesDiscovery};
use serde_json::json;

use crate::apiserver::{ApiServer, address, pod};
use crate::patience::answers;

const ME: &str = "10.0.0.1:3322";

async fn registered(discovery: KubernetesDiscovery) -> KubernetesDiscovery {
    discovery.register(ME.parse().unwrap()).await.unwrap();
    discovery
}

#[tokio::test]
async fn of_all_pods_those_are_answered_that_fit_run_and_stay() {
    let api = ApiServer::start().await;
    (1..=7).for_each(|n| api.put(pod(&format!("fits-{n}"), address(n))));
    api.put_in("elsewhere", pod("other-namespace", address(20)));
    let put = |name: &str, n: u8, change: &dyn Fn(&mut serde_json::Value)| {
        let mut pod = pod(name, address(n));
        change(&mut pod);
        api.put(pod);
    };
    put("other-label", 21, &|pod| pod["metadata"]["labels"]["app"] = "shop".into());
    put("no-label", 22, &|pod| pod["metadata"]["labels"] = json!({}));
    put("pending", 23, &|pod| pod["status"]["phase"] = "Pending".into());
    put("ended", 24, &|pod| pod["status"]["phase"] = "Succeeded".into());
    put("failed", 25, &|pod| pod["status"]["phase"] = "Failed".into());
    put("terminating", 26, &|pod| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    put("no-such-port", 27, &|pod| pod["spec"]["containers"][1]["ports"][1]["name"] = "gossip-2".into());
    put("no-address", 28, &|pod| pod["status"] = json!({ "phase": "Running" }));

    let discovery = registered(api.discovery()).await;
    let expected: Vec<SocketAddr> = (1..=7).map(address).collect();
    assert_eq!(discovery.discover().await.unwrap(), expected);
    assert_eq!(api.asked().lists, 1);
    assert!(api.asked().pages > 2, "the list has pages");
}

#[tokio::test]
async fn what_becomes_of_pods_is_seen_without_another_list() {
    let api = ApiServer::start().await;
    let discovery = registered(api.discovery()).await;
    assert_eq!(discovery.discover().await.unwrap(), []);

    api.put(pod("a", address(1)));
    answers(&discovery, &[address(1)]).await;
    let mut starting = pod("b", address(2));
    starting["status"] = json!({ "phase": "Pending", "conditions": [] });
    api.put(starting);
    api.put(pod("c", address(3)));
    answers(&discovery, &[address(1), address(3)]).await;
    api.put(pod("b", address(2)));
    answers(&discovery, &[address(1), address(2), address(3)]).await;
    api.change("c", |pod| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    answers(&discovery, &[address(1), address(2)]).await;
    api.remove("c");
    api.change("b", |pod| pod["metadata"]["labels"]["app"] = "quarantine".into());
    answers(&discovery, &[address(1)]).await;
    api.change("b", |pod| pod["metadata"]["labels"]["app"] = "distcache".into());
    api.remove("a");
    answers(&discovery, &[address(2)]).await;
    // The same name, as a stateful set gives it, and another address.
    api.remove("b");
    api.put(pod("b", address(9)));
    answers(&discovery, &[address(9)]).await;
    assert_eq!(api.asked().lists, 1);
}

#[tokio::test]
async fn only_ready_pods_are_answered_where_that_is_asked_for() {
    let api = ApiServer::start().await;
    let ready = |pod: &mut serde_json::Value| pod["status"]["conditions"][1]["status"] = "True".into();
    api.put(pod("a", address(1)));
    api.put(pod("b", address(2)));
    api.change("b", ready);
    let discovery = registered(api.discovery().ready_only(true)).await;
    assert_eq!(discovery.discover().await.unwrap(), [address(2)]);
    api.change("a", ready);
    answers(&discovery, &[address(1), address(2)]).await;
    api.change("b", |pod| pod["status"]["conditions"][1]["status"] = "False".into());
    answers(&discovery, &[address(1)]).await;
}

#[tokio::test]
async fn of_a_pod_with_two_addresses_the_wanted_one_is_answered() {
    let api = ApiServer::start().await;
    let mut both = pod("both", address(1));
    both["status"]["podIPs"] = json!([{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }]);
    api.put(both);
    api.put(pod("v4-only", address(2)));
    let answer = async |discovery: KubernetesDiscovery| registered(discovery).await.discover().await.unwrap();
    let v6: SocketAddr = "[fd00::1]:3322".parse().unwrap();
    assert_eq!(answer(api.discovery()).await, [address(1), address(2)]);
    assert_eq!(answer(api.discovery().ip_family(IpFamily::V4)).await, [address(1), address(2)]);
    assert_eq!(answer(api.discovery().ip_family(IpFamily::V6)).await, [v6]);
}

#[tokio::test]
async fn a_port_has_another_name_or_is_the_same_for_all() {
    let api = ApiServer::start().await;
    api.put(pod("a", address(1)));
    api.change("a", |pod| pod["spec"]["containers"][1]["ports"][1] = json!({ "containerPort": 9 }));
    let answer = async |discovery: KubernetesDiscovery| registered(discovery).await.discover().await.unwrap();
    assert_eq!(answer(api.discovery()).await, []);
    assert_eq!(answer(api.discovery().port_name("peer")).await, ["10.0.0.1:3320".parse().unwrap()]);
    assert_eq!(answer(api.discovery().port(4711)).await, ["10.0.0.1:4711".parse().unwrap()]);
}

#[tokio::test]
async fn a_selector_of_several_requirements_is_asked_as_it_stands() {
    let api = ApiServer::start().await;
    let labels = "app in (distcache, other),tier==cache,!retired";
    api.expect_labels(labels);
    api.put(pod("a", address(1)));
    api.put(pod("b", address(2)));
    api.change("b", |pod| pod["metadata"]["labels"]["retired"] = "yes".into());
    let discovery = KubernetesDiscovery::new(labels).config(api.config()).namespace("shop");
    assert_eq!(registered(discovery).await.discover().await.unwrap(), [address(1)]);
}
