//! What a user implements: where values come from when the cache does not have them.
//!
//! Knows nothing of nodes, keys' owners or expiry rules; it only says what a source may answer. The invariant: whatever a
//! source does (answer late, fail, panic, hang), the type of its answer survives the way to every caller, also across nodes.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

/// How many keys of a batch are fetched at once where the source knows no batches.
pub(crate) const FETCHES_AT_ONCE: usize = 32;

/// The origin of a keyspace's values: a database, an API, a computation.
///
/// While the nodes agree on the view, the engine calls [`fetch`](Self::fetch) for a key once at a time in the whole cluster
/// (and anew for those who ask after a write or a clear), from a task of its own: a caller that gives up does not cancel it. A load that exceeds the keyspace's load timeout is dropped.
///
/// It runs on the node's own runtime. Code that blocks (a file, a driver without async) belongs into `tokio::task::spawn_blocking`: a
/// worker that is blocked does nothing else meanwhile, and the load timeout is noticed only afterwards.
///
/// ```
/// use distcache::{DataSource, Fetched, SourceError};
///
/// struct Squares;
///
/// impl DataSource for Squares {
///     async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
///         let n: u64 = key.parse().map_err(|_| SourceError::NotFound)?;
///         Ok(Fetched::new((n * n).to_string()))
///     }
/// }
/// ```
pub trait DataSource: Send + Sync + 'static {
    /// Loads one value. `Err(SourceError::NotFound)` is an answer: there is no such key.
    fn fetch(&self, key: &str) -> impl Future<Output = Result<Fetched, SourceError>> + Send;

    /// Loads several values in one round trip; the answers stand in the order of `keys`, one each.
    ///
    /// The default fetches each key by itself, a few at a time. A source that can answer a batch at once (SQL `IN`, Redis
    /// `MGET`) should: a `get_many` of the cluster makes one such call per owner.
    fn fetch_many(&self, keys: &[&str]) -> impl Future<Output = Vec<Result<Fetched, SourceError>>> + Send {
        stream::iter(keys.iter().map(|key| self.fetch(key))).buffered(FETCHES_AT_ONCE).collect()
    }

    /// Loads a value of which the cache still holds the one that `held` shows, with its [validator](Fetched::validator):
    /// called in place of [`fetch`](Self::fetch) for a single key whose held value came with one.
    ///
    /// A source that can ask "has it changed since?" (HTTP `If-None-Match`, a row version) answers `held.clone()` with a new
    /// lifetime where it has not, and saves the transfer. The default fetches anew.
    fn revalidate(&self, key: &str, held: &Fetched) -> impl Future<Output = Result<Fetched, SourceError>> + Send {
        let _ = held;
        self.fetch(key)
    }
}

/// Longest validator that is kept beside a value, in bytes; a longer one is as good as none.
pub(crate) const VALIDATOR_BYTES_MAX: usize = 1024;

/// A value from a source, with what the source knows about its lifetime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub(crate) value: Bytes,
    pub(crate) ttl: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    pub(crate) validator: Option<Bytes>,
}

impl Fetched {
    /// A value that lives as long as its keyspace says.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: value.into(), ttl: None, stale_while_revalidate: None, stale_if_error: None, validator: None }
    }

    /// A lifetime for this value alone; it wins over the keyspace's. Zero: answer the callers, store nothing.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long past its lifetime this value may be answered while it is loaded again; wins over the keyspace's
    /// [`stale_while_revalidate`](crate::KeyspaceSpec::stale_while_revalidate). Zero: not at all.
    pub fn stale_while_revalidate(mut self, grace: Duration) -> Self {
        self.stale_while_revalidate = Some(grace);
        self
    }

    /// How long past its lifetime this value may be answered where it cannot be loaded again; wins over the keyspace's
    /// [`stale_if_error`](crate::KeyspaceSpec::stale_if_error). Zero: not at all.
    pub fn stale_if_error(mut self, grace: Duration) -> Self {
        self.stale_if_error = Some(grace);
        self
    }

    /// What the source needs to ask whether this value has changed (an ETag, a row version), kept beside the value and given
    /// to [`DataSource::revalidate`]. Over 1,024 bytes it is not kept.
    pub fn validator(mut self, validator: impl Into<Bytes>) -> Self {
        self.validator = Some(validator.into());
        self
    }

    /// The value.
    pub fn value(&self) -> &Bytes {
        &self.value
    }

    /// The lifetime given to this value alone.
    pub fn lifetime(&self) -> Option<Duration> {
        self.ttl
    }

    /// The validator given to this value.
    pub fn held_validator(&self) -> Option<&Bytes> {
        self.validator.as_ref()
    }
}

/// What a source answers instead of a value.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// There is no value under this key. An answer, not a failure.
    #[error("the source has no such key")]
    NotFound,
    /// The source cannot answer now; the same call may succeed later.
    #[error("the source is unavailable: {0}")]
    Unavailable(#[source] Cause),
    /// The source failed for this key; asking again will not help.
    #[error("the source failed: {0}")]
    Failed(#[source] Cause),
}

impl SourceError {
    /// A passing failure: connection lost, time-out, too many requests.
    pub fn unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unavailable(Cause::new(cause))
    }

    /// A lasting failure: the row does not parse, the query is wrong.
    pub fn failed(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Failed(Cause::new(cause))
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// The reason behind a failure; shared, since one load may answer thousands of callers.
///
/// The original error on the node where it happened, its text on every other node.
#[derive(Clone)]
pub struct Cause {
    error: Arc<dyn StdError + Send + Sync>,
    /// Taken at once: an error's own `Display` is a user's code and is not run where answers are put into bytes.
    text: Arc<str>,
}

impl Cause {
    pub(crate) fn new(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let error = cause.into();
        Self { text: error.to_string().into(), error: Arc::from(error) }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cause({:?})", self.text)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`DataSource`] without its type: keyspaces of different sources stand in one table.
pub(crate) trait DynDataSource: Send + Sync {
    fn fetch<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Fetched, SourceError>>;
    fn fetch_many<'a>(&'a self, keys: &'a [&'a str]) -> BoxFuture<'a, Vec<Result<Fetched, SourceError>>>;
    fn revalidate<'a>(&'a self, key: &'a str, held: &'a Fetched) -> BoxFuture<'a, Result<Fetched, SourceError>>;
}

impl<S: DataSource> DynDataSource for S {
    fn fetch<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Fetched, SourceError>> {
        Box::pin(DataSource::fetch(self, key))
    }

    fn fetch_many<'a>(&'a self, keys: &'a [&'a str]) -> BoxFuture<'a, Vec<Result<Fetched, SourceError>>> {
        Box::pin(DataSource::fetch_many(self, keys))
    }

    fn revalidate<'a>(&'a self, key: &'a str, held: &'a Fetched) -> BoxFuture<'a, Result<Fetched, SourceError>> {
        Box::pin(DataSource::revalidate(self, key, held))
    }
}
