//! Strings in a Redis or Valkey server as a data source.
//!
//! Knows Redis' commands, nothing of caches. The invariant: a value and the lifetime beside it were true at one moment, since the
//! server was asked for both in one transaction.

use std::time::Duration;

use ::redis::aio::ConnectionManager;
use ::redis::{Cmd, Pipeline};
use distcache::{DataSource, Fetched, SourceError};

mod builder;
mod error;

pub use builder::RedisSourceBuilder;
pub use error::RedisSourceError;

/// A data source that asks a Redis server.
///
/// ```
/// use distcache_sources::redis::RedisSource;
///
/// # async fn open() -> Result<(), Box<dyn std::error::Error>> {
/// let users = RedisSource::connect("redis://127.0.0.1:6379").key_prefix("user:").open().await?;
/// # Ok(()) }
/// ```
///
/// # The key and the value
/// The value is the string under the prefix and the key (`GET`); no such key is [`SourceError::NotFound`]. A list, hash or set
/// is [`SourceError::Failed`].
///
/// # Lifetimes
/// What the server says (`PTTL`) wins over the keyspace's; a key without an expiry lives as its keyspace says. A write in Redis
/// is not seen before the cached value has expired.
///
/// # Many keys at once
/// One round trip: `MGET`, and `PTTL` for each.
///
/// # Errors
/// A server that is not reached, does not answer in time, loads its data, or whose cluster is down is
/// [`SourceError::Unavailable`]; everything else (a refused login, a missing permission) is [`SourceError::Failed`]. A connection
/// that the server has closed is made anew.
pub struct RedisSource {
    connection: ConnectionManager,
    key_prefix: String,
}

impl RedisSource {
    /// Begins to describe a source in this server: `redis://127.0.0.1:6379/0`, `redis://user:password@host`,
    /// `rediss://host` for TLS, `unix:///run/redis.sock`.
    pub fn connect(url: impl Into<String>) -> RedisSourceBuilder {
        RedisSourceBuilder::new(url.into())
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.key_prefix)
    }

    /// The values of these keys, and what remains of their lifetimes.
    async fn ask(&self, keys: &[&str]) -> Result<(Vec<Option<Vec<u8>>>, Vec<i64>), redis::RedisError> {
        let names: Vec<String> = keys.iter().map(|key| self.name(key)).collect();
        let mut questions = redis::pipe();
        questions.atomic().add_command(one_or_many(&names));
        for name in &names {
            questions.cmd("PTTL").arg(name);
        }
        let mut answers: Vec<redis::Value> = self.sent(&questions).await?;
        let remaining = answers.drain(1..).map(redis::from_redis_value).collect::<Result<Vec<i64>, _>>()?;
        let first = answers.pop().unwrap_or(redis::Value::Nil);
        let values =
            if let [_] = keys { vec![redis::from_redis_value(first)?] } else { redis::from_redis_value(first)? };
        Ok((values, remaining))
    }

    /// Over a new connection where the server has closed the old one: it may have done so long ago.
    async fn sent(&self, questions: &Pipeline) -> Result<Vec<redis::Value>, redis::RedisError> {
        let mut connection = self.connection.clone();
        match questions.query_async(&mut connection).await {
            Err(error) if error.is_connection_dropped() && !error.is_connection_refusal() => {
                questions.query_async(&mut connection).await
            }
            answer => answer,
        }
    }
}

/// MGET is silent about a key that holds no string; GET is not.
fn one_or_many(names: &[String]) -> Cmd {
    let mut command = redis::cmd(if names.len() == 1 { "GET" } else { "MGET" });
    command.arg(names);
    command
}

fn answer(value: Option<Vec<u8>>, remaining_ms: i64) -> Result<Fetched, SourceError> {
    const NO_KEY: i64 = -2;
    match (value, remaining_ms) {
        (None, NO_KEY) => Err(SourceError::NotFound),
        (None, _) => Err(SourceError::failed("the key holds no string")),
        (Some(value), remaining) => {
            let fetched = Fetched::new(value);
            Ok(match u64::try_from(remaining) {
                Ok(remaining) => fetched.ttl(Duration::from_millis(remaining)),
                Err(_) => fetched,
            })
        }
    }
}

impl DataSource for RedisSource {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        let (mut values, remaining) = self.ask(&[key]).await.map_err(error::of_source)?;
        answer(values.pop().flatten(), remaining.first().copied().unwrap_or_default())
    }

    async fn fetch_many(&self, keys: &[&str]) -> Vec<Result<Fetched, SourceError>> {
        match keys {
            [] => Vec::new(),
            [key] => vec![self.fetch(key).await],
            keys => match self.ask(keys).await.map_err(error::of_source) {
                Ok((values, remaining)) if values.len() == keys.len() && remaining.len() == keys.len() => {
                    values.into_iter().zip(remaining).map(|(value, remaining)| answer(value, remaining)).collect()
                }
                Ok(_) => {
                    vec![Err(SourceError::failed("the server answers for other keys than were asked")); keys.len()]
                }
                Err(error) => vec![Err(error); keys.len()],
            },
        }
    }
}

impl std::fmt::Debug for RedisSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSource").field("key_prefix", &self.key_prefix).finish_non_exhaustive()
    }
}
