//! Keys that are loaded before anybody asks: those that the user named, and the hottest ones of a slot that changed its owner.
//!
//! Who had the slot knows what is read there, so it names the hottest keys to who has it now; who has got a slot also looks at
//! what its own callers read. Only keys cross the wire: the new owner loads them itself, behind its guard, a few at a time. The
//! invariants: a node loads only what it owns; what waits to be loaded is bounded and belongs to nobody's request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::Core;
use super::ask::Route;
use super::batch::{ByPeer, FRAME_HEADER_BYTES, split};
use crate::expiry::Phase;
use crate::hotkeys::HotKey;
use crate::net::Moment;
use crate::node::{Owner, Topology};
use crate::peer::link::Link;
use crate::peer::wire::Request;
use crate::stats::Count;
use crate::store::Look;

/// Keys loaded at once by a warm-up, as one batch.
const WARM_BATCH_KEYS: usize = 32;
/// Views spread within moments: a key that this node was named before it owns it waits so long for that.
const WARM_PATIENCE: Duration = Duration::from_secs(3);
const WARM_PAUSE: Duration = Duration::from_millis(100);
/// How long the naming of hot keys to their new owner may take.
const OFFER_WAIT: Duration = Duration::from_millis(500);
const KEY_FRAME_BYTES: usize = 8;
/// The last part of a lifetime in which a hot key is loaded again, where the keyspace names none.
const REFRESH_AHEAD_OF_HOT_KEYS: f32 = 0.1;

/// Keys that wait to be loaded.
#[derive(Default)]
pub(super) struct WarmUp(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    keys: VecDeque<(String, Moment)>,
    is_running: bool,
}

impl Core {
    /// The keys that are read the most at this node, the hottest first.
    pub(super) fn hottest(&self, keys: usize) -> Vec<HotKey> {
        self.hot_keys.hottest(keys, self.node.clock.now())
    }

    /// Loads the keys that the user named, those that this node owns and has not.
    pub(crate) fn warm_named_keys(self: &Arc<Self>) {
        let keys = self.definition.load().warm_keys.clone();
        self.warm(keys.iter().filter(|key| self.node.topology().owns(self.hash(key))).cloned());
    }

    /// Slots may have changed hands since `before`: tells what was written and hands over what is here of those that left, names
    /// what was hot in them, and loads what is hot here and ours now.
    pub(crate) fn follow(self: &Arc<Self>, before: &Topology) {
        self.tell_next_owners(before);
        let topology = self.node.topology();
        let (mut ours, mut theirs) = (Vec::new(), ByPeer::default());
        for HotKey { key, .. } in self.hottest(usize::MAX) {
            let hash = self.hash(&key);
            match (before.owner(hash), topology.owner(hash)) {
                (Owner::Me, Owner::Peer(link)) => theirs.push(link, key),
                (Owner::Peer(_) | Owner::Nobody, Owner::Me) => ours.push(key),
                _ => {}
            }
        }
        drop(topology);
        self.warm(ours);
        self.warm_named_keys();
        // A node that leaves does it itself, before it says farewell.
        let hands_over = !self.node.is_draining();
        let core = self.clone();
        self.node.spawn_work(async move {
            if hands_over {
                core.hand_over().await;
            }
            // Of what is not here, a name is better than nothing.
            core.offer(theirs).await;
        });
    }

    async fn offer(&self, keys: ByPeer<String>) {
        let room = self.node.limits.frame_bytes_max() - FRAME_HEADER_BYTES;
        let frames = keys.into_groups().flat_map(|(link, keys)| {
            let frames = split(keys, room, |key| key.len() + KEY_FRAME_BYTES);
            frames.into_iter().map(move |keys| (link.clone(), keys))
        });
        join_all(frames.map(|(link, keys)| self.send_offer(link, keys))).await;
    }

    async fn send_offer(&self, link: Arc<Link>, keys: Vec<String>) {
        let keys = keys.iter().map(String::as_str).collect();
        let request = Request::Warm { keyspace: self.named(), keys };
        // Who does not hear of it begins cold, and knows soon what is read.
        if let Err(error) = link.call_done(request, OFFER_WAIT).await {
            tracing::debug!(keyspace = self.name, peer = link.name(), %error, "the hot keys were not named to their new owner");
        }
    }

    /// Has these keys loaded, in the background; those that are not ours soon, or are there already, are left out.
    pub(crate) fn warm(self: &Arc<Self>, keys: impl IntoIterator<Item = String>) {
        let until = self.node.clock.now().after(WARM_PATIENCE);
        let limit = self.node.limits.warm_keys_max;
        let mut waiting = self.warm_up.0.lock();
        let mut refused = 0;
        for key in keys.into_iter().filter(|key| self.node.limits.check_key(key).is_ok()) {
            if waiting.keys.len() < limit {
                waiting.keys.push_back((key, until));
            } else {
                refused += 1;
            }
        }
        if refused > 0 {
            self.counters.add(Count::WarmRefused, refused);
            tracing::debug!(keyspace = self.name, limit, refused, "more keys to load beforehand than may wait for it");
        }
        if !waiting.keys.is_empty() && !std::mem::replace(&mut waiting.is_running, true) {
            let core = self.clone();
            self.node.spawn(async move { core.load_what_waits().await });
        }
    }

    async fn load_what_waits(self: Arc<Self>) {
        while let Some(batch) = self.next_to_warm().filter(|_| self.check_defined().is_ok()) {
            let now = self.node.clock.now();
            let (ours, others): (Vec<_>, Vec<_>) =
                batch.into_iter().partition(|(key, _)| matches!(self.route(self.hash(key)).0, Route::Me));
            let wanted = ours.iter().map(|(key, _)| (self.hash(key), key.as_str()));
            let wanted: Vec<_> = wanted.filter(|(hash, key)| !self.is_held(*hash, key)).collect();
            let is_idle = wanted.is_empty();
            let waiters = self.start_own_loads(wanted.into_iter()).into_iter().flatten();
            let loaded = join_all(waiters).await.into_iter().filter(Result::is_ok).count();
            self.counters.add(Count::Warmed, loaded as u64);
            let patient: Vec<_> = others.into_iter().filter(|(_, until)| *until > now).collect();
            let all_are_patient = !patient.is_empty() && is_idle;
            self.warm_up.0.lock().keys.extend(patient);
            if all_are_patient {
                tokio::time::sleep(WARM_PAUSE).await;
            }
        }
    }

    /// The next few keys; `None`, with the end of the warm-up noted, where there are none.
    fn next_to_warm(&self) -> Option<Vec<(String, Moment)>> {
        let mut waiting = self.warm_up.0.lock();
        let len = waiting.keys.len().min(WARM_BATCH_KEYS);
        waiting.is_running = len > 0;
        (len > 0).then(|| waiting.keys.drain(..len).collect())
    }

    fn is_held(&self, hash: u64, key: &str) -> bool {
        let (holding, validity) = self.standing(hash);
        matches!(self.store.get(holding, hash, key, validity), Look::Hit(_))
    }

    /// Loads the hottest keys of ours that near the end of their lifetime again.
    pub(crate) fn refresh_hot_keys(self: &Arc<Self>) {
        let definition = self.definition.load();
        let wanted = definition.settings.refresh_hot_keys;
        if wanted == 0 {
            return;
        }
        let mut rules = definition.rules;
        if rules.refresh_ahead <= 0.0 {
            rules.refresh_ahead = REFRESH_AHEAD_OF_HOT_KEYS;
        }
        let now = self.node.clock.now();
        let ours = self.hottest(usize::MAX).into_iter().filter(|hot| self.node.topology().owns(self.hash(&hot.key)));
        for HotKey { key, .. } in ours.take(wanted) {
            let hash = self.hash(&key);
            let Some(record) = self.owned_record(hash, &key) else { continue };
            let is_near = record.times.refresh_at(rules.refresh_ahead, record.version) <= now;
            let is_gone = record.times.phase(&rules, record.version, now) == Phase::Gone;
            if !record.is_negative() && is_near && !is_gone {
                self.renew(hash, &key, record.version, Count::RefreshesHot);
            }
        }
    }
}
