//! The life of a node: listen, start, say so, serve, drain, end.
//!
//! Decides nothing about data. The invariant: every listener is bound before the engine starts, so that a node that joined a
//! cluster can be talked to.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use distcache::{Engine, EngineBuilder, StartError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, ConfigError, NodeConfig, Overrides};
use crate::discovery::{self, NotBuiltIn};
use crate::health::Health;
use crate::listener::{ListenError, Listener, ListenerState};
use crate::metrics::Metrics;
use crate::security::{self, SecurityProblem};
use crate::signals::Signals;
use crate::sources::{self, SourceProblem};
use crate::telemetry::{self, Telemetry};
use crate::{admin, http, open_files};

#[derive(clap::Args)]
pub struct Args {
    /// The configuration file (TOML)
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
    /// End at once when standard input ends: with the parent, however that ended
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Discovery(#[from] NotBuiltIn),
    #[error(transparent)]
    Security(#[from] SecurityProblem),
    #[error(transparent)]
    Source(#[from] SourceProblem),
    #[error(transparent)]
    Telemetry(#[from] telemetry::NotBuiltIn),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
}

/// Time for HTTP requests under way once the engine has drained.
const HTTP_GRACE: Duration = Duration::from_secs(1);

pub async fn run(args: Args) -> Result<ExitCode, ServeError> {
    let config = Config::load(&args.config, &args.overrides)?;
    let telemetry = Telemetry::start(config.telemetry.as_ref())?;
    if args.exit_with_stdin {
        end_with_stdin();
    }
    let mut signals = Signals::listen().map_err(ServeError::Signals)?;
    let node = Node::start(&config, telemetry).await?;
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
    telemetry: Telemetry,
    http: Arc<ListenerState>,
    admin: Arc<ListenerState>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Node {
    async fn start(config: &Config, telemetry: Telemetry) -> Result<Self, ServeError> {
        let http = Listener::bind("http", &config.http).await?;
        let admin = Listener::bind("admin", &config.admin).await?;
        let limits = config.limits.clone();
        let connections = [&config.http, &config.admin].map(|listener| listener.limits.connections_max);
        let connections = connections.iter().sum::<usize>() + 2 * limits.peer_connections_max;
        open_files::make_room_for(connections as u64);
        let builder = telemetry.connect(builder(config).await?);
        let engine = builder.admin_addr(admin.state().addr.to_string()).start().await?;
        let health = Health::of(engine.clone());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let listeners = vec![http.state(), admin.state()];
        let metrics = Metrics::of(engine.clone(), listeners.clone());
        let node = Self { engine, health, telemetry, http: http.state(), admin: admin.state(), tasks, stop };
        let data = http::router(node.engine.clone(), &limits, config.answer_bytes_max);
        let seen = admin::router(node.engine.clone(), listeners).merge(metrics.router());
        http.serve(data.merge(node.health.router()), &node.stop, &node.tasks);
        admin.serve(seen.merge(node.health.router()), &node.stop, &node.tasks);
        if let Some(file) = config.cluster.secret_file.clone().filter(|_| !config.is_standalone()) {
            let (stop, engine) = (node.stop.clone(), node.engine.clone());
            node.tasks.spawn(stop.run_until_cancelled_owned(security::follow_secret(engine, file)));
        }
        node.telemetry.watch(&node.engine.me().name, &metrics, &node.stop, &node.tasks);
        node.tasks.close();
        Ok(node)
    }

    /// One line per listener, with the port that was really taken; then `ready`. Programs read this too.
    fn announce(&self, config: &Config) {
        let me = self.engine.me();
        println!("distcache {}: node {}", env!("CARGO_PKG_VERSION"), me.name);
        if !config.is_standalone() {
            println!("peers   {}", me.peer_addr);
            println!("gossip  {}", me.gossip_addr);
        }
        println!("http    {}", self.http.url());
        println!("admin   {}", self.admin.url());
        println!("ready");
    }

    async fn drain(&self, grace: Duration) {
        self.health.set_draining();
        self.engine.shutdown(grace).await;
        self.stop.cancel();
        let _ = tokio::time::timeout(HTTP_GRACE, self.tasks.wait()).await;
        self.telemetry.end().await;
    }
}

/// Opens what the file names, but no port.
pub async fn builder(config: &Config) -> Result<EngineBuilder, ServeError> {
    let builder = Engine::builder().cluster_name(&config.cluster.name).limits(config.limits.clone());
    let builder = of_node(discovery::found(builder, config)?, &config.node);
    let mut builder = security::secured(builder, config)?;
    for keyspace in &config.keyspaces {
        builder = builder.keyspace(sources::open(keyspace, &config.dir).await?);
    }
    Ok(builder)
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
