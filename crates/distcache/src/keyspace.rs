//! The story of a key: get, get_many, put, delete, and answering other nodes as the owner.
//!
//! In reading order: this file (a handle, and what a keyspace is on a node), [`definition`] (what the application says of it), [`hit`]
//! (what is here), [`ask`] (the way after a miss), [`load`] (the owner asks the source), [`renew`] (what is past its lifetime), [`fetch`]
//! (others ask the owner), [`fallbacks`] (who is not reached is stood in for), [`batch`] (many keys at once), [`write`] (put, delete),
//! [`invalidate`] (copies elsewhere go), [`refresh`], [`serve`] (what peers are answered), [`warm`] (keys loaded before anybody asks),
//! [`hand_over`] (entries that move with their slot), [`tell`] (what was written elsewhere). Knows no encoding and no sockets. The
//! invariants: one load per key at a time in the whole cluster while the nodes agree on the view; no lock is held while anything is
//! awaited; once a write returned Ok, what this node answers is not older.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::changes::Changes;
use crate::cluster::Peer;
use crate::engine::KeepAlive;
use crate::error::Error;
use crate::flight::{Boarding, Flights, Stamp};
use crate::guard::Access;
use crate::holds::Holds;
use crate::hotkeys::{HotKey, HotKeys};
use crate::lease::{Leases, Sightings, Undelivered};
use crate::net::{self, Moment};
use crate::node::{Node, Topology};
use crate::ring::NodeId;
use crate::spec::{DeleteOptions, Entry, GetOptions, KeyspaceSpec, Origin, PutOptions};
use crate::stats::{Count, Counters, KeyspaceStats, Latencies};
use crate::store::{Holding, Now, Record, Store, Validity};
use crate::trace;

mod ask;
mod batch;
mod definition;
mod fallbacks;
mod fetch;
mod hand_over;
mod hit;
mod invalidate;
mod load;
mod refresh;
mod renew;
mod serve;
mod tell;
mod warm;
mod write;

use definition::Definition;
pub(crate) use hand_over::DEPARTED_KEPT;
use load::Purpose;
use renew::Failures;
use serve::IN_TRANSIT;
pub(crate) use serve::Served;
use tell::Tidings;
use warm::WarmUp;

/// A keyspace of a running engine. Cheap to clone; saves the look-up by name in every call.
#[derive(Clone)]
pub struct Keyspace {
    core: Arc<Core>,
    _engine: Arc<KeepAlive>,
}

impl Keyspace {
    pub(crate) fn new(core: Arc<Core>, engine: Arc<KeepAlive>) -> Self {
        Self { core, _engine: engine }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The value under this key: from here, from its owner, or from the source.
    pub async fn get(&self, key: &str) -> Result<Bytes, Error> {
        match self.core.hit(key) {
            Some(Some(value)) => Ok(value),
            Some(None) => Err(Error::NotFound),
            // Boxed, so that the future of a hit stays small.
            None => Box::pin(self.core.ask_within(key, GetOptions::new())).await.map(|entry| entry.value),
        }
    }

    /// Like [`get`](Self::get), with what the cache knows about the value, and a deadline of the caller's own.
    pub async fn get_entry(&self, key: &str, options: GetOptions) -> Result<Entry, Error> {
        match self.core.lookup(key) {
            Some((record, holding)) => entry_of(record, origin_of(holding), self.core.node.clock.now()),
            None => Box::pin(self.core.ask_within(key, options)).await,
        }
    }

    /// The values under these keys, in their order. One request per owner, and one
    /// [`fetch_many`](crate::DataSource::fetch_many) per owner for what it does not have.
    ///
    /// The outer error concerns the call as a whole (too many keys, no such keyspace).
    pub async fn get_many<K: AsRef<str>>(&self, keys: &[K]) -> Result<Vec<Result<Bytes, Error>>, Error> {
        let entries = self.get_many_entries(keys, GetOptions::new()).await?;
        Ok(entries.into_iter().map(|entry| entry.map(|entry| entry.value)).collect())
    }

    /// Like [`get_many`](Self::get_many), with what the cache knows about the values.
    pub async fn get_many_entries<K: AsRef<str>>(
        &self,
        keys: &[K],
        options: GetOptions,
    ) -> Result<Vec<Result<Entry, Error>>, Error> {
        let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
        self.core.get_many(&keys, options).await
    }

    /// Stores a value at its owner; copies elsewhere are invalidated before this returns.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<(), Error> {
        self.put_with(key, value, PutOptions::new()).await
    }

    /// Like [`put`](Self::put), with a lifetime for this value.
    pub async fn put_with(&self, key: &str, value: impl Into<Bytes>, options: PutOptions) -> Result<(), Error> {
        self.core.put(key, value.into(), options).await
    }

    /// Stores several values, one request per owner. An [`Error::Unreached`] names every key that was not stored.
    pub async fn put_many<K, V>(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<(), Error>
    where
        K: Into<String>,
        V: Into<Bytes>,
    {
        let entries = entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        self.core.put_many(entries).await
    }

    /// Removes a key everywhere. Not having it is no error.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        self.delete_with(key, DeleteOptions::new()).await
    }

    /// Like [`delete`](Self::delete), and holds back what is loaded for a while.
    pub async fn delete_with(&self, key: &str, options: DeleteOptions) -> Result<(), Error> {
        self.core.delete(key, options).await
    }

    /// Removes several keys, one request per owner. An [`Error::Unreached`] names every key that may still be there.
    pub async fn delete_many<K: AsRef<str>>(&self, keys: &[K]) -> Result<(), Error> {
        self.delete_many_with(keys, DeleteOptions::new()).await
    }

    /// Like [`delete_many`](Self::delete_many), and holds back what is loaded for a while.
    pub async fn delete_many_with<K: AsRef<str>>(&self, keys: &[K], options: DeleteOptions) -> Result<(), Error> {
        let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
        self.core.delete_many(&keys, options).await
    }

    /// Loads the value now, whatever is cached, and replaces it everywhere. Where the load fails the old value stays.
    pub async fn refresh(&self, key: &str) -> Result<Bytes, Error> {
        self.core.refresh(key).await.map(|entry| entry.value)
    }

    /// What is here and fresh, without a load, a message or a wait.
    pub fn cached(&self, key: &str) -> Option<Bytes> {
        self.core.fresh(key).flatten()
    }

    /// The node that owns this key in the present view.
    pub fn owner_of(&self, key: &str) -> Result<Peer, Error> {
        self.core.check(key)?;
        let topology = self.core.node.topology();
        topology.owner_peer(self.core.hash(key)).cloned().ok_or(Error::Shutdown)
    }

    /// The keys that are read the most at this node, by its own callers and by peers, the hottest first; up to
    /// [`Limits::hot_keys_max`](crate::Limits::hot_keys_max).
    pub fn hot_keys(&self, keys: usize) -> Vec<HotKey> {
        self.core.hottest(keys)
    }

    /// Counts and sizes of this keyspace on this node.
    pub fn stats(&self) -> KeyspaceStats {
        self.core.stats()
    }

    /// How long things took in this keyspace on this node.
    pub fn latencies(&self) -> Latencies {
        self.core.latencies()
    }
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace").field("name", &self.core.name).finish_non_exhaustive()
    }
}

/// What a keyspace is on this node.
pub(crate) struct Core {
    pub(crate) name: String,
    seed: u64,
    node: Arc<Node>,
    definition: ArcSwap<Definition>,
    /// The latest clear that the cluster agreed on.
    generation: AtomicU64,
    /// Counts the clears that this node has seen; what is stored carries it.
    epoch: AtomicU32,
    deleted: AtomicBool,
    store: Store,
    loads: Arc<Flights>,
    fetches: Arc<Flights>,
    leases: Leases,
    changes: Changes,
    holds: Holds,
    /// Copies that this node has loaded in place of an owner, which does not know of them.
    fallbacks: Mutex<HashMap<NodeId, HashSet<u64>>>,
    undelivered: Undelivered,
    /// What new owners could not be told that are members and are not reached.
    postponed: Mutex<HashMap<NodeId, Tidings>>,
    sightings: Sightings,
    hot_keys: HotKeys,
    failures: Failures,
    warm_up: WarmUp,
    access: Access,
    loads_queued: AtomicUsize,
    counters: Arc<Counters>,
}

/// Where and when something was begun: decides later whether what came of it may be kept.
#[derive(Clone, Copy)]
struct Begun {
    at: Moment,
    epoch: u32,
    view_seq: u32,
}

impl Core {
    pub(crate) fn new(spec: KeyspaceSpec, node: Arc<Node>) -> Self {
        let counters = Arc::new(Counters::new());
        let limits = &node.limits;
        Self {
            // Seeded by the name: the same key of two keyspaces has two owners, most likely.
            seed: xxh3_64(spec.name.as_bytes()),
            store: Store::new(
                &spec.settings,
                limits.value_bytes_max + limits.key_bytes_max,
                node.clustered,
                counters.clone(),
            ),
            loads: Arc::new(Flights::new(limits.waiters_per_key_max)),
            fetches: Arc::new(Flights::joined_for(limits.waiters_per_key_max, IN_TRANSIT)),
            leases: Leases::new(limits.leased_keys_max),
            changes: Changes::new(limits.changes_logged_max),
            holds: Holds::new(limits.holds_max),
            fallbacks: Mutex::default(),
            undelivered: Undelivered::new(limits.leased_keys_max),
            postponed: Mutex::default(),
            sightings: Sightings::new(),
            hot_keys: HotKeys::new(limits.hot_keys_max, node.clock.now()),
            failures: Failures::new(),
            warm_up: WarmUp::default(),
            access: Access::new(&spec.name, &spec.settings.guard, &node.guards),
            loads_queued: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
            deleted: AtomicBool::new(false),
            name: spec.name.clone(),
            definition: ArcSwap::from_pointee(Definition::of(spec)),
            counters,
            node,
        }
    }

    /// Drops everything that was stored before the clear called `generation`, in no time. A clear that no clock can have named
    /// is none: after it no other would count.
    pub(crate) fn advance(&self, generation: u64) {
        if self.generation.load(Ordering::Acquire) < generation && generation <= net::wall_clock_ms_max() {
            // Before the generation is known to be taken in: whoever sees it must not find what it cleared.
            self.epoch.fetch_add(1, Ordering::AcqRel);
            self.generation.fetch_max(generation, Ordering::AcqRel);
            self.node.sweep.notify_one();
        }
    }

    /// Ends this keyspace on this node: nothing is answered from it any more.
    pub(crate) fn retire(&self) {
        self.deleted.store(true, Ordering::Release);
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn stats(&self) -> KeyspaceStats {
        let mut stats = self.counters.read();
        self.store.fill_in(&mut stats);
        self.access.fill_in(&mut stats);
        stats
    }

    pub(crate) fn latencies(&self) -> Latencies {
        self.counters.latencies()
    }

    /// Frees what no longer counts: expired, cleared, moved to other owners.
    pub(crate) async fn sweep(&self) {
        let now = Now::At(self.node.clock.now());
        let validity = |hash| {
            let topology = self.node.topology();
            let validity = self.departed(&topology, hash).unwrap_or_else(|| self.validity(&topology, hash));
            Validity { now, ..validity }
        };
        self.store.sweep(validity, tokio::task::yield_now).await;
    }

    /// Forgets leases that have run out.
    pub(crate) fn sweep_leases(&self) {
        let now = self.node.clock.now();
        self.leases.sweep(now);
        self.holds.sweep(now, self.definition.load().settings.load_timeout);
        self.undelivered.sweep(now);
        self.sweep_fallbacks();
    }

    pub(crate) fn may_hold_expired(&self) -> bool {
        self.store.may_hold_expired(self.node.clock.now())
    }

    #[inline]
    fn hash(&self, key: &str) -> u64 {
        xxh3_64_with_seed(key.as_bytes(), self.seed)
    }

    fn check(&self, key: &str) -> Result<(), Error> {
        self.counted(self.node.limits.check_key(key))?;
        self.check_defined()
    }

    pub(crate) fn check_batch(&self, len: usize) -> Result<(), Error> {
        self.counted(self.node.limits.check_batch(len))
    }

    fn check_value(&self, len: usize) -> Result<(), Error> {
        self.counted(self.node.limits.check_value(len))
    }

    fn counted(&self, checked: Result<(), Error>) -> Result<(), Error> {
        if checked.as_ref().is_err_and(|error| !matches!(error, Error::KeyEmpty)) {
            self.counters.one(Count::RefusedTooLarge);
        }
        checked
    }

    fn check_defined(&self) -> Result<(), Error> {
        if self.node.stop.is_cancelled() {
            return Err(Error::Shutdown);
        }
        if self.is_deleted() {
            return Err(Error::KeyspaceNotFound { name: self.name.clone() });
        }
        Ok(())
    }

    #[inline]
    fn validity(&self, topology: &Topology, hash: u64) -> Validity {
        Validity {
            now: Now::Read(self.node.clock),
            epoch: self.epoch.load(Ordering::Acquire),
            slot_since: topology.placement.slot_since(hash),
        }
    }

    fn begin(&self) -> Begun {
        self.begin_under(self.node.topology().placement.seq())
    }

    /// Begun under the view by which the way was chosen, also if there is a later one by now.
    fn begin_under(&self, view_seq: u32) -> Begun {
        Begun { at: self.node.clock.now(), epoch: self.epoch.load(Ordering::Acquire), view_seq }
    }

    /// A caller waits for what another one asks.
    fn joined(&self) {
        self.counters.one(Count::Coalesced);
        trace::joined();
    }

    /// What flights of this key a caller may join that was sent its way by view `view_seq`: those that began `within` this time.
    fn boarding(&self, hash: u64, view_seq: u32, within: Duration) -> Boarding {
        let epoch = self.epoch.load(Ordering::Acquire);
        let at = self.node.clock.now();
        let slot_since = self.node.tenures.of(hash).since;
        Boarding { now: Stamp { at, epoch, view_seq }, slot_since, within }
    }

    fn view_seq(&self) -> u32 {
        self.node.topology().placement.seq()
    }
}

fn origin_of(holding: Holding) -> Origin {
    match holding {
        Holding::Owned => Origin::Owned,
        Holding::Hot => Origin::HotCopy,
    }
}

fn entry_of(record: Record, origin: Origin, now: Moment) -> Result<Entry, Error> {
    let times = record.times;
    let value = record.into_value().ok_or(Error::NotFound)?;
    Ok(Entry {
        value,
        origin,
        age: now.since(times.stored_at),
        remaining: now.until(times.expires_at),
        is_stale: times.expires_at <= now,
    })
}

#[cfg(test)]
mod tests;
