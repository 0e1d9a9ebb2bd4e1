//! The best members for each slot, in order of cost.
//!
//! This file does not know who owns what, nor that members have bounds. Invariant: a row holds
//! exactly the [`RANKED`] best members of its view (all of them, if they are fewer), whether it was
//! ranked afresh or carried over from an earlier view.

use super::score::{Cost, Scorer};
use super::{Member, NOBODY, Slot};

/// Candidates remembered for a slot. A slot seldom needs more, even in a ring of a thousand
/// members; one that does is ranked further while matching.
pub(super) const RANKED: usize = 8;

/// A slot's best members, best first, padded with `NOBODY` where there are fewer.
pub(super) type Row = [u16; RANKED];

/// A candidate's cost and index; the order of indexes is that of ids.
pub(super) type Rank = (Cost, u16);

/// The best members for a slot, or those that follow `after`.
pub(super) fn rank(scorers: &[Scorer], slot: Slot, after: Option<Rank>) -> Row {
    let mut best = [(Cost::MAX, NOBODY); RANKED];
    for (scorer, index) in scorers.iter().zip(0..) {
        let stratum = scorer.stratum(slot);
        if scorer.cost_at_least(stratum) > best[RANKED - 1].0 {
            continue;
        }
        let candidate = (scorer.cost_in(stratum), index);
        if candidate < best[RANKED - 1] && after.is_none_or(|after| candidate > after) {
            let mut place = RANKED - 1;
            while place > 0 && candidate < best[place - 1] {
                best[place] = best[place - 1];
                place -= 1;
            }
            best[place] = candidate;
        }
    }
    best.map(|(_, index)| index)
}

/// How the members of a later ring differ from an earlier one's.
pub(super) struct Change {
    /// The later index of each member; `NOBODY` for one that left or has another weight.
    renumbered: Vec<u16>,
    /// Later indexes of those that came or have another weight.
    joined: Vec<u16>,
}

impl Change {
    pub(super) fn between(earlier: &[Member], later: &[Member]) -> Change {
        let find = |members: &[Member], member| members.binary_search(member).ok();
        let next_index = |member| find(later, member).map_or(NOBODY, |index| index as u16);
        let numbered = later.iter().zip(0..);
        let newcomers = numbered.filter(|&(member, _)| find(earlier, member).is_none());
        Change {
            renumbered: earlier.iter().map(next_index).collect(),
            joined: newcomers.map(|(_, index)| index).collect(),
        }
    }

    /// Turns a slot's row of the earlier ring into its row of the later one.
    pub(super) fn apply(&self, scorers: &[Scorer], slot: Slot, row: &Row) -> Row {
        let mut next = [NOBODY; RANKED];
        let known = row.iter().take_while(|&&index| index != NOBODY);
        for (cell, &index) in next.iter_mut().zip(known) {
            *cell = self.renumbered[usize::from(index)];
            if *cell == NOBODY {
                return rank(scorers, slot, None);
            }
        }
        for &newcomer in &self.joined {
            insert(scorers, slot, &mut next, newcomer);
        }
        next
    }
}

/// Puts a newcomer where it belongs in a row, if it does.
fn insert(scorers: &[Scorer], slot: Slot, row: &mut Row, newcomer: u16) {
    let cost = scorers[usize::from(newcomer)].cost(slot);
    let beats = |&index: &u16| match scorers.get(usize::from(index)) {
        Some(scorer) => (cost, newcomer) < (scorer.cost(slot), index),
        None => true,
    };
    let place = RANKED - row.iter().rev().take_while(|&index| beats(index)).count();
    if place < RANKED {
        row.copy_within(place..RANKED - 1, place + 1);
        row[place] = newcomer;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{NodeId, score::scorers};

    fn ranked_by_sorting(scorers: &[Scorer], slot: Slot) -> Vec<u16> {
        let costs = scorers.iter().map(|scorer| scorer.cost(slot));
        let mut ranks: Vec<Rank> = costs.zip(0..).collect();
        ranks.sort_unstable();
        ranks.into_iter().map(|(_, index)| index).collect()
    }

    #[test]
    fn rows_continue_each_other_to_the_full_ranking() {
        for count in [1, RANKED - 1, RANKED, RANKED + 1, 50] {
            let members = (0..count as u64).map(|id| Member { id: NodeId(id), weight: 1 + (id * 97 % 400) as u16 });
            let scorers = scorers(&members.collect::<Vec<_>>());
            for slot in (0..=u16::MAX).step_by(997).map(Slot) {
                let mut found = Vec::new();
                let mut after = None;
                while found.len() < count {
                    let row = rank(&scorers, slot, after);
                    found.extend(row.into_iter().filter(|&index| index != NOBODY));
                    after = found.last().map(|&last| (scorers[usize::from(last)].cost(slot), last));
                }
                assert_eq!(found, ranked_by_sorting(&scorers, slot), "{slot:?}");
            }
        }
    }
}
