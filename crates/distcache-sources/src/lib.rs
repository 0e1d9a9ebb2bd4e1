//! Ready data sources for [`distcache`]: what stands behind a keyspace without a line of code.
//!
//! Each source is a cargo feature of its own; none is on by default.
//!
//! | feature | source | values come from |
//! |---|---|---|
//! | `sql` or `sqlite` | [`sql::SqlSource`] | a table or a query of an SQLite database, compiled in |
//! | `postgres` | the same | … of a PostgreSQL database |
//! | `mysql` | the same | … of a MySQL or MariaDB database |
//! | `http` | [`http::HttpSource`] | an HTTP server, a GET for each key |
//! | `redis` | [`redis::RedisSource`] | strings in a Redis or Valkey server |
#![deny(missing_docs)]

#[cfg(feature = "http")]
pub mod http;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "redis"))]
mod redact;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub mod sql;

/// The code of the page on sources compiles.
#[cfg(all(doctest, feature = "sqlite", feature = "postgres", feature = "mysql", feature = "http", feature = "redis"))]
#[doc = include_str!("../../../docs/sources.md")]
struct Page;
