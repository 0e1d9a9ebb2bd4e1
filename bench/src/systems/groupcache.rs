//! The groupcache crate: gRPC between nodes, as it comes, but for the hot cache, which is switched off.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::try_join_all;
use groupcache::{Groupcache, GroupcachePeer, ValueLoader};
use moka::future::Cache;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::Reader;
use crate::error::BenchError;
use crate::workload;

/// Makes every value from its key, and notes the keys that it was asked for: those are this node's own.
#[derive(Clone, Default)]
struct Made {
    asked: Arc<Mutex<HashSet<String>>>,
}

#[async_trait::async_trait]
impl ValueLoader for Made {
    type Value = Bytes;

    async fn load(&self, key: &str) -> Result<Bytes, Box<dyn StdError + Send + Sync + 'static>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned());
        Ok(workload::value(key))
    }
}

/// A node by itself, that nobody can reach.
pub fn alone() -> Groupcache<Bytes> {
    node(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), Made::default())
}

fn node(me: SocketAddr, loader: Made) -> Groupcache<Bytes> {
    // A cache of no capacity keeps nothing and costs next to nothing.
    let no_hot_cache = Cache::builder().max_capacity(0).build();
    Groupcache::builder(GroupcachePeer::from_socket(me), loader).hot_cache(no_hot_cache).build()
}

/// Serves on a free port, for as long as the runtime lives. The server knows no other node, so it owns whatever it is asked
/// for; who asks whom is the reader's choice.
pub async fn serve() -> Result<SocketAddr, BenchError> {
    let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into())?.with_nodelay(Some(true));
    let addr = incoming.local_addr()?;
    let service = node(addr, Made::default()).grpc_service();
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    Ok(addr)
}

/// A node that reads what the others own.
#[derive(Clone)]
pub struct Node {
    cache: Groupcache<Bytes>,
    loader: Made,
}

impl Node {
    pub async fn join(servers: &[SocketAddr]) -> Result<Self, BenchError> {
        let loader = Made::default();
        let cache = node(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), loader.clone());
        for &server in servers {
            cache.add_peer(GroupcachePeer::from_socket(server)).await.map_err(BenchError::groupcache)?;
        }
        Ok(Self { cache, loader })
    }
}

impl Reader for Node {
    async fn warm(&self, keys: &[String]) -> Result<(), BenchError> {
        for key in keys {
            self.read(key).await?;
        }
        Ok(())
    }

    fn is_remote(&self, key: &str) -> bool {
        !self.loader.asked.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    async fn read(&self, key: &str) -> Result<usize, BenchError> {
        Ok(self.cache.get(key).await.map_err(BenchError::groupcache)?.len())
    }

    /// It has no call for several keys.
    async fn read_many(&self, keys: &[String]) -> Result<usize, BenchError> {
        Ok(try_join_all(keys.iter().map(|key| self.read(key))).await?.iter().sum())
    }

    fn answered_here(&self) -> Option<u64> {
        None
    }
}
