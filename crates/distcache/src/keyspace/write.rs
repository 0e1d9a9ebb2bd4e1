//! Put, delete and refresh: at the owner, with copies elsewhere told to go.
//!
//! The owner changes its entry and detaches the load under way in one step, then names the holders of copies: whoever read the
//! old value registered before, so either the change is read or the holder is told. Nothing is retried blindly: only a write
//! that its receiver refused as "not mine" is sent again. The invariant: once a write returned Ok, no node that the owner
//! reaches answers an older value.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use tracing::Instrument;

use super::batch::{ByPeer, FRAME_HEADER_BYTES, split};
use super::serve::in_books;
use super::{ATTEMPTS, Core, DISAGREEMENT_WAIT, Route};
use crate::builder::TIMEOUT_MAX;
use crate::error::{Error, Overload, Unreached};
use crate::expiry::{self, Grace, Times};
use crate::flight::Failure;
use crate::lease::{Held, Holder};
use crate::net;
use crate::node::INVALIDATION_WAIT;
use crate::peer::link::Link;
use crate::peer::wire::{PutEntry, Request, Response};
use crate::promise::Rule;
use crate::ring::NodeId;
use crate::spec::{DeleteOptions, Entry, PutOptions};
use crate::stats::{Count, Took};
use crate::store::{Holding, Record};
use crate::trace;

/// Bytes that an entry takes in a request beside key and value, an upper bound.
const ENTRY_FRAME_BYTES: usize = 32;

/// A change of one key.
#[derive(Clone, Copy)]
pub(super) struct Write<'a> {
    pub(super) hash: u64,
    pub(super) key: &'a str,
    pub(super) change: Change<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    Put { value: &'a [u8], ttl: Option<Duration> },
    Delete { hold: Duration },
}

impl Change<'_> {
    fn delete(options: DeleteOptions) -> Self {
        Self::Delete { hold: options.hold.min(TIMEOUT_MAX) }
    }
}

impl Write<'_> {
    fn frame_bytes(&self) -> usize {
        let value = if let Change::Put { value, .. } = self.change { value.len() } else { 0 };
        self.key.len() + value + ENTRY_FRAME_BYTES
    }
}

impl Core {
    pub(super) async fn put(self: &Arc<Self>, key: &str, value: Bytes, options: PutOptions) -> Result<(), Error> {
        self.check(key)?;
        self.check_value(value.len())?;
        let (change, began) = (Change::Put { value: &value, ttl: options.ttl }, Instant::now());
        let outcome = self.write_one(Write { hash: self.hash(key), key, change }).await;
        self.counters.took(Took::Put, began.elapsed());
        outcome
    }

    pub(super) async fn delete(self: &Arc<Self>, key: &str, options: DeleteOptions) -> Result<(), Error> {
        self.check(key)?;
        self.write_one(Write { hash: self.hash(key), key, change: Change::delete(options) }).await
    }

    pub(super) async fn put_many(self: &Arc<Self>, entries: Vec<(String, Bytes)>) -> Result<(), Error> {
        self.check_defined()?;
        self.check_batch(entries.len())?;
        for (key, value) in &entries {
            self.counted(self.node.limits.check_key(key))?;
            self.check_value(value.len())?;
        }
        // Of several values for one key the last one counts, as if they had been put one after the other.
        let last: HashMap<&str, &Bytes> = entries.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let writes = last.into_iter().map(|(key, value)| Write {
            hash: self.hash(key),
            key,
            change: Change::Put { value, ttl: None },
        });
        let began = Instant::now();
        let outcome = self.write_many(writes.collect()).await;
        self.counters.took(Took::Put, began.elapsed());
        outcome
    }

    pub(super) async fn delete_many(self: &Arc<Self>, keys: &[&str], options: DeleteOptions) -> Result<(), Error> {
        self.check_defined()?;
        self.check_batch(keys.len())?;
        for key in keys {
            self.counted(self.node.limits.check_key(key))?;
        }
        let change = Change::delete(options);
        let writes = keys.iter().map(|key| Write { hash: self.hash(key), key, change });
        self.write_many(writes.collect()).await
    }

    async fn write_one(self: &Arc<Self>, write: Write<'_>) -> Result<(), Error> {
        let mut errors = self.write_all(vec![write]).await;
        errors.pop().map_or(Ok(()), |(_, error)| Err(error))
    }

    async fn write_many(self: &Arc<Self>, writes: Vec<Write<'_>>) -> Result<(), Error> {
        let errors = self.write_all(writes).await;
        let unreached = errors.into_iter().map(|(write, error)| Unreached {
            key: Some(write.key.to_owned()),
            peer: self.owner_name(write.hash),
            error,
        });
        let unreached: Vec<_> = unreached.collect();
        if unreached.is_empty() { Ok(()) } else { Err(Error::Unreached { unreached }) }
    }

    /// Writes at the owners, all at once; gives back what did not take effect.
    async fn write_all<'a>(self: &Arc<Self>, writes: Vec<Write<'a>>) -> Vec<(Write<'a>, Error)> {
        let is_put = writes.first().is_some_and(|write| matches!(write.change, Change::Put { .. }));
        let span = if is_put { trace::put } else { trace::delete }(&self.name, writes.len());
        let failed = self.write_until_agreed(writes).instrument(span.clone()).await;
        trace::written(&span, failed.len());
        failed
    }

    async fn write_until_agreed<'a>(self: &Arc<Self>, mut writes: Vec<Write<'a>>) -> Vec<(Write<'a>, Error)> {
        let mut failed = Vec::new();
        for attempt in 1..=ATTEMPTS {
            let outcomes = self.write_at_owners(&writes).await;
            let (disagreed, others): (Vec<_>, Vec<_>) =
                outcomes.into_iter().partition(|(_, error)| matches!(error, Error::NotOwner { .. }));
            failed.extend(others);
            if disagreed.is_empty() || attempt == ATTEMPTS {
                failed.extend(disagreed);
                break;
            }
            writes = disagreed.into_iter().map(|(write, _)| write).collect();
            // All of it, also if the view changes: views may change several times before they agree.
            tokio::time::sleep(DISAGREEMENT_WAIT).await;
        }
        failed
    }

    async fn write_at_owners<'a>(self: &Arc<Self>, writes: &[Write<'a>]) -> Vec<(Write<'a>, Error)> {
        let mut mine = Vec::new();
        let mut peers = ByPeer::default();
        let mut failed = Vec::new();
        for &write in writes {
            match self.route(write.hash).0 {
                Route::Me => mine.push(write),
                Route::Nobody => failed.push((write, Error::NotOwner { peer: String::new() })),
                Route::Peer(link) => peers.push(&link, write),
            }
        }
        let here = async {
            let errors = self.write_here(&mine).await;
            mine.iter().copied().zip(errors).filter_map(|(write, error)| Some((write, error?))).collect()
        };
        let there = peers.into_groups().map(|(link, writes)| self.write_there(link, writes));
        let (here, there): (Vec<_>, Vec<Vec<_>>) = futures_util::future::join(here, join_all(there)).await;
        failed.extend(here);
        failed.extend(there.into_iter().flatten());
        failed
    }

    /// Writes as the owner; per key, `None` where it took effect.
    pub(super) async fn write_here(self: &Arc<Self>, writes: &[Write<'_>]) -> Vec<Option<Error>> {
        let errors: Vec<Option<Error>> = writes.iter().map(|write| self.change(write).err()).collect();
        let changed = writes.iter().zip(&errors).filter(|(_, error)| error.is_none());
        self.invalidate(changed.map(|(write, _)| write.hash).collect()).await;
        errors
    }

    /// Changes the entry and detaches the load under way, as one step.
    fn change(&self, write: &Write<'_>) -> Result<(), Error> {
        let (record, hold) = match write.change {
            Change::Put { value, ttl } => (Some(self.put_record(write.key, value, ttl)?), Duration::ZERO),
            Change::Delete { hold } => (None, hold),
        };
        let step = || {
            let topology = self.node.topology();
            if !topology.owns(write.hash) {
                return Err(Error::NotOwner { peer: self.owner_name(write.hash) });
            }
            let seq = topology.placement.seq();
            match record {
                Some(record) => self.change_to(write, record, seq)?,
                None => self.remove_and_hold(write, hold)?,
            }
            let now = self.node.clock.now();
            self.changes.note(write.hash, now.after(hold), now, seq);
            Ok(())
        };
        match self.node.promise.keeps(Rule::Detach) {
            true => self.loads.detach(write.hash, write.key, step),
            false => self.loads.locked(write.hash, step),
        }
    }

    fn change_to(&self, write: &Write<'_>, mut record: Record, seq: u32) -> Result<(), Error> {
        (record.view_seq, record.epoch) = (seq, self.epoch.load(Ordering::Acquire));
        // After the epoch was read, which ends with the keyspace.
        self.check_defined()?;
        let len = write.frame_bytes() - ENTRY_FRAME_BYTES;
        let stored = self.store.insert(Holding::Owned, write.hash, record);
        stored.inspect(|()| self.counters.one(Count::Puts)).map_err(|max| Error::ValueTooLarge { len, max })
    }

    fn remove_and_hold(&self, write: &Write<'_>, hold: Duration) -> Result<(), Error> {
        let limit = self.node.limits.holds_max;
        if !hold.is_zero() && !self.holds.hold(write.hash, self.node.clock.now().after(hold)) {
            self.counters.one(Count::Overloads);
            return Err(Error::Overloaded { what: Overload::Holds, limit });
        }
        self.counters.one(Count::Deletes);
        self.store.remove(Holding::Owned, write.hash, write.key);
        Ok(())
    }

    /// The record of a put; a value that does not fit is refused before anything is touched.
    fn put_record(&self, key: &str, value: &[u8], ttl: Option<Duration>) -> Result<Record, Error> {
        let max = self.store.value_bytes_max().saturating_sub(key.len());
        if value.len() > max {
            self.counters.one(Count::RefusedTooLarge);
            return Err(Error::ValueTooLarge { len: value.len(), max });
        }
        let definition = self.definition.load();
        let mut record = Record::new(key, Some(value));
        let bytes = record.clone().value().unwrap_or_default();
        let rule = definition.expires_at.as_ref();
        let lifetime = expiry::lifetime(&definition.settings, rule, key, &bytes, ttl, net::chance());
        let now = self.node.clock.now();
        record.version = self.node.next_version();
        let grace = Grace::of(&definition.settings, None, None);
        record.times = Times::begin(now, lifetime, grace, &definition.rules, record.version);
        Ok(record)
    }

    /// Sends writes to their owner in as few requests as frames allow; gives back what did not take effect.
    async fn write_there<'a>(self: &Arc<Self>, link: Arc<Link>, writes: Vec<Write<'a>>) -> Vec<(Write<'a>, Error)> {
        writes.iter().for_each(|write| self.forget(write));
        let room = self.node.limits.frame_bytes_max() - FRAME_HEADER_BYTES;
        let frames = split(writes, room, Write::frame_bytes);
        let sent = join_all(frames.into_iter().map(|frame| async {
            let errors = self.send_writes(&link, &frame).await;
            // Again, before anybody hears that the write took effect: a fetch may have brought the old value meanwhile.
            frame.iter().for_each(|write| self.forget(write));
            frame.into_iter().zip(errors).filter_map(|(write, error)| Some((write, error?))).collect::<Vec<_>>()
        }));
        sent.await.into_iter().flatten().collect()
    }

    async fn send_writes(&self, link: &Arc<Link>, writes: &[Write<'_>]) -> Vec<Option<Error>> {
        let keyspace = self.named();
        let entries = writes.iter().filter_map(|write| match write.change {
            Change::Put { value, ttl } => Some(PutEntry { key: write.key, value, ttl }),
            Change::Delete { .. } => None,
        });
        let entries: Vec<_> = entries.collect();
        // A call puts or deletes, never both, and holds all keys for the same time.
        let request = match writes.first().map(|write| write.change) {
            Some(Change::Delete { hold }) => {
                Request::Delete { keyspace, keys: writes.iter().map(|write| write.key).collect(), hold }
            }
            _ => Request::Put { keyspace, entries },
        };
        let read = |response: Response<'_>| match response {
            Response::Written(errors) => Some(Ok(errors)),
            Response::Refused(error) => Some(Err(error)),
            _ => None,
        };
        let refused = |error: Error| writes.iter().map(|_| Some(error.clone())).collect();
        match link.call(request, self.node.request_timeout, read).await {
            Ok(Ok(errors)) if errors.len() == writes.len() => errors,
            Ok(Ok(_)) => {
                refused(Error::Protocol { peer: link.name().into(), reason: "too few or too many answers".into() })
            }
            Ok(Err(error)) | Err(error) => {
                self.count_overload(&error);
                refused(error)
            }
        }
    }

    /// What is here of a key that is written elsewhere. Its hold counts here, too: if the owner dies within it, this node may load the
    /// key in its place.
    fn forget(&self, write: &Write<'_>) {
        if let Change::Delete { hold } = write.change
            && !hold.is_zero()
        {
            // Without room for it a load is believed for a lease at most.
            self.holds.hold(write.hash, self.node.clock.now().after(hold));
        }
        self.drop_copy(write.hash);
    }

    /// Forgets the copy of a key, and does not keep what a fetch or a load under way may bring.
    pub(super) fn drop_copy(&self, hash: u64) {
        // First: a load in place of the owner may land as a copy.
        self.loads.detach_hash(hash, |_| ());
        self.fetches.detach_hash(hash, |_| self.store.remove_hash(Holding::Hot, hash));
    }

    /// Tells the holders of these keys to drop them; waits a moment for their word. Those that cannot be told run into their
    /// lease. Told by a task of the engine: a caller that goes away leaves nobody untold.
    async fn invalidate(self: &Arc<Self>, hashes: Vec<u64>) {
        let told = self.holders_of(&hashes, None);
        if told.is_empty() {
            return;
        }
        let core = self.clone();
        let telling = async move { core.send_invalidations(told, false).await };
        match self.node.promise.keeps(Rule::AwaitAcks) {
            true => drop(self.node.work_done(telling).await),
            false => self.node.spawn_work(telling),
        }
    }

    /// Whom to tell of a change of these keys; nobody is told what it told us.
    pub(super) fn holders_of(&self, hashes: &[u64], but: Option<NodeId>) -> ByPeer<Copy> {
        let mut told = ByPeer::default();
        let (topology, now) = (self.node.topology(), self.node.clock.now());
        let lease = in_books(self.definition.load().lease);
        let is_back = self.node.was_in_doubt_within(lease);
        for &hash in hashes {
            // The slot's last owner, or who owned it while this node was taken for dead, may have given leases that nobody here
            // knows of.
            let is_young = is_back || topology.placement.is_young(hash, now, lease);
            let is_young = is_young && self.node.promise.keeps(Rule::AllWhileYoung);
            match self.leases.holders(hash, now) {
                Held::Nodes(nodes) if !is_young => {
                    for holder in nodes.into_iter().filter(|holder| Some(holder.node) != but) {
                        match topology.link(holder.node) {
                            Some(link) => told.push(link, Copy { hash, holder: Some(holder) }),
                            None => self.missed.note(holder.node, [(hash, holder.until)].into_iter()),
                        }
                    }
                }
                _ => {
                    let others = topology.links().filter(|link| Some(link.id()) != but);
                    others.for_each(|link| told.push(link, Copy { hash, holder: None }));
                }
            }
        }
        told
    }

    /// In as few requests as frames allow, all at once.
    pub(super) async fn send_invalidations(&self, told: ByPeer<Copy>, is_relayed: bool) {
        let room = self.node.limits.frame_bytes_max() - FRAME_HEADER_BYTES;
        let tell = told.into_groups().flat_map(|(link, copies)| {
            let frames = split(copies, room, |_| size_of::<u64>());
            frames.into_iter().map(move |copies| (link.clone(), copies))
        });
        join_all(tell.map(|(link, copies)| self.send_invalidation(link, copies, is_relayed))).await;
    }

    async fn send_invalidation(&self, link: Arc<Link>, copies: Vec<Copy>, is_relayed: bool) {
        self.counters.add(Count::InvalidationsSent, copies.len() as u64);
        let hashes = copies.iter().map(|copy| copy.hash).collect();
        let request = Request::Invalidate { keyspace: self.named(), hashes, is_relayed };
        let done = |response: Response<'_>| matches!(response, Response::Done).then_some(());
        match link.call(request, INVALIDATION_WAIT, done).await {
            Ok(()) => {
                let named = copies.iter().filter_map(|copy| Some((copy.hash, copy.holder?)));
                named.for_each(|(hash, holder)| self.leases.confirm(hash, holder));
            }
            Err(error) => {
                tracing::debug!(keyspace = self.name, peer = link.name(), %error, "an invalidation was not confirmed");
                let lease = self.node.clock.now().after(in_books(self.definition.load().lease));
                let missed = copies.iter().map(|copy| (copy.hash, copy.holder.map_or(lease, |holder| holder.until)));
                self.missed.note(link.id(), missed);
            }
        }
    }

    /// Tells a peer that is reached again what it missed, as far as its leases may still run.
    pub(crate) fn tell_missed(self: &Arc<Self>, peer: NodeId) {
        let Some(link) = self.node.topology().link(peer).cloned() else { return };
        let missed = self.missed.take(peer, self.node.clock.now());
        if missed.is_empty() {
            return;
        }
        let mut told = ByPeer::default();
        for (hash, _) in missed {
            told.push(&link, Copy { hash, holder: None });
        }
        let core = self.clone();
        self.node.spawn_work(async move { core.send_invalidations(told, false).await });
    }

    fn count_overload(&self, error: &Error) {
        if matches!(error, Error::Overloaded { .. }) {
            self.counters.one(Count::Overloads);
        }
    }

    pub(super) async fn refresh(self: &Arc<Self>, key: &str) -> Result<Entry, Error> {
        self.check(key)?;
        let hash = self.hash(key);
        let limit = self.definition.load().settings.load_timeout + self.node.hop_budget;
        let (mut last, span) = (Error::NotOwner { peer: String::new() }, trace::refresh(&self.name, hash));
        for attempt in 1..=ATTEMPTS {
            match self.refresh_at_owner(hash, key, limit).instrument(span.clone()).await {
                Err(error @ Error::NotOwner { .. }) => last = error,
                outcome => return outcome,
            }
            if attempt < ATTEMPTS {
                tokio::time::sleep(DISAGREEMENT_WAIT).await;
            }
        }
        Err(last)
    }

    async fn refresh_at_owner(self: &Arc<Self>, hash: u64, key: &str, limit: Duration) -> Result<Entry, Error> {
        match self.route(hash).0 {
            Route::Me => {
                tokio::time::timeout(limit, self.refresh_here(hash, key)).await.unwrap_or(Err(Error::Timeout { limit }))
            }
            Route::Nobody => Err(Error::NotOwner { peer: String::new() }),
            Route::Peer(link) => {
                self.drop_copy(hash);
                let request = Request::Refresh { keyspace: self.named(), key, deadline: limit };
                let name = link.name().to_owned();
                let answer = link.call(request, limit, move |response| super::fetch::entry_in(response, &name)).await?;
                self.drop_copy(hash);
                answer.inspect_err(|error| self.count_overload(error))
            }
        }
    }

    /// Loads as the owner, and tells the holders of the old value, in a task of the engine: a caller whose time is up leaves
    /// no holder untold.
    pub(super) async fn refresh_within(
        self: &Arc<Self>,
        hash: u64,
        key: &str,
        limit: Duration,
    ) -> Result<Entry, Error> {
        let (core, key) = (self.clone(), key.to_owned());
        let refreshed = self.node.work_done(async move { core.refresh_here(hash, &key).await }.in_current_span());
        match tokio::time::timeout(limit, refreshed).await {
            Ok(outcome) => outcome.unwrap_or(Err(Error::Shutdown)),
            Err(_) => Err(Error::Timeout { limit }),
        }
    }

    async fn refresh_here(self: &Arc<Self>, hash: u64, key: &str) -> Result<Entry, Error> {
        let outcome = self.load_anew(hash, key).await;
        let changed = matches!(&outcome, Ok(_) | Err(Failure::Answered(Error::NotFound)));
        if changed {
            self.invalidate(vec![hash]).await;
        }
        match outcome {
            Ok(landed) => Ok(landed.entry),
            Err(Failure::Answered(error) | Failure::NotReached(error)) => Err(error),
            Err(Failure::NotOwner) => Err(Error::NotOwner { peer: self.owner_name(hash) }),
            Err(Failure::Abandoned) => Err(Error::Shutdown),
        }
    }
}

/// A copy that a node may hold, and by which lease, where that is known.
pub(super) struct Copy {
    hash: u64,
    holder: Option<Holder>,
}
