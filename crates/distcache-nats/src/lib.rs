//! Finding the nodes of a [`distcache`] cluster through a NATS server.
//!
//! Every node answers on a subject of its cluster; whoever looks for nodes asks there and gathers the answers for a moment.
//! Nothing is stored, so nothing is out of date: who answers is there.
//!
//! ```
//! use distcache::Engine;
//! use distcache_nats::{Login, NatsDiscovery, Secret, Tls};
//!
//! # let (password, ca) = ("nats.password", "ca.pem");
//! let discovery = NatsDiscovery::new(["tls://nats-1.internal:4222", "tls://nats-2.internal:4222"], "shop")
//!     .login(Login::password("cache", Secret::file(password)))
//!     .tls(Tls::new().ca(ca));
//! let engine = Engine::builder().cluster_name("shop").discovery(discovery); // .keyspace(…).start().await?
//! ```
//!
//! The modules in reading order: `discovery` (what the engine calls), `link` (one connection, kept), `message` (what is said on
//! which subject), `settings`, `login` and `tls` (how to connect), `error` (what went wrong, and whether it will pass).
#![warn(missing_docs)]

mod discovery;
mod error;
mod link;
mod login;
mod message;
mod settings;
mod tls;

pub use discovery::NatsDiscovery;
pub use login::{Login, Secret};
pub use tls::Tls;

/// The guide's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/discovery/nats.md")]
struct Guide;
