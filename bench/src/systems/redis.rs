//! A Redis server without persistence, and redis-rs's multiplexed connection to it.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use super::Reader;
use crate::error::BenchError;
use crate::workload;

/// A running `redis-server`, stopped when dropped.
pub struct Server {
    process: Child,
    pub addr: SocketAddr,
}

impl Server {
    pub fn start() -> Result<Self, BenchError> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let process =
            command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(|error| match error.kind() {
                ErrorKind::NotFound => BenchError::RedisMissing,
                _ => error.into(),
            })?;
        Ok(Self { process, addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It keeps nothing that it would have to write first, and a failure here cannot be mended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Says whether a comparison that needs Redis can be made at all.
pub fn check_installed() -> Result<(), BenchError> {
    let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    version.map(drop).map_err(|_| BenchError::RedisMissing)
}

pub async fn wait_until_up(addr: SocketAddr) -> Result<(), BenchError> {
    const SECONDS: u64 = 10;
    let deadline = Instant::now() + Duration::from_secs(SECONDS);
    while connect(addr).await.is_err() {
        if Instant::now() > deadline {
            return Err(BenchError::TimedOut { what: "the start of redis-server", seconds: SECONDS });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

pub async fn connect(addr: SocketAddr) -> Result<MultiplexedConnection, BenchError> {
    let client = redis::Client::open(format!("redis://{addr}"))?;
    Ok(client.get_multiplexed_async_connection().await?)
}

/// One connection, shared by all readers.
#[derive(Clone)]
pub struct Connection(MultiplexedConnection);

impl Connection {
    pub async fn open(addr: SocketAddr) -> Result<Self, BenchError> {
        Ok(Self(connect(addr).await?))
    }
}

impl Reader for Connection {
    async fn warm(&self, keys: &[String]) -> Result<(), BenchError> {
        let mut connection = self.0.clone();
        for key in keys {
            connection.set::<_, _, ()>(key, workload::value(key).as_ref()).await?;
        }
        Ok(())
    }

    fn is_remote(&self, _key: &str) -> bool {
        true
    }

    async fn read(&self, key: &str) -> Result<usize, BenchError> {
        Ok(self.0.clone().get::<_, Vec<u8>>(key).await?.len())
    }

    async fn read_many(&self, keys: &[String]) -> Result<usize, BenchError> {
        let values: Vec<Vec<u8>> = self.0.clone().mget(keys).await?;
        Ok(values.iter().map(Vec::len).sum())
    }

    fn answered_here(&self) -> Option<u64> {
        Some(0)
    }
}
