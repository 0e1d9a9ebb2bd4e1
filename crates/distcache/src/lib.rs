//! A distributed read-through cache: nodes are peers that share the keys, and every value is loaded once for the whole cluster.
//!
//! Implement [`DataSource`], name a keyspace, start the [`Engine`]:
//!
//! ```
//! use std::time::Duration;
//! use distcache::{DataSource, Engine, Fetched, KeyspaceSpec, SourceError, StaticDiscovery};
//!
//! struct Users; // holds a connection pool, say
//!
//! impl DataSource for Users {
//!     async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
//!         Ok(Fetched::new(format!("user {key}"))) // a query
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let loopback = "127.0.0.1:0".parse()?;
//! let engine = Engine::builder()
//!     .keyspace(KeyspaceSpec::new("users", Users).max_bytes(64 << 20).ttl(Duration::from_secs(300)))
//!     .discovery(StaticDiscovery::new(["192.0.2.1:3322", "192.0.2.2:3322"]))
//! #   .peer_listen(loopback).gossip_listen(loopback).join_timeout(Duration::from_millis(10))
//!     .start()
//!     .await?;
//! let users = engine.keyspace("users")?;
//! assert_eq!(users.get("42").await?, "user 42");
//! # engine.shutdown(Duration::from_secs(1)).await;
//! # Ok(())
//! # }
//! ```
//!
//! A value is bytes here. `engine.typed::<User>("users", Json)` is the same keyspace with values of a type of yours, and a
//! [`TypedSource`] is a source of them.
//!
//! The modules in reading order, a get from top to bottom: `engine` (the front door), `keyspace` (the story of a key), `source`
//! (what a user implements), `typed` and `codec` (both with values of a type), `flight` (one question per key at a time), `guard`
//! (what stands before a source), `store` (what is held), `expiry` (how long), `hotkeys` (what is read the most), `ring` and
//! `placement` (who owns a key, since when), `lease` (who holds copies), `changes` and `holds` (what was written), `promise` (the rules of
//! all that), `views` (what a new view sets
//! off), `heal` and `partings` (when nodes meet again), `trust` (who is let in), `peer` (between nodes),
//! `cluster` and `discovery` (who the nodes are), `registry` and `keyspaces` (what is defined), `node` (what all of it shares),
//! `net` (sockets and clock), `stats` and `trace` (what there is to watch).
#![warn(missing_docs)]

mod builder;
mod changes;
mod cluster;
mod codec;
pub mod discovery;
mod engine;
mod error;
mod expiry;
mod flight;
mod guard;
mod heal;
mod holds;
mod hotkeys;
mod keyspace;
mod keyspaces;
mod lease;
mod limits;
mod net;
mod node;
mod partings;
mod peer;
mod placement;
mod promise;
mod registry;
mod ring;
mod source;
mod spec;
mod stats;
mod store;
mod trace;
mod trust;
mod typed;
mod views;

pub use bytes::Bytes;

pub use builder::EngineBuilder;
pub use cluster::{Event, Events, Peer, PeerState};
#[cfg(feature = "json")]
pub use codec::Json;
pub use codec::{Codec, CodecError, Postcard, Raw};
pub use discovery::{Discovery, DiscoveryError, DnsDiscovery, IpFamily, Standalone, StaticDiscovery};
pub use engine::{Engine, KeyspaceInfo, RingInfo, RingMember};
pub use error::{Error, Overload, PeerFailure, StartError, Unreached};
pub use guard::{CircuitBreaker, CircuitState, GuardSettings, RateLimit, Retry};
pub use hotkeys::HotKey;
pub use keyspace::Keyspace;
pub use limits::Limits;
pub use source::{Cause, DataSource, Fetched, SourceError};
pub use spec::{DeleteOptions, Entry, Eviction, GetOptions, KeyspaceSettings, KeyspaceSpec, Origin, PutOptions};
pub use stats::{KeyspaceStats, Latencies, LatencyBucket, LatencyHistogram};
pub use trace::{Propagator, Traceparent};
#[cfg(feature = "tls")]
pub use trust::TlsError;
pub use trust::{ClusterSecret, Refusal, SecretError, Tls};
pub use typed::{Typed, TypedEntry, TypedFetched, TypedKeyspace, TypedSource};

/// Private parts, for the benchmarks of this repository. No part of the API.
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub mod bench_support {
    pub use crate::lease::probe::BooksProbe;
    pub use crate::ring::{Member, Move, NodeId, Ring, SLOTS, Slot, ViewId};
    pub use crate::store::probe::StoreProbe;
}

#[cfg(feature = "fuzz-internals")]
#[doc(hidden)]
pub mod fuzz_support;

/// What a simulation exchanges and leaves out. No part of the API.
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod sim_support {
    pub use crate::net::sim::{seed, wall_clock_begins};
    pub use crate::promise::Rule;

    /// The number under which a node of this name is known to the others.
    pub fn node_id(name: &str) -> u64 {
        crate::ring::NodeId::of(name).0
    }
}

/// The README's code compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// So does that of the page on consistency.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/consistency.md")]
struct ConsistencyPage;

/// So does that of the page on expiry.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/expiry.md")]
struct ExpiryPage;

/// So does that of the page on DNS.
#[cfg(all(doctest, feature = "dns"))]
#[doc = include_str!("../../../docs/discovery/dns.md")]
struct DnsPage;
