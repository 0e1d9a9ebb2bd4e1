//! After a miss: the way to who can answer, and round again where the view changes on it.
//!
//! Knows neither how a load nor how a fetch is made. The invariant: a caller goes to the owner, or to the source, and nowhere else; and
//! an answer that was found while the nodes disagree about the owner is kept by nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::Core;
use super::load::Purpose;
use crate::builder::TIMEOUT_MAX;
use crate::error::Error;
use crate::flight::{Failure, Outcome};
use crate::node::Owner;
use crate::peer::link::Link;
use crate::spec::{Entry, GetOptions};
use crate::stats::{Count, Took};
use crate::trace;

/// Who is to be asked for a key.
pub(super) enum Route {
    Me,
    Peer(Arc<Link>),
    Nobody,
}

/// Views and flights may change under a caller this often before it is sent to the source.
pub(super) const ATTEMPTS: usize = 4;
/// How long it waits each time for one of the two views to change.
pub(super) const DISAGREEMENT_WAIT: Duration = Duration::from_millis(50);

impl Core {
    pub(super) fn route(&self, hash: u64) -> (Route, u32) {
        let topology = self.node.topology();
        let route = match topology.owner(hash) {
            Owner::Me => Route::Me,
            Owner::Peer(link) => Route::Peer(link.clone()),
            Owner::Nobody => Route::Nobody,
        };
        (route, topology.placement.seq())
    }

    pub(super) async fn ask_within(self: &Arc<Self>, key: &str, options: GetOptions) -> Result<Entry, Error> {
        self.check(key)?;
        self.counters.one(Count::Misses);
        let (hash, limit, asked) = (self.hash(key), self.limit_of(options), Instant::now());
        let span = trace::get(&self.name, hash, || self.owner_name(hash));
        self.note_reads(hash, key, 1);
        let outcome = match tokio::time::timeout(limit, self.ask(hash, key).instrument(span.clone())).await {
            Ok(outcome) => outcome,
            Err(_) => self.spare_or(hash, key, Error::Timeout { limit }),
        };
        self.counters.took(Took::GetMiss, asked.elapsed());
        trace::ended(&span, &outcome);
        outcome
    }

    /// How long this caller waits.
    pub(super) fn limit_of(&self, options: GetOptions) -> Duration {
        options.timeout.unwrap_or(self.node.request_timeout).min(TIMEOUT_MAX)
    }

    /// The rest of a get after a miss: load what is ours, ask the owner for what is not, and where the owner cannot be asked
    /// load it without keeping it for others.
    pub(super) async fn ask(self: &Arc<Self>, hash: u64, key: &str) -> Result<Entry, Error> {
        let mut purpose = Purpose::Own;
        for attempt in 1..=ATTEMPTS {
            if attempt == ATTEMPTS {
                // The view does not come to rest: answer this caller, keep nothing.
                purpose = Purpose::FallbackUnkept;
            }
            let (route, seq) = self.route(hash);
            let outcome = match (&route, purpose) {
                (Route::Peer(link), Purpose::Own) => self.fetch(hash, key, link, seq).await,
                (Route::Me, _) => self.load_or_spare(hash, key).await,
                (Route::Nobody, Purpose::Own) => self.load(hash, key, Purpose::FallbackUnkept).await,
                (_, fallback) => self.load(hash, key, fallback).await,
            };
            match self.after(outcome, seq)? {
                After::Landed(entry) => return Ok(entry),
                After::AskAgain => {}
                // One of the two has not heard yet.
                After::Disagreed => self.node.until_view_after(seq, DISAGREEMENT_WAIT).await,
                After::FallBack(fallback) => purpose = fallback,
            }
        }
        Err(Error::NotOwner { peer: self.owner_name(hash) })
    }

    /// What the outcome of a question asked under view `seq` means for who asked.
    pub(super) fn after(&self, outcome: Outcome, seq: u32) -> Result<After, Error> {
        match outcome {
            Ok(landed) => Ok(After::Landed(landed.entry)),
            Err(Failure::Answered(error)) => Err(error),
            Err(_) if self.node.stop.is_cancelled() => Err(Error::Shutdown),
            Err(Failure::Abandoned) => Ok(After::AskAgain),
            Err(Failure::NotOwner | Failure::NotReached(_)) if self.view_seq() != seq => Ok(After::AskAgain),
            Err(Failure::NotOwner) => Ok(After::Disagreed),
            Err(Failure::NotReached(error)) => {
                tracing::debug!(keyspace = self.name, %error, "owner not reached, asking the source from here");
                Ok(After::FallBack(Purpose::Fallback))
            }
        }
    }

    pub(super) fn owner_name(&self, hash: u64) -> String {
        self.node.topology().owner_peer(hash).map_or_else(String::new, |peer| peer.name.clone())
    }
}

pub(super) enum After {
    Landed(Entry),
    AskAgain,
    /// Who was asked says that it is not the owner, and the view here says that it is.
    Disagreed,
    FallBack(Purpose),
}
