//! The keys of `provider = "nats"`. Passwords and tokens stand in files of their own: who may read how a node is configured
//! need not read them.

use std::time::Duration;

use super::error::Reason;
use super::section::Section;

/// Paths as they stand in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct NatsConfig {
    pub servers: Vec<String>,
    pub subject_prefix: Option<String>,
    pub login: NatsLogin,
    pub ca: Option<String>,
    /// Certificate and key.
    pub identity: Option<[String; 2]>,
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum NatsLogin {
    None,
    Password { user: String, file: String },
    Token { file: String },
    Nkey { seed_file: String },
    Credentials { file: String },
}

pub(super) const KNOWN: [&str; 11] = [
    "servers",
    "subject_prefix",
    "user",
    "password_file",
    "token_file",
    "nkey_seed_file",
    "credentials_file",
    "ca",
    "cert",
    "key",
    "timeout",
];

pub(super) fn nats(section: &mut Section<'_>) -> Result<NatsConfig, Reason> {
    let servers = section.strings("servers")?.filter(|servers| !servers.is_empty());
    Ok(NatsConfig {
        servers: servers.ok_or_else(|| {
            section.missing("servers", "the URLs of NATS servers, such as [\"nats://127.0.0.1:4222\"]")
        })?,
        subject_prefix: section.string("subject_prefix")?,
        login: login(section)?,
        ca: section.string("ca")?,
        identity: match section.string("cert")? {
            Some(cert) => Some([cert, section.required("key", "the file of the certificate's private key")?]),
            None => None,
        },
        timeout: section.duration("timeout")?,
    })
}

/// The first that is there; a second one is a key without meaning.
fn login(section: &mut Section<'_>) -> Result<NatsLogin, Reason> {
    if let Some(user) = section.string("user")? {
        return Ok(NatsLogin::Password { user, file: section.required("password_file", "the file of the password")? });
    }
    if let Some(file) = section.string("token_file")? {
        return Ok(NatsLogin::Token { file });
    }
    if let Some(seed_file) = section.string("nkey_seed_file")? {
        return Ok(NatsLogin::Nkey { seed_file });
    }
    Ok(section.string("credentials_file")?.map_or(NatsLogin::None, |file| NatsLogin::Credentials { file }))
}
