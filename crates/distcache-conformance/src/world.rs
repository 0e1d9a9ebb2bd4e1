//! What a provider is tested in: the service that it asks, and addresses for nodes.
//!
//! Knows no scenario. The invariant: an address that was given out here is given to nobody else in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use distcache::Discovery;
use parking_lot::Mutex;

/// Nodes of the cluster bear a number below this; what bears a greater one is a stranger.
pub const NODES_MAX: usize = 8;

/// The world that a discovery provider is tested in: the service that it asks, and how nodes become known there.
///
/// Dropping it ends the service. The [crate] has an example.
pub trait World: Send + Sync + 'static {
    /// What is tested.
    type Provider: Discovery;

    /// Where node `n` (0, 1, 2 …) gossips: an address on the loopback that is free for TCP and UDP, and the same whenever it
    /// is asked for. [`Ports`] has some; a provider that knows one port only takes `127.x.y.z` and that port. Numbers from
    /// [`NODES_MAX`] on are addresses for strangers.
    fn address(&self, n: usize) -> SocketAddr;

    /// A provider as the node that gossips at `me` would be configured with; called before each start.
    fn provider(&self, me: SocketAddr) -> Self::Provider;

    /// The platform sees that a node is about to start, also while the service is down. For services where the platform
    /// writes the answers (DNS, Kubernetes); nothing where nodes register themselves.
    fn appeared(&self, me: SocketAddr) -> impl Future<Output = ()> + Send {
        let _ = me;
        async {}
    }

    /// The platform sees that a node has ended.
    fn vanished(&self, me: SocketAddr) -> impl Future<Output = ()> + Send {
        let _ = me;
        async {}
    }

    /// Whether there is a service that can go down. Without one (a fixed list, say) the scenarios about that pass at once.
    fn has_service(&self) -> bool {
        true
    }

    /// Takes the service down, so that questions fail.
    fn stop_service(&self) -> impl Future<Output = ()> + Send;

    /// Brings the service up again, at the same address and knowing what it knew; returns when it can be asked.
    fn start_service(&self) -> impl Future<Output = ()> + Send;

    /// Makes the answers contain these addresses too, until it is called with an empty list: strangers, duplicates, the asker
    /// itself, nonsense.
    fn mislead(&self, also: Vec<SocketAddr>) -> impl Future<Output = ()> + Send;
}

/// A free address on the loopback per number: what most worlds answer [`World::address`] with.
#[derive(Debug, Default)]
pub struct Ports(Mutex<BTreeMap<usize, SocketAddr>>);

impl Ports {
    /// The address of number `n`: 127.0.0.1 and a port of its own.
    pub fn address(&self, n: usize) -> SocketAddr {
        *self.0.lock().entry(n).or_insert_with(free_address)
    }
}

/// Below the ports that systems hand out for port 0 and for outgoing connections, so that nobody gets one of these by chance.
const PORT_MIN: u16 = 20_000;
const PORTS: u16 = 12_000;

/// An address on 127.0.0.1 whose port is free for TCP and UDP, and not given out before by this process; also for services.
///
/// # Panics
/// When there is none left.
pub fn free_address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let start = RandomState::new().build_hasher().finish() as usize;
    let mut given = GIVEN.lock();
    for step in 0..usize::from(PORTS) {
        let port = PORT_MIN + (start.wrapping_add(step) % usize::from(PORTS)) as u16;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if !given.contains(&port) && TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok() {
            given.insert(port);
            return addr;
        }
    }
    panic!("no port is free between {PORT_MIN} and {}", PORT_MIN + PORTS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_given_once_and_a_number_keeps_its_own() {
        let (one, other) = (Ports::default(), Ports::default());
        assert_eq!(one.address(3), one.address(3));
        let all: BTreeSet<_> = (0..50).flat_map(|n| [one.address(n), other.address(n)]).collect();
        assert_eq!(all.len(), 100);
    }
}
