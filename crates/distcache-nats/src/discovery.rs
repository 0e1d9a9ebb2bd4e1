//! What the engine calls: be found, ask who is there, take leave.
//!
//! Knows how to ask, nothing of how the connection comes about. The invariant: a question takes at most the answer window and
//! reads at most [`ANSWERS_MAX`] answers; whoever answers wrongly is passed over.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Message, StatusCode, Subscriber};
use distcache::{Discovery, DiscoveryError};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::error::NatsError;
use crate::link::{Link, Standing};
use crate::login::Login;
use crate::message::{self, QUESTION};
use crate::settings::{ANSWERS_MAX, Server, Settings};
use crate::tls::Tls;

/// Finds nodes through a NATS server: each answers on a subject of its cluster.
///
/// A server that is away does not keep a node from starting: it connects in the background, and again after every loss. What
/// only an operator can mend stops the start with a [`DiscoveryError::Invalid`]: settings that make no sense, a file that
/// cannot be read, a login that the server refuses, a certificate that is not trusted.
///
/// One provider serves one engine, which has to bear the same cluster name.
///
/// ```
/// use std::time::Duration;
/// use distcache_nats::{Login, NatsDiscovery};
///
/// let discovery = NatsDiscovery::new(["nats://127.0.0.1:4222"], "shop")
///     .login(Login::token("from a vault"))
///     .connection_name("shop, node a")
///     .answer_window(Duration::from_millis(500));
/// ```
#[derive(Debug)]
pub struct NatsDiscovery {
    settings: Settings,
    link: OnceLock<Link>,
    passed_over: AtomicU64,
}

impl NatsDiscovery {
    /// Servers as URLs, `nats://host:port` or, where TLS is a must, `tls://host:port`: any number of one NATS cluster. Nodes
    /// of different cluster names do not find each other.
    pub fn new(servers: impl IntoIterator<Item = impl Into<String>>, cluster_name: impl Into<String>) -> Self {
        let servers = servers.into_iter().map(|server| Server(server.into())).collect();
        let settings = Settings::new(servers, cluster_name.into());
        Self { settings, link: OnceLock::new(), passed_over: AtomicU64::new(0) }
    }

    /// How to log in; without a login unless told.
    pub fn login(mut self, login: Login) -> Self {
        self.settings.login = login;
        self
    }

    /// Speaks TLS only. Unless told, no TLS is spoken, except with `tls://` servers, which have to be trusted by the system.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.settings.tls = Some(tls);
        self
    }

    /// What all subjects begin with, `distcache` unless told. This node publishes and subscribes below
    /// `PREFIX.CLUSTER` and nowhere else.
    pub fn subject_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.subject_prefix = prefix.into();
        self
    }

    /// How the server lists this connection; `distcache` unless told.
    pub fn connection_name(mut self, name: impl Into<String>) -> Self {
        self.settings.connection_name = Some(name.into());
        self
    }

    /// How long connecting to one server may take; 2 s unless told.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How long answers to one question are gathered; 250 ms unless told.
    pub fn answer_window(mut self, window: Duration) -> Self {
        self.settings.answer_window = window;
        self
    }

    /// Answers so far that were none: garbage, or of another version.
    pub fn answers_passed_over(&self) -> u64 {
        self.passed_over.load(Ordering::Relaxed)
    }

    /// Begins to connect where that has not begun.
    fn link(&self) -> Result<&Link, DiscoveryError> {
        self.settings.check()?;
        Ok(self.link.get_or_init(|| Link::open(self.settings.clone())))
    }

    async fn ask(&self, link: &Link, client: &Client) -> Result<Vec<SocketAddr>, NatsError> {
        let deadline = Instant::now() + self.settings.answer_window;
        let inbox = client.new_inbox();
        let asked = async {
            let answers = client.subscribe(inbox.clone()).await?;
            let subject = link.shared.subjects.question.clone();
            client.publish_with_reply(subject, inbox.clone(), QUESTION).await?;
            Ok::<_, async_nats::Error>(answers)
        };
        match timeout_at(deadline, asked).await {
            Ok(Ok(answers)) => self.gather(answers, deadline).await,
            _ => Err(NatsError::Lost),
        }
    }

    /// To the end of the window, since nobody knows how many nodes there are; sooner when the server says that nobody listens.
    async fn gather(&self, mut answers: Subscriber, deadline: Instant) -> Result<Vec<SocketAddr>, NatsError> {
        let mut found = Vec::new();
        for _ in 0..ANSWERS_MAX {
            let answer = tokio::select! {
                // What has arrived counts, also when this task comes late to it.
                biased;
                answer = answers.next() => answer.ok_or(NatsError::Lost)?,
                () = sleep_until(deadline) => break,
            };
            if answer.status == Some(StatusCode::NO_RESPONDERS) {
                break;
            }
            found.extend(self.read(&answer));
        }
        Ok(found)
    }

    fn read(&self, answer: &Message) -> Option<SocketAddr> {
        match message::read_answer(&answer.payload) {
            Ok(addr) => Some(addr),
            Err(reason) => {
                if self.passed_over.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::debug!(%reason, "an answer was passed over; further ones are counted only");
                }
                None
            }
        }
    }
}

impl Discovery for NatsDiscovery {
    async fn register(&self, me: SocketAddr) -> Result<(), DiscoveryError> {
        match self.link()?.answer_for(Some(me)).await {
            Standing::Down(error) if !error.is_retryable() => Err(error),
            _ => Ok(()),
        }
    }

    async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        let link = self.link()?;
        let client = link.client().await?;
        if client.connection_state() != State::Connected {
            return Err(NatsError::Lost.into());
        }
        let found = self.ask(link, &client).await?;
        match &*link.shared.standing.borrow() {
            // It has asked itself too, and would have answered.
            Standing::Up { answers_for: Some(_), .. } if found.is_empty() => {
                let complaint = link.shared.complaint().unwrap_or_else(|| "nothing".into());
                Err(NatsError::Unanswered { complaint }.into())
            }
            _ => Ok(found),
        }
    }

    async fn deregister(&self, _: SocketAddr) -> Result<(), DiscoveryError> {
        if let Some(link) = self.link.get() {
            link.answer_for(None).await;
        }
        Ok(())
    }

    async fn close(&self) {
        if let Some(link) = self.link.get() {
            link.close().await;
        }
    }
}
