//! What other nodes wrote, as the owner takes it in.

use super::messages::Calm;
use super::*;
use crate::peer::wire::{Lost, Told, ToldChange};
use crate::ring::SLOTS;

const TELLER: NodeId = NodeId(7);

async fn owner(source: &Counting) -> Puppet {
    let a = puppet("a", source).await;
    a.node.adopt(vec![peer("a", a.addr, PeerState::Ready, true)]);
    a
}

fn told(puppet: &Puppet, key: &str, age: Duration, hold: Duration) -> Told<'static> {
    Told { changes: vec![ToldChange { hash: puppet.core.hash(key), age, hold }], lost: None }
}

#[tokio::test]
async fn what_is_older_than_a_write_elsewhere_is_dropped_and_what_is_younger_stays() {
    let source = Counting::default();
    let a = owner(&source).await;
    get(&a, "k").await.unwrap();
    a.core.serve_told(0, TELLER, &told(&a, "k", Duration::from_secs(60), Duration::ZERO)).await.unwrap();
    assert!(a.core.lookup("k").is_some(), "loaded after the write");
    a.core.serve_told(0, TELLER, &told(&a, "k", Duration::ZERO, Duration::ZERO)).await.unwrap();
    assert!(a.core.lookup("k").is_none());
    assert_eq!(a.core.stats().changes_heard, 2);
}

#[tokio::test]
async fn a_hold_that_is_told_holds_here() {
    let source = Counting::default();
    let a = owner(&source).await;
    a.core.serve_told(0, TELLER, &told(&a, "k", Duration::ZERO, Duration::from_secs(60))).await.unwrap();
    get(&a, "k").await.unwrap();
    assert!(a.core.lookup("k").is_none(), "answered, and not kept");
}

#[tokio::test]
async fn who_does_not_own_what_it_is_told_says_so_and_drops_it_all_the_same() {
    let source = Counting::default();
    let a = owner(&source).await;
    get(&a, "k").await.unwrap();
    let b = puppet("b", &source).await;
    let to_b = peer("b", b.addr, PeerState::Ready, false);
    a.node.adopt(vec![peer("a", a.addr, PeerState::Draining, true), to_b]);
    let answer = a.core.serve_told(0, TELLER, &told(&a, "k", Duration::ZERO, Duration::ZERO)).await;
    assert!(matches!(answer, Err(Error::NotOwner { .. })), "{answer:?}");
    assert!(a.core.look_at_departed(a.core.hash("k"), "k").is_none(), "nor handed over");
}

#[tokio::test]
async fn what_the_log_has_lost_is_a_doubt_about_all_that_is_older_in_the_slots_concerned() {
    let source = Counting::default();
    let a = owner(&source).await;
    for n in 0..100 {
        get(&a, &format!("k{n}")).await.unwrap();
    }
    let mut half = vec![0; SLOTS / 8];
    half[..SLOTS / 16].fill(0xFF);
    let doubt = |age| Told { changes: Vec::new(), lost: Some(Lost { age, slots: &half }) };
    a.core.serve_told(0, TELLER, &doubt(Duration::from_secs(60))).await.unwrap();
    assert_eq!(a.core.stats().entries, 100, "all are younger");
    a.core.serve_told(0, TELLER, &doubt(Duration::ZERO)).await.unwrap();
    let left = a.core.stats().entries;
    assert!((30..70).contains(&left), "{left}");
}

#[tokio::test]
async fn an_entry_is_not_taken_over_where_the_log_does_not_say_that_its_key_was_not_written() {
    use crate::peer::wire::HandedOver;
    let source = Counting::default();
    let a = owner(&source).await;
    let take = |key: &'static str| {
        let entry = HandedOver { key, value: b"old", age: Duration::from_secs(60), remaining: None };
        a.core.serve_hand_over(0, &[entry]).unwrap();
        a.core.lookup(key).is_some()
    };
    assert!(take("free"));
    a.core.delete("written", DeleteOptions::new()).await.unwrap();
    assert!(!take("written"));
    a.core.changes.forget_all(Moment(u64::MAX), u32::MAX);
    assert!(!take("unknown"));
}

/// What it has may be older than a write that everybody else has seen.
#[tokio::test]
async fn a_node_in_doubt_answers_no_other_node_from_what_it_has() {
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    a.node.adopt(vec![peer("a", a.addr, PeerState::Ready, true)]);
    let owner = peer("a", a.addr, PeerState::Ready, false);
    b.node.adopt(vec![owner, peer("b", b.addr, PeerState::Draining, true)]);
    get(&a, "k").await.unwrap();
    let doubt = a.node.doubt();
    assert_eq!(get(&b, "k").await.unwrap().origin, Origin::Fallback);
    let asked = get(&b, "k");
    let found_out = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(doubt);
    };
    let (answer, ()) = tokio::join!(asked, found_out);
    assert_eq!(answer.unwrap().origin, Origin::Peer, "it has waited for the end of the doubt");
    assert_eq!(source.0.load(SeqCst), 2);
}

/// The answer may be lost on the way: then it is asked for once more, and has to be the same.
#[tokio::test]
async fn who_was_taken_for_dead_hears_the_same_when_it_asks_again() {
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    let me = peer("a", a.addr, PeerState::Draining, true);
    let to_b = peer("b", b.addr, PeerState::Ready, false);
    for view in [vec![me.clone(), to_b.clone()], vec![me.clone()], vec![me, to_b]] {
        a.node.adopt(view);
    }
    let to_a = peer("a", a.addr, PeerState::Draining, false);
    b.node.adopt(vec![to_a, peer("b", b.addr, PeerState::Ready, true)]);
    let link = b.node.topology().link(NodeId::of("a")).unwrap().clone();
    let ask = || async { crate::heal::ask(&link, Duration::from_secs(2)).await.unwrap() };
    let (first, again) = (ask().await, ask().await);
    assert!(first.places_you && !first.met.is_empty(), "{first:?}");
    assert_eq!(first.met, again.met);
}

/// One has not heard yet that the slots have moved, and writes: what the other has loaded meanwhile is older.
#[tokio::test]
async fn who_takes_itself_for_the_owner_hears_of_the_writes_of_who_did_so_before() {
    let Calm([a, b, _c]) = Calm::new().await;
    let to_a = peer("a", a.addr, PeerState::Draining, false);
    b.node.adopt(vec![to_a, peer("b", b.addr, PeerState::Ready, true)]);
    assert_eq!(get(&b, "k").await.unwrap().origin, Origin::Loaded);
    assert!(b.core.lookup("k").is_some(), "kept: the last owner says that it is the owner, and has heard who asks");
    a.core.put("k", Bytes::from_static(b"new"), PutOptions::new()).await.unwrap();
    assert!(b.core.lookup("k").is_none(), "dropped before the put returned");
    b.core.put("k", Bytes::from_static(b"newer"), PutOptions::new()).await.unwrap();
    a.core.delete("k", DeleteOptions::new()).await.unwrap();
    assert!(b.core.lookup("k").is_none(), "so is what the other has written itself");
}

#[tokio::test]
async fn a_new_owner_of_which_the_last_one_may_not_have_heard_keeps_nothing() {
    let source = Counting::default();
    let b = puppet("b", &source).await;
    // Takes connections and answers nothing.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to_a = |state| peer("a", deaf.local_addr().unwrap(), state, false);
    b.node.adopt(vec![to_a(PeerState::Ready), peer("b", b.addr, PeerState::Draining, true)]);
    b.node.adopt(vec![to_a(PeerState::Draining), peer("b", b.addr, PeerState::Ready, true)]);
    assert_eq!(get(&b, "k").await.unwrap().value, "value of k");
    assert!(b.core.lookup("k").is_none());
    b.node.adopt(vec![peer("b", b.addr, PeerState::Ready, true)]);
    get(&b, "k").await.unwrap();
    assert!(b.core.lookup("k").is_some(), "kept when it is gone");
}

/// It loads for itself, and who asks there after a write must not join that load.
#[tokio::test]
async fn whom_a_node_in_doubt_has_turned_away_hears_of_the_next_write() {
    let Calm([a, b, _c]) = Calm::new().await;
    let doubt = a.node.doubt();
    assert_eq!(get(&b, "one").await.unwrap().origin, Origin::Fallback);
    let many = b.core.get_many(&["other"], GetOptions::new()).await.unwrap();
    assert_eq!(many[0].as_ref().unwrap().origin, Origin::Fallback);
    drop(doubt);
    for (key, told) in [("one", 1), ("other", 2)] {
        a.core.put(key, Bytes::from_static(b"new"), PutOptions::new()).await.unwrap();
        assert_eq!(b.core.stats().invalidations_received, told, "{key}");
    }
}

/// So that the view in which it is back does not count before.
#[tokio::test]
async fn an_inquiry_is_a_doubt_before_it_has_asked_anybody() {
    let a = owner(&Counting::default()).await;
    let inquiry = crate::heal::heal(a.node.clone(), a.keyspaces.clone());
    assert!(a.node.is_in_doubt());
    drop(inquiry);
    assert!(!a.node.is_in_doubt());
}
