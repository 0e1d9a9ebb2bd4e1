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
mod keyspaces;
mod logbook;
mod many;
mod reads;
mod trust;
mod writes;
