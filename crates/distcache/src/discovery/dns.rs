//! The provider that asks DNS: one name stands for all nodes.
//!
//! Knows which records name nodes and how much of an answer to keep, not how a question is put: that is the system's resolver's
//! part, or that of `servers`. The invariant: nothing is kept from one question to the next, so that an answer is as old as
//! whoever was asked lets it become, which is the TTL of the record.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::timeout;

use super::{Discovery, DiscoveryError};
use crate::net;

#[cfg(feature = "dns")]
mod servers;

/// Addresses kept of one answer: as many as a cluster may have members.
const ADDRESSES_MAX: usize = 4_096;
/// Longest name that DNS knows, in bytes, and longest part of one between two dots.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
/// One question leaves time for the next before the engine gives up on both.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Nodes behind one DNS name: a headless service, a round-robin record, a set of SRV records.
///
/// [`new`](Self::new) asks the system's resolver for addresses, and all nodes gossip on the port it is given. With the cargo
/// feature `dns` there is also `srv`, whose answers bring the port of each node, and `name_server` for a name server of one's
/// own instead of the system's.
///
/// Each question is asked anew and no answer is kept. A name that does not exist yet, a name server that is silent or refuses:
/// all that is a passing failure, and the question is asked again. Of one answer at most 4,096 addresses are kept.
///
/// ```
/// use distcache::{DnsDiscovery, IpFamily};
///
/// let discovery = DnsDiscovery::new("cache.internal", 3322).ip_family(IpFamily::Ipv4);
/// ```
#[derive(Clone, Debug)]
pub struct DnsDiscovery {
    name: String,
    record: Record,
    ip_family: IpFamily,
    timeout: Duration,
    #[cfg(feature = "dns")]
    name_servers: Vec<SocketAddr>,
}

/// Which records name the nodes.
#[derive(Clone, Copy, Debug)]
enum Record {
    /// A and AAAA: the port is the same for all.
    Address { port: u16 },
    /// SRV: each brings its port.
    #[cfg(feature = "dns")]
    Srv,
}

/// Which addresses of a node to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpFamily {
    /// Whatever there is.
    #[default]
    Both,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl IpFamily {
    fn has(self, ip: IpAddr) -> bool {
        match self {
            Self::Both => true,
            Self::Ipv4 => ip.is_ipv4(),
            Self::Ipv6 => ip.is_ipv6(),
        }
    }

    /// The word for an address of this family.
    fn word(self) -> &'static str {
        match self {
            Self::Both => "IP",
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

impl DnsDiscovery {
    /// Every address that `name` resolves to (A and AAAA), with the gossip port of the cluster.
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        Self::asking(name.into(), Record::Address { port })
    }

    /// Every SRV record of `name`, `_service._proto.domain` by custom: its target's addresses with the port that it says.
    ///
    /// Priority and weight are ignored on purpose: they choose one server among many, and here all of them are wanted.
    ///
    /// ```
    /// let discovery = distcache::DnsDiscovery::srv("_distcache._udp.cache.internal");
    /// ```
    #[cfg(feature = "dns")]
    pub fn srv(name: impl Into<String>) -> Self {
        Self::asking(name.into(), Record::Srv)
    }

    fn asking(name: String, record: Record) -> Self {
        Self {
            name,
            record,
            ip_family: IpFamily::default(),
            timeout: TIMEOUT,
            #[cfg(feature = "dns")]
            name_servers: Vec::new(),
        }
    }

    /// Asks this name server, over UDP and, for answers that do not fit, over TCP, instead of the system's.
    ///
    /// May be called up to eight times: the next one is asked when those before it have no answer. The name is then taken as it
    /// is, without the system's search list and hosts file.
    ///
    /// ```
    /// use std::net::{Ipv4Addr, SocketAddr};
    /// use distcache::DnsDiscovery;
    ///
    /// let name_server = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), 53));
    /// let discovery = DnsDiscovery::srv("_distcache._udp.cache.internal").name_server(name_server);
    /// ```
    #[cfg(feature = "dns")]
    pub fn name_server(mut self, addr: SocketAddr) -> Self {
        self.name_servers.push(addr);
        self
    }

    /// Which addresses to take; both families unless told.
    pub fn ip_family(mut self, ip_family: IpFamily) -> Self {
        self.ip_family = ip_family;
        self
    }

    /// How long one question may take, with all that belongs to it: every name server and every target of an SRV record. 5 s
    /// unless told. The engine itself gives a provider 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn ask(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        match self.record {
            #[cfg(feature = "dns")]
            Record::Srv => self.ask_servers().await,
            #[cfg(feature = "dns")]
            Record::Address { .. } if !self.name_servers.is_empty() => self.ask_servers().await,
            Record::Address { port } => self.ask_system(port).await,
        }
    }

    #[cfg(feature = "dns")]
    async fn ask_servers(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        Ok(servers::ask(self).await?)
    }

    async fn ask_system(&self, port: u16) -> Result<Vec<SocketAddr>, DiscoveryError> {
        let question = format!("{}:{port}", self.name);
        match timeout(self.timeout, net::resolve(&question)).await {
            Ok(Ok(addrs)) => Ok(kept(addrs, self.ip_family)),
            Ok(Err(error)) => Err(self.failure(format_args!("does not resolve: {error}"))),
            Err(_) => {
                Err(self.failure(format_args!("the system's resolver does not answer within {:?}", self.timeout)))
            }
        }
    }

    fn failure(&self, what: std::fmt::Arguments<'_>) -> DiscoveryError {
        DiscoveryError::unavailable(format!("{:?}: {what}", self.name))
    }

    /// Whether there is any sense in asking.
    fn check(&self) -> Result<(), DiscoveryError> {
        let invalid = |problem: String| Err(DiscoveryError::invalid(problem));
        if !is_name(&self.name) {
            return invalid(format!("dns.name = {:?}: is not a name that DNS knows", self.name));
        }
        if matches!(self.record, Record::Address { port: 0 }) {
            return invalid("dns.port = 0: must be the gossip port of the nodes".into());
        }
        if self.timeout.is_zero() {
            return invalid("dns.timeout = 0ns: must be longer than zero".into());
        }
        #[cfg(feature = "dns")]
        servers::check(&self.name_servers)?;
        Ok(())
    }
}

impl Discovery for DnsDiscovery {
    /// There is nobody to tell: whoever keeps the records does it. A setting that cannot work stops the start.
    async fn register(&self, _: SocketAddr) -> Result<(), DiscoveryError> {
        self.check()
    }

    async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        self.check()?;
        match self.ask().await {
            Ok(found) if found.is_empty() => {
                Err(self.failure(format_args!("has no {} address yet", self.ip_family.word())))
            }
            answer => answer,
        }
    }
}

/// What is taken of an answer.
fn kept(addrs: impl IntoIterator<Item = SocketAddr>, ip_family: IpFamily) -> Vec<SocketAddr> {
    addrs.into_iter().filter(|addr| ip_family.has(addr.ip())).take(ADDRESSES_MAX).collect()
}

/// Whether a resolver can make a question of it.
fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| (1..=LABEL_BYTES_MAX).contains(&label.len());
    let has_odd_characters = name.chars().any(|c| c.is_whitespace() || c.is_control());
    name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label) && !has_odd_characters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_address_of_a_name_gets_the_port() {
        let found = DnsDiscovery::new("localhost", 3322).discover().await.unwrap();
        assert!(!found.is_empty());
        assert!(found.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 3322), "{found:?}");
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_a_passing_failure_that_names_it() {
        let error = DnsDiscovery::new("no-such-name.invalid", 3322).discover().await.unwrap_err();
        assert!(error.is_retryable());
        assert!(error.to_string().contains("\"no-such-name.invalid\": does not resolve"), "{error}");
    }

    #[tokio::test]
    async fn the_family_is_that_asked_for_and_its_absence_is_a_passing_failure() {
        let v4 = DnsDiscovery::new("127.0.0.1", 3322);
        let found = v4.clone().ip_family(IpFamily::Ipv4).discover().await.unwrap();
        assert_eq!(found, ["127.0.0.1:3322".parse().unwrap()]);
        let error = v4.ip_family(IpFamily::Ipv6).discover().await.unwrap_err();
        assert!(error.is_retryable());
        assert!(error.to_string().ends_with("\"127.0.0.1\": has no IPv6 address yet"), "{error}");
    }

    #[test]
    fn an_answer_of_a_hundred_thousand_is_bounded_and_the_other_family_does_not_count() {
        let v4 = (0..100_000_u32).map(|n| SocketAddr::new(IpAddr::from(n.to_be_bytes()), 1));
        let v6 = (0..5_000_u128).map(|n| SocketAddr::new(IpAddr::from(n.to_be_bytes()), 1));
        assert_eq!(kept(v4.clone(), IpFamily::Both).len(), ADDRESSES_MAX);
        let found = kept(v4.take(5_000).chain(v6), IpFamily::Ipv6);
        assert_eq!(found.len(), ADDRESSES_MAX);
        assert!(found.iter().all(SocketAddr::is_ipv6));
    }

    #[tokio::test]
    async fn settings_that_cannot_work_are_refused_before_anything_starts_and_are_named() {
        let refused = async |discovery: DnsDiscovery| {
            let error = discovery.register("127.0.0.1:1".parse().unwrap()).await.unwrap_err();
            assert!(!error.is_retryable());
            error.to_string()
        };
        assert!(refused(DnsDiscovery::new("", 1)).await.contains("dns.name = \"\""));
        assert!(refused(DnsDiscovery::new("cache..internal", 1)).await.contains("dns.name"));
        assert!(refused(DnsDiscovery::new("cache internal", 1)).await.contains("dns.name"));
        assert!(refused(DnsDiscovery::new("x".repeat(64), 1)).await.contains("dns.name"));
        assert!(refused(DnsDiscovery::new("cache", 0)).await.contains("dns.port = 0"));
        assert!(refused(DnsDiscovery::new("cache", 1).timeout(Duration::ZERO)).await.contains("dns.timeout"));
        #[cfg(feature = "dns")]
        {
            let server = |addr: &str| DnsDiscovery::srv("cache").name_server(addr.parse().unwrap());
            assert!(refused(server("10.0.0.2:0")).await.contains("dns.name_servers = 10.0.0.2:0"));
            assert!(refused(server("0.0.0.0:53")).await.contains("dns.name_servers = 0.0.0.0:53"));
            let nine = (0..8).fold(server("10.0.0.2:53"), |all, _| all.name_server("10.0.0.2:53".parse().unwrap()));
            assert!(refused(nine).await.contains("dns.name_servers: at most 8"));
        }
        for name in ["cache", "cache.internal.", "_distcache._udp.cache.internal", "10.0.0.1"] {
            DnsDiscovery::new(name, 1).register("127.0.0.1:1".parse().unwrap()).await.unwrap();
        }
    }
}
