//! Describing an SQL source, and opening it.
//!
//! Knows what all databases have in common. The invariant: what can be checked before the first read is checked here, or asked
//! of the database while it opens.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::SqlSourceError;
use super::{Database, SqlSource};
use crate::redact::without_password;

/// What to ask which database; [`open`](Self::open) makes it a source.
#[derive(Clone)]
#[must_use = "nothing is opened before `open`"]
pub struct SqlSourceBuilder {
    pub(super) url: String,
    pub(super) password_file: Option<PathBuf>,
    pub(super) base_dir: Option<PathBuf>,
    pub(super) query: Option<String>,
    pub(super) query_many: Option<String>,
    pub(super) table: Option<String>,
    pub(super) key_column: String,
    pub(super) key_type: KeyType,
    pub(super) columns: Vec<String>,
    pub(super) max_connections: u32,
    pub(super) busy_timeout: Duration,
    pub(super) read_only: bool,
}

/// What the keys of a query are, where the database does not say it: see [`SqlSourceBuilder::key_type`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyType {
    /// Text.
    #[default]
    Text,
    /// Whole numbers of up to 64 bits, with or without a sign.
    Integer,
}

impl SqlSourceBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            password_file: None,
            base_dir: None,
            query: None,
            query_many: None,
            table: None,
            key_column: "id".into(),
            key_type: KeyType::default(),
            columns: Vec::new(),
            max_connections: 4,
            busy_timeout: Duration::from_secs(2),
            read_only: true,
        }
    }

    /// The question for one key, which is its only parameter: `SELECT name FROM users WHERE id = ?1`, with PostgreSQL `$1`, with
    /// MySQL and MariaDB `?`.
    pub fn query(mut self, query: impl Into<String>) -> Self {
        self.query = Some(query.into());
        self
    }

    /// The question for many keys at once; its first column is the key, its only parameter what stands for all of them:
    ///
    /// | database | the parameter is | such as |
    /// |---|---|---|
    /// | SQLite | a JSON array of text | `SELECT asked.value, users.name FROM json_each(?1) AS asked CROSS JOIN users ON users.id = asked.value` |
    /// | PostgreSQL | an array | `SELECT id, name FROM users WHERE id = ANY($1)` |
    /// | MySQL, MariaDB | a JSON array of what [`key_type`](Self::key_type) says | `SELECT asked.id, name FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) AS asked STRAIGHT_JOIN users ON users.id = asked.id` |
    ///
    /// A row's key is compared with the keys asked letter by letter (integers and UUIDs of PostgreSQL by what they mean). Where
    /// the database is laxer, because a collation takes `Ada` and `ada` for one, answer each key as it was asked, as the first
    /// and the last of these do. Of several rows with one key the first counts.
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

    /// With [`query`](Self::query) and MySQL or MariaDB: what the keys are; text unless told.
    ///
    /// These databases do not say what a parameter is compared with, and compare text with a number by the number that the text
    /// begins with: the key `42nd` finds row 42. Say [`KeyType::Integer`] where the column is one. Other databases, and
    /// [`table`](Self::table), need no such help.
    pub fn key_type(mut self, key_type: KeyType) -> Self {
        self.key_type = key_type;
        self
    }

    /// Connections to the database, and so the most questions at once; 4 unless told.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// How long a question waits for a locked SQLite file or for a connection, made anew or free again; 2 s unless told. The
    /// cache's load timeout bounds the whole question.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Whether the database is asked for reading alone; yes unless told.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// With PostgreSQL, MySQL and MariaDB: the file that holds the password, so that it need not stand in the URL. White space
    /// around it does not count. Read once, when the source is opened.
    pub fn password_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.password_file = Some(file.into());
        self
    }

    /// The directory that a relative file (that of SQLite, or of the password) is relative to; that of the process unless told.
    pub fn base_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.base_dir = Some(dir.into());
        self
    }

    /// Opens the database and has it prepare the queries.
    ///
    /// # Errors
    /// A URL that names no database that is supported, a database that does not open, a query that the database refuses or
    /// that has not exactly one parameter, types of the key or the columns that are not known.
    pub async fn open(self) -> Result<SqlSource, SqlSourceError> {
        let connections = self.max_connections.max(1) as usize;
        let scheme = self.url.split(':').next().unwrap_or_default();
        let database = match scheme {
            #[cfg(feature = "sqlite")]
            "sqlite" => Database::Sqlite(Box::pin(super::sqlite::Sqlite::open(&self)).await?),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => Database::Postgres(Box::pin(super::postgres::Postgres::open(&self)).await?),
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => Database::Mysql(Box::pin(super::mysql::Mysql::open(&self)).await?),
            #[cfg(not(feature = "sqlite"))]
            "sqlite" => return Err(self.not_built_in("SQLite", "sqlite")),
            #[cfg(not(feature = "postgres"))]
            "postgres" | "postgresql" => return Err(self.not_built_in("PostgreSQL", "postgres")),
            #[cfg(not(feature = "mysql"))]
            "mysql" | "mariadb" => return Err(self.not_built_in("MySQL", "mysql")),
            _ => return Err(self.bad_url("expected one that begins with `sqlite:`, `postgres:` or `mysql:`")),
        };
        Ok(SqlSource { database, connections })
    }

    /// What was given, or what `derived` makes of the table.
    pub(super) fn queries(
        &self,
        derived: impl Fn(&Table) -> (String, Option<String>),
    ) -> Result<(String, Option<String>), SqlSourceError> {
        match (&self.query, self.described_table()) {
            (Some(query), None) => Ok((query.clone(), self.query_many.clone())),
            (None, Some(table)) => {
                let (one, many) = derived(&table);
                Ok((one, self.query_many.clone().or(many)))
            }
            (Some(_), Some(_)) => Err(SqlSourceError::Incomplete("both `query` and `table` are given; one is enough")),
            (None, None) => Err(SqlSourceError::Incomplete("neither `query` nor `table` is given")),
        }
    }

    pub(super) fn described_table(&self) -> Option<Table> {
        let name = self.table.clone()?;
        Some(Table { name, key_column: self.key_column.clone(), columns: self.columns.clone() })
    }

    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(super) fn password(&self) -> Result<Option<String>, SqlSourceError> {
        let Some(file) = &self.password_file else { return Ok(None) };
        let file = self.in_base_dir(file);
        let read = std::fs::read_to_string(&file).map_err(|error| {
            let cause = format!("the file of the password, {}: {error}", file.display()).into();
            SqlSourceError::Open { url: without_password(&self.url), cause }
        })?;
        Ok(Some(read.trim().to_owned()))
    }

    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(super) fn known_parameters(&self, known: &[&str]) -> Result<(), SqlSourceError> {
        match super::url::unknown_parameter(&self.url, known) {
            Some(name) => Err(self.bad_url(format!("it has no parameter `{name}`; known are: {}", known.join(", ")))),
            None => Ok(()),
        }
    }

    pub(super) fn in_base_dir(&self, file: &Path) -> PathBuf {
        self.base_dir.as_ref().map_or_else(|| file.to_owned(), |dir| dir.join(file))
    }

    pub(super) fn bad_url(&self, reason: impl ToString) -> SqlSourceError {
        SqlSourceError::Url { url: without_password(&self.url), reason: reason.to_string() }
    }

    pub(super) fn not_open(&self, error: impl Into<Box<dyn StdError + Send + Sync>>) -> SqlSourceError {
        SqlSourceError::Open { url: without_password(&self.url), cause: error.into() }
    }

    #[allow(dead_code)] // Where every database is built in.
    fn not_built_in(&self, database: &str, feature: &str) -> SqlSourceError {
        self.bad_url(format!("this build has no {database}; build it with the cargo feature `{feature}`"))
    }
}

impl fmt::Debug for SqlSourceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlSourceBuilder")
            .field("url", &without_password(&self.url))
            .field("query", &self.query)
            .field("query_many", &self.query_many)
            .field("table", &self.described_table())
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// What stands for queries.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) key_column: String,
    pub(super) columns: Vec<String>,
}

impl Table {
    /// The list behind SELECT, for names as the database quotes them.
    pub(super) fn selected(&self, quoted: impl Fn(&str) -> String) -> String {
        let from = quoted(&self.name);
        let columns: Vec<String> = self.columns.iter().map(|column| format!("{from}.{}", quoted(column))).collect();
        if columns.is_empty() { format!("{from}.*") } else { columns.join(", ") }
    }
}
