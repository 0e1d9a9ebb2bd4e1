//! The commands that talk to a node: `get`, `put`, `delete`, `clear`, `keyspaces`, `peers`, `owner`.
//!
//! Exit codes: 0 done, 1 failed, 3 no such key.

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Subcommand;
use hyper::Method;
use serde_json::Value;

use crate::call::{self, CallError, NodeUrl, Reply, Trust, TrustArgs, TrustError, segment};
use crate::config::parse_duration;
use crate::table::{Align, Table, bytes, count, percent, time};

#[derive(Subcommand)]
pub enum Command {
    /// Read a value and write its bytes to standard output
    Get(GetArgs),
    /// Store a value
    Put(PutArgs),
    /// Remove a value everywhere
    Delete {
        keyspace: String,
        key: String,
        /// For so long nothing that is loaded is kept, such as 2s: for a source whose replicas lag behind
        #[arg(long, value_parser = duration)]
        hold: Option<Duration>,
        #[command(flatten)]
        node: DataNode,
    },
    /// Drop all values of a keyspace everywhere; it stays defined
    Clear {
        keyspace: String,
        #[command(flatten)]
        node: AdminNode,
    },
    /// The keyspaces of a node, and how they fare
    Keyspaces {
        #[command(flatten)]
        node: AdminNode,
        #[arg(long, help = "The node's own JSON")]
        json: bool,
    },
    /// The nodes of the cluster, as one of them sees it
    Peers {
        #[command(flatten)]
        node: AdminNode,
        #[arg(long, help = "The node's own JSON")]
        json: bool,
    },
    /// The keys of a keyspace that are read the most at a node
    HotKeys {
        keyspace: String,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        node: AdminNode,
        #[arg(long, help = "The node's own JSON")]
        json: bool,
    },
    /// The node that owns a key
    Owner {
        keyspace: String,
        key: String,
        #[command(flatten)]
        node: AdminNode,
        #[arg(long, help = "The node's own JSON")]
        json: bool,
    },
}

#[derive(clap::Args)]
pub struct GetArgs {
    keyspace: String,
    key: String,
    /// Show on standard error where the value came from
    #[arg(long, short)]
    verbose: bool,
    /// How long to wait for the value, such as 250ms
    #[arg(long, value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    node: DataNode,
}

#[derive(clap::Args)]
pub struct PutArgs {
    keyspace: String,
    key: String,
    /// The value; `-`, or nothing, reads standard input
    value: Option<String>,
    /// Its lifetime, such as 30s; else the keyspace's
    #[arg(long, value_parser = duration)]
    ttl: Option<Duration>,
    #[command(flatten)]
    node: DataNode,
}

#[derive(clap::Args)]
pub struct DataNode {
    /// The node's HTTP address
    #[arg(long, value_name = "URL", env = "DISTCACHE_HTTP", default_value = "http://127.0.0.1:8080")]
    http: NodeUrl,
    #[command(flatten)]
    trust: TrustArgs,
}

#[derive(clap::Args)]
pub struct AdminNode {
    /// The node's admin address
    #[arg(long, value_name = "URL", env = "DISTCACHE_ADMIN", default_value = "http://127.0.0.1:3321")]
    admin: NodeUrl,
    #[command(flatten)]
    trust: TrustArgs,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "nobody listens on {url} ({error}); start a node with `distcache serve --config FILE`, or name another with \
         {option} or {variable}"
    )]
    NoNode {
        url: NodeUrl,
        #[source]
        error: io::Error,
        option: &'static str,
        variable: &'static str,
    },
    #[error(transparent)]
    Call(CallError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("cannot read standard input: {0}")]
    Input(#[source] io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
}

const NOT_FOUND: u8 = 3;
const LIMIT: Duration = Duration::from_secs(30);

pub async fn run(command: Command) -> Result<ExitCode, ClientError> {
    match command {
        Command::Get(args) => return get(args).await,
        Command::Put(args) => put(args).await?,
        Command::Delete { keyspace, key, hold, node } => {
            let path = path(&keyspace, &key) + &query("hold", hold);
            node.call(Method::DELETE, &path, Bytes::new()).await?;
        }
        Command::Clear { keyspace, node } => {
            node.call(Method::POST, &format!("/admin/keyspaces/{}:clear", segment(&keyspace))).await?;
        }
        Command::Keyspaces { node, json } => print(&node.json("/admin/keyspaces").await?, json, keyspaces),
        Command::Peers { node, json } => peers(&node, json).await?,
        Command::HotKeys { keyspace, limit, node, json } => {
            let path = format!("/admin/hot-keys/{}?limit={limit}", segment(&keyspace));
            print(&node.json(&path).await?, json, hot_keys);
        }
        Command::Owner { keyspace, key, node, json } => {
            let path = format!("/admin/owner/{}/{}", segment(&keyspace), segment(&key));
            print(&node.json(&path).await?, json, |owner| println!("{}", text(&owner["owner"]["name"])));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whatever is longer than nothing stays longer than nothing.
fn query(name: &str, duration: Option<Duration>) -> String {
    duration.map(|duration| format!("?{name}={}ms", duration.as_millis().max(1))).unwrap_or_default()
}

async fn get(args: GetArgs) -> Result<ExitCode, ClientError> {
    let path = path(&args.keyspace, &args.key) + &query("timeout", args.timeout);
    let reply = match args.node.call(Method::GET, &path, Bytes::new()).await {
        Err(ClientError::Call(error)) if error.is_not_found() => {
            eprintln!("distcache: no value under {:?} in keyspace {:?}", args.key, args.keyspace);
            return Ok(ExitCode::from(NOT_FOUND));
        }
        reply => reply?,
    };
    if args.verbose {
        for (name, value) in &reply.headers {
            eprintln!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
    }
    match write_out(&reply.body) {
        // Whoever read us has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.map(|()| ExitCode::SUCCESS).map_err(ClientError::Output),
    }
}

/// The bytes themselves; a new line only where a person reads them.
fn write_out(value: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(value)?;
    if out.is_terminal() && !value.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    out.flush()
}

async fn put(args: PutArgs) -> Result<(), ClientError> {
    let value = match args.value {
        Some(value) if value != "-" => value.into_bytes(),
        _ => {
            let mut value = Vec::new();
            io::stdin().lock().read_to_end(&mut value).map_err(ClientError::Input)?;
            value
        }
    };
    let path = path(&args.keyspace, &args.key) + &query("ttl", args.ttl);
    args.node.call(Method::PUT, &path, value.into()).await?;
    Ok(())
}

async fn peers(node: &AdminNode, json: bool) -> Result<(), ClientError> {
    let peers = node.json("/admin/peers").await?;
    let ring = if json { Value::Null } else { node.json("/admin/ring").await? };
    print(&peers, json, |peers| {
        let columns = ["NAME", "STATE", "PEER", "GOSSIP", "ADMIN", "ZONE"].map(|name| (name, Align::Left));
        let mut table = Table::new(columns.into_iter().chain([("WEIGHT", Align::Right), ("OWNS", Align::Right)]));
        for peer in items(&peers["peers"]) {
            let name = text(&peer["name"]);
            let slots = items(&ring["members"]).iter().find(|member| text(&member["name"]) == name);
            let owns = percent(slots.map_or(0, |member| number(&member["slots"])), number(&ring["slots"]));
            let mark = if peer["is_self"] == true { " *" } else { "" };
            let fields = ["state", "peer_addr", "gossip_addr", "admin_addr", "zone"].map(|field| text(&peer[field]));
            let rest = [number(&peer["weight"]).to_string(), owns];
            table.row([format!("{name}{mark}")].into_iter().chain(fields).chain(rest));
        }
        table.print();
    });
    Ok(())
}

fn keyspaces(keyspaces: &Value) {
    let right = ["ENTRIES", "COPIES", "MEMORY", "OF", "READS", "HITS", "LOADS", "FAILED", "TTL"];
    let mut table = Table::new([("NAME", Align::Left)].into_iter().chain(right.map(|name| (name, Align::Right))));
    for keyspace in items(&keyspaces["keyspaces"]) {
        let stat = |name: &str| number(&keyspace["stats"][name]);
        let hits = stat("hits_owned") + stat("hits_hot") + stat("hits_negative") + stat("hits_stale");
        let reads = hits + stat("misses");
        let ttl = keyspace["settings"]["ttl_ms"].as_u64().map_or("–".into(), |ms| time(Duration::from_millis(ms)));
        table.row([
            text(&keyspace["name"]),
            count(stat("entries")),
            count(stat("hot_entries")),
            bytes(stat("bytes")),
            bytes(stat("bytes_max")),
            count(reads),
            percent(hits + stat("fetch_hits"), reads),
            count(stat("loads")),
            count(stat("load_failures")),
            ttl,
        ]);
    }
    table.print();
}

fn hot_keys(hot_keys: &Value) {
    let mut table = Table::new([("READS A SECOND", Align::Right), ("KEY", Align::Left)]);
    for hot in items(&hot_keys["hot_keys"]) {
        table.row([format!("{:.1}", hot["reads_per_second"].as_f64().unwrap_or(0.0)), text(&hot["key"])]);
    }
    table.print();
}

fn print(value: &Value, as_json: bool, show: impl FnOnce(&Value)) {
    if as_json { println!("{value:#}") } else { show(value) }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("–").to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn path(keyspace: &str, key: &str) -> String {
    format!("/v1/{}/{}", segment(keyspace), segment(key))
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("expected a duration longer than zero, such as 30s or 250ms")
}

impl DataNode {
    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Reply, ClientError> {
        let trust = Trust::of(&self.trust)?;
        let reply = call::call_once(&self.http, &trust, method, path, body, LIMIT).await;
        reply.map_err(|error| explained(error, "--http URL", "DISTCACHE_HTTP"))
    }
}

impl AdminNode {
    async fn call(&self, method: Method, path: &str) -> Result<Reply, ClientError> {
        let trust = Trust::of(&self.trust)?;
        let reply = call::call_once(&self.admin, &trust, method, path, Bytes::new(), LIMIT).await;
        reply.map_err(|error| explained(error, "--admin URL", "DISTCACHE_ADMIN"))
    }

    async fn json(&self, path: &str) -> Result<Value, ClientError> {
        let trust = Trust::of(&self.trust)?;
        let value = call::json(&self.admin, &trust, path, LIMIT).await;
        value.map_err(|error| explained(error, "--admin URL", "DISTCACHE_ADMIN"))
    }
}

fn explained(error: CallError, option: &'static str, variable: &'static str) -> ClientError {
    match error {
        CallError::NotConnected { url, error } => ClientError::NoNode { url, error, option, variable },
        other => ClientError::Call(other),
    }
}
