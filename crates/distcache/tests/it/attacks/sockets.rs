//! Lengths that lie, words that never end, and more idle sockets than anybody has use for.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use distcache::{Engine, GetOptions, Limits, Origin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::siege;
use super::stranger::*;
use super::traffic::{self, Traffic};
use crate::harness::*;

/// What this process takes.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub struct Memory {
    /// Address space: also what was taken and never written.
    pub reserved: usize,
    pub resident: usize,
}

#[cfg(target_os = "linux")]
pub fn memory() -> Memory {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let mut pages = statm.split_whitespace().map(|pages| pages.parse::<usize>().unwrap() * rustix::param::page_size());
    Memory { reserved: pages.next().unwrap(), resident: pages.next().unwrap() }
}

fn both_ports(node: &Engine) -> [(SocketAddr, Topic); 2] {
    let me = node.me();
    [(me.peer_addr, Topic::Requests), (me.gossip_addr, Topic::Exchange)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_cannot_be_ends_the_connection_at_once() {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let nodes = plan.cluster(2).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    for (addr, topic) in both_ports(&nodes[0]) {
        for length in [0, u32::MAX, 1 << 30] {
            let mut stream = admitted(addr, topic).await;
            stream.write_all(&u32::to_be_bytes(length)).await.unwrap();
            let said = Instant::now();
            last_words(&mut stream).await;
            assert!(said.elapsed() < Duration::from_secs(10), "{topic:?}, {length}: idle connections live longer");
        }
    }
    let implausible = || nodes[0].refusals().into_iter().find(|(reason, _)| reason.name() == "implausible");
    eventually("each is counted", || implausible().is_some_and(|(_, count)| count == 6)).await;
    traffic.end_unharmed().await;
    siege.assert_no_panic();
}

/// Where values of a gigabyte are allowed, whoever promises one has not sent it yet.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gigabyte_that_is_promised_and_does_not_come_takes_no_memory() {
    const PROMISES: usize = 16;
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let limits = Limits { value_bytes_max: 1 << 30, ..Default::default() };
    let mut nodes = Vec::new();
    for name in ["n0", "n1"] {
        nodes.push(plan.builder(name).limits(limits.clone()).start().await.unwrap());
    }
    agree(&nodes).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    let before = memory();
    let mut promised = Vec::new();
    for _ in 0..PROMISES {
        let mut stream = admitted(nodes[0].me().peer_addr, Topic::Requests).await;
        // The answer to the ping shows that the length behind it was read.
        stream.write_all(&[ping(), (1u32 << 30).to_be_bytes().to_vec(), vec![3]].concat()).await.unwrap();
        stream.read_exact(&mut vec![0; ping().len()]).await.unwrap();
        promised.push(stream);
    }
    traffic.goes_on().await;
    let after = memory();
    // Others than this test take some memory too, but not half of what was promised.
    assert!(after.reserved < before.reserved + (PROMISES << 29), "{before:?}, then {after:?}");
    assert!(after.resident < before.resident + (1 << 28), "{before:?}, then {after:?}");
    drop(promised);
    traffic.end_unharmed().await;
    siege.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_says_who_it_is_byte_by_byte_is_cut_off() {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let limits = Limits { handshake_timeout: Duration::from_millis(500), ..Default::default() };
    let nodes = [plan.builder("n0").limits(limits).start().await.unwrap(), plan.start("n1").await];
    agree(&nodes).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    for (addr, topic) in both_ports(&nodes[0]) {
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let begun = Instant::now();
        let mut said = 0;
        for byte in hello(topic) {
            said += usize::from(stream.write_all(&[byte]).await.is_ok());
            // The pause is the attack. It ends when the node does what it should.
            if tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await.is_ok() {
                break;
            }
        }
        assert!(said < hello(topic).len() / 2, "{topic:?}: {said} bytes were listened to");
        assert!(begun.elapsed() >= Duration::from_millis(450), "cut off no earlier than the limit says");
    }
    // The connection ends before it is counted.
    eventually("both are counted", || {
        nodes[0].refusals().into_iter().any(|(reason, count)| (reason.name(), count) == ("silent", 2))
    })
    .await;
    traffic.end_unharmed().await;
    siege.assert_no_panic();
}

/// As many as the system lets this process have.
fn idle_sockets_max() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// For everything else in this process.
    const SET_ASIDE: usize = 2_000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize);
    files.saturating_sub(SET_ASIDE).min(10_000)
}

/// Sockets that say nothing, or not enough. One after the other is opened anew, so that no place in the lobby is ever free.
struct Idlers {
    stop: Arc<AtomicBool>,
    openers: Vec<std::thread::JoinHandle<()>>,
}

impl Idlers {
    const OPENERS: usize = 4;

    /// Returns once all are open.
    async fn open(addr: SocketAddr, topic: Topic, count: usize) -> Self {
        let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let opener = |_| {
            let (stop, opened, share) = (stop.clone(), opened.clone(), count / Self::OPENERS);
            std::thread::spawn(move || {
                let mut open: Vec<_> = (0..share).map(|n| idle_socket(addr, topic, n)).collect();
                opened.fetch_add(share, SeqCst);
                for n in (0..share).cycle().take_while(|_| !stop.load(SeqCst)) {
                    open[n] = idle_socket(addr, topic, n);
                    std::thread::sleep(Duration::from_millis(1));
                }
            })
        };
        let openers = (0..Self::OPENERS).map(opener).collect();
        let all = count / Self::OPENERS * Self::OPENERS;
        // A connection that finds the port busy is tried again by the system a second later.
        let opening = async {
            while opened.load(SeqCst) < all {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE * 6, opening).await.expect("the idle sockets are open");
        Self { stop, openers }
    }

    async fn close(self) {
        self.stop.store(true, SeqCst);
        let closed = move || self.openers.into_iter().for_each(|opener| opener.join().unwrap());
        tokio::task::spawn_blocking(closed).await.unwrap();
    }
}

fn idle_socket(addr: SocketAddr, topic: Topic, n: usize) -> TcpStream {
    let (mut stream, word) = (TcpStream::connect(addr).unwrap(), hello(topic));
    // The node may have closed it already.
    let _ = stream.write_all(&word[..n % word.len()]);
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_and_peers_connect_beside_ten_thousand_idle_sockets() {
    let siege = siege();
    let count = idle_sockets_max();
    assert!(count >= 3_000, "the system allows {count} sockets, too few for an attack: raise the limit of open files");
    let (plan, truth) = traffic::plan();
    let mut nodes = plan.cluster(2).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    for (addr, topic) in both_ports(&nodes[0]) {
        let idlers = Idlers::open(addr, topic, count).await;
        traffic.goes_on().await;
        nodes.push(plan.start(&format!("during-{topic:?}").to_lowercase()).await);
        agree(&nodes).await;
        let (newcomer, key) = (things(nodes.last().unwrap()), key_of(&nodes, 0));
        let entry = newcomer.get_entry(&key, GetOptions::new()).await.unwrap();
        assert!(entry.value == value_of(&key) && entry.origin != Origin::Fallback, "the owner was asked: {entry:?}");
        traffic.goes_on().await;
        idlers.close().await;
    }
    let refused = nodes[0].refusals();
    let crowded = refused.iter().find(|(reason, _)| reason.name() == "crowded").map_or(0, |(_, count)| *count);
    assert!(crowded > count as u64, "{refused:?}");
    traffic.end().await;
    siege.assert_no_panic();
}
