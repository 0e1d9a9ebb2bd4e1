//! Put and delete: at the owner, with copies elsewhere told to go.
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

use super::Core;
use super::ask::{ATTEMPTS, DISAGREEMENT_WAIT, Route};
use super::batch::{ByPeer, FRAME_HEADER_BYTES, split};
use crate::builder::TIMEOUT_MAX;
use crate::error::{Error, Overload, Unreached};
use crate::expiry::{self, Grace, Times};
use crate::net;
use crate::peer::link::Link;
use crate::peer::wire::{PutEntry, Request, Response};
use crate::promise::Rule;
use crate::spec::{DeleteOptions, PutOptions};
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
    pub(super) change: Effect<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum Effect<'a> {
    Put { value: &'a [u8], ttl: Option<Duration> },
    Delete { hold: Duration },
}

impl Effect<'_> {
    fn delete(options: DeleteOptions) -> Self {
        Self::Delete { hold: options.hold.min(TIMEOUT_MAX) }
    }
}

impl Write<'_> {
    fn frame_bytes(&self) -> usize {
        let value = if let Effect::Put { value, .. } = self.change { value.len() } else { 0 };
        self.key.len() + value + ENTRY_FRAME_BYTES
    }
}

impl Core {
    pub(super) async fn put(self: &Arc<Self>, key: &str, value: Bytes, options: PutOptions) -> Result<(), Error> {
        self.check(key)?;
        self.check_value(value.len())?;
        let (change, began) = (Effect::Put { value: &value, ttl: options.ttl }, Instant::now());
        let outcome = self.write_one(Write { hash: self.hash(key), key, change }).await;
        self.counters.took(Took::Put, began.elapsed());
        outcome
    }

    pub(super) async fn delete(self: &Arc<Self>, key: &str, options: DeleteOptions) -> Result<(), Error> {
        self.check(key)?;
        self.write_one(Write { hash: self.hash(key), key, change: Effect::delete(options) }).await
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
            change: Effect::Put { value, ttl: None },
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
        let change = Effect::delete(options);
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
        let is_put = writes.first().is_some_and(|write| matches!(write.change, Effect::Put { .. }));
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
            Effect::Put { value, ttl } => (Some(self.put_record(write.key, value, ttl)?), Duration::ZERO),
            Effect::Delete { hold } => (None, hold),
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
            Effect::Put { value, ttl } => Some(PutEntry { key: write.key, value, ttl }),
            Effect::Delete { .. } => None,
        });
        let entries: Vec<_> = entries.collect();
        // A call puts or deletes, never both, and holds all keys for the same time.
        let request = match writes.first().map(|write| write.change) {
            Some(Effect::Delete { hold }) => {
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
        if let Effect::Delete { hold } = write.change
            && !hold.is_zero()
        {
            // Without room for it a load is believed for a lease at most.
            self.holds.hold(write.hash, self.node.clock.now().after(hold));
        }
        self.drop_copy(write.hash);
    }

    pub(super) fn count_overload(&self, error: &Error) {
        if matches!(error, Error::Overloaded { .. }) {
            self.counters.one(Count::Overloads);
        }
    }
}
