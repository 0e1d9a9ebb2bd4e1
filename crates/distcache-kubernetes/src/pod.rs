//! A pod, as far as it matters here, and the address that it gossips at.
//!
//! Knows the API's JSON and no request. A few fields instead of the whole type: what is not named is skipped while reading, and
//! a list of pods is mostly what is not named. The invariant: an address is answered of a pod that runs and is not about to
//! end, whatever its conditions say unless they are asked for.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use crate::settings::{Port, Wanted};

/// Which of a pod's addresses is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum IpFamily {
    /// The primary one, `status.podIP`: what the downward API tells a pod of itself. The default.
    #[default]
    Primary,
    /// The IPv4 address; pods without one are passed over.
    V4,
    /// The IPv6 address; pods without one are passed over.
    V6,
}

// Lists are `null` rather than missing in some answers, the bookmarks of a watch among them: hence `Option`.

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) resource_version: String,
    deletion_timestamp: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    ports: Option<Vec<ContainerPort>>,
    restart_policy: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerPort {
    name: Option<String>,
    container_port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Pod {
    /// Where a node in this pod gossips, if it is one that others are to be sent to.
    pub(crate) fn address(&self, wanted: &Wanted) -> Option<SocketAddr> {
        if !self.is_running() || wanted.ready_only && !self.is_ready() {
            return None;
        }
        Some(SocketAddr::new(self.ip(wanted.ip_family)?, self.port(&wanted.port)?))
    }

    fn is_running(&self) -> bool {
        self.status.phase.as_deref() == Some("Running") && self.metadata.deletion_timestamp.is_none()
    }

    fn is_ready(&self) -> bool {
        let is_so = |condition: &Condition| condition.kind == "Ready" && condition.status == "True";
        self.status.conditions.iter().flatten().any(is_so)
    }

    fn ip(&self, family: IpFamily) -> Option<IpAddr> {
        let mut all = self.status.pod_ips.iter().flatten().filter_map(|one| one.ip.parse::<IpAddr>().ok());
        match family {
            IpFamily::Primary => self.status.pod_ip.as_ref()?.parse().ok(),
            IpFamily::V4 => all.find(IpAddr::is_ipv4),
            IpFamily::V6 => all.find(IpAddr::is_ipv6),
        }
    }

    fn port(&self, port: &Port) -> Option<u16> {
        let wanted = match port {
            Port::Number(number) => return Some(*number),
            Port::Named(name) => name,
        };
        let is_it = |port: &&ContainerPort| port.name.as_ref() == Some(wanted);
        self.containers().flat_map(|one| one.ports.iter().flatten()).find(is_it).map(|port| port.container_port)
    }

    /// The containers that run while the pod does, sidecars among them.
    fn containers(&self) -> impl Iterator<Item = &Container> {
        let is_sidecar = |one: &&Container| one.restart_policy.as_deref() == Some("Always");
        let sidecars = self.spec.init_containers.iter().flatten().filter(is_sidecar);
        self.spec.containers.iter().flatten().chain(sidecars)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: &str) -> Pod {
        serde_json::from_str(json).unwrap()
    }

    fn wanted() -> Wanted {
        Wanted { port: Port::Named("gossip".into()), ready_only: false, ip_family: IpFamily::Primary }
    }

    const RUNNING: &str = r#"{
        "metadata": { "name": "a", "resourceVersion": "7", "labels": { "app": "x" } },
        "spec": { "containers": [
            { "name": "log" },
            { "name": "node", "ports": [{ "containerPort": 80 }, { "name": "gossip", "containerPort": 3322, "protocol": "UDP" }] }
        ] },
        "status": { "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }],
            "conditions": [{ "type": "Initialized", "status": "True" }, { "type": "Ready", "status": "False" }] }
    }"#;

    #[test]
    fn a_running_pod_is_found_ready_or_not() {
        assert_eq!(pod(RUNNING).address(&wanted()), Some("10.0.0.1:3322".parse().unwrap()));
        let ready_only = Wanted { ready_only: true, ..wanted() };
        assert_eq!(pod(RUNNING).address(&ready_only), None);
        let ready = RUNNING.replace(r#""Ready", "status": "False""#, r#""Ready", "status": "True""#);
        assert_eq!(pod(&ready).address(&ready_only), Some("10.0.0.1:3322".parse().unwrap()));
    }

    #[test]
    fn a_pod_that_does_not_run_or_is_about_to_end_is_not_found() {
        for phase in ["Pending", "Succeeded", "Failed", "Unknown"] {
            assert_eq!(pod(&RUNNING.replace("Running", phase)).address(&wanted()), None, "{phase}");
        }
        let ending = RUNNING.replace(r#""name": "a","#, r#""name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z","#);
        assert_eq!(pod(&ending).address(&wanted()), None);
    }

    #[test]
    fn a_port_is_found_by_its_name_also_at_a_sidecar_or_is_a_number() {
        assert_eq!(pod(&RUNNING.replace("gossip", "other")).address(&wanted()), None);
        let by_number = Wanted { port: Port::Number(9), ..wanted() };
        assert_eq!(pod(&RUNNING.replace("gossip", "other")).address(&by_number), Some("10.0.0.1:9".parse().unwrap()));
        let init = RUNNING.replace("containers\"", "initContainers\"");
        assert_eq!(pod(&init).address(&wanted()), None);
        let sidecar = init.replace(r#""name": "node""#, r#""name": "node", "restartPolicy": "Always""#);
        assert_eq!(pod(&sidecar).address(&wanted()), Some("10.0.0.1:3322".parse().unwrap()));
    }

    #[test]
    fn of_several_addresses_the_family_decides() {
        let of = |ip_family, json: &str| pod(json).address(&Wanted { ip_family, ..wanted() });
        assert_eq!(of(IpFamily::V6, RUNNING), Some("[fd00::1]:3322".parse().unwrap()));
        assert_eq!(of(IpFamily::V4, RUNNING), Some("10.0.0.1:3322".parse().unwrap()));
        let v4_only = RUNNING.replace(r#", { "ip": "fd00::1" }"#, "");
        assert_eq!(of(IpFamily::V6, &v4_only), None);
    }

    #[test]
    fn what_is_null_or_missing_is_nothing() {
        let bookmark = r#"{ "kind": "Pod", "apiVersion": "v1",
            "metadata": { "resourceVersion": "12", "creationTimestamp": null },
            "spec": { "containers": null }, "status": {} }"#;
        assert_eq!(pod(bookmark).metadata.resource_version, "12");
        assert_eq!(pod(bookmark).address(&wanted()), None);
        let no_ip = RUNNING.replace(r#""podIP": "10.0.0.1","#, "");
        assert_eq!(pod(&no_ip).address(&wanted()), None);
    }
}
