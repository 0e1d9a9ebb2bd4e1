//! The provider that was told: a fixed list of seeds, names among them resolved anew each time.

use std::net::SocketAddr;

use super::{Discovery, DiscoveryError};
use crate::net;

/// A fixed list of gossip addresses, `host:port` each.
///
/// One reachable seed is enough to find the whole cluster. A seed that does not resolve is passed over while others do.
///
/// ```
/// let discovery = distcache::StaticDiscovery::new(["10.0.0.1:3322", "cache-2.internal:3322"]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct StaticDiscovery {
    seeds: Vec<String>,
}

impl StaticDiscovery {
    /// Seeds as `host:port`; a host may be an IP address or a name.
    pub fn new(seeds: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { seeds: seeds.into_iter().map(Into::into).collect() }
    }
}

impl Discovery for StaticDiscovery {
    async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        let mut found = Vec::new();
        let mut failure = None;
        for seed in &self.seeds {
            match net::resolve(seed).await {
                Ok(addrs) => found.extend(addrs),
                Err(error) => {
                    tracing::debug!(seed, %error, "a seed does not resolve");
                    failure = Some(format!("seed {seed:?}: {error}"));
                }
            }
        }
        match failure {
            Some(failure) if found.is_empty() => Err(DiscoveryError::unavailable(failure)),
            _ => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_seed_that_does_not_resolve_does_not_hide_the_others() {
        let discovery = StaticDiscovery::new(["127.0.0.1:1", "no-such-host.invalid:2"]);
        assert_eq!(discovery.discover().await.unwrap(), ["127.0.0.1:1".parse().unwrap()]);
    }

    #[tokio::test]
    async fn when_no_seed_resolves_the_error_names_one() {
        let error = StaticDiscovery::new(["no-such-host.invalid:2"]).discover().await.unwrap_err();
        assert!(error.is_retryable());
        assert!(error.to_string().contains("no-such-host.invalid:2"), "{error}");
    }
}
