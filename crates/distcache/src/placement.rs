//! The ring as this node has lived it: who owns a slot, and since when.
//!
//! Pure: views and time come in as arguments. The invariant: whatever was stored under an earlier owner of a slot can be told
//! from what was stored under the present one, also when the slot went away and came back in between.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::net::Moment;
use crate::partings::Life;
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

impl Placed {
    pub(crate) fn life(&self) -> Life {
        Life { id: self.member.id, incarnation: self.incarnation }
    }
}

#[derive(Clone, Copy)]
struct Slot {
    owner: u16,
    /// Index of the owner before this one among the former owners.
    former: u16,
    /// The view under which the slot got its present owner.
    since: u32,
    /// The same of the owner before.
    former_since: u32,
}

/// A ring, with the history of its slots as far as it matters.
pub(crate) struct Placement {
    ring: Ring,
    /// Sorted by id, like the ring's members.
    placed: Vec<Placed>,
    slots: Box<[Slot]>,
    /// Whoever was an owner in an earlier view.
    formers: Vec<NodeId>,
    seq: u32,
    /// When recent views began.
    began: Vec<(u32, Moment)>,
}

impl Placement {
    pub(crate) fn first(placed: Vec<Placed>, now: Moment) -> Self {
        let nothing = Self {
            ring: Ring::new([]),
            placed: Vec::new(),
            slots: vec![Slot { owner: NOBODY, former: NOBODY, since: 0, former_since: 0 }; SLOTS].into(),
            formers: Vec::new(),
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
        let mut formers = self.formers.clone();
        let index_of = |id: NodeId| placed.binary_search_by_key(&id, |placed| placed.member.id).ok();
        let slots = (0..=u16::MAX).zip(&self.slots).map(|(slot, before)| {
            let owner = ring.owner_of_slot(SlotNumber(slot)).and_then(index_of);
            let owner_before = self.placed.get(usize::from(before.owner));
            let index = owner.map_or(NOBODY, |index| index as u16);
            if owner.map(|index| placed[index].life()) == owner_before.map(Placed::life) {
                return Slot { owner: index, ..*before };
            }
            let former = owner_before.map_or(NOBODY, |owner| index_among(&mut formers, owner.member.id));
            Slot { owner: index, former, since: seq, former_since: before.since }
        });
        let slots = slots.collect();
        let mut began = self.began.clone();
        began.retain(|(_, at)| now.since(*at) <= LEASE_MAX * 2);
        began.push((seq, now));
        Self { ring, placed, slots, formers, seq, began }
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

    /// Who owned the slot before its present owner, and since which view.
    pub(crate) fn former(&self, hash: u64) -> Option<(NodeId, u32)> {
        let slot = self.slot(hash);
        let id = self.formers.get(usize::from(slot.former))?;
        Some((*id, slot.former_since))
    }

    /// The slots that passed from one node to another with view `since` or a later one, a bit each.
    pub(crate) fn passed(&self, from: NodeId, to: NodeId, since: u32) -> Vec<u8> {
        let is_it = |slot: &Slot| {
            let owner = self.placed.get(usize::from(slot.owner)).map(|placed| placed.member.id);
            slot.since >= since && owner == Some(to) && self.formers.get(usize::from(slot.former)) == Some(&from)
        };
        bits(self.slots.iter().map(is_it))
    }

    /// The slots of a node, a bit each.
    pub(crate) fn owned_by(&self, node: NodeId) -> Vec<u8> {
        let owner = |slot: &Slot| self.placed.get(usize::from(slot.owner)).map(|placed| placed.member.id);
        bits(self.slots.iter().map(|slot| owner(slot) == Some(node)))
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

/// Beyond so many former owners the earliest names are given up: they are asked for moments after a change only.
const FORMERS_MAX: usize = 8_192;

fn index_among(formers: &mut Vec<NodeId>, id: NodeId) -> u16 {
    let index = formers.iter().rposition(|former| *former == id).unwrap_or_else(|| {
        if formers.len() >= FORMERS_MAX {
            return usize::from(NOBODY);
        }
        formers.push(id);
        formers.len() - 1
    });
    index as u16
}

fn bits(flags: impl Iterator<Item = bool>) -> Vec<u8> {
    let mut bits = vec![0; SLOTS / 8];
    for (slot, _) in flags.enumerate().filter(|(_, is_set)| *is_set) {
        bits[slot / 8] |= 1 << (slot % 8);
    }
    bits
}

/// Whether the slot of a key is among `slots`, a bit each.
pub(crate) fn is_among(slots: &[u8], hash: u64) -> bool {
    let slot = usize::from(Ring::slot_of(hash).0);
    slots.get(slot / 8).is_some_and(|byte| byte & 1 << (slot % 8) != 0)
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
    fn the_owner_before_is_known_until_the_next_change_of_the_slot() {
        let alone = Placement::first(vec![node(1, 1)], Moment(0));
        let both = alone.next(vec![node(1, 1), node(2, 1)], Moment(10));
        let third = both.next(vec![node(1, 1), node(2, 1), node(3, 1)], Moment(20));
        let passed = both.passed(NodeId(1), NodeId(2), both.seq());
        assert!(third.passed(NodeId(1), NodeId(2), third.seq()).iter().all(|byte| *byte == 0), "not with this view");
        let lately = third.passed(NodeId(1), NodeId(2), both.seq());
        let is_part = lately.iter().zip(&passed).all(|(lately, passed)| lately & !passed == 0);
        assert!(
            is_part && lately.iter().any(|byte| *byte != 0),
            "but with one of the last two, where nobody owns them since"
        );
        for hash in hashes() {
            let expected = match (both.owner(hash), third.owner(hash)) {
                (before, Some(2)) => before.map(|index| (NodeId(index as u64 + 1), both.slot_since(hash))),
                (Some(1), _) => Some((NodeId(1), alone.seq())),
                _ => None,
            };
            assert_eq!(third.former(hash), expected);
            assert_eq!(is_among(&passed, hash), both.owner(hash) == Some(1));
            assert_eq!(is_among(&third.owned_by(NodeId(3)), hash), third.owner(hash) == Some(2));
        }
        assert!(!is_among(&[], 7));
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
