//! Membership: who the other nodes are, what they say of themselves, and when that changes.
//!
//! Knows nothing of keys, keyspaces or the peer protocol; the state that all nodes share is bytes here. The invariant: a peer
//! is in the view exactly when gossip says that it is up and its metadata has been exchanged, and with its metadata the shared
//! state that was behind it. Nobody who names another cluster is ever a member.
//!
//! In reading order: `member` (who), `state` (pure: who is in the view), `gossip` (pure: who is up), `codec` (whom it believes), `agenda` (pure: whom to ask
//! next), `envelope` (around a datagram), `sync` (the exchange over TCP), `seeding` (discovery), `driver` (the task that joins
//! them), `events` (what the others hear).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::discovery::DynDiscovery;
use crate::error::StartError;
use crate::limits::Limits;
use crate::net::{TcpListener, UdpSocket};
use crate::trust::Gate;
use crate::trust::handshake::{Hello, Topic};

mod agenda;
mod codec;
mod driver;
mod envelope;
mod events;
mod gossip;
mod member;
mod seeding;
mod state;
mod sync;
#[cfg(feature = "fuzz-internals")]
pub(crate) mod fuzz {
    pub use super::envelope::fuzz::GOSSIP_ENVELOPE;
    pub use super::gossip::fuzz::GOSSIP_PACKET;
    pub use super::sync::fuzz::METADATA;
}
#[cfg(test)]
mod tests;

pub(crate) use events::{Board, View};
pub use events::{Event, Events};
pub use member::{Peer, PeerState};

use envelope::Envelope;
use member::{Identity, Metadata};
use seeding::Seeding;
use state::Members;
use sync::{Exchange, Known};

/// How often to look for a port that is free for UDP and TCP.
const BIND_TRIES: usize = 16;
/// Inputs that wait for the driver; their senders wait beyond it.
const INPUTS_QUEUED_MAX: usize = 64;
/// How long a joining node waits for the metadata of members that are up and do not give it.
const METADATA_PATIENCE: Duration = Duration::from_secs(3);
/// How long saying farewell may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a node has to know to find the others and be found.
#[derive(Clone)]
pub(crate) struct ClusterConfig {
    pub(crate) cluster_name: String,
    pub(crate) node_name: String,
    /// UDP and TCP; port 0 takes any that is free for both.
    pub(crate) gossip_listen: SocketAddr,
    /// The IP under which the others reach this node; found out if absent.
    pub(crate) advertise: Option<IpAddr>,
    /// The port of the peer protocol, bound already.
    pub(crate) peer_addr_port: u16,
    pub(crate) admin_addr: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) weight: u16,
    /// Wall-clock milliseconds at the start.
    pub(crate) incarnation: u64,
    /// How often discovery is asked.
    pub(crate) reseed_interval: Duration,
    /// How long to wait for the first contact when discovery names somebody.
    pub(crate) join_timeout: Duration,
    pub(crate) gate: Arc<Gate>,
    pub(crate) limits: Limits,
}

/// The most of it that an exchange takes, beside what a node says of itself.
#[cfg(test)]
pub(crate) const SHARED_BYTES_MAX: usize = sync::FRAME_BYTES_MAX - (4 << 10);

/// State that all nodes share and merge. Merging is idempotent and in any order; bytes that make no sense are ignored.
pub(crate) trait SharedState: Send + Sync {
    fn export(&self) -> Vec<u8>;
    fn merge(&self, bytes: &[u8]);
}

/// What the driver tells those who wait for the node to have joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    seeds: Seeds,
    /// Another member has been up.
    is_contacted: bool,
    /// Members that are up and whose metadata is missing.
    unknown: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seeds {
    #[default]
    Unasked,
    Nobody,
    Somebody,
}

/// What this node shall say of itself.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    state: PeerState,
}

/// A handle on this node's membership. The tasks behind it end with the token they were started under, not with the handle.
#[derive(Clone)]
pub(crate) struct Cluster {
    join_timeout: Duration,
    board: Arc<Board>,
    known: watch::Receiver<Arc<Known>>,
    progress: watch::Receiver<Progress>,
    wanted: watch::Sender<Wanted>,
    leaving: CancellationToken,
    /// The driver's farewell is sent; the provider's is said.
    farewells: [CancellationToken; 2],
    stop: CancellationToken,
}

impl Cluster {
    /// Binds, registers with discovery and starts looking for the others. Ends on `stop`.
    pub(crate) async fn start(
        config: ClusterConfig,
        discovery: Arc<dyn DynDiscovery>,
        shared: Arc<dyn SharedState>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        check(&config)?;
        let (socket, listener) = bind(config.gossip_listen).await?;
        let bound = socket.local_addr().map_err(|error| bind_error(config.gossip_listen, error))?;
        let ip = advertised_ip(&config, &*discovery, bound).await;
        let me = metadata(&config, SocketAddr::new(ip, bound.port()));
        seeding::register(&*discovery, me.id.addr).await?;
        Ok(Self::spawn(config, me, discovery, shared, (socket, listener), tasks, stop))
    }

    fn spawn(
        config: ClusterConfig,
        me: Metadata,
        discovery: Arc<dyn DynDiscovery>,
        shared: Arc<dyn SharedState>,
        (socket, listener): (UdpSocket, TcpListener),
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let stop = stop.child_token();
        let (leaving, farewells) = (CancellationToken::new(), [CancellationToken::new(), CancellationToken::new()]);
        let members_max = config.limits.members_max;
        let known = watch::Sender::new(Arc::new(Known { me: me.clone(), others: Vec::new() }));
        let progress = watch::Sender::new(Progress::default());
        let (input, inputs) = mpsc::channel(INPUTS_QUEUED_MAX);
        // A member that was restarted is a new sender, and the old one is remembered for a while.
        let envelope = Envelope::new(Arc::clone(&config.gate), &config.cluster_name, members_max.saturating_mul(2));
        let hello = Hello::new(
            Topic::Exchange,
            &config.cluster_name,
            &config.node_name,
            config.incarnation,
            sync::FRAME_BYTES_MAX,
        );
        let exchange = Arc::new(Exchange {
            gate: Arc::clone(&config.gate),
            hello,
            limits: config.limits.clone(),
            known: known.subscribe(),
            shared,
        });
        let board = Arc::new(Board::new(View { peers: vec![me.peer(true)] }));
        let cluster = Self {
            join_timeout: config.join_timeout,
            board: Arc::clone(&board),
            known: known.subscribe(),
            progress: progress.subscribe(),
            wanted: watch::Sender::new(Wanted { state: me.state() }),
            leaving: leaving.clone(),
            farewells: farewells.clone(),
            stop: stop.clone(),
        };
        let seeding = Seeding {
            discovery,
            me: me.id.addr,
            interval: config.reseed_interval,
            seeds_max: members_max,
            progress: progress.subscribe(),
            inputs: input.clone(),
            leaving: leaving.clone(),
            stop: stop.clone(),
        };
        let parts = driver::Parts {
            socket,
            gate: config.gate,
            envelope,
            members: Members::new(me, members_max),
            exchange: Arc::clone(&exchange),
            board,
            known,
            progress,
            wanted: cluster.wanted.clone(),
            inputs,
            known_max: members_max.saturating_mul(2),
            aliases_max: members_max,
            tasks: tasks.clone(),
            leaving,
            stop: stop.clone(),
        };
        let [driver_ended, seeding_ended] = farewells.map(CancellationToken::drop_guard);
        tasks.spawn(driver::run(parts, driver_ended));
        tasks.spawn(sync::serve(listener, exchange, input, tasks.clone(), stop));
        tasks.spawn(seeding::run(seeding, seeding_ended));
        cluster
    }

    pub(crate) fn me(&self) -> Peer {
        self.known.borrow().me.peer(true)
    }

    pub(crate) fn views(&self) -> watch::Receiver<Arc<View>> {
        self.board.views()
    }

    pub(crate) fn events(&self) -> Events {
        self.board.events()
    }

    /// Returns when this node and those it has met know each other, or when it is clear that it begins alone.
    pub(crate) async fn join(&self) {
        let mut progress = self.progress.clone();
        let contact = progress.wait_for(|progress| progress.is_contacted || progress.seeds == Seeds::Nobody);
        match timeout(self.join_timeout, contact).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                let waited = self.join_timeout;
                return tracing::warn!(?waited, "nobody has answered; this node goes on alone and keeps asking");
            }
        }
        if timeout(METADATA_PATIENCE, progress.wait_for(|progress| progress.unknown == 0)).await.is_err() {
            let missing = self.progress.borrow().unknown;
            tracing::warn!(missing, "members are up that cannot be asked who they are; this node goes on without them");
        }
    }

    /// Returns when others have taken this node for dead since epoch `known`, with its new epoch. `None`: it has ended.
    pub(crate) async fn returned_since(&self, known: u64) -> Option<u64> {
        let mut told = self.known.clone();
        let now = told.wait_for(|told| told.me.id.epoch != known).await.ok()?;
        Some(now.me.id.epoch)
    }

    /// Grows each time that others have taken this node for dead.
    pub(crate) fn epoch(&self) -> u64 {
        self.known.borrow().me.id.epoch
    }

    /// Says where this node stands in its life.
    pub(crate) fn set_state(&self, state: PeerState) {
        self.wanted.send_if_modified(|wanted| std::mem::replace(&mut wanted.state, state) != state);
    }

    /// The shared state has changed here: the others shall ask for it.
    pub(crate) fn touch(&self) {
        self.wanted.send_modify(|_| {});
    }

    /// Says farewell to the members and to discovery, then ends the tasks.
    pub(crate) async fn leave(&self) {
        self.leaving.cancel();
        let [gossip, discovery] = &self.farewells;
        let said = async {
            gossip.cancelled().await;
            discovery.cancelled().await;
        };
        if timeout(LEAVE_TIMEOUT, said).await.is_err() {
            tracing::warn!("the farewell took too long and is cut short");
        }
        self.stop.cancel();
    }
}

/// Whether others take this text in.
pub(crate) fn check_text(field: &'static str, text: &str) -> Result<(), StartError> {
    let max = member::NAME_BYTES_MAX;
    match text.len() {
        0 => Err(StartError::invalid(field, text, "must not be empty")),
        len if len > max => Err(StartError::invalid(field, text, format!("must be at most {max} bytes"))),
        _ => Ok(()),
    }
}

fn check(config: &ClusterConfig) -> Result<(), StartError> {
    check_text("cluster_name", &config.cluster_name)?;
    check_text("node_name", &config.node_name)?;
    config.zone.as_deref().map_or(Ok(()), |zone| check_text("zone", zone))?;
    config.admin_addr.as_deref().map_or(Ok(()), |addr| check_text("admin_addr", addr))?;
    if config.advertise.is_some_and(|ip| ip.is_unspecified()) {
        return Err(StartError::invalid("advertise", config.advertise, "must be an address that others can reach"));
    }
    Ok(())
}

fn metadata(config: &ClusterConfig, gossip_addr: SocketAddr) -> Metadata {
    let id = Identity { addr: gossip_addr, epoch: config.incarnation, meta_version: 0 };
    let peer_addr = SocketAddr::new(gossip_addr.ip(), config.peer_addr_port);
    let mut me = Metadata::joining(id, config.node_name.clone(), config.incarnation, peer_addr);
    me.admin_addr.clone_from(&config.admin_addr);
    me.zone.clone_from(&config.zone);
    me.weight = config.weight;
    me
}

/// UDP and TCP on one port.
async fn bind(listen: SocketAddr) -> Result<(UdpSocket, TcpListener), StartError> {
    let mut tries = if listen.port() == 0 { BIND_TRIES } else { 1 };
    loop {
        tries -= 1;
        let socket = UdpSocket::bind(listen).await.map_err(|error| bind_error(listen, error))?;
        let bound = socket.local_addr().map_err(|error| bind_error(listen, error))?;
        match TcpListener::bind(bound).await {
            Ok(listener) => return Ok((socket, listener)),
            Err(error) if tries == 0 => return Err(bind_error(bound, error)),
            Err(_) => {}
        }
    }
}

fn bind_error(addr: SocketAddr, error: io::Error) -> StartError {
    StartError::Bind { what: "gossip", addr, error }
}

/// What the config says, else where it listens, else the address of the route to a seed, else the loopback.
async fn advertised_ip(config: &ClusterConfig, discovery: &dyn DynDiscovery, bound: SocketAddr) -> IpAddr {
    if let Some(ip) = config.advertise {
        return ip;
    }
    if !bound.ip().is_unspecified() {
        return bound.ip();
    }
    let seeds = timeout(config.join_timeout, seeding::discover(discovery, None, config.limits.members_max)).await;
    for seed in seeds.into_iter().flatten().flatten() {
        if let Ok(ip) = route_to(seed).await {
            return ip;
        }
    }
    let loopback = if bound.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    tracing::warn!(advertised = %loopback, "no seed to find this node's address by; only nodes of this host can reach it");
    loopback
}

/// The source address of packets to `seed`. Nothing is sent.
async fn route_to(seed: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if seed.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(seed).await?;
    Ok(socket.local_addr()?.ip())
}

/// Whether the line between two nodes is cut, which only tests do.
#[cfg(not(test))]
fn is_severed(_: SocketAddr, _: SocketAddr) -> bool {
    false
}
#[cfg(test)]
use tests::is_severed;
