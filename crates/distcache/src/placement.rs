//! The ring as this node has lived it: who owns a slot, and since when.
//!
//! Pure: views and time come in as arguments. The invariant: whatever was stored under an earlier owner of a slot can be told
//! from what was stored under the present one, also when the slot went away and came back in between.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::net::Moment;
use crate::ring::{Member, NodeId, Ring, SLOTS, Slot as SlotNumber};

/// How far back changes are remembered, and so the longest lease.
pub(crate) const LEASE_MAX: Duration = Duration::from_secs(60);

/// The members of a view are limited to far fewer.
const NOBODY: u16 = u16::MAX;

/// One node of the view as placement sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) member: Member,
    /// A restarted node is a new owner: it no longer knows what it had promised.
    pub(crate) incarnation: u64,
}

#[derive(Clone, Copy)]
struct Slot {
    owner: u16,
    /// The view under which the slot got its present owner.
    since: u32,
}

/// A ring, with the history of its slots as far as it matters.
pub(crate) struct Placement {
    ring: Ring,
    /// Sorted by id, like the ring's members.
    placed: Vec<Placed>,
    slots: Box<[Slot]>,
    seq: u32,
    /// When recent views began.
    began: Vec<(u32, Moment)>,
}

impl Placement {
    pub(crate) fn first(placed: Vec<Placed>, now: Moment) -> Self {
        let nothing = Self {
            ring: Ring::new([]),
            placed: Vec::new(),
            slots: vec![Slot { owner: NOBODY, since: 0 }; SLOTS].into(),
            seq: 0,
            began: Vec::new(),
        };
        nothing.next(placed, now)
    }

    /// The placement of the next view.
    pub(crate) fn next(&self, mut placed: Vec<Placed>, now: Moment) -> Self {
        placed.sort_by_key(|placed| placed.member.id);
        placed.dedup_by_key(|placed| placed.member.id);
        let ring = self.ring.next(placed.iter().map(|placed| placed.member));
        let seq = self.seq + 1;
        let index_of = |id: NodeId| placed.binary_search_by_key(&id, |placed| placed.member.id).ok();
        let slots = (0..=u16::MAX).zip(&self.slots).map(|(slot, before)| {
            let owner = ring.owner_of_slot(SlotNumber(slot)).and_then(index_of);
            let owner_before = self.placed.get(usize::from(before.owner));
            let same = owner.map(|index| identity(&placed[index])) == owner_before.map(identity);
            let since = if same { before.since } else { seq };
            Slot { owner: owner.map_or(NOBODY, |index| index as u16), since }
        });
        let slots = slots.collect();
        let mut began = self.began.clone();
        began.retain(|(_, at)| now.since(*at) <= LEASE_MAX * 2);
        began.push((seq, now));
        Self { ring, placed, slots, seq, began }
    }

    #[inline]
    fn slot(&self, hash: u64) -> Slot {
        self.slots[usize::from(Ring::slot_of(hash).0)]
    }

    /// Index of the owner among [`placed`](Self::placed).
    #[inline]
    pub(crate) fn owner(&self, hash: u64) -> Option<usize> {
        match self.slot(hash).owner {
            NOBODY => None,
            owner => Some(owner as usize),
        }
    }

    /// What was stored under an earlier view than this one was stored under another owner of the slot.
    #[inline]
    pub(crate) fn slot_since(&self, hash: u64) -> u32 {
        self.slot(hash).since
    }

    /// Whether the slot changed hands so recently that leases of its earlier owner may still run.
    pub(crate) fn is_young(&self, hash: u64, now: Moment, lease: Duration) -> bool {
        let since = self.slot(hash).since;
        self.began.iter().any(|(seq, at)| *seq == since && now.since(*at) < lease)
    }

    pub(crate) fn seq(&self) -> u32 {
        self.seq
    }

    pub(crate) fn placed(&self) -> &[Placed] {
        &self.placed
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }
}

/// The part of a placement that a hit needs: readable slot by slot, without taking hold of the whole view.
///
/// One word a slot, as small as it can be: readers meet the slots in no order, and the table should stay in a core's cache.
pub(crate) struct Tenures(Box<[AtomicU32]>);

/// How this node stands to one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tenure {
    pub(crate) is_mine: bool,
    /// The view under which the slot got its present owner.
    pub(crate) since: u32,
}

impl Tenures {
    pub(crate) fn new() -> Self {
        Self((0..SLOTS).map(|_| AtomicU32::new(0)).collect())
    }

    #[inline]
    pub(crate) fn of(&self, hash: u64) -> Tenure {
        let packed = self.0[usize::from(Ring::slot_of(hash).0)].load(Ordering::Acquire);
        Tenure { is_mine: packed & 1 == 1, since: packed >> 1 }
    }

    pub(crate) fn publish(&self, placement: &Placement, me: NodeId) {
        let mine = placement.placed.iter().position(|placed| placed.member.id == me);
        for (tenure, slot) in self.0.iter().zip(&placement.slots) {
            let is_mine = mine == Some(usize::from(slot.owner));
            tenure.store(slot.since << 1 | u32::from(is_mine), Ordering::Release);
        }
    }
}

fn identity(placed: &Placed) -> (NodeId, u64) {
    (placed.member.id, placed.incarnation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, incarnation: u64) -> Placed {
        Placed { member: Member { id: NodeId(id), weight: 100 }, incarnation }
    }

    fn hashes() -> impl Iterator<Item = u64> {
        (0..1_000u64).map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()))
    }

    #[test]
    fn a_slot_that_left_and_came_back_does_not_admit_what_was_stored_before() {
        let alone = Placement::first(vec![node(1, 1)], Moment(0));
        let both = alone.next(vec![node(1, 1), node(2, 1)], Moment(10));
        let again = both.next(vec![node(1, 1)], Moment(20));
        let (mut moved, mut stayed) = (0, 0);
        for hash in hashes() {
            assert_eq!(again.owner(hash), Some(0));
            if both.owner(hash) == Some(0) {
                stayed += 1;
                assert_eq!(again.slot_since(hash), alone.seq());
            } else {
                moved += 1;
                assert_eq!(again.slot_since(hash), again.seq());
            }
        }
        assert!(moved > 300 && stayed > 300);
    }

    #[test]
    fn a_restarted_owner_is_a_new_owner() {
        let before = Placement::first(vec![node(1, 1), node(2, 1)], Moment(0));
        let after = before.next(vec![node(1, 1), node(2, 2)], Moment(10));
        for hash in hashes() {
            let since = if after.owner(hash) == Some(1) { after.seq() } else { before.seq() };
            assert_eq!(after.slot_since(hash), since);
        }
    }

    #[test]
    fn a_slot_is_young_for_one_lease_after_it_changed_hands() {
        let lease = Duration::from_millis(100);
        let before = Placement::first(vec![node(1, 1)], Moment(0));
        let after = before.next(vec![node(1, 1), node(2, 1)], Moment(1_000));
        for hash in hashes() {
            assert_eq!(after.is_young(hash, Moment(1_099), lease), after.owner(hash) == Some(1));
            assert!(!after.is_young(hash, Moment(1_100), lease));
        }
    }

    #[test]
    fn tenures_say_the_same_as_the_placement() {
        let placement = Placement::first(vec![node(1, 1)], Moment(0)).next(vec![node(1, 1), node(2, 1)], Moment(10));
        let tenures = Tenures::new();
        assert!(hashes().all(|hash| !tenures.of(hash).is_mine), "before the first view nothing is");
        tenures.publish(&placement, NodeId(2));
        for hash in hashes() {
            let expected = Tenure { is_mine: placement.owner(hash) == Some(1), since: placement.slot_since(hash) };
            assert_eq!(tenures.of(hash), expected);
        }
    }

    #[test]
    fn nobody_owns_anything_where_there_is_nobody() {
        assert!(hashes().all(|hash| Placement::first(Vec::new(), Moment(0)).owner(hash).is_none()));
    }
}
