//! The slot table: who owns a key, given who is in the view.
//!
//! The hash space is cut into `2^SLOT_BITS` slots and every slot has one owner. The table is a pure
//! function of the set of members: this file knows no sockets, no clock, no randomness, and not
//! what a key or a node's address is.
//!
//! Invariant: the same set of members gives the same table on every platform and by every route
//! ([`Ring::new`], or any chain of [`Ring::next`]), so two nodes with equal [`ViewId`]s never
//! disagree about an owner. Hence integers only: the last digit of a floating-point logarithm
//! depends on the platform.
//!
//! How a slot finds its owner, each step with the source of its algorithm:
//! - `ring/score.rs`: what a member costs a slot, by weighted rendezvous hashing;
//! - `ring/ranking.rs`: the best few members for each slot, kept from one view to the next;
//! - `ring/matching.rs`: who gets the slot, now that no member may take more than its bound.

mod matching;
mod ranking;
mod score;

use xxhash_rust::xxh3::xxh3_64;

use matching::{Matching, SLACK_PPM, bounds};
use ranking::{Change, Row, rank};
use score::{Scorer, scorers};

/// Bits of a key's hash that name its slot.
pub const SLOT_BITS: u32 = 16;

/// Number of slots in every table.
pub const SLOTS: usize = 1 << SLOT_BITS;

/// Most members a ring places, because a table cell is a `u16`. Of a larger set, those with the
/// greatest ids own nothing.
pub const MEMBERS_MAX: usize = NOBODY as usize;

/// The table cell of a slot that has no owner.
const NOBODY: u16 = u16::MAX;

/// Raised whenever the same members would be placed differently, so that two versions of this file
/// see that they disagree.
const PLACEMENT_VERSION: u64 = 1;

/// Stable identity of a node for placement: a hash of its name, so that it survives restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The identity of the node of this name.
    pub fn of(name: &str) -> NodeId {
        NodeId(xxh3_64(name.as_bytes()))
    }
}

/// A node as placement sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Who it is.
    pub id: NodeId,
    /// Its share relative to the others: 100 is normal, 0 owns nothing (draining).
    pub weight: u16,
}

/// One of the [`SLOTS`] parts of the hash space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// Fingerprint of a view: equal exactly when the same members are placed with the same weights by
/// the same rules, but for collisions of a 64-bit hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId(pub u64);

/// A slot whose owner differs between two rings.
#[cfg(any(test, feature = "bench-internals"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Move {
    /// The slot that changes hands.
    pub slot: Slot,
    /// Its owner in the earlier ring.
    pub from: Option<NodeId>,
    /// Its owner in the later ring.
    pub to: Option<NodeId>,
}

/// The slot table of one view, with what is needed to derive the next view's table cheaply.
///
/// It takes 1.2 MB, and 36 bytes a member.
#[derive(Clone, Debug)]
pub struct Ring {
    members: Box<[Member]>,
    /// The members with a weight; everything below names a member by its index in here.
    placed: Box<[Member]>,
    ranking: Box<[Row]>,
    owners: Box<[u16; SLOTS]>,
    owned: Box<[u32]>,
    fingerprint: ViewId,
}

impl Ring {
    /// Computes the table of a set of members; the order of the input does not matter.
    ///
    /// Of several entries with one id the least weight counts, so that a stale copy cannot undo a
    /// drain. The time is in proportion to the number of members (0.3 s for a thousand); where an
    /// earlier ring is at hand, [`Ring::next`] is far cheaper.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Ring {
        let members = canonical(members);
        let placed = with_weight(&members);
        let scorers = scorers(&placed);
        let ranking = slots().map(|slot| rank(&scorers, slot, None)).collect();
        Ring::settle(members, placed, &scorers, ranking)
    }

    /// Computes the same ring as `Ring::new(members)`, reusing this ring's rankings: a newcomer is
    /// compared with each slot's candidates, and only slots that lost a candidate are ranked anew.
    ///
    /// A change of one member among a thousand takes a few milliseconds. However much changes, it
    /// takes little longer than `Ring::new`.
    pub fn next(&self, members: impl IntoIterator<Item = Member>) -> Ring {
        let members = canonical(members);
        let placed = with_weight(&members);
        let scorers = scorers(&placed);
        let change = Change::between(&self.placed, &placed);
        let ranking = slots().zip(&self.ranking).map(|(slot, row)| change.apply(&scorers, slot, row)).collect();
        Ring::settle(members, placed, &scorers, ranking)
    }

    fn settle(members: Box<[Member]>, placed: Box<[Member]>, scorers: &[Scorer], ranking: Box<[Row]>) -> Ring {
        let held = Matching::new(scorers, &ranking, bounds(&placed)).run();
        let mut owners = Box::new([NOBODY; SLOTS]);
        for (claims, index) in held.iter().zip(0..) {
            for &(_, slot) in claims {
                owners[usize::from(slot)] = index;
            }
        }
        Ring {
            fingerprint: fingerprint(&placed),
            owned: held.iter().map(|claims| claims.len() as u32).collect(),
            members,
            placed,
            ranking,
            owners,
        }
    }

    /// Owner of a key, by the key's hash; `None` when no member has a weight.
    #[cfg(any(test, feature = "bench-internals"))]
    #[inline]
    pub fn owner(&self, hash: u64) -> Option<NodeId> {
        self.owner_of_slot(Ring::slot_of(hash))
    }

    /// Owner of a slot; `None` when no member has a weight.
    #[inline]
    pub fn owner_of_slot(&self, slot: Slot) -> Option<NodeId> {
        let index = usize::from(self.owners[usize::from(slot.0)]);
        self.placed.get(index).map(|member| member.id)
    }

    /// Slot of a key, by the key's hash: the hash's leading [`SLOT_BITS`] bits.
    #[inline]
    pub fn slot_of(hash: u64) -> Slot {
        Slot((hash >> (u64::BITS - SLOT_BITS)) as u16)
    }

    /// Fingerprint of the view: rings with equal fingerprints have equal tables. Members without
    /// weight do not count, so the departure of a drained node does not change it.
    pub fn fingerprint(&self) -> ViewId {
        self.fingerprint
    }

    /// All members, those without weight included, in the order of their ids.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Number of slots that a member owns; 0 for a stranger.
    pub fn slots_owned(&self, id: NodeId) -> u32 {
        let found = self.placed.binary_search_by_key(&id, |member| member.id);
        found.map_or(0, |index| self.owned[index])
    }

    /// Number of slots that have another owner in `later`.
    #[cfg(any(test, feature = "bench-internals"))]
    pub fn moved(&self, later: &Ring) -> u32 {
        self.moves(later).count() as u32
    }

    /// The slots that have another owner in `later`, in the order of the slots.
    #[cfg(any(test, feature = "bench-internals"))]
    pub fn moves(&self, later: &Ring) -> impl Iterator<Item = Move> {
        slots()
            .map(|slot| Move { slot, from: self.owner_of_slot(slot), to: later.owner_of_slot(slot) })
            .filter(|step| step.from != step.to)
    }
}

fn slots() -> impl Iterator<Item = Slot> {
    (0..=u16::MAX).map(Slot)
}

fn canonical(members: impl IntoIterator<Item = Member>) -> Box<[Member]> {
    let mut members: Vec<Member> = members.into_iter().collect();
    members.sort_unstable();
    members.dedup_by_key(|member| member.id);
    members.into_boxed_slice()
}

fn with_weight(members: &[Member]) -> Box<[Member]> {
    let weighty = members.iter().filter(|member| member.weight > 0);
    weighty.take(MEMBERS_MAX).copied().collect()
}

fn fingerprint(placed: &[Member]) -> ViewId {
    let parameters = [PLACEMENT_VERSION, u64::from(SLOT_BITS), SLACK_PPM];
    let mut bytes = Vec::with_capacity(parameters.len() * 8 + placed.len() * 10);
    for parameter in parameters {
        bytes.extend_from_slice(&parameter.to_le_bytes());
    }
    for member in placed {
        bytes.extend_from_slice(&member.id.0.to_le_bytes());
        bytes.extend_from_slice(&member.weight.to_le_bytes());
    }
    ViewId(xxh3_64(&bytes))
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_64_with_seed;

    use super::*;

    /// A set of members that a seed stands for.
    #[derive(Clone, Copy, Debug)]
    struct Cast {
        seed: u64,
        sequential: bool,
        weighted: bool,
    }

    impl Cast {
        fn draw(self, number: u64) -> u64 {
            xxh3_64_with_seed(&number.to_le_bytes(), self.seed)
        }

        fn member(self, number: u64) -> Member {
            let draw = self.draw(number);
            Member {
                id: NodeId(if self.sequential { number } else { draw }),
                weight: if self.weighted { 50 + (draw % 151) as u16 } else { 100 },
            }
        }

        fn members(self, numbers: RangeInclusive<u64>) -> Vec<Member> {
            numbers.map(|number| self.member(number)).collect()
        }
    }

    fn casts() -> impl Strategy<Value = Cast> {
        let parts = (any::<u64>(), any::<bool>(), any::<bool>());
        parts.prop_map(|(seed, sequential, weighted)| Cast { seed, sequential, weighted })
    }

    /// A failure prints its input, seed and all; there is no need for a file of them.
    fn cases(cases: u32) -> ProptestConfig {
        ProptestConfig { cases, max_shrink_iters: 50, failure_persistence: None, ..Default::default() }
    }

    fn assert_same(found: &Ring, expected: &Ring) {
        assert_eq!(found.fingerprint, expected.fingerprint);
        assert_eq!(found.members, expected.members);
        assert_eq!(found.placed, expected.placed);
        assert_eq!(found.owned, expected.owned);
        assert!(found.ranking == expected.ranking, "rankings differ");
        assert!(found.owners == expected.owners, "owners differ");
    }

    fn assert_balanced(ring: &Ring) {
        let total: f64 = ring.placed.iter().map(|member| f64::from(member.weight)).sum();
        let mut owned = 0;
        for member in ring.members() {
            let fair = SLOTS as f64 * f64::from(member.weight) / total;
            let share = ring.slots_owned(member.id);
            assert!(f64::from(share) <= (fair * 1.05).max(fair.ceil()), "{member:?}: {share} of {fair}");
            owned += share as usize;
        }
        assert_eq!(owned, SLOTS);
    }

    fn assert_moves_little(before: &Ring, after: &Ring, share: u32) {
        let moved = before.moved(after);
        assert!(moved >= share);
        assert!(f64::from(moved) <= f64::from(share) * 1.25, "{moved} moved for {share}");
    }

    /// Ids 1 to 4, unlike weights: what any node on any platform must make of them.
    #[test]
    fn the_table_is_the_one_that_was_released() {
        let members = [(1, 100), (2, 50), (3, 200), (4, 100)];
        let ring = Ring::new(members.map(|(id, weight)| Member { id: NodeId(id), weight }));
        let table: Vec<u8> = ring.owners.iter().map(|&index| index as u8).collect();
        assert_eq!(ring.fingerprint(), ViewId(7_775_067_664_066_612_057));
        assert_eq!(xxh3_64(&table), 5_827_846_471_039_351_772);
    }

    #[test]
    fn nobody_owns_the_slots_of_an_empty_ring() {
        let draining = Member { id: NodeId(7), weight: 0 };
        for members in [vec![], vec![draining]] {
            let ring = Ring::new(members.iter().copied());
            assert_eq!(ring.owner(0), None);
            assert_eq!(ring.owner(u64::MAX), None);
            assert_eq!(ring.slots_owned(draining.id), 0);
            assert_eq!(ring.members(), members);
        }
    }

    #[test]
    fn the_only_member_owns_everything() {
        let only = Member { id: NodeId(7), weight: 1 };
        let (empty, ring) = (Ring::new([]), Ring::new([only]));
        assert!(slots().all(|slot| ring.owner_of_slot(slot) == Some(only.id)));
        assert_eq!(ring.slots_owned(only.id) as usize, SLOTS);
        assert_eq!(empty.moved(&ring) as usize, SLOTS);
        assert_same(&ring.next([]), &empty);
    }

    #[test]
    fn a_key_falls_into_the_slot_of_its_leading_bits() {
        assert_eq!(Ring::slot_of(0), Slot(0));
        assert_eq!(Ring::slot_of(0x1234_5678_9abc_def0), Slot(0x1234));
        assert_eq!(Ring::slot_of(u64::MAX), Slot(u16::MAX));
    }

    #[test]
    fn order_and_duplicates_do_not_matter() {
        let cast = Cast { seed: 1, sequential: false, weighted: true };
        let members = cast.members(1..=20);
        let ring = Ring::new(members.iter().copied());
        let drained = |member: &Member| Member { weight: 0, ..*member };
        let repeated = members.iter().rev().chain(&members).copied();
        assert_same(&Ring::new(repeated.clone()), &ring);
        let without_first = Ring::new(repeated.chain([drained(&members[0])]));
        assert_same(&without_first, &Ring::new(members[1..].iter().copied().chain([drained(&members[0])])));
    }

    #[test]
    fn a_drained_member_owns_nothing_and_its_departure_changes_nothing() {
        let cast = Cast { seed: 2, sequential: true, weighted: false };
        let ring = Ring::new(cast.members(1..=5));
        let mut members = cast.members(1..=5);
        members[2].weight = 0;
        let drained = ring.next(members.iter().copied());
        assert_eq!(drained.slots_owned(NodeId(3)), 0);
        assert_eq!(drained.members().len(), 5);
        assert_ne!(drained.fingerprint(), ring.fingerprint());
        members.remove(2);
        let gone = drained.next(members);
        assert_eq!(gone.fingerprint(), drained.fingerprint());
        assert_eq!(gone.moved(&drained), 0);
    }

    #[test]
    fn a_member_beyond_the_most_owns_nothing() {
        let members: Vec<Member> = (0..70_000).map(|id| Member { id: NodeId(id), weight: 1 }).collect();
        assert_eq!(*with_weight(&members), members[..MEMBERS_MAX]);
    }

    #[test]
    fn in_a_small_ring_slots_move_only_to_the_newcomer() {
        let cast = Cast { seed: 3, sequential: true, weighted: false };
        let mut ring = Ring::new(cast.members(1..=2));
        for count in 3..=8 {
            let after = ring.next(cast.members(1..=count));
            let newcomer = Some(NodeId(count));
            assert!(ring.moves(&after).all(|step| step.to == newcomer && step.from != newcomer));
            assert_eq!(ring.moved(&after), after.slots_owned(NodeId(count)));
            ring = after;
        }
    }

    proptest! {
        #![proptest_config(cases(6))]

        #[test]
        fn members_are_balanced_and_changes_move_little(
            cast in casts(),
            count in 3u64..200,
            leaver in any::<prop::sample::Index>(),
        ) {
            let ring = Ring::new(cast.members(1..=count));
            let joined = ring.next(cast.members(1..=count + 1));
            let newcomer = cast.member(count + 1);
            assert_moves_little(&ring, &joined, joined.slots_owned(newcomer.id));

            let leaver = ring.members()[leaver.index(ring.members().len())];
            let left = ring.next(ring.members().iter().copied().filter(|&member| member != leaver));
            assert_moves_little(&ring, &left, ring.slots_owned(leaver.id));

            for ring in [left, ring, joined] {
                assert_balanced(&ring);
            }
        }
    }

    /// Members by number, with a weight for those that are there.
    fn views() -> impl Strategy<Value = Vec<Vec<(u64, u16)>>> {
        let weight = prop_oneof![3 => Just(100u16), 1 => Just(0), 2 => 50u16..200, 1 => any::<u16>()];
        let change = prop::collection::vec((0u64..40, prop::option::of(weight)), 1..6);
        prop::collection::vec(change, 1..8).prop_map(|changes| {
            let mut view = std::collections::BTreeMap::new();
            let mut after = |change: Vec<(u64, Option<u16>)>| {
                for (number, weight) in change {
                    match weight {
                        Some(weight) => view.insert(number, weight),
                        None => view.remove(&number),
                    };
                }
                view.clone().into_iter().collect()
            };
            changes.into_iter().map(&mut after).collect()
        })
    }

    proptest! {
        #![proptest_config(cases(6))]

        #[test]
        fn next_is_new(cast in casts(), views in views()) {
            let mut ring = Ring::new([]);
            for view in views {
                let member = |(number, weight)| Member { weight, ..cast.member(number) };
                let members: Vec<Member> = view.into_iter().map(member).collect();
                ring = ring.next(members.iter().copied());
                assert_same(&ring, &Ring::new(members));
            }
        }
    }
}
