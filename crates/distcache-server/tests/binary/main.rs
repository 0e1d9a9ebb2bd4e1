//! The built binary, as its users meet it: processes, sockets, files, exit codes.
//!
//! Nothing here sleeps for a fixed time: conditions are awaited, with a deadline.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "certs")]
mod certs;
mod check;
mod cluster;
mod commands;
mod data;
#[cfg(all(feature = "demo", target_os = "linux"))]
mod demo;
#[cfg(all(feature = "nats", unix))]
mod discovery;
mod http;
#[cfg(feature = "certs")]
mod https;
mod lifecycle;
mod limits;
mod metrics;
mod node;
#[cfg(all(feature = "otlp", unix))]
mod otlp;
mod secret;
#[cfg(feature = "certs")]
mod security;
mod shop;
mod sources;
#[cfg(feature = "certs")]
mod tls;
