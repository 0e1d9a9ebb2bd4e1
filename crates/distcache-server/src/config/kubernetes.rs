//! The keys of `provider = "kubernetes"`.

use distcache::IpFamily;

use super::dns::ip_family;
use super::error::Reason;
use super::section::Section;

#[derive(Clone, Debug, PartialEq)]
pub struct KubernetesConfig {
    /// That of this pod unless told.
    pub namespace: Option<String>,
    /// A label selector, such as `app=distcache`.
    pub labels: String,
    pub port: Option<PodPort>,
    pub ready_only: bool,
    pub ip_family: IpFamily,
    /// For a node outside of the cluster; as it stands in the file.
    pub kubeconfig: Option<String>,
}

/// The gossip port of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum PodPort {
    Named(String),
    Number(u16),
}

pub(super) const KNOWN: [&str; 6] = ["namespace", "labels", "port", "ready_only", "ip_family", "kubeconfig"];

pub(super) fn kubernetes(section: &mut Section<'_>) -> Result<KubernetesConfig, Reason> {
    Ok(KubernetesConfig {
        namespace: section.string("namespace")?,
        labels: section.required("labels", "the labels of the pods, such as \"app=distcache\"")?,
        port: section.name_or_port("port")?.map(|port| port.map_or_else(PodPort::Named, PodPort::Number)),
        ready_only: section.boolean("ready_only")?.unwrap_or(false),
        ip_family: ip_family(section)?,
        kubeconfig: section.string("kubeconfig")?,
    })
}
