//! Ready data sources for [`distcache`]: what stands behind a keyspace without a line of code.
//!
//! Each source is a cargo feature of its own; none is on by default.
//!
//! | feature | source | values come from |
//! |---|---|---|
//! | `sql` | [`sql::SqlSource`] | a table or a query of an SQLite database |
#![deny(missing_docs)]

#[cfg(feature = "sql")]
pub mod sql;
