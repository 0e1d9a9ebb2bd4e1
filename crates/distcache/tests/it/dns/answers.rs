//! One question at a time: what name servers may answer, or not, and what comes of it.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use distcache::{Discovery, DnsDiscovery, IpFamily};
use tokio::net::UdpSocket;

use super::dnsmasq::{Dnsmasq, ZONE};
use super::pretender::{A, Asked, Pretender, SRV, TRUNCATED, address, asked_name, name, service};
use super::{answered, nodes_name, service_name};
use crate::harness::*;

/// Many A records do not fit into a datagram.
const MANY: u16 = 300;
const SERVER_FAILURE: u16 = 2;
/// Messages of [`garbage`].
const GARBAGE_KINDS: usize = 7;

fn at(server: SocketAddr) -> DnsDiscovery {
    DnsDiscovery::new(nodes_name(), 7).name_server(server).timeout(Duration::from_secs(10))
}

async fn problem(provider: &DnsDiscovery) -> String {
    let error = provider.discover().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    error.to_string()
}

/// The address that right answers have here.
fn right() -> SocketAddr {
    (Ipv4Addr::new(127, 1, 2, 3), 7).into()
}

/// The right answer to every question for an address.
fn answers_rightly(asked: &Asked) -> Vec<u8> {
    let answers = [address(asked_name(), Ipv4Addr::new(127, 1, 2, 3))];
    asked.answered(0, if asked.record() == A { &answers } else { &[] }, &[])
}

#[tokio::test]
async fn an_answer_that_does_not_fit_into_a_datagram_comes_over_tcp_whole() {
    let server = Dnsmasq::start().await;
    let ips = (0..MANY).map(|n| Ipv4Addr::from(0x0A00_0000 + u32::from(n)));
    server.set_hosts(ips.clone().map(|ip| (ip.into(), nodes_name())));
    let mut expected: Vec<SocketAddr> = ips.map(|ip| (ip, 7).into()).collect();
    expected.sort();
    answered(&at(server.addr), "all of them", |answer| {
        let mut found = answer.as_ref().cloned().unwrap_or_default();
        found.sort();
        found == expected
    })
    .await;
}

#[tokio::test]
async fn an_answer_counts_from_the_next_question_on_however_long_it_may_be_kept() {
    let server = Dnsmasq::start().await;
    let provider = at(server.addr);
    for n in 1..=3 {
        let ip = IpAddr::from([127, 0, 0, n]);
        server.set_hosts([(ip, nodes_name())]);
        let is_new = |answer: &Result<Vec<_>, _>| answer.as_ref().is_ok_and(|found| *found == [SocketAddr::new(ip, 7)]);
        answered(&provider, "the new address alone", is_new).await;
    }
}

#[tokio::test]
async fn a_silent_name_server_costs_its_share_of_the_time_and_the_next_is_asked() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
    let silent_addr = silent.local_addr().unwrap();
    let alone = at(silent_addr).timeout(Duration::from_millis(300));
    let begun = Instant::now();
    assert_eq!(
        problem(&alone).await,
        format!(
            "discovery is unavailable: \"{}\": no answer within 300ms: {silent_addr} does not answer",
            nodes_name()
        )
    );
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());

    let talks = Pretender::start(|asked| vec![answers_rightly(asked)]).await;
    let found = at(silent_addr).timeout(Duration::from_secs(4)).name_server(talks.addr).discover().await.unwrap();
    assert_eq!(found, [right()]);
}

#[tokio::test]
async fn a_name_server_that_refuses_or_fails_is_named_and_the_next_is_asked() {
    // dnsmasq refuses what is not in its zone, since it knows nobody to ask.
    let refuses = Dnsmasq::start().await;
    let fails = Pretender::start(|asked| vec![asked.answered(SERVER_FAILURE, &[], &[])]).await;
    let provider = DnsDiscovery::new("nodes.elsewhere.test", 7);
    let provider = provider.name_server(refuses.addr).name_server(fails.addr).timeout(Duration::from_secs(9));
    let (refuses_addr, fails_addr) = (refuses.addr, fails.addr);
    let problem = problem(&provider).await;
    let expected = format!("{refuses_addr} says \"Query Refused\", {fails_addr} says \"Server Failure\"");
    assert!(problem.contains(&expected), "{problem}");

    let knows = Pretender::start(|asked| vec![answers_rightly(asked)]).await;
    assert_eq!(provider.name_server(knows.addr).discover().await.unwrap(), [right()]);
}

#[tokio::test]
async fn a_name_server_that_has_spoken_is_believed() {
    let server = Dnsmasq::start().await;
    let other = Pretender::start(|asked| vec![answers_rightly(asked)]).await;
    let provider = at(server.addr).name_server(other.addr);
    assert!(problem(&provider).await.contains("there is no such name yet"));
    server.set_hosts([(IpAddr::from([127, 0, 0, 1]), nodes_name())]);
    answered(&provider, "the name is there", Result::is_ok).await;
    let no_service = problem(&DnsDiscovery::srv(nodes_name()).name_server(server.addr)).await;
    assert!(no_service.contains("has no SRV record yet"), "{no_service}");
    assert_eq!(other.asked(), 0);
}

/// Bytes that differ from run to run.
fn noise(len: usize) -> Vec<u8> {
    let seed = RandomState::new();
    (0..len).map(|n| seed.hash_one(n) as u8).collect()
}

/// Messages that are wrong in all the ways that came to mind.
fn garbage(asked: &Asked) -> [Vec<u8>; GARBAGE_KINDS] {
    let mut record = address(asked_name(), Ipv4Addr::BROADCAST);
    record.2.truncate(3);
    [
        noise(1),
        noise(12),
        noise(500),
        // Counts that nothing stands behind.
        asked.followed_by(0, [u16::MAX; 3], &[]),
        asked.followed_by(0, [9, 0, 0], &noise(300)),
        // A name that points at itself.
        asked.followed_by(0, [1, 0, 0], &[0xC0, 0x20, 0xC0, 0x20, 0xC0, 0x20, 0xC0, 0x20]),
        // An IPv4 address of three bytes.
        asked.answered(0, &[record], &[]),
    ]
}

#[tokio::test]
async fn garbage_is_no_answer_and_harms_nobody() {
    for kind in 0..GARBAGE_KINDS {
        let babbles = Pretender::start(move |asked| vec![garbage(asked)[kind].clone()]).await;
        let provider = at(babbles.addr).timeout(Duration::from_millis(500));
        let error = problem(&provider).await;
        assert!(error.contains("no answer") || error.contains("has no"), "{kind}: {error}");

        let knows = Pretender::start(|asked| vec![answers_rightly(asked)]).await;
        let both = provider.timeout(Duration::from_secs(2)).name_server(knows.addr).discover().await;
        assert_eq!(both.unwrap(), [right()], "{kind}");
    }
    // All of it before the answer: what cannot be the answer is passed over.
    let strangers = Pretender::start(|asked| vec![noise(1), noise(12), noise(500), answers_rightly(asked)]).await;
    assert_eq!(at(strangers.addr).discover().await.unwrap(), [right()]);
}

#[tokio::test]
async fn a_cut_off_answer_is_no_answer_where_tcp_does_not_help() {
    let cut = Pretender::start(|asked| vec![asked.answered(TRUNCATED, &[], &[])]).await;
    let error = problem(&at(cut.addr).timeout(Duration::from_secs(2))).await;
    assert!(error.contains(&format!("{} has more to say than it can send", cut.addr)), "{error}");
}

#[tokio::test]
async fn a_family_that_is_never_told_does_not_hide_the_other() {
    let says = |asked: &Asked| match asked.record() {
        A => vec![answers_rightly(asked)],
        SRV => vec![asked.answered(0, &[service("one.test", 7)], &[])],
        _ => vec![],
    };
    let half = Pretender::start(says).await;
    let short = Duration::from_secs(1);
    assert_eq!(at(half.addr).timeout(short).discover().await.unwrap(), [right()]);
    let services = DnsDiscovery::srv(service_name()).name_server(half.addr).timeout(short);
    assert_eq!(services.discover().await.unwrap(), [right()]);
}

#[tokio::test]
async fn targets_whose_addresses_come_along_are_not_asked_for() {
    let says = |asked: &Asked| {
        let targets = [service("one.test", 1), service("two.test", 2), service("", 3)];
        let along = [address(name("one.test"), Ipv4Addr::new(127, 0, 0, 1))];
        match asked.record() {
            SRV => vec![asked.answered(0, &targets, &along)],
            _ => vec![answers_rightly(asked)],
        }
    };
    let server = Pretender::start(says).await;
    let provider = DnsDiscovery::srv(service_name()).name_server(server.addr).ip_family(IpFamily::Ipv4);
    let mut found = provider.discover().await.unwrap();
    found.sort();
    assert_eq!(found, ["127.0.0.1:1".parse().unwrap(), SocketAddr::new(right().ip(), 2)]);
    assert_eq!(server.asked(), 2, "one question for the service, one for the target without an address");
}

#[tokio::test]
async fn a_target_that_does_not_resolve_is_passed_over_while_others_do() {
    let server = Dnsmasq::start().await;
    let name = service_name();
    server.set_records(&format!("srv-host={name},gone.{ZONE},1\nsrv-host={name},gone.elsewhere.test,2\n")).await;
    let provider = DnsDiscovery::srv(&name).name_server(server.addr);
    let error = problem(&provider).await;
    assert!(error.contains("knows no target: says \"Query Refused\""), "{error}");
    server.set_records(&format!("srv-host={name},gone.{ZONE},1\n")).await;
    let error = problem(&provider).await;
    assert!(error.contains("none of its 1 targets has an IP address yet"), "{error}");
    server.set_hosts([(IpAddr::from([127, 0, 0, 1]), format!("here.{ZONE}"))]);
    server.set_records(&format!("srv-host={name},gone.elsewhere.test,2\nsrv-host={name},here.{ZONE},3\n")).await;
    assert_eq!(provider.discover().await.unwrap(), ["127.0.0.1:3".parse().unwrap()]);
}

#[tokio::test]
async fn an_answer_of_thousands_of_targets_costs_a_bounded_number_of_questions() {
    let says = |asked: &Asked| match (asked.record(), asked.is_tcp) {
        (SRV, false) => vec![asked.answered(TRUNCATED, &[], &[])],
        (SRV, true) => {
            let targets: Vec<_> = (0..2_000).map(|n| service(&format!("{n}.a"), 9)).collect();
            vec![asked.answered(0, &targets, &[])]
        }
        _ => vec![answers_rightly(asked)],
    };
    let server = Pretender::start(says).await;
    let provider = DnsDiscovery::srv(service_name()).name_server(server.addr).ip_family(IpFamily::Ipv4);
    let found = provider.timeout(PATIENCE).discover().await.unwrap();
    assert_eq!(found.len(), 512);
    assert!(server.asked() < 600, "{}", server.asked());
}

#[tokio::test]
async fn the_largest_answer_there_can_be_is_kept_within_bounds() {
    let says = |asked: &Asked| match (asked.record(), asked.is_tcp) {
        (_, false) => vec![asked.answered(TRUNCATED, &[], &[])],
        (A, true) => {
            let ips = (0..4_000).map(|n| address(asked_name(), Ipv4Addr::from(0x0A00_0000 + n)));
            vec![asked.answered(0, &ips.collect::<Vec<_>>(), &[])]
        }
        _ => vec![asked.answered(0, &[], &[])],
    };
    let server = Pretender::start(says).await;
    assert_eq!(at(server.addr).discover().await.unwrap().len(), 4_000);
}

#[tokio::test]
async fn a_question_leaves_no_task_behind() {
    let server = Dnsmasq::start().await;
    let ips = (0..MANY).map(|n| IpAddr::from(Ipv4Addr::from(0x0A00_0000 + u32::from(n))));
    server.set_hosts(ips.map(|ip| (ip, nodes_name())));
    answered(&at(server.addr), "the name is there", Result::is_ok).await;
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..5 {
        at(server.addr).discover().await.unwrap();
        let late = at(silent.local_addr().unwrap()).timeout(Duration::from_millis(50));
        late.discover().await.unwrap_err();
        // Dropped half-way, as when the node leaves.
        let _ = tokio::time::timeout(Duration::from_millis(5), at(silent.local_addr().unwrap()).discover()).await;
    }
    eventually("the tasks have ended", || tasks() <= before).await;
}
