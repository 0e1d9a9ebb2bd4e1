//! Three nodes as processes of this binary, on ports of the loopback that were free.
//!
//! The invariant: a node dies with this process. It is killed when dropped, and it ends by itself when its standard input does,
//! which is a pipe from here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::places::{CONNECTIONS_PER_NODE, QUERY, URL};
use crate::call::{self, CallError, NodeUrl, Trust};

pub const NODES: usize = 3;
pub const KEYSPACE: &str = "places";
const NAMES: [&str; NODES] = ["a", "b", "c"];
const START_LIMIT: Duration = Duration::from_secs(20);
const CALL_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("node {name} cannot be started: {error}")]
    Start {
        name: String,
        #[source]
        error: io::Error,
    },
    #[error("node {name} did not start: {log}")]
    Ended { name: String, log: String },
    #[error("the nodes did not agree on their view within {}", humantime::format_duration(*.limit))]
    NoAgreement { limit: Duration },
    #[error("node {name} does not tell about itself: {error}")]
    Call {
        name: String,
        #[source]
        error: CallError,
    },
}

pub struct Cluster {
    dir: PathBuf,
    nodes: Vec<Node>,
    joined_in: Duration,
}

pub struct Node {
    name: String,
    child: Child,
    /// Its end is the node's end.
    _stdin: Option<ChildStdin>,
    http: NodeUrl,
    admin: NodeUrl,
    gossip: String,
    is_alive: bool,
}

/// What the demo wants to know of a node's keyspace.
#[derive(Clone, Debug, Default)]
pub struct NodeStats {
    pub entries: u64,
    pub hot_entries: u64,
    pub bytes: u64,
    pub loads: u64,
    pub fallback_loads: u64,
    pub coalesced: u64,
}

impl NodeStats {
    pub fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.hot_entries += other.hot_entries;
        self.bytes += other.bytes;
        self.loads += other.loads;
        self.fallback_loads += other.fallback_loads;
        self.coalesced += other.coalesced;
    }
}

impl Cluster {
    pub async fn start(dir: &Path) -> Result<Self, ClusterError> {
        let begun = Instant::now();
        let mut nodes: Vec<Node> = Vec::new();
        for name in NAMES {
            let seed = nodes.first().map(|first| first.gossip.as_str());
            nodes.push(Node::start(dir, name, seed).await?);
        }
        let mut cluster = Self { dir: dir.to_owned(), nodes, joined_in: Duration::ZERO };
        cluster.agreement(START_LIMIT).await?;
        cluster.joined_in = begun.elapsed();
        Ok(cluster)
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn alive(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_alive)
    }

    pub fn joined_in(&self) -> Duration {
        self.joined_in
    }

    /// Kills one node the hard way: no word to anybody.
    pub async fn kill(&mut self, index: usize) -> Result<(), ClusterError> {
        let node = &mut self.nodes[index];
        node.is_alive = false;
        node.child.kill().await.map_err(|error| ClusterError::Start { name: node.name.clone(), error })
    }

    /// Starts a killed node anew and waits until it is one of the cluster again.
    pub async fn restart(&mut self, index: usize) -> Result<Duration, ClusterError> {
        let begun = Instant::now();
        let seed = self.alive().next().map(|node| node.gossip.clone());
        self.nodes[index] = Node::start(&self.dir, NAMES[index], seed.as_deref()).await?;
        self.agreement(START_LIMIT).await?;
        Ok(begun.elapsed())
    }

    /// Waits until the living nodes have one view, of just the living nodes, and are ready.
    pub async fn agreement(&self, limit: Duration) -> Result<(), ClusterError> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if self.is_agreed().await? {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(ClusterError::NoAgreement { limit })
    }

    async fn is_agreed(&self) -> Result<bool, ClusterError> {
        let members = self.alive().count();
        let mut views = Vec::new();
        for node in self.alive() {
            if !node.is_ready().await? {
                return Ok(false);
            }
            let ring = node.json("/admin/ring").await?;
            if ring["members"].as_array().map(Vec::len) != Some(members) {
                return Ok(false);
            }
            views.push(ring["view"].clone());
        }
        views.dedup();
        Ok(views.len() == 1)
    }
}

impl Node {
    async fn start(dir: &Path, name: &str, seed: Option<&str>) -> Result<Self, ClusterError> {
        let of_node = |error| ClusterError::Start { name: name.to_owned(), error };
        let file = dir.join(format!("{name}.toml"));
        fs::write(&file, config(name, seed)).map_err(of_node)?;
        let log = dir.join(format!("{name}.log"));
        let mut command = Command::new(std::env::current_exe().map_err(of_node)?);
        command.arg("serve").arg("--config").arg(&file).arg("--exit-with-stdin");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&log).map_err(of_node)?);
        // Out of the terminal's group: Ctrl-C is for the demo, which ends its nodes itself.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.kill_on_drop(true).spawn().map_err(of_node)?;
        let announced = tokio::time::timeout(START_LIMIT, announced(&mut child)).await;
        let Some((http, admin, gossip)) = announced.ok().flatten() else {
            let log = fs::read_to_string(&log).unwrap_or_default();
            return Err(ClusterError::Ended { name: name.to_owned(), log: log.trim().to_owned() });
        };
        let stdin = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, _stdin: stdin, http, admin, gossip, is_alive: true })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn http(&self) -> &NodeUrl {
        &self.http
    }

    pub fn admin(&self) -> &NodeUrl {
        &self.admin
    }

    pub async fn stats(&self) -> Result<NodeStats, ClusterError> {
        let keyspaces = self.json("/admin/keyspaces").await?;
        let all = keyspaces["keyspaces"].as_array().map_or(&[][..], Vec::as_slice);
        let Some(places) = all.iter().find(|keyspace| keyspace["name"] == KEYSPACE) else {
            return Ok(NodeStats::default());
        };
        let stat = |name: &str| places["stats"][name].as_u64().unwrap_or(0);
        Ok(NodeStats {
            entries: stat("entries"),
            hot_entries: stat("hot_entries"),
            bytes: stat("bytes"),
            loads: stat("loads"),
            fallback_loads: stat("fallback_loads"),
            coalesced: stat("coalesced"),
        })
    }

    async fn is_ready(&self) -> Result<bool, ClusterError> {
        match self.json("/readyz").await {
            Ok(_) => Ok(true),
            Err(ClusterError::Call { error: CallError::Nonsense { .. }, .. }) => Ok(false),
            Err(ClusterError::Call {
                error: CallError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. },
                ..
            }) => Ok(false),
            Err(other) => Err(other),
        }
    }

    async fn json(&self, path: &str) -> Result<Value, ClusterError> {
        let answer = call::json(&self.admin, &Trust::default(), path, CALL_LIMIT).await;
        answer.map_err(|error| ClusterError::Call { name: self.name.clone(), error })
    }
}

/// HTTP, admin and gossip address, from what a starting node prints; `None` if it ends instead.
async fn announced(child: &mut Child) -> Option<(NodeUrl, NodeUrl, String)> {
    let mut lines = BufReader::new(child.stdout.take()?).lines();
    let (mut http, mut admin, mut gossip) = (None, None, None);
    while let Ok(Some(line)) = lines.next_line().await {
        match line.split_once(' ').map(|(what, addr)| (what, addr.trim())) {
            Some(("http", addr)) => http = addr.parse().ok(),
            Some(("admin", addr)) => admin = addr.parse().ok(),
            Some(("gossip", addr)) => gossip = Some(addr.to_owned()),
            _ if line == "ready" => return Some((http?, admin?, gossip?)),
            _ => {}
        }
    }
    None
}

fn config(name: &str, seed: Option<&str>) -> String {
    let seeds = seed.map(|seed| format!("\"{seed}\"")).unwrap_or_default();
    format!(
        "[node]\nname = \"{name}\"\npeer = \"127.0.0.1:0\"\ngossip = \"127.0.0.1:0\"\nadvertise = \"127.0.0.1\"\n\
         [cluster]\nname = \"demo\"\n\
         [discovery]\nprovider = \"static\"\nseeds = [{seeds}]\n\
         [http]\nlisten = \"127.0.0.1:0\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [keyspaces.{KEYSPACE}]\nmax_bytes = \"64MiB\"\n\
         [keyspaces.{KEYSPACE}.source]\nkind = \"sql\"\nurl = \"{URL}\"\nmax_connections = {CONNECTIONS_PER_NODE}\n\
         query = \"\"\"\n{QUERY}\"\"\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_nodes_configuration_is_one_that_a_node_takes() {
        for seed in [None, Some("127.0.0.1:3322")] {
            let config = Config::parse(&config("a", seed), PathBuf::new()).unwrap();
            assert!(!config.is_standalone());
            assert_eq!(config.keyspaces[0].name, KEYSPACE);
        }
    }
}
