//! The connection to the NATS server: made in the background, kept, made again; and this node's answers over it.
//!
//! Knows when to connect and whom to answer, nothing of gathering. The invariant: one task owns the connection, and everything
//! that the client started ends with it: once the provider is closed or dropped, nobody goes on connecting. What is left is at
//! most the client's own few attempts after a loss.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ClientError, Event, Message, Subscriber};
use distcache::DiscoveryError;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::{NatsError, of_connect};
use crate::message::{self, QUESTION, Subjects};
use crate::settings::Settings;

/// Pauses between attempts to connect, doubling; a little less or more by chance, so that nodes do not come all at once.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The pause after the server has turned this node away: it does not change its mind often, and logs each time.
const PAUSE_REFUSED: Duration = Duration::from_secs(5);
/// Nobody waits longer for an attempt to connect: the engine gives up a provider that takes its time.
const WAIT_MAX: Duration = Duration::from_secs(4);
/// How long the client may take to send what is left and hang up.
const FAREWELL_MAX: Duration = Duration::from_millis(200);
/// No more of the server's words is kept.
const COMPLAINT_CHARS_MAX: usize = 200;

/// How the connection stands.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// The first attempt has not ended.
    Connecting,
    /// Connected, and answering for this address if there is one.
    Up { client: Client, answers_for: Option<SocketAddr> },
    /// Not connected, and why; the next attempt comes by itself.
    Down(DiscoveryError),
}

/// A handle on the connection. Dropping it ends the connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
    stop: DropGuard,
}

/// What the task and those who ask have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) subjects: Subjects,
    pub(crate) standing: watch::Sender<Standing>,
    me: watch::Sender<Option<SocketAddr>>,
    /// What the server last had against this node, over the present connection.
    complaint: Mutex<Option<String>>,
}

impl Link {
    /// Begins to connect, in a task on the present runtime.
    pub(crate) fn open(settings: Settings) -> Self {
        let shared = Arc::new(Shared {
            subjects: settings.subjects(),
            settings,
            standing: watch::Sender::new(Standing::Connecting),
            me: watch::Sender::new(None),
            complaint: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep(Arc::clone(&shared), stop.clone()));
        Self { shared, task: Mutex::new(Some(task)), stop: stop.drop_guard() }
    }

    /// Answers for `me` from now on, or for nobody. Returns how the connection stands once that is in force.
    pub(crate) async fn answer_for(&self, me: Option<SocketAddr>) -> Standing {
        self.shared.me.send_replace(me);
        self.wait_for(|standing| match standing {
            Standing::Connecting => false,
            Standing::Up { answers_for, .. } => *answers_for == me,
            Standing::Down(_) => true,
        })
        .await
    }

    /// The connection, once the first attempt has ended.
    pub(crate) async fn client(&self) -> Result<Client, DiscoveryError> {
        match self.wait_for(|standing| !matches!(standing, Standing::Connecting)).await {
            Standing::Up { client, .. } => Ok(client),
            Standing::Down(error) => Err(error),
            Standing::Connecting => Err(NatsError::Connecting.into()),
        }
    }

    /// Waits no longer than an attempt to connect takes.
    async fn wait_for(&self, holds: impl FnMut(&Standing) -> bool) -> Standing {
        let mut standing = self.shared.standing.subscribe();
        let _ = timeout(self.shared.settings.connect_timeout.min(WAIT_MAX), standing.wait_for(holds)).await;
        standing.borrow().clone()
    }

    pub(crate) async fn close(&self) {
        self.stop.token().cancel();
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

impl Shared {
    pub(crate) fn complaint(&self) -> Option<String> {
        self.complaint.lock().clone()
    }

    async fn connect(self: &Arc<Self>, lost: &CancellationToken) -> Result<Client, NatsError> {
        let (shared, lost) = (Arc::downgrade(self), lost.clone());
        let options = self.settings.options().await?.event_callback(move |event| {
            match event {
                Event::ClientError(ClientError::MaxReconnects) | Event::Closed => lost.cancel(),
                Event::ServerError(error) => {
                    shared.upgrade().inspect(|shared| shared.take_down(&error.to_string()));
                }
                _ => {}
            }
            std::future::ready(())
        });
        let addrs = self.settings.addrs()?;
        Box::pin(options.connect(addrs)).await.map_err(|error| {
            let servers: Vec<_> = self.settings.servers.iter().map(|server| format!("{server:?}")).collect();
            of_connect(&error, self.settings.attempt(&servers.join(", ")))
        })
    }

    fn take_down(&self, complaint: &str) {
        let complaint: String = complaint.chars().take(COMPLAINT_CHARS_MAX).collect();
        let mut last = self.complaint.lock();
        if last.as_ref() != Some(&complaint) {
            tracing::warn!(complaint, "the NATS server complains");
            *last = Some(complaint);
        }
    }

    /// Answers over this connection until it is lost.
    async fn serve(&self, client: &Client, lost: &CancellationToken) -> Result<(), async_nats::Error> {
        let mut me = self.me.subscribe();
        loop {
            let answers_for = *me.borrow_and_update();
            let mut questions = match answers_for {
                Some(_) => Some(client.subscribe(self.subjects.question.clone()).await?),
                None => None,
            };
            // What the server has not heard of is not in force.
            client.flush().await?;
            self.standing.send_replace(Standing::Up { client: client.clone(), answers_for });
            loop {
                tokio::select! {
                    () = lost.cancelled() => return Ok(()),
                    changed = me.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return Ok(()),
                    },
                    question = next(&mut questions) => match (question, answers_for) {
                        (Some(question), Some(me)) => self.answer(client, question, me).await?,
                        _ => return Ok(()),
                    },
                }
            }
        }
    }

    async fn answer(&self, client: &Client, question: Message, me: SocketAddr) -> Result<(), async_nats::Error> {
        match question.reply {
            Some(reply) if question.payload == QUESTION && self.subjects.takes_answers(&reply) => {
                client.publish(reply, message::answer(me)).await?;
            }
            _ => tracing::trace!("a question that makes no sense was passed over"),
        }
        Ok(())
    }
}

/// The next question; never where none are listened to.
async fn next(questions: &mut Option<Subscriber>) -> Option<Message> {
    match questions {
        Some(questions) => questions.next().await,
        None => std::future::pending().await,
    }
}

/// Connects and answers, again and again, until it is stopped.
async fn keep(shared: Arc<Shared>, stop: CancellationToken) {
    let mut pause = PAUSE_MIN;
    while !stop.is_cancelled() {
        let lost = CancellationToken::new();
        *shared.complaint.lock() = None;
        let connected = stop.run_until_cancelled(shared.connect(&lost)).await;
        let error = match connected {
            None => break,
            Some(Err(error)) => error,
            Some(Ok(client)) => {
                pause = PAUSE_MIN;
                let served = stop.run_until_cancelled(shared.serve(&client, &lost)).await;
                hang_up(client, &lost).await;
                match served {
                    None => break,
                    Some(_) => NatsError::Lost,
                }
            }
        };
        let error = DiscoveryError::from(error);
        let next = if error.is_retryable() { pause } else { PAUSE_REFUSED };
        tracing::debug!(%error, "not connected to the NATS server");
        shared.standing.send_replace(Standing::Down(error));
        pause = (pause * 2).min(PAUSE_MAX);
        stop.run_until_cancelled(tokio::time::sleep(next.mul_f64(rand::random_range(0.75..1.25)))).await;
    }
    shared.standing.send_replace(Standing::Down(NatsError::Closed.into()));
}

/// Sends what is left, ends the subscriptions, and hangs up.
async fn hang_up(client: Client, lost: &CancellationToken) {
    let hung_up = async {
        if client.drain().await.is_ok() {
            lost.cancelled().await;
        }
    };
    let _ = timeout(FAREWELL_MAX, hung_up).await;
}
