//! Members that do not exist, and what is said of keyspaces by somebody who should know better.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use distcache::{Discovery, DiscoveryError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::siege;
use super::stranger::*;
use super::traffic::{self, Traffic};
use crate::harness::*;

const INVENTED: u32 = 100_000;

/// A noticeboard on which somebody writes whatever comes to mind.
#[derive(Clone)]
struct Scribbled {
    board: Noticeboard,
    /// Where nobody ever answers, whichever loopback address leads there.
    silent_port: u16,
    is_scribbled: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
}

impl Scribbled {
    /// Never the same twice. All of 127.0.0.0/8 is this host; nodes are at 127.0.0.1 only.
    fn invent(&self) -> impl Iterator<Item = SocketAddr> {
        let (first, port) = (self.answers.fetch_add(1, SeqCst) as u32 * INVENTED, self.silent_port);
        (first..first + INVENTED).map(move |n| {
            let [_, b, c, d] = (0x7F01_0000 + n % 0xF0_0000).to_be_bytes();
            ([127, b, c, d], port).into()
        })
    }
}

impl Discovery for Scribbled {
    async fn register(&self, me: SocketAddr) -> Result<(), DiscoveryError> {
        self.board.register(me).await
    }

    async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        let mut named = self.board.discover().await?;
        if self.is_scribbled.load(SeqCst) {
            named.extend(self.invent());
        }
        Ok(named)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_invented_members_in_every_answer_of_discovery_hurt_no_cluster() {
    let siege = siege();
    // Connections to it stand, and then there is silence: the slowest way to find out that nobody is there.
    let silent = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let discovery = Scribbled {
        board: Noticeboard::default(),
        silent_port: silent.local_addr().unwrap().port(),
        is_scribbled: Arc::default(),
        answers: Arc::default(),
    };
    let (plan, truth) = traffic::plan();
    let start = |name: &str| {
        let builder = plan.builder(name).discovery(discovery.clone());
        builder.reseed_interval(Duration::from_millis(100)).start()
    };
    let mut nodes = Vec::new();
    for name in ["n0", "n1", "n2"] {
        nodes.push(start(name).await.unwrap());
    }
    agree(&nodes).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    discovery.is_scribbled.store(true, SeqCst);
    eventually("every node has been told often", || discovery.answers.load(SeqCst) >= 30).await;
    traffic.goes_on().await;
    for node in &nodes {
        assert_eq!(node.peers().len(), 3);
    }
    agree(&nodes).await;
    traffic.end_unharmed().await;

    // What they were told is no burden once the truth is told again.
    discovery.is_scribbled.store(false, SeqCst);
    let traffic = Traffic::begin(&nodes, &truth).await;
    nodes.push(start("n3").await.unwrap());
    agree(&nodes).await;
    traffic.end().await;
    siege.assert_no_panic();
}

async fn says(addr: SocketAddr, frame: &[u8]) {
    let mut stream = admitted(addr, Topic::Requests).await;
    stream.write_all(frame).await.unwrap();
    let mut len = [0; 4];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut len)).await.expect("in time").expect("an answer");
    stream.read_exact(&mut vec![0; u32::from_be_bytes(len) as usize]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_at_the_end_of_all_numbers_keeps_no_later_change_from_counting() {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let nodes = plan.cluster(2).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    let settings = |ttl| distcache::KeyspaceSpec::new(KEYSPACE, plan.source.clone()).ttl(ttl);
    for node in &nodes {
        let addr = node.me().peer_addr;
        says(addr, &get(KEYSPACE, u64::MAX, "attack")).await;
        let agreed = Agreed {
            generation: u64::MAX,
            version: (u64::MAX, u64::MAX),
            deleted: false,
            settings: Some(settings(Duration::from_secs(1)).settings().clone()),
        };
        says(addr, &registry(42, &BTreeMap::from([(KEYSPACE.to_owned(), agreed)]))).await;
    }
    let ours = Duration::from_secs(77);
    nodes[0].update_keyspace(settings(ours)).await.unwrap();
    for node in &nodes {
        assert_eq!(node.keyspaces()[0].settings.ttl, Some(ours));
        assert_eq!(node.get(KEYSPACE, "to-be-cleared").await.unwrap(), value_of("to-be-cleared"));
    }
    let loads = plan.source.loads_of("to-be-cleared");
    nodes[1].clear_keyspace(KEYSPACE).await.unwrap();
    nodes[0].get(KEYSPACE, "to-be-cleared").await.unwrap();
    assert_eq!(plan.source.loads_of("to-be-cleared"), loads + 1, "the clear counts");
    traffic.end_unharmed().await;
    siege.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyspaces_that_somebody_invents_keep_no_node_from_joining() {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let mut nodes = plan.cluster(2).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    let agreed = || Agreed { generation: 1, version: (1, 1), deleted: false, settings: Some(other_settings()) };
    let addr = nodes[0].me().peer_addr;
    // As many as fit a frame, with short names and with long ones.
    for (count, len) in [(40_000, 5), (20_000, 100), (3_000, 1_000), (50, 60_000)] {
        let invented = (0..count).map(|n| (format!("{n:0>len$}"), agreed())).collect();
        says(addr, &registry(42, &invented)).await;
    }
    nodes.push(plan.start("after").await);
    agree(&nodes).await;
    let key = key_of(&nodes, 2);
    assert_eq!(nodes[0].get(KEYSPACE, &key).await.unwrap(), value_of(&key));
    let loads = plan.source.loads_of(&key);
    nodes[1].clear_keyspace(KEYSPACE).await.expect("there is room for what is true");
    nodes[0].get(KEYSPACE, &key).await.unwrap();
    assert_eq!(plan.source.loads_of(&key), loads + 1, "and the clear counts on every node");
    traffic.end().await;
    siege.assert_no_panic();
}
