//! Which guard a keyspace's loads pass: its own, or that of the group of keyspaces that share its source.
//!
//! Knows neither keys nor sources. The invariants: keyspaces of one group have one guard on a node for as long as one of them
//! is there, and no guard outlives its keyspaces; the numbers of a keyspace are its own, also in a group.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::GuardSettings;
use super::circuit::Whose;
use super::way::{Errand, Gauges, Guard};
use crate::error::Error;
use crate::net::Clock;
use crate::source::SourceError;
use crate::stats::{Counters, KeyspaceStats};

/// The guards of a node that stand for groups.
pub(crate) struct Guards {
    /// For guards that are told none.
    loads_max: usize,
    clock: Clock,
    groups: Mutex<HashMap<String, Weak<Guard>>>,
}

/// The access of one keyspace to its source.
pub(crate) struct Access {
    keyspace: String,
    guard: ArcSwap<Guard>,
    gauges: Gauges,
}

impl Guards {
    pub(crate) fn new(loads_max: usize, clock: Clock) -> Self {
        Self { loads_max, clock, groups: Mutex::default() }
    }

    /// The guard of the keyspace's group, under the settings that it has, or else a new one.
    fn of(&self, keyspace: &str, settings: &GuardSettings) -> Arc<Guard> {
        let guard = |whose| Arc::new(Guard::new(settings, self.loads_max, whose, self.clock));
        let Some(group) = &settings.group else { return guard(Whose::Keyspace(keyspace.into())) };
        let mut groups = self.groups.lock();
        if let Some(guard) = groups.get(group).and_then(Weak::upgrade) {
            return guard;
        }
        groups.retain(|_, guard| guard.strong_count() > 0);
        let guard = guard(Whose::Group(group.clone()));
        groups.insert(group.clone(), Arc::downgrade(&guard));
        guard
    }
}

impl Access {
    /// Where the group has a guard already, that one as it is.
    pub(crate) fn new(keyspace: &str, settings: &GuardSettings, guards: &Guards) -> Self {
        let guard = ArcSwap::new(guards.of(keyspace, settings));
        Self { keyspace: keyspace.into(), guard, gauges: Gauges::default() }
    }

    /// These settings from now on, for the whole group. Loads under way finish where they began.
    pub(crate) fn update(&self, settings: &GuardSettings, guards: &Guards) {
        let before = self.guard.load_full();
        let group = match before.whose() {
            Whose::Group(name) => Some(name),
            Whose::Keyspace(_) => None,
        };
        if group == settings.group.as_ref() {
            return before.update(settings);
        }
        let guard = guards.of(&self.keyspace, settings);
        guard.update(settings);
        self.guard.store(guard);
    }

    /// Asks the source for these keys, when the guard lets the load through; an answer for each, in their order, within `limit`.
    ///
    /// `call` is given the keys that are wanted: all of them first, then, where the guard retries, those that failed in passing.
    /// It may panic, hang or answer nonsense. It is called when the source is to be asked at once, not before.
    pub(crate) async fn ask<'k, T, F>(
        &self,
        limit: Duration,
        counters: &Counters,
        keys: &[&'k str],
        call: impl Fn(Vec<&'k str>) -> F,
    ) -> Vec<Result<T, Error>>
    where
        F: Future<Output = Vec<Result<T, SourceError>>>,
    {
        let guard = self.guard.load_full();
        guard.run(&Errand { limit, counters, gauges: &self.gauges }, keys, call).await
    }

    pub(crate) fn fill_in(&self, stats: &mut KeyspaceStats) {
        stats.loads_running = self.gauges.running.load(Relaxed);
        stats.loads_waiting = self.gauges.waiting.load(Relaxed);
        stats.circuit = self.guard.load().circuit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guards() -> Guards {
        Guards::new(8, Clock::Kernel)
    }

    fn is_shared(one: &Access, other: &Access) -> bool {
        Arc::ptr_eq(&one.guard.load(), &other.guard.load())
    }

    #[test]
    fn keyspaces_of_one_group_share_a_guard_and_others_do_not() {
        let (guards, db) = (guards(), GuardSettings::new().group("db"));
        let [a, b, c] = ["a", "b", "c"].map(|name| Access::new(name, &db, &guards));
        let alone = Access::new("d", &GuardSettings::new(), &guards);
        assert!(is_shared(&a, &b) && is_shared(&b, &c) && !is_shared(&a, &alone));
        a.update(&GuardSettings::new().group("other"), &guards);
        assert!(!is_shared(&a, &b) && is_shared(&b, &c));
        alone.update(&db, &guards);
        assert!(is_shared(&alone, &b));
        b.update(&GuardSettings::new(), &guards);
        assert!(!is_shared(&alone, &b));
    }

    #[test]
    fn a_group_vanishes_with_its_last_keyspace() {
        let guards = guards();
        let group = |name: &str| Access::new(name, &GuardSettings::new().group(name), &guards);
        drop((group("a"), group("b")));
        let _c = group("c");
        assert_eq!(guards.groups.lock().len(), 1);
    }
}
