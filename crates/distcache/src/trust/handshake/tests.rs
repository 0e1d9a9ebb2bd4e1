//! Two sides of a handshake over a pipe.

use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::trust::ClusterSecret;

fn hello(cluster: &str, node: &str) -> Hello {
    Hello::new(Topic::Requests, cluster, node, 1, 1 << 20)
}

fn ring(secrets: &[&str]) -> KeyRing {
    let first = ClusterSecret::new(secrets[0]).unwrap();
    KeyRing::new(&secrets[1..].iter().fold(first, |all, secret| all.accepting(secret).unwrap()), "shop")
}

type Outcome = Result<Met, HandshakeError>;

async fn meet(one: (&Hello, Option<&KeyRing>), two: (&Hello, Option<&KeyRing>)) -> (Outcome, Outcome) {
    let (mut here, mut there) = duplex(1 << 10);
    let party = |(me, ring)| Party { me, ring, binding: [0; 32], name_error: &|_| None };
    let (one, two) = (party(one), party(two));
    tokio::join!(
        async {
            let met = one.greet(&mut here).await;
            drop(here);
            met
        },
        two.receive_greeting(&mut there, &|| true)
    )
}

/// The reason of the side that was connected to, and what the other was told.
async fn refused(one: (&Hello, Option<&KeyRing>), two: (&Hello, Option<&KeyRing>)) -> (Refusal, String) {
    let (here, there) = meet(one, two).await;
    let (HandshakeError::TurnedAway(told), HandshakeError::Refused(reason, why)) =
        (here.unwrap_err(), there.unwrap_err())
    else {
        panic!("one refuses, the other is told")
    };
    assert_eq!(told, why);
    (reason, why)
}

#[tokio::test]
async fn two_of_a_kind_learn_who_the_other_is() {
    let (a, b) = (hello("shop", "a"), hello("shop", "b"));
    let (here, there) = meet((&a, None), (&b, None)).await;
    assert_eq!((&*here.unwrap().them.node, &*there.unwrap().them.node), ("b", "a"));
}

#[tokio::test]
async fn another_cluster_is_refused_and_both_sides_are_told_why() {
    let (reason, why) = refused((&hello("shop", "a"), None), (&hello("bank", "b"), None)).await;
    assert_eq!((reason, &*why), (Refusal::Cluster, "this is cluster \"bank\", not \"shop\""));
}

#[tokio::test]
async fn what_a_stranger_gives_as_a_reason_is_one_line_of_the_log_and_no_more() {
    let (a, (mut here, mut there)) = (hello("shop", "a"), duplex(8 << 10));
    let stranger = async {
        receive::<_, Hello>(&mut there).await.unwrap();
        let forged = format!("no\n2026-01-01 WARN \x1b[31mall is lost{}", "!".repeat(4_000));
        send(&mut there, &Verdict::<()>::Refused(forged)).await.unwrap();
    };
    let party = Party { me: &a, ring: None, binding: [0; 32], name_error: &|_| None };
    let (met, ()) = tokio::join!(party.greet(&mut here), stranger);
    let told = met.unwrap_err().to_string();
    assert!(told.starts_with("it refuses this node: no 2026-01-01 WARN  [31mall is lost!"), "{told}");
    assert!(told.len() < 400 && !told.contains(char::is_control), "{told}");
}

#[tokio::test]
async fn the_wrong_port_is_told_from_the_right_one() {
    let exchange = Hello::new(Topic::Exchange, "shop", "a", 1, 1 << 20);
    let (_, why) = refused((&hello("shop", "a"), None), (&exchange, None)).await;
    assert_eq!(why, "this is the gossip port, and something else was asked for");
}

#[tokio::test]
async fn a_newer_protocol_without_common_version_is_refused_though_nothing_else_of_it_is_understood() {
    let (mut here, mut there) = duplex(1 << 10);
    let mut newer = MAGIC.to_vec();
    newer.extend_from_slice(&[0, 7, 0, 9, 0, 200]);
    here.write_all(&newer).await.unwrap();
    let me = hello("shop", "b");
    let error = Party { me: &me, ring: None, binding: [0; 32], name_error: &|_| None }
        .receive_greeting(&mut there, &|| true)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "protocol 1 to 1 is spoken here, 7 to 9 there");
    assert_eq!(error.refusal(), Some(Refusal::Version));
    let told = accepted(receive::<_, Verdict<()>>(&mut here).await.unwrap()).unwrap_err();
    assert!(told.to_string().contains("7 to 9"), "{told}");
}

#[tokio::test]
async fn a_stranger_is_told_from_a_peer() {
    let (mut here, mut there) = duplex(64);
    here.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let me = hello("shop", "b");
    let error = Party { me: &me, ring: None, binding: [0; 32], name_error: &|_| None }
        .receive_greeting(&mut there, &|| true)
        .await
        .unwrap_err();
    assert!(matches!(error, HandshakeError::Foreign));
}

#[tokio::test]
async fn who_shares_the_secret_shares_ciphers_that_nobody_else_has() {
    let (a, b, ring) = (hello("shop", "a"), hello("shop", "b"), ring(&["the secret of the shop"]));
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let (here, there) = meet((&a, Some(&ring)), (&b, Some(&ring))).await;
        let (here, there) = (here.unwrap().session.unwrap(), there.unwrap().session.unwrap());
        let mut sealed = b"hello".to_vec();
        here.sending.seal(0, b"", &mut sealed, 0);
        assert!(there.sending.open(0, b"", &mut sealed.clone()).is_none(), "each direction has its own");
        assert_eq!(there.receiving.open(0, b"", &mut sealed.clone()).unwrap(), b"hello");
        sessions.push((there, sealed));
    }
    assert!(sessions[1].0.receiving.open(0, b"", &mut sessions[0].1.clone()).is_none(), "each connection has its own");
}

#[tokio::test]
async fn another_secret_or_none_is_refused() {
    let (a, b) = (hello("shop", "a"), hello("shop", "b"));
    let (ours, other) = (ring(&["the secret of the shop"]), ring(&["the secret of others"]));
    let (reason, why) = refused((&a, Some(&other)), (&b, Some(&ours))).await;
    assert_eq!((reason, &*why), (Refusal::Secret, "node \"a\" knows another cluster secret than this one"));
    let (reason, why) = refused((&a, None), (&b, Some(&ours))).await;
    assert_eq!((reason, &*why), (Refusal::Secret, "a cluster secret is set here, none there"));
    let (reason, why) = refused((&a, Some(&ours)), (&b, None)).await;
    assert_eq!((reason, &*why), (Refusal::Secret, "no cluster secret is set here, one is there"));
}

#[tokio::test]
async fn during_a_rotation_old_and_new_are_both_good() {
    let (a, b) = (hello("shop", "a"), hello("shop", "b"));
    let (old, new) =
        (ring(&["the old secret, 1", "the new secret, 2"]), ring(&["the new secret, 2", "the old secret, 1"]));
    for (one, two) in [(&old, &new), (&new, &old), (&new, &new)] {
        let (here, there) = meet((&a, Some(one)), (&b, Some(two))).await;
        assert!(here.is_ok() && there.is_ok());
    }
}

#[tokio::test]
async fn an_impostor_that_repeats_what_it_hears_proves_nothing() {
    let (a, ring) = (hello("shop", "a"), ring(&["the secret of the shop"]));
    let (mut here, mut there) = duplex(1 << 10);
    let impostor = async {
        let theirs: Hello = receive(&mut there).await.unwrap();
        send(&mut there, &Verdict::Accepted(&theirs)).await.unwrap();
        let proof: Proof = receive(&mut there).await.unwrap();
        send(&mut there, &Verdict::Accepted(proof.proof)).await.unwrap();
    };
    let party = Party { me: &a, ring: Some(&ring), binding: [0; 32], name_error: &|_| None };
    let (met, ()) = tokio::join!(party.greet(&mut here), impostor);
    assert_eq!(met.unwrap_err().refusal(), Some(Refusal::Secret));
}

#[tokio::test]
async fn a_proof_made_in_another_tls_session_is_no_proof() {
    let (a, b, ring) = (hello("shop", "a"), hello("shop", "b"), ring(&["the secret of the shop"]));
    let (mut here, mut there): (DuplexStream, DuplexStream) = duplex(1 << 10);
    let connected = Party { me: &a, ring: Some(&ring), binding: [1; 32], name_error: &|_| None };
    let answering = Party { me: &b, ring: Some(&ring), binding: [2; 32], name_error: &|_| None };
    let (_, there) = tokio::join!(connected.greet(&mut here), answering.receive_greeting(&mut there, &|| true));
    assert_eq!(there.unwrap_err().refusal(), Some(Refusal::Secret));
}

proptest! {
    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
        let _ = decode::<Hello>(&bytes);
        let _ = decode::<Verdict<Hello>>(&bytes);
        let _ = decode::<Proof>(&bytes);
    }
}
