//! What can be wrong with an SQL source when it is opened, and what a failed question means to the cache.

use std::error::Error as StdError;

use distcache::SourceError;

/// Why an SQL source was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlSourceError {
    /// The URL names no database that is supported.
    #[error("database URL {url:?}: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The database does not open.
    #[error("cannot open the database {url:?}: {cause}")]
    Open {
        /// The URL.
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

/// Primary result codes of SQLite that pass: INTERRUPT, BUSY, LOCKED, NOMEM, IOERR, FULL, CANTOPEN, PROTOCOL, SCHEMA.
/// <https://www.sqlite.org/rescode.html>
const PASSING_CODES: [i64; 9] = [9, 5, 6, 7, 10, 13, 14, 15, 17];

pub(super) fn of_source(error: sqlx::Error) -> SourceError {
    let passing = match &error {
        sqlx::Error::Database(error) => {
            let code = error.code().and_then(|code| code.parse::<i64>().ok());
            code.is_some_and(|extended| PASSING_CODES.contains(&(extended & 0xff)))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    };
    if passing { SourceError::unavailable(error) } else { SourceError::failed(error) }
}

/// A URL as errors show it: without a password.
pub(super) fn without_password(url: &str) -> String {
    let login = url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)));
    match login {
        Some((scheme, (login, place))) => {
            let user = login.split_once(':').map_or(login, |(user, _)| user);
            format!("{scheme}://{user}:***@{place}")
        }
        None => url.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(without_password("postgres://ada:pa@ss/word@db:5432/shop"), "postgres://ada:***@db:5432/shop");
        assert_eq!(without_password("sqlite:shop.db"), "sqlite:shop.db");
        assert_eq!(without_password("sqlite://shop.db?mode=ro"), "sqlite://shop.db?mode=ro");
    }
}
