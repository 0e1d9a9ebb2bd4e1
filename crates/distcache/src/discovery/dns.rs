//! The provider that asks DNS: every A and AAAA record of one name is a node.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Discovery, DiscoveryError};
use crate::net;

/// Nodes behind one DNS name (a headless service, a round-robin record), all on the same gossip port.
///
/// Asks the system's resolver. A name that does not exist yet is a passing failure: the question is asked again.
///
/// ```
/// let discovery = distcache::DnsDiscovery::new("cache.internal", 3322);
/// ```
#[derive(Clone, Debug)]
pub struct DnsDiscovery {
    name: String,
    port: u16,
    timeout: Duration,
}

impl DnsDiscovery {
    /// Every address that `name` resolves to, with the gossip port of the cluster.
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        Self { name: name.into(), port, timeout: Duration::from_secs(5) }
    }

    /// How long one question may take; 5 s unless told.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Discovery for DnsDiscovery {
    async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        let question = format!("{}:{}", self.name, self.port);
        match tokio::time::timeout(self.timeout, net::resolve(&question)).await {
            Ok(Ok(addrs)) => Ok(addrs),
            Ok(Err(error)) => Err(DiscoveryError::unavailable(format!("{:?}: {error}", self.name))),
            Err(_) => Err(DiscoveryError::unavailable(format!("{:?}: no answer within {:?}", self.name, self.timeout))),
        }
    }
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
        assert!(error.to_string().contains("no-such-name.invalid"), "{error}");
    }
}
