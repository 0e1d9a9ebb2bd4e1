//! The section `[limits]`: bounds of the node, each under the name that it has in the library.

use distcache::Limits;

use super::error::Reason;
use super::section::Section;

const KNOWN: [&str; 19] = [
    "key_bytes_max",
    "value_bytes_max",
    "batch_keys_max",
    "loads_running_max",
    "loads_queued_max",
    "waiters_per_key_max",
    "peer_requests_max",
    "peer_requests_waiting_max",
    "peer_connections_max",
    "handshakes_max",
    "peer_requests_served_max",
    "leased_keys_max",
    "hot_keys_max",
    "warm_keys_max",
    "changes_logged_max",
    "holds_max",
    "hand_over_bytes_max",
    "members_max",
    "handshake_timeout",
];
const VALUE_BYTES_MIN: u64 = 1 << 10;

/// The library's limits where the file says nothing. What makes no sense together the library refuses at the start.
pub(super) fn limits(root: &mut Section<'_>) -> Result<Limits, Reason> {
    let mut section = root.section("limits", &KNOWN, &[])?;
    let mut limits = Limits::default();
    if let Some(bytes) = section.size("value_bytes_max", VALUE_BYTES_MIN)? {
        limits.value_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    if let Some(timeout) = section.duration("handshake_timeout")? {
        limits.handshake_timeout = timeout;
    }
    if let Some(bytes) = section.size("hand_over_bytes_max", 1)? {
        limits.hand_over_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    let mut count = |key, limit: &mut usize| {
        if let Some(count) = section.integer(key, 1..=1 << 30)? {
            *limit = count as usize;
        }
        Ok::<_, Reason>(())
    };
    count("key_bytes_max", &mut limits.key_bytes_max)?;
    count("batch_keys_max", &mut limits.batch_keys_max)?;
    count("loads_running_max", &mut limits.loads_running_max)?;
    count("loads_queued_max", &mut limits.loads_queued_max)?;
    count("waiters_per_key_max", &mut limits.waiters_per_key_max)?;
    count("peer_requests_max", &mut limits.peer_requests_max)?;
    count("peer_requests_waiting_max", &mut limits.peer_requests_waiting_max)?;
    count("peer_connections_max", &mut limits.peer_connections_max)?;
    count("handshakes_max", &mut limits.handshakes_max)?;
    count("peer_requests_served_max", &mut limits.peer_requests_served_max)?;
    count("leased_keys_max", &mut limits.leased_keys_max)?;
    count("hot_keys_max", &mut limits.hot_keys_max)?;
    count("warm_keys_max", &mut limits.warm_keys_max)?;
    count("changes_logged_max", &mut limits.changes_logged_max)?;
    count("holds_max", &mut limits.holds_max)?;
    count("members_max", &mut limits.members_max)?;
    Ok(limits)
}
