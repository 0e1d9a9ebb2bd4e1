//! Fresh, stale, gone: how long an entry lives, and what a read of it at some moment calls for.
//!
//! Pure: time and chance come in as arguments. Knows neither store nor source. The invariants: what the caller of `put` says
//! wins over what the source says, which wins over the keyspace's rule, which wins over its `ttl`; no lifetime is ever lengthened
//! by jitter; an entry goes from [`Phase::Fresh`] through [`Phase::Stale`] and [`Phase::Spare`] to [`Phase::Gone`] and never back;
//! before [`Times::due_at`] there is nothing to decide, so that a hit compares one number.
//!
//! ```text
//! stored           due      expires          + stale_while_revalidate      + stale_if_error
//!   |--- Fresh -----|- Fresh, -|---- Stale -------|---------- Spare ----------------|---- Gone
//!                     refresh    answered, and       answered where the load
//!                     ahead      loaded again        fails, is late or not allowed
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::net::Moment;
use crate::spec::{ExpiresAt, KeyspaceSettings};

/// The times of one entry. Moments are absolute, graces are counted from the end of the lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) stored_at: Moment,
    /// Never later than `expires_at`. From here on a read has something to decide.
    pub(crate) due_at: Moment,
    pub(crate) expires_at: Moment,
    pub(crate) grace: Grace,
    /// When the entry was last known to be used, in tenths of a second since it was stored.
    pub(crate) used: u32,
}

/// For how long past its lifetime an entry may be answered, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grace {
    pub(crate) while_revalidate: u32,
    pub(crate) if_error: u32,
}

/// The rules of a keyspace that a read goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rules {
    pub(crate) idle_ttl: Option<Duration>,
    /// The last part of a lifetime, 0 to 1, in which an entry is loaded again.
    pub(crate) refresh_ahead: f32,
}

/// What a read at some moment calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Answer it. Where `refresh` is set, load it again in the background; where `note` is, note that it was used.
    Fresh { refresh: bool, note: bool },
    /// Answer it, and load it again in the background.
    Stale,
    /// Load it; answer it only if that fails, is late or not allowed.
    Spare,
    /// There is nothing to answer.
    Gone,
}

/// The idle time is noted when this part of it has passed, not on every read.
const NOTES_PER_IDLE_TTL: u32 = 8;
const USE_TICK_MS: u64 = 100;

impl Grace {
    /// What the source says of its value wins over what the keyspace says.
    pub(crate) fn of(
        settings: &KeyspaceSettings,
        while_revalidate: Option<Duration>,
        if_error: Option<Duration>,
    ) -> Self {
        let millis = |grace: Duration| u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        Self {
            while_revalidate: millis(while_revalidate.unwrap_or(settings.stale_while_revalidate)),
            if_error: millis(if_error.unwrap_or(settings.stale_if_error)),
        }
    }
}

impl Rules {
    pub(crate) fn of(settings: &KeyspaceSettings) -> Self {
        Self { idle_ttl: settings.idle_ttl, refresh_ahead: settings.refresh_ahead }
    }
}

impl Times {
    /// Of what lives for good, or until a moment that somebody else decided on: nothing is due before.
    pub(crate) fn until(stored_at: Moment, expires_at: Moment) -> Self {
        Self { stored_at, due_at: expires_at, expires_at, grace: Grace::default(), used: 0 }
    }

    /// Of an entry that is stored now. `salt` is any number of the entry's own, see [`refresh_at`](Self::refresh_at).
    pub(crate) fn begin(now: Moment, lifetime: Option<Duration>, grace: Grace, rules: &Rules, salt: u64) -> Self {
        let mut times = Self { grace, ..Self::until(now, end_of(lifetime, now)) };
        times.due_at = times.next_due(rules, salt);
        times
    }

    /// When a read shall have the entry loaded again: `refresh_ahead` of the lifetime before its end, less up to a half of that
    /// by the entry's salt, so that entries that were loaded together are not loaded together again.
    pub(crate) fn refresh_at(&self, refresh_ahead: f32, salt: u64) -> Moment {
        if self.expires_at == Moment::NEVER || refresh_ahead <= 0.0 {
            return self.expires_at;
        }
        let lifetime = self.expires_at.since(self.stored_at);
        let part = f64::from(refresh_ahead.min(1.0)) * (1.0 - 0.5 * unit(salt));
        self.expires_at.before(lifetime.mul_f64(part))
    }

    /// What a read at `now` calls for. `salt` as it was at the [`begin`](Self::begin).
    pub(crate) fn phase(&self, rules: &Rules, salt: u64, now: Moment) -> Phase {
        if now < self.due_at {
            return Phase::Fresh { refresh: false, note: false };
        }
        if self.idle_end(rules.idle_ttl) <= now {
            return Phase::Gone;
        }
        if now < self.expires_at {
            let refresh = self.refresh_at(rules.refresh_ahead, salt) <= now;
            return Phase::Fresh { refresh, note: rules.idle_ttl.is_some() };
        }
        let past = now.0 - self.expires_at.0;
        match () {
            () if past < u64::from(self.grace.while_revalidate) => Phase::Stale,
            () if past < u64::from(self.grace.if_error) => Phase::Spare,
            () => Phase::Gone,
        }
    }

    /// The entry is used now: its idle time begins again.
    pub(crate) fn note_use(&mut self, rules: &Rules, salt: u64, now: Moment) {
        self.used = self.ticks_until(now);
        self.due_at = self.next_due(rules, salt);
    }

    /// The value is known to be as old as `stored_at`, but has come here only now: its idle time begins now.
    pub(crate) fn backdate(&mut self, stored_at: Moment, now: Moment) {
        self.stored_at = stored_at;
        self.used = self.ticks_until(now);
    }

    fn ticks_until(&self, now: Moment) -> u32 {
        u32::try_from((now.0.saturating_sub(self.stored_at.0)) / USE_TICK_MS).unwrap_or(u32::MAX)
    }

    /// From here on the entry is of no use to anybody.
    pub(crate) fn gone_at(&self, idle_ttl: Option<Duration>) -> Moment {
        let grace = self.grace.while_revalidate.max(self.grace.if_error);
        let end = Moment(self.expires_at.0.saturating_add(grace.into()));
        end.min(self.idle_end(idle_ttl))
    }

    fn idle_end(&self, idle_ttl: Option<Duration>) -> Moment {
        idle_ttl.map_or(Moment::NEVER, |idle| self.used_at().after(idle))
    }

    fn used_at(&self) -> Moment {
        Moment(self.stored_at.0.saturating_add(u64::from(self.used) * USE_TICK_MS))
    }

    fn next_due(&self, rules: &Rules, salt: u64) -> Moment {
        let note_at = rules.idle_ttl.map_or(Moment::NEVER, |idle| self.used_at().after(idle / NOTES_PER_IDLE_TTL));
        self.refresh_at(rules.refresh_ahead, salt).min(note_at).min(self.expires_at)
    }
}

/// A number from 0 up to 1, the same for the same salt.
fn unit(salt: u64) -> f64 {
    // Its upper bits, after a multiplication that carries all of the lower ones there (Fibonacci hashing).
    (salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11) as f64 / (1u64 << 53) as f64
}

/// The lifetime of a value that is about to be stored; `None`: it does not expire.
pub(crate) fn lifetime(
    settings: &KeyspaceSettings,
    rule: Option<&ExpiresAt>,
    key: &str,
    value: &Bytes,
    named: Option<Duration>,
    chance: f32,
) -> Option<Duration> {
    if named.is_some() {
        return named;
    }
    let by_rule = rule.and_then(|rule| ask_rule(rule, key, value)).map(remaining_until);
    by_rule.or_else(|| settings.ttl.map(|ttl| jittered(ttl, settings.ttl_jitter, chance)))
}

/// A rule is a user's code: where it panics the keyspace's own lifetime holds.
fn ask_rule(rule: &ExpiresAt, key: &str, value: &Bytes) -> Option<SystemTime> {
    catch_unwind(AssertUnwindSafe(|| rule(key, value))).unwrap_or_else(|_| {
        tracing::error!(key, "the expiry rule panicked; the keyspace's lifetime is used");
        None
    })
}

/// The moment at which a lifetime that starts now ends.
pub(crate) fn end_of(lifetime: Option<Duration>, now: Moment) -> Moment {
    lifetime.map_or(Moment::NEVER, |lifetime| now.after(lifetime))
}

fn remaining_until(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO)
}

/// `chance` from 0 to 1 decides which part of the jitter is cut off.
fn jittered(ttl: Duration, jitter: f32, chance: f32) -> Duration {
    ttl.mul_f32((1.0 - jitter * chance).clamp(0.0, 1.0)).min(ttl)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn settings(ttl: Option<Duration>, ttl_jitter: f32) -> KeyspaceSettings {
        KeyspaceSettings { ttl, ttl_jitter, ..Default::default() }
    }

    const SECOND: u64 = 1_000;

    fn grace(while_revalidate: u64, if_error: u64) -> Grace {
        Grace { while_revalidate: (while_revalidate * SECOND) as u32, if_error: (if_error * SECOND) as u32 }
    }

    #[test]
    fn an_entry_is_fresh_then_stale_then_spare_then_gone() {
        let rules = Rules { refresh_ahead: 0.2, ..Default::default() };
        let times = Times::begin(Moment(0), Some(MINUTE), grace(10, 30), &rules, 0);
        let at = |seconds: u64| times.phase(&rules, 0, Moment(seconds * SECOND));
        assert_eq!(at(0), Phase::Fresh { refresh: false, note: false });
        assert_eq!(at(47), Phase::Fresh { refresh: false, note: false });
        assert_eq!(at(48), Phase::Fresh { refresh: true, note: false });
        assert_eq!(at(60), Phase::Stale);
        assert_eq!(at(69), Phase::Stale);
        assert_eq!(at(70), Phase::Spare);
        assert_eq!(at(89), Phase::Spare);
        assert_eq!(at(90), Phase::Gone);
    }

    #[test]
    fn an_entry_that_nobody_reads_is_gone_and_one_that_is_read_lives_on() {
        let rules = Rules { idle_ttl: Some(Duration::from_secs(8)), ..Default::default() };
        let mut times = Times::begin(Moment(0), None, grace(100, 100), &rules, 0);
        assert_eq!(times.phase(&rules, 0, Moment(8 * SECOND)), Phase::Gone, "and never stale");
        for second in 1..1_000 {
            let now = Moment(second * SECOND);
            assert_eq!(times.phase(&rules, 0, now), Phase::Fresh { refresh: false, note: true }, "second {second}");
            times.note_use(&rules, 0, now);
            assert_eq!(times.phase(&rules, 0, now), Phase::Fresh { refresh: false, note: false });
        }
        assert_eq!(times.gone_at(rules.idle_ttl), Moment(1_007 * SECOND));
    }

    #[test]
    fn an_entry_that_took_longer_to_come_than_it_may_lie_idle_is_there_all_the_same() {
        let rules = Rules { idle_ttl: Some(Duration::from_secs(2)), ..Default::default() };
        let (asked, came) = (Moment(0), Moment(5 * SECOND));
        let mut times = Times::begin(came, None, Grace::default(), &rules, 0);
        times.backdate(asked, came);
        assert_eq!(times.stored_at, asked);
        assert_ne!(times.phase(&rules, 0, Moment(6 * SECOND)), Phase::Gone);
        assert_eq!(times.gone_at(rules.idle_ttl), Moment(7 * SECOND));
    }

    #[test]
    fn being_read_does_not_outlive_the_lifetime() {
        let rules = Rules { idle_ttl: Some(Duration::from_secs(50)), ..Default::default() };
        let mut times = Times::begin(Moment(0), Some(MINUTE), Grace::default(), &rules, 0);
        times.note_use(&rules, 0, Moment(59 * SECOND));
        assert_eq!(times.phase(&rules, 0, Moment(60 * SECOND)), Phase::Gone);
    }

    #[test]
    fn what_never_expires_is_never_due() {
        let rules = Rules { refresh_ahead: 1.0, ..Default::default() };
        let times = Times::begin(Moment(5), None, grace(10, 10), &rules, 7);
        assert_eq!((times.due_at, times.gone_at(None)), (Moment::NEVER, Moment::NEVER));
    }

    #[test]
    fn what_is_named_wins_over_the_rule_and_the_rule_over_the_keyspace() {
        let rule: ExpiresAt =
            Arc::new(|key, _| (key == "ruled").then(|| SystemTime::now() + Duration::from_secs(3600)));
        let of = |key, named| lifetime(&settings(Some(MINUTE), 0.0), Some(&rule), key, &Bytes::new(), named, 0.5);
        assert_eq!(of("ruled", Some(Duration::from_secs(1))), Some(Duration::from_secs(1)));
        assert!(of("ruled", None).unwrap() > Duration::from_secs(3590));
        assert_eq!(of("other", None), Some(MINUTE));
        assert_eq!(lifetime(&settings(None, 0.0), None, "k", &Bytes::new(), None, 0.5), None);
    }

    #[test]
    fn a_rule_that_names_the_past_gives_no_lifetime() {
        let rule: ExpiresAt = Arc::new(|_, _| Some(SystemTime::UNIX_EPOCH));
        let lifetime = lifetime(&settings(None, 0.0), Some(&rule), "k", &Bytes::new(), None, 0.0);
        assert_eq!(lifetime, Some(Duration::ZERO));
        assert_eq!(end_of(lifetime, Moment(5)), Moment(5));
    }

    proptest! {
        #[test]
        fn jitter_only_shortens_and_never_by_more_than_its_part(
            millis in 1u64..10_000_000, jitter in 0f32..=1.0, chance in 0f32..=1.0,
        ) {
            let ttl = Duration::from_millis(millis);
            let cut = jittered(ttl, jitter, chance);
            prop_assert!(cut <= ttl);
            let floor = ttl.mul_f32((1.0 - jitter).max(0.0)).saturating_sub(Duration::from_millis(1 + millis / 1_000));
            prop_assert!(cut >= floor, "{cut:?} of {ttl:?} at {jitter}");
        }

        /// Whatever the settings and whenever it is read, an entry only ages, is never due after its end, and is swept exactly
        /// when no read could be answered from it.
        #[test]
        fn an_entry_only_ages(
            lifetime in prop::option::of(1u64..100_000), while_revalidate in 0u32..100_000, if_error in 0u32..100_000,
            idle in prop::option::of(1_000u64..50_000), refresh_ahead in 0f32..=1.0, salt: u64,
            stored in 0u64..1_000_000, steps in prop::collection::vec(0u64..30_000, 1..40),
        ) {
            let rules = Rules { idle_ttl: idle.map(Duration::from_millis), refresh_ahead };
            let grace = Grace { while_revalidate, if_error };
            let mut times = Times::begin(Moment(stored), lifetime.map(Duration::from_millis), grace, &rules, salt);
            let age = |phase| match phase {
                Phase::Fresh { refresh: false, .. } => 0,
                Phase::Fresh { refresh: true, .. } => 1,
                Phase::Stale => 2,
                Phase::Spare => 3,
                Phase::Gone => 4,
            };
            let (mut now, mut oldest) = (stored, 0);
            for step in steps {
                prop_assert!(times.due_at <= times.expires_at);
                prop_assert!(times.refresh_at(refresh_ahead, salt) >= Moment(stored));
                now += step;
                let phase = times.phase(&rules, salt, Moment(now));
                prop_assert!(age(phase) >= oldest, "{phase:?} after {oldest}");
                prop_assert_eq!(phase == Phase::Gone, times.gone_at(rules.idle_ttl) <= Moment(now));
                oldest = age(phase);
                if let Phase::Fresh { note: true, .. } = phase {
                    times.note_use(&rules, salt, Moment(now));
                }
            }
        }

        /// Entries that were stored at the same moment come due spread over half of the window.
        #[test]
        fn refreshes_of_entries_stored_together_are_spread(first: u64) {
            let rules = Rules { refresh_ahead: 0.2, ..Default::default() };
            let due = |n: u64| {
                Times::begin(Moment(0), Some(Duration::from_secs(1_000)), Grace::default(), &rules, first.wrapping_add(n)).due_at.0
            };
            let dues: Vec<u64> = (0..64).map(due).collect();
            let (earliest, latest) = (dues.iter().min().unwrap(), dues.iter().max().unwrap());
            prop_assert!(*earliest >= 800 * SECOND && *latest <= 900 * SECOND);
            prop_assert!(latest - earliest > 60 * SECOND, "{earliest} to {latest}");
        }
    }
}
