//! The suite that every provider passes, with nodes in pods of the fake cluster.
//!
//! The pods have an address of the loopback each and one gossip port, and are never ready: conditions do not matter.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use distcache_conformance::{World, free_address};
use distcache_kubernetes::KubernetesDiscovery;

use crate::apiserver::{ApiServer, pod};

struct Kubernetes {
    api: ApiServer,
    /// The second octet is of this process, the third of this world: no two worlds share an address.
    net: [u8; 2],
    port: u16,
    strays: Mutex<usize>,
}

impl World for Kubernetes {
    type Provider = KubernetesDiscovery;

    fn address(&self, n: usize) -> SocketAddr {
        (Ipv4Addr::new(127, self.net[0], self.net[1], n as u8 + 1), self.port).into()
    }

    fn provider(&self, _: SocketAddr) -> KubernetesDiscovery {
        self.api.discovery()
    }

    async fn appeared(&self, me: SocketAddr) {
        self.api.put(pod(&name(me), me));
    }

    async fn vanished(&self, me: SocketAddr) {
        self.api.change(&name(me), |pod| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
        self.api.remove(&name(me));
    }

    async fn stop_service(&self) {
        self.api.take_down().await;
    }

    async fn start_service(&self) {
        self.api.bring_up().await;
    }

    async fn mislead(&self, also: Vec<SocketAddr>) {
        let strays = std::mem::replace(&mut *self.strays.lock().unwrap(), also.len());
        (0..strays).for_each(|n| self.api.remove(&format!("stray-{n}")));
        also.into_iter().enumerate().for_each(|(n, addr)| self.api.put(pod(&format!("stray-{n}"), addr)));
    }
}

fn name(addr: SocketAddr) -> String {
    format!("pod-{}", addr.ip()).replace('.', "-")
}

async fn make_world() -> Kubernetes {
    static WORLDS: AtomicU8 = AtomicU8::new(0);
    let net = [std::process::id() as u8 | 1, WORLDS.fetch_add(1, Relaxed)];
    Kubernetes { api: ApiServer::start().await, net, port: free_address().port(), strays: Mutex::default() }
}

distcache_conformance::suite!(make_world);
