//! The data source of the rolling restart. It stands outside the nodes and is asked over TCP, so that it counts what all of them
//! ask, also those that are killed.
//!
//! Knows no cache and no key: a request is a byte that says what is asked, and so is the answer. The invariant: a load is noted
//! when it comes, before it is answered.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use distcache::{DataSource, Fetched, SourceError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::{machine, systems, workload};

/// How long the source takes for anything.
pub const LATENCY: Duration = Duration::from_millis(2);

const LOAD: u8 = b'l';
const WRITE: u8 = b'w';

/// The source, for as long as this lives.
pub struct Origin {
    pub addr: SocketAddr,
    loads: Arc<Mutex<Vec<Duration>>>,
    /// Its tasks end with it.
    _runtime: Runtime,
}

impl Origin {
    pub fn start() -> Result<Self, BenchError> {
        let runtime = systems::one_worker()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let (addr, loads) = (listener.local_addr()?, Arc::default());
        runtime.spawn(accept(listener, Arc::clone(&loads)));
        Ok(Self { addr, loads, _runtime: runtime })
    }

    /// When each load so far came, on the clock that all processes share.
    pub fn loads(&self) -> Vec<Duration> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: TcpListener, loads: Arc<Mutex<Vec<Duration>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let loads = loads.clone();
        // Ends with its connection: a node that is killed cuts it off in the middle.
        tokio::spawn(async move { answer(stream, &loads).await });
    }
}

async fn answer(mut stream: TcpStream, loads: &Mutex<Vec<Duration>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let asked = stream.read_u8().await?;
        if asked == LOAD {
            loads.lock().unwrap_or_else(PoisonError::into_inner).push(machine::uptime());
        }
        tokio::time::sleep(LATENCY).await;
        stream.write_u8(asked).await?;
    }
}

/// The source as a node sees it: connections, each with one request under way.
#[derive(Clone)]
pub struct Remote {
    addr: SocketAddr,
    idle: Arc<Mutex<Vec<TcpStream>>>,
}

impl Remote {
    pub fn at(addr: SocketAddr) -> Self {
        Self { addr, idle: Arc::default() }
    }

    pub async fn write(&self) -> io::Result<()> {
        self.ask(WRITE).await
    }

    async fn ask(&self, what: u8) -> io::Result<()> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut stream = match idle {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.addr).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_u8(what).await?;
        stream.read_u8().await?;
        // Whoever is cancelled before this line takes its connection with it, and no answer meets another question.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        Ok(())
    }
}

impl DataSource for Remote {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        self.ask(LOAD).await.map_err(SourceError::unavailable)?;
        Ok(Fetched::new(workload::value(key)))
    }
}
