//! Our own nodes: a cluster on loopback, hot copies off.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use distcache::{DataSource, Engine, Fetched, Keyspace, KeyspaceSpec, PeerState, SourceError, StaticDiscovery};

use super::Reader;
use crate::error::BenchError;
use crate::workload;

const KEYSPACE: &str = "bench";

/// Makes every value from its key.
pub struct Made;

impl DataSource for Made {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        Ok(Fetched::new(workload::value(key)))
    }
}

/// Starts a node on free ports.
pub async fn start(cluster: &str, name: &str, seeds: &[SocketAddr]) -> Result<Engine, BenchError> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let engine = Engine::builder()
        .keyspace(KeyspaceSpec::new(KEYSPACE, Made).max_bytes(256 << 20).hot_copies(false))
        .discovery(StaticDiscovery::new(seeds.iter().map(ToString::to_string)))
        .name(name)
        .cluster_name(cluster)
        .peer_listen(any_port)
        .gossip_listen(any_port)
        .advertise(Ipv4Addr::LOCALHOST.into());
    Ok(engine.start().await?)
}

/// A node that reads what the others own.
#[derive(Clone)]
pub struct Node {
    /// Kept, because a node leaves when its engine is dropped.
    _engine: Engine,
    keyspace: Keyspace,
}

impl Node {
    pub async fn join(cluster: &str, servers: &[SocketAddr]) -> Result<Self, BenchError> {
        let engine = start(cluster, "reader", servers).await?;
        wait_for_nodes(&engine, servers.len() + 1).await?;
        Ok(Self { keyspace: engine.keyspace(KEYSPACE)?, _engine: engine })
    }
}

async fn wait_for_nodes(engine: &Engine, nodes: usize) -> Result<(), BenchError> {
    const SECONDS: u64 = 30;
    let deadline = Instant::now() + Duration::from_secs(SECONDS);
    let complete = || {
        let peers = engine.peers();
        engine.is_ready() && peers.len() == nodes && peers.iter().all(|peer| peer.state == PeerState::Ready)
    };
    while !complete() {
        if Instant::now() > deadline {
            return Err(BenchError::TimedOut { what: "the joining of all distcache nodes", seconds: SECONDS });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

impl Reader for Node {
    async fn warm(&self, keys: &[String]) -> Result<(), BenchError> {
        for key in keys {
            self.read(key).await?;
        }
        Ok(())
    }

    fn is_remote(&self, key: &str) -> bool {
        self.keyspace.owner_of(key).is_ok_and(|owner| !owner.is_self)
    }

    async fn read(&self, key: &str) -> Result<usize, BenchError> {
        Ok(self.keyspace.get(key).await?.len())
    }

    async fn read_many(&self, keys: &[String]) -> Result<usize, BenchError> {
        let mut bytes = 0;
        for value in self.keyspace.get_many(keys).await? {
            bytes += value?.len();
        }
        Ok(bytes)
    }

    fn answered_here(&self) -> Option<u64> {
        let stats = self.keyspace.stats();
        Some(stats.hits_owned + stats.hits_hot + stats.loads)
    }
}
