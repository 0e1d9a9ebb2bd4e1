//! The suite that every provider has to pass.

use std::net::SocketAddr;
use std::sync::Mutex;

use distcache_conformance::{Ports, World};
use distcache_nats::NatsDiscovery;
use futures_util::StreamExt;
use tokio_util::task::AbortOnDropHandle;

use crate::server::{CLUSTER, Server};

struct NatsWorld {
    server: Server,
    ports: Ports,
    /// Answers every question with what it was told.
    liar: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl World for NatsWorld {
    type Provider = NatsDiscovery;

    fn address(&self, n: usize) -> SocketAddr {
        self.ports.address(n)
    }

    fn provider(&self, _: SocketAddr) -> NatsDiscovery {
        self.server.discovery()
    }

    async fn stop_service(&self) {
        self.server.down();
    }

    async fn start_service(&self) {
        self.server.up().await;
    }

    async fn mislead(&self, also: Vec<SocketAddr>) {
        let client = async_nats::connect(self.server.url()).await.unwrap();
        let mut questions = client.subscribe(format!("distcache.{CLUSTER}.nodes")).await.unwrap();
        client.flush().await.unwrap();
        let lying = async move {
            while let Some(question) = questions.next().await {
                for addr in &also {
                    let answer = format!("distcache/1 {addr}");
                    client.publish(question.reply.clone().unwrap(), answer.into()).await.unwrap();
                }
            }
        };
        *self.liar.lock().unwrap() = Some(AbortOnDropHandle::new(tokio::spawn(lying)));
    }
}

async fn make_world() -> impl World {
    NatsWorld { server: Server::start().await, ports: Ports::default(), liar: Mutex::default() }
}

distcache_conformance::suite!(make_world);
