//! From the description of a keyspace to a keyspace with its source opened.

use std::path::Path;

use distcache::{DataSource, Fetched, KeyspaceSpec, SourceError};

use crate::config::{HttpConfig, KeyspaceConfig, RedisConfig, SourceConfig, SqlConfig};

/// Why a keyspace has no source.
#[derive(Debug, thiserror::Error)]
#[error("keyspace {keyspace}: {cause}")]
pub struct SourceProblem {
    keyspace: String,
    #[source]
    cause: Box<dyn std::error::Error + Send + Sync>,
}

/// A kind of source that this build does not have.
#[derive(Debug, thiserror::Error)]
#[error("this build has no sources of the kind \"{kind}\"; build it with the cargo feature {features} or `full`")]
#[cfg_attr(all(feature = "sql", feature = "http", feature = "redis"), allow(dead_code))]
struct NotBuiltIn {
    kind: &'static str,
    features: &'static str,
}

type Opened = Result<KeyspaceSpec, Box<dyn std::error::Error + Send + Sync>>;

pub async fn open(config: &KeyspaceConfig, dir: &Path) -> Result<KeyspaceSpec, SourceProblem> {
    let name = &config.name;
    let opened = match &config.source {
        SourceConfig::None => Ok(KeyspaceSpec::new(name, Nothing)),
        SourceConfig::Sql(sql) => open_sql(name, sql, dir).await,
        SourceConfig::Http(http) => open_http(name, http, dir),
        SourceConfig::Redis(redis) => open_redis(name, redis, dir).await,
    };
    let spec = opened.map_err(|cause| SourceProblem { keyspace: name.clone(), cause })?;
    Ok(with_settings(spec, config))
}

#[cfg(any(feature = "sql", feature = "postgres", feature = "mysql"))]
async fn open_sql(keyspace: &str, config: &SqlConfig, dir: &Path) -> Opened {
    use crate::config::Question;
    use distcache_sources::sql::{KeyType, SqlSource, SqlSourceBuilder};

    let source = SqlSource::connect(&config.url).base_dir(dir);
    let source = config.max_connections.into_iter().fold(source, SqlSourceBuilder::max_connections);
    let source = config.busy_timeout.into_iter().fold(source, SqlSourceBuilder::busy_timeout);
    let source = config.read_only.into_iter().fold(source, SqlSourceBuilder::read_only);
    let source = config.password_file.iter().fold(source, SqlSourceBuilder::password_file);
    let source = match &config.question {
        Question::Query { one, many, integer_keys } => {
            let source = many.iter().fold(source.query(one), SqlSourceBuilder::query_many);
            if *integer_keys { source.key_type(KeyType::Integer) } else { source }
        }
        Question::Table { table, key_column, columns } => {
            key_column.iter().fold(source.table(table).columns(columns), SqlSourceBuilder::key_column)
        }
    };
    Ok(KeyspaceSpec::new(keyspace, source.open().await?))
}

#[cfg(not(any(feature = "sql", feature = "postgres", feature = "mysql")))]
async fn open_sql(_: &str, _: &SqlConfig, _: &Path) -> Opened {
    Err(NotBuiltIn { kind: "sql", features: "`sql` (SQLite), `postgres`, `mysql`" }.into())
}

#[cfg(feature = "http")]
fn open_http(keyspace: &str, config: &HttpConfig, dir: &Path) -> Opened {
    use distcache_sources::http::{HttpSource, HttpSourceBuilder};

    let source = HttpSource::at(&config.url);
    let source = config.headers.iter().fold(source, |source, (name, value)| source.header(name, value));
    let files = config.header_files.iter();
    let source = files.fold(source, |source, (name, file)| source.header_file(name, dir.join(file)));
    let source = config.ca.iter().fold(source, |source, ca| source.ca_file(dir.join(ca)));
    let source = config.timeout.into_iter().fold(source, HttpSourceBuilder::timeout);
    let source = config.redirects_max.into_iter().fold(source, HttpSourceBuilder::redirects_max);
    let bytes_max = config.body_bytes_max.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let source = bytes_max.into_iter().fold(source, HttpSourceBuilder::body_bytes_max);
    Ok(KeyspaceSpec::new(keyspace, source.build()?))
}

#[cfg(not(feature = "http"))]
fn open_http(_: &str, _: &HttpConfig, _: &Path) -> Opened {
    Err(NotBuiltIn { kind: "http", features: "`http`" }.into())
}

#[cfg(feature = "redis")]
async fn open_redis(keyspace: &str, config: &RedisConfig, dir: &Path) -> Opened {
    use distcache_sources::redis::{RedisSource, RedisSourceBuilder};

    let source = RedisSource::connect(&config.url);
    let source = config.key_prefix.iter().fold(source, RedisSourceBuilder::key_prefix);
    let source = config.password_file.iter().fold(source, |source, file| source.password_file(dir.join(file)));
    let source = config.ca.iter().fold(source, |source, ca| source.ca_file(dir.join(ca)));
    let source = config.timeout.into_iter().fold(source, RedisSourceBuilder::timeout);
    Ok(KeyspaceSpec::new(keyspace, source.open().await?))
}

#[cfg(not(feature = "redis"))]
async fn open_redis(_: &str, _: &RedisConfig, _: &Path) -> Opened {
    Err(NotBuiltIn { kind: "redis", features: "`redis`" }.into())
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
