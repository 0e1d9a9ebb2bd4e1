//! Whole nodes through the public API: one to five engines in this process, over real loopback sockets.

#![allow(clippy::unwrap_used)]

mod attacks;
mod cluster;
mod discovery;
mod dns;
mod expiry;
mod failures;
mod flights;
mod guard;
mod harness;
mod hot;
mod keyspaces;
mod latencies;
mod logbook;
mod many;
mod moving;
mod reads;
mod stale;
mod traces;
mod trust;
mod typed;
mod writes;
