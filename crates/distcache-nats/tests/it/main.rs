//! Nodes that find each other through a real `nats-server`, started for each test on a port of its own.

#![allow(clippy::unwrap_used)]

mod answers;
mod conformance;
mod credentials;
mod logins;
mod restarts;
mod secrets;
mod server;
mod tls;
