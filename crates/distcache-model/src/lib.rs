//! A model of one key: its owner, its readers, its source, and what a write promises.
//!
//! It says in some 1,500 lines what the library does in many thousands, and a search goes through everything that can happen to it
//! within small bounds: every order in which messages arrive and loads land, every moment to crash or to learn of a new owner.
//! It knows no code of the library; what the two have in common is the protocol.
//!
//! Where to begin: [`Rule`], the rules of the protocol, each with what goes wrong without it. [`Scenario`], what there is in a
//! search. [`State`], one moment. [`Step`], what can happen next: `reader.rs` and `owner.rs` are the two sides of a get and a
//! write, `takeover.rs` is how a slot changes hands. [`Promise`], the property. [`search`] looks for an answer that breaks it,
//! and tells the shortest way there as a story:
//!
//! ```
//! use distcache_model::{Rule, Scenario, search};
//!
//! let found = search(Scenario::TWO_READERS.without(Rule::AwaitAcks));
//! println!("{}", found.counterexample.unwrap());
//! ```
//!
//! # The property
//!
//! A get that begins when a write has returned is answered with that write's version or a later one. Two are spared. A node that
//! an invalidation did not reach while the write waited may answer its copy for a lease, counted from the write. And what was
//! written while two living nodes took themselves for the owner counts from when all agree again and the new owner has told on
//! what the former one wrote; if that one crashes before it has named its writes, they are owed to nobody. When an owner is dead
//! before anybody turns from it, nothing is put off: the promise holds at once, also at nodes that have not learned of it.
//!
//! # The bounds
//!
//! One key, at most three nodes, one change of its owner, one or two writes. A reader has one or two fetches under way, an owner
//! one or two loads; so the messages on their way are bounded too. A lease is two steps of the clock, a write waits one. There is
//! no bound on the gets, on the steps or on time: what counts time stops at its end, so the states are finitely many and all of
//! them are looked at. [`Scenario`] has the sets of bounds; the ignored tests have wider ones.
//!
//! # What is left out
//!
//! - *Loss.* A message that is lost is one that does not arrive in any of the steps looked at. A fetch without an answer stays
//!   open and is given up after a lease. Logs arrive some time: the exchange is repeated until they do, and the promise waits.
//! - *Clocks* run at the same rate and tick at the same moment.
//! - *Whoever is not answered*, because the node it asked is dead or not the owner, loads for itself in one step and keeps
//!   nothing. That it may keep a copy for a while, with no owner that knows of it, is not in the model.
//! - *Concurrent writers.* A writer changes the source, then tells the owner, and the next one begins after that. Of two that
//!   race, the later put may carry the older value; the order at the owner counts, and no rule here could mend it.
//! - *Expiry, stale answers, room.* Entries live for ever and fit, books have room for every holder.
//! - *A node that comes back.* It would be a new node; and the slot does not return to who had it.
#![warn(missing_docs)]

mod owner;
mod promise;
mod reader;
mod rule;
mod scenario;
mod search;
pub mod sights;
mod state;
mod steps;
mod story;
mod takeover;

pub use promise::{Broken, Owed, Promise};
pub use rule::Rule;
pub use scenario::{Scenario, Takeover};
pub use search::{Findings, search};
pub use state::{
    Asker, Copy, Entry, Fetch, Holder, Load, Message, NODES, Node, NodeId, NodeSet, Question, Source, State,
};
pub use state::{Ticks, Version, Write};
pub use steps::{BOUNDED, Protocol, Step, Way};
