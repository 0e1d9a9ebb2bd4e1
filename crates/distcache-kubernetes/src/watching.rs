//! The task that knows the pods: list them, watch them, and begin again whenever that ends.
//!
//! Knows the order of questions, not their form. The invariant: what is published is a list read to its end and every event
//! since, and it stays published until there is a newer one, whatever fails in between.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::api::{Api, Event};
use crate::failure::Failure;
use crate::known::Known;
use crate::limits::{LIST_TIMEOUT, PAUSE_MAX, PAUSE_MIN, WATCH_MIN};
use crate::settings::Settings;

/// What there is to answer from.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    /// The pods as they were last seen; none before the first list.
    pub(crate) pods: Option<Arc<[SocketAddr]>>,
    /// Why that may be out of date.
    pub(crate) failure: Option<Failure>,
}

pub(crate) struct Watching {
    settings: Arc<Settings>,
    picture: watch::Sender<Picture>,
    known: Known,
    /// Where a watch goes on; empty: after a list.
    version: String,
    /// Failures in a row.
    failures: u32,
    /// What was told of the present failure.
    told: Option<String>,
}

impl Watching {
    pub(crate) fn new(settings: Arc<Settings>, picture: watch::Sender<Picture>) -> Self {
        Self { settings, picture, known: Known::default(), version: String::new(), failures: 0, told: None }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let Err(failure) = self.attempt().await;
            if !failure.is_resumable() {
                self.version.clear();
            }
            self.tell(&failure);
            self.picture.send_modify(|picture| picture.failure = Some(failure));
            sleep(pause(self.failures)).await;
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Ends with what ended it. Each attempt reads the credentials anew: what failed may be a token that was replaced.
    async fn attempt(&mut self) -> Result<Infallible, Failure> {
        let mut api = Api::open(Arc::clone(&self.settings)).await?;
        loop {
            if self.version.is_empty() {
                let late = || Failure::Unreachable(format!("no whole list within {LIST_TIMEOUT:?}"));
                timeout(LIST_TIMEOUT, self.list(&mut api)).await.unwrap_or_else(|_| Err(late()))?;
            }
            self.follow(&mut api).await?;
        }
    }

    async fn list(&mut self, api: &mut Api) -> Result<(), Failure> {
        let mut known = Known::default();
        let mut page = api.page("").await?;
        loop {
            for pod in page.items.unwrap_or_default() {
                known.put(pod, &self.settings.wanted);
            }
            if page.metadata.next.is_empty() || known.is_full() {
                break;
            }
            page = api.page(&page.metadata.next).await?;
        }
        if page.metadata.resource_version.is_empty() {
            return Err(Failure::nonsense("a list without a version"));
        }
        self.version = page.metadata.resource_version;
        self.known = known;
        self.publish();
        Ok(())
    }

    /// Watches until the API server ends it in order.
    async fn follow(&mut self, api: &mut Api) -> Result<(), Failure> {
        let began = Instant::now();
        let mut events = api.watch(&self.version).await?;
        while let Some(event) = events.next().await? {
            let version = match event {
                Event::Added(pod) | Event::Modified(pod) => {
                    let version = pod.metadata.resource_version.clone();
                    self.known.put(pod, &self.settings.wanted);
                    version
                }
                Event::Deleted(pod) => {
                    self.known.remove(&pod);
                    pod.metadata.resource_version
                }
                Event::Bookmark(bookmark) => bookmark.metadata.resource_version,
                Event::Error(status) => return Err(api.failure("watch", &status)),
            };
            if version.is_empty() {
                return Err(Failure::nonsense("an event without a version"));
            }
            self.version = version;
            self.publish();
        }
        // Something in between that ends every watch at once must not be asked without a pause.
        if began.elapsed() < WATCH_MIN {
            return Err(Failure::Unreachable("watches end as soon as they begin".into()));
        }
        Ok(())
    }

    fn publish(&mut self) {
        let pods = self.known.addresses();
        self.failures = 0;
        if self.told.take().is_some() {
            tracing::info!(pods = pods.len(), "the API server answers again");
        }
        self.picture.send_if_modified(|picture| {
            let is_news = picture.failure.take().is_some() || picture.pods.as_deref() != Some(&*pods);
            picture.pods = Some(pods.into());
            is_news
        });
    }

    /// A watch breaks now and then and is resumed; what lasts is worth a line, once. Before the first list, whoever asks is told.
    fn tell(&mut self, failure: &Failure) {
        let text = failure.to_string();
        let is_passing = self.failures == 0 && !failure.is_lasting();
        let known = self.picture.borrow().pods.as_ref().map(|pods| pods.len());
        match known {
            Some(known) if !is_passing && self.told.as_ref() != Some(&text) => {
                tracing::warn!(%failure, known, "no watch of the pods; those known go on being answered");
                self.told = Some(text);
            }
            _ => tracing::debug!(%failure, "no watch of the pods"),
        }
    }
}

fn pause(failures: u32) -> Duration {
    let whole = PAUSE_MIN.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX);
    whole.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit() {
        assert!((PAUSE_MIN / 2..=PAUSE_MIN).contains(&pause(0)));
        assert!(pause(3) >= PAUSE_MIN * 4);
        assert!((PAUSE_MAX / 2..=PAUSE_MAX).contains(&pause(u32::MAX)));
    }
}
