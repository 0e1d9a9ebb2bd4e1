//! What other nodes wrote, as the owner takes it in.

use super::messages::Calm;
use super::*;
use crate::partings::Life;
use crate::peer::wire::{Lost, Request, Told, ToldChange};
use crate::ring::SLOTS;

const TELLER: NodeId = NodeId(7);

/// A peer in one and the same life, however often it is made.
fn alive(name: &str, addr: SocketAddr, state: PeerState, is_self: bool) -> Peer {
    Peer { incarnation: 1, ..peer(name, addr, state, is_self) }
}

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
    a.core.serve_told(TELLER, 0, &told(&a, "k", Duration::from_secs(60), Duration::ZERO)).await.unwrap();
    assert!(a.core.lookup("k").is_some(), "loaded after the write");
    a.core.serve_told(TELLER, 0, &told(&a, "k", Duration::ZERO, Duration::ZERO)).await.unwrap();
    assert!(a.core.lookup("k").is_none());
    assert_eq!(a.core.stats().changes_heard, 2);
}

#[tokio::test]
async fn a_hold_that_is_told_holds_here() {
    let source = Counting::default();
    let a = owner(&source).await;
    a.core.serve_told(TELLER, 0, &told(&a, "k", Duration::ZERO, Duration::from_secs(60))).await.unwrap();
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
    let answer = a.core.serve_told(TELLER, 0, &told(&a, "k", Duration::ZERO, Duration::ZERO)).await;
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
    a.core.serve_told(TELLER, 0, &doubt(Duration::from_secs(60))).await.unwrap();
    assert_eq!(a.core.stats().entries, 100, "all are younger");
    a.core.serve_told(TELLER, 0, &doubt(Duration::ZERO)).await.unwrap();
    let left = a.core.stats().entries;
    assert!((30..70).contains(&left), "{left}");
}

#[tokio::test]
async fn what_is_dropped_in_doubt_is_dropped_by_those_who_hold_it() {
    let Calm([a, b, _c]) = Calm::new().await;
    for _ in 0..3 {
        get(&b, "k").await.unwrap();
    }
    assert!(b.core.lookup("k").is_some());
    let all = vec![0xFF; SLOTS / 8];
    let doubt = Told { changes: Vec::new(), lost: Some(Lost { age: Duration::ZERO, slots: &all }) };
    a.core.serve_told(TELLER, 0, &doubt).await.unwrap();
    assert!(b.core.lookup("k").is_none());
}

#[tokio::test]
async fn an_entry_is_not_taken_over_where_the_log_does_not_say_that_its_key_was_not_written() {
    use crate::peer::wire::HandedOver;
    let source = Counting::default();
    let a = owner(&source).await;
    let take = |key: &'static str| {
        let entry = HandedOver { key, value: b"old", age: Duration::from_secs(60), remaining: None };
        a.core.serve_hand_over(TELLER, 0, &[entry]).unwrap();
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
    let ask = || async { crate::heal::ask(&link, Vec::new(), Duration::from_secs(2)).await.unwrap() };
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

/// Who took its place has given leases that it knows nothing of.
#[tokio::test]
async fn what_is_written_in_a_doubt_and_for_a_lease_after_it_is_told_to_everybody() {
    let Calm([a, b, c]) = Calm::new().await;
    let told = async |key: &str| {
        a.core.put(key, Bytes::from_static(b"new"), PutOptions::new()).await.unwrap();
        [&b, &c].map(|puppet| puppet.core.stats().invalidations_received)
    };
    assert_eq!(told("before").await, [0, 0]);
    let doubt = a.node.doubt();
    assert_eq!(told("in").await, [1, 1]);
    drop(doubt);
    assert_eq!(told("after").await, [2, 2]);
    while a.node.was_in_doubt_within(super::super::serve::in_books(super::messages::LEASE)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(told("long after").await, [2, 2]);
}

/// What another was handed over, or asks for, by these two: the last owner, and the next one, which had lost sight of it.
#[tokio::test]
async fn nothing_is_taken_over_from_a_node_that_had_been_lost_sight_of() {
    use crate::peer::wire::HandedOver;
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    let (to_a, to_b) = (|state| alive("a", a.addr, state, false), |state| alive("b", b.addr, state, false));
    let me = |puppet: &str, addr, state| alive(puppet, addr, state, true);
    for is_parted in [false, true] {
        a.node.adopt(vec![me("a", a.addr, PeerState::Ready), to_b(PeerState::Draining)]);
        let keys = [format!("asked {is_parted}"), format!("handed {is_parted}")];
        get(&a, &keys[0]).await.unwrap();
        b.node.adopt(vec![to_a(PeerState::Ready), me("b", b.addr, PeerState::Draining)]);
        if is_parted {
            b.node.adopt(vec![me("b", b.addr, PeerState::Draining)]);
            b.node.adopt(vec![to_a(PeerState::Ready), me("b", b.addr, PeerState::Draining)]);
        }
        a.node.adopt(vec![me("a", a.addr, PeerState::Draining), to_b(PeerState::Ready)]);
        b.node.adopt(vec![to_a(PeerState::Draining), me("b", b.addr, PeerState::Ready)]);
        let origin = get(&b, &keys[0]).await.unwrap().origin;
        assert_eq!(origin, if is_parted { Origin::Loaded } else { Origin::Owned });
        let entry = HandedOver { key: &keys[1], value: b"old", age: Duration::from_secs(60), remaining: None };
        assert_eq!(b.core.serve_hand_over(NodeId::of("a"), 0, &[entry]).is_ok(), !is_parted);
        assert_eq!(b.core.lookup(&keys[1]).is_some(), !is_parted);
    }
}

#[tokio::test]
async fn what_a_node_had_before_a_doubt_is_not_passed_on_after_it() {
    let source = Counting::default();
    let (a, b) = (owner(&source).await, puppet("b", &source).await);
    get(&a, "k").await.unwrap();
    let to_b = peer("b", b.addr, PeerState::Ready, false);
    let doubt = a.node.doubt();
    a.node.adopt(vec![peer("a", a.addr, PeerState::Draining, true), to_b]);
    let has_it = || a.core.look_at_departed(a.core.hash("k"), "k").is_some();
    assert!(!has_it());
    drop(doubt);
    assert!(!has_it());
    a.node.adopt(vec![peer("a", a.addr, PeerState::Ready, true)]);
    get(&a, "k").await.unwrap();
    let to_b = peer("b", b.addr, PeerState::Ready, false);
    a.node.adopt(vec![peer("a", a.addr, PeerState::Draining, true), to_b]);
    assert!(has_it(), "what it has loaded since then it does");
}

/// It is cut off alone, meets one that has just been started, and hears later that it was missed.
#[tokio::test]
async fn who_took_over_from_a_node_that_had_been_missed_drops_it_when_that_one_hears_of_it() {
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    let me = |state| alive("a", a.addr, state, true);
    let (to_a, to_b) = (|state| alive("a", a.addr, state, false), |state| alive("b", b.addr, state, false));
    let lost = alive("c", "127.0.0.1:1".parse().unwrap(), PeerState::Joining, false);
    a.node.adopt(vec![me(PeerState::Ready), lost.clone()]);
    a.node.adopt(vec![me(PeerState::Ready)]);
    for key in ["k", "other"] {
        get(&a, key).await.unwrap();
    }
    b.node.adopt(vec![to_a(PeerState::Ready), alive("b", b.addr, PeerState::Draining, true)]);
    a.node.adopt(vec![me(PeerState::Draining), to_b(PeerState::Ready)]);
    b.node.adopt(vec![to_a(PeerState::Draining), alive("b", b.addr, PeerState::Ready, true)]);
    assert_eq!(get(&b, "k").await.unwrap().origin, Origin::Owned, "asked of the last owner");
    let _inquiry = crate::heal::heal(a.node.clone(), a.keyspaces.clone());
    let before = a.node.adopt(vec![me(PeerState::Draining), to_b(PeerState::Ready), lost]);
    a.keyspaces.tell_doubt(&before);
    let dropped = async {
        while b.core.lookup("k").is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), dropped).await.unwrap();
    assert_eq!(get(&b, "other").await.unwrap().origin, Origin::Loaded, "nor does it ask for more");
}

/// It ended with what it knew, and nothing more will come of it.
#[tokio::test]
async fn an_inquiry_does_not_wait_for_a_node_that_has_been_started_anew() {
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    let to_c = |incarnation, is_self| Peer {
        incarnation,
        ..peer("c", "127.0.0.1:1".parse().unwrap(), PeerState::Ready, is_self)
    };
    let c = puppet("c", &source).await;
    let anew = |is_self| Peer { peer_addr: c.addr, ..to_c(2, is_self) };
    let (a_seen, b_seen) = (alive("a", a.addr, PeerState::Ready, false), alive("b", b.addr, PeerState::Ready, false));
    let b_me = || alive("b", b.addr, PeerState::Ready, true);
    b.node.adopt(vec![a_seen.clone(), b_me(), to_c(1, false)]);
    b.node.adopt(vec![b_me()]);
    b.node.adopt(vec![a_seen.clone(), b_me(), anew(false)]);
    c.node.adopt(vec![a_seen, b_seen.clone(), anew(true)]);
    a.node.adopt(vec![alive("a", a.addr, PeerState::Ready, true), b_seen, anew(false)]);
    let key = (0..).map(|n| format!("k{n}")).find(|key| a.node.topology().owns(a.core.hash(key))).unwrap();
    a.core.put(&key, Bytes::from_static(b"v"), PutOptions::new()).await.unwrap();
    let inquiry = crate::heal::heal(a.node.clone(), a.keyspaces.clone());
    tokio::time::timeout(Duration::from_secs(3), inquiry).await.expect("long before its patience is over");
    assert!(a.core.lookup(&key).is_none(), "in doubt, and dropped");
}

/// It was started while the first of them was out of sight, and cannot know that it was.
#[tokio::test]
async fn who_drops_all_it_owns_makes_those_drop_what_they_own_who_began_later() {
    let source = Counting::default();
    let (a, b, c) = (puppet("a", &source).await, puppet("b", &source).await, puppet("c", &source).await);
    let ready = |name: &str, puppet: &Puppet, incarnation, is_self| Peer {
        incarnation,
        ..peer(name, puppet.addr, PeerState::Ready, is_self)
    };
    let (young, old) = (crate::net::wall_clock_ms(), 1);
    let view = |me: usize| {
        let names = [("a", &a, old), ("b", &b, young), ("c", &c, old)];
        names.into_iter().enumerate().map(|(n, (name, puppet, life))| ready(name, puppet, life, n == me)).collect()
    };
    for (me, puppet) in [&a, &b, &c].into_iter().enumerate() {
        puppet.node.adopt(view(me));
        for n in 0..30 {
            let key = format!("k{n}");
            if puppet.node.topology().owns(puppet.core.hash(&key)) {
                get(puppet, &key).await.unwrap();
            }
        }
    }
    let entries = |puppet: &Puppet| puppet.core.stats().entries;
    assert!(entries(&b) > 0 && entries(&c) > 0);
    a.node.partings.note(
        [(Life { id: NodeId(7), incarnation: 1 }, None)].into_iter(),
        0,
        a.node.clock.now().before(Duration::from_secs(60)),
    );
    a.core.doubt_all();
    let dropped = async {
        while entries(&b) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), dropped).await.unwrap();
    assert!(entries(&c) > 0, "it is in doubt itself, if there is any");
}

/// After a cut that membership does not remember nobody else says so.
#[tokio::test]
async fn who_is_back_and_does_not_ask_is_told_that_it_was_missed() {
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    let to_a = alive("a", a.addr, PeerState::Ready, false);
    let me = alive("b", b.addr, PeerState::Draining, true);
    a.node.adopt(vec![alive("a", a.addr, PeerState::Ready, true), alive("b", b.addr, PeerState::Draining, false)]);
    b.node.adopt(vec![to_a.clone(), me.clone()]);
    let link = b.node.topology().link(NodeId::of("a")).unwrap().clone();
    link.call_done(Request::Missed, Duration::from_secs(2)).await.unwrap();
    let believed = tokio::time::timeout(Duration::from_millis(300), a.node.until_missed()).await;
    believed.expect_err("it has nothing to tell");
    b.node.adopt(vec![me.clone()]);
    let lonely = b.node.adopt(vec![to_a, me]);
    assert!(crate::heal::is_untold(&b.node, NodeId::of("a")));
    crate::heal::remind(&b.node, &lonely);
    tokio::time::timeout(Duration::from_secs(5), a.node.until_missed()).await.unwrap();
    assert!(!crate::heal::is_untold(&b.node, NodeId::of("a")), "it has asked, and is not reminded again");
}

/// It was written long ago on the other side of a cut, and became known here while the next owner was out of sight.
#[tokio::test]
async fn who_was_out_of_sight_is_told_what_became_known_meanwhile_however_long_ago_it_was_written() {
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    let me = || alive("a", a.addr, PeerState::Ready, true);
    let to_b = || alive("b", b.addr, PeerState::Ready, false);
    a.node.adopt(vec![me(), to_b()]);
    let key = (0..).map(|n| format!("k{n}")).find(|key| !a.node.topology().owns(a.core.hash(key))).unwrap();
    b.node.adopt(vec![alive("a", a.addr, PeerState::Ready, false), alive("b", b.addr, PeerState::Ready, true)]);
    a.node.adopt(vec![me()]);
    a.core.serve_told(TELLER, 0, &told(&a, &key, Duration::from_secs(600), Duration::ZERO)).await.unwrap();
    let before = a.node.adopt(vec![me(), to_b()]);
    a.core.tell_next_owners(&before);
    let heard = async {
        while b.core.stats().changes_heard == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), heard).await.unwrap();
}

/// All who had missed this node have ended; one that was started among them has met a node that this one took for dead.
#[tokio::test]
async fn a_newcomer_that_has_met_who_was_taken_for_dead_makes_a_node_ask() {
    let source = Counting::default();
    for (dead, has_met) in [("d", false), ("c", true)] {
        let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
        let me = alive("a", a.addr, PeerState::Ready, true);
        a.node.adopt(vec![me.clone()]);
        let long_ago = a.node.clock.now().before(Duration::from_secs(60));
        a.node.partings.note([(Life { id: NodeId::of(dead), incarnation: 1 }, None)].into_iter(), 0, long_ago);
        let c = puppet("c", &source).await;
        let seen = [("a", a.addr), ("c", c.addr)].map(|(name, addr)| alive(name, addr, PeerState::Ready, false));
        b.node.adopt(seen.into_iter().chain([alive("b", b.addr, PeerState::Ready, true)]).collect());
        let to_c = b.node.topology().link(NodeId::of("c")).unwrap().clone();
        crate::heal::ask(&to_c, Vec::new(), Duration::from_secs(2)).await.unwrap();
        let before = a.node.adopt(vec![me, alive("b", b.addr, PeerState::Ready, false)]);
        let link = a.node.topology().link(NodeId::of("b")).unwrap().clone();
        let met = crate::heal::ask(&link, a.node.out_of_sight(), Duration::from_secs(2)).await.unwrap().met;
        assert_eq!(met.len(), usize::from(has_met));
        crate::heal::ask_newcomers(&a.node, &before);
        if has_met {
            tokio::time::timeout(Duration::from_secs(5), a.node.until_missed()).await.unwrap();
        }
    }
}

/// Whoever is out of sight may come back with what is older, and so may those who took it over there.
#[tokio::test]
async fn a_next_owner_is_told_all_that_was_written_since_somebody_is_out_of_sight() {
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    let a_seen = |state, is_self| alive("a", a.addr, state, is_self);
    let b_seen = |state, is_self| alive("b", b.addr, state, is_self);
    let ago = |seconds| a.node.clock.now().before(Duration::from_secs(seconds));
    for (is_parted, heard) in [(false, 0), (true, 1)] {
        a.node.adopt(vec![a_seen(PeerState::Ready, true), b_seen(PeerState::Draining, false)]);
        a.core.changes.note(a.core.hash("k"), ago(60), ago(60), a.core.view_seq());
        if is_parted {
            a.node.partings.note([(Life { id: NodeId(7), incarnation: 1 }, None)].into_iter(), 0, ago(90));
        }
        b.node.adopt(vec![a_seen(PeerState::Draining, false), b_seen(PeerState::Ready, true)]);
        let before = a.node.adopt(vec![a_seen(PeerState::Draining, true), b_seen(PeerState::Ready, false)]);
        a.core.tell_next_owners(&before);
        a.node.work.close();
        a.node.work.wait().await;
        a.node.work.reopen();
        assert_eq!(b.core.stats().changes_heard, heard);
    }
}

/// The owner knew of the hold, and is gone.
#[tokio::test]
async fn what_a_node_has_deleted_with_a_hold_it_does_not_keep_in_place_of_the_owner() {
    let source = Counting::default();
    let (a, b) = (puppet("a", &source).await, puppet("b", &source).await);
    a.node.adopt(vec![peer("a", a.addr, PeerState::Draining, true), peer("b", b.addr, PeerState::Ready, false)]);
    b.node.adopt(vec![peer("a", a.addr, PeerState::Draining, false), peer("b", b.addr, PeerState::Ready, true)]);
    a.core.delete("held", DeleteOptions::new().hold(Duration::from_secs(60))).await.unwrap();
    b.node.stop.cancel();
    for (key, is_kept) in [("held", false), ("other", true)] {
        let loaded_here = async { while get(&a, key).await.unwrap().origin != Origin::Fallback {} };
        tokio::time::timeout(Duration::from_secs(5), loaded_here).await.unwrap();
        assert_eq!(a.core.lookup(key).is_some(), is_kept, "{key}");
    }
}
