//! The bare map as one would write it by hand: quick_cache, weighing key and value.

use std::hash::{BuildHasher, Hasher};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Key and value, without what the map itself needs for them.
#[derive(Clone)]
pub struct KeyAndValue;

impl quick_cache::Weighter<String, Bytes> for KeyAndValue {
    fn weight(&self, key: &String, value: &Bytes) -> u64 {
        (key.len() + value.len()) as u64
    }
}

/// xxh3 of the whole key at once: its streaming form is several times slower on short keys.
#[derive(Clone, Copy, Default)]
pub struct Xxh3;

pub struct Xxh3Hasher(u64);

impl BuildHasher for Xxh3 {
    type Hasher = Xxh3Hasher;

    fn build_hasher(&self) -> Xxh3Hasher {
        Xxh3Hasher(0)
    }
}

impl Hasher for Xxh3Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// The mark behind a string, the same for every key.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
