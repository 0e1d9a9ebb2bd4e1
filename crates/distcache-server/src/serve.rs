//! The life of a node: listen, start, say so, serve, drain, end.
//!
//! Decides nothing about data. The invariant: every listener is bound before the engine starts, so that a node that joined a
//! cluster can be talked to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{io, thread};

use axum::Router;
use axum::serve::ListenerExt;
use distcache::{DnsDiscovery, Engine, EngineBuilder, Limits, StartError, StaticDiscovery};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, ConfigError, DiscoveryConfig, DnsConfig, DnsRecord, NodeConfig};
use crate::health::Health;
use crate::signals::Signals;
use crate::sources::{self, SourceProblem};
use crate::{admin, http};

#[derive(clap::Args)]
pub struct Args {
    /// The configuration file (TOML)
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// End at once when standard input ends: with the parent, however that ended
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot listen on {addr} for {what}: {error}{}", hint(.error))]
    Listen {
        what: &'static str,
        addr: SocketAddr,
        #[source]
        error: io::Error,
    },
    #[error(transparent)]
    Source(#[from] SourceProblem),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another process has it; choose another port in the configuration)",
        _ => "",
    }
}

/// Time for HTTP requests under way once the engine has drained.
const HTTP_GRACE: Duration = Duration::from_secs(1);

pub async fn run(args: Args) -> Result<ExitCode, ServeError> {
    let config = Config::load(&args.config)?;
    if args.exit_with_stdin {
        end_with_stdin();
    }
    let mut signals = Signals::listen().map_err(ServeError::Signals)?;
    let node = Node::start(&config).await?;
    node.announce(&config);

    signals.next().await;
    tracing::info!("draining; a second signal ends at once");
    tokio::select! {
        () = node.drain(config.node.shutdown_grace) => Ok(ExitCode::SUCCESS),
        code = signals.next() => Ok(ExitCode::from(code)),
    }
}

struct Node {
    engine: Engine,
    health: Health,
    http: SocketAddr,
    admin: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Node {
    async fn start(config: &Config) -> Result<Self, ServeError> {
        let (http_listener, http) = listen("http", config.http).await?;
        let (admin_listener, admin) = listen("admin", config.admin).await?;
        let limits = Limits::default();
        let mut builder = builder(config).limits(limits.clone()).admin_addr(admin.to_string());
        for keyspace in &config.keyspaces {
            builder = builder.keyspace(sources::open(keyspace, &config.dir).await?);
        }
        let engine = builder.start().await?;
        let health = Health::of(engine.clone());
        let node = Self { engine, health, http, admin, tasks: TaskTracker::new(), stop: CancellationToken::new() };
        node.serve(http_listener, http::router(node.engine.clone(), &limits).merge(node.health.router()));
        node.serve(admin_listener, admin::router(node.engine.clone()).merge(node.health.router()));
        node.tasks.close();
        Ok(node)
    }

    fn serve(&self, listener: TcpListener, router: Router) {
        let stop = self.stop.clone().cancelled_owned();
        // An answer is one small write; waiting to fill a packet would add 40 ms to it.
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        self.tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
                tracing::error!(%error, "a listener ended");
            }
        });
    }

    /// One line per listener, with the port that was really taken; then `ready`. Programs read this too.
    fn announce(&self, config: &Config) {
        let me = self.engine.me();
        println!("distcache {}: node {}", env!("CARGO_PKG_VERSION"), me.name);
        if !config.is_standalone() {
            println!("peers   {}", me.peer_addr);
            println!("gossip  {}", me.gossip_addr);
        }
        println!("http    http://{}", self.http);
        println!("admin   http://{}", self.admin);
        println!("ready");
    }

    async fn drain(&self, grace: Duration) {
        self.health.set_draining();
        self.engine.shutdown(grace).await;
        self.stop.cancel();
        let _ = tokio::time::timeout(HTTP_GRACE, self.tasks.wait()).await;
    }
}

async fn listen(what: &'static str, addr: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let of_listener = |error| ServeError::Listen { what, addr, error };
    let listener = TcpListener::bind(addr).await.map_err(of_listener)?;
    let taken = listener.local_addr().map_err(of_listener)?;
    Ok((listener, taken))
}

fn builder(config: &Config) -> EngineBuilder {
    let mut builder = Engine::builder();
    if let Some(name) = &config.cluster_name {
        builder = builder.cluster_name(name);
    }
    builder = match &config.discovery {
        DiscoveryConfig::Standalone => builder,
        DiscoveryConfig::Static { seeds } => builder.discovery(StaticDiscovery::new(seeds)),
        DiscoveryConfig::Dns(config) => builder.discovery(dns(config)),
    };
    of_node(builder, &config.node)
}

fn dns(config: &DnsConfig) -> DnsDiscovery {
    let discovery = match config.record {
        DnsRecord::Address { port } => DnsDiscovery::new(&config.name, port),
        DnsRecord::Srv => DnsDiscovery::srv(&config.name),
    };
    let discovery = config.name_servers.iter().fold(discovery, |discovery, server| discovery.name_server(*server));
    let discovery = discovery.ip_family(config.ip_family);
    config.timeout.into_iter().fold(discovery, DnsDiscovery::timeout)
}

fn of_node(mut builder: EngineBuilder, node: &NodeConfig) -> EngineBuilder {
    if let Some(name) = &node.name {
        builder = builder.name(name);
    }
    if let Some(addr) = node.peer {
        builder = builder.peer_listen(addr);
    }
    if let Some(addr) = node.gossip {
        builder = builder.gossip_listen(addr);
    }
    if let Some(ip) = node.advertise {
        builder = builder.advertise(ip);
    }
    if let Some(zone) = &node.zone {
        builder = builder.zone(zone);
    }
    if let Some(weight) = node.weight {
        builder = builder.weight(weight);
    }
    builder
}

/// A thread of its own, since reading standard input blocks. It owns nothing, so nobody waits for it.
fn end_with_stdin() {
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
}
