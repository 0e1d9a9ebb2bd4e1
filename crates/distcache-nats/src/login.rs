//! How a node says who it is to the NATS server.
//!
//! Knows no connection. The invariant: a secret is never part of a `Debug` output or an error; files are read anew for every
//! connection, so that a secret can be changed while the node lives.

use std::fmt;
use std::path::{Path, PathBuf};

use async_nats::ConnectOptions;
use tokio::io::AsyncReadExt;

use crate::error::NatsError;

/// No file with a secret is larger.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// A password, token or key: as it is, or the file that holds it.
///
/// Does not show itself:
///
/// ```
/// assert_eq!(format!("{:?}", distcache_nats::Secret::text("open sesame")), "Secret(..)");
/// ```
#[derive(Clone)]
pub struct Secret(Place);

#[derive(Clone)]
enum Place {
    Text(String),
    File(PathBuf),
}

impl Secret {
    /// The secret itself.
    pub fn text(secret: impl Into<String>) -> Self {
        Self(Place::Text(secret.into()))
    }

    /// The file that it is read from, anew for every connection. White space around it does not count.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Place::File(path.into()))
    }

    async fn read(&self, what: &'static str) -> Result<String, NatsError> {
        match &self.0 {
            Place::Text(secret) => Ok(secret.clone()),
            Place::File(path) => Ok(read_file(what, path).await?.trim().to_owned()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Text(_) => f.write_str("Secret(..)"),
            Place::File(path) => write!(f, "Secret({path:?})"),
        }
    }
}

impl<S: Into<String>> From<S> for Secret {
    fn from(secret: S) -> Self {
        Self::text(secret)
    }
}

/// One way to log in.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Login {
    /// The server asks nobody.
    #[default]
    Anonymous,
    /// A user and a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token that all clients share.
    Token(Secret),
    /// The seed of a user's nkey (`SU…`); the server knows the public key.
    Nkey(Secret),
    /// A credentials file (`.creds`): a user's JWT and the seed of its nkey.
    Credentials(PathBuf),
}

impl Login {
    /// A user and a password.
    pub fn password(user: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::Password { user: user.into(), password: password.into() }
    }

    /// A token that all clients share.
    pub fn token(token: impl Into<Secret>) -> Self {
        Self::Token(token.into())
    }

    /// The seed of a user's nkey (`SU…`).
    pub fn nkey(seed: impl Into<Secret>) -> Self {
        Self::Nkey(seed.into())
    }

    /// A credentials file (`.creds`). It is read anew for every connection.
    pub fn credentials(path: impl Into<PathBuf>) -> Self {
        Self::Credentials(path.into())
    }

    /// In words, without the secret; `None` where there is nothing to say.
    pub(crate) fn describe(&self) -> Option<String> {
        match self {
            Self::Anonymous => None,
            Self::Password { user, .. } => Some(format!("password of user {user:?}")),
            Self::Token(_) => Some("token".into()),
            Self::Nkey(_) => Some("nkey".into()),
            Self::Credentials(path) => Some(format!("credentials file {:?}", path.display().to_string())),
        }
    }

    pub(crate) async fn apply(&self, options: ConnectOptions) -> Result<ConnectOptions, NatsError> {
        Ok(match self {
            Self::Anonymous => options,
            Self::Password { user, password } => {
                options.user_and_password(user.clone(), password.read("NATS password file").await?)
            }
            Self::Token(token) => options.token(token.read("NATS token file").await?),
            Self::Nkey(seed) => options.nkey(seed.read("NATS nkey seed file").await?),
            Self::Credentials(path) => {
                let text = read_file("NATS credentials file", path).await?;
                // The client's own words are left out: they may quote the file.
                options.credentials(&text).map_err(|_| NatsError::Unusable {
                    what: self.describe().unwrap_or_default(),
                    reason: "holds no user JWT with the seed of its nkey".into(),
                })?
            }
        })
    }
}

async fn read_file(what: &'static str, path: &Path) -> Result<String, NatsError> {
    let file_error = |error| NatsError::File { what, path: path.to_owned(), error };
    let file = tokio::fs::File::open(path).await.map_err(file_error)?;
    let mut text = String::new();
    file.take(SECRET_BYTES_MAX).read_to_string(&mut text).await.map_err(file_error)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_shows_itself() {
        for login in [Login::password("cache", "hush"), Login::token("hush"), Login::nkey("hush")] {
            let shown = format!("{login:?} {:?}", login.describe());
            assert!(!shown.contains("hush"), "{shown}");
        }
        assert!(format!("{:?}", Login::token(Secret::file("nats.token"))).contains("nats.token"));
    }
}
