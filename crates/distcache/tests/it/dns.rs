//! `DnsDiscovery` over a real name server: the conformance suite, and nodes whose records change while they run.

mod answers;
mod dnsmasq;
mod pretender;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use distcache::{Discovery, DiscoveryError, DnsDiscovery, Engine, Event, IpFamily};
use distcache_conformance::{Ports, World};
use futures_util::FutureExt;

use crate::harness::*;
use dnsmasq::{Dnsmasq, ZONE};

/// A name server that is down costs a question all of it.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What the platform would keep up to date: who is there, and who else is said to be.
#[derive(Default)]
struct Listed {
    nodes: BTreeSet<SocketAddr>,
    also: Vec<SocketAddr>,
}

impl Listed {
    fn all(&self) -> Vec<SocketAddr> {
        self.nodes.iter().chain(&self.also).copied().collect()
    }
}

/// A and AAAA: every node has an IP of its own, all have one port.
struct Addresses {
    server: Dnsmasq,
    port: u16,
    listed: Mutex<Listed>,
}

impl Addresses {
    async fn start() -> Self {
        let port = distcache_conformance::free_address().port();
        Self { server: Dnsmasq::start().await, port, listed: Mutex::default() }
    }

    fn change(&self, change: impl FnOnce(&mut Listed)) {
        let mut listed = self.listed.lock().unwrap();
        change(&mut listed);
        self.server.set_hosts(listed.all().into_iter().map(|addr| (addr.ip(), nodes_name())));
    }
}

impl World for Addresses {
    type Provider = DnsDiscovery;

    fn address(&self, n: usize) -> SocketAddr {
        (Ipv4Addr::new(127, 0, 0, n as u8 + 1), self.port).into()
    }

    fn provider(&self, _: SocketAddr) -> DnsDiscovery {
        DnsDiscovery::new(nodes_name(), self.port).name_server(self.server.addr).timeout(TIMEOUT)
    }

    async fn appeared(&self, me: SocketAddr) {
        self.change(|listed| listed.nodes.extend([me]));
    }

    async fn vanished(&self, me: SocketAddr) {
        self.change(|listed| listed.nodes.retain(|addr| *addr != me));
    }

    async fn stop_service(&self) {
        self.server.shut_down();
    }

    async fn start_service(&self) {
        self.server.bring_up().await;
    }

    async fn mislead(&self, also: Vec<SocketAddr>) {
        self.change(|listed| listed.also = also);
    }
}

/// SRV: every node has a port of its own. The address of every other target comes along with the answer.
struct Services {
    server: Dnsmasq,
    ports: Ports,
    listed: Mutex<Listed>,
}

impl Services {
    async fn change(&self, change: impl FnOnce(&mut Listed)) {
        let all = {
            let mut listed = self.listed.lock().unwrap();
            change(&mut listed);
            listed.all()
        };
        let (along, apart): (Vec<_>, Vec<_>) = all.iter().partition(|addr| addr.port() % 2 == 0);
        let mut lines = String::new();
        for (n, addr) in all.iter().enumerate() {
            writeln!(lines, "srv-host={},{},{},{n},{}", service_name(), target(addr), addr.port(), 100 - n).unwrap();
        }
        for addr in apart {
            writeln!(lines, "address=/{}/{}", target(addr), addr.ip()).unwrap();
        }
        self.server.set_hosts(along.into_iter().map(|addr| (addr.ip(), target(addr))));
        self.server.set_records(&lines).await;
    }
}

impl World for Services {
    type Provider = DnsDiscovery;

    fn address(&self, n: usize) -> SocketAddr {
        self.ports.address(n)
    }

    fn provider(&self, _: SocketAddr) -> DnsDiscovery {
        DnsDiscovery::srv(service_name()).name_server(self.server.addr).timeout(TIMEOUT)
    }

    async fn appeared(&self, me: SocketAddr) {
        self.change(|listed| listed.nodes.extend([me])).await;
    }

    async fn vanished(&self, me: SocketAddr) {
        self.change(|listed| listed.nodes.retain(|addr| *addr != me)).await;
    }

    async fn stop_service(&self) {
        self.server.shut_down();
    }

    async fn start_service(&self) {
        self.server.bring_up().await;
    }

    async fn mislead(&self, also: Vec<SocketAddr>) {
        self.change(|listed| listed.also = also).await;
    }
}

fn nodes_name() -> String {
    format!("nodes.{ZONE}")
}

fn service_name() -> String {
    format!("_distcache._udp.{ZONE}")
}

fn target(addr: &SocketAddr) -> String {
    let ip = addr.ip().to_string().replace(['.', ':'], "-");
    format!("n{ip}-{}.{ZONE}", addr.port())
}

async fn addresses() -> impl World {
    Addresses::start().await
}

async fn services() -> impl World {
    Services { server: Dnsmasq::start().await, ports: Ports::default(), listed: Mutex::default() }
}

mod by_address {
    distcache_conformance::suite!(super::addresses);
}

mod by_service {
    distcache_conformance::suite!(super::services);
}

/// A node at this address that asks this provider.
async fn node(plan: &Plan, addr: SocketAddr, provider: impl Discovery) -> Engine {
    let builder = plan.builder(&addr.to_string()).gossip_listen(addr).peer_listen((addr.ip(), 0).into());
    let builder = builder.join_timeout(Duration::from_millis(500)).reseed_interval(Duration::from_millis(200));
    builder.discovery(provider).start().await.unwrap()
}

/// Waits until a question is answered like this.
async fn answered(
    provider: &DnsDiscovery,
    what: &str,
    holds: impl Fn(&Result<Vec<SocketAddr>, DiscoveryError>) -> bool,
) {
    let asking = async {
        loop {
            let answer = provider.discover().await;
            if holds(&answer) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, asking).await.is_ok(), "not within {PATIENCE:?}: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_start_before_their_name_exists_and_merge_when_it_does() {
    let world = Addresses::start().await;
    let (plan, addrs) = (Plan::new(&Source::new()), [world.address(0), world.address(1)]);
    let error = world.provider(addrs[0]).discover().await.unwrap_err();
    assert!(error.is_retryable());
    let server = world.server.addr;
    assert_eq!(
        error.to_string(),
        format!("discovery is unavailable: \"{}\": there is no such name yet, says {server}", nodes_name())
    );
    let nodes =
        [node(&plan, addrs[0], world.provider(addrs[0])).await, node(&plan, addrs[1], world.provider(addrs[1])).await];
    for node in &nodes {
        assert!(node.is_ready());
        assert_eq!(node.peers().len(), 1);
    }
    world.change(|listed| listed.nodes.extend(addrs));
    agree(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_record_is_removed_stays_a_member_and_nobody_is_sent_to_it() {
    let world = Addresses::start().await;
    let plan = Plan::new(&Source::new());
    let addrs: Vec<_> = (0..3).map(|n| world.address(n)).collect();
    world.change(|listed| listed.nodes.extend(addrs.clone()));
    let mut nodes = Vec::new();
    for addr in &addrs {
        nodes.push(node(&plan, *addr, world.provider(*addr)).await);
    }
    agree(&nodes).await;
    let mut events: Vec<_> = nodes.iter().map(Engine::events).collect();
    for events in &mut events {
        // The other two, known already.
        for _ in 0..2 {
            assert!(matches!(events.next().await, Some(Event::Joined(_))));
        }
    }

    world.change(|listed| listed.nodes.retain(|addr| *addr != addrs[2]));
    let asker = world.provider(addrs[0]);
    answered(&asker, "the record is gone", |answer| answer.as_ref().is_ok_and(|found| found.len() == 2)).await;
    for _ in 0..5 {
        assert!(!asker.discover().await.unwrap().contains(&addrs[2]));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for events in &mut events {
        while let Some(event) = events.next().now_or_never() {
            assert!(matches!(event, Some(Event::Updated(_))), "{event:?}");
        }
    }
    agree(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_family_is_chosen_and_nodes_meet_over_ipv6() {
    let server = Dnsmasq::start().await;
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    let ports = [distcache_conformance::free_address().port(), distcache_conformance::free_address().port()];
    let both = format!("both.{ZONE}");
    let hosts = [(v4, both.clone()), (v6, both.clone()), (v4, format!("four.{ZONE}"))];
    server.set_hosts(hosts);
    let name = service_name();
    server.set_records(&ports.map(|port| format!("srv-host={name},{both},{port}\n")).concat()).await;

    for (family, ips) in [(IpFamily::Both, vec![v4, v6]), (IpFamily::Ipv4, vec![v4]), (IpFamily::Ipv6, vec![v6])] {
        let mut found =
            DnsDiscovery::new(&both, 7).name_server(server.addr).ip_family(family).discover().await.unwrap();
        found.sort();
        assert_eq!(found, ips.iter().map(|ip| SocketAddr::new(*ip, 7)).collect::<Vec<_>>(), "{family:?}");
        let mut found = DnsDiscovery::srv(&name).name_server(server.addr).ip_family(family).discover().await.unwrap();
        found.sort();
        let mut expected: Vec<_> = ips.iter().flat_map(|ip| ports.map(|port| SocketAddr::new(*ip, port))).collect();
        expected.sort();
        assert_eq!(found, expected, "{family:?}");
    }
    let only_four = DnsDiscovery::new(format!("four.{ZONE}"), 7).name_server(server.addr).ip_family(IpFamily::Ipv6);
    let error = only_four.discover().await.unwrap_err();
    assert!(error.to_string().contains("has no AAAA record yet"), "{error}");

    let plan = Plan::new(&Source::new());
    let provider = || DnsDiscovery::srv(&name).name_server(server.addr).ip_family(IpFamily::Ipv6);
    let nodes =
        [node(&plan, (v6, ports[0]).into(), provider()).await, node(&plan, (v6, ports[1]).into(), provider()).await];
    agree(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_systems_resolver_is_asked_when_no_name_server_is_named() {
    let addr = distcache_conformance::free_address();
    let plan = Plan::new(&Source::new());
    let provider = DnsDiscovery::new("localhost", addr.port()).ip_family(IpFamily::Ipv4);
    assert_eq!(provider.discover().await.unwrap(), [addr]);
    // Finds itself and nobody else.
    let node = node(&plan, addr, provider).await;
    assert!(node.is_ready());
    // Without anybody being asked, since the name is reserved for not existing.
    let error = DnsDiscovery::srv("_distcache._udp.invalid").discover().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
}
