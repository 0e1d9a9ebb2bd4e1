//! The systems that answer over a network: each can serve, and be read from.
//!
//! A file a system. All of them hold the same keys and values ([`crate::workload`]), run on one worker thread a process, and
//! keep no copy of what another node owns.

pub mod distcache;
pub mod groupcache;
pub mod redis;

use std::future::Future;
use std::net::SocketAddr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

use crate::child;
use crate::error::BenchError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum System {
    Distcache,
    /// The same under mutual TLS, with a cluster secret.
    DistcacheTls,
    Groupcache,
    Redis,
}

impl System {
    /// Those that are different systems.
    pub const ALL: [Self; 3] = [Self::Distcache, Self::Groupcache, Self::Redis];

    /// What this program's arguments call it.
    pub fn arg(self) -> &'static str {
        match self {
            Self::Distcache => "distcache",
            Self::DistcacheTls => "distcache-tls",
            Self::Groupcache => "groupcache",
            Self::Redis => "redis",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Distcache => "distcache",
            Self::DistcacheTls => "distcache, mutual TLS",
            Self::Groupcache => "groupcache 0.3",
            Self::Redis => "redis-rs, redis-server",
        }
    }
}

/// A client of a system. Values come back as their lengths, so that every system has touched its answer and none is asked
/// for a particular type.
pub trait Reader: Clone + Send + Sync + 'static {
    /// Puts the values of these keys where they belong.
    fn warm(&self, keys: &[String]) -> impl Future<Output = Result<(), BenchError>> + Send;

    /// Whether another process holds this key; only asked of keys that are warm.
    fn is_remote(&self, key: &str) -> bool;

    fn read(&self, key: &str) -> impl Future<Output = Result<usize, BenchError>> + Send;

    /// Bytes of all the values together.
    fn read_many(&self, keys: &[String]) -> impl Future<Output = Result<usize, BenchError>> + Send;

    /// Reads so far that this process answered by itself, where the system counts them.
    fn answered_here(&self) -> Option<u64>;
}

/// What a server says once it answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Serving {
    /// The process that does the work.
    pub pid: u32,
    /// Where others find it.
    pub addr: SocketAddr,
}

/// Serves in this process until its input ends.
pub fn serve(system: System, cluster: &str, name: &str, seeds: &[SocketAddr]) -> Result<(), BenchError> {
    let runtime = one_worker()?;
    let pid = std::process::id();
    match system {
        System::Distcache | System::DistcacheTls => {
            let security = distcache::Security::of(system, std::os::unix::process::parent_id());
            let engine = runtime.block_on(distcache::start(security, cluster, name, seeds))?;
            child::say(&Serving { pid, addr: engine.me().gossip_addr })?;
            child::wait_for_end()
        }
        System::Groupcache => {
            let addr = runtime.block_on(groupcache::serve())?;
            child::say(&Serving { pid, addr })?;
            child::wait_for_end()
        }
        System::Redis => {
            let server = redis::Server::start()?;
            runtime.block_on(redis::wait_until_up(server.addr))?;
            child::say(&Serving { pid: server.pid(), addr: server.addr })?;
            child::wait_for_end()
        }
    }
}

/// One core a side: what a process does on the network, one thread does.
pub fn one_worker() -> Result<Runtime, BenchError> {
    Ok(Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}
