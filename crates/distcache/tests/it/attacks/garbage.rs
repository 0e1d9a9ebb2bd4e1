//! Garbage of all sizes on all three sockets of a node, as fast as it goes.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use distcache::Engine;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use xxhash_rust::xxh3::xxh3_64;

use super::siege;
use super::stranger::{Topic, hello};
use super::traffic::{self, Traffic};
use crate::harness::*;

const FLOOD: Duration = Duration::from_secs(2);
const UDP_BYTES_MAX: usize = 65_507;
const TCP_BYTES_MAX: usize = 1 << 20;
/// Datagrams in a row; then the thread gives way, or on two cores it would only show that threads take turns.
const BURST: usize = 200;

/// Attackers on threads of their own, until told to stop.
struct Flood {
    stop: Arc<AtomicBool>,
    attackers: Vec<JoinHandle<()>>,
}

impl Flood {
    fn begin() -> Self {
        Self { stop: Arc::default(), attackers: Vec::new() }
    }

    /// `attack` again and again, with random numbers that a run repeats.
    fn with(&mut self, seed: u64, attack: impl Fn(&mut SmallRng) -> usize + Send + 'static) -> Arc<AtomicU64> {
        let (stop, sent) = (self.stop.clone(), Arc::new(AtomicU64::new(0)));
        let counted = sent.clone();
        self.attackers.push(std::thread::spawn(move || {
            let mut rng = SmallRng::seed_from_u64(seed);
            while !stop.load(SeqCst) {
                counted.fetch_add(attack(&mut rng) as u64, SeqCst);
            }
        }));
        sent
    }

    async fn rage_beside(self, traffic: &Traffic) {
        let begun = Instant::now();
        while begun.elapsed() < FLOOD {
            traffic.goes_on().await;
        }
        self.stop.store(true, SeqCst);
        let ended = || self.attackers.into_iter().for_each(|attacker| attacker.join().unwrap());
        tokio::task::spawn_blocking(ended).await.unwrap();
    }
}

/// Every order of magnitude is as likely as any other.
fn garbage(rng: &mut SmallRng, bytes_max: usize) -> Vec<u8> {
    let len = match rng.random_range(0..=bytes_max.ilog2()) {
        0 => rng.random_range(0..2),
        bits => rng.random_range(1 << (bits - 1)..=(1 << bits).min(bytes_max)),
    };
    let mut garbage = vec![0; len];
    rng.fill(&mut garbage[..]);
    garbage
}

/// What every datagram of this cluster begins with.
fn gossip_header() -> Vec<u8> {
    [b"dcG\x01\x00".as_slice(), &xxh3_64(b"distcache").to_be_bytes()].concat()
}

fn connect_and_pour(addr: SocketAddr, topic: Topic, rng: &mut SmallRng) -> usize {
    let beginning = match rng.random_range(0..4) {
        0 => Vec::new(),
        1 => b"distcach".to_vec(),
        2 => vec![0x16, 3, 1],
        _ => hello(topic),
    };
    let Ok(mut stream) = TcpStream::connect(addr) else { return 0 };
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    // The node may close it at any byte.
    let _ = stream.write_all(&[beginning, garbage(rng, TCP_BYTES_MAX)].concat());
    1
}

fn pour(socket: &UdpSocket, addr: SocketAddr, rng: &mut SmallRng) -> usize {
    for _ in 0..BURST {
        let beginning = if rng.random() { gossip_header() } else { Vec::new() };
        let garbage = garbage(rng, UDP_BYTES_MAX - beginning.len());
        let _ = socket.send_to(&[beginning, garbage].concat(), addr);
    }
    std::thread::sleep(Duration::from_millis(2));
    BURST
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_full_of_garbage_are_counted_and_nobody_else_notices() {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let nodes = plan.cluster(3).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    let (me, mut flood) = (nodes[0].me(), Flood::begin());
    let poured = [
        flood.with(1, move |rng| connect_and_pour(me.peer_addr, Topic::Requests, rng)),
        flood.with(2, move |rng| connect_and_pour(me.gossip_addr, Topic::Exchange, rng)),
    ];
    flood.rage_beside(&traffic).await;
    for connections in poured {
        assert!(connections.load(SeqCst) > 100, "{connections:?}");
    }
    assert!(foreign(&nodes[0]) > 50, "{:?}", nodes[0].refusals());
    traffic.end_unharmed().await;
    siege.assert_no_panic();
}

/// What the nodes say to each other may get lost in it, as anything sent over UDP may; then they find out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_full_of_garbage_are_counted_and_every_answer_is_right_and_in_time() {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let nodes = plan.cluster(3).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    let (me, mut flood) = (nodes[0].me(), Flood::begin());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagrams = flood.with(3, move |rng| pour(&socket, me.gossip_addr, rng));
    flood.rage_beside(&traffic).await;
    assert!(datagrams.load(SeqCst) > 5_000, "{datagrams:?}");
    assert!(foreign(&nodes[0]) > 500, "{:?}", nodes[0].refusals());
    agree(&nodes).await;
    traffic.end().await;
    siege.assert_no_panic();
}

fn foreign(node: &Engine) -> u64 {
    let refused = node.refusals();
    refused.iter().find(|(reason, _)| reason.name() == "foreign").map_or(0, |(_, count)| *count)
}
