//! The ready data sources against real databases and servers, started for each test on ports and in directories of their own.

#![allow(clippy::unwrap_used)]

#[cfg(feature = "http")]
mod http;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "http", feature = "mysql", feature = "postgres", feature = "redis"))]
mod server;
#[cfg(feature = "sqlite")]
mod sqlite;
