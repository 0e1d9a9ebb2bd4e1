//! Keys, values and the order in which keys are asked for: the same for every contestant and every run.

use bytes::Bytes;

/// Sizes of the values, both named in a key's first letter: a source knows what to make from the key alone.
pub const SMALL_VALUE_BYTES: usize = 100;
pub const LARGE_VALUE_BYTES: usize = 4 << 10;

/// Bytes of every key.
pub const KEY_BYTES: usize = 16;

/// Key number `n` of those with values of `value_bytes`.
pub fn key(value_bytes: usize, n: usize) -> String {
    let size = if value_bytes == LARGE_VALUE_BYTES { 'l' } else { 's' };
    format!("{size}:{n:014}")
}

/// The value that belongs to a key.
pub fn value(key: &str) -> Bytes {
    let len = if key.starts_with('l') { LARGE_VALUE_BYTES } else { SMALL_VALUE_BYTES };
    let mut value = Vec::with_capacity(len);
    while value.len() < len {
        let rest = len - value.len();
        value.extend_from_slice(&key.as_bytes()[..key.len().min(rest)]);
    }
    Bytes::from(value)
}

/// A generator that gives the same numbers on every run.
///
/// Steele, Lea & Flood, "Fast splittable pseudorandom number generators", 2014.
pub struct SplitMix(pub u64);

impl SplitMix {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// `len` draws of `0..keys` after Zipf's law with exponent 1: the n-th most popular is asked for 1/n as often as the first.
/// Popularity is scattered over the numbers.
pub fn zipf(keys: usize, len: usize, seed: u64) -> Vec<u32> {
    zipf_of(1.0, keys, len, seed)
}

/// The same with another exponent.
pub fn zipf_of(exponent: f64, keys: usize, len: usize, seed: u64) -> Vec<u32> {
    let mut total = 0.0;
    let cumulated: Vec<f64> = (1..=keys)
        .map(|rank| {
            total += (rank as f64).powf(-exponent);
            total
        })
        .collect();
    let scattered = by_popularity(keys);
    let mut random = SplitMix(seed);
    let draw = |_| {
        let point = random.unit() * total;
        scattered[cumulated.partition_point(|&sum| sum <= point).min(keys - 1)]
    };
    (0..len).map(draw).collect()
}

/// The numbers of all keys, the most popular first.
pub fn by_popularity(keys: usize) -> Vec<u32> {
    shuffled(keys, 1)
}

fn shuffled(len: usize, seed: u64) -> Vec<u32> {
    let mut random = SplitMix(seed);
    let mut numbers: Vec<u32> = (0..len as u32).collect();
    for last in (1..len).rev() {
        numbers.swap(last, (random.next() % (last as u64 + 1)) as usize);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_the_promised_sizes() {
        for size in [SMALL_VALUE_BYTES, LARGE_VALUE_BYTES] {
            assert_eq!(key(size, 123_456).len(), KEY_BYTES);
            assert_eq!(value(&key(size, 7)).len(), size);
        }
    }

    #[test]
    fn the_most_popular_key_is_asked_for_as_often_as_zipf_says() {
        let draws = zipf(1_000, 100_000, 5);
        let mut counts = vec![0; 1_000];
        draws.iter().for_each(|&key| counts[key as usize] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // 100,000 over the sum of 1/1 to 1/1000, which is 7.49.
        assert!((13_000..13_800).contains(&counts[0]), "{}", counts[0]);
        assert!((6_300..7_100).contains(&counts[1]), "{}", counts[1]);
    }
}
