//! Forming, joining, leaving, and what the engine says of it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use distcache::{Event, PeerState, StartError, StaticDiscovery};
use futures_util::future::join_all;

use crate::harness::*;

/// Ports that are free for UDP and TCP now.
fn free_ports(n: usize) -> Vec<SocketAddr> {
    let held: Vec<_> = std::iter::from_fn(|| {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = tcp.local_addr().unwrap();
        Some(UdpSocket::bind(addr).ok().map(|udp| (addr, tcp, udp)))
    })
    .flatten()
    .take(n)
    .collect();
    held.iter().map(|(addr, ..)| *addr).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_started_at_the_same_moment_form_one_cluster() {
    let source = Source::new();
    let plan = Plan::new(&source);
    let seeds = free_ports(5);
    let starts = seeds.iter().enumerate().map(|(n, addr)| {
        let discovery = StaticDiscovery::new(seeds.iter().map(ToString::to_string));
        plan.builder(&format!("n{n}")).gossip_listen(*addr).discovery(discovery).start()
    });
    let nodes: Vec<_> = join_all(starts).await.into_iter().map(Result::unwrap).collect();
    agree(&nodes).await;
    for node in &nodes {
        assert_eq!(node.peers().len(), 5);
        assert_eq!(node.peers().iter().filter(|peer| peer.is_self).count(), 1);
        assert!(node.peers().iter().all(|peer| peer.state == PeerState::Ready));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_died_is_dropped_and_rejoins_when_it_is_restarted() {
    let source = Source::new();
    let plan = Plan::new(&source);
    let mut nodes = plan.cluster(3).await;
    let before = nodes[2].me();
    drop(nodes.pop());
    agree(&nodes).await;
    let again = plan.builder("n2").gossip_listen(before.gossip_addr).start().await.unwrap();
    nodes.push(again);
    agree(&nodes).await;
    let after = nodes[0].peers().into_iter().find(|peer| peer.name == "n2").unwrap();
    assert!(after.incarnation > before.incarnation);
    let key = key_of(&nodes, 2);
    assert_eq!(nodes[0].get(KEYSPACE, &key).await.unwrap(), value_of(&key));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_tell_every_peer_there_is_and_every_change_without_a_gap() {
    let source = Source::new();
    let plan = Plan::new(&source);
    let first = plan.start("first").await;
    let second = plan.start("second").await;
    agree(&[first.clone(), second.clone()]).await;
    let mut events = first.events();
    let Some(Event::Joined(peer)) = events.next().await else { panic!("known already") };
    assert_eq!(peer.name, "second");
    let third = plan.start("third").await;
    let joined = async {
        loop {
            match events.next().await.unwrap() {
                Event::Joined(peer) => break peer.name,
                Event::Updated(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, joined).await.unwrap(), "third");
    third.shutdown(Duration::from_secs(2)).await;
    let left = async {
        loop {
            if let Event::Left(peer) = events.next().await.unwrap() {
                break peer.name;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, left).await.unwrap(), "third");
    first.shutdown(Duration::from_secs(2)).await;
    let ended = async { while events.next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the stream ends with the engine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_shut_down_is_not_ready_and_refuses_by_type() {
    let source = Source::new();
    let nodes = cluster(2, &source).await;
    let things = things(&nodes[0]);
    assert!(nodes[0].is_ready());
    nodes[0].shutdown(Duration::from_secs(2)).await;
    assert!(!nodes[0].is_ready());
    assert!(matches!(things.get("k").await, Err(distcache::Error::Shutdown)));
    agree(&nodes[1..]).await;
    assert_eq!(nodes[1].get(KEYSPACE, "k").await.unwrap(), "value of k");
}

#[tokio::test]
async fn a_start_that_fails_names_the_address_and_leaves_no_port_behind() {
    let source = Source::new();
    let plan = Plan::new(&source);
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _holder = UdpSocket::bind(taken).unwrap();
    let peers = free_ports(1)[0];
    let error = plan.builder("n").peer_listen(peers).gossip_listen(taken).start().await.unwrap_err();
    assert!(matches!(&error, StartError::Bind { addr, .. } if *addr == taken), "{error}");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    eventually("the peer port is free again", || TcpListener::bind(peers).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_handle_stops_the_node_and_a_keyspace_is_a_handle() {
    let source = Source::new();
    let plan = Plan::new(&source);
    let engine = plan.start("n").await;
    let peers = engine.me().peer_addr;
    let things = things(&engine);
    drop(engine);
    assert!(things.get("k").await.is_ok());
    drop(things);
    eventually("the port is free", || TcpListener::bind(peers).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_weight_gives_a_node_its_share() {
    let source = Source::new();
    let plan = Plan::new(&source);
    let nodes = [
        plan.builder("light").weight(50).start().await.unwrap(),
        plan.builder("heavy").weight(150).start().await.unwrap(),
    ];
    agree(&nodes).await;
    let ring = nodes[0].ring();
    let slots = |name| ring.members.iter().find(|member| member.name == name).unwrap().slots;
    let ratio = f64::from(slots("heavy")) / f64::from(slots("light"));
    assert!((2.7..3.3).contains(&ratio), "{ratio}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_lets_requests_under_way_finish_and_then_answers_nothing_old() {
    let source = Source::slow(Duration::from_millis(300));
    let nodes = cluster(2, &source).await;
    let (mine, cached) = (key_of(&nodes, 0), keys_of(&nodes, 0).nth(1).unwrap());
    nodes[0].put(KEYSPACE, &cached, "old").await.unwrap();
    let things = things(&nodes[0]);
    let reader = {
        let (things, mine) = (things.clone(), mine.clone());
        tokio::spawn(async move { things.get(&mine).await })
    };
    eventually("the load has begun", || source.loads() == 1).await;
    nodes[0].shutdown(PATIENCE).await;
    assert_eq!(reader.await.unwrap().unwrap(), value_of(&mine));
    assert_eq!(things.cached(&cached), None);
}
