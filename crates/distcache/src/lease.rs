//! Who holds which hot copy until when, and which keys deserve one.
//!
//! Pure: time comes in as an argument; sends nothing. Keys are known by their hash: two keys with one hash share their holders,
//! which costs an invalidation too many, never one too few. The invariant: every node that was told it may keep a copy is
//! named by [`Leases::revoke`] until its lease has run out, unless `revoke` says that all nodes must be told.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::net::Moment;
use crate::ring::NodeId;
use crate::store::Identity;

/// Beyond this many holders of one key it is cheaper to tell everybody.
const HOLDERS_PER_KEY_MAX: usize = 8;
const SHARDS: usize = 16;

type Table = HashMap<u64, Holders, BuildHasherDefault<Identity>>;

/// The leases that this node has given on the keys it owns.
pub(crate) struct Leases {
    shards: Box<[Mutex<Shard>]>,
    keys_per_shard_max: usize,
}

#[derive(Default)]
struct Shard {
    table: Table,
    /// Runs out together with the last lease of the shard as it was then; a full shard is swept no earlier.
    swept_at: Option<Moment>,
}

struct Holders {
    nodes: Few,
    until: Moment,
}

enum Few {
    Nodes(Vec<(NodeId, Moment)>),
    All,
}

/// Who must be told that a key changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Revoked {
    Nodes(Vec<NodeId>),
    All,
}

impl Leases {
    pub(crate) fn new(keys_max: usize) -> Self {
        let keys_per_shard_max = keys_max.div_ceil(SHARDS).max(1);
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), keys_per_shard_max }
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
                return false;
            }
        }
        let holders = shard.table.entry(hash).or_insert(Holders { nodes: Few::Nodes(Vec::new()), until });
        holders.add(node, now, until);
        true
    }

    /// Ends all leases on a key and names the nodes whose leases had not run out.
    pub(crate) fn revoke(&self, hash: u64, now: Moment) -> Revoked {
        match self.shard(hash).lock().table.remove(&hash) {
            Some(Holders { nodes: Few::All, until }) if until > now => Revoked::All,
            Some(Holders { nodes: Few::Nodes(nodes), .. }) => {
                Revoked::Nodes(nodes.into_iter().filter(|(_, until)| *until > now).map(|(node, _)| node).collect())
            }
            _ => Revoked::Nodes(Vec::new()),
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

impl Holders {
    fn add(&mut self, node: NodeId, now: Moment, until: Moment) {
        self.until = self.until.max(until);
        let Few::Nodes(nodes) = &mut self.nodes else { return };
        if let Some((_, held)) = nodes.iter_mut().find(|(holder, _)| *holder == node) {
            *held = until.max(*held);
            return;
        }
        nodes.retain(|(_, until)| *until > now);
        nodes.push((node, until));
        if nodes.len() > HOLDERS_PER_KEY_MAX {
            self.nodes = Few::All;
        }
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

    fn nodes(ids: &[u64]) -> Revoked {
        Revoked::Nodes(ids.iter().map(|id| NodeId(*id)).collect())
    }

    #[test]
    fn holders_are_named_until_their_lease_runs_out() {
        let leases = Leases::new(1_000);
        assert!(leases.register(7, NodeId(1), Moment(0), LEASE));
        assert!(leases.register(7, NodeId(2), Moment(50), LEASE));
        assert_eq!(leases.revoke(7, Moment(100)), nodes(&[2]));
        assert_eq!(leases.revoke(7, Moment(100)), nodes(&[]), "revoked is revoked");
    }

    #[test]
    fn a_renewed_lease_counts_from_the_last_arrival() {
        let leases = Leases::new(1_000);
        leases.register(7, NodeId(1), Moment(0), LEASE);
        leases.register(7, NodeId(1), Moment(90), LEASE);
        assert_eq!(leases.revoke(7, Moment(189)), nodes(&[1]));
    }

    #[test]
    fn more_than_a_few_holders_mean_everybody() {
        let leases = Leases::new(1_000);
        for id in 0..=HOLDERS_PER_KEY_MAX as u64 {
            leases.register(7, NodeId(id), Moment(0), LEASE);
        }
        assert_eq!(leases.revoke(7, Moment(99)), Revoked::All);
    }

    #[test]
    fn a_full_table_gives_no_lease_until_others_run_out() {
        let leases = Leases::new(SHARDS);
        assert!(leases.register(0, NodeId(1), Moment(0), LEASE));
        assert!(!leases.register(SHARDS as u64, NodeId(1), Moment(10), LEASE));
        assert!(leases.register(0, NodeId(2), Moment(10), LEASE), "a key that is in the table keeps its place");
        assert!(leases.register(SHARDS as u64, NodeId(1), Moment(200), LEASE));
        assert_eq!(leases.len(), 1);
    }

    proptest! {
        /// Whatever the order of registrations, nobody whose lease still runs is left out.
        #[test]
        fn revoke_names_every_running_lease(
            arrivals in prop::collection::vec((0u64..20, 0u64..400), 0..60), at in 0u64..500,
        ) {
            let leases = Leases::new(1_000);
            let mut arrivals: Vec<_> = arrivals.into_iter().filter(|(_, arrival)| *arrival <= at).collect();
            arrivals.sort_by_key(|(_, arrival)| *arrival);
            for (node, arrival) in &arrivals {
                leases.register(7, NodeId(*node), Moment(*arrival), LEASE);
            }
            match leases.revoke(7, Moment(at)) {
                Revoked::All => {}
                Revoked::Nodes(named) => for (node, arrival) in arrivals {
                    let runs = Moment(arrival).after(LEASE) > Moment(at);
                    prop_assert!(!runs || named.contains(&NodeId(node)), "node {node} left out");
                },
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
