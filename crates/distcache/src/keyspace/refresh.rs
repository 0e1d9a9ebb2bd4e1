//! Refresh: the value is loaded now, whatever is cached, and replaces it everywhere.
//!
//! The invariant: what a refresh brings was asked of the source after the call began; where that fails the old value stays.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument;

use super::ask::{ATTEMPTS, DISAGREEMENT_WAIT, Route};
use super::{Core, Served};
use crate::error::Error;
use crate::flight::{Failure, Landed};
use crate::peer::wire::Request;
use crate::spec::Entry;
use crate::trace;

impl Core {
    pub(super) async fn refresh(self: &Arc<Self>, key: &str) -> Result<Entry, Error> {
        self.check(key)?;
        let hash = self.hash(key);
        let limit = self.definition.load().settings.load_timeout + self.node.hop_budget;
        let (mut last, span) = (Error::NotOwner { peer: String::new() }, trace::refresh(&self.name, hash));
        for attempt in 1..=ATTEMPTS {
            match self.refresh_at_owner(hash, key, limit).instrument(span.clone()).await {
                Err(error @ Error::NotOwner { .. }) => last = error,
                outcome => return outcome,
            }
            if attempt < ATTEMPTS {
                tokio::time::sleep(DISAGREEMENT_WAIT).await;
            }
        }
        Err(last)
    }

    async fn refresh_at_owner(self: &Arc<Self>, hash: u64, key: &str, limit: Duration) -> Result<Entry, Error> {
        match self.route(hash).0 {
            Route::Me => self.refresh_within(hash, key, limit).await,
            Route::Nobody => Err(Error::NotOwner { peer: String::new() }),
            Route::Peer(link) => {
                self.drop_copy(hash);
                let request = Request::Refresh { keyspace: self.named(), key, deadline: limit };
                let name = link.name().to_owned();
                let answer = link.call(request, limit, move |response| super::fetch::entry_in(response, &name)).await?;
                self.drop_copy(hash);
                answer.inspect_err(|error| self.count_overload(error))
            }
        }
    }

    /// Loads as the owner, and tells the holders of the old value, in a task of the engine: a caller whose time is up leaves
    /// no holder untold.
    async fn refresh_within(self: &Arc<Self>, hash: u64, key: &str, limit: Duration) -> Result<Entry, Error> {
        let (core, key) = (self.clone(), key.to_owned());
        let refreshed = self.node.work_done(async move { core.refresh_here(hash, &key).await }.in_current_span());
        match tokio::time::timeout(limit, refreshed).await {
            Ok(outcome) => outcome.unwrap_or(Err(Error::Shutdown)),
            Err(_) => Err(Error::Timeout { limit }),
        }
    }

    async fn refresh_here(self: &Arc<Self>, hash: u64, key: &str) -> Result<Entry, Error> {
        let outcome = self.load_anew(hash, key).await;
        let changed = matches!(&outcome, Ok(_) | Err(Failure::Answered(Error::NotFound)));
        if changed {
            self.invalidate(vec![hash]).await;
        }
        match outcome {
            Ok(landed) => Ok(landed.entry),
            Err(Failure::Answered(error) | Failure::NotReached(error)) => Err(error),
            Err(Failure::NotOwner) => Err(Error::NotOwner { peer: self.owner_name(hash) }),
            Err(Failure::Abandoned) => Err(Error::Shutdown),
        }
    }

    /// Loads anew, so what a last owner still has does not do.
    pub(crate) async fn serve_refresh(self: &Arc<Self>, generation: u64, key: &str, deadline: Duration) -> Served {
        self.advance(generation);
        if let Err(error) = self.check(key) {
            return Served::Failed(error);
        }
        let hash = self.hash(key);
        if !self.node.topology().owns(hash) {
            return Served::NotOwner;
        }
        match self.refresh_within(hash, key, deadline.min(self.fetch_deadline())).await {
            Ok(entry) => {
                Served::Landed { landed: Landed { entry, version: 0, leasable: false }, lease: Duration::ZERO }
            }
            Err(Error::NotFound) => Served::NotFound,
            Err(error) => Served::Failed(error),
        }
    }
}
