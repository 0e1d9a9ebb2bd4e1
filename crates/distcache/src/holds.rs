//! Keys whose deletion holds back what is loaded: the source may still answer from a replica that lags behind.
//!
//! Pure: time comes in as an argument. The invariant: a load that began before the end of a hold is found by
//! [`Holds::covers`] until it has had the time to land.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::net::Moment;
use crate::store::Identity;

/// The holds of one keyspace, by the hash of their keys.
pub(crate) struct Holds {
    table: Mutex<HashMap<u64, Moment, BuildHasherDefault<Identity>>>,
    /// Most keyspaces never hold anything: their loads take no lock.
    is_used: AtomicBool,
    keys_max: usize,
}

impl Holds {
    pub(crate) fn new(keys_max: usize) -> Self {
        Self { table: Mutex::default(), is_used: AtomicBool::new(false), keys_max }
    }

    /// What is loaded before `until` shall not be kept. `false`: as many keys as may be are held back already.
    pub(crate) fn hold(&self, hash: u64, until: Moment) -> bool {
        let mut table = self.table.lock();
        if table.len() >= self.keys_max && !table.contains_key(&hash) {
            return false;
        }
        self.is_used.store(true, Relaxed);
        let held = table.entry(hash).or_insert(until);
        *held = until.max(*held);
        true
    }

    /// Whether what began to load at `begun` is not to be kept.
    pub(crate) fn covers(&self, hash: u64, begun: Moment) -> bool {
        self.until(hash).is_some_and(|until| until > begun)
    }

    /// The end of the key's hold, which may be past.
    pub(crate) fn until(&self, hash: u64) -> Option<Moment> {
        if !self.is_used.load(Relaxed) {
            return None;
        }
        self.table.lock().get(&hash).copied()
    }

    /// The keys that are held back at this time, and until when.
    pub(crate) fn running(&self, now: Moment) -> Vec<(u64, Moment)> {
        if !self.is_used.load(Relaxed) {
            return Vec::new();
        }
        self.table.lock().iter().filter(|(_, until)| **until > now).map(|(hash, until)| (*hash, *until)).collect()
    }

    /// Forgets holds whose last load has landed: none takes longer than `load`.
    pub(crate) fn sweep(&self, now: Moment, load: Duration) {
        if self.is_used.load(Relaxed) {
            self.table.lock().retain(|_, until| until.after(load) > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_that_begin_within_a_hold_are_covered_and_later_ones_are_not() {
        let holds = Holds::new(2);
        assert!(!holds.covers(7, Moment(0)));
        assert!(holds.hold(7, Moment(100)));
        assert!(holds.hold(7, Moment(50)), "a shorter hold takes nothing back");
        assert!(holds.covers(7, Moment(99)));
        assert!(!holds.covers(7, Moment(100)));
    }

    #[test]
    fn a_hold_outlives_the_loads_that_it_covers_and_makes_room_afterwards() {
        let holds = Holds::new(1);
        holds.hold(7, Moment(100));
        assert!(!holds.hold(8, Moment(100)));
        holds.sweep(Moment(149), Duration::from_millis(50));
        assert!(holds.covers(7, Moment(99)));
        holds.sweep(Moment(150), Duration::from_millis(50));
        assert!(holds.hold(8, Moment(300)));
    }
}
