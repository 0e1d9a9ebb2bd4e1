//! Who gets which slot, when no member may take more than its bound.
//!
//! Bounded loads: Mirrokni, Thorup & Zadimoghaddam, "Consistent hashing with bounded loads", 2016.
//! Who is turned away is settled by deferred acceptance: Gale & Shapley, "College admissions and
//! the stability of marriage", 1962.
//!
//! This file does not know ids, nor where costs come from. Invariant: every slot is held once, no
//! member is over its bound, and the matching is stable (no slot and member both prefer each other
//! to what they have). It is the same in whatever order the slots ask, and a change of one member
//! sets off one short chain of moves for each slot that it gives or takes.

use std::collections::{BinaryHeap, HashMap};

use super::ranking::{RANKED, Row, rank};
use super::score::{Cost, Scorer};
use super::{Member, SLOTS, Slot, slots};

/// How far a member may be above its weighted fair share, in millionths, in a ring of up to
/// `SLACK_MEMBERS` members.
pub(super) const SLACK_PPM: u64 = 50_000;
const SLACK_MEMBERS: usize = 200;

/// The slots that a member holds, the costliest on top: it is the one to give way.
pub(super) type Claims = BinaryHeap<(Cost, u16)>;

/// Most slots that each member may hold.
///
/// It falls as members join, in step with what a newcomer takes from each of them: under a fixed
/// bound, every full member that lost a slot would call one back. The slack stays in proportion to
/// the spread of natural loads, which grows with the square root of the number of members: under a
/// fixed slack most members of a large ring would be full, and nearly every move cause another.
pub(super) fn bounds(placed: &[Member]) -> Vec<usize> {
    const ONE: u64 = 1_000_000;
    let crowd = placed.len().max(SLACK_MEMBERS) as u64;
    let limit = ONE + (SLACK_PPM.pow(2) * crowd / SLACK_MEMBERS as u64).isqrt();
    let weights = placed.iter().map(|member| u64::from(member.weight));
    let total: u64 = weights.clone().sum();
    let bound = |weight: u64| {
        let fair = SLOTS as u64 * weight;
        let slack = if placed.len() <= SLACK_MEMBERS {
            fair * limit / (total * ONE)
        } else {
            // Few slots to a member: what rounding down takes away would have to move.
            (fair * limit).div_ceil(total * ONE)
        };
        // A whole slot may be more than the slack; then the next whole slot is the bound, or there would be slots left over.
        slack.max(fair.div_ceil(total)) as usize
    };
    weights.map(bound).collect()
}

/// Deferred acceptance: slots ask members in the order of their ranking, and a member over its
/// bound turns its costliest slot away.
pub(super) struct Matching<'a> {
    scorers: &'a [Scorer],
    ranking: &'a [Row],
    bounds: Vec<usize>,
    held: Vec<Claims>,
    /// How many members each slot has asked.
    asked: Box<[u16]>,
    /// The next candidates of slots that have asked all of their row.
    further: HashMap<u16, Row>,
}

impl<'a> Matching<'a> {
    /// The bounds must sum to at least `SLOTS`.
    pub(super) fn new(scorers: &'a [Scorer], ranking: &'a [Row], bounds: Vec<usize>) -> Matching<'a> {
        Matching {
            scorers,
            ranking,
            bounds,
            held: scorers.iter().map(|_| Claims::new()).collect(),
            asked: vec![0; SLOTS].into(),
            further: HashMap::new(),
        }
    }

    pub(super) fn run(mut self) -> Vec<Claims> {
        for slot in slots() {
            let mut seeker = Some(slot);
            while let Some(slot) = seeker {
                seeker = self.ask(slot);
            }
        }
        self.held
    }

    /// Lets a slot ask the next member of its ranking, and returns the slot that this turns away.
    /// There is room for every slot, so none is turned away by all.
    fn ask(&mut self, slot: Slot) -> Option<Slot> {
        let index = usize::from(self.candidate(slot));
        let cost = self.scorers.get(index)?.cost(slot);
        let claims = &mut self.held[index];
        claims.push((cost, slot.0));
        if claims.len() <= self.bounds[index] {
            return None;
        }
        claims.pop().map(|(_, slot)| Slot(slot))
    }

    fn candidate(&mut self, slot: Slot) -> u16 {
        let cell = usize::from(slot.0);
        let asked = usize::from(self.asked[cell]);
        self.asked[cell] += 1;
        if asked < RANKED {
            return self.ranking[cell][asked];
        }
        let row = self.further.entry(slot.0).or_insert(self.ranking[cell]);
        if asked % RANKED == 0 {
            let last = row[RANKED - 1];
            let scorer = self.scorers.get(usize::from(last));
            let after = scorer.map(|scorer| (scorer.cost(slot), last));
            *row = rank(self.scorers, slot, after);
        }
        row[asked % RANKED]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{NodeId, score::scorers};

    fn members(count: u64) -> Vec<Member> {
        let member = |id| Member { id: NodeId(id), weight: 50 + (id * 97 % 151) as u16 };
        (0..count).map(member).collect()
    }

    /// A member turns a slot away only while it is full, so a slot must not find, among those it
    /// likes better than its owner, one with room or one that holds a costlier slot.
    fn assert_stable(scorers: &[Scorer], bounds: &[usize], held: &[Claims]) {
        let mut owners = vec![None; SLOTS];
        for (index, claims) in held.iter().enumerate() {
            assert!(claims.len() <= bounds[index]);
            for &(_, slot) in claims {
                let earlier = owners[usize::from(slot)].replace(index);
                assert_eq!(earlier, None, "slot {slot} is held twice");
            }
        }
        for slot in slots() {
            let owner = owners[usize::from(slot.0)].expect("every slot has an owner");
            let own_cost = (scorers[owner].cost(slot), owner);
            for (index, claims) in held.iter().enumerate() {
                let cost = scorers[index].cost(slot);
                if (cost, index) < own_cost {
                    let full = claims.len() == bounds[index];
                    assert!(full && *claims.peek().unwrap() < (cost, slot.0), "{slot:?}");
                }
            }
        }
    }

    fn check(members: &[Member], bounds: Vec<usize>) {
        let scorers = scorers(members);
        let ranking: Vec<Row> = slots().map(|slot| rank(&scorers, slot, None)).collect();
        let held = Matching::new(&scorers, &ranking, bounds.clone()).run();
        assert_stable(&scorers, &bounds, &held);
    }

    #[test]
    fn the_matching_is_stable() {
        let members = members(60);
        check(&members, bounds(&members));
    }

    #[test]
    fn slots_turned_away_by_a_whole_row_find_their_owner() {
        let members = members(3 * RANKED as u64);
        check(&members, vec![SLOTS.div_ceil(members.len()); members.len()]);
    }

    #[test]
    fn there_is_room_for_every_slot() {
        for count in [1, 3, 199, 200, 201, 5_000, 65_535] {
            assert!(bounds(&members(count)).iter().sum::<usize>() >= SLOTS);
        }
    }
}
