//! A source whose answers are a type of the program, and the data source that it becomes.
//!
//! Knows what [`DataSource`] knows and no more. The invariant: what a typed source says about lifetimes and about there being no
//! such key reaches the engine unchanged; only the value is put into bytes.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::does_not_encode;
use crate::codec::Codec;
use crate::source::{DataSource, FETCHES_AT_ONCE, Fetched, SourceError};
use crate::spec::KeyspaceSpec;

/// A [`DataSource`] that answers values of a type instead of bytes. [`Typed`], or [`KeyspaceSpec::typed`], puts a codec to it.
///
/// ```
/// use std::time::Duration;
/// use distcache::{Engine, KeyspaceSpec, Postcard, SourceError, TypedFetched, TypedKeyspace, TypedSource};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
/// struct User {
///     id: u64,
///     name: String,
/// }
///
/// struct Users; // holds a connection pool, say
///
/// impl TypedSource for Users {
///     type Value = User;
///
///     async fn fetch(&self, key: &str) -> Result<TypedFetched<User>, SourceError> {
///         let id = key.parse().map_err(|_| SourceError::NotFound)?;
///         let user = User { id, name: format!("user {id}") }; // a query
///         Ok(TypedFetched::new(user).ttl(Duration::from_secs(60)))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let spec = KeyspaceSpec::typed("users", Users, Postcard).max_bytes(64 << 20);
/// let engine = Engine::builder().keyspace(spec).start().await?;
/// let users: TypedKeyspace<User> = engine.typed("users", Postcard)?;
/// assert_eq!(users.get("42").await?, User { id: 42, name: "user 42".into() });
/// # Ok(())
/// # }
/// ```
pub trait TypedSource: Send + Sync + 'static {
    /// What it answers.
    type Value: Send + Sync + 'static;

    /// See [`DataSource::fetch`].
    fn fetch(&self, key: &str) -> impl Future<Output = Result<TypedFetched<Self::Value>, SourceError>> + Send;

    /// See [`DataSource::fetch_many`]: the answers stand in the order of `keys`, one each. The default fetches each key by
    /// itself, a few at a time.
    fn fetch_many(
        &self,
        keys: &[&str],
    ) -> impl Future<Output = Vec<Result<TypedFetched<Self::Value>, SourceError>>> + Send {
        stream::iter(keys.iter().map(|key| self.fetch(key))).buffered(FETCHES_AT_ONCE).collect()
    }

    /// See [`DataSource::revalidate`]: where nothing has changed the answer is `held`'s value with a new lifetime. Not called,
    /// but [`fetch`](Self::fetch), where the held value does not decode.
    fn revalidate(
        &self,
        key: &str,
        held: &TypedFetched<Self::Value>,
    ) -> impl Future<Output = Result<TypedFetched<Self::Value>, SourceError>> + Send {
        let _ = held;
        self.fetch(key)
    }
}

/// A value from a source, with what the source knows about its lifetime: [`Fetched`] with a value of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedFetched<T> {
    value: T,
    /// Everything but the value, which is empty here.
    terms: Fetched,
}

impl<T> TypedFetched<T> {
    /// A value that lives as long as its keyspace says.
    pub fn new(value: T) -> Self {
        Self { value, terms: Fetched::new(Bytes::new()) }
    }

    /// See [`Fetched::ttl`].
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { terms: self.terms.ttl(ttl), ..self }
    }

    /// See [`Fetched::stale_while_revalidate`].
    pub fn stale_while_revalidate(self, grace: Duration) -> Self {
        Self { terms: self.terms.stale_while_revalidate(grace), ..self }
    }

    /// See [`Fetched::stale_if_error`].
    pub fn stale_if_error(self, grace: Duration) -> Self {
        Self { terms: self.terms.stale_if_error(grace), ..self }
    }

    /// See [`Fetched::validator`].
    pub fn validator(self, validator: impl Into<Bytes>) -> Self {
        Self { terms: self.terms.validator(validator), ..self }
    }

    /// The value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The lifetime given to this value alone.
    pub fn lifetime(&self) -> Option<Duration> {
        self.terms.lifetime()
    }

    /// The validator given to this value.
    pub fn held_validator(&self) -> Option<&Bytes> {
        self.terms.held_validator()
    }
}

impl<T> From<T> for TypedFetched<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// A [`TypedSource`] and a [`Codec`]: together a [`DataSource`].
///
/// A value that the codec cannot write is [`SourceError::Failed`], with an [`Error::Encode`](crate::Error::Encode) as its
/// cause: it names key and type.
#[derive(Clone, Copy)]
pub struct Typed<S, C> {
    source: S,
    codec: C,
}

impl<S: TypedSource, C: Codec<S::Value>> Typed<S, C> {
    /// What this source answers, as this codec writes it.
    pub fn new(source: S, codec: C) -> Self {
        Self { source, codec }
    }

    fn encode(&self, key: &str, fetched: TypedFetched<S::Value>) -> Result<Fetched, SourceError> {
        let TypedFetched { value, terms } = fetched;
        match self.codec.encode(&value) {
            Ok(value) => Ok(Fetched { value, ..terms }),
            Err(cause) => Err(SourceError::failed(does_not_encode::<S::Value>(key, cause))),
        }
    }

    fn decode(&self, held: &Fetched) -> Option<TypedFetched<S::Value>> {
        let value = self.codec.decode(&held.value).ok()?;
        Some(TypedFetched { value, terms: Fetched { value: Bytes::new(), ..held.clone() } })
    }
}

impl<S: TypedSource, C: Codec<S::Value>> DataSource for Typed<S, C> {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        let fetched = self.source.fetch(key).await?;
        self.encode(key, fetched)
    }

    async fn fetch_many(&self, keys: &[&str]) -> Vec<Result<Fetched, SourceError>> {
        let answers = self.source.fetch_many(keys).await;
        // Not zipped with the keys: the engine has to see it if there are too few answers or too many.
        let keys = keys.iter().copied().chain(std::iter::repeat(""));
        answers.into_iter().zip(keys).map(|(answer, key)| self.encode(key, answer?)).collect()
    }

    async fn revalidate(&self, key: &str, held: &Fetched) -> Result<Fetched, SourceError> {
        let fetched = match self.decode(held) {
            Some(held) => self.source.revalidate(key, &held).await?,
            None => self.source.fetch(key).await?,
        };
        self.encode(key, fetched)
    }
}

impl<S, C> fmt::Debug for Typed<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed").finish_non_exhaustive()
    }
}

impl KeyspaceSpec {
    /// A keyspace in front of a source whose answers are a type of the program; see [`TypedSource`]. Read it through the same
    /// codec: `engine.typed(name, codec)`.
    pub fn typed<S: TypedSource>(name: impl Into<String>, source: S, codec: impl Codec<S::Value>) -> Self {
        Self::new(name, Typed::new(source, codec))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;
    use crate::codec::{CodecError, Raw};

    /// Writes everything but `u8::MAX`, reads one byte.
    struct OneByte;

    impl Codec<u8> for OneByte {
        fn encode(&self, value: &u8) -> Result<Bytes, CodecError> {
            match value {
                &u8::MAX => Err("too much".into()),
                value => Ok(Bytes::copy_from_slice(&[*value])),
            }
        }

        fn decode(&self, bytes: &Bytes) -> Result<u8, CodecError> {
            bytes.first().copied().ok_or_else(|| "nothing".into())
        }
    }

    /// Reads keys as numbers; counts how often it is asked whether a value has changed.
    #[derive(Default)]
    struct Numbers {
        revalidations: AtomicU64,
    }

    const MINUTE: Duration = Duration::from_secs(60);

    impl TypedSource for Numbers {
        type Value = u8;

        async fn fetch(&self, key: &str) -> Result<TypedFetched<u8>, SourceError> {
            let number: u8 = key.parse().map_err(|_| SourceError::NotFound)?;
            Ok(number.into())
        }

        async fn revalidate(&self, _: &str, held: &TypedFetched<u8>) -> Result<TypedFetched<u8>, SourceError> {
            self.revalidations.fetch_add(1, SeqCst);
            Ok(held.clone().ttl(MINUTE * 2))
        }
    }

    #[test]
    fn lifetimes_and_validator_stand_beside_the_bytes() {
        let fetched = TypedFetched::new(7_u8)
            .ttl(MINUTE)
            .stale_while_revalidate(MINUTE * 2)
            .stale_if_error(MINUTE * 3)
            .validator("v1");
        assert_eq!((fetched.value(), fetched.lifetime()), (&7, Some(MINUTE)));
        let bytes = Typed::new(Numbers::default(), OneByte).encode("7", fetched).unwrap();
        let expected = Fetched::new(vec![7]).ttl(MINUTE).stale_while_revalidate(MINUTE * 2).stale_if_error(MINUTE * 3);
        assert_eq!(bytes, expected.validator("v1"));
    }

    #[tokio::test]
    async fn a_value_that_cannot_be_written_fails_by_name_and_alone() {
        let source = Typed::new(Numbers::default(), OneByte);
        let answers = DataSource::fetch_many(&source, &["1", "255", "none", "2"]).await;
        assert_eq!(answers[0].as_ref().unwrap(), &Fetched::new(vec![1]));
        assert_eq!(
            answers[1].as_ref().unwrap_err().to_string(),
            "the source failed: the value for \"255\" does not encode from u8: too much"
        );
        assert!(matches!(answers[2], Err(SourceError::NotFound)));
        assert_eq!(answers[3].as_ref().unwrap(), &Fetched::new(vec![2]));
    }

    #[tokio::test]
    async fn a_source_that_gives_too_many_answers_is_not_made_to_look_right() {
        struct TooMany;
        impl TypedSource for TooMany {
            type Value = String;
            async fn fetch(&self, key: &str) -> Result<TypedFetched<String>, SourceError> {
                Ok(key.to_owned().into())
            }
            async fn fetch_many(&self, keys: &[&str]) -> Vec<Result<TypedFetched<String>, SourceError>> {
                keys.iter().chain(keys).map(|key| Ok(key.to_string().into())).collect()
            }
        }
        assert_eq!(DataSource::fetch_many(&Typed::new(TooMany, Raw), &["a", "b"]).await.len(), 4);
    }

    #[tokio::test]
    async fn a_held_value_is_shown_to_its_source_as_what_it_is() {
        let source = Typed::new(Numbers::default(), OneByte);
        let held = Fetched::new(vec![9]).ttl(MINUTE).validator("v1");
        let again = DataSource::revalidate(&source, "1", &held).await.unwrap();
        assert_eq!(again, held.ttl(MINUTE * 2), "the same value under the same validator");
        let broken = Fetched::new(vec![]).validator("v1");
        assert_eq!(DataSource::revalidate(&source, "1", &broken).await.unwrap(), Fetched::new(vec![1]));
        assert_eq!(source.source.revalidations.load(SeqCst), 1, "the broken one was fetched anew");
    }
}
