//! What is passed on where slots change hands, keyspaces end or nodes stop: and what is not.

use super::*;
use crate::keyspace::hand_over::Parcel;
use crate::peer::wire::Request;

/// A has a key whose slot is B's by now.
async fn departed() -> (Puppet, Puppet) {
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    a.node.adopt(vec![peer("a", a.addr, PeerState::Ready, true)]);
    get(&a, "k").await.unwrap();
    let to = |name, puppet: &Puppet, state, is_self| peer(name, puppet.addr, state, is_self);
    a.node.adopt(vec![to("a", &a, PeerState::Draining, true), to("b", &b, PeerState::Ready, false)]);
    b.node.adopt(vec![to("a", &a, PeerState::Draining, false), to("b", &b, PeerState::Ready, true)]);
    (a, b)
}

/// What A would hand over.
fn collected(a: &Puppet) -> Parcel {
    let mut parcels = Vec::new();
    let (link, entry) = a.core.departing(a.core.hash("k")).unwrap();
    a.core.parcel_for(&mut parcels, link).entries.push(entry);
    parcels.remove(0)
}

/// The clear comes between the collecting and the sending.
#[tokio::test]
async fn what_was_collected_before_a_clear_does_not_come_back_by_a_hand_over() {
    let (a, b) = departed().await;
    let mut parcel = collected(&a);
    let clear = crate::net::wall_clock_ms();
    a.core.advance(clear);
    a.core.send_parcel(&mut parcel, 0, a.core.view_seq()).await;
    assert!(b.core.lookup("k").is_some(), "B has not heard of the clear yet");
    b.core.advance(clear);
    assert!(b.core.lookup("k").is_none());
}

#[tokio::test]
async fn nothing_is_handed_over_of_before_a_doubt_also_if_it_was_collected_before_it() {
    let (a, b) = departed().await;
    let mut parcel = collected(&a);
    drop(a.node.doubt());
    a.core.send_parcel(&mut parcel, 0, a.core.view_seq()).await;
    assert!(b.core.lookup("k").is_none());
}

/// It has the old value, and would not load.
#[tokio::test]
async fn a_last_owner_does_not_answer_a_refresh() {
    let (a, b) = departed().await;
    let link = b.node.topology().link(a.node.id).unwrap().clone();
    let clear = crate::net::wall_clock_ms();
    for generation in [0, clear] {
        let keyspace = crate::peer::wire::Named { generation, ..b.core.named() };
        let request = Request::Refresh { keyspace, key: "k", deadline: HOP_BUDGET };
        let answer = link.call(request, HOP_BUDGET * 5, |response| super::super::fetch::entry_in(response, "a")).await;
        assert!(matches!(answer, Ok(Err(Error::NotOwner { .. }))), "{answer:?}");
    }
    assert_eq!(a.core.generation(), clear, "it names the latest clear, like every question");
}

/// The log of writes is short, a hold may be long.
#[tokio::test]
async fn a_hold_is_told_to_the_next_owner_also_when_the_log_has_forgotten_its_delete() {
    let (a, b) = departed().await;
    let hash = a.core.hash("k");
    a.node.adopt(vec![peer("a", a.addr, PeerState::Ready, true)]);
    a.core.delete("k", DeleteOptions::new().hold(Duration::from_secs(60))).await.unwrap();
    let long_ago = a.node.clock.now().before(Duration::from_secs(60));
    a.core.changes.forget_all(long_ago, 0);
    let b_seen = peer("b", b.addr, PeerState::Ready, false);
    let before = a.node.adopt(vec![peer("a", a.addr, PeerState::Draining, true), b_seen]);
    a.keyspaces.follow(&before);
    let told = async {
        while b.core.holds.until(hash).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), told).await.unwrap();
}

#[tokio::test]
async fn a_keyspace_that_is_deleted_keeps_nothing_that_was_under_way() {
    let source = Counting::default();
    let a = puppet("a", &source).await;
    a.node.adopt(vec![peer("a", a.addr, PeerState::Ready, true)]);
    a.core.retire();
    let loaded = a.core.load(a.core.hash("k"), "k", Purpose::Own).await.unwrap();
    assert_eq!(loaded.entry.value, "value of k", "who asked before is answered");
    assert_eq!(a.core.stats().entries, 0);
}

#[tokio::test]
async fn a_node_that_has_stopped_takes_no_other_view() {
    let a = puppet("a", &Counting::default()).await;
    let me = vec![peer("a", a.addr, PeerState::Ready, true)];
    a.node.adopt(me.clone());
    a.node.stop.cancel();
    a.node.adopt(me);
    assert!(!a.node.topology().places(a.node.id));
}
