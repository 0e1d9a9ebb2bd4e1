//! A real name server, dnsmasq, whose answers change while it runs.
//!
//! Knows no nodes. The invariant: the process ends with its handle.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::harness::PATIENCE;

/// The zone that the server knows all about: what is not in it does not exist. It refuses to speak of anything else.
pub const ZONE: &str = "cache.test";

/// dnsmasq on a port of its own.
pub struct Dnsmasq {
    pub addr: SocketAddr,
    dir: TempDir,
    child: Mutex<Option<Child>>,
}

impl Dnsmasq {
    /// Running, with an empty zone.
    pub async fn start() -> Self {
        // Readable for the user that the server changes to when it is started by root.
        let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let server = Self { addr: distcache_conformance::free_address(), dir, child: Mutex::default() };
        server.write("hosts", "");
        server.write("records", "");
        server.bring_up().await;
        server
    }

    /// Exactly these names have addresses from now on; takes effect in a moment.
    pub fn set_hosts(&self, hosts: impl IntoIterator<Item = (IpAddr, String)>) {
        let lines = hosts.into_iter().fold(String::new(), |mut lines, (ip, name)| {
            writeln!(lines, "{ip} {name}").unwrap();
            lines
        });
        self.write("hosts", &lines);
        if let Some(child) = &*self.child.lock().unwrap() {
            let told = Command::new("sh").arg("-c").arg(format!("kill -HUP {}", child.id())).status().unwrap();
            assert!(told.success());
        }
    }

    /// Lines of dnsmasq's own configuration, for records that a list of hosts cannot say; restarts it if it runs.
    pub async fn set_records(&self, lines: &str) {
        self.write("records", lines);
        if self.shut_down() {
            self.bring_up().await;
        }
    }

    /// Returns when the server can be asked.
    pub async fn bring_up(&self) {
        let deadline = Instant::now() + PATIENCE;
        *self.child.lock().unwrap() = Some(self.spawn_any());
        while TcpStream::connect(self.addr).await.is_err() {
            assert!(Instant::now() < deadline, "dnsmasq does not listen on {}", self.addr);
            // The port may be taken for a moment more, by the child that the one before it made for a TCP connection.
            if self.has_ended() {
                *self.child.lock().unwrap() = Some(self.spawn_any());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn has_ended(&self) -> bool {
        let mut child = self.child.lock().unwrap();
        child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    fn spawn_any(&self) -> Child {
        let child = self.spawn("dnsmasq").or_else(|error| match error.kind() {
            // Not on everybody's path.
            ErrorKind::NotFound => self.spawn("/usr/sbin/dnsmasq"),
            _ => Err(error),
        });
        child.unwrap_or_else(|error| panic!("dnsmasq (Debian package dnsmasq-base) does not start: {error}"))
    }

    /// Whether it was running.
    pub fn shut_down(&self) -> bool {
        let Some(mut child) = self.child.lock().unwrap().take() else { return false };
        child.kill().unwrap();
        child.wait().unwrap();
        true
    }

    fn spawn(&self, program: &str) -> std::io::Result<Child> {
        let mut command = Command::new(program);
        command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--pid-file="]);
        command.arg(format!("--listen-address={}", self.addr.ip())).arg(format!("--port={}", self.addr.port()));
        command
            .arg(format!("--conf-file={}", self.path("records")))
            .arg(format!("--addn-hosts={}", self.path("hosts")));
        // Answers may be kept for an hour: whoever keeps them is found out.
        command.arg(format!("--local=/{ZONE}/")).arg("--local-ttl=3600");
        if fs::metadata("/proc/self")?.uid() == 0 {
            // Changing to another user is not allowed everywhere.
            command.arg("--user=root");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()
    }

    /// At once, so that no server reads half of it.
    fn write(&self, file: &str, text: &str) {
        let (new, path) = (self.dir.path().join("new"), self.path(file));
        fs::write(&new, text).unwrap();
        fs::rename(&new, Path::new(&path)).unwrap();
    }

    fn path(&self, file: &str) -> String {
        self.dir.path().join(file).to_str().unwrap().to_owned()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.shut_down();
    }
}
