//! The front door: start, find a keyspace, list and change what is defined, stop.
//!
//! Decides nothing; [`start`] wires the parts together. The invariant: every task of an engine ends when its last handle is dropped or
//! `shutdown` has returned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio_util::sync::DropGuard;

use crate::builder::{EngineBuilder, TIMEOUT_MAX};
use crate::cluster::{Board, Cluster, Events, Peer, PeerState, SharedState};
use crate::error::{Error, StartError, Unreached};
use crate::heal;
use crate::keyspace::Keyspace;
use crate::keyspaces::Keyspaces;
use crate::node::Node;
use crate::peer::wire::{Request, Response};
use crate::ring::{NodeId, SLOTS};
use crate::spec::{KeyspaceSettings, KeyspaceSpec, PutOptions};
use crate::stats::{KeyspaceStats, Latencies};
use crate::trust::{ClusterSecret, Refusal};

mod start;

/// How often a node that leaves looks whether the others know.
const DRAIN_PAUSE: Duration = Duration::from_millis(25);
/// How long the node's own tasks may take to notice that it was stopped.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// A node of the cache. Cheap to clone; the last handle dropped stops it, without the waiting of [`shutdown`](Self::shutdown).
///
/// ```
/// # use std::time::Duration;
/// # use distcache::{DataSource, Engine, Error, Fetched, KeyspaceSpec, SourceError};
/// struct Greetings;
/// impl DataSource for Greetings {
///     async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
///         Ok(Fetched::new(format!("hello, {key}")))
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder().keyspace(KeyspaceSpec::new("greetings", Greetings)).start().await?;
/// assert_eq!(engine.get("greetings", "world").await?, "hello, world");
/// engine.shutdown(Duration::from_secs(1)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    node: Arc<Node>,
    keyspaces: Arc<Keyspaces>,
    standing: Arc<Standing>,
    alive: Arc<KeepAlive>,
}

/// Stops the node's tasks when the last handle on it is dropped.
pub(crate) struct KeepAlive {
    _stop: DropGuard,
}

/// Whether this node takes part in a cluster.
enum Standing {
    Alone { board: Board, me: Peer, ready: AtomicBool },
    Member { cluster: Cluster, ready: AtomicBool },
}

/// A keyspace as it is defined now.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KeyspaceInfo {
    /// Its name.
    pub name: String,
    /// Its settings.
    pub settings: KeyspaceSettings,
    /// Its latest clear, 0 if there was none.
    pub generation: u64,
}

/// Who owns how much.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingInfo {
    /// Equal on two nodes exactly when they place keys alike.
    pub view: u64,
    /// Parts that the keys are cut into.
    pub slots: u32,
    /// The nodes that own keys, sorted by name.
    pub members: Vec<RingMember>,
}

/// A node's share of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingMember {
    /// Its name.
    pub name: String,
    /// Its weight; 100 is normal.
    pub weight: u16,
    /// Slots that it owns.
    pub slots: u32,
}

impl Engine {
    /// Describes a node.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::new()
    }

    /// A handle on a keyspace: saves the look-up by name in every call.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace, Error> {
        Ok(Keyspace::new(self.keyspaces.get(name)?, self.alive.clone()))
    }

    /// See [`Keyspace::get`].
    pub async fn get(&self, keyspace: &str, key: &str) -> Result<Bytes, Error> {
        self.keyspace(keyspace)?.get(key).await
    }

    /// See [`Keyspace::get_many`].
    pub async fn get_many<K: AsRef<str>>(
        &self,
        keyspace: &str,
        keys: &[K],
    ) -> Result<Vec<Result<Bytes, Error>>, Error> {
        self.keyspace(keyspace)?.get_many(keys).await
    }

    /// See [`Keyspace::put`].
    pub async fn put(&self, keyspace: &str, key: &str, value: impl Into<Bytes>) -> Result<(), Error> {
        self.keyspace(keyspace)?.put(key, value).await
    }

    /// See [`Keyspace::put_with`].
    pub async fn put_with(
        &self,
        keyspace: &str,
        key: &str,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) -> Result<(), Error> {
        self.keyspace(keyspace)?.put_with(key, value, options).await
    }

    /// See [`Keyspace::put_many`].
    pub async fn put_many<K: Into<String>, V: Into<Bytes>>(
        &self,
        keyspace: &str,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), Error> {
        self.keyspace(keyspace)?.put_many(entries).await
    }

    /// See [`Keyspace::delete`].
    pub async fn delete(&self, keyspace: &str, key: &str) -> Result<(), Error> {
        self.keyspace(keyspace)?.delete(key).await
    }

    /// See [`Keyspace::delete_many`].
    pub async fn delete_many<K: AsRef<str>>(&self, keyspace: &str, keys: &[K]) -> Result<(), Error> {
        self.keyspace(keyspace)?.delete_many(keys).await
    }

    /// See [`Keyspace::refresh`].
    pub async fn refresh(&self, keyspace: &str, key: &str) -> Result<Bytes, Error> {
        self.keyspace(keyspace)?.refresh(key).await
    }

    /// See [`Keyspace::cached`].
    pub fn cached(&self, keyspace: &str, key: &str) -> Option<Bytes> {
        self.keyspace(keyspace).ok()?.cached(key)
    }

    /// See [`Keyspace::owner_of`].
    pub fn owner_of(&self, keyspace: &str, key: &str) -> Result<Peer, Error> {
        self.keyspace(keyspace)?.owner_of(key)
    }

    /// Drops all entries of a keyspace on every node, in time that does not depend on their number. It stays defined.
    ///
    /// An [`Error::Unreached`] names the nodes that have not confirmed; they will know before they answer anybody who knows.
    pub async fn clear_keyspace(&self, name: &str) -> Result<(), Error> {
        self.keyspaces.clear(name)?;
        self.tell_registry().await
    }

    /// Drops a keyspace on every node, entries and definition, also on nodes that are away or join later.
    pub async fn delete_keyspace(&self, name: &str) -> Result<(), Error> {
        self.keyspaces.delete(name)?;
        self.tell_registry().await
    }

    /// Drops several keyspaces. Where one of them is not defined nothing is dropped.
    pub async fn delete_keyspaces<N: AsRef<str>>(&self, names: &[N]) -> Result<(), Error> {
        names.iter().try_for_each(|name| self.keyspaces.get(name.as_ref()).map(drop))?;
        names.iter().try_for_each(|name| self.keyspaces.delete(name.as_ref()))?;
        self.tell_registry().await
    }

    /// Replaces the definition of a keyspace without dropping what still fits.
    ///
    /// Its settings hold on every node, also on those that join later, whatever they define at their start. Source and
    /// `expires_at` are code and are replaced on this node only.
    pub async fn update_keyspace(&self, spec: KeyspaceSpec) -> Result<(), Error> {
        spec.check_within(self.node.limits.warm_keys_max).map_err(invalid_spec)?;
        self.keyspaces.update(spec)?;
        self.tell_registry().await
    }

    /// Defines a keyspace at run time, also one that was deleted. The source is code, so every node that shall own keys of
    /// it has to define it too; until then its share is loaded by whoever asks.
    pub async fn create_keyspace(&self, spec: KeyspaceSpec) -> Result<(), Error> {
        spec.check_within(self.node.limits.warm_keys_max).map_err(invalid_spec)?;
        self.keyspaces.create(spec)?;
        self.tell_registry().await
    }

    /// All keyspaces, sorted by name.
    pub fn keyspaces(&self) -> Vec<KeyspaceInfo> {
        let info = |core: Arc<crate::keyspace::Core>| KeyspaceInfo {
            name: core.name.clone(),
            settings: core.settings(),
            generation: core.generation(),
        };
        self.keyspaces.all().into_iter().map(info).collect()
    }

    /// Counts and sizes of every keyspace on this node, sorted by name.
    pub fn stats(&self) -> Vec<(String, KeyspaceStats)> {
        self.keyspaces.all().into_iter().map(|core| (core.name.clone(), core.stats())).collect()
    }

    /// How long things took in every keyspace on this node, sorted by name.
    pub fn latencies(&self) -> Vec<(String, Latencies)> {
        self.keyspaces.all().into_iter().map(|core| (core.name.clone(), core.latencies())).collect()
    }

    /// What changes in the cluster from now on, after a `Joined` for every node that is there already.
    pub fn events(&self) -> Events {
        match &*self.standing {
            Standing::Alone { board, .. } => board.events(),
            Standing::Member { cluster, .. } => cluster.events(),
        }
    }

    /// All nodes that this one knows, itself included, sorted by name.
    pub fn peers(&self) -> Vec<Peer> {
        self.node.topology().peers.clone()
    }

    /// This node, as the others see it.
    pub fn me(&self) -> Peer {
        match &*self.standing {
            Standing::Alone { me, .. } => me.clone(),
            Standing::Member { cluster, .. } => cluster.me(),
        }
    }

    /// Who owns how much in the present view.
    pub fn ring(&self) -> RingInfo {
        let topology = self.node.topology();
        let ring = topology.placement.ring();
        let member = |peer: &Peer| {
            let id = NodeId::of(&peer.name);
            let placed = ring.members().iter().find(|member| member.id == id)?;
            Some(RingMember { name: peer.name.clone(), weight: placed.weight, slots: ring.slots_owned(id) })
        };
        let members = topology.peers.iter().filter_map(member).collect();
        RingInfo { view: ring.fingerprint().0, slots: SLOTS as u32, members }
    }

    /// Why connections and datagrams of others were refused since the start, and how often; reasons that never occurred are left
    /// out.
    pub fn refusals(&self) -> Vec<(Refusal, u64)> {
        self.node.gate().refusals.counts()
    }

    /// Changes the secret of the cluster while it runs. Connections that stand go on; gossip and new connections use it at once.
    ///
    /// To lose nobody, go over all nodes three times: accept the new secret beside the old one, speak under the new one and
    /// accept the old, drop the old one. Between the rounds every node has to have taken the step. An engine that was started
    /// without a secret refuses: its nodes would part.
    pub fn rotate_cluster_secret(&self, secret: &ClusterSecret) -> Result<(), Error> {
        let Some(ring) = &self.node.gate().ring else {
            let reason = "this node was started without one; start all nodes with a secret".into();
            return Err(Error::InvalidSpec { field: "cluster_secret", value: format!("{secret:?}"), reason });
        };
        ring.replace(secret);
        tracing::info!("the cluster secret has changed");
        Ok(())
    }

    /// Whether this node has joined and is not leaving.
    pub fn is_ready(&self) -> bool {
        let (Standing::Alone { ready, .. } | Standing::Member { ready, .. }) = &*self.standing;
        ready.load(Ordering::Acquire) && !self.node.stop.is_cancelled()
    }

    /// Leaves the cluster and stops. From the call on [`is_ready`](Self::is_ready) is false; the others are told, and take over what
    /// this node owns: it hands them its entries, the hottest first, and answers until they know. All of that and the requests under
    /// way have `grace`, then everything ends.
    pub async fn shutdown(&self, grace: Duration) {
        let (Standing::Alone { ready, .. } | Standing::Member { ready, .. }) = &*self.standing;
        ready.store(false, Ordering::Release);
        let deadline = tokio::time::Instant::now() + grace.min(TIMEOUT_MAX);
        match &*self.standing {
            Standing::Alone { board, .. } => board.close(),
            Standing::Member { cluster, .. } => {
                let drained = tokio::time::timeout_at(deadline, self.drain(cluster));
                if drained.await.is_err() {
                    tracing::warn!(?grace, "the grace period is over before everything was handed over");
                }
                cluster.leave().await;
            }
        }
        self.node.work.close();
        if tokio::time::timeout_at(deadline, self.node.work.wait()).await.is_err() {
            tracing::warn!(?grace, "requests under way are cut off at the end of the grace period");
        }
        self.node.stop.cancel();
        // What was cached is not answered any more: nobody would tell this node of a change.
        self.node.adopt(Vec::new());
        self.node.tasks.close();
        if tokio::time::timeout(FAREWELL_MAX, self.node.tasks.wait()).await.is_err() {
            tracing::warn!("tasks are left after the shutdown");
        }
    }

    /// Owns nothing new, hands over what it has, and answers until the others know.
    async fn drain(&self, cluster: &Cluster) {
        cluster.set_state(PeerState::Draining);
        while let Some(seq) = self.node.placed_in() {
            self.node.until_view_after(seq, DRAIN_PAUSE).await;
        }
        self.keyspaces.hand_over().await;
        // What was written here and not told yet is told by tasks that are waited for below.
        loop {
            let links: Vec<_> = self.node.topology().links().cloned().collect();
            let asked = join_all(links.iter().map(|link| heal::ask(link, Vec::new(), self.node.hop_budget))).await;
            if !asked.iter().flatten().any(|parted| parted.places_you) {
                return;
            }
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
    }

    /// Tells every node what is agreed about the keyspaces, and waits for their word.
    async fn tell_registry(&self) -> Result<(), Error> {
        let Standing::Member { cluster, .. } = &*self.standing else { return Ok(()) };
        cluster.touch();
        let state = self.keyspaces.export();
        let links: Vec<_> = self.node.topology().links().cloned().collect();
        let told = join_all(links.iter().map(|link| async {
            let read = |response: Response<'_>| match response {
                Response::Registry(state) => Some(state.to_vec()),
                _ => None,
            };
            match link.call(Request::Registry(&state), self.node.request_timeout, read).await {
                Ok(theirs) => {
                    self.keyspaces.merge(&theirs);
                    None
                }
                Err(error) => Some(Unreached { key: None, peer: link.name().into(), error }),
            }
        }));
        let unreached: Vec<_> = told.await.into_iter().flatten().collect();
        if unreached.is_empty() { Ok(()) } else { Err(Error::Unreached { unreached }) }
    }
}

#[cfg(feature = "sim")]
impl Engine {
    /// What this node takes the cluster for: equal on two nodes exactly when they see the same owners in the same lives.
    #[doc(hidden)]
    pub fn sim_view(&self) -> Vec<(u64, u64)> {
        let topology = self.node.topology();
        topology.placement.placed().iter().map(|placed| (placed.member.id.0, placed.incarnation)).collect()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("name", &self.me().name).finish_non_exhaustive()
    }
}

fn invalid_spec(error: StartError) -> Error {
    match error {
        StartError::Invalid { field, value, reason } => Error::InvalidSpec { field, value, reason },
        other => Error::InvalidSpec { field: "keyspace", value: String::new(), reason: other.to_string() },
    }
}
