//! The section `[discovery]`: how the other nodes are found. What a provider's keys mean, its own file knows.

use super::dns::{self, DnsConfig};
use super::error::Reason;
use super::kubernetes::{self, KubernetesConfig};
use super::nats::{self, NatsConfig};
use super::section::Section;

#[derive(Clone, Debug, PartialEq)]
pub enum DiscoveryConfig {
    Standalone,
    Static { seeds: Vec<String> },
    Dns(DnsConfig),
    Nats(NatsConfig),
    Kubernetes(KubernetesConfig),
}

const PROVIDERS: [&str; 5] = ["standalone", "static", "dns", "nats", "kubernetes"];

pub(super) fn discovery(root: &mut Section<'_>) -> Result<DiscoveryConfig, Reason> {
    let known = [&["provider", "seeds"], &dns::KNOWN[..], &nats::KNOWN[..], &kubernetes::KNOWN[..]].concat();
    let mut section = root.section("discovery", &known, &[])?;
    let found = match section.choice("provider", &PROVIDERS, &[])?.unwrap_or("standalone") {
        "static" => DiscoveryConfig::Static { seeds: section.seeds("seeds")?.unwrap_or_default() },
        "dns" => DiscoveryConfig::Dns(dns::dns(&mut section)?),
        "nats" => DiscoveryConfig::Nats(nats::nats(&mut section)?),
        "kubernetes" => DiscoveryConfig::Kubernetes(kubernetes::kubernetes(&mut section)?),
        _ => DiscoveryConfig::Standalone,
    };
    section.nothing_left("it has no meaning for this provider")?;
    Ok(found)
}
