//! A `nats-server` of a test's own, and waiting for conditions.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use distcache::Discovery;
use distcache_nats::NatsDiscovery;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Generous: the machine may be busy. A condition that holds is seen at once.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const CLUSTER: &str = "shop";

/// Ends with the value.
pub struct Server {
    pub addr: SocketAddr,
    dir: TempDir,
    process: Mutex<Option<Child>>,
}

impl Server {
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// With these lines in its configuration, beside where it listens.
    pub async fn with(configuration: &str) -> Self {
        let server = Self::idle(configuration);
        server.up().await;
        server
    }

    /// Not started yet.
    pub fn idle(configuration: &str) -> Self {
        let addr = distcache_conformance::free_address();
        let server = Self { addr, dir: tempfile::tempdir().unwrap(), process: Mutex::default() };
        server.configure(configuration);
        server
    }

    /// For its next start.
    pub fn configure(&self, configuration: &str) {
        fs::write(self.file("nats.conf"), format!("listen: \"{}\"\n{configuration}\n", self.addr)).unwrap();
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub async fn up(&self) {
        let log = File::create(self.file("nats.log")).unwrap();
        let mut command = Command::new(program());
        command.arg("-c").arg(self.file("nats.conf")).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.spawn().unwrap_or_else(|error| match error.kind() {
            ErrorKind::NotFound => panic!("nats-server is not installed; with Debian: apt-get install nats-server"),
            _ => panic!("nats-server does not start: {error}"),
        });
        assert!(self.process.lock().unwrap().replace(process).is_none(), "it runs already");
        let deadline = Instant::now() + PATIENCE;
        while !greets(self.addr).await {
            let ended = self.process.lock().unwrap().as_mut().unwrap().try_wait().unwrap();
            let log = || fs::read_to_string(self.file("nats.log")).unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "nats-server does not come up: {}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Without a word to its clients.
    pub fn down(&self) {
        let mut process = self.process.lock().unwrap().take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.addr)
    }

    /// A provider that asks this server.
    pub fn discovery(&self) -> NatsDiscovery {
        NatsDiscovery::new([self.url()], CLUSTER)
    }

    /// The same, registered.
    pub async fn node(&self, port: u16) -> NatsDiscovery {
        registered(self.discovery(), port).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = self.process.get_mut().unwrap() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Debian keeps it where not every user looks.
fn program() -> &'static Path {
    let sbin = Path::new("/usr/sbin/nats-server");
    if sbin.exists() { sbin } else { Path::new("nats-server") }
}

/// Whether it says who it is, as it does to every client.
async fn greets(addr: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(addr).await else { return false };
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).await.is_ok() && greeting == *b"INFO"
}

pub async fn registered(discovery: NatsDiscovery, port: u16) -> NatsDiscovery {
    discovery.register(addr(port)).await.unwrap();
    discovery
}

pub fn addr(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

pub fn addrs(ports: impl IntoIterator<Item = u16>) -> BTreeSet<SocketAddr> {
    ports.into_iter().map(addr).collect()
}

/// Asks until exactly these are found.
pub async fn finds(discovery: &NatsDiscovery, ports: impl IntoIterator<Item = u16>) {
    let (wanted, deadline) = (addrs(ports), Instant::now() + PATIENCE);
    loop {
        let answer = discovery.discover().await;
        if answer.as_ref().is_ok_and(|found| found.iter().copied().collect::<BTreeSet<_>>() == wanted) {
            return;
        }
        assert!(Instant::now() < deadline, "wanted {wanted:?}, the last answer: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a condition, looking often; fails with its name.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
