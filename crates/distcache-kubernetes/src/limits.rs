//! Everything that could grow without end, and how long anything may take.
//!
//! Only numbers. The invariant: a bound is checked before memory is taken for what it bounds.

use std::time::Duration;

/// Pods that are taken notice of: as many as a cluster may have members.
pub(crate) const PODS_MAX: usize = 4_096;

/// Pods in one page of a list. A pod is some ten kilobytes.
pub(crate) const PAGE_PODS: u32 = 100;
/// Bytes of one page.
pub(crate) const PAGE_BYTES_MAX: usize = 32 << 20;
/// Bytes of one event of a watch: a pod, of which the API server stores no larger one than 1.5 MiB.
pub(crate) const EVENT_BYTES_MAX: usize = 4 << 20;
/// Bytes of an answer that says no.
pub(crate) const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// Characters of what the API server said that are repeated in an error.
pub(crate) const SAID_CHARS_MAX: usize = 400;

/// How long connecting may take, and then each answer to begin.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a list may take, all pages together.
pub(crate) const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// After how long the API server is asked to end a watch, so that it is renewed before something between ends it. Half of it
/// is random: the nodes of a cluster do not renew at the same moment.
pub(crate) const WATCH_SECONDS_MAX: u32 = 290;
/// A watch that ends sooner than this ended because something is wrong.
pub(crate) const WATCH_MIN: Duration = Duration::from_secs(1);
/// How much longer a watch may stay silent before its connection is taken for dead.
pub(crate) const WATCH_GRACE: Duration = Duration::from_secs(15);

/// How long a question waits for the first list of the pods.
pub(crate) const FIRST_LIST_WAIT: Duration = Duration::from_secs(5);

/// The pause after a failure; doubles up to [`PAUSE_MAX`]. Half of each is random: nodes that lost the API server together do
/// not come back together.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(200);
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(8);
