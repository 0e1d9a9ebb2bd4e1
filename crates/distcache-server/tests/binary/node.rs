//! A running node, killed at the end of its test.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{self, Answer};

pub const DEADLINE: Duration = Duration::from_secs(30);

pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distcache"));
    for variable in ["HTTP", "ADMIN", "CA", "CERT", "KEY", "NAME", "ADVERTISE", "ZONE"] {
        command.env_remove(format!("DISTCACHE_{variable}"));
    }
    command.stdin(Stdio::null());
    command
}

pub struct Node {
    pub child: Child,
    /// Dropped or taken: the node's standard input ends.
    pub stdin: Option<ChildStdin>,
    pub http: String,
    pub admin: String,
    pub gossip: Option<String>,
}

impl Node {
    pub fn serve(config: &Path) -> Self {
        Self::start(binary(), config, Stdio::inherit())
    }

    /// With what it logs.
    pub fn serve_logged(config: &Path) -> (Self, Log) {
        Self::logged(binary(), config)
    }

    /// Under this name, whatever the file says, and with what it logs.
    pub fn serve_as(name: &str, config: &Path) -> (Self, Log) {
        let mut command = binary();
        command.env("DISTCACHE_NAME", name);
        Self::logged(command, config)
    }

    /// With these variables.
    #[cfg(all(feature = "otlp", unix))]
    pub fn serve_with_env(variables: &[(&str, &str)], config: &Path) -> Self {
        let mut command = binary();
        command.envs(variables.iter().copied());
        Self::start(command, config, Stdio::inherit())
    }

    /// With what it logs when it is asked to log this much.
    pub fn serve_at_level(level: &str, config: &Path) -> (Self, Log) {
        let mut command = binary();
        command.env("RUST_LOG", level);
        Self::logged(command, config)
    }

    /// With no more open files than this lets it have, such as `-n 64`.
    #[cfg(unix)]
    pub fn serve_with_ulimit(config: &Path, ulimit: &str) -> (Self, Log) {
        let mut shell = Command::new("sh");
        let node = binary();
        shell.arg("-c").arg(format!("ulimit {ulimit} && exec \"$@\"")).arg("sh").arg(node.get_program());
        Self::logged(shell, config)
    }

    fn logged(command: Command, config: &Path) -> (Self, Log) {
        let mut node = Self::start(command, config, Stdio::piped());
        let log = Log::of(node.child.stderr.take().unwrap());
        (node, log)
    }

    fn start(mut command: Command, config: &Path, stderr: Stdio) -> Self {
        command
            .args(["serve", "--exit-with-stdin", "--config"])
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut child = command.spawn().unwrap();
        let lines = announced(&mut child);
        let addr = |what: &str| {
            let line = lines.iter().find(|line| line.starts_with(what))?;
            let url = line[what.len()..].trim();
            Some(url.split_once("://").map_or(url, |(_, addr)| addr).to_owned())
        };
        let (http, admin, gossip) = (addr("http"), addr("admin"), addr("gossip"));
        let stdin = child.stdin.take();
        Self { child, stdin, http: http.unwrap(), admin: admin.unwrap(), gossip }
    }

    pub fn send(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Answer {
        http::send(&self.http, method, path, body.as_ref()).unwrap()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "")
    }

    pub fn admin(&self, method: &str, path: &str) -> Answer {
        http::send(&self.admin, method, path, b"").unwrap()
    }

    pub fn stat(&self, keyspace: &str, name: &str) -> u64 {
        let answer = self.admin("GET", "/admin/keyspaces").json();
        let all = answer["keyspaces"].as_array().unwrap();
        let found: &Value = all.iter().find(|one| one["name"] == keyspace).unwrap();
        found["stats"][name].as_u64().unwrap()
    }

    /// What `/admin/listeners` says of one of them.
    pub fn listener(&self, name: &str) -> Value {
        let answer = self.admin("GET", "/admin/listeners").json();
        answer["listeners"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone()
    }

    /// One number of the HTTP listener.
    pub fn counted(&self, name: &str) -> u64 {
        self.listener("http")["stats"][name].as_u64().unwrap()
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub fn ended(&mut self) -> ExitStatus {
        ended(&mut self.child)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a node has written to its standard error so far.
#[derive(Clone)]
pub struct Log(Arc<Mutex<String>>);

impl Log {
    fn of(stderr: ChildStderr) -> Self {
        let log = Self(Arc::default());
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("{line}");
                lines.0.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        log
    }

    /// The lines with this in them.
    pub fn lines(&self, part: &str) -> Vec<String> {
        self.0.lock().unwrap().lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

/// The lines up to `ready`.
fn announced(child: &mut Child) -> Vec<String> {
    let stdout = child.stdout.take().unwrap();
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut all = Vec::new();
    loop {
        let line = lines.recv_timeout(DEADLINE).unwrap_or_else(|error| panic!("not ready ({error}) after {all:?}"));
        if line == "ready" {
            return all;
        }
        all.push(line);
    }
}

/// Asks again until the answer is yes.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn ended(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// Runs a command to its end: exit code, standard output, standard error.
pub fn run(command: &mut Command) -> (i32, String, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).map(|_| text)
    });
    let mut text = Vec::new();
    out.read_to_end(&mut text).unwrap();
    let code = child.wait().unwrap().code().unwrap_or(-1);
    (code, String::from_utf8_lossy(&text).into_owned(), errors.join().unwrap().unwrap())
}
