//! The manifests in `deploy/kubernetes`: that they fit together, and that they grant what the provider asks for.
//!
//! No Kubernetes is asked. What is checked is what goes wrong in practice: fields that the API does not know, and names that do
//! not meet.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use distcache::Discovery;
use k8s_openapi::api::{apps, core, networking, policy, rbac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::apiserver::{ApiServer, address, pod};
use crate::patience::eventually;

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes")
}

fn read(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(dir().join(file)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn files() -> BTreeSet<String> {
    let names = fs::read_dir(dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".yaml") && name != "kustomization.yaml").collect()
}

/// Every document by kind and name.
fn all() -> BTreeMap<(String, String), Value> {
    let mut all = BTreeMap::new();
    for document in files().iter().flat_map(|file| read(file)) {
        let (kind, name) = (text(&document["kind"]), text(&document["metadata"]["name"]));
        assert!(!text(&document["apiVersion"]).is_empty());
        let twice = all.insert((kind.clone(), name.clone()), document);
        assert!(twice.is_none(), "{kind} {name} twice");
    }
    all
}

fn one(kind: &str, name: &str) -> Value {
    let (kind, name) = (kind.to_owned(), name.to_owned());
    all().remove(&(kind.clone(), name.clone())).unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn items(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn nodes() -> Value {
    one("StatefulSet", "distcache")
}

fn container() -> Value {
    let containers = nodes()["spec"]["template"]["spec"]["containers"].clone();
    assert_eq!(items(&containers).len(), 1);
    containers[0].clone()
}

fn labels() -> Value {
    nodes()["spec"]["template"]["metadata"]["labels"].clone()
}

/// The file of a node, as the ConfigMap has it.
fn config() -> toml::Table {
    text(&one("ConfigMap", "distcache")["data"]["distcache.toml"]).parse().unwrap()
}

/// (name, number, protocol) of each port of the container.
fn ports() -> Vec<(String, u64, String)> {
    let port = |port: &Value| (text(&port["name"]), port["containerPort"].as_u64().unwrap(), protocol(port));
    items(&container()["ports"]).iter().map(port).collect()
}

fn protocol(port: &Value) -> String {
    port["protocol"].as_str().unwrap_or("TCP").to_owned()
}

fn seconds(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number of seconds"))
}

#[test]
fn the_kustomization_names_every_file_and_no_document_a_namespace() {
    let listed = read("kustomization.yaml").remove(0)["resources"].clone();
    assert_eq!(items(&listed).iter().map(text).collect::<BTreeSet<_>>(), files());
    for ((kind, name), document) in all() {
        assert_eq!(document["metadata"]["namespace"], Value::Null, "{kind} {name}");
        assert_eq!(document["metadata"]["labels"], labels(), "{kind} {name}");
    }
}

/// What the API's own types make of a document: a field that they do not know is lost on the way.
fn understood<T: Serialize + DeserializeOwned>(document: &Value) -> Value {
    let typed: T = serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{error} in {document:#}"));
    serde_json::to_value(typed).unwrap()
}

#[test]
fn the_api_knows_every_field() {
    for ((kind, name), document) in all() {
        let understood = match &*kind {
            "ConfigMap" => understood::<core::v1::ConfigMap>(&document),
            "NetworkPolicy" => understood::<networking::v1::NetworkPolicy>(&document),
            "PodDisruptionBudget" => understood::<policy::v1::PodDisruptionBudget>(&document),
            "Role" => understood::<rbac::v1::Role>(&document),
            "RoleBinding" => understood::<rbac::v1::RoleBinding>(&document),
            "Service" => understood::<core::v1::Service>(&document),
            "ServiceAccount" => understood::<core::v1::ServiceAccount>(&document),
            "StatefulSet" => understood::<apps::v1::StatefulSet>(&document),
            _ => panic!("there is no check for a {kind}"),
        };
        assert_eq!(document, understood, "{kind} {name}");
    }
}

#[test]
fn every_selector_selects_the_nodes() {
    let spec = nodes()["spec"].clone();
    let mut selectors = vec![spec["selector"]["matchLabels"].clone()];
    for spread in items(&spec["template"]["spec"]["topologySpreadConstraints"]) {
        selectors.push(spread["labelSelector"]["matchLabels"].clone());
    }
    selectors.push(one("PodDisruptionBudget", "distcache")["spec"]["selector"]["matchLabels"].clone());
    let policy = one("NetworkPolicy", "distcache")["spec"].clone();
    selectors.push(policy["podSelector"]["matchLabels"].clone());
    selectors.push(policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"].clone());
    selectors.extend(["distcache", "distcache-nodes"].map(|name| one("Service", name)["spec"]["selector"].clone()));
    for selector in selectors {
        assert_eq!(selector, labels());
    }
    let asked = config()["discovery"]["labels"].as_str().unwrap().to_owned();
    let (key, value) = asked.split_once('=').unwrap();
    assert_eq!(json!({ key: value }), labels());
}

#[test]
fn every_port_that_is_named_exists() {
    let names: BTreeSet<_> = ports().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), ports().len(), "a name twice");
    let has = |name: &Value, protocol: &str| {
        let (name, protocol) = (text(name), protocol.to_owned());
        assert!(ports().iter().any(|port| port.0 == name && port.2 == protocol), "no port {name} of {protocol}");
    };
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        has(&container()[probe]["httpGet"]["port"], "TCP");
    }
    for name in ["distcache", "distcache-nodes"] {
        for port in items(&one("Service", name)["spec"]["ports"]) {
            has(&port["targetPort"], &protocol(port));
        }
    }
    for rule in items(&one("NetworkPolicy", "distcache")["spec"]["ingress"]) {
        items(&rule["ports"]).iter().for_each(|port| has(&port["port"], &protocol(port)));
    }
    assert!(names.contains(config()["discovery"]["port"].as_str().unwrap()));
}

#[test]
fn the_ports_are_those_that_the_file_of_a_node_says() {
    let config = config();
    let said = |section: &str, key: &str| {
        let addr: std::net::SocketAddr = config[section][key].as_str().unwrap().parse().unwrap();
        assert!(addr.ip().is_unspecified(), "{section}.{key}");
        u64::from(addr.port())
    };
    let port = |name: &str| ports().into_iter().find(|port| port.0 == name).unwrap().1;
    assert_eq!(said("node", "peer"), port("peer"));
    assert_eq!((said("node", "gossip"), said("node", "gossip")), (port("gossip"), port("gossip-tcp")));
    assert_eq!(said("http", "listen"), port("http"));
    assert_eq!(said("admin", "listen"), port("admin"));
    assert_eq!(config["discovery"]["provider"].as_str(), Some("kubernetes"));
    assert_eq!(config["discovery"]["ready_only"].as_bool(), Some(false), "who is to become ready has to join first");
}

#[tokio::test]
async fn access_is_granted_to_exactly_what_the_provider_asks_for() {
    let api = ApiServer::start().await;
    api.put(pod("a", address(1)));
    let discovery = api.discovery();
    discovery.register(address(1)).await.unwrap();
    discovery.discover().await.unwrap();
    eventually("it watches", async || api.asked().watches == 1).await;
    discovery.deregister(address(1)).await.unwrap();
    discovery.close().await;

    let mut granted = BTreeSet::new();
    for rule in items(&one("Role", "distcache")["rules"]) {
        for group in items(&rule["apiGroups"]) {
            for resource in items(&rule["resources"]) {
                for verb in items(&rule["verbs"]) {
                    granted.insert((text(group), text(resource), text(verb)));
                }
            }
        }
    }
    assert_eq!(granted, api.verbs());

    let binding = one("RoleBinding", "distcache");
    assert_eq!(
        binding["roleRef"],
        json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "distcache" })
    );
    assert_eq!(binding["subjects"], json!([{ "kind": "ServiceAccount", "name": "distcache" }]));
    let pod = &nodes()["spec"]["template"]["spec"];
    assert_eq!(one("ServiceAccount", "distcache")["automountServiceAccountToken"], false);
    assert_eq!((&pod["serviceAccountName"], &pod["automountServiceAccountToken"]), (&"distcache".into(), &true.into()));
}

#[test]
fn a_pod_finds_what_it_mounts_and_tells_the_node_its_address() {
    let pod = nodes()["spec"]["template"]["spec"].clone();
    let volumes: BTreeMap<String, Value> =
        items(&pod["volumes"]).iter().map(|volume| (text(&volume["name"]), volume.clone())).collect();
    let mounts: BTreeMap<String, String> = items(&container()["volumeMounts"])
        .iter()
        .map(|mount| {
            assert_eq!(mount["readOnly"], true);
            (text(&mount["name"]), text(&mount["mountPath"]))
        })
        .collect();
    assert_eq!(volumes.keys().collect::<Vec<_>>(), mounts.keys().collect::<Vec<_>>());

    let map = one("ConfigMap", &text(&volumes["config"]["configMap"]["name"]));
    let args: Vec<String> = items(&container()["args"]).iter().map(text).collect();
    let file = args.iter().skip_while(|arg| *arg != "--config").nth(1).unwrap();
    assert!(map["data"].get(file.strip_prefix(&format!("{}/", mounts["config"])).unwrap()).is_some(), "{file}");
    assert!(args.ends_with(&["--advertise".into(), "$(POD_IP)".into()]), "{args:?}");
    let variables = container()["env"].clone();
    let ip = items(&variables).iter().find(|variable| variable["name"] == "POD_IP").unwrap();
    assert_eq!(ip["valueFrom"]["fieldRef"]["fieldPath"], "status.podIP");

    let secret = config()["cluster"]["secret_file"].as_str().unwrap().to_owned();
    assert_eq!(secret, format!("{}/gossip.key", mounts["cluster-secret"]));
    let guide = fs::read_to_string(dir().join("README.md")).unwrap();
    for name in ["cluster-secret", "tls"] {
        let secret = text(&volumes[name]["secret"]["secretName"]);
        assert!(guide.contains(&format!("`{secret}`")), "nobody says what {secret} is");
    }
}

#[test]
fn the_lines_for_tls_make_sense_once_they_are_wanted() {
    let file = text(&one("ConfigMap", "distcache")["data"]["distcache.toml"]);
    assert!(file.contains("# [tls]\n"));
    let uncommented = file.lines().map(|line| match line.strip_prefix("# ") {
        Some(setting) if setting.starts_with('[') || setting.contains(" = \"") => setting,
        _ => line,
    });
    let config: toml::Table = uncommented.collect::<Vec<_>>().join("\n").parse().unwrap();
    let mount = items(&container()["volumeMounts"]).iter().find(|mount| mount["name"] == "tls").unwrap().clone();
    for (key, file) in [("ca", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key")] {
        assert_eq!(config["tls"][key].as_str().unwrap(), format!("{}/{file}", text(&mount["mountPath"])));
    }
    assert!(config["tls"]["server_name"].is_str());
}

#[test]
fn a_node_has_the_time_to_drain_and_the_memory_for_what_it_may_hold() {
    let spec = nodes()["spec"].clone();
    let config = config();
    let grace = config["node"]["shutdown_grace"].as_str().unwrap().strip_suffix('s').unwrap().parse::<u64>().unwrap();
    let pre_stop = seconds(&container()["lifecycle"]["preStop"]["sleep"]["seconds"]);
    let total = seconds(&spec["template"]["spec"]["terminationGracePeriodSeconds"]);
    assert!(total >= pre_stop + grace + 10, "{total} s are too short for {pre_stop} s and {grace} s");

    let mebibytes = |text: &str, unit: &str| text.strip_suffix(unit).unwrap().parse::<u64>().unwrap();
    let keyspaces = config["keyspaces"].as_table().unwrap().values();
    let held: u64 = keyspaces.map(|keyspace| mebibytes(keyspace["max_bytes"].as_str().unwrap(), "MiB")).sum();
    let resources = &container()["resources"];
    assert!(mebibytes(&text(&resources["limits"]["memory"]), "Mi") >= held * 5 / 4 + 64);
    assert_eq!(resources["limits"]["memory"], resources["requests"]["memory"]);
}

#[test]
fn nodes_go_one_at_a_time_and_run_with_no_more_rights_than_they_need() {
    let spec = nodes()["spec"].clone();
    assert_eq!(spec["updateStrategy"], json!({ "type": "RollingUpdate" }));
    assert_eq!(spec["podManagementPolicy"], "Parallel");
    assert_eq!(one("PodDisruptionBudget", "distcache")["spec"]["maxUnavailable"], 1);
    assert!(spec["replicas"].as_u64().unwrap() > 1);
    let service = one("Service", &text(&spec["serviceName"]));
    assert_eq!(
        (&service["spec"]["clusterIP"], &service["spec"]["publishNotReadyAddresses"]),
        (&"None".into(), &true.into())
    );

    for (probe, path) in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container()[probe]["httpGet"], json!({ "path": path, "port": "admin" }));
    }
    let pod = &spec["template"]["spec"]["securityContext"];
    assert_eq!((&pod["runAsNonRoot"], &pod["seccompProfile"]["type"]), (&true.into(), &"RuntimeDefault".into()));
    assert_eq!(
        container()["securityContext"],
        json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } })
    );
    let image = fs::read_to_string(dir().join("../Dockerfile")).unwrap();
    assert!(image.contains(&format!("USER {}:{}", pod["runAsUser"], pod["runAsGroup"])), "the image's user is another");
}
