//! Who holds which hot copy until when, and which keys deserve one.
//!
//! Pure: time comes in as an argument; sends nothing. Keys are known by their hash: two keys with one hash share their holders,
//! which costs an invalidation too many, never one too few. The invariant: every node that was answered is named by
//! [`Leases::holders`] until it has confirmed that it dropped the key or its lease has run out, unless all nodes must be told.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::net::Moment;
use crate::ring::NodeId;
use crate::store::Identity;

#[cfg(feature = "bench-internals")]
pub(crate) mod probe;

/// Beyond this many holders of one key it is cheaper to tell everybody.
const HOLDERS_PER_KEY_MAX: usize = 8;
const SHARDS: usize = 16;

type Table = HashMap<u64, Holders, BuildHasherDefault<Identity>>;

/// The leases that this node has given on the keys it owns.
pub(crate) struct Leases {
    shards: Box<[Mutex<Shard>]>,
    keys_per_shard_max: usize,
    registrations: AtomicU64,
}

/// A node that may hold a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) node: NodeId,
    pub(crate) until: Moment,
    /// Grows with each registration: tells whether the node has asked again since it was told of a write.
    pub(crate) registration: u64,
}

struct Shard {
    table: Table,
    /// Until then a key that is not in the table may have holders all the same: there was no room for them.
    overflowed_until: Moment,
    /// Runs out together with the last lease of the shard as it was then; a full shard is swept no earlier.
    swept_at: Option<Moment>,
}

struct Holders {
    nodes: Few,
    until: Moment,
}

/// Most keys have one holder, which needs no memory of its own.
enum Few {
    One(Holder),
    Nodes(Vec<Holder>),
    All,
}

impl Few {
    /// `None`: all.
    fn as_slice(&self) -> Option<&[Holder]> {
        match self {
            Self::One(holder) => Some(std::slice::from_ref(holder)),
            Self::Nodes(nodes) => Some(nodes),
            Self::All => None,
        }
    }
}

/// Who must be told that a key changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Nodes(Vec<Holder>),
    All,
}

impl Leases {
    pub(crate) fn new(keys_max: usize) -> Self {
        let keys_per_shard_max = keys_max.div_ceil(SHARDS).max(1);
        let shard = || Shard { table: Table::default(), overflowed_until: Moment(0), swept_at: None };
        let shards = (0..SHARDS).map(|_| Mutex::new(shard())).collect();
        Self { shards, keys_per_shard_max, registrations: AtomicU64::new(0) }
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        &self.shards[hash as usize % SHARDS]
    }

    /// Registers `node` as a holder from the arrival of its request on. `false`: no room, the answer must carry no lease.
    pub(crate) fn register(&self, hash: u64, node: NodeId, now: Moment, lease: Duration) -> bool {
        let until = now.after(lease);
        let mut shard = self.shard(hash).lock();
        if shard.table.len() >= self.keys_per_shard_max && !shard.table.contains_key(&hash) {
            shard.sweep(now, lease);
            if shard.table.len() >= self.keys_per_shard_max {
                shard.overflowed_until = shard.overflowed_until.max(until);
                return false;
            }
        }
        let holder = Holder { node, until, registration: self.registrations.fetch_add(1, Relaxed) };
        match shard.table.entry(hash) {
            Entry::Occupied(mut holders) => holders.get_mut().add(holder, now),
            Entry::Vacant(place) => {
                place.insert(Holders { nodes: Few::One(holder), until });
            }
        }
        true
    }

    /// The nodes whose leases on a key have not run out. They stay holders until they confirm.
    pub(crate) fn holders(&self, hash: u64, now: Moment) -> Held {
        let shard = self.shard(hash).lock();
        // Somebody found no room, and what it was answered may still be under way: also for a key that others found room for later.
        if shard.overflowed_until > now {
            return Held::All;
        }
        let holders = shard.table.get(&hash);
        match holders.map(|holders| holders.nodes.as_slice()) {
            Some(Some(nodes)) => Held::Nodes(nodes.iter().filter(|holder| holder.until > now).copied().collect()),
            Some(None) if holders.is_some_and(|holders| holders.until > now) => Held::All,
            _ => Held::Nodes(Vec::new()),
        }
    }

    /// A holder has dropped the key. It stays a holder if it asked again meanwhile, which a later registration shows; the end of
    /// its lease would not, since that of an answer that had to be loaded is the later one.
    pub(crate) fn confirm(&self, hash: u64, holder: Holder) {
        let mut shard = self.shard(hash).lock();
        let Some(holders) = shard.table.get_mut(&hash) else { return };
        let stays = |held: &Holder| held.node != holder.node || held.registration > holder.registration;
        let is_held = match &mut holders.nodes {
            Few::One(held) => stays(held),
            Few::Nodes(nodes) => {
                nodes.retain(stays);
                !nodes.is_empty()
            }
            Few::All => true,
        };
        if !is_held {
            shard.table.remove(&hash);
        }
    }

    /// Forgets what has run out.
    pub(crate) fn sweep(&self, now: Moment) {
        for shard in &self.shards {
            shard.lock().table.retain(|_, holders| holders.until > now);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().table.len()).sum()
    }
}

impl Shard {
    /// Makes room in a full shard, but not at every request that finds it full.
    fn sweep(&mut self, now: Moment, lease: Duration) {
        if self.swept_at.is_some_and(|at| now.since(at) < lease / 4) {
            return;
        }
        self.swept_at = Some(now);
        self.table.retain(|_, holders| holders.until > now);
    }
}

impl Holder {
    /// The node has asked again; what it was answered before may live longer.
    fn renew(&mut self, again: Self) {
        *self = Self { until: again.until.max(self.until), ..again };
    }
}

impl Holders {
    fn add(&mut self, holder: Holder, now: Moment) {
        self.until = self.until.max(holder.until);
        let nodes = match &mut self.nodes {
            Few::All => return,
            Few::One(held) if held.node == holder.node => return held.renew(holder),
            Few::One(held) if held.until <= now => return *held = holder,
            Few::One(held) => return self.nodes = Few::Nodes(vec![*held, holder]),
            Few::Nodes(nodes) => nodes,
        };
        if let Some(held) = nodes.iter_mut().find(|held| held.node == holder.node) {
            return held.renew(holder);
        }
        nodes.retain(|held| held.until > now);
        nodes.push(holder);
        if nodes.len() > HOLDERS_PER_KEY_MAX {
            self.nodes = Few::All;
        }
    }
}

/// Invalidations that holders could not be told, until they are reached again or their leases have run out.
pub(crate) struct Undelivered {
    table: Mutex<HashMap<NodeId, Missed>>,
    keys_per_node_max: usize,
}

/// What a node could not be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Missed {
    /// Hashes of keys, each with the end of the node's lease.
    pub(crate) keys: HashMap<u64, Moment>,
    /// There was no room for more keys: until then it may hold any.
    pub(crate) any_until: Option<Moment>,
}

impl Missed {
    /// Forgets what has run out; whether anything is left.
    fn sweep(&mut self, now: Moment) -> bool {
        self.keys.retain(|_, until| *until > now);
        self.any_until.take_if(|until| *until <= now);
        !self.keys.is_empty() || self.any_until.is_some()
    }
}

impl Undelivered {
    /// Of one node no more keys are remembered than leases may be out.
    pub(crate) fn new(keys_per_node_max: usize) -> Self {
        Self { table: Mutex::default(), keys_per_node_max }
    }

    /// `undelivered`: hashes of keys, each with the end of the node's lease.
    pub(crate) fn note(&self, node: NodeId, undelivered: impl Iterator<Item = (u64, Moment)>) {
        let mut table = self.table.lock();
        let missed = table.entry(node).or_default();
        for (hash, until) in undelivered {
            let has_room = missed.keys.len() < self.keys_per_node_max;
            match missed.keys.entry(hash) {
                Entry::Occupied(mut known) => *known.get_mut() = until.max(*known.get()),
                Entry::Vacant(place) if has_room => drop(place.insert(until)),
                Entry::Vacant(_) => missed.any_until = missed.any_until.max(Some(until)),
            }
        }
    }

    /// It may hold any key until then.
    pub(crate) fn note_any(&self, node: NodeId, until: Moment) {
        let mut table = self.table.lock();
        let missed = table.entry(node).or_default();
        missed.any_until = missed.any_until.max(Some(until));
    }

    /// What the node missed and may still hold.
    pub(crate) fn take(&self, node: NodeId, now: Moment) -> Option<Missed> {
        let mut missed = self.table.lock().remove(&node)?;
        missed.sweep(now).then_some(missed)
    }

    /// Forgets what has run out.
    pub(crate) fn sweep(&self, now: Moment) {
        self.table.lock().retain(|_, missed| missed.sweep(now));
    }
}

/// Which keys of other nodes are read often enough to be worth a copy: those fetched twice within one window.
///
/// A fixed table of sightings, a few places to a key; in a full row a key may be forgotten, which only delays its copy.
pub(crate) struct Sightings(Box<[Row]>);

type Row = [AtomicU32; PLACES];

const ROWS: usize = 2048;
const PLACES: usize = 4;
const WINDOW_BITS: u32 = 8;
const WINDOW_MASK: u32 = (1 << WINDOW_BITS) - 1;

impl Sightings {
    pub(crate) fn new() -> Self {
        Self((0..ROWS).map(|_| Row::default()).collect())
    }

    /// Notes a fetch; whether the key was fetched before within the present window or the last one.
    pub(crate) fn seen_before(&self, hash: u64, now: Moment, window: Duration) -> bool {
        let number = (now.0 / (window.as_millis().max(1) as u64)) as u32;
        let is_recent = |seen: u32| {
            let age = number.wrapping_sub(seen) & WINDOW_MASK;
            seen != 0 && age <= 1
        };
        let tag = ((hash >> 32) as u32 | 1) << WINDOW_BITS;
        let row = &self.0[hash as usize % ROWS];
        let place_of = |wanted: &dyn Fn(u32) -> bool| row.iter().position(|place| wanted(place.load(Relaxed)));
        let own = place_of(&|seen| seen & !WINDOW_MASK == tag);
        let place = own.or_else(|| place_of(&|seen| !is_recent(seen))).unwrap_or((hash >> 20) as usize % PLACES);
        let before = row[place].swap(tag | number & WINDOW_MASK, Relaxed);
        before & !WINDOW_MASK == tag && is_recent(before)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_millis(100);

    fn named(leases: &Leases, hash: u64, now: u64) -> Vec<u64> {
        match leases.holders(hash, Moment(now)) {
            Held::Nodes(nodes) => nodes.into_iter().map(|holder| holder.node.0).collect(),
            Held::All => panic!("all"),
        }
    }

    fn holder(leases: &Leases, hash: u64, node: u64, now: u64) -> Holder {
        let Held::Nodes(nodes) = leases.holders(hash, Moment(now)) else { panic!("all") };
        nodes.into_iter().find(|holder| holder.node.0 == node).expect("it is a holder")
    }

    #[test]
    fn holders_are_named_until_they_confirm_or_their_lease_runs_out() {
        let leases = Leases::new(1_000);
        assert!(leases.register(7, NodeId(1), Moment(0), LEASE));
        assert!(leases.register(7, NodeId(2), Moment(50), LEASE));
        assert_eq!(named(&leases, 7, 99), [1, 2]);
        assert_eq!(named(&leases, 7, 100), [2]);
        assert_eq!(named(&leases, 7, 100), [2], "named again until it confirms");
        leases.confirm(7, holder(&leases, 7, 2, 100));
        assert_eq!(named(&leases, 7, 100), [0; 0]);
    }

    #[test]
    fn a_confirmation_does_not_end_a_lease_given_meanwhile() {
        let leases = Leases::new(1_000);
        // The first answer had to be loaded, and was given a lease that ends later.
        leases.register(7, NodeId(1), Moment(0), LEASE * 3);
        let told = holder(&leases, 7, 1, 5);
        leases.register(7, NodeId(1), Moment(10), LEASE);
        leases.confirm(7, told);
        assert_eq!(named(&leases, 7, 50), [1]);
    }

    #[test]
    fn a_renewed_lease_counts_from_the_last_arrival() {
        let leases = Leases::new(1_000);
        leases.register(7, NodeId(1), Moment(0), LEASE);
        leases.register(7, NodeId(1), Moment(90), LEASE);
        assert_eq!(named(&leases, 7, 189), [1]);
    }

    #[test]
    fn more_than_a_few_holders_mean_everybody() {
        let leases = Leases::new(1_000);
        for id in 0..=HOLDERS_PER_KEY_MAX as u64 {
            leases.register(7, NodeId(id), Moment(0), LEASE);
        }
        assert_eq!(leases.holders(7, Moment(99)), Held::All);
        assert_eq!(named(&leases, 7, 100), [0; 0]);
    }

    #[test]
    fn a_full_table_gives_no_lease_and_names_everybody_until_it_can_name_again() {
        let leases = Leases::new(SHARDS);
        let other = SHARDS as u64;
        assert!(leases.register(0, NodeId(1), Moment(0), LEASE));
        assert!(!leases.register(other, NodeId(1), Moment(10), LEASE));
        assert_eq!(leases.holders(other, Moment(109)), Held::All, "what was answered without a lease is on its way");
        assert_eq!(named(&leases, other, 110), [0; 0]);
        assert!(leases.register(0, NodeId(2), Moment(10), LEASE), "a key that is in the table keeps its place");
        assert!(leases.register(other, NodeId(1), Moment(200), LEASE));
        assert_eq!(leases.len(), 1);
    }

    /// Its answer may be under way while the key is somebody else's place in the table.
    #[test]
    fn who_found_no_room_is_told_also_where_another_finds_it_later() {
        let leases = Leases::new(SHARDS);
        let other = SHARDS as u64;
        leases.register(0, NodeId(1), Moment(0), LEASE);
        assert!(!leases.register(other, NodeId(1), Moment(90), LEASE));
        leases.sweep(Moment(110));
        assert!(leases.register(other, NodeId(2), Moment(110), LEASE));
        assert_eq!(leases.holders(other, Moment(189)), Held::All);
        assert_eq!(named(&leases, other, 190), [2]);
    }

    #[test]
    fn what_there_is_no_room_for_is_missed_all_the_same() {
        let undelivered = Undelivered::new(2);
        undelivered.note(NodeId(1), [(7, Moment(20)), (7, Moment(10)), (8, Moment(30))].into_iter());
        let keys = HashMap::from([(7, Moment(20)), (8, Moment(30))]);
        assert_eq!(undelivered.take(NodeId(1), Moment(0)), Some(Missed { keys, any_until: None }));
        assert_eq!(undelivered.take(NodeId(1), Moment(0)), None);
        undelivered.note(NodeId(1), [(7, Moment(20)), (8, Moment(30)), (9, Moment(40))].into_iter());
        undelivered.sweep(Moment(30));
        let any = Missed { any_until: Some(Moment(40)), ..Missed::default() };
        assert_eq!(undelivered.take(NodeId(1), Moment(30)), Some(any));
    }

    proptest! {
        /// Whatever the order of registrations and confirmations, nobody who may hold the key is left out.
        #[test]
        fn every_running_lease_that_was_not_confirmed_is_named(
            acts in prop::collection::vec((0u64..20, 0u64..400, any::<bool>()), 0..60), at in 0u64..500,
        ) {
            let leases = Leases::new(1_000);
            let mut acts: Vec<_> = acts.into_iter().filter(|(_, time, _)| *time <= at).collect();
            acts.sort_by_key(|(_, time, _)| *time);
            let mut running = HashMap::new();
            for (node, time, confirms) in acts {
                let until = Moment(time).after(LEASE);
                if !confirms {
                    leases.register(7, NodeId(node), Moment(time), LEASE);
                    running.insert(node, until);
                } else if let (Some(_), Held::Nodes(held)) = (running.remove(&node), leases.holders(7, Moment(time))) {
                    held.into_iter().filter(|holder| holder.node.0 == node).for_each(|holder| leases.confirm(7, holder));
                }
            }
            if let Held::Nodes(held) = leases.holders(7, Moment(at)) {
                for (node, until) in running {
                    let named = held.iter().any(|holder| holder.node.0 == node);
                    prop_assert!(until <= Moment(at) || named, "node {node} left out");
                }
            }
        }
    }

    #[test]
    fn a_key_is_worth_a_copy_from_its_second_fetch_within_the_window() {
        let sightings = Sightings::new();
        let seen = |now| sightings.seen_before(0xABCD_0000_1234, Moment(now), LEASE);
        assert!(!seen(1_000));
        assert!(seen(1_050));
        assert!(seen(1_150));
        assert!(!seen(1_450));
        assert!(!sightings.seen_before(0x1111_0000_1234, Moment(1_460), LEASE), "another key in the same row");
        assert!(sightings.seen_before(0xABCD_0000_1234, Moment(1_470), LEASE), "does not push the first one out");
    }
}
