//! Which keys are read the most: a bounded sketch, fed with a sample of the hits.
//!
//! Pure but for its lock: time and chance come in as arguments. Knows neither store nor owners. The invariants: memory is bounded
//! whatever is read; no key is locked out because the sketch is full; what was hot once and is no longer, fades.
//!
//! The sketch is d-way RAP (Ben Basat, Einziger, Friedman, Kassner: *Randomized Admission Policy for Efficient Top-k and
//! Frequency Estimation*, INFOCOM 2017): a key has its place in one set of a few cells; a newcomer to a full set takes the place of
//! the least counted key, with a probability of one in that count, and takes over its count. Counts halve every
//! [`HALF_LIFE`], so that they tell a rate.

use std::time::Duration;

use parking_lot::Mutex;

use crate::net::Moment;

/// A key and how often it is read.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HotKey {
    /// The key.
    pub key: String,
    /// Reads a second of late at this node, its own callers' and those of peers; an estimate.
    pub reads_per_second: f64,
}

/// A count falls to a half in this time.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// Cells of one set.
const WAYS: usize = 8;
/// Cells for each key that is reported: sets are of different heat.
const CELLS_PER_KEY: usize = 4;
/// Locks; each guards every so many sets.
const SHARDS: usize = 16;

struct Cell {
    hash: u64,
    key: Box<str>,
    count: f64,
    at: Moment,
}

/// The cells that a key may be in, and many such sets.
type Sets = Box<[Vec<Cell>]>;

/// The sketch of one keyspace.
pub(crate) struct HotKeys {
    shards: Box<[Mutex<Sets>]>,
    keys_max: usize,
    began: Moment,
}

impl HotKeys {
    /// Reports up to `keys_max` keys.
    pub(crate) fn new(keys_max: usize, now: Moment) -> Self {
        let sets = (keys_max * CELLS_PER_KEY).div_ceil(WAYS * SHARDS);
        let shard = |_| Mutex::new((0..sets).map(|_| Vec::new()).collect());
        Self { shards: (0..SHARDS).map(shard).collect(), keys_max, began: now }
    }

    /// Takes in that a key was read `reads` times. `chance`, from 0 to 1, decides whether a newcomer gets a place.
    pub(crate) fn note(&self, hash: u64, key: &str, reads: u32, now: Moment, chance: f32) {
        // The upper bits of the hash choose the owner of a key: all of this node's share some of them.
        let mut sets = self.shards[hash as usize % SHARDS].lock();
        let set_index = (hash as usize / SHARDS) % sets.len();
        let set = &mut sets[set_index];
        let reads = f64::from(reads);
        if let Some(cell) = set.iter_mut().find(|cell| cell.hash == hash && *cell.key == *key) {
            cell.count = cell.count_at(now) + reads;
            cell.at = now;
            return;
        }
        if set.len() < WAYS {
            set.push(Cell { hash, key: key.into(), count: reads, at: now });
            return;
        }
        let least = set.iter_mut().min_by(|a, b| a.count_at(now).total_cmp(&b.count_at(now)));
        if let Some(least) = least {
            let count = least.count_at(now);
            if f64::from(chance) * (count + reads) < reads {
                *least = Cell { hash, key: key.into(), count: count + reads, at: now };
            }
        }
    }

    /// The hottest keys, the hottest first.
    pub(crate) fn hottest(&self, keys: usize, now: Moment) -> Vec<HotKey> {
        // Of a steady rate this much is in the count; less while the sketch is young.
        let half_lives = now.since(self.began).as_secs_f64().max(1.0) / HALF_LIFE.as_secs_f64();
        let seconds = HALF_LIFE.as_secs_f64() / std::f64::consts::LN_2 * (1.0 - 0.5f64.powf(half_lives));
        let mut hottest = Vec::new();
        for shard in &self.shards {
            let sets = shard.lock();
            hottest.extend(
                sets.iter()
                    .flatten()
                    .map(|cell| HotKey { key: cell.key.to_string(), reads_per_second: cell.count_at(now) / seconds }),
            );
        }
        hottest.sort_by(|a, b| b.reads_per_second.total_cmp(&a.reads_per_second).then_with(|| a.key.cmp(&b.key)));
        hottest.truncate(keys.min(self.keys_max));
        hottest
    }
}

impl Cell {
    fn count_at(&self, now: Moment) -> f64 {
        self.count * 0.5f64.powf(now.since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    fn note(sketch: &HotKeys, key: &str, reads: u32, now: u64, rng: &mut SmallRng) {
        sketch.note(xxh3_64(key.as_bytes()), key, reads, Moment(now), rng.random());
    }

    #[test]
    fn the_hottest_keys_of_a_skewed_stream_are_found_with_their_rates() {
        for seed in 0..20 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let sketch = HotKeys::new(32, Moment(0));
            // Ten keys of 100 reads a second each among 50,000 that are read once each, for 30 seconds.
            for tick in 0..30_000u64 {
                note(&sketch, &format!("hot:{}", tick % 10), 1, tick, &mut rng);
                note(&sketch, &format!("cold:{}", rng.random_range(0..50_000)), 1, tick, &mut rng);
            }
            let hottest = sketch.hottest(10, Moment(30_000));
            for hot in &hottest {
                assert!(hot.key.starts_with("hot:"), "seed {seed}: {hottest:?}");
                assert!((60.0..140.0).contains(&hot.reads_per_second), "seed {seed}: {hot:?}");
            }
        }
    }

    #[test]
    fn a_newcomer_is_admitted_also_when_the_sketch_is_full() {
        for seed in 0..20 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let sketch = HotKeys::new(16, Moment(0));
            for round in 0..2_000u64 {
                (0..200).for_each(|n| note(&sketch, &format!("old:{n}"), 1, round, &mut rng));
            }
            for tick in 0..20_000u64 {
                note(&sketch, "new", 1, 2_000 + tick, &mut rng);
            }
            assert_eq!(sketch.hottest(1, Moment(22_000))[0].key, "new", "seed {seed}");
        }
    }

    #[test]
    fn what_is_not_read_any_more_fades() {
        let mut rng = SmallRng::seed_from_u64(1);
        let sketch = HotKeys::new(16, Moment(0));
        (0..10_000).for_each(|tick| note(&sketch, "then", 10, tick, &mut rng));
        (60_000..65_000).for_each(|tick| note(&sketch, "now", 1, tick, &mut rng));
        let hottest = sketch.hottest(2, Moment(65_000));
        assert_eq!([&*hottest[0].key, &*hottest[1].key], ["now", "then"]);
    }

    #[test]
    fn memory_is_bounded_whatever_is_read() {
        let mut rng = SmallRng::seed_from_u64(1);
        let sketch = HotKeys::new(100, Moment(0));
        (0..50_000).for_each(|n| note(&sketch, &n.to_string(), 1, n, &mut rng));
        let cells: usize = sketch.shards.iter().map(|shard| shard.lock().iter().map(Vec::len).sum::<usize>()).sum();
        assert!(cells <= 100 * CELLS_PER_KEY + WAYS * SHARDS, "{cells}");
        assert_eq!(sketch.hottest(usize::MAX, Moment(50_000)).len(), 100);
    }
}
