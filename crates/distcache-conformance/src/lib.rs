//! What a discovery provider has to pass, as tests: real nodes that find each other through it, over a service that fails.
//!
//! For whoever writes an own [`Discovery`](distcache::Discovery). Describe the service that your provider asks as a [`World`],
//! and [`suite!`] makes a test of each scenario:
//!
//! ```
//! use std::net::SocketAddr;
//! use std::sync::{Arc, Mutex};
//!
//! use distcache::{Discovery, DiscoveryError};
//! use distcache_conformance::{Ports, World};
//!
//! /// A service that nodes write their addresses into; here it lives in this process.
//! #[derive(Clone, Default)]
//! struct Board(Arc<Mutex<Service>>);
//!
//! #[derive(Default)]
//! struct Service {
//!     is_down: bool,
//!     written: Vec<SocketAddr>,
//!     also: Vec<SocketAddr>,
//! }
//!
//! /// The provider under test. It keeps what it could not write until the service is there.
//! struct BoardDiscovery {
//!     board: Board,
//!     me: Mutex<Option<SocketAddr>>,
//! }
//!
//! impl Discovery for BoardDiscovery {
//!     async fn register(&self, me: SocketAddr) -> Result<(), DiscoveryError> {
//!         *self.me.lock().unwrap() = Some(me);
//!         Ok(())
//!     }
//!
//!     async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
//!         let mut service = self.board.0.lock().unwrap();
//!         if service.is_down {
//!             return Err(DiscoveryError::unavailable("the board is down"));
//!         }
//!         let me = *self.me.lock().unwrap();
//!         let unwritten = me.filter(|me| !service.written.contains(me));
//!         service.written.extend(unwritten);
//!         Ok([&service.written[..], &service.also[..]].concat())
//!     }
//!
//!     async fn deregister(&self, me: SocketAddr) -> Result<(), DiscoveryError> {
//!         self.board.0.lock().unwrap().written.retain(|addr| *addr != me);
//!         Ok(())
//!     }
//! }
//!
//! struct BoardWorld {
//!     ports: Ports,
//!     board: Board,
//! }
//!
//! impl World for BoardWorld {
//!     type Provider = BoardDiscovery;
//!
//!     fn address(&self, n: usize) -> SocketAddr {
//!         self.ports.address(n)
//!     }
//!     fn provider(&self, _me: SocketAddr) -> BoardDiscovery {
//!         BoardDiscovery { board: self.board.clone(), me: Mutex::default() }
//!     }
//!     async fn stop_service(&self) {
//!         self.board.0.lock().unwrap().is_down = true;
//!     }
//!     async fn start_service(&self) {
//!         self.board.0.lock().unwrap().is_down = false;
//!     }
//!     async fn mislead(&self, also: Vec<SocketAddr>) {
//!         self.board.0.lock().unwrap().also = also;
//!     }
//! }
//!
//! async fn make_world() -> impl World {
//!     BoardWorld { ports: Ports::default(), board: Board::default() }
//! }
//!
//! distcache_conformance::suite!(make_world); // a file in `tests/`, or a module of one
//! # // What the suite does, once.
//! # distcache_conformance::run(make_world, distcache_conformance::boots_together);
//! ```
//!
//! The real thing would start a real server in `make_world`, on a port of [`free_address`], and end it when the world is
//! dropped. Each scenario gets a world of its own and takes a few seconds; all of them run side by side. A failure is a panic
//! that says what did not come about and what the nodes saw instead.
//!
//! The scenarios can be called one by one as well, where a provider makes sense for some of them only.
#![warn(missing_docs)]

mod node;
mod scenarios;
mod stage;
mod strangers;
mod suite;
mod witness;
mod world;

pub use scenarios::{
    a_node_joins, a_node_leaves, boots_alone, boots_together, duplicates_and_self, nothing_flaps, service_down_at_boot,
    service_down_later, wrong_answers,
};
pub use suite::run;
pub use world::{NODES_MAX, Ports, World, free_address};

/// The guide's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/discovery.md")]
struct Guide;
