//! Nodes that have lived on without each other, and what is kept of what was written or loaded meanwhile.

use super::messages::Calm;
use super::*;
use crate::peer::wire::{HandedOver, Lost, Told};
use crate::ring::SLOTS;

/// A lease that does not end while a test waits.
const LONGER: Duration = Duration::from_secs(4);

fn ready(name: &str, addr: SocketAddr, is_self: bool) -> Peer {
    peer(name, addr, PeerState::Ready, is_self)
}

fn draining(name: &str, addr: SocketAddr, is_self: bool) -> Peer {
    peer(name, addr, PeerState::Draining, is_self)
}

fn nowhere() -> SocketAddr {
    "127.0.0.1:1".parse().unwrap()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// B has what is older than what A, which does not own it any more, has deleted.
async fn writer_and_stale_owner() -> (Puppet, Puppet) {
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    b.node.adopt(vec![ready("b", b.addr, true)]);
    get(&b, "k").await.unwrap();
    a.node.adopt(vec![ready("a", a.addr, true)]);
    a.core.delete("k", DeleteOptions::new()).await.unwrap();
    (a, b)
}

/// A wrote it when it owned it; its owner now is another one, to whom B is as new as to A.
#[tokio::test]
async fn who_is_met_late_is_told_what_was_written_here_whoever_owned_it_last() {
    let (a, b) = writer_and_stale_owner().await;
    let (me, c) = (draining("a", a.addr, true), ready("c", nowhere(), false));
    a.node.adopt(vec![me.clone(), c.clone()]);
    let c_leaves = Peer { state: PeerState::Draining, ..c };
    let before = a.node.adopt(vec![me, c_leaves, ready("b", b.addr, false)]);
    a.keyspaces.follow(&before);
    until("B is told, and drops it", || b.core.lookup("k").is_none()).await;
}

/// Its owner is gone without a word.
#[tokio::test]
async fn who_takes_the_place_of_a_node_that_is_gone_is_told_what_others_have_written() {
    let (a, b) = writer_and_stale_owner().await;
    let (me, b_seen) = (draining("a", a.addr, true), ready("b", b.addr, false));
    let b_rests = Peer { state: PeerState::Draining, ..b_seen.clone() };
    a.node.adopt(vec![me.clone(), b_rests, ready("c", nowhere(), false)]);
    let before = a.node.adopt(vec![me, b_seen]);
    a.keyspaces.follow(&before);
    until("B is told, and drops it", || b.core.lookup("k").is_none()).await;
}

#[tokio::test]
async fn nothing_is_taken_over_from_who_had_lived_on_elsewhere_before_it_was_met() {
    let source = Counting::default();
    // Seconds that the two have lived, and whether B had been lost sight of in an earlier life.
    let cases = [
        (60, 60, false, false),
        (60, 0, false, true),
        (0, 60, false, true),
        (60, 5, false, true),
        (60, 5, true, false),
        (60, 0, true, true),
    ];
    for (mine, theirs, is_lost, is_taken) in cases {
        let age = Duration::from_secs(mine);
        let a = puppet_that_has_lived(age, "a", &source, HOP_BUDGET).await;
        a.node.adopt(vec![ready("a", a.addr, true)]);
        let incarnation = crate::net::wall_clock_ms() - theirs * 1_000;
        let b = Peer { incarnation, ..draining("b", nowhere(), false) };
        if is_lost {
            let before = Peer { incarnation: 1, state: PeerState::Joining, ..b.clone() };
            a.node.adopt(vec![ready("a", a.addr, true), before]);
            a.node.adopt(vec![ready("a", a.addr, true)]);
        }
        a.node.adopt(vec![ready("a", a.addr, true), b]);
        let entry = HandedOver { key: "k", value: b"old", age: Duration::from_secs(30), remaining: None };
        let answer = a.core.serve_hand_over(NodeId::of("b"), 0, &[entry]);
        assert_eq!(answer.is_ok(), is_taken, "{mine} s and {theirs} s, lost before: {is_lost}: {answer:?}");
    }
}

/// It asks and is told, like one that had been lost sight of.
#[tokio::test]
async fn who_is_met_late_may_ask_what_it_has_missed_and_who_may_know_of_more() {
    let source = Counting::default();
    let a = puppet_that_has_lived(Duration::from_secs(60), "a", &source, HOP_BUDGET).await;
    let b = puppet("b", &source).await;
    a.node.adopt(vec![ready("a", a.addr, true)]);
    let incarnation = crate::net::wall_clock_ms() - 60_000;
    a.node.adopt(vec![ready("a", a.addr, true), Peer { incarnation, ..ready("b", b.addr, false) }]);
    b.node.adopt(vec![ready("a", a.addr, false), Peer { incarnation, ..ready("b", b.addr, true) }]);
    let link = b.node.topology().link(NodeId::of("a")).unwrap().clone();
    let parted = crate::heal::ask(&link, Vec::new(), Duration::from_secs(2)).await.unwrap();
    assert!(parted.met.iter().any(|life| life.id == a.node.id), "{parted:?}");
    assert!(!crate::heal::is_untold(&a.node, NodeId::of("b")));
}

/// What its owner wrote while it was away may have been told to others only.
#[tokio::test]
async fn who_was_missed_drops_the_copies_that_it_holds() {
    let Calm([_a, b, _c]) = Calm::with(LONGER).await;
    for _ in 0..3 {
        get(&b, "k").await.unwrap();
    }
    assert!(b.core.lookup("k").is_some());
    tokio::spawn(crate::heal::heal(b.node.clone(), b.keyspaces.clone()));
    until("it drops them", || b.core.lookup("k").is_none()).await;
}

#[tokio::test]
async fn a_holder_that_is_out_of_sight_at_a_write_hears_of_it_when_it_is_reached_again() {
    let Calm([a, b, c]) = Calm::with(LONGER).await;
    for _ in 0..3 {
        get(&b, "k").await.unwrap();
    }
    let all = a.node.topology().peers.clone();
    a.node.adopt(vec![all[0].clone(), draining("c", c.addr, false)]);
    a.core.put("k", Bytes::from_static(b"new"), PutOptions::new()).await.unwrap();
    assert!(b.core.lookup("k").is_some());
    a.core.tell_undelivered(b.node.id);
    a.node.adopt(all);
    a.core.tell_undelivered(b.node.id);
    until("B is told", || b.core.lookup("k").is_none()).await;
}

/// The log has forgotten what was written: a load from before it is in doubt like an entry.
#[tokio::test]
async fn a_load_under_way_is_in_doubt_like_what_is_stored() {
    let source = Counting::default();
    let a = puppet("a", &source).await;
    a.node.adopt(vec![ready("a", a.addr, true)]);
    let hash = a.core.hash("k");
    let boarding = a.core.boarding(hash, a.core.view_seq(), Duration::MAX);
    let (_waiter, ticket) = a.core.loads.join(hash, "k", boarding).unwrap();
    let all = vec![0xFF; SLOTS / 8];
    let doubt = Told { changes: Vec::new(), lost: Some(Lost { age: Duration::ZERO, slots: &all }) };
    a.core.serve_told(NodeId(7), 0, &doubt).await.unwrap();
    ticket.unwrap().land(|attached| {
        assert!(!attached);
        Err(Failure::Abandoned)
    });
}

/// Its owner is out of reach, so what this node loads in its place would be kept as a copy.
#[tokio::test]
async fn a_load_in_an_owners_place_goes_with_the_copies_and_an_owners_own_goes_on() {
    let source = Counting::default();
    for is_mine in [false, true] {
        let a = puppet("a", &source).await;
        let state = if is_mine { PeerState::Ready } else { PeerState::Draining };
        let b = peer("b", nowhere(), if is_mine { PeerState::Draining } else { PeerState::Ready }, false);
        a.node.adopt(vec![peer("a", a.addr, state, true), b]);
        let hash = a.core.hash("k");
        let boarding = a.core.boarding(hash, a.core.view_seq(), Duration::MAX);
        let (_waiter, ticket) = a.core.loads.join(hash, "k", boarding).unwrap();
        a.core.drop_copies(|_| true).await;
        ticket.unwrap().land(|attached| {
            assert_eq!(attached, is_mine);
            Err(Failure::Abandoned)
        });
    }
}

/// The owner is reached, so it tells its writes to those it knows of; that this node has loaded for itself it does not know.
#[tokio::test]
async fn what_is_loaded_because_an_owner_that_is_reached_does_not_answer_is_not_kept() {
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    b.node.adopt(vec![ready("b", b.addr, true)]);
    a.node.adopt(vec![draining("a", a.addr, true), ready("b", b.addr, false)]);
    b.keyspaces.delete("things").unwrap();
    assert_eq!(get(&a, "k").await.unwrap().origin, Origin::Fallback);
    assert_eq!(a.core.stats().hot_entries, 0);
}

/// Each of its keys once, however often it is loaded in its place.
#[tokio::test]
async fn what_is_loaded_in_place_of_an_owner_is_on_its_list_once() {
    let source = Counting::default();
    let a = puppet("a", &source).await;
    a.node.adopt(vec![draining("a", a.addr, true), ready("b", nowhere(), false)]);
    for _ in 0..3 {
        assert_eq!(get(&a, "k").await.unwrap().origin, Origin::Fallback);
        a.core.drop_copy(a.core.hash("k"));
    }
    assert_eq!(source.0.load(SeqCst), 3);
    assert_eq!(a.core.fallbacks.lock().values().map(std::collections::HashSet::len).collect::<Vec<_>>(), [1]);
}

/// It has not heard whose the key is now, and may write it without telling: also when it is known not to be reached, and not asked.
#[tokio::test]
async fn nothing_is_kept_while_the_last_owner_is_a_member_and_cannot_be_asked() {
    let source = Counting::default();
    let b = puppet("b", &source).await;
    b.node.adopt(vec![ready("a", nowhere(), false), draining("b", b.addr, true)]);
    b.node.adopt(vec![draining("a", nowhere(), false), ready("b", b.addr, true)]);
    for _ in 0..4 {
        get(&b, "k").await.unwrap();
        b.core.refresh("k").await.unwrap();
        assert_eq!(b.core.stats().entries, 0);
    }
    b.node.adopt(vec![ready("b", b.addr, true)]);
    get(&b, "k").await.unwrap();
    assert_eq!(b.core.stats().entries, 1, "who is gone writes nothing");
}

/// It hears that there is nothing to tell, and nobody drops anything because of it.
#[tokio::test]
async fn a_node_that_owns_nothing_comes_to_the_end_of_its_doubt() {
    let source = Counting::default();
    let a = puppet_that_has_lived(Duration::from_secs(60), "a", &source, HOP_BUDGET).await;
    let b = puppet("b", &source).await;
    let reader = |is_self| Peer { weight: 0, incarnation: 1, ..ready("b", b.addr, is_self) };
    let (me, seen) = (ready("a", a.addr, true), ready("a", a.addr, false));
    for view in [vec![me.clone(), reader(false)], vec![me.clone()], vec![me, reader(false)]] {
        a.node.adopt(view);
    }
    b.node.adopt(vec![seen, reader(true)]);
    assert!(crate::heal::is_untold(&a.node, NodeId::of("b")));
    tokio::spawn(crate::heal::heal(b.node.clone(), b.keyspaces.clone()));
    until("it has heard all", || !b.node.is_in_doubt()).await;
    assert!(!crate::heal::is_untold(&a.node, NodeId::of("b")));
}

/// However often the view changes meanwhile, of each key it is told once.
#[tokio::test]
async fn a_member_that_is_not_reached_for_long_is_told_when_it_is() {
    let (a, b) = writer_and_stale_owner().await;
    a.node.adopt(vec![draining("a", a.addr, true), ready("b", nowhere(), false)]);
    let link = a.node.topology().link(b.node.id).unwrap().clone();
    let written = Tidings { changes: vec![(a.core.hash("k"), a.node.clock.now())], lost: None };
    a.core.postpone(&link, written.clone());
    a.core.postpone(&link, written.clone());
    assert_eq!(a.core.postponed.lock().values().collect::<Vec<_>>(), [&written]);
    a.node.adopt(vec![draining("a", a.addr, true), ready("b", b.addr, false)]);
    a.keyspaces.reached(b.node.id);
    until("B is told, and drops it", || b.core.lookup("k").is_none()).await;
    assert!(a.core.postponed.lock().is_empty());
}
