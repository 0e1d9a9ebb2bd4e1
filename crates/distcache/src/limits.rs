//! Everything that could grow without end, and where it ends.
//!
//! Only numbers and their checks. The invariant: a limit is checked before memory is taken for what it limits.

use std::time::Duration;

use crate::error::{Error, StartError};

/// The bounds of one node. The defaults suit a service of ordinary size; every field may be set.
///
/// ```
/// let limits = distcache::Limits { value_bytes_max: 16 << 20, ..Default::default() };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key, in bytes. At most 65,535.
    pub key_bytes_max: usize,
    /// Largest value, in bytes. A keyspace's own share may be smaller.
    pub value_bytes_max: usize,
    /// Most keys in one `get_many`, `put_many` or `delete_many`.
    pub batch_keys_max: usize,
    /// Loads of one keyspace that run at once, a batch counted once; further ones wait.
    pub loads_running_max: usize,
    /// Loads of one keyspace that run or wait; further ones are refused.
    pub loads_queued_max: usize,
    /// Callers that wait for one key; further ones are refused.
    pub waiters_per_key_max: usize,
    /// Requests in flight to one peer; further ones wait for their turn.
    pub peer_requests_max: usize,
    /// Requests that wait for a connection to one peer, or for their turn on it; further ones are refused.
    pub peer_requests_waiting_max: usize,
    /// Connections that peers may have to this node; a further one is refused and the peer told why.
    pub peer_connections_max: usize,
    /// Connections that have not said yet who they are; a further one ends the one that has waited longest.
    pub handshakes_max: usize,
    /// Requests that one peer may have under way here before it is told that this node is busy.
    pub peer_requests_served_max: usize,
    /// Keys with leases out, per keyspace; beyond it fetches are answered without a lease.
    pub leased_keys_max: usize,
    /// Keys per keyspace that a node watches to tell which are the hottest.
    pub hot_keys_max: usize,
    /// Keys per keyspace that a node loads before anybody asks, named by the user or by the node that owned them before.
    pub warm_keys_max: usize,
    /// Written keys per keyspace that a node remembers, to tell of them whoever owned the same keys meanwhile or owns them next.
    pub changes_logged_max: usize,
    /// Keys per keyspace that a `delete` holds back at once; further ones are refused.
    pub holds_max: usize,
    /// Bytes of entries that a node hands over to their new owners at one change of the view, per keyspace.
    pub hand_over_bytes_max: usize,
    /// Nodes of one cluster.
    pub members_max: usize,
    /// How long a new connection may take to say who it is.
    pub handshake_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes_max: 1024,
            value_bytes_max: 4 << 20,
            batch_keys_max: 10_000,
            loads_running_max: 256,
            loads_queued_max: 16_384,
            waiters_per_key_max: 65_536,
            peer_requests_max: 4_096,
            peer_requests_waiting_max: 65_536,
            peer_connections_max: 1_024,
            handshakes_max: 256,
            peer_requests_served_max: 16_384,
            leased_keys_max: 100_000,
            hot_keys_max: 256,
            warm_keys_max: 10_000,
            changes_logged_max: 65_536,
            holds_max: 65_536,
            hand_over_bytes_max: 256 << 20,
            members_max: 4_096,
            handshake_timeout: Duration::from_secs(3),
        }
    }
}

/// Room in a frame beside keys and values: opcode, ids, lengths, lifetimes, names.
const FRAME_HEADER_BYTES_MAX: usize = 64 << 10;

impl Limits {
    /// Largest frame between peers. A batch is split so that it fits.
    pub(crate) fn frame_bytes_max(&self) -> usize {
        self.value_bytes_max + self.key_bytes_max + FRAME_HEADER_BYTES_MAX
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        let within = |field, value: usize, max: usize| match value {
            0 => Err(StartError::invalid(field, value, "must be at least 1")),
            value if value > max => Err(StartError::invalid(field, value, format!("must be at most {max}"))),
            _ => Ok(()),
        };
        within("limits.key_bytes_max", self.key_bytes_max, u16::MAX as usize)?;
        within("limits.value_bytes_max", self.value_bytes_max, 1 << 30)?;
        within("limits.batch_keys_max", self.batch_keys_max, 1 << 20)?;
        within("limits.loads_running_max", self.loads_running_max, 1 << 20)?;
        within("limits.loads_queued_max", self.loads_queued_max, 1 << 24)?;
        within("limits.waiters_per_key_max", self.waiters_per_key_max, 1 << 24)?;
        within("limits.peer_requests_max", self.peer_requests_max, 1 << 20)?;
        within("limits.peer_requests_waiting_max", self.peer_requests_waiting_max, 1 << 24)?;
        within("limits.peer_connections_max", self.peer_connections_max, 1 << 20)?;
        within("limits.handshakes_max", self.handshakes_max, 1 << 16)?;
        within("limits.peer_requests_served_max", self.peer_requests_served_max, 1 << 20)?;
        within("limits.leased_keys_max", self.leased_keys_max, 1 << 30)?;
        within("limits.hot_keys_max", self.hot_keys_max, 1 << 16)?;
        within("limits.warm_keys_max", self.warm_keys_max, 1 << 20)?;
        within("limits.changes_logged_max", self.changes_logged_max, 1 << 24)?;
        within("limits.holds_max", self.holds_max, 1 << 24)?;
        within("limits.hand_over_bytes_max", self.hand_over_bytes_max, 1 << 40)?;
        within("limits.members_max", self.members_max, 4_096)
    }

    pub(crate) fn check_key(&self, key: &str) -> Result<(), Error> {
        match key.len() {
            0 => Err(Error::KeyEmpty),
            len if len > self.key_bytes_max => Err(Error::KeyTooLarge { len, max: self.key_bytes_max }),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_value(&self, len: usize) -> Result<(), Error> {
        if len > self.value_bytes_max {
            return Err(Error::ValueTooLarge { len, max: self.value_bytes_max });
        }
        Ok(())
    }

    pub(crate) fn check_batch(&self, len: usize) -> Result<(), Error> {
        if len > self.batch_keys_max {
            return Err(Error::BatchTooLarge { len, max: self.batch_keys_max });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_and_nonsense_names_its_field() {
        Limits::default().check().unwrap();
        let error = Limits { batch_keys_max: 0, ..Default::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "limits.batch_keys_max = 0: must be at least 1");
        assert!(Limits { key_bytes_max: 1 << 20, ..Default::default() }.check().is_err());
    }
}
