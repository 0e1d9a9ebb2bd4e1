//! A keyspace whose values are a type of the program instead of bytes.
//!
//! In reading order: this file (what callers hold), [`source`] (what a user implements). Knows nothing of nodes and stores: what
//! is cached and what crosses the wire is bytes, and each caller decodes for itself. The invariant: a value that does not decode
//! is an error that names its key, and an error of no other key.

use std::any::type_name;
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::Peer;
use crate::codec::{Codec, CodecError};
use crate::engine::Engine;
use crate::error::Error;
use crate::keyspace::Keyspace;
use crate::source::Cause;
use crate::spec::{DeleteOptions, Entry, GetOptions, Origin, PutOptions};
use crate::stats::KeyspaceStats;

mod source;

pub use source::{Typed, TypedFetched, TypedSource};

/// A [`Keyspace`] whose values are read and written as `T`. Cheap to clone.
///
/// Its calls are those of the keyspace, with two errors more: [`Error::Decode`] where what is cached, or what the source gave,
/// is not a `T` to the codec, and [`Error::Encode`] where a value cannot be written. A value that does not decode stays where it
/// is until it expires; [`refresh`](Self::refresh), [`put`](Self::put) or [`delete`](Self::delete) end it earlier.
///
/// ```
/// use distcache::{DataSource, Engine, Fetched, Json, KeyspaceSpec, SourceError, TypedKeyspace};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct User {
///     name: String,
/// }
///
/// struct Api; // answers JSON
///
/// impl DataSource for Api {
///     async fn fetch(&self, _: &str) -> Result<Fetched, SourceError> {
///         Ok(Fetched::new(r#"{"name": "Ada"}"#))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder().keyspace(KeyspaceSpec::new("users", Api)).start().await?;
/// let users: TypedKeyspace<User> = engine.typed("users", Json)?;
/// assert_eq!(users.get("42").await?.name, "Ada");
/// users.put("43", &User { name: "Grace".into() }).await?;
/// assert_eq!(users.cached("43")?, Some(User { name: "Grace".into() }));
/// # Ok(())
/// # }
/// ```
pub struct TypedKeyspace<T> {
    raw: Keyspace,
    codec: Arc<dyn Codec<T>>,
}

/// An [`Entry`] whose value is a `T`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TypedEntry<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
    /// Time since it was loaded or put, as far as this node knows.
    pub age: Duration,
    /// Time until it expires; `None`: it does not.
    pub remaining: Option<Duration>,
    /// Whether its lifetime is over: it is being loaded again, or could not be.
    pub is_stale: bool,
}

impl Engine {
    /// A handle on a keyspace whose values are read and written as `T`: `engine.typed::<User>("users", Json)`.
    pub fn typed<T: 'static>(&self, name: &str, codec: impl Codec<T>) -> Result<TypedKeyspace<T>, Error> {
        Ok(self.keyspace(name)?.typed(codec))
    }
}

impl Keyspace {
    /// This keyspace, its values read and written as `T`. Nothing is looked at until it is asked for: one keyspace may be seen
    /// through several codecs.
    pub fn typed<T: 'static>(&self, codec: impl Codec<T>) -> TypedKeyspace<T> {
        TypedKeyspace { raw: self.clone(), codec: Arc::new(codec) }
    }
}

impl<T: 'static> TypedKeyspace<T> {
    /// The name.
    pub fn name(&self) -> &str {
        self.raw.name()
    }

    /// The keyspace below, with its values as bytes.
    pub fn raw(&self) -> &Keyspace {
        &self.raw
    }

    /// See [`Keyspace::get`].
    pub async fn get(&self, key: &str) -> Result<T, Error> {
        let bytes = self.raw.get(key).await?;
        self.decode(key, &bytes)
    }

    /// See [`Keyspace::get_entry`].
    pub async fn get_entry(&self, key: &str, options: GetOptions) -> Result<TypedEntry<T>, Error> {
        let entry = self.raw.get_entry(key, options).await?;
        self.decode_entry(key, entry)
    }

    /// See [`Keyspace::get_many`]. A value that does not decode is the error of its own key.
    pub async fn get_many<K: AsRef<str>>(&self, keys: &[K]) -> Result<Vec<Result<T, Error>>, Error> {
        let values = self.raw.get_many(keys).await?;
        let decoded = |(key, value): (&K, Result<Bytes, Error>)| self.decode(key.as_ref(), &value?);
        Ok(keys.iter().zip(values).map(decoded).collect())
    }

    /// See [`Keyspace::get_many_entries`]. A value that does not decode is the error of its own key.
    pub async fn get_many_entries<K: AsRef<str>>(
        &self,
        keys: &[K],
        options: GetOptions,
    ) -> Result<Vec<Result<TypedEntry<T>, Error>>, Error> {
        let entries = self.raw.get_many_entries(keys, options).await?;
        let decoded = |(key, entry): (&K, Result<Entry, Error>)| self.decode_entry(key.as_ref(), entry?);
        Ok(keys.iter().zip(entries).map(decoded).collect())
    }

    /// See [`Keyspace::put`].
    pub async fn put(&self, key: &str, value: &T) -> Result<(), Error> {
        self.put_with(key, value, PutOptions::new()).await
    }

    /// See [`Keyspace::put_with`].
    pub async fn put_with(&self, key: &str, value: &T, options: PutOptions) -> Result<(), Error> {
        // Encoded before anything is awaited, so that the future does not hold on to the value.
        let bytes = self.encode(key, value)?;
        self.raw.put_with(key, bytes, options).await
    }

    /// See [`Keyspace::put_many`]; takes values or references to them. Where one of them cannot be written nothing is stored.
    pub async fn put_many<K, V>(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<(), Error>
    where
        K: Into<String>,
        V: Borrow<T>,
    {
        let encoded = |(key, value): (K, V)| {
            let key = key.into();
            let bytes = self.encode(&key, value.borrow())?;
            Ok((key, bytes))
        };
        let entries: Vec<(String, Bytes)> = entries.into_iter().map(encoded).collect::<Result<_, Error>>()?;
        self.raw.put_many(entries).await
    }

    /// See [`Keyspace::delete`].
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        self.raw.delete(key).await
    }

    /// See [`Keyspace::delete_with`].
    pub async fn delete_with(&self, key: &str, options: DeleteOptions) -> Result<(), Error> {
        self.raw.delete_with(key, options).await
    }

    /// See [`Keyspace::delete_many`].
    pub async fn delete_many<K: AsRef<str>>(&self, keys: &[K]) -> Result<(), Error> {
        self.raw.delete_many(keys).await
    }

    /// See [`Keyspace::delete_many_with`].
    pub async fn delete_many_with<K: AsRef<str>>(&self, keys: &[K], options: DeleteOptions) -> Result<(), Error> {
        self.raw.delete_many_with(keys, options).await
    }

    /// See [`Keyspace::refresh`]. What the source gave is cached also where it does not decode.
    pub async fn refresh(&self, key: &str) -> Result<T, Error> {
        let bytes = self.raw.refresh(key).await?;
        self.decode(key, &bytes)
    }

    /// See [`Keyspace::cached`]; the only error is [`Error::Decode`].
    pub fn cached(&self, key: &str) -> Result<Option<T>, Error> {
        self.raw.cached(key).map(|bytes| self.decode(key, &bytes)).transpose()
    }

    /// See [`Keyspace::owner_of`].
    pub fn owner_of(&self, key: &str) -> Result<Peer, Error> {
        self.raw.owner_of(key)
    }

    /// See [`Keyspace::stats`].
    pub fn stats(&self) -> KeyspaceStats {
        self.raw.stats()
    }

    fn encode(&self, key: &str, value: &T) -> Result<Bytes, Error> {
        self.codec.encode(value).map_err(|cause| does_not_encode::<T>(key, cause))
    }

    fn decode(&self, key: &str, bytes: &Bytes) -> Result<T, Error> {
        self.codec.decode(bytes).map_err(|cause| does_not_decode::<T>(key, cause))
    }

    fn decode_entry(&self, key: &str, entry: Entry) -> Result<TypedEntry<T>, Error> {
        let Entry { value, origin, age, remaining, is_stale } = entry;
        Ok(TypedEntry { value: self.decode(key, &value)?, origin, age, remaining, is_stale })
    }
}

fn does_not_encode<T>(key: &str, cause: CodecError) -> Error {
    Error::Encode { key: key.to_owned(), type_name: type_name::<T>(), cause: Cause::new(cause) }
}

fn does_not_decode<T>(key: &str, cause: CodecError) -> Error {
    Error::Decode { key: key.to_owned(), type_name: type_name::<T>(), cause: Cause::new(cause) }
}

/// By hand: a handle can be cloned whatever its values are.
impl<T> Clone for TypedKeyspace<T> {
    fn clone(&self) -> Self {
        Self { raw: self.raw.clone(), codec: self.codec.clone() }
    }
}

impl<T> fmt::Debug for TypedKeyspace<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = type_name::<T>();
        f.debug_struct("TypedKeyspace").field("name", &self.raw.name()).field("of", &of).finish_non_exhaustive()
    }
}
