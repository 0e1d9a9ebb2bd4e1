//! A table, or a query with one parameter, as a data source.
//!
//! Knows SQL and rows, nothing of caches. The invariant: a [`SqlSource`] that was opened has had its queries prepared by the
//! database, so a query that cannot work is found at the start and not at the first read.

use bytes::Bytes;
use distcache::{DataSource, Fetched, SourceError};
use futures_util::stream::{self, StreamExt};
use sqlx::{AssertSqlSafe, SqlStr};

mod builder;
mod error;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod time;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod url;
mod value;

pub use builder::{KeyType, SqlSourceBuilder};
pub use error::SqlSourceError;

/// A data source that asks a database: SQLite, PostgreSQL, MySQL or MariaDB, as the URL says and the cargo features allow.
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
/// It is the only parameter of the query, and takes the type that the database wants there, so that `WHERE id = …` just works,
/// by the column's index.
///
/// | database | parameter | the key is |
/// |---|---|---|
/// | SQLite | `?1` | text, which it compares with an INTEGER, REAL or NUMERIC column by number |
/// | PostgreSQL | `$1` | what the prepared query says: an integer, a UUID, text or an enum; another type is refused when opened, and `$1::text::date` takes it |
/// | MySQL, MariaDB | `?` | with [`table`](SqlSourceBuilder::table) what the column is; with a query what [`key_type`](SqlSourceBuilder::key_type) says, text unless told |
///
/// A key that is no such integer or UUID is [`SourceError::NotFound`] without a question. Row 42 is found under `"42"` and also
/// under `"042"`, which is another key to a cache.
///
/// # The value
/// The first row counts; no row is [`SourceError::NotFound`].
///
/// | the query has | the value is |
/// |---|---|
/// | one column | text, binary data and JSON as their bytes; numbers, booleans, UUIDs, dates and times as text; NULL is [`SourceError::NotFound`] |
/// | several columns | the row as a JSON object, column names in the order of the query; binary data stands in it as base64, JSON as itself, decimal numbers with all their digits |
///
/// Times are written as in `2026-01-31T12:00:00.5`, with a `Z` where PostgreSQL's type has a zone. A column of a type that is
/// none of these is refused when the source is opened; a cast to text in the query takes it.
///
/// # Many keys at once
/// [`query_many`](SqlSourceBuilder::query_many) makes a batch one round trip; [`table`](SqlSourceBuilder::table) derives it.
/// With [`query`](SqlSourceBuilder::query) alone, each key of a batch is asked by itself, as many at once as there are
/// connections.
///
/// # Errors
/// A database that is busy, locked, unreachable, shutting down or out of connections is [`SourceError::Unavailable`];
/// everything else is [`SourceError::Failed`]. After a restart of the database, connections are made anew as they are needed.
#[derive(Debug)]
pub struct SqlSource {
    database: Database,
    connections: usize,
}

#[derive(Debug)]
enum Database {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::Sqlite),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Postgres),
    #[cfg(feature = "mysql")]
    Mysql(mysql::Mysql),
}

/// To a batch, in the order of its keys.
type Answers = Result<Vec<Option<Bytes>>, SourceError>;

impl SqlSource {
    /// Begins to describe a source in this database: `sqlite:shop.db`, `sqlite:///var/lib/shop.db`, `sqlite::memory:`,
    /// `postgres://user:password@host:5432/shop`, `mysql://user:password@host:3306/shop`.
    ///
    /// An SQLite file is opened read-only and is not created; see [`SqlSourceBuilder::read_only`]. What else may stand in a URL
    /// (`sslmode`, `sslrootcert`, a socket) is [on the page](https://github.com/distcache/distcache/blob/main/docs/sources.md).
    pub fn connect(url: impl Into<String>) -> SqlSourceBuilder {
        SqlSourceBuilder::new(url.into())
    }

    async fn one(&self, key: &str) -> Result<Fetched, SourceError> {
        let value = match &self.database {
            #[cfg(feature = "sqlite")]
            Database::Sqlite(database) => database.one(key).await,
            #[cfg(feature = "postgres")]
            Database::Postgres(database) => database.one(key).await,
            #[cfg(feature = "mysql")]
            Database::Mysql(database) => database.one(key).await,
        };
        value?.map(Fetched::new).ok_or(SourceError::NotFound)
    }

    /// In one round trip; `None` where there is no query for that, or not for these keys.
    async fn many(&self, keys: &[&str]) -> Option<Answers> {
        match &self.database {
            #[cfg(feature = "sqlite")]
            Database::Sqlite(database) => database.many(keys).await,
            #[cfg(feature = "postgres")]
            Database::Postgres(database) => database.many(keys).await,
            #[cfg(feature = "mysql")]
            Database::Mysql(database) => database.many(keys).await,
        }
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
        match self.many(keys).await {
            Some(Ok(values)) => {
                values.into_iter().map(|value| value.map(Fetched::new).ok_or(SourceError::NotFound)).collect()
            }
            Some(Err(error)) => vec![Err(error); keys.len()],
            None => self.each(keys).await,
        }
    }
}

fn sql(text: &str) -> SqlStr {
    use sqlx::SqlSafeStr as _;
    AssertSqlSafe(text.to_owned()).into_sql_str()
}
