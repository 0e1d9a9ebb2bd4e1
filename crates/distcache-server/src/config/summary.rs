//! A configuration in words, for `check`.

use std::fmt;

use distcache::IpFamily;

use super::redact::without_passwords;
use super::{Config, DiscoveryConfig, DnsConfig, DnsRecord, KeyspaceConfig, TelemetryConfig};
use crate::listener::ListenerConfig;
use crate::table::bytes;

mod keyspace;

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node =
            self.node.name.as_ref().map_or_else(|| "a node named by its address".into(), |name| format!("node {name}"));
        write!(f, "{node} of cluster {}, ", self.cluster.name)?;
        match &self.discovery {
            DiscoveryConfig::Standalone => writeln!(f, "by itself")?,
            DiscoveryConfig::Static { seeds } if seeds.is_empty() => writeln!(f, "waiting for others to join")?,
            DiscoveryConfig::Static { seeds } => writeln!(f, "joining through {}", seeds.join(", "))?,
            DiscoveryConfig::Dns(dns) => writeln!(f, "joining through {dns}")?,
            DiscoveryConfig::Nats(nats) => {
                let servers: Vec<String> = nats.servers.iter().map(|server| without_passwords(server)).collect();
                writeln!(f, "joining through NATS at {}", servers.join(", "))?;
            }
            DiscoveryConfig::Kubernetes(pods) => {
                let namespace = pods.namespace.as_deref().unwrap_or("this pod's namespace");
                writeln!(f, "joining through the pods of {namespace} with {}", pods.labels)?;
            }
        }
        if !self.is_standalone() {
            writeln!(f, "{}", self.protection())?;
        }
        writeln!(f, "http on {}, admin on {}", self.http, self.admin)?;
        if let Some(telemetry) = &self.telemetry {
            let TelemetryConfig { endpoint, service_name, sample_ratio } = telemetry;
            // Of four digits behind the point at most, which end where they say nothing.
            let percent = (f64::from(*sample_ratio) * 1e6).round() / 1e4;
            writeln!(f, "metrics, and {percent} % of the traces, to {endpoint} as {service_name}")?;
        }
        if self.keyspaces.is_empty() {
            writeln!(f, "no keyspace: there is nothing to read")?;
        }
        for keyspace in &self.keyspaces {
            writeln!(f, "{keyspace}")?;
            keyspace::rules(keyspace).iter().try_for_each(|rule| writeln!(f, "  {rule}"))?;
        }
        Ok(())
    }
}

impl Config {
    fn protection(&self) -> &'static str {
        match (&self.cluster.secret_file, &self.tls) {
            (None, None) => "open to whoever reaches its ports: no cluster secret, no TLS",
            (Some(_), None) => "closed by a cluster secret; what peers ask each other is not encrypted",
            (None, Some(_)) => "TLS between nodes; gossip is open to whoever reaches its port: no cluster secret",
            (Some(_), Some(_)) => "closed by a cluster secret, with TLS between nodes",
        }
    }
}

impl fmt::Display for ListenerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.listen.fmt(f)?;
        match self.tls.as_ref().map(|tls| tls.client_ca.is_some()) {
            None => Ok(()),
            Some(false) => f.write_str(" with TLS"),
            Some(true) => f.write_str(" with TLS, for clients with a certificate"),
        }
    }
}

impl fmt::Display for DnsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.ip_family {
            IpFamily::Both => "",
            IpFamily::Ipv4 => "IPv4 ",
            IpFamily::Ipv6 => "IPv6 ",
        };
        match self.record {
            DnsRecord::Address { port } => write!(f, "every {family}address of {}, port {port}", self.name)?,
            DnsRecord::Srv => write!(f, "every {family}address and port of {}", self.name)?,
        }
        let servers: Vec<String> = self.name_servers.iter().map(ToString::to_string).collect();
        if servers.is_empty() { Ok(()) } else { write!(f, ", as {} knows them", servers.join(" or ")) }
    }
}

impl fmt::Display for KeyspaceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = distcache::KeyspaceSettings::default();
        write!(f, "keyspace {}: {} a node", self.name, bytes(self.max_bytes.unwrap_or(spec.max_bytes)))?;
        match self.ttl {
            Some(ttl) => write!(f, ", entries live {}", humantime::format_duration(ttl))?,
            None => write!(f, ", entries live until evicted")?,
        }
        if let Some(jitter) = self.ttl_jitter {
            write!(f, " or up to {:.0} % less", jitter * 100.0)?;
        }
        if let Some(ttl) = self.negative_ttl {
            write!(f, ", \"not found\" lives {}", humantime::format_duration(ttl))?;
        }
        write!(f, "; {}", self.source)
    }
}
