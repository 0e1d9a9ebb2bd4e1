//! Describing a Redis source, and opening it.
//!
//! The invariant: a source that was opened has spoken to its server.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};

use super::RedisSource;
use super::error::RedisSourceError;
use crate::redact::without_password;

/// Which strings of which server; [`open`](Self::open) makes it a source.
#[derive(Clone)]
#[must_use = "nothing is opened before `open`"]
pub struct RedisSourceBuilder {
    url: String,
    key_prefix: String,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    timeout: Duration,
}

impl RedisSourceBuilder {
    pub(super) fn new(url: String) -> Self {
        Self { url, key_prefix: String::new(), password_file: None, ca_file: None, timeout: Duration::from_secs(2) }
    }

    /// What the server's keys begin with, before those of the keyspace: with `user:`, the key `42` is `user:42`.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// The file that holds the password, so that it need not stand in the URL. White space around it does not count. Read once,
    /// when the source is opened.
    pub fn password_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.password_file = Some(file.into());
        self
    }

    /// Behind `rediss:`, trusts the certificates in this PEM file and no others; unless told, what the system trusts.
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    /// How long a connection may take to be made, and an answer to come; 2 s unless told. The cache's load timeout bounds the
    /// whole question.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Connects, and has the server take the login.
    ///
    /// # Errors
    /// A URL that names no server, a file that is not there, a server that is not reached or refuses.
    pub async fn open(self) -> Result<RedisSource, RedisSourceError> {
        let client = self.client()?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            // Whoever asks next tries again; nobody waits for several attempts.
            .set_number_of_retries(0);
        let connection = Box::pin(ConnectionManager::new_with_config(client, config)).await;
        let connection = connection.map_err(|error| self.not_open(error))?;
        Ok(RedisSource { connection, key_prefix: self.key_prefix })
    }

    fn client(&self) -> Result<Client, RedisSourceError> {
        let info = self.info()?;
        let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        if is_tls {
            // The client takes the cryptography of the process; where another one is linked too and none was chosen, it panics.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let client = match &self.ca_file {
            Some(file) if is_tls => {
                let root_cert = Some(self.read("CA file", file)?);
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
            }
            Some(_) => {
                return Err(self.bad_url("a CA file is of no use without TLS; the URL has to begin with `rediss:`"));
            }
            None => Client::open(info),
        };
        client.map_err(|error| self.bad_url(error))
    }

    fn info(&self) -> Result<ConnectionInfo, RedisSourceError> {
        let info = self.url.as_str().into_connection_info().map_err(|error| self.bad_url(error))?;
        let Some(file) = &self.password_file else { return Ok(info) };
        let password = self.read("file of the password", file)?;
        let settings = info.redis_settings().clone().set_password(String::from_utf8_lossy(&password).trim());
        Ok(info.set_redis_settings(settings))
    }

    fn read(&self, what: &'static str, path: &PathBuf) -> Result<Vec<u8>, RedisSourceError> {
        std::fs::read(path).map_err(|cause| RedisSourceError::File { what, path: path.clone(), cause })
    }

    fn bad_url(&self, reason: impl ToString) -> RedisSourceError {
        RedisSourceError::Url { url: without_password(&self.url), reason: reason.to_string() }
    }

    fn not_open(&self, error: redis::RedisError) -> RedisSourceError {
        RedisSourceError::Open { url: without_password(&self.url), cause: Box::new(error) }
    }
}

impl fmt::Debug for RedisSourceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSourceBuilder")
            .field("url", &without_password(&self.url))
            .field("key_prefix", &self.key_prefix)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
