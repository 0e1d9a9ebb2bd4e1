//! What can be wrong with an SQL source when it is opened, and what a failed question means to the cache.

use std::error::Error as StdError;

use distcache::SourceError;
use sqlx::error::DatabaseError;

/// Why an SQL source was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlSourceError {
    /// The URL names no database that is supported.
    #[error("database URL {url:?}: {reason}")]
    Url {
        /// The URL, without its password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The database does not open.
    #[error("cannot open the database {url:?}: {cause}")]
    Open {
        /// The URL, without its password.
        url: String,
        /// The database's answer.
        #[source]
        cause: Box<dyn StdError + Send + Sync>,
    },
    /// The database refuses the query, or its answer cannot become a value.
    #[error("the query `{query}` cannot work: {reason}")]
    Query {
        /// The query.
        query: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is not said, or said twice, what to ask.
    #[error("{0}")]
    Incomplete(&'static str),
}

impl SqlSourceError {
    pub(super) fn query(query: &str, reason: impl Into<String>) -> Self {
        Self::Query { query: query.to_owned(), reason: reason.into() }
    }
}

pub(super) fn only_parameter(query: &str, parameters: usize) -> Result<(), SqlSourceError> {
    match parameters {
        1 => Ok(()),
        n => Err(SqlSourceError::query(query, format!("it has {n} parameters; it must have one, the key"))),
    }
}

pub(super) fn enough_columns(query: &str, columns: usize, min: usize) -> Result<(), SqlSourceError> {
    if columns >= min {
        return Ok(());
    }
    Err(SqlSourceError::query(query, format!("it returns {columns} columns; it must return {min} at least")))
}

/// The database's own words.
pub(super) fn plain(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    }
}

/// What an error means to the cache; `passes` knows the errors of the database.
pub(super) fn of_source(error: sqlx::Error, passes: impl Fn(&dyn DatabaseError) -> bool) -> SourceError {
    let passing = match &error {
        sqlx::Error::Database(error) => passes(error.as_ref()),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    };
    if passing { SourceError::unavailable(error) } else { SourceError::failed(error) }
}
