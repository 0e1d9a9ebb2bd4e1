//! Describing an SQL source, and opening it.
//!
//! Checks everything that can be checked before the first read; asks the database to prepare what it will be asked.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions, Either, Executor, Statement};

use super::error::without_password;
use super::{SqlSource, SqlSourceError, sql};

/// What to ask which database; [`open`](Self::open) makes it a source.
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `open`"]
pub struct SqlSourceBuilder {
    url: String,
    base_dir: Option<PathBuf>,
    query: Option<String>,
    query_many: Option<String>,
    table: Option<String>,
    key_column: String,
    columns: Vec<String>,
    max_connections: u32,
    busy_timeout: Duration,
    read_only: bool,
}

impl SqlSourceBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            base_dir: None,
            query: None,
            query_many: None,
            table: None,
            key_column: "id".into(),
            columns: Vec::new(),
            max_connections: 4,
            busy_timeout: Duration::from_secs(2),
            read_only: true,
        }
    }

    /// The question for one key, which is its only parameter: `SELECT name FROM users WHERE id = ?1`.
    pub fn query(mut self, query: impl Into<String>) -> Self {
        self.query = Some(query.into());
        self
    }

    /// The question for many keys: its only parameter is a JSON array of them, its first column the key.
    ///
    /// ```sql
    /// SELECT asked.value, users.name FROM json_each(?1) AS asked CROSS JOIN users ON users.id = asked.value
    /// ```
    /// answers each key as it was asked. `SELECT id, name FROM users WHERE id IN (SELECT value FROM json_each(?1))` is as
    /// good where a row has one spelling of its key. Of several rows with one key the first counts.
    pub fn query_many(mut self, query: impl Into<String>) -> Self {
        self.query_many = Some(query.into());
        self
    }

    /// Instead of queries: the table that the rows are in. Names are quoted; a name with a dot is one name.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.table = Some(table.into());
        self
    }

    /// With [`table`](Self::table): the column that holds the key; `id` unless told.
    pub fn key_column(mut self, column: impl Into<String>) -> Self {
        self.key_column = column.into();
        self
    }

    /// With [`table`](Self::table): the columns that make the value; all of them unless told.
    pub fn columns(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.columns = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Connections to the database, and so the most questions at once; 4 unless told.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// How long a question waits for a locked database or a free connection; 2 s unless told. The cache's load timeout
    /// bounds the whole question.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Whether the database is opened for reading alone; yes unless told.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// The directory that a relative file in the URL is relative to; that of the process unless told.
    pub fn base_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.base_dir = Some(dir.into());
        self
    }

    /// Opens the database and has it prepare the queries.
    ///
    /// # Errors
    /// A URL that names no database that is supported, a database that does not open, a query that the database refuses or
    /// that has not exactly one parameter.
    pub async fn open(self) -> Result<SqlSource, SqlSourceError> {
        let (one, many) = self.queries()?;
        let pool = self.pool().await?;
        check(&pool, &one, 1).await?;
        if let Some(many) = &many {
            check(&pool, many, 2).await?;
        }
        let connections = self.max_connections.max(1) as usize;
        Ok(SqlSource { pool, one: sql(&one), many: many.as_deref().map(sql), connections })
    }

    fn queries(&self) -> Result<(String, Option<String>), SqlSourceError> {
        match (&self.query, &self.table) {
            (Some(query), None) => Ok((query.clone(), self.query_many.clone())),
            (None, Some(table)) => Ok(self.derived(table)),
            (Some(_), Some(_)) => Err(SqlSourceError::Incomplete("both `query` and `table` are given; one is enough")),
            (None, None) => Err(SqlSourceError::Incomplete("neither `query` nor `table` is given")),
        }
    }

    fn derived(&self, table: &str) -> (String, Option<String>) {
        let (from, key) = (quoted(table), quoted(&self.key_column));
        let columns: Vec<String> = self.columns.iter().map(|column| format!("{from}.{}", quoted(column))).collect();
        let columns = if columns.is_empty() { format!("{from}.*") } else { columns.join(", ") };
        let one = format!("SELECT {columns} FROM {from} WHERE {from}.{key} = ?1 LIMIT 1");
        let many = self.query_many.clone().unwrap_or_else(|| {
            // CROSS JOIN keeps the order: a look-up by index for each key asked, never a scan of the table.
            format!(
                "SELECT \"distcache asked\".value, {columns} FROM json_each(?1) AS \"distcache asked\" \
                 CROSS JOIN {from} ON {from}.{key} = \"distcache asked\".value"
            )
        });
        (one, Some(many))
    }

    async fn pool(&self) -> Result<SqlitePool, SqlSourceError> {
        SqlitePoolOptions::new()
            .max_connections(self.max_connections.max(1))
            .acquire_timeout(self.busy_timeout)
            .test_before_acquire(false)
            .connect_with(self.options()?)
            .await
            .map_err(|error| SqlSourceError::Open { url: without_password(&self.url), cause: Box::new(error) })
    }

    fn options(&self) -> Result<SqliteConnectOptions, SqlSourceError> {
        if !self.url.starts_with("sqlite:") {
            let reason = "this version knows URLs that begin with `sqlite:`".into();
            return Err(SqlSourceError::Url { url: without_password(&self.url), reason });
        }
        let options = SqliteConnectOptions::from_str(&self.url)
            .map_err(|error| SqlSourceError::Url { url: without_password(&self.url), reason: error.to_string() })?
            .busy_timeout(self.busy_timeout)
            .disable_statement_logging();
        if self.url.contains(":memory:") || self.url.contains("mode=memory") {
            return Ok(options);
        }
        let file = match &self.base_dir {
            Some(dir) => dir.join(options.get_filename()),
            None => options.get_filename().to_owned(),
        };
        Ok(options.filename(file).read_only(self.read_only).create_if_missing(false))
    }
}

/// An SQL identifier that means this name and nothing else.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn check(pool: &SqlitePool, query: &str, columns_min: usize) -> Result<(), SqlSourceError> {
    let refused = |reason: String| SqlSourceError::Query { query: query.to_owned(), reason };
    let mut connection = pool.acquire().await.map_err(|error| refused(error.to_string()))?;
    let statement = connection.prepare(sql(query)).await.map_err(|error| refused(plain(&error)))?;
    match statement.parameters() {
        Some(Either::Right(1)) => {}
        Some(Either::Right(n)) => return Err(refused(format!("it has {n} parameters; it must have one, the key"))),
        _ => return Err(refused("its parameters are not known".into())),
    }
    let columns = statement.columns().len();
    if columns < columns_min {
        return Err(refused(format!("it returns {columns} columns; it must return {columns_min} at least")));
    }
    Ok(())
}

/// The database's own words.
fn plain(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_quotes_stays_one_name() {
        assert_eq!(quoted(r#"a"; DROP TABLE b; --"#), r#""a""; DROP TABLE b; --""#);
    }

    #[test]
    fn a_table_becomes_two_queries() {
        let builder = SqlSource::connect("sqlite:x").table("users").key_column("uid").columns(["name", "age"]);
        let (one, many) = builder.queries().unwrap();
        assert_eq!(one, r#"SELECT "users"."name", "users"."age" FROM "users" WHERE "users"."uid" = ?1 LIMIT 1"#);
        assert!(many.unwrap().contains("json_each(?1)"));
    }

    #[test]
    fn a_relative_file_is_relative_to_the_base_directory() {
        let at = |url: &str| {
            let options = SqlSource::connect(url).base_dir("/etc/cache").options().unwrap();
            options.get_filename().to_str().unwrap().to_owned()
        };
        assert_eq!(at("sqlite:shop.db"), "/etc/cache/shop.db");
        assert_eq!(at("sqlite:///var/shop.db"), "/var/shop.db");
        assert!(!at("sqlite::memory:").starts_with("/etc"));
    }
}
