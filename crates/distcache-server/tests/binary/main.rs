//! The built binary, as its users meet it: processes, sockets, files, exit codes.
//!
//! Nothing here sleeps for a fixed time: conditions are awaited, with a deadline.
#![allow(clippy::unwrap_used)]

mod check;
mod cluster;
mod commands;
mod data;
#[cfg(all(feature = "demo", target_os = "linux"))]
mod demo;
mod http;
mod lifecycle;
mod node;
mod shop;
