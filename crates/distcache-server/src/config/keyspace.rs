//! The `[keyspaces.NAME]` sections.

use std::time::Duration;

use super::error::Reason;
use super::section::Section;
use super::source::{self, SourceConfig};

/// One keyspace; what is `None` is left to the library's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyspaceConfig {
    pub name: String,
    pub max_bytes: Option<u64>,
    pub ttl: Option<Duration>,
    pub ttl_jitter: Option<f32>,
    pub negative_ttl: Option<Duration>,
    pub load_timeout: Option<Duration>,
    pub hot_copies: Option<bool>,
    pub lease: Option<Duration>,
    pub source: SourceConfig,
}

const KNOWN: [&str; 8] =
    ["max_bytes", "ttl", "ttl_jitter", "negative_ttl", "load_timeout", "hot_copies", "lease", "source"];
const LATER: [&str; 5] = ["stale_while_revalidate", "stale_if_error", "idle_ttl", "refresh_ahead", "eviction"];
const MAX_BYTES_MIN: u64 = 64 << 10;
const NAME_BYTES_MAX: usize = 128;

pub(super) fn keyspaces(root: &mut Section<'_>) -> Result<Vec<KeyspaceConfig>, Reason> {
    let sections = root.sections("keyspaces", &KNOWN, &LATER)?;
    sections.into_iter().map(|(name, section)| keyspace(name, section)).collect()
}

fn keyspace(name: String, mut section: Section<'_>) -> Result<KeyspaceConfig, Reason> {
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_plain {
        let name = name.escape_debug();
        let problem = format!("`{name}` is no name: expected 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.'");
        return Err(section.senseless(problem));
    }
    Ok(KeyspaceConfig {
        name,
        max_bytes: section.size("max_bytes", MAX_BYTES_MIN)?,
        ttl: section.duration("ttl")?,
        ttl_jitter: section.part("ttl_jitter")?,
        negative_ttl: section.duration("negative_ttl")?,
        load_timeout: section.duration("load_timeout")?,
        hot_copies: section.boolean("hot_copies")?,
        lease: section.duration("lease")?,
        source: source::source(&mut section)?,
    })
}
