//! SQLite: a file, or a database in memory.
//!
//! Knows SQLite's dialect and its rows. The invariant: a key is compared as the database compares text.

use std::borrow::Cow;
use std::collections::HashMap;
use std::str::FromStr;

use bytes::Bytes;
use distcache::SourceError;
use futures_util::StreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{ConnectOptions, Decode, Either, Executor, Row, SqlStr, Statement, TypeInfo, ValueRef};

use super::builder::{SqlSourceBuilder, Table};
use super::error::{self, SqlSourceError};
use super::value::{self, Cell, Cells};
use super::{Answers, sql};

#[derive(Debug)]
pub(super) struct Sqlite {
    pool: SqlitePool,
    one: SqlStr,
    many: Option<SqlStr>,
}

impl Sqlite {
    pub(super) async fn open(builder: &SqlSourceBuilder) -> Result<Self, SqlSourceError> {
        let (one, many) = builder.queries(derived)?;
        let options = options(builder)?;
        let pool = SqlitePoolOptions::new()
            .max_connections(builder.max_connections.max(1))
            .acquire_timeout(builder.busy_timeout)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(|error| builder.not_open(error))?;
        check(&pool, &one, 1).await?;
        if let Some(many) = &many {
            check(&pool, many, 2).await?;
        }
        Ok(Self { pool, one: sql(&one), many: many.as_deref().map(sql) })
    }

    pub(super) async fn one(&self, key: &str) -> Result<Option<Bytes>, SourceError> {
        let row = sqlx::query(self.one.clone()).bind(key).fetch_optional(&self.pool).await.map_err(of_source)?;
        row.map_or(Ok(None), |row| value::value(&row, 0))
    }

    /// The keys go as one JSON array, the rows come back with their key in the first column.
    pub(super) async fn many(&self, keys: &[&str]) -> Option<Answers> {
        // SQLite ends the text of a JSON string at its first NUL.
        let any_nul = keys.iter().any(|key| key.contains('\0'));
        let query = self.many.as_ref().filter(|_| !any_nul)?;
        Some(self.joined(query, keys).await)
    }

    async fn joined(&self, query: &SqlStr, keys: &[&str]) -> Answers {
        let array = serde_json::to_string(keys).map_err(SourceError::failed)?;
        let mut rows = sqlx::query(query.clone()).bind(array).fetch(&self.pool);
        let mut found = HashMap::with_capacity(keys.len());
        while let Some(row) = rows.next().await {
            let row = row.map_err(of_source)?;
            if let (Some(key), Some(value)) = (value::text(&row, 0)?, value::value(&row, 1)?) {
                found.entry(key).or_insert(value);
            }
        }
        Ok(keys.iter().map(|key| found.get(*key).cloned()).collect())
    }
}

fn options(builder: &SqlSourceBuilder) -> Result<SqliteConnectOptions, SqlSourceError> {
    let options = SqliteConnectOptions::from_str(&builder.url)
        .map_err(|error| builder.bad_url(error))?
        .busy_timeout(builder.busy_timeout)
        .disable_statement_logging();
    if builder.url.contains(":memory:") || builder.url.contains("mode=memory") {
        return Ok(options);
    }
    let file = builder.in_base_dir(options.get_filename());
    Ok(options.filename(file).read_only(builder.read_only).create_if_missing(false))
}

fn derived(table: &Table) -> (String, Option<String>) {
    let (from, key) = (quoted(&table.name), quoted(&table.key_column));
    let columns = table.selected(quoted);
    let one = format!("SELECT {columns} FROM {from} WHERE {from}.{key} = ?1 LIMIT 1");
    // CROSS JOIN keeps the order: a look-up by index for each key asked, never a scan of the table.
    let many = format!(
        "SELECT \"distcache asked\".value, {columns} FROM json_each(?1) AS \"distcache asked\" \
         CROSS JOIN {from} ON {from}.{key} = \"distcache asked\".value"
    );
    (one, Some(many))
}

/// An SQL identifier that means this name and nothing else.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn check(pool: &SqlitePool, query: &str, columns_min: usize) -> Result<(), SqlSourceError> {
    let refused = |reason: String| SqlSourceError::query(query, reason);
    let mut connection = pool.acquire().await.map_err(|error| refused(error.to_string()))?;
    let statement = connection.prepare(sql(query)).await.map_err(|error| refused(error::plain(&error)))?;
    match statement.parameters() {
        Some(Either::Right(n)) => error::only_parameter(query, n)?,
        _ => return Err(refused("its parameters are not known".into())),
    }
    error::enough_columns(query, statement.columns().len(), columns_min)
}

/// Primary result codes that pass: INTERRUPT, BUSY, LOCKED, NOMEM, IOERR, FULL, CANTOPEN, PROTOCOL, SCHEMA.
/// <https://www.sqlite.org/rescode.html>
const PASSING_CODES: [i64; 9] = [9, 5, 6, 7, 10, 13, 14, 15, 17];

fn of_source(error: sqlx::Error) -> SourceError {
    error::of_source(error, |error| {
        let extended = error.code().and_then(|code| code.parse::<i64>().ok());
        extended.is_some_and(|extended| PASSING_CODES.contains(&(extended & 0xff)))
    })
}

/// As SQLite stores it, whatever the column was declared as.
impl Cells for SqliteRow {
    fn cell(&self, column: usize) -> Result<Cell<'_>, SourceError> {
        let value = self.try_get_raw(column).map_err(SourceError::failed)?;
        if value.is_null() {
            return Ok(Cell::Null);
        }
        let kind = value.type_info();
        match kind.name() {
            "INTEGER" => Decode::<sqlx::Sqlite>::decode(value).map(Cell::Integer),
            "REAL" => Decode::<sqlx::Sqlite>::decode(value).map(Cell::Real),
            "TEXT" => Decode::<sqlx::Sqlite>::decode(value).map(|text| Cell::Text(Cow::Borrowed(text))),
            _ => Decode::<sqlx::Sqlite>::decode(value).map(Cell::Blob),
        }
        .map_err(SourceError::failed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::SqlSource;
    use super::*;

    #[test]
    fn a_name_with_quotes_stays_one_name() {
        assert_eq!(quoted(r#"a"; DROP TABLE b; --"#), r#""a""; DROP TABLE b; --""#);
    }

    #[test]
    fn a_table_becomes_two_queries() {
        let builder = SqlSource::connect("sqlite:x").table("users").key_column("uid").columns(["name", "age"]);
        let (one, many) = builder.queries(derived).unwrap();
        assert_eq!(one, r#"SELECT "users"."name", "users"."age" FROM "users" WHERE "users"."uid" = ?1 LIMIT 1"#);
        assert!(many.unwrap().contains("json_each(?1)"));
    }

    #[test]
    fn a_relative_file_is_relative_to_the_base_directory() {
        let at = |url: &str| {
            let options = options(&SqlSource::connect(url).base_dir("/etc/cache")).unwrap();
            options.get_filename().to_str().unwrap().to_owned()
        };
        assert_eq!(at("sqlite:shop.db"), "/etc/cache/shop.db");
        assert_eq!(at("sqlite:///var/shop.db"), "/var/shop.db");
        assert!(!at("sqlite::memory:").starts_with("/etc"));
    }
}
