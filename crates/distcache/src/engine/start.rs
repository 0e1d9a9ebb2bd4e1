//! How a node comes to life: its parts, wired together, and the tasks that run as long as it does.
//!
//! Knows no keys. The invariant: a start that fails, or is given up, leaves nothing running.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Engine, KeepAlive, Standing};
use crate::builder::Settings;
use crate::cluster::{Board, Cluster, ClusterConfig, Peer, View};
use crate::error::StartError;
use crate::keyspaces::Keyspaces;
use crate::net::{self, TcpListener};
use crate::node::{Node, NodeParts};
use crate::peer::link::LinkSettings;
use crate::peer::server::Server;
use crate::ring::NodeId;
use crate::trust::handshake::{Hello, Topic};
use crate::trust::{Gate, KeyRing, Refusals};
use crate::views;

/// Expired entries are looked for this often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Hot keys that near the end of their lifetime are looked for this often.
const HOT_REFRESH_INTERVAL: Duration = Duration::from_millis(500);
/// A sweep may take this part of the time.
const SWEEP_SHARE: u32 = 50;

impl Engine {
    pub(crate) async fn start(settings: Settings) -> Result<Self, StartError> {
        let stop = CancellationToken::new();
        // Dropped with the future of a start that is given up.
        let alive = Arc::new(KeepAlive { _stop: stop.clone().drop_guard() });
        let engine = match settings.discovery.is_standalone() {
            true => Self::start_alone(settings, stop, alive),
            false => Self::start_member(settings, stop, alive).await?,
        };
        engine.node.spawn(sweep_leases(engine.keyspaces.clone()));
        engine.node.spawn(sweep(engine.node.clone(), engine.keyspaces.clone()));
        engine.node.spawn(refresh_hot_keys(engine.keyspaces.clone()));
        engine.node.spawn(engine.node.clock.count_sleep());
        Ok(engine)
    }

    fn start_alone(settings: Settings, stop: CancellationToken, alive: Arc<KeepAlive>) -> Self {
        let me = Peer::alone(settings.name.clone().unwrap_or_else(net::host_name), settings.weight.max(1));
        let node = node(&settings, me.name.clone(), me.incarnation, None, stop);
        node.adopt(vec![me.clone()]);
        let board = Board::new(View { peers: vec![me.clone()] });
        let keyspaces = Arc::new(Keyspaces::new(node.clone(), settings.keyspaces));
        keyspaces.all().iter().for_each(|core| core.warm_named_keys());
        let standing = Arc::new(Standing::Alone { board, me, ready: AtomicBool::new(true) });
        Self { node, keyspaces, standing, alive }
    }

    async fn start_member(
        settings: Settings,
        stop: CancellationToken,
        alive: Arc<KeepAlive>,
    ) -> Result<Self, StartError> {
        let bind_error = |error| StartError::Bind { what: "peers", addr: settings.peer_listen, error };
        let listener = TcpListener::bind(settings.peer_listen).await.map_err(bind_error)?;
        let peer_port = listener.local_addr().map_err(bind_error)?.port();
        let name = settings.node_name(peer_port);
        let incarnation = net::wall_clock_ms();
        let gate = gate(&settings, &name)?;
        let (reached, is_reached) = mpsc::unbounded_channel();
        let node = node(&settings, name.clone(), incarnation, Some((gate.clone(), reached)), stop.clone());
        let keyspaces = Arc::new(Keyspaces::new(node.clone(), settings.keyspaces));
        node.spawn(make_up(is_reached, keyspaces.clone()));
        let server = Arc::new(Server {
            serve: keyspaces.clone(),
            hello: node.hello().clone(),
            gate: gate.clone(),
            limits: settings.limits.clone(),
            tasks: node.tasks.clone(),
            work: node.work.clone(),
            stop: stop.clone(),
        });
        node.tasks.spawn(server.run(listener));
        let config = ClusterConfig {
            cluster_name: settings.cluster_name,
            node_name: name,
            gossip_listen: settings.gossip_listen,
            advertise: settings.advertise,
            peer_addr_port: peer_port,
            admin_addr: settings.admin_addr,
            zone: settings.zone,
            weight: settings.weight,
            incarnation,
            reseed_interval: settings.reseed_interval,
            join_timeout: settings.join_timeout,
            gate: gate.clone(),
            limits: settings.limits,
        };
        let cluster = Cluster::start(config, settings.discovery, keyspaces.clone(), &node.tasks, stop).await?;
        #[cfg(feature = "tls")]
        if let Some(tls) = gate.tls.clone() {
            node.spawn(tls.renew());
        }
        views::join(&node, &cluster, &keyspaces).await;
        let standing = Arc::new(Standing::Member { cluster, ready: AtomicBool::new(true) });
        Ok(Self { node, keyspaces, standing, alive })
    }
}

/// What tells members from strangers.
fn gate(settings: &Settings, node: &str) -> Result<Arc<Gate>, StartError> {
    settings.check_own_certificate(node)?;
    if settings.cluster_secret.is_none() && !settings.gossip_listen.ip().is_loopback() {
        tracing::warn!("no cluster secret is set: whoever reaches the gossip port is heard");
    }
    let ring = settings.cluster_secret.as_ref().map(|secret| KeyRing::new(secret, &settings.cluster_name));
    Ok(Arc::new(Gate { ring, tls: settings.tls.clone(), refusals: Refusals::default() }))
}

/// `others`: who is let in, and who hears that a peer has been reached; `None` for a node without any.
fn node(
    settings: &Settings,
    name: String,
    incarnation: u64,
    others: Option<(Arc<Gate>, mpsc::UnboundedSender<NodeId>)>,
    stop: CancellationToken,
) -> Arc<Node> {
    let clustered = others.is_some();
    let (gate, reached) = others.unwrap_or_else(|| (Arc::default(), mpsc::unbounded_channel().0));
    let limits = settings.limits.clone();
    let frame_bytes_max = limits.frame_bytes_max();
    let link_settings = LinkSettings {
        hello: Hello::new(Topic::Requests, &settings.cluster_name, &name, incarnation, frame_bytes_max),
        gate,
        limits: limits.clone(),
        hop_budget: settings.hop_budget,
        clock: settings.clock,
        tasks: TaskTracker::new(),
        runtime: Handle::current(),
        reached,
    };
    let parts = NodeParts {
        name,
        limits,
        clock: settings.clock,
        began: settings.clock.now(),
        request_timeout: settings.request_timeout,
        clustered,
        link_settings,
        traces: settings.traces.clone(),
        promise: settings.promise,
        stop,
    };
    Arc::new(Node::new(parts))
}

/// Makes up for what could not be said while a peer was out of reach.
async fn make_up(mut reached: mpsc::UnboundedReceiver<NodeId>, keyspaces: Arc<Keyspaces>) {
    while let Some(peer) = reached.recv().await {
        keyspaces.reached(peer);
    }
}

/// Loads hot keys again before they expire.
async fn refresh_hot_keys(keyspaces: Arc<Keyspaces>) {
    loop {
        tokio::time::sleep(HOT_REFRESH_INTERVAL).await;
        keyspaces.all().iter().for_each(|core| core.refresh_hot_keys());
    }
}

/// Forgets leases and holds that have run out, however long it takes to look through what is stored.
async fn sweep_leases(keyspaces: Arc<Keyspaces>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        keyspaces.all().iter().for_each(|core| core.sweep_leases());
    }
}

/// Frees what no longer counts: when something may have expired, and when a clear or a new view ended much at once.
async fn sweep(node: Arc<Node>, keyspaces: Arc<Keyspaces>) {
    let mut pause = SWEEP_INTERVAL;
    loop {
        let all = tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => false,
            () = node.sweep.notified() => true,
        };
        let started = node.clock.now();
        for core in keyspaces.all() {
            if all || core.may_hold_expired() {
                core.sweep().await;
            }
        }
        pause = SWEEP_INTERVAL.max(node.clock.now().since(started) * SWEEP_SHARE);
    }
}
