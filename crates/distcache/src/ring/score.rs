//! What a member costs a slot: weighted rendezvous hashing.
//!
//! Every slot draws a `u` in the unit interval for every member and prefers the least
//! `-log2(u) / weight`, so a member comes first in proportion to its weight (Thaler & Ravishankar,
//! "Using name-based mappings to increase hit rates", 1998; the logarithmic method for weights:
//! Schindelhauer & Schomaker, "Weighted distributed hash tables", 2005).
//!
//! A member's draws over all slots are stratified (McKay, Beckman & Conover, "A comparison of three
//! methods for selecting values of input variables", 1979): a permutation gives each slot its own
//! 65,536th of the unit interval. That halves the variance of a member's natural load, so fewer
//! members reach their bound, and a join or leave sets off fewer further moves.
//!
//! This file does not know that there are other members. Invariant: a cost depends on the member's
//! id, its weight and the slot alone, and is computed in integers, so it is the same everywhere.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Member, SLOT_BITS, Slot};

/// What a slot and a member are to each other: the less, the better. Compared together with an
/// index, which breaks ties alike on every node.
pub(super) type Cost = u64;

/// Computes one member's cost for any slot.
pub(super) struct Scorer {
    mask: u16,
    factors: [u16; 3],
    jitter_factor: u64,
    jitter_offset: u64,
    /// `2^64 / weight`: a multiplication is several times faster than a division, and a thousand
    /// members need 65 million of them.
    share: u64,
}

impl Scorer {
    fn new(member: &Member) -> Scorer {
        // Ids may be sequential or chosen by hand; only their hashes are fit to be keys.
        let key = |seed| xxh3_64_with_seed(&member.id.0.to_le_bytes(), seed);
        let shuffle = key(0);
        Scorer {
            mask: shuffle as u16,
            factors: [16, 32, 48].map(|shift| (shuffle >> shift) as u16 | 1),
            jitter_factor: key(1) | 1,
            jitter_offset: key(2),
            share: u64::MAX / u64::from(member.weight),
        }
    }

    pub(super) fn cost(&self, slot: Slot) -> Cost {
        self.cost_in(self.stratum(slot))
    }

    /// The cost of any slot, by its stratum.
    pub(super) fn cost_in(&self, stratum: u16) -> Cost {
        let stratum = u64::from(stratum);
        // A place inside the stratum, so that members seldom tie.
        let jitter = stratum.wrapping_mul(self.jitter_factor).wrapping_add(self.jitter_offset);
        let uniform = stratum << (u64::BITS - SLOT_BITS) | jitter >> SLOT_BITS;
        ((u128::from(neg_log2(uniform)) * u128::from(self.share)) >> 64) as Cost
    }

    /// Never above `cost_in`, and spares most members the logarithm: `-log2(u)` exceeds `1 - u` by
    /// 44% or more.
    #[inline]
    pub(super) fn cost_at_least(&self, stratum: u16) -> Cost {
        u64::from(!stratum) * (self.share >> (64 - (LOG_BITS - SLOT_BITS)))
    }

    /// The slot's part of the unit interval, one of 65,536. A permutation of the slots: an
    /// exclusive or, a multiplication by an odd number and a xor-shift can each be undone.
    #[inline]
    pub(super) fn stratum(&self, slot: Slot) -> u16 {
        let mut bits = (slot.0 ^ self.mask).wrapping_mul(self.factors[0]);
        bits = (bits ^ bits >> 8).wrapping_mul(self.factors[1]);
        bits = (bits ^ bits >> 7).wrapping_mul(self.factors[2]);
        bits ^ bits >> 8
    }
}

/// One scorer for each member, by its index.
pub(super) fn scorers(placed: &[Member]) -> Box<[Scorer]> {
    placed.iter().map(Scorer::new).collect()
}

/// Fraction bits of a logarithm: its integer part, at most 64, has the other seven.
const LOG_BITS: u32 = 57;

/// Steps of the logarithm's table between 1 and 2.
const LOG_STEPS: usize = 256;

/// `log2(1 + step / LOG_STEPS)`.
const LOG_TABLE: [u64; LOG_STEPS + 1] = {
    let mut table = [0; LOG_STEPS + 1];
    let mut step = 1;
    while step < LOG_STEPS {
        table[step] = log2_of_mantissa(((LOG_STEPS + step) as u64) << (63 - LOG_STEPS.ilog2()));
        step += 1;
    }
    table[LOG_STEPS] = 1 << LOG_BITS;
    table
};

/// Logarithm of `mantissa / 2^63`, which is at least 1 and below 2, digit by digit: squaring the
/// number doubles its logarithm, and a square of 2 or more is a digit 1.
const fn log2_of_mantissa(mantissa: u64) -> u64 {
    let mut power = mantissa as u128;
    let mut log = 0;
    let mut digit = 0;
    while digit < LOG_BITS {
        power = (power * power) >> 63;
        let carry = power >> 64;
        power >>= carry;
        log = log << 1 | carry as u64;
        digit += 1;
    }
    log
}

/// `-log2(uniform / 2^64)`, interpolated between the table's steps: it never increases with
/// `uniform`, and is above the true value by 0.2% at most.
#[inline]
fn neg_log2(uniform: u64) -> u64 {
    let odd = uniform | 1;
    let zeros = odd.leading_zeros();
    let fraction = odd << zeros << 1;
    let step = (fraction >> (u64::BITS - LOG_STEPS.ilog2())) as usize;
    let beyond = u128::from(fraction << LOG_STEPS.ilog2());
    let rise = u128::from(LOG_TABLE[step + 1] - LOG_TABLE[step]);
    let log = LOG_TABLE[step] + ((rise * beyond) >> 64) as u64;
    // The greatest cost, of a `uniform` of 1, is 64 and does not overflow.
    (u64::from(zeros + 1) << LOG_BITS) - log
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ring::{NodeId, slots};

    fn scorer(id: u64, weight: u16) -> Scorer {
        Scorer::new(&Member { id: NodeId(id), weight })
    }

    #[test]
    fn the_logarithm_is_right_at_its_ends() {
        assert_eq!(neg_log2(0), 64 << LOG_BITS);
        assert_eq!(neg_log2(1 << 63), 1 << LOG_BITS);
        assert_eq!(neg_log2(u64::MAX), 1);
    }

    #[test]
    fn the_logarithm_table_is_right() {
        for (step, &log) in LOG_TABLE.iter().enumerate() {
            let right = (1.0 + step as f64 / LOG_STEPS as f64).log2();
            let found = log as f64 / (1u64 << LOG_BITS) as f64;
            assert!((found - right).abs() < 1e-14, "step {step}: {found}");
        }
    }

    #[test]
    fn strata_are_a_permutation_of_the_slots() {
        for id in 0..4 {
            let scorer = scorer(id, 100);
            let mut strata: Vec<u16> = slots().map(|slot| scorer.stratum(slot)).collect();
            strata.sort_unstable();
            assert!(strata.into_iter().eq(0..=u16::MAX), "id {id}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn the_logarithm_is_close_and_never_increases(uniform in 1u64.., shift in 0u32..64) {
            let uniform = uniform >> shift | 1;
            let right = 64.0 - (uniform as f64).log2();
            let found = neg_log2(uniform) as f64 / (1u64 << LOG_BITS) as f64;
            // The reference itself is only good to a few units of its last place.
            prop_assert!(found > right - 1e-13 && found < right * 1.002 + 1e-13, "{found} {right}");
            prop_assert!(neg_log2(uniform.saturating_add(2)) <= neg_log2(uniform));
        }

        #[test]
        fn the_cheap_bound_is_never_above(id: u64, weight in 1u16.., near_one in 0u16..20) {
            let scorer = scorer(id, weight);
            for stratum in (0..=u16::MAX).step_by(251).chain([!near_one]) {
                prop_assert!(scorer.cost_at_least(stratum) <= scorer.cost_in(stratum));
            }
        }
    }
}
