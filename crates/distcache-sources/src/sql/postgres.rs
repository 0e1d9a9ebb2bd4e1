//! PostgreSQL.
//!
//! Knows its dialect and its error codes. The invariant: a parameter is sent as the type that the prepared query wants, since
//! PostgreSQL compares an integer with nothing but an integer.

use std::collections::HashMap;
use std::str::FromStr;

use bytes::Bytes;
use distcache::SourceError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow, PgTypeInfo, PgTypeKind};
use sqlx::{Column, ConnectOptions, Connection, Either, Executor, SqlStr, Statement, TypeInfo};

use super::builder::{SqlSourceBuilder, Table};
use super::error::{self, SqlSourceError};
use super::url::POSTGRES_PARAMETERS;
use super::{Answers, sql, value};

mod cell;
mod key;

use cell::Form;
use key::{Bound, KeyForm};

/// A connection that was idle for longer is asked whether it is still one before a question goes over it.
const TRUSTED_FOR: std::time::Duration = std::time::Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Postgres {
    pool: PgPool,
    one: Question,
    many: Option<Question>,
}

/// A prepared query, and how its parameter is sent.
#[derive(Debug)]
struct Question {
    sql: SqlStr,
    parameter: PgTypeInfo,
    form: KeyForm,
}

impl Postgres {
    pub(super) async fn open(builder: &SqlSourceBuilder) -> Result<Self, SqlSourceError> {
        let (one, many) = builder.queries(derived)?;
        let pool = pool(builder).await?;
        let one = question(&pool, &one, 1).await?;
        let many = match many {
            // What the database compares in ways of its own (an enum aside, whose labels are exact) is asked key by key.
            Some(_) if builder.query_many.is_none() && !one.form.is_exact() => None,
            Some(many) => Some(question(&pool, &many, 2).await?),
            None => None,
        };
        Ok(Self { pool, one, many })
    }

    pub(super) async fn one(&self, key: &str) -> Result<Option<Bytes>, SourceError> {
        let Some(bytes) = self.one.form.bytes(key) else { return Ok(None) };
        let rows = self.rows(&self.one, bytes, Rows::First).await?;
        rows.first().map_or(Ok(None), |row| value::value(row, 0))
    }

    pub(super) async fn many(&self, keys: &[&str]) -> Option<Answers> {
        Some(self.among(self.many.as_ref()?, keys).await)
    }

    async fn among(&self, question: &Question, keys: &[&str]) -> Answers {
        let known: Vec<Vec<u8>> = keys.iter().filter_map(|key| question.form.bytes(key)).collect();
        if known.is_empty() {
            return Ok(vec![None; keys.len()]);
        }
        let array = key::array(&question.parameter, &known)?;
        let mut found = HashMap::with_capacity(known.len());
        for row in self.rows(question, array, Rows::All).await? {
            if let (Some(key), Some(value)) = (value::text(&row, 0)?, value::value(&row, 1)?) {
                found.entry(question.form.spelling(&key).into_owned()).or_insert(value);
            }
        }
        Ok(keys.iter().map(|key| found.get(question.form.spelling(key).as_ref()).cloned()).collect())
    }

    async fn rows(&self, question: &Question, bytes: Vec<u8>, rows: Rows) -> Result<Vec<PgRow>, SourceError> {
        let mut connection = self.pool.acquire().await.map_err(of_source)?;
        let parameter = Bound { info: &question.parameter, bytes: &bytes };
        match ask(&mut connection, question, &parameter, rows).await {
            // The table has changed since this connection prepared the query: it is to be prepared anew, once.
            Err(error) if is_stale_plan(&error) => {
                connection.clear_cached_statements().await.map_err(of_source)?;
                ask(&mut connection, question, &parameter, rows).await.map_err(of_source)
            }
            answer => answer.map_err(of_source),
        }
    }
}

#[derive(Clone, Copy)]
enum Rows {
    First,
    All,
}

async fn ask(
    connection: &mut PoolConnection<sqlx::Postgres>,
    question: &Question,
    parameter: &Bound<'_>,
    rows: Rows,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let query = sqlx::query(question.sql.clone()).bind(parameter);
    match rows {
        Rows::First => Ok(query.fetch_optional(&mut **connection).await?.into_iter().collect()),
        Rows::All => query.fetch_all(&mut **connection).await,
    }
}

async fn pool(builder: &SqlSourceBuilder) -> Result<PgPool, SqlSourceError> {
    builder.known_parameters(POSTGRES_PARAMETERS)?;
    let options = PgConnectOptions::from_str(&builder.url).map_err(|error| builder.bad_url(error))?;
    let mut options = options.disable_statement_logging();
    if options.get_application_name().is_none() {
        options = options.application_name("distcache");
    }
    if let Some(password) = builder.password()? {
        options = options.password(&password);
    }
    if builder.read_only {
        options = options.options([("default_transaction_read_only", "on")]);
    }
    PgPoolOptions::new()
        .max_connections(builder.max_connections.max(1))
        .acquire_timeout(builder.busy_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move { Ok(meta.idle_for < TRUSTED_FOR || connection.ping().await.is_ok()) })
        })
        .connect_with(options)
        .await
        .map_err(|error| builder.not_open(error))
}

fn derived(table: &Table) -> (String, Option<String>) {
    let (from, key) = (quoted(&table.name), quoted(&table.key_column));
    let columns = table.selected(quoted);
    let one = format!("SELECT {columns} FROM {from} WHERE {from}.{key} = $1 LIMIT 1");
    let many = format!("SELECT {from}.{key}, {columns} FROM {from} WHERE {from}.{key} = ANY($1)");
    (one, Some(many))
}

/// An SQL identifier that means this name and nothing else.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Has the query prepared; `columns_min` is 2 for many keys at once.
async fn question(pool: &PgPool, query: &str, columns_min: usize) -> Result<Question, SqlSourceError> {
    let refused = |reason: String| SqlSourceError::query(query, reason);
    let mut connection = pool.acquire().await.map_err(|error| refused(error.to_string()))?;
    let statement = connection.prepare(sql(query)).await.map_err(|error| refused(error::plain(&error)))?;
    let Some(Either::Left(parameters)) = statement.parameters() else {
        return Err(refused("its parameters are not known".into()));
    };
    error::only_parameter(query, parameters.len())?;
    error::enough_columns(query, statement.columns().len(), columns_min)?;
    if let Some(column) = statement.columns().iter().find(|column| Form::of(column.type_info()).is_none()) {
        let (name, kind) = (column.name(), column.type_info().name());
        return Err(refused(format!("its column `{name}` is of type {kind}; cast it, as in `{name}::text`")));
    }
    let parameter = parameters[0].clone();
    let one = match (columns_min, parameter.kind()) {
        (1, _) => &parameter,
        (_, PgTypeKind::Array(element)) => element,
        _ => return Err(refused("its parameter has to be an array, as in `id = ANY($1)`".into())),
    };
    let Some(form) = KeyForm::of(one) else {
        let kind = one.name();
        let hint = format!("a key cannot be sent as one; send it as text, as in `$1::text::{}`", kind.to_lowercase());
        return Err(refused(format!("its parameter is of type {kind}: {hint}")));
    };
    Ok(Question { sql: sql(query), form, parameter })
}

/// Classes and codes that pass: lost connections, serialization and deadlocks, out of resources, locks, an operator's hand (the
/// server stops, starts, cancels), errors of the system below.
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
const PASSING: [&str; 6] = ["08", "40", "53", "55P03", "57", "58"];

fn of_source(error: sqlx::Error) -> SourceError {
    error::of_source(error, |error| {
        error.code().is_some_and(|code| PASSING.iter().any(|passing| code.starts_with(passing)))
    })
}

/// "cached plan must not change result type", or a statement that a pooler between here and there has lost.
fn is_stale_plan(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "0A000" || code == "26000")
}

#[cfg(test)]
mod tests {
    use super::super::SqlSource;
    use super::*;

    #[test]
    fn a_table_becomes_two_queries() {
        let builder = SqlSource::connect("postgres://x").table("us\"ers").key_column("uid").columns(["name"]);
        let (one, many) = builder.queries(derived).unwrap();
        assert_eq!(one, r#"SELECT "us""ers"."name" FROM "us""ers" WHERE "us""ers"."uid" = $1 LIMIT 1"#);
        assert!(many.unwrap().ends_with("= ANY($1)"));
    }
}
