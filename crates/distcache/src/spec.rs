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
use crate::guard::GuardSettings;
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
    pub(crate) warm_keys: Arc<[String]>,
}

pub(crate) type ExpiresAt = Arc<dyn Fn(&str, &Bytes) -> Option<SystemTime> + Send + Sync>;

/// The part of a keyspace's definition that is data: it travels to every node of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeyspaceSettings {
    /// Bytes of memory that this keyspace may take on each node: keys, values and bookkeeping.
    pub max_bytes: u64,
    /// What has to go when there is no room.
    pub eviction: Eviction,
    /// Lifetime of an entry; `None`: until evicted or invalidated.
    pub ttl: Option<Duration>,
    /// Part of a lifetime that is cut off at random, 0 to 1, so that entries loaded together do not expire together.
    pub ttl_jitter: f32,
    /// An entry that nobody read for this long is gone, however long it could have lived; `None`: reads do not matter.
    pub idle_ttl: Option<Duration>,
    /// Lifetime of the answer "not found"; `None`: it is not cached.
    pub negative_ttl: Option<Duration>,
    /// How long past its lifetime an entry is answered while it is loaded again; zero: not at all.
    pub stale_while_revalidate: Duration,
    /// How long past its lifetime an entry is answered where it cannot be loaded again; zero: not at all.
    pub stale_if_error: Duration,
    /// The last part of a lifetime, 0 to 1, in which a read has the entry loaded again beforehand; zero: not at all.
    pub refresh_ahead: f32,
    /// As many of the hottest keys that a node owns are loaded again before they expire, read or not.
    pub refresh_hot_keys: usize,
    /// How long a load may take before its callers get the expired value instead, where there is one that
    /// `stale_if_error` allows; the load goes on. `None`: as long as it may take at all.
    pub soft_timeout: Option<Duration>,
    /// How long one load may take before it is dropped and its callers get [`Error::LoadTimeout`](crate::Error::LoadTimeout).
    pub load_timeout: Duration,
    /// Whether nodes keep short-lived copies of keys that they read often but do not own.
    pub hot_copies: bool,
    /// Lifetime of such a copy: the longest that a write may stay unseen by a node that the owner cannot reach.
    pub lease: Duration,
    /// What stands between the loads of this keyspace and its source.
    pub guard: GuardSettings,
}

/// What has to go when a keyspace is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Eviction {
    /// What was read once goes before what was read again, so that a scan of everything pushes out nothing that is in use.
    #[default]
    ScanResistant,
    /// Least recently used, exact within each shard of the store.
    Lru,
    /// Least frequently used of late: a newcomer stays only if it was asked for more often than what would have to go for it
    /// ([W-TinyLFU](https://doi.org/10.1145/3149371)). Old uses fade.
    Lfu,
    /// First in, first out, however often it is read; an overwrite is a new arrival.
    Fifo,
}

impl Default for KeyspaceSettings {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            eviction: Eviction::default(),
            ttl: None,
            ttl_jitter: 0.0,
            idle_ttl: None,
            negative_ttl: None,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            refresh_ahead: 0.0,
            refresh_hot_keys: 0,
            soft_timeout: None,
            load_timeout: Duration::from_secs(10),
            hot_copies: true,
            lease: Duration::from_secs(5),
            guard: GuardSettings::default(),
        }
    }
}

pub(crate) const NAME_BYTES_MAX: usize = 128;
const MAX_BYTES_MIN: u64 = 64 << 10;
/// Lifetimes cross the wire as milliseconds and are added to a clock; a century is for ever.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Graces are kept with each entry, as 32 bits of milliseconds.
pub(crate) const GRACE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
const IDLE_TTL_MIN: Duration = Duration::from_secs(1);

impl KeyspaceSpec {
    /// A keyspace of this name in front of this source: 64 MiB a node, no expiry.
    pub fn new(name: impl Into<String>, source: impl DataSource) -> Self {
        Self {
            name: name.into(),
            source: Arc::new(source),
            settings: KeyspaceSettings::default(),
            expires_at: None,
            warm_keys: Arc::default(),
        }
    }

    /// Bytes of memory that the keyspace may take on each node: keys, values and bookkeeping. At least 64 KiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.settings.max_bytes = bytes;
        self
    }

    /// What has to go when there is no room; [`Eviction::ScanResistant`] unless told.
    pub fn eviction(mut self, eviction: Eviction) -> Self {
        self.settings.eviction = eviction;
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

    /// Ends an entry that nobody read for this long, however long it could have lived: sessions. At least a second, counted
    /// in tenths of one. An entry that ended so is never answered stale.
    pub fn idle_ttl(mut self, ttl: Duration) -> Self {
        self.settings.idle_ttl = Some(ttl);
        self
    }

    /// Answers an entry for this long past its lifetime while it is loaded again in the background
    /// ([RFC 5861](https://www.rfc-editor.org/rfc/rfc5861), section 3): nobody waits for the source.
    pub fn stale_while_revalidate(mut self, grace: Duration) -> Self {
        self.settings.stale_while_revalidate = grace;
        self
    }

    /// Answers an entry for this long past its lifetime where the source fails, is late (see
    /// [`soft_timeout`](Self::soft_timeout)) or may not be asked ([RFC 5861](https://www.rfc-editor.org/rfc/rfc5861),
    /// section 4): an outage of the source is not one of its readers.
    pub fn stale_if_error(mut self, grace: Duration) -> Self {
        self.settings.stale_if_error = grace;
        self
    }

    /// Loads an entry again, in the background, when it is read in the last `part` (0 to 1) of its lifetime. The owner alone
    /// does so, once at a time, and not at the same moment for entries that were loaded together.
    pub fn refresh_ahead(mut self, part: f32) -> Self {
        self.settings.refresh_ahead = part;
        self
    }

    /// Loads as many of the hottest keys as this, of those that a node owns, again before they expire, in the last
    /// [`refresh_ahead`](Self::refresh_ahead) part of their lifetime (a tenth unless told).
    pub fn refresh_hot_keys(mut self, keys: usize) -> Self {
        self.settings.refresh_hot_keys = keys;
        self
    }

    /// Keys that a node loads as soon as it owns them, before anybody asks: at its start, and when it takes over from
    /// another. Not more than [`Limits::warm_keys_max`](crate::Limits::warm_keys_max).
    pub fn warm_keys<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.warm_keys = keys.into_iter().map(Into::into).collect();
        self
    }

    /// How long callers wait for a load before they get the expired value instead, where
    /// [`stale_if_error`](Self::stale_if_error) allows one; the load goes on, and its value comes later.
    pub fn soft_timeout(mut self, limit: Duration) -> Self {
        self.settings.soft_timeout = Some(limit);
        self
    }

    /// What stands between the loads of this keyspace and its source: bounds, rate limit, circuit breaker, retries.
    pub fn guard(mut self, guard: GuardSettings) -> Self {
        self.settings.guard = guard;
        self
    }

    /// How long one load may take, waiting for the guard and retries included; 10 s unless told.
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

    /// `warm_keys_max`: as [`Limits`](crate::Limits) says.
    pub(crate) fn check_within(&self, warm_keys_max: usize) -> Result<(), StartError> {
        if self.warm_keys.len() > warm_keys_max {
            let (keys, reason) = (self.warm_keys.len(), format!("must be at most {warm_keys_max} keys"));
            return Err(StartError::invalid("keyspace.warm_keys", keys, reason));
        }
        self.check()
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
        for (field, part) in [("keyspace.ttl_jitter", self.ttl_jitter), ("keyspace.refresh_ahead", self.refresh_ahead)]
        {
            if !(0.0..=1.0).contains(&part) {
                return Err(StartError::invalid(field, part, "must be from 0 to 1"));
            }
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
        positive("keyspace.soft_timeout", self.soft_timeout.unwrap_or(DURATION_MAX))?;
        for (field, grace) in [
            ("keyspace.stale_while_revalidate", self.stale_while_revalidate),
            ("keyspace.stale_if_error", self.stale_if_error),
        ] {
            if grace > GRACE_MAX {
                return Err(StartError::invalid(field, grace, format!("must be at most {GRACE_MAX:?}")));
            }
        }
        if let Some(idle) = self.idle_ttl.filter(|idle| !(IDLE_TTL_MIN..=DURATION_MAX).contains(idle)) {
            return Err(StartError::invalid("keyspace.idle_ttl", idle, "must be from a second to a century"));
        }
        self.guard.check()?;
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

/// How to remove a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeleteOptions {
    pub(crate) hold: Duration,
}

impl DeleteOptions {
    /// Remove it, and keep what is loaded from then on.
    pub fn new() -> Self {
        Self::default()
    }

    /// For so long no value that is loaded is kept, at most a day: each read loads anew. For a source that answers from replicas
    /// which lag behind: with a hold longer than the lag no value of before the change is cached after it.
    pub fn hold(mut self, hold: Duration) -> Self {
        self.hold = hold;
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
    /// Whether its lifetime is over: it is being loaded again, or could not be.
    pub is_stale: bool,
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
    /// The owner could not be asked, so this node asked the source; the value is kept no longer than a lease. Or this node is the
    /// owner, has become so a moment ago, and whoever was it before could not be asked; the value is not kept.
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
