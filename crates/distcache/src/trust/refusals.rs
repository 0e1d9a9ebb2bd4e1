//! Who was not let in, and why: counted by reason, logged so that a person finds the mistake and an attacker cannot fill the log.
//!
//! Decides nothing. The invariant: what is remembered is bounded, whoever knocks however often.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// The same reason from the same address is logged this often; in between it is only counted.
const LOGGED_APART: Duration = Duration::from_secs(60);
/// Reasons and addresses that are remembered as logged.
const LOGGED_MAX: usize = 1024;

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a connection or a datagram of somebody who claims to be a node was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Refusal { $($(#[$doc])* $variant,)* }

        impl Refusal {
            const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As a word for metrics.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

refusals! {
    /// It does not speak distcache's protocol.
    Foreign = "foreign",
    /// It speaks another version of the protocol.
    Version = "version",
    /// It belongs to another cluster.
    Cluster = "cluster",
    /// It is built or configured so that the two cannot work together.
    Incompatible = "incompatible",
    /// It speaks without TLS where TLS is required, or the other way round.
    Plaintext = "plaintext",
    /// Its certificate is expired, of another CA, made for something else, or missing.
    Certificate = "certificate",
    /// Its certificate or its metadata is not that of the node that it says it is.
    Name = "name",
    /// It does not know the cluster secret, or knows one that is not accepted here.
    Secret = "secret",
    /// A datagram that was received before.
    Replayed = "replayed",
    /// A datagram that is too old or from the future: replayed, or a clock is wrong.
    Clock = "clock",
    /// It says something that no honest node would.
    Implausible = "implausible",
    /// It did not say who it is in time.
    Silent = "silent",
    /// There was no place for it: a limit is reached.
    Crowded = "crowded",
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The book of refusals of one node.
pub(crate) struct Refusals {
    counts: Vec<AtomicU64>,
    logged: Mutex<HashMap<(Option<Refusal>, IpAddr), Instant>>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { counts: Refusal::ALL.iter().map(|_| AtomicU64::new(0)).collect(), logged: Mutex::default() }
    }
}

impl Refusals {
    /// Counts a refusal and says whether it is worth a line in the log.
    pub(crate) fn note(&self, reason: Refusal, from: IpAddr) -> bool {
        self.counts[reason as usize].fetch_add(1, Relaxed);
        self.is_news(Some(reason), from)
    }

    /// Whether this has not been logged for a while. `None`: it is the other who refuses.
    pub(crate) fn is_news(&self, reason: Option<Refusal>, from: IpAddr) -> bool {
        let now = Instant::now();
        let mut logged = self.logged.lock();
        if let Some(at) = logged.get_mut(&(reason, from)) {
            let is_due = now.duration_since(*at) >= LOGGED_APART;
            *at = if is_due { now } else { *at };
            return is_due;
        }
        if logged.len() >= LOGGED_MAX {
            logged.retain(|_, at| now.duration_since(*at) < LOGGED_APART);
        }
        let has_room = logged.len() < LOGGED_MAX;
        if has_room {
            logged.insert((reason, from), now);
        }
        has_room
    }

    /// How often each reason has occurred since the node started; those that never did are left out.
    pub(crate) fn counts(&self) -> Vec<(Refusal, u64)> {
        let counts = Refusal::ALL.iter().zip(&self.counts).map(|(reason, count)| (*reason, count.load(Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[tokio::test(start_paused = true)]
    async fn every_refusal_is_counted_and_the_log_is_not_filled() {
        let refusals = Refusals::default();
        assert!(refusals.note(Refusal::Secret, address(1)));
        assert!(!refusals.note(Refusal::Secret, address(1)), "a minute has not passed");
        assert!(refusals.note(Refusal::Cluster, address(1)), "another reason");
        assert!(refusals.note(Refusal::Secret, address(2)), "another address");
        tokio::time::advance(LOGGED_APART).await;
        assert!(refusals.note(Refusal::Secret, address(1)));
        assert_eq!(refusals.counts(), [(Refusal::Cluster, 1), (Refusal::Secret, 4)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_addresses_is_counted_and_bounded() {
        let refusals = Refusals::default();
        let logged = (0..100_000).filter(|n| refusals.note(Refusal::Foreign, address(*n))).count();
        assert_eq!(logged, LOGGED_MAX);
        assert_eq!(refusals.counts(), [(Refusal::Foreign, 100_000)]);
    }
}
