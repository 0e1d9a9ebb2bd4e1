//! Three nodes that find each other through a provider of our own: a file that all of them can write, one address a line.
//!
//! `cargo run --example custom_discovery`

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use distcache::{DataSource, Discovery, DiscoveryError, Engine, Fetched, KeyspaceSpec, SourceError};

/// The gossip addresses of the nodes that are up. One that crashed stays in the file, which does no harm.
#[derive(Clone)]
struct FileDiscovery(PathBuf);

impl FileDiscovery {
    /// Reads the addresses and writes back what `change` makes of them. Others wait until the file is closed again.
    fn edit(&self, change: impl FnOnce(&mut Vec<SocketAddr>)) -> io::Result<Vec<SocketAddr>> {
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&self.0)?;
        file.lock()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut addrs = text.lines().filter_map(|line| line.parse().ok()).collect();
        change(&mut addrs);
        file.set_len(0)?;
        file.rewind()?;
        addrs.iter().try_for_each(|addr| writeln!(file, "{addr}"))?;
        Ok(addrs)
    }
}

impl Discovery for FileDiscovery {
    async fn register(&self, me: SocketAddr) -> Result<(), DiscoveryError> {
        self.edit(|addrs| addrs.push(me)).map(drop).map_err(DiscoveryError::unavailable)
    }

    async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        self.edit(|_| {}).map_err(DiscoveryError::unavailable)
    }

    async fn deregister(&self, me: SocketAddr) -> Result<(), DiscoveryError> {
        self.edit(|addrs| addrs.retain(|addr| *addr != me)).map(drop).map_err(DiscoveryError::unavailable)
    }
}

/// Counts how often it is asked, by all nodes together.
#[derive(Clone, Default)]
struct Source(Arc<AtomicU32>);

impl DataSource for Source {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Fetched::new(format!("value of {key}")))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = FileDiscovery(std::env::temp_dir().join(format!("distcache-nodes-{}", std::process::id())));
    let source = Source::default();
    let mut nodes = Vec::new();
    for name in ["red", "green", "blue"] {
        let loopback = "127.0.0.1:0".parse()?; // any free port
        let things = KeyspaceSpec::new("things", source.clone());
        let node = Engine::builder().name(name).keyspace(things).discovery(file.clone());
        nodes.push(node.peer_listen(loopback).gossip_listen(loopback).start().await?);
    }
    while nodes.iter().any(|node| node.ring().members.len() < 3 || node.ring() != nodes[0].ring()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("the file names the nodes:\n{}", std::fs::read_to_string(&file.0)?);

    for node in &nodes {
        for n in 0..100 {
            node.get("things", &format!("key-{n}")).await?;
        }
    }
    for member in nodes[0].ring().members {
        println!("{:>5} owns {} of {} slots", member.name, member.slots, nodes[0].ring().slots);
    }
    println!("\n100 keys read on each of 3 nodes: 300 reads, {} loads", source.0.load(Ordering::Relaxed));

    for node in &nodes {
        node.shutdown(Duration::from_secs(1)).await;
    }
    println!("addresses left in the file after shutdown: {}", file.edit(|_| {})?.len());
    Ok(std::fs::remove_file(&file.0)?)
}
