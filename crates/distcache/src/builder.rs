//! What a user says about a node before it starts, checked once.
//!
//! Knows settings and their checks; starts nothing. The invariant: [`Settings`] that passed `build` can be run, so that what
//! fails later is the world, not the configuration.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::cluster;
use crate::discovery::{Discovery, DynDiscovery, Standalone};
use crate::engine::Engine;
use crate::error::StartError;
use crate::limits::Limits;
use crate::net::{self, Clock};
use crate::promise::Promise;
use crate::spec::KeyspaceSpec;
use crate::trace::{Propagator, Traces};
use crate::trust::{ClusterSecret, Tls};

/// The ports that nodes use unless told.
const PEER_PORT: u16 = 3320;
const GOSSIP_PORT: u16 = 3322;

/// No wait of a node's is longer; what is meant to be endless is cut to this.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Describes a node and starts it; made by [`Engine::builder`](crate::Engine::builder).
#[must_use = "a builder does nothing until `start` is called"]
pub struct EngineBuilder {
    settings: Settings,
}

/// All that a node is told.
pub(crate) struct Settings {
    pub(crate) name: Option<String>,
    pub(crate) cluster_name: String,
    pub(crate) keyspaces: Vec<KeyspaceSpec>,
    pub(crate) discovery: Arc<dyn DynDiscovery>,
    pub(crate) peer_listen: SocketAddr,
    pub(crate) gossip_listen: SocketAddr,
    pub(crate) advertise: Option<IpAddr>,
    pub(crate) admin_addr: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) weight: u16,
    pub(crate) tls: Option<Tls>,
    pub(crate) cluster_secret: Option<ClusterSecret>,
    pub(crate) limits: Limits,
    pub(crate) hop_budget: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) join_timeout: Duration,
    pub(crate) reseed_interval: Duration,
    pub(crate) traces: Traces,
    pub(crate) clock: Clock,
    pub(crate) promise: Promise,
}

impl EngineBuilder {
    pub(crate) fn new() -> Self {
        let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        Self {
            settings: Settings {
                name: None,
                cluster_name: "distcache".into(),
                keyspaces: Vec::new(),
                discovery: Arc::new(Standalone),
                peer_listen: (any, PEER_PORT).into(),
                gossip_listen: (any, GOSSIP_PORT).into(),
                advertise: None,
                admin_addr: None,
                zone: None,
                weight: 100,
                tls: None,
                cluster_secret: None,
                limits: Limits::default(),
                hop_budget: Duration::from_millis(250),
                request_timeout: Duration::from_secs(5),
                join_timeout: Duration::from_secs(2),
                reseed_interval: Duration::from_secs(5),
                traces: Traces::default(),
                clock: Clock::Kernel,
                promise: Promise::default(),
            },
        }
    }

    /// Adds a keyspace. Every node of a cluster defines the same ones.
    pub fn keyspace(mut self, spec: KeyspaceSpec) -> Self {
        self.settings.keyspaces.push(spec);
        self
    }

    /// How to find the other nodes; [`Standalone`] unless told.
    pub fn discovery(mut self, discovery: impl Discovery) -> Self {
        self.settings.discovery = Arc::new(discovery);
        self
    }

    /// The name of this node: unique in the cluster, and the same after a restart, since it decides which keys the node
    /// owns. Host name and peer port unless told.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = Some(name.into());
        self
    }

    /// The name of the cluster; nodes of different names never mix. `distcache` unless told.
    pub fn cluster_name(mut self, name: impl Into<String>) -> Self {
        self.settings.cluster_name = name.into();
        self
    }

    /// Where peers connect, TCP; `0.0.0.0:3320` unless told. Port 0: any free port.
    pub fn peer_listen(mut self, addr: SocketAddr) -> Self {
        self.settings.peer_listen = addr;
        self
    }

    /// Where membership is gossiped, UDP and TCP; `0.0.0.0:3322` unless told. Port 0: any free port.
    pub fn gossip_listen(mut self, addr: SocketAddr) -> Self {
        self.settings.gossip_listen = addr;
        self
    }

    /// The IP address that others reach this node at; found out unless told.
    pub fn advertise(mut self, ip: IpAddr) -> Self {
        self.settings.advertise = Some(ip);
        self
    }

    /// Where this node's admin interface can be found, shown to whoever lists the peers.
    pub fn admin_addr(mut self, addr: impl Into<String>) -> Self {
        self.settings.admin_addr = Some(addr.into());
        self
    }

    /// The failure domain this node is in, shown to whoever lists the peers.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.settings.zone = Some(zone.into());
        self
    }

    /// This node's share of the keys in relation to the others; 100 unless told, 0: owns nothing.
    pub fn weight(mut self, weight: u16) -> Self {
        self.settings.weight = weight;
        self
    }

    /// TLS for everything that nodes say to each other over TCP; without it they speak in the clear. Gossip, which is UDP, is
    /// protected by a [cluster secret](Self::cluster_secret).
    pub fn tls(mut self, tls: Tls) -> Self {
        self.settings.tls = Some(tls);
        self
    }

    /// The secret that all nodes of the cluster share; without it whoever reaches the gossip port is heard.
    pub fn cluster_secret(mut self, secret: ClusterSecret) -> Self {
        self.settings.cluster_secret = Some(secret);
        self
    }

    /// The bounds of everything that could grow.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// How long a peer may stay silent before a request goes elsewhere; 250 ms unless told.
    pub fn hop_budget(mut self, budget: Duration) -> Self {
        self.settings.hop_budget = budget;
        self
    }

    /// The deadline of calls that name none; 5 s unless told.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.settings.request_timeout = timeout;
        self
    }

    /// How long `start` waits for the first answer of another node, if discovery names one; 2 s unless told. A node that
    /// hears nobody begins alone and keeps asking.
    pub fn join_timeout(mut self, timeout: Duration) -> Self {
        self.settings.join_timeout = timeout;
        self
    }

    /// How often discovery is asked again; 5 s unless told.
    pub fn reseed_interval(mut self, interval: Duration) -> Self {
        self.settings.reseed_interval = interval;
        self
    }

    /// Carries traces from this node to the owners that it asks, and from those who ask it to its own spans; without one each
    /// node has traces of its own.
    pub fn propagator(mut self, propagator: impl Propagator) -> Self {
        self.settings.traces = Traces(Some(Arc::new(propagator)));
        self
    }

    /// A node of a simulation: on tokio's clock, so many millionths fast or slow, and without one rule of the write promise.
    #[cfg(feature = "sim")]
    #[doc(hidden)]
    pub fn simulated(mut self, rate_ppm: u64, without: Option<crate::promise::Rule>) -> Self {
        self.settings.clock = Clock::tokio_at_rate(rate_ppm);
        self.settings.promise = Promise { without };
        self
    }

    /// What `start` would refuse before it opens a socket.
    pub fn check(&self) -> Result<(), StartError> {
        self.settings.check()
    }

    /// Binds, joins the cluster and returns once this node answers for its share of the keys.
    ///
    /// Must be called within a tokio runtime; the engine's tasks run there.
    pub async fn start(self) -> Result<Engine, StartError> {
        self.settings.check()?;
        Engine::start(self.settings).await
    }
}

impl Settings {
    fn check(&self) -> Result<(), StartError> {
        self.limits.check()?;
        let mut names = HashSet::new();
        for spec in &self.keyspaces {
            spec.check_within(self.limits.warm_keys_max)?;
            if !names.insert(&spec.name) {
                return Err(StartError::invalid("keyspace.name", &spec.name, "is defined twice"));
            }
        }
        self.check_groups()?;
        let positive = |field, value: Duration| match value {
            Duration::ZERO => Err(StartError::invalid(field, value, "must be longer than zero")),
            value if value > TIMEOUT_MAX => Err(StartError::invalid(field, value, "must be at most a day")),
            _ => Ok(()),
        };
        positive("limits.handshake_timeout", self.limits.handshake_timeout)?;
        positive("hop_budget", self.hop_budget)?;
        positive("request_timeout", self.request_timeout)?;
        positive("reseed_interval", self.reseed_interval)?;
        let texts = [
            ("cluster_name", Some(&self.cluster_name)),
            ("node_name", self.name.as_ref()),
            ("zone", self.zone.as_ref()),
        ];
        for (field, text) in texts {
            text.map_or(Ok(()), |text| cluster::check_text(field, text))?;
        }
        match &self.name {
            Some(name) if !self.discovery.is_standalone() => self.check_own_certificate(name),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_own_certificate(&self, node: &str) -> Result<(), StartError> {
        match self.tls.as_ref().and_then(|tls| tls.own_name_error(node)) {
            Some(why) => Err(StartError::invalid("tls", node, format!("other nodes would refuse this one: {why}"))),
            None => Ok(()),
        }
    }

    /// Keyspaces that share a guard have to say the same of it.
    fn check_groups(&self) -> Result<(), StartError> {
        let mut groups = HashMap::new();
        for spec in &self.keyspaces {
            let guard = &spec.settings.guard;
            let Some(group) = &guard.group else { continue };
            let (first, settings) = *groups.entry(group).or_insert((&spec.name, guard));
            if settings != guard {
                let reason = format!("keyspaces {first:?} and {:?} of this group have different guards", spec.name);
                return Err(StartError::invalid("keyspace.guard.group", group, reason));
            }
        }
        Ok(())
    }

    /// The name given, or one that a restart on this host finds again.
    pub(crate) fn node_name(&self, peer_port: u16) -> String {
        self.name.clone().unwrap_or_else(|| format!("{}:{peer_port}", net::host_name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataSource, Fetched, GuardSettings, SourceError};

    struct Nothing;
    impl DataSource for Nothing {
        async fn fetch(&self, _: &str) -> Result<Fetched, SourceError> {
            Err(SourceError::NotFound)
        }
    }

    #[tokio::test]
    async fn nonsense_is_refused_before_anything_starts_and_names_its_field() {
        let refused = async |builder: EngineBuilder| builder.start().await.err().unwrap().to_string();
        let spec = || KeyspaceSpec::new("users", Nothing);
        let twice = Engine::builder().keyspace(spec()).keyspace(spec());
        assert_eq!(refused(twice).await, "keyspace.name = \"users\": is defined twice");
        let no_budget = Engine::builder().hop_budget(Duration::ZERO);
        assert_eq!(refused(no_budget).await, "hop_budget = 0ns: must be longer than zero");
        let hasty = Limits { handshake_timeout: Duration::ZERO, ..Default::default() };
        let hasty = refused(Engine::builder().limits(hasty)).await;
        assert_eq!(hasty, "limits.handshake_timeout = 0ns: must be longer than zero");
        let unnamed = Engine::builder().zone("");
        assert_eq!(unnamed.check().unwrap_err().to_string(), "zone = \"\": must not be empty");
        assert!(refused(Engine::builder().name("n".repeat(256))).await.ends_with("must be at most 255 bytes"));
        let guarded =
            |name, loads| KeyspaceSpec::new(name, Nothing).guard(GuardSettings::new().group("db").loads_max(loads));
        let at_odds = Engine::builder().keyspace(guarded("a", 1)).keyspace(guarded("b", 1)).keyspace(guarded("c", 2));
        let reason = "keyspaces \"a\" and \"c\" of this group have different guards";
        assert_eq!(refused(at_odds).await, format!("keyspace.guard.group = \"db\": {reason}"));
        let too_small = Engine::builder().keyspace(spec().max_bytes(10));
        assert!(refused(too_small).await.starts_with("keyspace.max_bytes = 10:"));
    }
}
