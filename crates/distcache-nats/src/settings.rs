//! What a user says about the NATS server, checked once, and made into the client's options for every connection.
//!
//! Knows the client's options, opens nothing. The invariant: settings that passed `check` can be tried; what fails later is the
//! server or a file.

use std::fmt;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};

use crate::error::{Attempt, NatsError};
use crate::login::Login;
use crate::message::{Subjects, fault_of_prefix};
use crate::tls::{self, Tls};

/// Answers to one question that are read; a cluster has no more nodes.
pub(crate) const ANSWERS_MAX: usize = 4096;
const SERVERS_MAX: usize = 64;
/// Attempts of the client's own when the connection breaks, some 100 ms of pauses: enough to move to another server of a NATS
/// cluster. After them the link begins anew, which ends when the provider is closed, as the client's own attempts do not.
const RECONNECTS_MAX: usize = 8;
/// A connection that is dead without a word is noticed after twice this.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Longer than any answer takes, and shorter than the engine waits for a provider.
const ANSWER_WINDOW_MAX: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) servers: Vec<Server>,
    pub(crate) cluster_name: String,
    pub(crate) subject_prefix: String,
    pub(crate) login: Login,
    pub(crate) tls: Option<Tls>,
    pub(crate) connection_name: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) answer_window: Duration,
}

/// The URL of a server as it was given; what stands before an `@` may be a secret and does not show.
#[derive(Clone)]
pub(crate) struct Server(pub(crate) String);

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.rsplit_once('@') {
            Some((_, rest)) => write!(f, "\"..@{rest}\""),
            None => write!(f, "{:?}", self.0),
        }
    }
}

impl Server {
    fn parse(&self, position: usize) -> Result<ServerAddr, NatsError> {
        let fault = |reason: String| setting(format!("servers[{position}]"), reason);
        // The parser's words do not quote the URL.
        let addr: ServerAddr = self.0.parse().map_err(|error: std::io::Error| fault(error.to_string()))?;
        if addr.username().is_some() || addr.password().is_some() {
            return Err(fault("a login does not belong into the URL, where it would be logged".into()));
        }
        if !matches!(addr.scheme(), "nats" | "tls") {
            return Err(fault(format!("{addr:?} is neither nats:// nor tls://", addr = addr.scheme())));
        }
        if addr.host().is_empty() {
            return Err(fault("it names no host".into()));
        }
        Ok(addr)
    }
}

impl Settings {
    pub(crate) fn new(servers: Vec<Server>, cluster_name: String) -> Self {
        Self {
            servers,
            cluster_name,
            subject_prefix: "distcache".into(),
            login: Login::default(),
            tls: None,
            connection_name: None,
            connect_timeout: Duration::from_secs(2),
            answer_window: Duration::from_millis(250),
        }
    }

    pub(crate) fn check(&self) -> Result<(), NatsError> {
        self.addrs()?;
        if self.cluster_name.is_empty() || self.cluster_name.len() > 255 {
            return Err(setting("cluster_name", "must have 1 to 255 bytes"));
        }
        if let Some(fault) = fault_of_prefix(&self.subject_prefix) {
            return Err(setting("subject_prefix", format!("{:?} {fault}", self.subject_prefix)));
        }
        let within = |field: &str, value: Duration, max: Duration| match value {
            Duration::ZERO => Err(setting(field, "must be longer than zero")),
            value if value > max => Err(setting(field, format!("{value:?} is longer than {max:?}"))),
            _ => Ok(()),
        };
        within("connect_timeout", self.connect_timeout, CONNECT_TIMEOUT_MAX)?;
        within("answer_window", self.answer_window, ANSWER_WINDOW_MAX)
    }

    pub(crate) fn addrs(&self) -> Result<Vec<ServerAddr>, NatsError> {
        match self.servers.len() {
            0 => Err(setting("servers", "names none")),
            len if len > SERVERS_MAX => Err(setting("servers", format!("names {len}, more than {SERVERS_MAX}"))),
            _ => self.servers.iter().enumerate().map(|(position, server)| server.parse(position)).collect(),
        }
    }

    pub(crate) fn subjects(&self) -> Subjects {
        Subjects::new(&self.subject_prefix, &self.cluster_name)
    }

    /// Reads what is in files, so that each connection is made with what they hold now.
    pub(crate) async fn options(&self) -> Result<ConnectOptions, NatsError> {
        let config = match self.tls() {
            Some(tls) => tls.config().await?,
            None => tls::nobody_trusted()?,
        };
        let options = ConnectOptions::new()
            .name(self.connection_name.as_deref().unwrap_or("distcache"))
            .connection_timeout(self.connect_timeout)
            .ping_interval(PING_INTERVAL)
            .max_reconnects(RECONNECTS_MAX.max(2 * self.servers.len()))
            .subscription_capacity(ANSWERS_MAX)
            .custom_inbox_prefix(self.subjects().answers)
            .require_tls(self.tls().is_some())
            .tls_client_config(config);
        self.login.apply(options).await
    }

    /// A URL that says `tls` asks for it too.
    fn tls(&self) -> Option<Tls> {
        let is_named = || self.servers.iter().any(|server| server.0.starts_with("tls://"));
        self.tls.clone().or_else(|| is_named().then(Tls::new))
    }

    /// For errors.
    pub(crate) fn attempt<'a>(&self, servers: &'a str) -> Attempt<'a> {
        Attempt { servers, login: self.login.describe(), has_tls: self.tls().is_some() }
    }
}

fn setting(field: impl Into<String>, reason: impl Into<String>) -> NatsError {
    NatsError::Setting { field: field.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(servers: &[&str]) -> Settings {
        Settings::new(servers.iter().map(|server| Server((*server).into())).collect(), "shop".into())
    }

    fn fault(settings: &Settings) -> String {
        settings.check().unwrap_err().to_string()
    }

    #[test]
    fn nonsense_is_refused_and_names_its_field() {
        settings(&["nats://127.0.0.1:4222", "tls://nats.internal", "127.0.0.1"]).check().unwrap();
        assert_eq!(fault(&settings(&[])), "NATS setting servers: names none");
        assert!(fault(&settings(&["nats://a", "http://b"])).starts_with("NATS setting servers[1]: invalid scheme"));
        assert!(fault(&settings(&["nats://a:port"])).starts_with("NATS setting servers[0]: "));
        let shop = || settings(&["nats://a"]);
        assert!(fault(&Settings { cluster_name: String::new(), ..shop() }).contains("cluster_name"));
        assert!(fault(&Settings { subject_prefix: "a.*".into(), ..shop() }).contains("subject_prefix: \"a.*\""));
        assert!(fault(&Settings { answer_window: Duration::ZERO, ..shop() }).contains("answer_window"));
    }

    #[test]
    fn a_login_in_a_url_is_refused_and_not_shown() {
        for url in ["nats://cache:hush@a:4222", "nats://hush@a", "nats://cache:hush@a:not-a-port", "hu@hush@"] {
            let settings = settings(&[url]);
            let shown = format!("{settings:?} {}", fault(&settings));
            assert!(!shown.contains("hush"), "{shown}");
        }
    }
}
