//! The nodes: five processes of the built binary, each in its namespace.
//!
//! Knows how a node is started, stopped and asked for its view. The invariant: none outlives the test.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::client::Client;
use crate::history;
use crate::network::{cluster_ip, command_within, name, outer_addr};
use crate::origin::Origin;

pub const NODES: usize = 5;
const HTTP: u16 = 8080;
const ADMIN: u16 = 3321;
const GOSSIP: u16 = 3322;
const START_MAX: Duration = Duration::from_secs(20);

pub struct Node {
    number: history::Node,
    config: PathBuf,
    process: Child,
}

/// Where callers reach a node.
pub fn http_of(node: history::Node) -> Client {
    Client::of(outer_addr(node, HTTP))
}

impl Node {
    pub fn start(number: history::Node, origin: &Origin, dir: &Path) -> Self {
        let config = dir.join(format!("{}.toml", name(number)));
        std::fs::write(&config, configuration(number, origin)).unwrap();
        let process = spawn(number, &config);
        Self { number, config, process }
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// After a kill: under the same name, at the same addresses.
    pub fn start_again(&mut self) {
        self.process = spawn(self.number, &self.config);
    }

    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    pub fn ring(&self) -> Option<(String, Vec<String>)> {
        Admin(Client::of(outer_addr(self.number, ADMIN))).ring()
    }
}

/// Where a node is asked for its view.
pub struct Admin(Client);

impl Admin {
    pub fn of(node: history::Node, patience: Duration) -> Self {
        Self(Client::patient(outer_addr(node, ADMIN), patience))
    }

    /// What `/admin/ring` says: the view, and the names of its members.
    pub fn ring(&mut self) -> Option<(String, Vec<String>)> {
        let answer = self.0.send("GET", "/admin/ring", "").ok()?;
        let ring: Value = serde_json::from_str(&answer.body).ok()?;
        let members = ring["members"].as_array()?.iter();
        let names = members.filter_map(|member| Some(member["name"].as_str()?.to_owned())).collect();
        Some((ring["view"].as_str()?.to_owned(), names))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts the process and waits until it says that it is ready.
fn spawn(number: history::Node, config: &Path) -> Child {
    let log = File::options().create(true).append(true).open(config.with_extension("log")).unwrap();
    let mut command = command_within(number, env!("CARGO_BIN_EXE_distcache"));
    command.args(["serve", "--exit-with-stdin", "--config"]).arg(config);
    command.env_remove("DISTCACHE_NAME");
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let stdout = process.stdout.take().unwrap();
    let (sender, ready) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok).filter(|line| line == "ready") {
            // Whoever waited has heard it already, or has given up.
            let _ = sender.send(line);
        }
    });
    let heard = ready.recv_timeout(START_MAX);
    let log = || std::fs::read_to_string(config.with_extension("log")).unwrap_or_default();
    assert!(heard.is_ok(), "node {} is not ready after {START_MAX:?}: {}", name(number), log());
    process
}

fn configuration(number: history::Node, origin: &Origin) -> String {
    let (name, ip, source) = (name(number), cluster_ip(number), origin.addr);
    let seeds: Vec<String> = (0..NODES).map(|node| format!("\"{}:{GOSSIP}\"", cluster_ip(node))).collect();
    let (http, admin, seeds) = (outer_addr(number, HTTP), outer_addr(number, ADMIN), seeds.join(", "));
    format!(
        r#"
        [node]
        name = "{name}"
        peer = "{ip}:3320"
        gossip = "{ip}:{GOSSIP}"
        advertise = "{ip}"
        [cluster]
        name = "netns"
        [discovery]
        provider = "static"
        seeds = [{seeds}]
        [http]
        listen = "{http}"
        [admin]
        listen = "{admin}"
        [keyspaces.versions]
        ttl = "10m"
        lease = "5s"
        source = {{ kind = "http", url = "http://{source}/v/{{key}}" }}
        "#
    )
}
