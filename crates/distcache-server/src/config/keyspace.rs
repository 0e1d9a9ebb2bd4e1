//! The `[keyspaces.NAME]` sections.

use std::time::Duration;

use super::error::Reason;
use super::section::Section;

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

/// Where values come from.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceConfig {
    /// From `put` alone.
    None,
    Sql(SqlConfig),
}

#[derive(Clone, Debug, PartialEq)]
pub struct SqlConfig {
    pub url: String,
    pub question: Question,
    pub max_connections: Option<u32>,
}

/// What the database is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    Query { one: String, many: Option<String> },
    Table { table: String, key_column: Option<String>, columns: Vec<String> },
}

const KNOWN: [&str; 8] =
    ["max_bytes", "ttl", "ttl_jitter", "negative_ttl", "load_timeout", "hot_copies", "lease", "source"];
const LATER: [&str; 5] = ["stale_while_revalidate", "stale_if_error", "idle_ttl", "refresh_ahead", "eviction"];
const SOURCE_KNOWN: [&str; 8] =
    ["kind", "url", "query", "query_many", "table", "key_column", "columns", "max_connections"];
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
    let config = KeyspaceConfig {
        name,
        max_bytes: section.size("max_bytes", MAX_BYTES_MIN)?,
        ttl: section.duration("ttl")?,
        ttl_jitter: section.part("ttl_jitter")?,
        negative_ttl: section.duration("negative_ttl")?,
        load_timeout: section.duration("load_timeout")?,
        hot_copies: section.boolean("hot_copies")?,
        lease: section.duration("lease")?,
        source: SourceConfig::None,
    };
    let mut source = section.section("source", &SOURCE_KNOWN, &[])?;
    let kind = source.choice("kind", &["sql", "none"], &["http", "redis", "object_store"])?;
    let source = match kind {
        Some("sql") => SourceConfig::Sql(sql(&mut source)?),
        Some(_) => {
            source.nothing_left("a keyspace without a source has no such setting")?;
            SourceConfig::None
        }
        None if source.is_empty() => return Err(section.missing("source", "where values come from")),
        None => return Err(source.missing("kind", "\"sql\" or \"none\"")),
    };
    Ok(KeyspaceConfig { source, ..config })
}

fn sql(source: &mut Section<'_>) -> Result<SqlConfig, Reason> {
    let url = source.required("url", "a database such as \"sqlite:shop.db\"")?;
    let max_connections = source.integer("max_connections", 1..=1_000)?.map(|n| n as u32);
    let question = match (source.string("query")?, source.string("table")?) {
        (Some(one), None) => Question::Query { one, many: source.string("query_many")? },
        (None, Some(table)) => {
            let columns = source.strings("columns")?.unwrap_or_default();
            Question::Table { table, key_column: source.string("key_column")?, columns }
        }
        (Some(_), Some(_)) => return Err(source.senseless("both `query` and `table` are given; one is enough")),
        (None, None) => return Err(source.missing("query", "a query with one parameter, or `table`")),
    };
    source.nothing_left("it has no meaning beside the other settings of this source")?;
    Ok(SqlConfig { url, question, max_connections })
}
