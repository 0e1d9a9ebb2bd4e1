//! The keyspaces of a node by name, kept as the cluster agreed, and the door through which peers ask for them.
//!
//! Knows what is defined, not how a key is served. The invariant: what the registry says is applied here before anybody is told
//! that it was taken in.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use tracing::Instrument;

use crate::cluster::SharedState;
use crate::error::Error;
use crate::heal;
use crate::keyspace::{Core, DEPARTED_KEPT, Served};
use crate::net;
use crate::node::{Node, Topology};
use crate::partings::OutOfSight;
use crate::peer::server::{Reply, Serve};
use crate::peer::wire::{Answer, Named, Parted, Request, Response};
use crate::placement::is_among;
use crate::promise::Rule;
use crate::registry::{Agreed, Registry};
use crate::ring::NodeId;
use crate::spec::KeyspaceSpec;

/// Bytes of an answer beside what it says of its keys, an upper bound.
const ANSWER_FRAME_BYTES: usize = 64;

pub(crate) struct Keyspaces {
    node: Arc<Node>,
    table: RwLock<BTreeMap<String, Arc<Core>>>,
    registry: Mutex<Registry>,
}

impl Keyspaces {
    pub(crate) fn new(node: Arc<Node>, specs: Vec<KeyspaceSpec>) -> Self {
        let core = |spec: KeyspaceSpec| (spec.name.clone(), Arc::new(Core::new(spec, node.clone())));
        let table = RwLock::new(specs.into_iter().map(core).collect());
        Self { node, table, registry: Mutex::default() }
    }

    pub(crate) fn get(&self, name: &str) -> Result<Arc<Core>, Error> {
        self.table.read().get(name).cloned().ok_or_else(|| Error::KeyspaceNotFound { name: name.into() })
    }

    /// All that are defined, sorted by name.
    pub(crate) fn all(&self) -> Vec<Arc<Core>> {
        self.table.read().values().cloned().collect()
    }

    /// Clears a keyspace here; the registry to be told to the others.
    pub(crate) fn clear(&self, name: &str) -> Result<(), Error> {
        let core = self.get(name)?;
        let mut registry = self.registry.lock();
        registry.check_room(name)?;
        // Later than any clear that this node has heard of, by whatever way.
        registry.clear(name, net::wall_clock_ms().max(core.generation().saturating_add(1)));
        self.apply(&registry);
        Ok(())
    }

    pub(crate) fn delete(&self, name: &str) -> Result<(), Error> {
        self.get(name)?;
        let mut registry = self.registry.lock();
        registry.check_room(name)?;
        registry.delete(name, net::wall_clock_ms(), self.node.id.0);
        self.apply(&registry);
        Ok(())
    }

    pub(crate) fn update(&self, spec: KeyspaceSpec) -> Result<(), Error> {
        let mut registry = self.registry.lock();
        let core = self.get(&spec.name)?;
        registry.check_room(&spec.name)?;
        registry.settle(&spec.name, net::wall_clock_ms(), self.node.id.0, spec.settings.clone());
        core.redefine(spec);
        Ok(())
    }

    pub(crate) fn create(&self, spec: KeyspaceSpec) -> Result<(), Error> {
        let (name, settings) = (spec.name.clone(), spec.settings.clone());
        let core = Arc::new(Core::new(spec, self.node.clone()));
        let created = core.clone();
        let mut registry = self.registry.lock();
        registry.check_room(&name)?;
        match self.table.write().entry(name.clone()) {
            Entry::Occupied(_) => return Err(Error::KeyspaceExists { name }),
            Entry::Vacant(place) => {
                place.insert(core).settle_guard();
            }
        }
        if registry.get(&name).is_none_or(|agreed| agreed.deleted) {
            registry.settle(&name, net::wall_clock_ms(), self.node.id.0, settings);
        }
        registry.get(&name).inspect(|agreed| self.apply_to(&name, agreed));
        created.warm_named_keys();
        Ok(())
    }

    /// Slots may have changed hands since `before`.
    pub(crate) fn follow(&self, before: &Topology) {
        if before.placement.seq() != self.node.topology().placement.seq() {
            self.all().iter().for_each(|core| core.follow(before));
            let node = self.node.clone();
            self.node.spawn(async move {
                // What has left is kept for its new owner until then, and has to go without waiting for anything else.
                tokio::time::sleep(DEPARTED_KEPT + Duration::from_secs(1)).await;
                node.sweep.notify_one();
            });
        }
    }

    /// Hands over what is here of slots that have left.
    pub(crate) async fn hand_over(&self) {
        let cores = self.all();
        join_all(cores.iter().map(|core| core.hand_over())).await;
    }

    /// This node was taken for dead, and is back; what it passed on until then, under view `before`, is in doubt. `false`: it has not
    /// met anybody again yet.
    pub(crate) fn tell_doubt(&self, before: &Topology) -> bool {
        let since = self.node.partings.first_view_without(&self.node.topology().in_sight, self.node.clock.now());
        if let Some(since) = since.filter(|_| self.node.promise.keeps(Rule::Heal)) {
            self.all().iter().for_each(|core| core.tell_doubt(before, since));
        }
        since.is_some()
    }

    /// What was written here is told to a node that was taken for dead, before it hears how it stands here. `out_of_sight`: of whom
    /// it has itself lost sight.
    async fn part(&self, from: NodeId, out_of_sight: &[OutOfSight]) -> Result<Parted, Error> {
        let topology = self.node.topology_held();
        let places_you = topology.places(from);
        // Who is about to own something is told when it does.
        let parted_at = self.node.parted_at(from).filter(|_| places_you || topology.owns_nothing(from));
        let (Some(parted_at), Some(link)) = (parted_at, topology.link(from)) else {
            return Ok(Parted { places_you, met: self.node.heard_later(out_of_sight) });
        };
        let cores = self.all();
        let told = join_all(cores.iter().map(|core| core.tell_returned(link, parted_at))).await;
        told.into_iter().collect::<Result<(), Error>>()?;
        let met = self.node.partings.met_since(parted_at, &self.node.topology().in_sight);
        self.node.partings.note_told(from, self.node.clock.now());
        Ok(Parted { places_you, met })
    }

    /// A connection to this node has been made.
    pub(crate) fn reached(&self, peer: NodeId) {
        for core in self.all() {
            core.drop_fallbacks(peer);
            core.tell_undelivered(peer);
            core.tell_postponed(peer);
        }
    }

    /// What other nodes have written may have been told to others only.
    pub(crate) async fn drop_copies(&self) {
        let cores = self.all();
        join_all(cores.iter().map(|core| core.drop_copies(|_| true))).await;
    }

    /// Nothing that is owned here is believed any more.
    pub(crate) fn doubt_all(&self) {
        self.all().iter().for_each(|core| core.doubt_all());
    }

    fn apply(&self, registry: &Registry) {
        registry.iter().for_each(|(name, agreed)| self.apply_to(name, agreed));
    }

    fn apply_to(&self, name: &str, agreed: &Agreed) {
        let Ok(core) = self.get(name) else { return };
        core.advance(agreed.generation);
        if agreed.deleted {
            self.table.write().remove(name);
            core.retire();
        } else if let Some(settings) = &agreed.settings {
            match settings.check() {
                Ok(()) => core.apply_settings(settings),
                Err(error) => tracing::warn!(keyspace = name, %error, "settings that make no sense are ignored"),
            }
        }
    }
}

impl SharedState for Keyspaces {
    fn export(&self) -> Vec<u8> {
        self.registry.lock().encode()
    }

    fn merge(&self, bytes: &[u8]) {
        let Some(theirs) = Registry::decode(bytes) else {
            tracing::warn!("what a peer says of the keyspaces makes no sense and is ignored");
            return;
        };
        let theirs = theirs.plausible(net::wall_clock_ms_max());
        let mut registry = self.registry.lock();
        let table = self.table.read();
        theirs.iter().filter(|(name, _)| table.contains_key(*name)).for_each(|(name, _)| registry.expect(name));
        drop(table);
        registry.merge(theirs);
        self.apply(&registry);
    }
}

impl Serve for Keyspaces {
    fn serve_at_once(&self, from: NodeId, request: &Request<'_>, answer: &mut dyn FnMut(Response<'_>)) -> bool {
        match request {
            Request::Get(get) => match self.table.read().get(get.keyspace.name) {
                Some(core) => core.serve_at_once(from, get, &mut |one| answer(Response::One(one))),
                None => {
                    let error = Error::KeyspaceNotFound { name: get.keyspace.name.into() };
                    answer(Response::Refused(error));
                    true
                }
            },
            Request::Invalidate { keyspace, hashes, is_relayed } => {
                if let Some(core) = self.table.read().get(keyspace.name) {
                    core.serve_invalidate(from, keyspace.generation, hashes, *is_relayed);
                }
                answer(Response::Done);
                true
            }
            _ => false,
        }
    }

    async fn serve(self: Arc<Self>, from: NodeId, request: Request<'_>, reply: Reply) {
        let span = self.node.traces.serve(&request, || self.node.peer_name(from));
        match self.answer(from, &request, reply.frame_bytes_max()).instrument(span).await {
            Ok(response) => reply.send(&response.as_response()).await,
            Err(error) => reply.send(&Response::Refused(error)).await,
        }
    }
}

/// An answer before it is put into bytes.
enum Prepared {
    One(Served),
    Many(Vec<Served>, usize),
    Written(Vec<Option<Error>>),
    Done,
    Parted(Parted),
    Registry(Vec<u8>),
}

impl Prepared {
    fn as_response(&self) -> Response<'_> {
        match self {
            Self::One(served) => Response::One(served.as_answer()),
            Self::Many(served, room) => Response::Many(fit(served, *room)),
            Self::Written(errors) => Response::Written(errors.clone()),
            Self::Done => Response::Done,
            Self::Parted(parted) => Response::Parted(parted.clone()),
            Self::Registry(state) => Response::Registry(state),
        }
    }
}

/// As many answers as the frame takes; the others are asked for again.
fn fit(served: &[Served], room: usize) -> Vec<Answer<'_>> {
    // Each takes a byte at least, if only to say that there was no room for more.
    let mut left = room.saturating_sub(served.len());
    let answers = served.iter().map(|served| {
        let answer = served.as_answer();
        match left.checked_sub(answer.encoded_len()) {
            Some(rest) => {
                left = rest;
                answer
            }
            None => Answer::NoRoom,
        }
    });
    answers.collect()
}

impl Keyspaces {
    async fn answer(&self, from: NodeId, request: &Request<'_>, frame_bytes_max: usize) -> Result<Prepared, Error> {
        let core = |keyspace: &Named<'_>, keys| {
            let core = self.get(keyspace.name)?;
            core.check_batch(keys).map(|()| core)
        };
        Ok(match request {
            Request::Get(get) => Prepared::One(core(&get.keyspace, 1)?.serve_get(from, get).await),
            Request::GetMany { get } => {
                let core = core(&get.keyspace, get.keys.len())?;
                Prepared::Many(core.serve_get_many(from, get).await, frame_bytes_max - ANSWER_FRAME_BYTES)
            }
            Request::Put { keyspace, entries } => {
                Prepared::Written(core(keyspace, entries.len())?.serve_put(keyspace.generation, entries).await)
            }
            Request::Delete { keyspace, keys, hold } => {
                Prepared::Written(core(keyspace, keys.len())?.serve_delete(keyspace.generation, keys, *hold).await)
            }
            Request::Refresh { keyspace, key, deadline } => {
                Prepared::One(core(keyspace, 1)?.serve_refresh(keyspace.generation, key, *deadline).await)
            }
            Request::Warm { keyspace, keys } => {
                core(keyspace, keys.len())?.serve_warm(keyspace.generation, keys);
                Prepared::Done
            }
            Request::Peek { keyspace, keys } => {
                let served = core(keyspace, keys.len())?.serve_peek(from, keyspace.generation, keys);
                Prepared::Many(served, frame_bytes_max - ANSWER_FRAME_BYTES)
            }
            Request::HandOver { keyspace, entries } => {
                // Bounded by its frame, not by the batch of a caller.
                self.get(keyspace.name)?.serve_hand_over(from, keyspace.generation, entries)?;
                Prepared::Done
            }
            Request::Tell { keyspace, told } => {
                self.get(keyspace.name)?.serve_told(from, keyspace.generation, told).await?;
                Prepared::Done
            }
            Request::DropCopies { keyspace, slots } => {
                let core = self.get(keyspace.name)?;
                core.advance(keyspace.generation);
                core.drop_copies(|hash| is_among(slots, hash)).await;
                Prepared::Done
            }
            Request::Part { out_of_sight } => Prepared::Parted(self.part(from, out_of_sight).await?),
            Request::Missed => {
                heal::heed(&self.node, from);
                Prepared::Done
            }
            Request::Registry(state) => {
                self.merge(state);
                Prepared::Registry(self.export())
            }
            // Answered at once, before they come here.
            Request::Invalidate { .. } | Request::Ping | Request::Cancel => Prepared::Done,
        })
    }
}

#[cfg(feature = "fuzz-internals")]
pub(crate) mod fuzz;
