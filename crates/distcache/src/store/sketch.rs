//! About how often a hash was counted of late, in a few bits: a count-min sketch of four rows with counters up to 15.
//!
//! After G. Cormode and S. Muthukrishnan, "An improved data stream summary: the count-min sketch and its applications", 2005;
//! the halving after TinyLFU (see `frequency.rs`). The invariant: a frequency is never too small by more than what halving
//! took, only too large, by collisions.

/// Counts that a record is good for before all are halved.
const SAMPLE_PER_RECORD: usize = 10;
const COUNT_MAX: u64 = 15;
const RECORDS_MIN: usize = 64;
/// Odd numbers without a pattern, one a row.
const ROWS: [u64; 4] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0xd6e8_feb8_6659_fd93];

pub(super) struct Sketch {
    /// Sixteen counters a word, as many words as records, rounded up to a power of two. Each row has four counters of every
    /// word to itself.
    words: Vec<u64>,
    counted: usize,
}

impl Sketch {
    pub(super) fn new() -> Self {
        Self { words: vec![0; RECORDS_MIN], counted: 0 }
    }

    /// Grows so that as many records can be told apart. What was counted stays: a word is looked for in both of its copies.
    pub(super) fn fit(&mut self, records: usize) {
        while self.words.len() < records {
            self.words.extend_from_within(..);
            self.counted *= 2;
        }
    }

    fn counters(&self, hash: u64) -> [(usize, u32); 4] {
        let mask = self.words.len() - 1;
        let mut row = 0;
        ROWS.map(|factor| {
            let mixed = hash.wrapping_mul(factor);
            let word = (mixed >> 32) as usize & mask;
            let shift = (row * 4 + ((mixed >> 30) & 3) as u32) * 4;
            row += 1;
            (word, shift)
        })
    }

    pub(super) fn frequency(&self, hash: u64) -> u64 {
        let count = |(word, shift): (usize, u32)| (self.words[word] >> shift) & COUNT_MAX;
        self.counters(hash).into_iter().map(count).min().unwrap_or(0)
    }

    pub(super) fn count(&mut self, hash: u64) {
        let mut was_counted = false;
        for (word, shift) in self.counters(hash) {
            if (self.words[word] >> shift) & COUNT_MAX < COUNT_MAX {
                self.words[word] += 1 << shift;
                was_counted = true;
            }
        }
        self.counted += usize::from(was_counted);
        if self.counted >= self.words.len() * SAMPLE_PER_RECORD {
            self.halve();
        }
    }

    fn halve(&mut self) {
        for word in &mut self.words {
            *word = (*word >> 1) & 0x7777_7777_7777_7777;
        }
        self.counted /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::hash;

    #[test]
    fn what_is_counted_often_is_told_from_what_is_counted_once_also_after_growing() {
        let mut sketch = Sketch::new();
        (0..40).for_each(|n| sketch.count(hash(n)));
        (0..9).for_each(|_| sketch.count(hash(7)));
        assert_eq!(sketch.frequency(hash(7)), 10);
        assert!((0..40).filter(|&n| sketch.frequency(hash(n)) == 1).count() > 36);
        sketch.fit(5_000);
        assert_eq!(sketch.frequency(hash(7)), 10);
    }

    #[test]
    fn old_counts_fade() {
        let mut sketch = Sketch::new();
        (0..100).for_each(|_| sketch.count(hash(7)));
        assert_eq!(sketch.frequency(hash(7)), COUNT_MAX);
        (1_000..2_500).for_each(|n| sketch.count(hash(n)));
        assert!(sketch.frequency(hash(7)) <= COUNT_MAX / 2, "{}", sketch.frequency(hash(7)));
    }
}
