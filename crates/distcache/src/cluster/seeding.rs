//! The discovery loop: makes this node findable, asks again and again who else is there, and takes its leave.
//!
//! Knows no members and sends nothing itself: whom discovery names is a hint for the driver. The invariant: a provider's calls
//! never overlap, `close` is the last of them, and no failure of a provider harms a node that has started.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::seq::IteratorRandom;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Progress;
use super::driver::Input;
use crate::discovery::{DiscoveryError, DynDiscovery};
use crate::net;

/// How long the provider may take to register this node before the start is given up.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to answer a question before it is asked anew.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long each step of the farewell may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(450);
/// The pause after the first question while nobody has answered; doubles up to the interval.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Seeding {
    pub(super) discovery: Arc<dyn DynDiscovery>,
    pub(super) me: SocketAddr,
    pub(super) interval: Duration,
    pub(super) seeds_max: usize,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) leaving: CancellationToken,
    pub(super) stop: CancellationToken,
}

/// Makes `me` findable.
pub(super) async fn register(discovery: &dyn DynDiscovery, me: SocketAddr) -> Result<(), DiscoveryError> {
    let late = || DiscoveryError::unavailable(format!("no registration within {REGISTER_TIMEOUT:?}"));
    timeout(REGISTER_TIMEOUT, discovery.register(me)).await.unwrap_or_else(|_| Err(late()))
}

/// Who may be there now; neither this node nor anybody twice.
pub(super) async fn discover(
    discovery: &dyn DynDiscovery,
    me: Option<SocketAddr>,
    seeds_max: usize,
) -> Result<Vec<SocketAddr>, DiscoveryError> {
    let late = || DiscoveryError::unavailable(format!("no answer within {DISCOVER_TIMEOUT:?}"));
    let mut seeds = timeout(DISCOVER_TIMEOUT, discovery.discover()).await.unwrap_or_else(|_| Err(late()))?;
    seeds.retain(|seed| Some(*seed) != me && seed.port() != 0 && !seed.ip().is_unspecified());
    seeds.sort_unstable();
    seeds.dedup();
    if seeds.len() > seeds_max {
        tracing::warn!(
            named = seeds.len(),
            limit = seeds_max,
            "discovery names more than the limit of members; some are tried"
        );
        // Not always the same: whoever is there among many that are not is found in the end.
        seeds = seeds.into_iter().sample(&mut net::rng(), seeds_max);
        seeds.sort_unstable();
    }
    Ok(seeds)
}

/// Runs until the node leaves or stops. `_ended` tells that the farewell is over.
pub(super) async fn run(mut seeding: Seeding, _ended: DropGuard) {
    tokio::select! {
        biased;
        () = seeding.stop.clone().cancelled_owned() => {}
        () = seeding.leaving.clone().cancelled_owned() => {
            let discovery = &seeding.discovery;
            match timeout(FAREWELL_TIMEOUT, discovery.deregister(seeding.me)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "discovery did not take this node's address back"),
                Err(_) => tracing::warn!("discovery did not take this node's address back in time"),
            }
        }
        () = seeding.ask_for_ever() => {}
    }
    let _ = timeout(FAREWELL_TIMEOUT, seeding.discovery.close()).await;
}

impl Seeding {
    async fn ask_for_ever(&mut self) {
        let (mut failure, mut pause) = (None, FIRST_PAUSE);
        loop {
            match discover(&*self.discovery, Some(self.me), self.seeds_max).await {
                Ok(seeds) => {
                    failure = None;
                    if self.inputs.send(Input::Seeds(seeds)).await.is_err() {
                        return;
                    }
                }
                Err(error) => log_failure(&error, &mut failure),
            }
            match timeout(pause.min(self.interval), self.contacted()).await {
                Ok(true) => sleep(self.interval).await,
                Ok(false) => return,
                Err(_) => pause = pause.saturating_mul(2).min(self.interval),
            }
        }
    }

    /// Waits for the first contact; false if there will be none.
    async fn contacted(&mut self) -> bool {
        self.progress.wait_for(|progress| progress.is_contacted).await.is_ok()
    }
}

/// Warns of a failure once, and again when it changes.
fn log_failure(error: &DiscoveryError, last: &mut Option<String>) {
    let text = error.to_string();
    if last.as_ref() == Some(&text) {
        tracing::debug!(%error, "discovery still has no answer");
    } else {
        tracing::warn!(%error, "discovery has no answer; it is asked again");
        *last = Some(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Discovery;

    struct Many(Vec<SocketAddr>);

    impl Discovery for Many {
        async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
            Ok(self.0.clone())
        }
    }

    #[tokio::test]
    async fn hints_are_bounded_and_neither_repeated_nor_this_node_nor_nonsense() {
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let named = [addr(3), addr(1), addr(3), addr(2), addr(0), ([0, 0, 0, 0], 9).into()];
        assert_eq!(discover(&Many(named.into()), Some(addr(1)), 9).await.unwrap(), [addr(2), addr(3)]);
        assert_eq!(discover(&Many(named.into()), None, 2).await.unwrap().len(), 2);
    }

    struct Silent;

    impl Discovery for Silent {
        async fn register(&self, _: SocketAddr) -> Result<(), DiscoveryError> {
            std::future::pending().await
        }
        async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_never_answers_is_a_passing_failure() {
        assert!(discover(&Silent, None, 9).await.unwrap_err().is_retryable());
        assert!(register(&Silent, ([127, 0, 0, 1], 1).into()).await.unwrap_err().is_retryable());
    }
}
