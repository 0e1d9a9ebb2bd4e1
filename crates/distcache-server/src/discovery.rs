//! From the section `[discovery]` to the provider that it describes.
//!
//! NATS and Kubernetes come with features of their own (both with `full`): what they bring is much, and most builds need neither.

use distcache::{DnsDiscovery, EngineBuilder, StaticDiscovery};

use crate::config::{Config, DiscoveryConfig, DnsConfig, DnsRecord};

/// A provider that this build does not have.
#[derive(Debug, thiserror::Error)]
#[error("this build has no discovery by {provider}; build it with the cargo feature `{provider}` or `full`")]
pub struct NotBuiltIn {
    pub provider: &'static str,
}

/// Gives the engine the provider that the file names. Asks nobody yet.
pub fn found(builder: EngineBuilder, config: &Config) -> Result<EngineBuilder, NotBuiltIn> {
    Ok(match &config.discovery {
        DiscoveryConfig::Standalone => builder,
        DiscoveryConfig::Static { seeds } => builder.discovery(StaticDiscovery::new(seeds)),
        DiscoveryConfig::Dns(config) => builder.discovery(dns(config)),
        #[cfg(feature = "nats")]
        DiscoveryConfig::Nats(nats) => builder.discovery(self::nats(nats, config)),
        #[cfg(not(feature = "nats"))]
        DiscoveryConfig::Nats(_) => return Err(NotBuiltIn { provider: "nats" }),
        #[cfg(feature = "kubernetes")]
        DiscoveryConfig::Kubernetes(pods) => builder.discovery(kubernetes(pods, config)),
        #[cfg(not(feature = "kubernetes"))]
        DiscoveryConfig::Kubernetes(_) => return Err(NotBuiltIn { provider: "kubernetes" }),
    })
}

fn dns(config: &DnsConfig) -> DnsDiscovery {
    let discovery = match config.record {
        DnsRecord::Address { port } => DnsDiscovery::new(&config.name, port),
        DnsRecord::Srv => DnsDiscovery::srv(&config.name),
    };
    let discovery = config.name_servers.iter().fold(discovery, |discovery, server| discovery.name_server(*server));
    let discovery = discovery.ip_family(config.ip_family);
    config.timeout.into_iter().fold(discovery, DnsDiscovery::timeout)
}

#[cfg(feature = "nats")]
fn nats(nats: &crate::config::NatsConfig, config: &Config) -> distcache_nats::NatsDiscovery {
    use distcache_nats::{Login, NatsDiscovery, Secret, Tls};

    use crate::config::NatsLogin;

    let path = |file: &String| config.dir.join(file);
    let mut discovery = NatsDiscovery::new(&nats.servers, &config.cluster.name);
    discovery = match &nats.login {
        NatsLogin::None => discovery,
        NatsLogin::Password { user, file } => discovery.login(Login::password(user, Secret::file(path(file)))),
        NatsLogin::Token { file } => discovery.login(Login::token(Secret::file(path(file)))),
        NatsLogin::Nkey { seed_file } => discovery.login(Login::nkey(Secret::file(path(seed_file)))),
        NatsLogin::Credentials { file } => discovery.login(Login::credentials(path(file))),
    };
    if nats.ca.is_some() || nats.identity.is_some() {
        let tls = nats.ca.iter().fold(Tls::new(), |tls, ca| tls.ca(path(ca)));
        let identity = nats.identity.iter();
        discovery = discovery.tls(identity.fold(tls, |tls, [cert, key]| tls.identity(path(cert), path(key))));
    }
    if let Some(prefix) = &nats.subject_prefix {
        discovery = discovery.subject_prefix(prefix);
    }
    nats.timeout.into_iter().fold(discovery, NatsDiscovery::connect_timeout)
}

#[cfg(feature = "kubernetes")]
fn kubernetes(pods: &crate::config::KubernetesConfig, config: &Config) -> distcache_kubernetes::KubernetesDiscovery {
    use distcache_kubernetes::{IpFamily, KubernetesDiscovery};

    use crate::config::PodPort;

    let mut discovery = KubernetesDiscovery::new(&pods.labels).ready_only(pods.ready_only);
    if let Some(namespace) = &pods.namespace {
        discovery = discovery.namespace(namespace);
    }
    discovery = match &pods.port {
        None => discovery,
        Some(PodPort::Named(name)) => discovery.port_name(name),
        Some(PodPort::Number(port)) => discovery.port(*port),
    };
    if let Some(file) = &pods.kubeconfig {
        discovery = discovery.kubeconfig(config.dir.join(file));
    }
    discovery.ip_family(match pods.ip_family {
        distcache::IpFamily::Ipv4 => IpFamily::V4,
        distcache::IpFamily::Ipv6 => IpFamily::V6,
        _ => IpFamily::Primary,
    })
}
