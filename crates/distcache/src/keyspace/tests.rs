//! What whole clusters do not do by themselves: nodes that disagree about the view, and peers that hang.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::cluster::PeerState;
use crate::error::Overload;
use crate::flight::Failure;
use crate::keyspaces::Keyspaces;
use crate::limits::Limits;
use crate::net::{Clock, TcpListener};
use crate::node::NodeParts;
use crate::peer::link::LinkSettings;
use crate::peer::server::Server;
use crate::promise::Promise;
use crate::ring::NodeId;
use crate::spec::DeleteOptions;
use crate::trace::Traces;
use crate::trust::Gate;
use crate::trust::handshake::{Hello, Topic};
use crate::{DataSource, Fetched, SourceError};

mod apart;
mod liar;
mod messages;
mod passed_on;
mod told;

const HOP_BUDGET: Duration = Duration::from_millis(200);

#[derive(Clone, Default)]
struct Counting(Arc<AtomicU64>);

impl DataSource for Counting {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        self.0.fetch_add(1, SeqCst);
        Ok(Fetched::new(format!("value of {key}")))
    }
}

/// A node whose view is what the test says.
struct Puppet {
    node: Arc<Node>,
    keyspaces: Arc<Keyspaces>,
    core: Arc<Core>,
    addr: SocketAddr,
}

async fn puppet(name: &str, source: &Counting) -> Puppet {
    puppet_with(name, source, HOP_BUDGET).await
}

async fn puppet_with(name: &str, source: &Counting, hop_budget: Duration) -> Puppet {
    puppet_that_has_lived(Duration::ZERO, name, source, hop_budget).await
}

async fn puppet_that_has_lived(age: Duration, name: &str, source: &Counting, hop_budget: Duration) -> Puppet {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (limits, stop, tasks) = (Limits::default(), CancellationToken::new(), TaskTracker::new());
    let hello = Hello::new(Topic::Requests, "test", name, 1, limits.frame_bytes_max());
    let gate = Arc::new(Gate::default());
    let link_settings = LinkSettings {
        hello: hello.clone(),
        gate: gate.clone(),
        limits: limits.clone(),
        hop_budget,
        clock: Clock::Kernel,
        tasks: tasks.clone(),
        runtime: Handle::current(),
        reached: tokio::sync::mpsc::unbounded_channel().0,
    };
    let parts = NodeParts {
        name: name.into(),
        limits: limits.clone(),
        clock: Clock::Kernel,
        began: Clock::Kernel.now().before(age),
        request_timeout: Duration::from_secs(10),
        clustered: true,
        link_settings,
        traces: Traces::default(),
        promise: Promise::default(),
        stop: stop.clone(),
    };
    let node = Arc::new(Node::new(parts));
    let spec = KeyspaceSpec::new("things", source.clone());
    let keyspaces = Arc::new(Keyspaces::new(node.clone(), vec![spec]));
    let core = keyspaces.get("things").unwrap();
    let work = node.work.clone();
    let serve = keyspaces.clone();
    let server = Arc::new(Server { serve, hello, gate, limits, tasks: tasks.clone(), work, stop });
    tasks.spawn(server.run(listener));
    Puppet { node, keyspaces, core, addr }
}

fn peer(name: &str, addr: SocketAddr, state: PeerState, is_self: bool) -> Peer {
    Peer { peer_addr: addr, state, is_self, ..Peer::alone(name.into(), 100) }
}

async fn get(puppet: &Puppet, key: &str) -> Result<Entry, Error> {
    puppet.core.ask_within(key, GetOptions::new()).await
}

/// Each takes the other for the owner of everything: a request must not go to and fro.
#[tokio::test]
async fn peers_that_disagree_about_the_owner_do_not_forward_to_each_other() {
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    let (to_a, to_b) = (peer("a", a.addr, PeerState::Ready, false), peer("b", b.addr, PeerState::Ready, false));
    a.node.adopt(vec![peer("a", a.addr, PeerState::Draining, true), to_b]);
    b.node.adopt(vec![to_a, peer("b", b.addr, PeerState::Draining, true)]);
    for n in 0..20 {
        let key = format!("k{n}");
        let entry = get(&a, &key).await.unwrap();
        assert_eq!((entry.value, entry.origin), (Bytes::from(format!("value of k{n}")), Origin::Fallback));
    }
    assert_eq!(source.0.load(SeqCst), 20, "one load each, by who was asked");
    let stats = b.core.stats();
    assert_eq!((stats.fetches, stats.loads), (0, 0), "the other neither asked nor loaded");
    assert_eq!(a.core.stats().hot_entries, 0, "and nothing is kept while they disagree");
    let error = a.core.put("k", Bytes::from_static(b"v"), PutOptions::new()).await.unwrap_err();
    assert!(matches!(error, Error::NotOwner { .. }) && error.is_retryable(), "a write is not guessed: {error}");
}

/// A view that arrives while the question is under way is used.
#[tokio::test]
async fn a_write_that_met_two_views_succeeds_once_they_agree() {
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    a.node.adopt(vec![peer("a", a.addr, PeerState::Draining, true), peer("b", b.addr, PeerState::Ready, false)]);
    let put = a.core.put("k", Bytes::from_static(b"v"), PutOptions::new());
    let agree = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        b.node.adopt(vec![peer("b", b.addr, PeerState::Ready, true)]);
    };
    let (put, ()) = tokio::join!(put, agree);
    put.unwrap();
    assert_eq!(get(&a, "k").await.unwrap().value, "v");
}

/// The kernel accepts connections to it; nobody ever answers on them, while the listener lives.
async fn hung_peer(state: PeerState) -> (TcpListener, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hung = peer("b", listener.local_addr().unwrap(), state, false);
    (listener, hung)
}

#[tokio::test]
async fn a_peer_that_is_connected_but_hangs_costs_one_hop_budget_and_then_nothing() {
    let source = Counting::default();
    let a = puppet("a", &source).await;
    let (_listener, hung) = hung_peer(PeerState::Ready).await;
    a.node.adopt(vec![peer("a", a.addr, PeerState::Draining, true), hung]);
    let asked = Instant::now();
    let entries = futures_util::future::join_all((0..50).map(|n| {
        let a = &a;
        async move { get(a, &format!("k{n}")).await }
    }));
    for entry in entries.await {
        assert_eq!(entry.unwrap().origin, Origin::Fallback);
    }
    assert!(asked.elapsed() < HOP_BUDGET * 3, "all of them together waited {:?}", asked.elapsed());
    let asked = Instant::now();
    for n in 50..100 {
        get(&a, &format!("k{n}")).await.unwrap();
    }
    assert!(asked.elapsed() < HOP_BUDGET, "the ejected peer is not asked again: {:?}", asked.elapsed());
    let deleted = a.core.delete("k1", DeleteOptions::new()).await.unwrap_err();
    assert!(matches!(&deleted, Error::PeerUnavailable { peer, .. } if peer == "b"), "{deleted}");
}

/// Its copy ends with its lease at the latest, and it is told when it is reached again; the writer waits for neither.
#[tokio::test]
async fn a_holder_that_does_not_answer_holds_a_write_up_for_a_moment_only() {
    let source = Counting::default();
    let a = puppet("a", &source).await;
    let (_listener, holder) = hung_peer(PeerState::Draining).await;
    a.node.adopt(vec![peer("a", a.addr, PeerState::Ready, true), holder]);
    a.core.leases.register(a.core.hash("k"), NodeId::of("b"), a.node.clock.now(), Duration::from_secs(60));
    let written = Instant::now();
    a.core.put("k", Bytes::from_static(b"v"), PutOptions::new()).await.unwrap();
    assert!(written.elapsed() < crate::node::INVALIDATION_WAIT * 4, "{:?}", written.elapsed());
    let missed = a.core.undelivered.take(NodeId::of("b"), a.node.clock.now()).unwrap();
    assert_eq!(missed.keys.into_keys().collect::<Vec<_>>(), [a.core.hash("k")]);
}

/// Whoever restarts has forgotten its promises, so what it gave before does not count.
#[tokio::test]
async fn a_hot_copy_does_not_outlive_the_incarnation_that_gave_it() {
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    let owner = peer("b", b.addr, PeerState::Ready, false);
    b.node.adopt(vec![peer("b", b.addr, PeerState::Ready, true)]);
    let me = peer("a", a.addr, PeerState::Draining, true);
    a.node.adopt(vec![me.clone(), owner.clone()]);
    for _ in 0..3 {
        get(&a, "k").await.unwrap();
    }
    assert!(a.core.lookup("k").is_some());
    let restarted = Peer { incarnation: owner.incarnation + 1, ..owner };
    a.node.adopt(vec![me, restarted]);
    assert!(a.core.lookup("k").is_none());
}

/// The node's own write must not be overtaken by what it loaded because the owner was out for a moment.
#[tokio::test]
async fn a_fallback_load_overtaken_by_an_invalidation_is_not_kept() {
    let source = Counting::default();
    let a = puppet("a", &source).await;
    let nowhere = peer("b", "127.0.0.1:1".parse().unwrap(), PeerState::Ready, false);
    a.node.adopt(vec![peer("a", a.addr, PeerState::Draining, true), nowhere]);
    let hash = a.core.hash("k");
    let boarding = a.core.boarding(hash, a.core.view_seq(), Duration::MAX);
    let (_waiter, ticket) = a.core.loads.join(hash, "k", boarding).unwrap();
    a.core.serve_invalidate(NodeId(7), 0, &[a.core.hash("k")], false);
    ticket.unwrap().land(|attached| {
        assert!(!attached);
        Err(Failure::Abandoned)
    });
}

/// Between a caller's miss and its turn to load, another caller's load may have landed.
#[tokio::test]
async fn who_comes_to_load_a_key_that_has_landed_meanwhile_does_not_load_it_again() {
    let source = Counting::default();
    let a = puppet("a", &source).await;
    a.node.adopt(vec![peer("a", a.addr, PeerState::Ready, true)]);
    let missed = a.core.hash("k");
    assert!(a.core.lookup("k").is_none());
    get(&a, "k").await.unwrap();
    let late = a.core.load(missed, "k", Purpose::Own).await.unwrap();
    assert_eq!((late.entry.value, late.entry.origin), (Bytes::from("value of k"), Origin::Owned));
    assert_eq!(source.0.load(SeqCst), 1);
}

/// The registry goes to every node that joins, so it has an end; callers hear of it by type.
#[tokio::test]
async fn keyspaces_beyond_what_the_cluster_can_remember_are_refused() {
    let a = puppet("a", &Counting::default()).await;
    let spec = |n: usize| KeyspaceSpec::new(format!("passing-{n}"), Counting::default()).max_bytes(64 << 10);
    let refused = (0..).find_map(|n| {
        let name = format!("passing-{n}");
        let made = a.keyspaces.create(spec(n)).and_then(|()| a.keyspaces.delete(&name));
        made.err()
    });
    assert!(matches!(refused, Some(Error::Overloaded { what: Overload::Keyspaces, .. })), "{refused:?}");
    assert!(a.keyspaces.get("things").is_ok());
}

/// News of a peer that moves no key must not send callers round again, nor cost the computing of a ring.
#[tokio::test]
async fn a_view_that_places_keys_as_before_is_the_same_placement() {
    let a = puppet("a", &Counting::default()).await;
    let (me, other) = (peer("a", a.addr, PeerState::Ready, true), peer("b", a.addr, PeerState::Ready, false));
    a.node.adopt(vec![me.clone(), other.clone()]);
    let before = a.node.topology().placement.clone();
    a.node.adopt(vec![me.clone(), Peer { zone: Some("elsewhere".into()), ..other.clone() }]);
    assert!(Arc::ptr_eq(&before, &a.node.topology().placement));
    assert_eq!(a.node.topology().peers[1].zone.as_deref(), Some("elsewhere"));
    a.node.adopt(vec![me, Peer { weight: 50, ..other }]);
    assert_eq!(a.core.view_seq(), before.seq() + 1);
}

#[tokio::test]
async fn a_clear_from_the_end_of_time_is_not_believed_and_the_next_one_clears() {
    let Puppet { core, .. } = puppet("a", &Counting::default()).await;
    core.advance(u64::MAX);
    assert_eq!(core.generation(), 0);
    let now = crate::net::wall_clock_ms();
    core.advance(now);
    assert_eq!(core.generation(), now);
}
