//! The providers of this crate: the conformance suite over a fixed list, and a node that looks for nobody.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Mutex;
use std::time::Duration;

use distcache::{Standalone, StaticDiscovery};
use distcache_conformance::{NODES_MAX, Ports, World};

use crate::harness::*;

/// Every node is told where the nodes are, those that are not there yet among them.
#[derive(Default)]
struct FixedList {
    ports: Ports,
    also: Mutex<Vec<SocketAddr>>,
}

impl World for FixedList {
    type Provider = StaticDiscovery;

    fn address(&self, n: usize) -> SocketAddr {
        self.ports.address(n)
    }

    fn provider(&self, _: SocketAddr) -> StaticDiscovery {
        let nodes = (0..NODES_MAX).map(|n| self.address(n));
        StaticDiscovery::new(nodes.chain(self.also.lock().unwrap().clone()).map(|addr| addr.to_string()))
    }

    fn has_service(&self) -> bool {
        false
    }

    async fn stop_service(&self) {}

    async fn start_service(&self) {}

    async fn mislead(&self, also: Vec<SocketAddr>) {
        *self.also.lock().unwrap() = also;
    }
}

async fn fixed_list() -> impl World {
    FixedList::default()
}

distcache_conformance::suite!(fixed_list);

#[tokio::test]
async fn a_standalone_node_opens_no_socket_and_is_no_member_of_anything() {
    let addr = distcache_conformance::free_address();
    let plan = Plan::new(&Source::new());
    let start = |name| plan.builder(name).discovery(Standalone).gossip_listen(addr).peer_listen(addr).start();
    // Two at one address: neither listens there.
    let nodes = [start("one").await.unwrap(), start("other").await.unwrap()];
    assert!(UdpSocket::bind(addr).is_ok() && TcpListener::bind(addr).is_ok(), "somebody listens at {addr}");
    for node in &nodes {
        assert!(node.is_ready());
        assert_eq!(node.peers(), [node.me()]);
        assert_eq!(node.ring().members.len(), 1);
        node.put(KEYSPACE, "k", node.me().name).await.unwrap();
    }
    for node in &nodes {
        assert_eq!(node.get(KEYSPACE, "k").await.unwrap(), node.me().name, "it has its keys to itself");
        node.shutdown(Duration::from_secs(1)).await;
    }
}
