//! A table, or a query with one parameter, as a data source.
//!
//! Knows SQL and rows, nothing of caches. The invariant: a [`SqlSource`] that was opened has had its queries prepared by the
//! database, so a query that cannot work is found at the start and not at the first read.

use std::collections::HashMap;

use bytes::Bytes;
use distcache::{DataSource, Fetched, SourceError};
use futures_util::stream::{self, StreamExt};
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, SqlStr};

mod builder;
mod error;
mod row;

pub use builder::SqlSourceBuilder;
pub use error::SqlSourceError;

/// A data source that asks a database.
///
/// ```
/// use distcache_sources::sql::SqlSource;
///
/// # async fn open() -> Result<(), Box<dyn std::error::Error>> {
/// let users = SqlSource::connect("sqlite:shop.db").query("SELECT name FROM users WHERE id = ?1").open().await?;
/// let engine = distcache::Engine::builder().keyspace(distcache::KeyspaceSpec::new("users", users)).start().await?;
/// # Ok(()) }
/// ```
///
/// # The key
/// It is bound as text, to the only parameter of the query. SQLite compares text with an INTEGER, REAL or NUMERIC column by
/// number, so `WHERE id = ?1` finds row 42 under the key `"42"`, by the column's index; it finds the same row under `"042"`
/// and `"42.0"`, which are other keys to a cache. With `CAST(id AS TEXT) = ?1` there is one key a row, but no index.
///
/// # The value
/// The first row counts; no row is [`SourceError::NotFound`].
///
/// | the query has | the value is |
/// |---|---|
/// | one column | TEXT and BLOB as their bytes; INTEGER and REAL as decimal text; NULL is [`SourceError::NotFound`] |
/// | several columns | the row as a JSON object, column names in the order of the query; a BLOB stands in it as base64 |
///
/// # Many keys at once
/// [`query_many`](SqlSourceBuilder::query_many) makes a batch one round trip; [`table`](SqlSourceBuilder::table) derives it.
/// With [`query`](SqlSourceBuilder::query) alone, each key of a batch is asked by itself, as many at once as there are
/// connections.
///
/// # Errors
/// A database that is busy, locked, unreachable or out of connections is [`SourceError::Unavailable`]; everything else is
/// [`SourceError::Failed`].
#[derive(Debug)]
pub struct SqlSource {
    pool: SqlitePool,
    one: SqlStr,
    many: Option<SqlStr>,
    connections: usize,
}

impl SqlSource {
    /// Begins to describe a source in this database: `sqlite:shop.db`, `sqlite:///var/lib/shop.db` or `sqlite::memory:`.
    ///
    /// An SQLite file is opened read-only and is not created; see [`SqlSourceBuilder::read_only`].
    pub fn connect(url: impl Into<String>) -> SqlSourceBuilder {
        SqlSourceBuilder::new(url.into())
    }

    async fn one(&self, key: &str) -> Result<Fetched, SourceError> {
        let row = sqlx::query(self.one.clone()).bind(key).fetch_optional(&self.pool).await.map_err(error::of_source)?;
        let row = row.ok_or(SourceError::NotFound)?;
        row::value(&row, 0)?.map(Fetched::new).ok_or(SourceError::NotFound)
    }

    /// One round trip: the keys go as one JSON array, the rows come back with their key in the first column.
    async fn many(&self, query: &SqlStr, keys: &[&str]) -> Result<HashMap<String, Bytes>, SourceError> {
        let array = serde_json::to_string(keys).map_err(SourceError::failed)?;
        let mut rows = sqlx::query(query.clone()).bind(array).fetch(&self.pool);
        let mut found = HashMap::with_capacity(keys.len());
        while let Some(row) = rows.next().await {
            let row = row.map_err(error::of_source)?;
            if let (Some(key), Some(value)) = (row::text(&row, 0)?, row::value(&row, 1)?) {
                found.entry(key).or_insert(value);
            }
        }
        Ok(found)
    }

    async fn each(&self, keys: &[&str]) -> Vec<Result<Fetched, SourceError>> {
        let loads: Vec<_> = keys.iter().map(|key| self.one(key)).collect();
        stream::iter(loads).buffered(self.connections).collect().await
    }
}

impl DataSource for SqlSource {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        self.one(key).await
    }

    async fn fetch_many(&self, keys: &[&str]) -> Vec<Result<Fetched, SourceError>> {
        // SQLite ends the text of a JSON string at its first NUL.
        let any_nul = keys.iter().any(|key| key.contains('\0'));
        let Some(query) = self.many.as_ref().filter(|_| !any_nul) else {
            return self.each(keys).await;
        };
        match self.many(query, keys).await {
            Ok(found) => {
                let answer = |key: &&str| found.get(*key).cloned().map(Fetched::new).ok_or(SourceError::NotFound);
                keys.iter().map(answer).collect()
            }
            Err(error) => vec![Err(error); keys.len()],
        }
    }
}

fn sql(text: &str) -> SqlStr {
    use sqlx::SqlSafeStr as _;
    AssertSqlSafe(text.to_owned()).into_sql_str()
}
