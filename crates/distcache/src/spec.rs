//! What a user says about a keyspace, and about one call.
//!
//! Only settings and their checks; knows neither store nor nodes. The invariant: a [`KeyspaceSpec`] that passed `check` can be
//! run, so nothing later has to doubt a setting.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::StartError;
use crate::placement::LEASE_MAX;
use crate::source::{DataSource, DynDataSource};

/// A keyspace: a name, a source, a byte limit and the rules of expiry.
///
/// ```
/// # use std::time::Duration;
/// # use distcache::{DataSource, Fetched, KeyspaceSpec, SourceError};
/// # struct Users;
/// # impl DataSource for Users {
/// #     async fn fetch(&self, _: &str) -> Result<Fetched, SourceError> { Err(SourceError::NotFound) }
/// # }
/// let users = KeyspaceSpec::new("users", Users)
///     .max_bytes(64 << 20)
///     .ttl(Duration::from_secs(300))
///     .ttl_jitter(0.1)
///     .negative_ttl(Duration::from_secs(10));
/// ```
#[derive(Clone)]
pub struct KeyspaceSpec {
    pub(crate) name: String,
    pub(crate) source: Arc<dyn DynDataSource>,
    pub(crate) settings: KeyspaceSettings,
    pub(crate) expires_at: Option<ExpiresAt>,
}

pub(crate) type ExpiresAt = Arc<dyn Fn(&str, &Bytes) -> Option<SystemTime> + Send + Sync>;

/// The part of a keyspace's definition that is data: it travels to every node of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeyspaceSettings {
    /// Bytes of memory that this keyspace may take on each node: keys, values and bookkeeping.
    pub max_bytes: u64,
    /// Lifetime of an entry; `None`: until evicted or invalidated.
    pub ttl: Option<Duration>,
    /// Part of a lifetime that is cut off at random, 0 to 1, so that entries loaded together do not expire together.
    pub ttl_jitter: f32,
    /// Lifetime of the answer "not found"; `None`: it is not cached.
    pub negative_ttl: Option<Duration>,
    /// How long one load may take before it is dropped and its callers get [`Error::LoadTimeout`](crate::Error::LoadTimeout).
    pub load_timeout: Duration,
    /// Whether nodes keep short-lived copies of keys that they read often but do not own.
    pub hot_copies: bool,
    /// Lifetime of such a copy: the longest that a write may stay unseen by a node that the owner cannot reach.
    pub lease: Duration,
}

impl Default for KeyspaceSettings {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            ttl: None,
            ttl_jitter: 0.0,
            negative_ttl: None,
            load_timeout: Duration::from_secs(10),
            hot_copies: true,
            lease: Duration::from_secs(5),
        }
    }
}

const NAME_BYTES_MAX: usize = 128;
const MAX_BYTES_MIN: u64 = 64 << 10;
/// Lifetimes cross the wire as milliseconds and are added to a clock; a century is for ever.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl KeyspaceSpec {
    /// A keyspace of this name in front of this source: 64 MiB a node, no expiry.
    pub fn new(name: impl Into<String>, source: impl DataSource) -> Self {
        Self { name: name.into(), source: Arc::new(source), settings: KeyspaceSettings::default(), expires_at: None }
    }

    /// Bytes of memory that the keyspace may take on each node: keys, values and bookkeeping. At least 64 KiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.settings.max_bytes = bytes;
        self
    }

    /// Lifetime of entries for which neither the source nor the caller of `put` names one.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = Some(ttl);
        self
    }

    /// Cuts up to this part (0 to 1) off each lifetime at random.
    pub fn ttl_jitter(mut self, part: f32) -> Self {
        self.settings.ttl_jitter = part;
        self
    }

    /// Caches the answer "not found" for this long.
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.settings.negative_ttl = Some(ttl);
        self
    }

    /// How long one load may take; 10 s unless told.
    pub fn load_timeout(mut self, limit: Duration) -> Self {
        self.settings.load_timeout = limit;
        self
    }

    /// Whether nodes keep short-lived copies of keys that they read often but do not own; yes unless told.
    pub fn hot_copies(mut self, keep: bool) -> Self {
        self.settings.hot_copies = keep;
        self
    }

    /// Lifetime of such a copy, which bounds how long a write may stay unseen; 5 s unless told.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// Computes the expiry time of an entry from its key and value; `None` falls back to [`ttl`](Self::ttl).
    pub fn expires_at(mut self, rule: impl Fn(&str, &Bytes) -> Option<SystemTime> + Send + Sync + 'static) -> Self {
        self.expires_at = Some(Arc::new(rule));
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The settings as they stand.
    pub fn settings(&self) -> &KeyspaceSettings {
        &self.settings
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        if !is_keyspace_name(&self.name) {
            let reason = format!("must be 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.'");
            return Err(StartError::invalid("keyspace.name", &self.name, reason));
        }
        self.settings.check()
    }
}

pub(crate) fn is_keyspace_name(name: &str) -> bool {
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    (1..=NAME_BYTES_MAX).contains(&name.len()) && is_plain
}

impl KeyspaceSettings {
    pub(crate) fn check(&self) -> Result<(), StartError> {
        if self.max_bytes < MAX_BYTES_MIN {
            let reason = format!("must be at least {MAX_BYTES_MIN} bytes");
            return Err(StartError::invalid("keyspace.max_bytes", self.max_bytes, reason));
        }
        if !(0.0..=1.0).contains(&self.ttl_jitter) {
            return Err(StartError::invalid("keyspace.ttl_jitter", self.ttl_jitter, "must be from 0 to 1"));
        }
        let positive = |field, value: Duration| match value {
            Duration::ZERO => Err(StartError::invalid(field, value, "must be longer than zero")),
            value if value > DURATION_MAX => Err(StartError::invalid(field, value, "must be at most a century")),
            _ => Ok(()),
        };
        positive("keyspace.ttl", self.ttl.unwrap_or(DURATION_MAX))?;
        positive("keyspace.negative_ttl", self.negative_ttl.unwrap_or(DURATION_MAX))?;
        positive("keyspace.load_timeout", self.load_timeout)?;
        positive("keyspace.lease", self.lease)?;
        match self.lease > LEASE_MAX {
            true => Err(StartError::invalid("keyspace.lease", self.lease, format!("must be at most {LEASE_MAX:?}"))),
            false => Ok(()),
        }
    }
}

impl fmt::Debug for KeyspaceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyspaceSpec")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// How to store one value.
#[derive(Clone, Copy, Debug, Default)]
pub struct PutOptions {
    pub(crate) ttl: Option<Duration>,
}

impl PutOptions {
    /// The keyspace's own rules.
    pub fn new() -> Self {
        Self::default()
    }

    /// A lifetime for this value, whatever the keyspace says.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// An expiry time for this value, whatever the keyspace says. A time that has passed stores nothing that can be read.
    pub fn expires_at(mut self, at: SystemTime) -> Self {
        self.ttl = Some(at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO));
        self
    }
}

/// How to read one value.
#[derive(Clone, Copy, Debug, Default)]
pub struct GetOptions {
    pub(crate) timeout: Option<Duration>,
}

impl GetOptions {
    /// The engine's own deadline.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long this caller waits; the load itself goes on for others.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// A value with what the cache knows about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// Where it came from.
    pub origin: Origin,
    /// Time since it was loaded or put, as far as this node knows.
    pub age: Duration,
    /// Time until it expires; `None`: it does not.
    pub remaining: Option<Duration>,
}

/// Where the value of a [`Entry`] came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// This node owns the key and had it.
    Owned,
    /// This node holds a leased copy.
    HotCopy,
    /// The owner had it.
    Peer,
    /// The source was asked, here or at the owner.
    Loaded,
    /// The owner could not be asked, so this node asked the source; the value is kept no longer than a lease.
    Fallback,
}

impl Origin {
    /// Whether the source was spared.
    pub fn is_hit(self) -> bool {
        matches!(self, Self::Owned | Self::HotCopy | Self::Peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fetched, SourceError};

    struct Nothing;
    impl DataSource for Nothing {
        async fn fetch(&self, _: &str) -> Result<Fetched, SourceError> {
            Err(SourceError::NotFound)
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let refused = |spec: KeyspaceSpec| spec.check().unwrap_err().to_string();
        let spec = || KeyspaceSpec::new("users", Nothing);
        spec().check().unwrap();
        assert!(refused(KeyspaceSpec::new("a:b", Nothing)).starts_with("keyspace.name = \"a:b\""));
        assert!(refused(KeyspaceSpec::new("", Nothing)).starts_with("keyspace.name"));
        assert!(refused(spec().max_bytes(1)).starts_with("keyspace.max_bytes = 1:"));
        assert!(refused(spec().ttl(Duration::ZERO)).starts_with("keyspace.ttl = 0ns"));
        assert!(refused(spec().ttl_jitter(f32::NAN)).starts_with("keyspace.ttl_jitter = NaN"));
        assert!(refused(spec().lease(Duration::MAX)).starts_with("keyspace.lease"));
    }
}
