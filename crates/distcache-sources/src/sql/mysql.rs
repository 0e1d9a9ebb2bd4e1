//! MySQL and MariaDB.
//!
//! Knows their dialect and their errors. The invariant: text is never compared with a number, since these databases then compare
//! with the number that the text begins with.

use std::collections::HashMap;
use std::str::FromStr;

use bytes::Bytes;
use distcache::SourceError;
use futures_util::StreamExt;
use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlDatabaseError, MySqlPool, MySqlPoolOptions};
use sqlx::query::Query;
use sqlx::{Column, ConnectOptions, Connection, Either, Executor, SqlStr, Statement, TypeInfo};

use super::builder::{KeyType, SqlSourceBuilder, Table};
use super::error::{self, SqlSourceError};
use super::url::MYSQL_PARAMETERS;
use super::{Answers, sql, value};

mod cell;
mod key;

use cell::Form;
use key::{Key, parsed};

/// A connection that was idle for longer is asked whether it is still one before a question goes over it.
const TRUSTED_FOR: std::time::Duration = std::time::Duration::from_secs(1);
/// The longest key, in characters, that a derived query takes among others.
const JOINED_CHARS_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Mysql {
    pool: MySqlPool,
    key_type: KeyType,
    one: SqlStr,
    many: Option<SqlStr>,
}

impl Mysql {
    pub(super) async fn open(builder: &SqlSourceBuilder) -> Result<Self, SqlSourceError> {
        let (one, given_many) = builder.queries(|table| (one_of(table), None))?;
        let pool = pool(builder).await?;
        let table = match builder.described_table() {
            Some(table) => Some((key_form(&pool, &table).await?, table)),
            None => None,
        };
        check(&pool, &one, 1).await?;
        let many = match (given_many, &table) {
            (Some(many), _) => {
                check(&pool, &many, 2).await?;
                Some(many)
            }
            (None, Some((form, table))) => derived_many(&pool, table, *form).await?,
            (None, None) => None,
        };
        let key_type = match table {
            Some((Form::Signed | Form::Unsigned, _)) => KeyType::Integer,
            Some(_) => KeyType::Text,
            None => builder.key_type,
        };
        Ok(Self { pool, key_type, one: sql(&one), many: many.as_deref().map(sql) })
    }

    pub(super) async fn one(&self, key: &str) -> Result<Option<Bytes>, SourceError> {
        let Some(key) = parsed(self.key_type, key) else { return Ok(None) };
        match bound(sqlx::query(self.one.clone()), key).fetch_optional(&self.pool).await {
            Ok(row) => row.map_or(Ok(None), |row| value::value(&row, 0)),
            Err(error) if number(&error) == Some(ILLEGAL_MIX_OF_COLLATIONS) => Ok(None),
            Err(error) => Err(of_source(error)),
        }
    }

    pub(super) async fn many(&self, keys: &[&str]) -> Option<Answers> {
        let fits = |key: &&str| !key.contains('\0') && key.chars().count() <= JOINED_CHARS_MAX;
        let query = self.many.as_ref().filter(|_| keys.iter().all(fits))?;
        Some(self.joined(query, keys).await)
    }

    /// The keys go as one JSON array, the rows come back with their key in the first column.
    async fn joined(&self, query: &SqlStr, keys: &[&str]) -> Answers {
        let known: Vec<Key<'_>> = keys.iter().filter_map(|key| parsed(self.key_type, key)).collect();
        let array = serde_json::to_string(&known).map_err(SourceError::failed)?;
        let mut rows = sqlx::query(query.clone()).bind(array).fetch(&self.pool);
        let mut found = HashMap::with_capacity(known.len());
        while let Some(row) = rows.next().await {
            let row = row.map_err(of_source)?;
            if let (Some(key), Some(value)) = (value::text(&row, 0)?, value::value(&row, 1)?) {
                found.entry(key).or_insert(value);
            }
        }
        let spelling = |key: &&str| parsed(self.key_type, key).map(|key| key.to_string());
        Ok(keys.iter().map(|key| found.get(&spelling(key)?).cloned()).collect())
    }
}

fn bound<'q>(query: Query<'q, sqlx::MySql, MySqlArguments>, key: Key<'q>) -> Query<'q, sqlx::MySql, MySqlArguments> {
    match key {
        Key::Text(text) => query.bind(text),
        Key::Signed(n) => query.bind(n),
        Key::Unsigned(n) => query.bind(n),
    }
}

async fn pool(builder: &SqlSourceBuilder) -> Result<MySqlPool, SqlSourceError> {
    builder.known_parameters(MYSQL_PARAMETERS)?;
    let options = MySqlConnectOptions::from_str(&builder.url).map_err(|error| builder.bad_url(error))?;
    let mut options = options.disable_statement_logging();
    if let Some(password) = builder.password()? {
        options = options.password(&password);
    }
    let pool = MySqlPoolOptions::new()
        .max_connections(builder.max_connections.max(1))
        .acquire_timeout(builder.busy_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move { Ok(meta.idle_for < TRUSTED_FOR || connection.ping().await.is_ok()) })
        });
    let pool = if builder.read_only {
        pool.after_connect(|connection, _| {
            Box::pin(async move { connection.execute("SET SESSION TRANSACTION READ ONLY").await.map(drop) })
        })
    } else {
        pool
    };
    pool.connect_with(options).await.map_err(|error| builder.not_open(error))
}

fn one_of(table: &Table) -> String {
    let (from, key) = (quoted(&table.name), quoted(&table.key_column));
    format!("SELECT {} FROM {from} WHERE {from}.{key} = ? LIMIT 1", table.selected(quoted))
}

/// STRAIGHT_JOIN keeps the order: a look-up by index for each key asked, never a scan of the table.
///
/// `None` where keys are better asked one by one: the database has no JSON_TABLE (before MySQL 8.0 and MariaDB 10.6), or the
/// column holds text that is no UTF-8 of up to four bytes, so that a key and its copy in the table's character set may differ.
async fn derived_many(pool: &MySqlPool, table: &Table, key: Form) -> Result<Option<String>, SqlSourceError> {
    let (column, comparison) = match key {
        Form::Signed => ("BIGINT", String::new()),
        Form::Unsigned => ("BIGINT UNSIGNED", String::new()),
        _ => match collation(pool, table).await? {
            Some(collation) => ("VARCHAR(1024) CHARACTER SET utf8mb4", format!(" COLLATE {collation}")),
            None => return Ok(None),
        },
    };
    let (from, key) = (quoted(&table.name), quoted(&table.key_column));
    let many = format!(
        "SELECT `distcache asked`.k, {} FROM JSON_TABLE(?, '$[*]' COLUMNS (k {column} PATH '$')) AS `distcache asked` \
         STRAIGHT_JOIN {from} ON {from}.{key} = `distcache asked`.k{comparison}",
        table.selected(quoted)
    );
    Ok(check(pool, &many, 2).await.is_ok().then_some(many))
}

/// That of the key column, if it is one of utf8mb4.
async fn collation(pool: &MySqlPool, table: &Table) -> Result<Option<String>, SqlSourceError> {
    let query = "SELECT COLLATION_NAME FROM information_schema.COLUMNS \
                 WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND COLUMN_NAME = ?";
    let asked = sqlx::query_scalar::<_, Option<String>>(query).bind(&table.name).bind(&table.key_column);
    let found = asked.fetch_optional(pool).await.map_err(|error| SqlSourceError::query(query, error::plain(&error)))?;
    Ok(found.flatten().filter(|name| {
        name.starts_with("utf8mb4_") && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    }))
}

async fn key_form(pool: &MySqlPool, table: &Table) -> Result<Form, SqlSourceError> {
    let query = format!("SELECT {} FROM {}", quoted(&table.key_column), quoted(&table.name));
    let refused = |reason: String| SqlSourceError::query(&query, reason);
    let mut connection = pool.acquire().await.map_err(|error| refused(error.to_string()))?;
    let statement = connection.prepare(sql(&query)).await.map_err(|error| refused(error::plain(&error)))?;
    let column = statement.columns().first().ok_or_else(|| refused("it returns no column".into()))?;
    match Form::of(column.type_info()) {
        Some(form @ (Form::Signed | Form::Unsigned | Form::Text | Form::Blob)) => Ok(form),
        _ => {
            let (name, kind) = (&table.key_column, column.type_info().name());
            Err(refused(format!("`{name}` is of type {kind}, which is neither an integer nor text; give a `query`")))
        }
    }
}

/// An SQL identifier that means this name and nothing else.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

async fn check(pool: &MySqlPool, query: &str, columns_min: usize) -> Result<(), SqlSourceError> {
    let refused = |reason: String| SqlSourceError::query(query, reason);
    let mut connection = pool.acquire().await.map_err(|error| refused(error.to_string()))?;
    let statement = connection.prepare(sql(query)).await.map_err(|error| refused(error::plain(&error)))?;
    match statement.parameters() {
        Some(Either::Right(n)) => error::only_parameter(query, n)?,
        _ => return Err(refused("its parameters are not known".into())),
    }
    error::enough_columns(query, statement.columns().len(), columns_min)?;
    match statement.columns().iter().find(|column| Form::of(column.type_info()).is_none()) {
        None => Ok(()),
        Some(column) => {
            let (name, kind) = (column.name(), column.type_info().name());
            Err(refused(format!("its column `{name}` is of type {kind}; convert it to text")))
        }
    }
}

/// Errors that pass: out of disk, memory, connections or sorting space; shutting down or starting; the network; locks and
/// deadlocks; killed, or over its time.
/// <https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html>, <https://mariadb.com/kb/en/mariadb-error-codes/>
const PASSING: [u16; 25] = [
    1021, 1037, 1038, 1040, 1041, 1042, 1053, 1077, 1078, 1079, 1135, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1205,
    1213, 1226, 1317, 1927, 1969, 3024,
];

/// For a query that was prepared: the key has letters that the column's character set lacks, so no row has it.
const ILLEGAL_MIX_OF_COLLATIONS: u16 = 1267;

fn number(error: &sqlx::Error) -> Option<u16> {
    error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

fn of_source(error: sqlx::Error) -> SourceError {
    error::of_source(error, |error| {
        error.try_downcast_ref::<MySqlDatabaseError>().is_some_and(|error| PASSING.contains(&error.number()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_becomes_a_query() {
        let table = Table { name: "us`ers".into(), key_column: "uid".into(), columns: vec!["name".into()] };
        assert_eq!(one_of(&table), "SELECT `us``ers`.`name` FROM `us``ers` WHERE `us``ers`.`uid` = ? LIMIT 1");
    }
}
