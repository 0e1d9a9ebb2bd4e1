//! Our own nodes: a cluster on loopback, hot copies off.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use distcache::{
    ClusterSecret, DataSource, Engine, Fetched, Keyspace, KeyspaceSpec, PeerState, SourceError, StaticDiscovery, Tls,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use super::{Reader, System};
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

/// How nodes know each other.
#[derive(Clone, Debug)]
pub enum Security {
    None,
    /// The certificates lie here.
    MutualTls(PathBuf),
}

impl Security {
    /// `bench` is the process that has made the certificates.
    pub fn of(system: System, bench: u32) -> Self {
        match system {
            System::DistcacheTls => Self::MutualTls(directory(bench)),
            _ => Self::None,
        }
    }
}

/// One name for all nodes, in the certificate that they share.
const NAME: &str = "bench.internal";
const SECRET: &str = "no secret at all: it is written here";
const FILES: [&str; 3] = ["ca.pem", "node.pem", "node.key"];

fn directory(bench: u32) -> PathBuf {
    std::env::temp_dir().join(format!("distcache-bench-{bench}"))
}

/// A CA and a certificate, for as long as this lives.
pub struct Certificates(PathBuf);

impl Certificates {
    pub fn make() -> Result<Self, BenchError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut params = CertificateParams::new([NAME.to_owned()])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &ca)?;
        let made = Self(directory(std::process::id()));
        std::fs::create_dir_all(&made.0)?;
        for (file, pem) in FILES.iter().zip([ca.pem(), cert.pem(), key.serialize_pem()]) {
            std::fs::write(made.0.join(file), pem)?;
        }
        Ok(made)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        // In the system's directory for such things; what stays is removed with the rest of it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts a node on free ports.
pub async fn start(security: Security, cluster: &str, name: &str, seeds: &[SocketAddr]) -> Result<Engine, BenchError> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let builder = match security {
        Security::None => Engine::builder(),
        Security::MutualTls(directory) => {
            let [ca, cert, key] = FILES.map(|file| directory.join(file));
            let tls = Tls::from_files(ca, cert, key)?.server_name(NAME);
            Engine::builder().tls(tls).cluster_secret(ClusterSecret::new(SECRET)?)
        }
    };
    let engine = builder
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
    pub async fn join(security: Security, cluster: &str, servers: &[SocketAddr]) -> Result<Self, BenchError> {
        let engine = start(security, cluster, "reader", servers).await?;
        wait_for_nodes(&engine, servers.len() + 1).await?;
        Ok(Self { keyspace: engine.keyspace(KEYSPACE)?, _engine: engine })
    }
}

/// Waits until so many nodes know each other, by what this one sees.
pub async fn wait_for_nodes(engine: &Engine, nodes: usize) -> Result<(), BenchError> {
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
