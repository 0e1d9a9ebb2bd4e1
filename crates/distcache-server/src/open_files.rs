//! How many files, sockets among them, this process may have open.
//!
//! The invariant: a node that starts can hold the connections that its limits allow, or has said that it cannot.

/// What else a node has open: databases, logs, its own listeners.
const SPARE: u64 = 256;

/// Makes room for as many connections, as far as the system's administrator lets it. A shell's soft limit of 1,024 is there for
/// programs that count sockets in bit sets; a server is expected to raise it.
#[cfg(unix)]
pub fn make_room_for(connections: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let wanted = connections.saturating_add(SPARE);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let allowed = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum });
    if raised.is_err() || allowed < wanted {
        let open_files = getrlimit(Resource::Nofile).current;
        tracing::warn!(open_files, wanted, "fewer files may be open than the limits on connections add up to");
    }
}

#[cfg(not(unix))]
pub fn make_room_for(_connections: u64) {}
