//! The suite passes a provider that does its work, over a service that lives in this process.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use distcache::{Discovery, DiscoveryError};
use distcache_conformance::{Ports, World};

#[derive(Default)]
struct Service {
    is_down: bool,
    written: Vec<SocketAddr>,
    also: Vec<SocketAddr>,
}

/// Writes this node's address at the first question that is answered.
struct BoardDiscovery {
    board: Arc<Mutex<Service>>,
    me: Mutex<Option<SocketAddr>>,
}

impl Discovery for BoardDiscovery {
    async fn register(&self, me: SocketAddr) -> Result<(), DiscoveryError> {
        *self.me.lock().unwrap() = Some(me);
        Ok(())
    }

    async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        let mut service = self.board.lock().unwrap();
        if service.is_down {
            return Err(DiscoveryError::unavailable("the board is down"));
        }
        let me = *self.me.lock().unwrap();
        let unwritten = me.filter(|me| !service.written.contains(me));
        service.written.extend(unwritten);
        Ok([&service.written[..], &service.also[..]].concat())
    }

    async fn deregister(&self, me: SocketAddr) -> Result<(), DiscoveryError> {
        self.board.lock().unwrap().written.retain(|addr| *addr != me);
        Ok(())
    }
}

#[derive(Default)]
struct BoardWorld {
    ports: Ports,
    board: Arc<Mutex<Service>>,
}

impl World for BoardWorld {
    type Provider = BoardDiscovery;

    fn address(&self, n: usize) -> SocketAddr {
        self.ports.address(n)
    }

    fn provider(&self, _: SocketAddr) -> BoardDiscovery {
        BoardDiscovery { board: Arc::clone(&self.board), me: Mutex::default() }
    }

    async fn stop_service(&self) {
        self.board.lock().unwrap().is_down = true;
    }

    async fn start_service(&self) {
        self.board.lock().unwrap().is_down = false;
    }

    async fn mislead(&self, also: Vec<SocketAddr>) {
        self.board.lock().unwrap().also = also;
    }
}

async fn make_world() -> impl World {
    BoardWorld::default()
}

distcache_conformance::suite!(make_world);
