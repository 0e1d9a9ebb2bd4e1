//! From the description of a keyspace to a keyspace with its source opened.

use std::path::Path;

use distcache::{DataSource, Fetched, KeyspaceSpec, SourceError};

use crate::config::{KeyspaceConfig, SourceConfig, SqlConfig};

/// Why a keyspace has no source.
#[derive(Debug, thiserror::Error)]
pub enum SourceProblem {
    #[cfg(feature = "sql")]
    #[error("keyspace {keyspace}: {error}")]
    Sql {
        keyspace: String,
        #[source]
        error: distcache_sources::sql::SqlSourceError,
    },
    #[cfg(not(feature = "sql"))]
    #[error("keyspace {keyspace}: this build has no SQL sources (cargo feature `sql`)")]
    NoSql { keyspace: String },
}

pub async fn open(config: &KeyspaceConfig, dir: &Path) -> Result<KeyspaceSpec, SourceProblem> {
    Ok(match &config.source {
        SourceConfig::None => with_settings(KeyspaceSpec::new(&config.name, Nothing), config),
        SourceConfig::Sql(sql) => with_settings(open_sql(&config.name, sql, dir).await?, config),
    })
}

#[cfg(feature = "sql")]
async fn open_sql(keyspace: &str, config: &SqlConfig, dir: &Path) -> Result<KeyspaceSpec, SourceProblem> {
    use crate::config::Question;
    use distcache_sources::sql::SqlSource;

    let mut source = SqlSource::connect(&config.url).base_dir(dir);
    if let Some(connections) = config.max_connections {
        source = source.max_connections(connections);
    }
    source = match &config.question {
        Question::Query { one, many } => match many {
            Some(many) => source.query(one).query_many(many),
            None => source.query(one),
        },
        Question::Table { table, key_column, columns } => {
            let source = source.table(table).columns(columns);
            match key_column {
                Some(column) => source.key_column(column),
                None => source,
            }
        }
    };
    let opened = source.open().await;
    let opened = opened.map_err(|error| SourceProblem::Sql { keyspace: keyspace.to_owned(), error })?;
    Ok(KeyspaceSpec::new(keyspace, opened))
}

#[cfg(not(feature = "sql"))]
async fn open_sql(keyspace: &str, _: &SqlConfig, _: &Path) -> Result<KeyspaceSpec, SourceProblem> {
    Err(SourceProblem::NoSql { keyspace: keyspace.to_owned() })
}

fn with_settings(spec: KeyspaceSpec, config: &KeyspaceConfig) -> KeyspaceSpec {
    let spec = set(spec, config.max_bytes, KeyspaceSpec::max_bytes);
    let spec = set(spec, config.eviction, KeyspaceSpec::eviction);
    let spec = set(spec, config.ttl, KeyspaceSpec::ttl);
    let spec = set(spec, config.ttl_jitter, KeyspaceSpec::ttl_jitter);
    let spec = set(spec, config.idle_ttl, KeyspaceSpec::idle_ttl);
    let spec = set(spec, config.negative_ttl, KeyspaceSpec::negative_ttl);
    let spec = set(spec, config.stale_while_revalidate, KeyspaceSpec::stale_while_revalidate);
    let spec = set(spec, config.stale_if_error, KeyspaceSpec::stale_if_error);
    let spec = set(spec, config.refresh_ahead, KeyspaceSpec::refresh_ahead);
    let spec = set(spec, config.refresh_hot_keys, KeyspaceSpec::refresh_hot_keys);
    let spec = set(spec, config.soft_timeout, KeyspaceSpec::soft_timeout);
    let spec = set(spec, config.load_timeout, KeyspaceSpec::load_timeout);
    let spec = set(spec, config.hot_copies, KeyspaceSpec::hot_copies);
    let spec = set(spec, config.lease, KeyspaceSpec::lease);
    let spec = set(spec, config.guard.clone(), KeyspaceSpec::guard);
    spec.warm_keys(&config.warm_keys)
}

/// What the file does not say is left to the library.
fn set<T>(spec: KeyspaceSpec, value: Option<T>, with: impl FnOnce(KeyspaceSpec, T) -> KeyspaceSpec) -> KeyspaceSpec {
    match value {
        Some(value) => with(spec, value),
        None => spec,
    }
}

/// The source of a keyspace that only knows what was put into it.
struct Nothing;

impl DataSource for Nothing {
    async fn fetch(&self, _: &str) -> Result<Fetched, SourceError> {
        Err(SourceError::NotFound)
    }
}
