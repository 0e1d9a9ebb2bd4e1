//! The source of a simulation: what is true of each key, and since when.
//!
//! Knows no caches. The invariant: a version once given is the only one of its key that is true until the next; each value names
//! its key and its version, so that whoever reads it can be checked.

use std::sync::Arc;
use std::time::Duration;

use distcache::{DataSource, Fetched, SourceError};
use distcache_checker::{LAG, Space};
use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::SmallRng;

/// Keys of each keyspace; few, so that they are contended.
pub const KEYS: usize = 32;
/// The simulated time.
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// What is true, and how the source is today.
pub struct Truth {
    versions: [Vec<Vec<Duration>>; 2],
    pub is_slow: bool,
    pub fails: bool,
    rng: SmallRng,
}

impl Truth {
    pub fn new(rng: SmallRng) -> Self {
        let versions = || vec![vec![Duration::ZERO]; KEYS];
        Self { versions: [versions(), versions()], is_slow: false, fails: false, rng }
    }

    /// A new version of a key, true from now on.
    pub fn write(&mut self, space: Space, key: usize) -> u64 {
        let versions = &mut self.versions[space as usize][key];
        versions.push(now());
        versions.len() as u64 - 1
    }

    fn version_at(&self, space: Space, key: usize, at: Duration) -> u64 {
        self.versions[space as usize][key].partition_point(|since| *since <= at).max(1) as u64 - 1
    }
}

/// The value of a version.
pub fn value_of(key: usize, version: u64) -> String {
    format!("{key} {version}")
}

/// Key and version of a value.
pub fn parse(value: &[u8]) -> Option<(usize, u64)> {
    let (key, version) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    Some((key.parse().ok()?, version.parse().ok()?))
}

/// The source of one keyspace.
pub struct Source {
    pub space: Space,
    /// How long a load may take.
    pub load_max: Duration,
    pub truth: Arc<Mutex<Truth>>,
}

impl DataSource for Source {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        let key: usize = key.parse().map_err(SourceError::failed)?;
        let (before, after, fails) = {
            let mut truth = self.truth.lock();
            // Of two halves; a slow source takes nearly as long as it may.
            let longest = if truth.is_slow { self.load_max.as_millis() as u64 * 45 / 100 } else { 60 };
            let fails = truth.fails && truth.rng.random_range(0..10) < 6;
            (truth.rng.random_range(1..longest), truth.rng.random_range(1..longest), fails)
        };
        // It reads at some moment between the question and the answer.
        tokio::time::sleep(Duration::from_millis(before)).await;
        let lag = if self.space == Space::Lagging { LAG } else { Duration::ZERO };
        let version = self.truth.lock().version_at(self.space, key, now().saturating_sub(lag));
        tokio::time::sleep(Duration::from_millis(after)).await;
        match fails {
            true => Err(SourceError::unavailable("out of order")),
            false => Ok(Fetched::new(value_of(key, version))),
        }
    }
}
