//! Between peers: the only place that knows bytes on the wire.
//!
//! In reading order: [`wire`] (messages), [`outbox`] (writing in batches), [`connection`] (many
//! questions at once over one stream), [`link`] (one peer: connect, eject, probe), [`server`] (answering).

pub(crate) mod connection;
pub(crate) mod link;
mod outbox;
pub(crate) mod server;
pub(crate) mod wire;
