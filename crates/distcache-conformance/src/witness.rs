//! Stands before the provider under test and takes note of what it does.
//!
//! Changes nothing: every call goes through. The invariant: a question that has ended is counted, however it ended.

use std::net::SocketAddr;
use std::sync::Arc;

use distcache::{Discovery, DiscoveryError};
use parking_lot::Mutex;

/// The provider, watched.
pub(crate) struct Witness<P> {
    provider: P,
    notes: Arc<Mutex<Notes>>,
}

/// What a provider has done so far.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Questions that have ended.
    pub(crate) asked: usize,
    /// The latest answer that was no error.
    pub(crate) answer: Option<Vec<SocketAddr>>,
    /// The latest error.
    pub(crate) failure: Option<DiscoveryError>,
    /// An error that says that asking again will not help. No scenario gives reason for one.
    pub(crate) gave_up: Option<DiscoveryError>,
}

impl<P> Witness<P> {
    pub(crate) fn before(provider: P) -> (Self, Arc<Mutex<Notes>>) {
        let notes = Arc::default();
        (Self { provider, notes: Arc::clone(&notes) }, notes)
    }
}

/// Counts also those questions that the engine gave up.
struct Question<'a>(&'a Mutex<Notes>);

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.0.lock().asked += 1;
    }
}

impl<P: Discovery> Discovery for Witness<P> {
    fn is_standalone(&self) -> bool {
        self.provider.is_standalone()
    }

    async fn register(&self, me: SocketAddr) -> Result<(), DiscoveryError> {
        self.provider.register(me).await
    }

    async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        let question = Question(&self.notes);
        let answer = self.provider.discover().await;
        let mut notes = question.0.lock();
        match &answer {
            Ok(found) => notes.answer = Some(found.clone()),
            Err(error) => {
                notes.gave_up = notes.gave_up.take().or_else(|| (!error.is_retryable()).then(|| error.clone()));
                notes.failure = Some(error.clone());
            }
        }
        drop(notes);
        answer
    }

    async fn deregister(&self, me: SocketAddr) -> Result<(), DiscoveryError> {
        self.provider.deregister(me).await
    }

    async fn close(&self) {
        self.provider.close().await;
    }
}
