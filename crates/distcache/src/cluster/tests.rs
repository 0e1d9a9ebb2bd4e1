//! Whole clusters on the loopback, with real sockets. Conditions are awaited with a deadline; slept is only for what cannot be
//! observed.

mod harness;
mod liar;
mod timings;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::discovery::{Discovery, DiscoveryError, StaticDiscovery};
use crate::net::wall_clock_ms;
pub(super) use harness::is_severed;
use harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_started_at_the_same_moment_form_one_cluster() {
    let nodes = five("moment").await;
    for node in &nodes {
        node.cluster.join().await;
        let me = node.cluster.me();
        assert!(me.is_self && me.name == node.name && me.gossip_addr == node.addr());
        assert_eq!(me.peer_addr, ([127, 0, 0, 1], 1).into());
        assert_eq!(me.zone.as_deref(), Some("z"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn join_returns_when_the_members_are_known() {
    let seed = Node::start("join", "a", localhost(), &[]).await;
    timeout(Duration::from_secs(1), seed.cluster.join()).await.expect("nobody to wait for");
    seed.words.0.lock().insert("early".into());
    let newcomer = Node::start("join", "b", localhost(), &[seed.addr()]).await;
    newcomer.cluster.join().await;
    assert_eq!(newcomer.names(), ["a", "b"]);
    assert!(newcomer.words.0.lock().contains("early"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn join_goes_on_alone_when_nobody_answers_and_meets_them_later() {
    let addrs = free_addrs(1).await;
    let mut alone = config("alone", "a", localhost());
    alone.join_timeout = Duration::from_millis(200);
    let node = Node::with(alone, StaticDiscovery::new([addrs[0].to_string()])).await;
    timeout(Duration::from_secs(5), node.cluster.join()).await.expect("join is bounded");
    assert_eq!(node.names(), ["a"]);
    let _late = Node::start("alone", "b", addrs[0], &[]).await;
    node.sees(&["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_node_is_gone_and_comes_back_as_a_new_incarnation() {
    let mut nodes = five("crash").await;
    let (crashed, survivors) = (nodes.pop().unwrap(), nodes);
    let (addr, name, incarnation) = (crashed.addr(), crashed.name.clone(), crashed.cluster.me().incarnation);
    let crashed_at = Instant::now();
    crashed.crash().await;
    all_see(&survivors, &names(4)).await;
    assert!(crashed_at.elapsed() < Duration::from_secs(5), "{:?}", crashed_at.elapsed());

    let back = Node::start("crash", &name, addr, &[survivors[0].addr()]).await;
    all_see(&survivors, &names(5)).await;
    back.sees(&names(5).iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(survivors[1].cluster.views().borrow().peers[4].incarnation > incarnation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_restarts_before_it_is_missed_leaves_and_joins() {
    let seed = Node::start("restart", "a", localhost(), &[]).await;
    let first = Node::start("restart", "b", localhost(), &[seed.addr()]).await;
    seed.sees(&["a", "b"]).await;
    let mut events = seed.cluster.events();
    let (addr, old) = (first.addr(), first.cluster.me().incarnation);
    assert_eq!(told(&next_event(&mut events).await), ("joined", "b"));
    first.crash().await;
    let second = Node::start("restart", "b", addr, &[seed.addr()]).await;
    match next_event(&mut events).await {
        Event::Left(peer) => assert_eq!(peer.incarnation, old),
        other => panic!("{other:?}"),
    }
    match next_event(&mut events).await {
        Event::Joined(peer) => assert_eq!(peer.incarnation, second.cluster.me().incarnation),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_was_set_back_over_a_restart_comes_back() {
    let seed = Node::start("clock", "a", localhost(), &[]).await;
    let mut ahead = config("clock", "b", localhost());
    ahead.incarnation = wall_clock_ms() + 3_600_000;
    let seeds = StaticDiscovery::new([seed.addr().to_string()]);
    let first = Node::with(ahead.clone(), seeds.clone()).await;
    seed.sees(&["a", "b"]).await;
    let second = ClusterConfig { gossip_listen: first.addr(), incarnation: wall_clock_ms(), ..ahead };
    let first_life = first.cluster.me().incarnation;
    first.crash().await;
    let _second = Node::with(second, seeds).await;
    let is_second = |view: &View| view.peers.get(1).is_some_and(|peer| peer.incarnation != first_life);
    seed.sees_where("the second life of b", is_second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leave_is_seen_at_once_and_told() {
    let mut nodes = five("leave").await;
    let mut events = nodes[0].cluster.events();
    for _ in 0..4 {
        assert_eq!(told(&next_event(&mut events).await).0, "joined");
    }
    let leaving_at = Instant::now();
    nodes.pop().unwrap().leave().await;
    all_see(&nodes, &names(4)).await;
    assert!(leaving_at.elapsed() < Duration::from_millis(1200), "a crash is noticed later: {:?}", leaving_at.elapsed());
    loop {
        match next_event(&mut events).await {
            Event::Left(peer) => break assert_eq!(peer.name, "n04"),
            Event::Updated(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_of_different_names_never_mix() {
    let addrs = free_addrs(4).await;
    let start = |cluster: &'static str, i: usize| {
        let (name, addr, seeds) = (format!("{cluster}{i}"), addrs[i], addrs.clone());
        async move { Node::start(cluster, &name, addr, &seeds).await }
    };
    let nodes = [start("red", 0).await, start("red", 1).await, start("blue", 2).await, start("blue", 3).await];
    nodes[0].say("ruby");
    for _ in 0..20 {
        for (node, expected) in
            nodes.iter().zip([["red0", "red1"], ["red0", "red1"], ["blue2", "blue3"], ["blue2", "blue3"]])
        {
            node.sees(&expected).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    nodes[1].has_heard("ruby").await;
    assert!(nodes[2].words.0.lock().is_empty() && nodes[3].words.0.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_hears_of_those_who_were_there_before_and_of_the_end() {
    let mut nodes = five("events").await;
    let node = nodes.remove(0);
    let mut events = node.cluster.events();
    let mut joined = BTreeSet::new();
    for _ in 0..4 {
        let event = next_event(&mut events).await;
        assert_eq!(told(&event).0, "joined");
        joined.insert(told(&event).1.to_owned());
    }
    assert_eq!(joined, names(5).into_iter().skip(1).collect());
    node.crash().await;
    while timeout(PATIENCE, events.next()).await.expect("the end is told").is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_state_is_an_update_and_nobody_seems_to_leave() {
    let nodes = five("state").await;
    let mut events = nodes[0].cluster.events();
    for _ in 0..4 {
        next_event(&mut events).await;
    }
    for state in [PeerState::Ready, PeerState::Draining] {
        nodes.iter().for_each(|node| node.cluster.set_state(state));
        for node in &nodes {
            node.sees_where("the new state", |view| view.peers.iter().all(|peer| peer.state == state)).await;
        }
    }
    nodes[0].cluster.leave().await;
    while let Some(event) = timeout(PATIENCE, events.next()).await.expect("the end is told") {
        assert_eq!(told(&event).0, "updated", "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_state_reaches_everybody_and_who_joins_later() {
    let nodes = five("words").await;
    nodes[3].say("hello");
    for node in &nodes {
        node.has_heard("hello").await;
    }
    let late = Node::start("words", "z", localhost(), &[nodes[0].addr()]).await;
    late.cluster.join().await;
    assert!(late.words.0.lock().contains("hello"), "whoever has joined knows it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_cluster_merges_and_shares_what_was_said_meanwhile() {
    let nodes = five("split").await;
    let mut events = nodes[0].cluster.events();
    let cut = Cut::off(&[&nodes[3], &nodes[4]]);
    for node in &nodes[..3] {
        node.sees(&["n00", "n01", "n02"]).await;
    }
    for node in &nodes[3..] {
        node.sees(&["n03", "n04"]).await;
    }
    nodes[0].say("left");
    nodes[4].say("right");
    nodes[1].has_heard("left").await;
    nodes[3].has_heard("right").await;
    assert!(!nodes[3].words.0.lock().contains("left"));
    drop(cut);
    all_see(&nodes, &names(5)).await;
    for node in &nodes {
        node.has_heard("left").await;
        node.has_heard("right").await;
    }
    let mut present: BTreeSet<String> = BTreeSet::new();
    while present.len() < 4 {
        let event = next_event(&mut events).await;
        let (what, name) = told(&event);
        match what {
            "joined" => assert!(present.insert(name.into()), "joined twice"),
            "left" => assert!(present.remove(name), "left twice"),
            _ => assert!(present.contains(name)),
        }
    }
}

/// Who was taken for dead by nodes that do not reach it hears of it only through those who reach both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_do_not_reach_each_other_see_each_other_again_after_a_cut() {
    let nodes = five("pair").await;
    let _pairs = [Cut::between(&nodes[0], &nodes[4]), Cut::between(&nodes[1], &nodes[4])];
    let cut = Cut::off(&[&nodes[0], &nodes[1]]);
    all_see(&nodes[..2], &names(2)).await;
    nodes[4].sees(&["n02", "n03", "n04"]).await;
    // What the two say of it is news for about a second. Until then it might hear of it by chance.
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(cut);
    all_see(&nodes, &names(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_changes_neither_hide_a_crash_nor_make_anybody_seem_to_leave() {
    let mut nodes = five("storm").await;
    let crashed = nodes.pop().unwrap();
    let clusters: Vec<_> = nodes.iter().map(|node| node.cluster.clone()).collect();
    let storm = tokio::spawn(async move {
        loop {
            clusters.iter().for_each(Cluster::touch);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut events = nodes[0].cluster.events();
    crashed.crash().await;
    all_see(&nodes, &names(4)).await;
    storm.abort();
    nodes.remove(0).leave().await;
    let mut left = Vec::new();
    while let Some(event) = timeout(PATIENCE, events.next()).await.expect("the end is told") {
        if let Event::Left(peer) = event {
            left.push(peer.name);
        }
    }
    assert_eq!(left, ["n04"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_does_no_harm() {
    let nodes = [Node::start("garbage", "a", localhost(), &[]).await];
    let target = nodes[0].addr();
    let socket = UdpSocket::bind(localhost()).await.unwrap();
    let mut sealed = Vec::new();
    for len in 0..300u32 {
        let junk: Vec<u8> = (0..len).map(|i| (i.wrapping_mul(31).wrapping_add(len * 7) % 251) as u8).collect();
        socket.send_to(&junk, target).await.unwrap();
        Envelope::new(Arc::default(), "garbage", 1).seal(&junk, 0, &mut sealed);
        socket.send_to(&sealed, target).await.unwrap();
        if len % 10 == 0 {
            let mut stream = TcpStream::connect(target).await.unwrap();
            let _ = stream.write_all(&junk).await;
        }
    }
    let mut greedy = TcpStream::connect(target).await.unwrap();
    let _ = greedy.write_all(&u32::MAX.to_be_bytes()).await;
    let _silent = TcpStream::connect(target).await.unwrap();
    let _other = Node::start("garbage", "b", localhost(), &[target]).await;
    nodes[0].sees(&["a", "b"]).await;
}

#[derive(Clone, Default)]
struct Diary {
    entries: Arc<Mutex<Vec<String>>>,
    asked: Arc<AtomicUsize>,
}

impl Discovery for Diary {
    async fn register(&self, me: SocketAddr) -> Result<(), DiscoveryError> {
        self.entries.lock().push(format!("register {me}"));
        Ok(())
    }
    async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        match self.asked.fetch_add(1, Ordering::Relaxed) {
            0 => Err(DiscoveryError::unavailable("not yet")),
            _ => std::future::pending().await,
        }
    }
    async fn deregister(&self, me: SocketAddr) -> Result<(), DiscoveryError> {
        self.entries.lock().push(format!("deregister {me}"));
        std::future::pending().await
    }
    async fn close(&self) {
        self.entries.lock().push("close".into());
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_provider_holds_up_neither_life_nor_farewell() {
    let diary = Diary::default();
    let node = Node::with(config("diary", "a", localhost()), diary.clone()).await;
    let (addr, leaving_at) = (node.addr(), Instant::now());
    node.leave().await;
    assert!(leaving_at.elapsed() < Duration::from_secs(2), "{:?}", leaving_at.elapsed());
    assert_eq!(*diary.entries.lock(), [format!("register {addr}"), format!("deregister {addr}"), "close".into()]);
}

struct Refusing;

impl Discovery for Refusing {
    async fn register(&self, _: SocketAddr) -> Result<(), DiscoveryError> {
        Err(DiscoveryError::invalid("no such subject"))
    }
    async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn a_refused_registration_stops_the_start_and_frees_the_port() {
    let addr = free_addrs(1).await[0];
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let start = |config| Cluster::start(config, Arc::new(Refusing), Arc::new(Words::default()), &tasks, stop.clone());
    let refused = start(config("c", "a", addr)).await.err().unwrap();
    assert!(matches!(refused, StartError::Discovery(_)), "{refused}");
    assert!(tasks.is_empty());
    bind(addr).await.unwrap();
    let nameless = start(config("c", "", addr)).await.err().unwrap();
    assert_eq!(nameless.to_string(), r#"node_name = "": must not be empty"#);
}

#[tokio::test]
async fn whoever_listens_everywhere_advertises_the_route_to_a_seed() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let seed = "127.0.0.1:9";
    let node = Node::with(config("route", "a", everywhere), StaticDiscovery::new([seed])).await;
    assert_eq!(node.addr().ip(), Ipv4Addr::LOCALHOST);
    let told = ClusterConfig { advertise: Some([127, 0, 0, 7].into()), ..config("route", "b", everywhere) };
    assert_eq!(Node::with(told, StaticDiscovery::new([seed])).await.addr().ip(), Ipv4Addr::new(127, 0, 0, 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_under_another_address_than_it_advertises_is_a_seed_all_the_same() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let named = ClusterConfig { advertise: Some([127, 0, 0, 7].into()), ..config("alias", "a", everywhere) };
    let seed = Node::with(named, StaticDiscovery::default()).await;
    let alias = SocketAddr::from(([127, 0, 0, 1], seed.addr().port()));
    let other = ClusterConfig { advertise: Some([127, 0, 0, 8].into()), ..config("alias", "b", everywhere) };
    let other = Node::with(other, StaticDiscovery::new([alias.to_string()])).await;
    other.sees(&["a", "b"]).await;
    seed.sees(&["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_stopped_comes_back_with_what_it_had_and_does_not_take_the_others_for_dead() {
    let nodes = five("stall").await;
    let process = Process::start("stall", "zz", nodes[0].addr()).await;
    let six = |view: &View| view.peers.len() == 6;
    timeout(PATIENCE, process.cluster.views().wait_for(|view| six(view))).await.unwrap().unwrap();
    let (mut events, incarnation) = (process.cluster.events(), process.cluster.me().incarnation);
    process.stop_for(Duration::from_secs(4));
    for node in &nodes {
        node.sees(&["n00", "n01", "n02", "n03", "n04"]).await;
    }
    for node in &nodes {
        node.sees_where("zz again", |view| six(view) && view.peers[5].incarnation == incarnation).await;
    }
    process.end();
    while let Some(event) = timeout(PATIENCE, events.next()).await.expect("the end is told") {
        assert!(!matches!(event, Event::Left(_)), "{event:?}");
    }
}
