//! Fresh or gone: how long an entry lives.
//!
//! Pure: time and chance come in as arguments. Knows neither store nor source. The invariant: what the caller of `put` says
//! wins over what the source says, which wins over the keyspace's rule, which wins over its `ttl`; and no lifetime is ever
//! lengthened by jitter.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::net::Moment;
use crate::spec::{ExpiresAt, KeyspaceSettings};

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
    }
}
