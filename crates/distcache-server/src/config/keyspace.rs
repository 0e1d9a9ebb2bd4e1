//! The `[keyspaces.NAME]` sections.

use std::ops::RangeInclusive;
use std::time::Duration;

use distcache::{Eviction, GuardSettings, Limits};

use super::error::Reason;
use super::guard::Guards;
use super::section::Section;
use super::source::{self, SourceConfig};

/// One keyspace; what is `None` is left to the library's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyspaceConfig {
    pub name: String,
    pub max_bytes: Option<u64>,
    pub eviction: Option<Eviction>,
    pub ttl: Option<Duration>,
    pub ttl_jitter: Option<f32>,
    pub idle_ttl: Option<Duration>,
    pub negative_ttl: Option<Duration>,
    pub stale_while_revalidate: Option<Duration>,
    pub stale_if_error: Option<Duration>,
    pub refresh_ahead: Option<f32>,
    pub refresh_hot_keys: Option<usize>,
    pub warm_keys: Vec<String>,
    pub soft_timeout: Option<Duration>,
    pub load_timeout: Option<Duration>,
    pub hot_copies: Option<bool>,
    pub lease: Option<Duration>,
    pub guard: Option<GuardSettings>,
    pub source: SourceConfig,
}

const KNOWN: [&str; 17] = [
    "max_bytes",
    "eviction",
    "ttl",
    "ttl_jitter",
    "idle_ttl",
    "negative_ttl",
    "stale_while_revalidate",
    "stale_if_error",
    "refresh_ahead",
    "refresh_hot_keys",
    "warm_keys",
    "soft_timeout",
    "load_timeout",
    "hot_copies",
    "lease",
    "guard",
    "source",
];
const MAX_BYTES_MIN: u64 = 64 << 10;
const NAME_BYTES_MAX: usize = 128;
/// As the library bounds them.
const GRACE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(30 * 24 * 3600);
const IDLE_TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::MAX;

const EVICTIONS: [(&str, Eviction); 4] = [
    ("scan-resistant", Eviction::ScanResistant),
    ("lru", Eviction::Lru),
    ("lfu", Eviction::Lfu),
    ("fifo", Eviction::Fifo),
];

pub fn eviction_name(eviction: Eviction) -> &'static str {
    EVICTIONS.iter().find(|(_, known)| *known == eviction).map_or("other", |(name, _)| name)
}

pub(super) fn keyspaces(
    root: &mut Section<'_>,
    guards: &Guards,
    limits: &Limits,
) -> Result<Vec<KeyspaceConfig>, Reason> {
    let sections = root.sections("keyspaces", &KNOWN, &[])?;
    sections.into_iter().map(|(name, section)| keyspace(name, section, guards, limits)).collect()
}

/// The rule for names of keyspaces, and of what they share.
pub(super) fn check_name(name: &str, section: &Section<'_>) -> Result<(), Reason> {
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_plain {
        let name = name.escape_debug();
        let problem = format!("`{name}` is no name: expected 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.'");
        return Err(section.senseless(problem));
    }
    Ok(())
}

fn keyspace(
    name: String,
    mut section: Section<'_>,
    guards: &Guards,
    limits: &Limits,
) -> Result<KeyspaceConfig, Reason> {
    check_name(&name, &section)?;
    let hot_keys = section.integer("refresh_hot_keys", 1..=limits.hot_keys_max as u64)?;
    Ok(KeyspaceConfig {
        name,
        max_bytes: section.size("max_bytes", MAX_BYTES_MIN)?,
        eviction: eviction(&mut section)?,
        ttl: section.duration("ttl")?,
        ttl_jitter: section.part("ttl_jitter")?,
        idle_ttl: section.duration_within("idle_ttl", IDLE_TTL)?,
        negative_ttl: section.duration("negative_ttl")?,
        stale_while_revalidate: section.duration_within("stale_while_revalidate", GRACE)?,
        stale_if_error: section.duration_within("stale_if_error", GRACE)?,
        refresh_ahead: section.part("refresh_ahead")?,
        refresh_hot_keys: hot_keys.map(|keys| keys as usize),
        warm_keys: section.keys("warm_keys", limits.warm_keys_max, limits.key_bytes_max)?.unwrap_or_default(),
        soft_timeout: section.duration("soft_timeout")?,
        load_timeout: section.duration("load_timeout")?,
        hot_copies: section.boolean("hot_copies")?,
        lease: section.duration("lease")?,
        guard: guards.of(&mut section)?,
        source: source::source(&mut section)?,
    })
}

fn eviction(section: &mut Section<'_>) -> Result<Option<Eviction>, Reason> {
    let word = section.choice("eviction", &EVICTIONS.map(|(name, _)| name), &[])?;
    Ok(EVICTIONS.into_iter().find(|(name, _)| Some(*name) == word).map(|(_, eviction)| eviction))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Config;

    fn keyspace_of(lines: &str) -> Result<KeyspaceConfig, String> {
        let text = format!("[keyspaces.u]\n{lines}\nsource = {{ kind = \"none\" }}\n[limits]\nwarm_keys_max = 2\n");
        let config = Config::parse(&text, PathBuf::new()).map_err(|reason| reason.to_string())?;
        Ok(config.keyspaces.into_iter().next().unwrap())
    }

    #[test]
    fn the_life_of_entries_is_as_the_file_says() {
        let second = Duration::from_secs(1);
        let keyspace = keyspace_of(
            r#"
            eviction = "lfu"
            idle_ttl = "30m"
            stale_while_revalidate = "30s"
            stale_if_error = "1h"
            refresh_ahead = "20%"
            refresh_hot_keys = 100
            warm_keys = ["home", "7"]
            soft_timeout = "200ms"
            "#,
        );
        let keyspace = keyspace.unwrap();
        assert_eq!(keyspace.eviction, Some(Eviction::Lfu));
        assert_eq!((keyspace.idle_ttl, keyspace.soft_timeout), (Some(1_800 * second), Some(second / 5)));
        assert_eq!(
            (keyspace.stale_while_revalidate, keyspace.stale_if_error),
            (Some(30 * second), Some(3_600 * second))
        );
        assert_eq!((keyspace.refresh_ahead, keyspace.refresh_hot_keys), (Some(0.2), Some(100)));
        assert_eq!(keyspace.warm_keys, ["home", "7"]);
        assert!(keyspace_of("").unwrap().warm_keys.is_empty());
    }

    #[test]
    fn every_eviction_is_written_as_it_is_read() {
        for (name, eviction) in EVICTIONS {
            assert_eq!(keyspace_of(&format!("eviction = {name:?}")).unwrap().eviction, Some(eviction));
            assert_eq!(eviction_name(eviction), name);
        }
    }

    #[test]
    fn rules_that_cannot_work_are_named_with_their_line_and_what_is_allowed() {
        let refused = |line: &str| keyspace_of(line).unwrap_err();
        assert_eq!(
            refused("eviction = \"lur\""),
            "`eviction = \"lur\"` in [keyspaces.u] at line 2: expected \"scan-resistant\", \"lru\", \"lfu\" or \"fifo\"; did you mean \"lru\"?"
        );
        assert!(refused("idle_ttl = \"10ms\"").ends_with("expected a duration of at least 1s, such as \"30m\""));
        assert!(refused("stale_if_error = \"31days\"").ends_with("expected a duration from 1ms to 30days"));
        assert!(refused("stale_while_revalidate = 5").contains("at line 2: expected a duration from 1ms to 30days"));
        assert!(refused("refresh_ahead = \"120%\"").contains("expected a part such as"));
        assert!(refused("refresh_hot_keys = 257").ends_with("expected a whole number from 1 to 256"));
        assert!(
            refused("warm_keys = [\"a\", \"b\", \"c\"]")
                .ends_with("expected a list of at most 2 strings of 1 to 1024 bytes")
        );
        assert!(refused("warm_keys = [\"\"]").contains("expected a list"));
        assert!(refused("soft_timeuot = \"1s\"").ends_with("did you mean `soft_timeout`?"));
    }
}
