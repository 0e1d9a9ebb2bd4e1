//! A distributed read-through cache.

mod cluster;
pub mod discovery;
mod error;
mod limits;
mod net;
mod source;

pub use bytes::Bytes;
pub use cluster::{Event, Events, Peer, PeerState};
pub use discovery::{Discovery, DiscoveryError, DnsDiscovery, Standalone, StaticDiscovery};
pub use error::{Error, Overload, PeerFailure, StartError, Unreached};
pub use limits::Limits;
pub use source::{Cause, DataSource, Fetched, SourceError};
