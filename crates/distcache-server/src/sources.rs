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

fn with_settings(mut spec: KeyspaceSpec, config: &KeyspaceConfig) -> KeyspaceSpec {
    if let Some(bytes) = config.max_bytes {
        spec = spec.max_bytes(bytes);
    }
    if let Some(ttl) = config.ttl {
        spec = spec.ttl(ttl);
    }
    if let Some(part) = config.ttl_jitter {
        spec = spec.ttl_jitter(part);
    }
    if let Some(ttl) = config.negative_ttl {
        spec = spec.negative_ttl(ttl);
    }
    if let Some(limit) = config.load_timeout {
        spec = spec.load_timeout(limit);
    }
    if let Some(keep) = config.hot_copies {
        spec = spec.hot_copies(keep);
    }
    if let Some(lease) = config.lease {
        spec = spec.lease(lease);
    }
    spec
}

/// The source of a keyspace that only knows what was put into it.
struct Nothing;

impl DataSource for Nothing {
    async fn fetch(&self, _: &str) -> Result<Fetched, SourceError> {
        Err(SourceError::NotFound)
    }
}
