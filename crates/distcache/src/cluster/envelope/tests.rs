//! Datagrams between envelopes, honest and not.

use proptest::prelude::*;

use super::*;
use crate::trust::{ClusterSecret, KeyRing};

const NOW: u64 = 1_800_000_000_000;
const OURS: &str = "the secret of the shop";
const OTHER: &str = "the secret of others";

fn secret(secrets: &[&str]) -> ClusterSecret {
    let first = ClusterSecret::new(secrets[0]).unwrap();
    secrets[1..].iter().fold(first, |all, secret| all.accepting(secret).unwrap())
}

/// Of a cluster with these secrets; none: without.
fn envelope(cluster: &str, secrets: &[&str]) -> Envelope {
    let ring = (!secrets.is_empty()).then(|| KeyRing::new(&secret(secrets), cluster));
    Envelope::new(Arc::new(Gate { ring, ..Gate::default() }), cluster, 4)
}

fn sealed(by: &mut Envelope, packet: &[u8]) -> Vec<u8> {
    let mut datagram = b"left over".to_vec();
    by.seal(packet, NOW, &mut datagram);
    datagram
}

#[test]
fn only_the_same_cluster_and_version_open_it() {
    let datagram = sealed(&mut envelope("shop", &[]), b"hello");
    assert_eq!(envelope("shop", &[]).open(&datagram, NOW), Ok(&b"hello"[..]));
    assert_eq!(envelope("Shop", &[]).open(&datagram, NOW), Err(Refused::OtherCluster));
    let mut newer = datagram.clone();
    newer[MAGIC.len()] = VERSION + 1;
    assert_eq!(envelope("shop", &[]).open(&newer, NOW), Err(Refused::OtherVersion(VERSION + 1)));
    assert_eq!(envelope("shop", &[]).open(&datagram[..3], NOW), Err(Refused::Foreign));
}

#[test]
fn only_the_same_secret_opens_it() {
    let datagram = sealed(&mut envelope("shop", &[OURS]), b"hello");
    assert_eq!(datagram.len(), 5 + Envelope::OVERHEAD_BYTES);
    assert!(!datagram.windows(5).any(|window| window == b"hello"), "it is encrypted");
    assert_eq!(envelope("shop", &[OURS]).open(&datagram, NOW), Ok(&b"hello"[..]));
    assert_eq!(envelope("shop", &[OTHER]).open(&datagram, NOW), Err(Refused::OtherSecret));
    assert_eq!(envelope("shop", &[]).open(&datagram, NOW), Err(Refused::Sealed));
    let unsealed = sealed(&mut envelope("shop", &[]), b"hello");
    assert_eq!(envelope("shop", &[OURS]).open(&unsealed, NOW), Err(Refused::Unsealed));
}

#[test]
fn the_same_secret_does_not_mix_two_clusters_even_when_the_name_in_the_header_is_forged() {
    let mut datagram = sealed(&mut envelope("bank", &[OURS]), b"hello");
    let mut shop = envelope("shop", &[OURS]);
    assert_eq!(shop.open(&datagram, NOW), Err(Refused::OtherCluster));
    datagram[..HEADER_BYTES].copy_from_slice(&shop.header);
    assert_eq!(shop.open(&datagram, NOW), Err(Refused::OtherSecret));
}

#[test]
fn nothing_is_opened_twice() {
    let (mut here, mut there) = (envelope("shop", &[OURS]), envelope("shop", &[OURS]));
    let recorded: Vec<_> = (0..200u8).map(|n| sealed(&mut there, &[n])).collect();
    for at in [0, 2, 1, 199, 150] {
        assert_eq!(here.open(&recorded[at], NOW), Ok(&[at as u8][..]), "in any order");
    }
    for at in [0, 2, 1, 199, 150, 71] {
        assert_eq!(here.open(&recorded[at], NOW), Err(Refused::Replayed), "{at}: seen, or too old to tell");
    }
}

#[test]
fn what_was_recorded_before_this_node_started_is_too_old() {
    let datagram = sealed(&mut envelope("shop", &[OURS]), b"hello");
    let tolerance = CLOCK_TOLERANCE.as_millis() as u64;
    for off in [NOW + tolerance, NOW - tolerance] {
        assert!(envelope("shop", &[OURS]).open(&datagram, off).is_ok());
    }
    let late = envelope("shop", &[OURS]).open(&datagram, NOW + tolerance + 1_000).unwrap_err();
    assert_eq!(late, Refused::Clock(CLOCK_TOLERANCE + Duration::from_secs(1)));
    assert!(envelope("shop", &[OURS]).open(&datagram, NOW - tolerance - 1).is_err());
}

#[test]
fn a_secret_is_changed_while_everybody_goes_on_talking() {
    let mut nodes = [envelope("shop", &[OURS]), envelope("shop", &[OURS])];
    let steps: [&[&str]; 3] = [&[OURS, OTHER], &[OTHER, OURS], &[OTHER]];
    let old = sealed(&mut nodes[0], b"old");
    for secrets in steps {
        for changing in 0..2 {
            nodes[changing].gate.ring.as_ref().unwrap().replace(&secret(secrets));
            for speaking in 0..2 {
                let datagram = sealed(&mut nodes[speaking], b"hello");
                assert_eq!(nodes[1 - speaking].open(&datagram, NOW), Ok(&b"hello"[..]), "{secrets:?}");
            }
        }
    }
    assert_eq!(nodes[1].open(&old, NOW), Err(Refused::OtherSecret), "the old one is dropped");
}

#[test]
fn senders_are_remembered_within_a_bound_and_the_silent_forgotten_first() {
    let mut here = envelope("shop", &[OURS]);
    let first = sealed(&mut envelope("shop", &[OURS]), b"first");
    here.open(&first, NOW).unwrap();
    for n in 0..100 {
        let datagram = sealed(&mut envelope("shop", &[OURS]), b"hello");
        here.open(&datagram, NOW + n).unwrap();
        assert_eq!(here.open(&datagram, NOW + n), Err(Refused::Replayed));
        assert!(here.senders.len() <= 4);
    }
}

proptest! {
    #[test]
    fn whatever_was_sealed_opens_again(packet: Vec<u8>, keeps_secret: bool) {
        let secrets: &[&str] = if keeps_secret { &[OURS] } else { &[] };
        let datagram = sealed(&mut envelope("shop", secrets), &packet);
        let mut here = envelope("shop", secrets);
        prop_assert_eq!(here.open(&datagram, NOW), Ok(&packet[..]));
    }

    #[test]
    fn garbage_damage_and_pieces_are_refused(garbage: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
        let mut here = envelope("shop", &[OURS]);
        prop_assert!(here.open(&garbage, NOW).is_err());
        let datagram = sealed(&mut envelope("shop", &[OURS]), b"hello");
        let at = at.index(datagram.len());
        prop_assert!(here.open(&datagram[..at], NOW).is_err());
        let mut damaged = datagram.clone();
        damaged[at] ^= 1 << bit;
        prop_assert!(here.open(&damaged, NOW).is_err());
        prop_assert!(here.open(&datagram, NOW).is_ok(), "and nothing of it stays");
    }

    #[test]
    fn a_window_takes_each_number_once(mut numbers: Vec<u8>) {
        let mut window = Window::default();
        let mut seen = std::collections::HashSet::new();
        for number in numbers.drain(..).map(|number| u64::from(number) + 1) {
            if window.is_new(number) {
                prop_assert!(seen.insert(number));
                window.take(number);
            } else {
                prop_assert!(seen.contains(&number) || window.newest - number >= 128);
            }
        }
    }
}
