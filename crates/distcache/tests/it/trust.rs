//! Who is let in, and who is not: TLS, the cluster secret, and two clusters in one place.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use distcache::{ClusterSecret, Engine, EngineBuilder, Refusal, StartError, StaticDiscovery, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;
use crate::logbook;

mod words;

const SECRET: &str = "a secret that 3 nodes share";
const OTHER_SECRET: &str = "a secret that nobody shares";

fn secret(text: &str) -> ClusterSecret {
    ClusterSecret::new(text).unwrap()
}

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// The certificate of a node, and its key.
    fn issue(&self, node: &str) -> [String; 2] {
        self.issue_with(node, |_| {})
    }

    fn issue_with(&self, node: &str, change: impl FnOnce(&mut CertificateParams)) -> [String; 2] {
        let mut params = CertificateParams::new([node.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        [params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem()]
    }

    fn tls(&self, node: &str) -> Tls {
        let [cert, key] = self.issue(node);
        Tls::from_pem(self.0.pem().as_bytes(), cert.as_bytes(), key.as_bytes()).unwrap()
    }
}

async fn cluster_of(nodes: usize, builder: impl Fn(&str) -> EngineBuilder) -> Vec<Engine> {
    let names: Vec<String> = (0..nodes).map(|n| format!("n{n}")).collect();
    let starts = names.iter().map(|name| builder(name).start());
    let engines: Vec<_> = futures_util::future::join_all(starts).await.into_iter().map(Result::unwrap).collect();
    agree(&engines).await;
    engines
}

/// Every node reads a key of every other one.
async fn all_read_from_all(engines: &[Engine]) {
    for owner in 0..engines.len() {
        let key = key_of(engines, owner);
        for engine in engines {
            assert_eq!(engine.get(KEYSPACE, &key).await.unwrap(), value_of(&key));
        }
    }
}

fn count(engine: &Engine, reason: Refusal) -> u64 {
    engine.refusals().iter().find(|(one, _)| *one == reason).map_or(0, |(_, count)| *count)
}

async fn refuses(engine: &Engine, reason: Refusal) {
    eventually(&format!("a refusal for {reason}: {:?}", engine.refusals()), || count(engine, reason) > 0).await;
}

/// A node that was dropped gives its sockets back in its own time.
async fn until_free(addr: SocketAddr) {
    eventually("the address is free", || UdpSocket::bind(addr).is_ok() && std::net::TcpListener::bind(addr).is_ok())
        .await;
}

/// Reads all the time; ends with how often, when told.
fn steady_reads(engine: &Engine) -> impl Future<Output = u64> + use<> {
    let (engine, stop) = (engine.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let reads = tokio::spawn(async move {
        let mut reads = 0;
        while !stopped.load(SeqCst) {
            let key = format!("key-{}", reads % 100);
            assert_eq!(engine.get(KEYSPACE, &key).await.unwrap(), value_of(&key));
            reads += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        reads
    });
    async move {
        stop.store(true, SeqCst);
        reads.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_one_ca_with_one_secret_form_a_cluster_and_answer_each_other() {
    let (plan, ca) = (Plan::new(&Source::new()), Ca::new());
    let nodes = cluster_of(3, |name| plan.builder(name).tls(ca.tls(name)).cluster_secret(secret(SECRET))).await;
    all_read_from_all(&nodes).await;
    assert!(nodes.iter().all(|node| node.refusals().is_empty()), "nothing was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_secret_or_none_stays_outside_and_both_say_why() {
    logbook::open();
    let plan = Plan::new(&Source::new());
    let nodes = cluster_of(2, |name| plan.builder(name).cluster_secret(secret(SECRET))).await;
    let short = |builder: EngineBuilder| builder.join_timeout(Duration::from_millis(300)).start();
    let other = short(plan.builder("other-secret").cluster_secret(secret(OTHER_SECRET))).await.unwrap();
    let none = short(plan.builder("without-secret")).await.unwrap();
    for outsider in [&other, &none] {
        refuses(outsider, Refusal::Secret).await;
        assert_eq!(outsider.peers().len(), 1);
    }
    refuses(&nodes[0], Refusal::Secret).await;
    agree(&nodes).await;
    assert!(nodes.iter().all(|node| node.peers().len() == 2));
    logbook::warns(&["node \"other-secret\" knows another cluster secret than this one"]).await;
    logbook::warns(&["it refuses this node: a cluster secret is set here, none there"]).await;
    assert!(!logbook::text().contains(SECRET) && !logbook::text().contains(OTHER_SECRET), "and nobody tells it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_ca_or_without_tls_stays_outside() {
    logbook::open();
    let (plan, ca) = (Plan::new(&Source::new()), Ca::new());
    let nodes = cluster_of(2, |name| plan.builder(name).tls(ca.tls(name))).await;
    let short = |builder: EngineBuilder| builder.join_timeout(Duration::from_millis(300)).start();
    let other = short(plan.builder("other-ca").tls(Ca::new().tls("other-ca"))).await.unwrap();
    let plain = short(plan.builder("plain")).await.unwrap();
    refuses(&nodes[0], Refusal::Plaintext).await;
    refuses(&other, Refusal::Certificate).await;
    logbook::warns(&["tried without TLS, which is required"]).await;
    logbook::warns(&["the certificate is not signed by the cluster's CA"]).await;
    for outsider in [&other, &plain] {
        assert_eq!(outsider.peers().len(), 1);
    }
    all_read_from_all(&nodes).await;
    assert!(nodes.iter().all(|node| node.peers().len() == 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_names_another_node_is_found_out_at_the_start() {
    let (plan, ca) = (Plan::new(&Source::new()), Ca::new());
    let error = plan.builder("a").tls(ca.tls("b")).start().await.unwrap_err();
    assert!(matches!(error, StartError::Invalid { field: "tls", .. }));
    let text = error.to_string();
    assert!(text.contains("other nodes would refuse this one: the certificate is not valid for \"a\""), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_of_two_names_never_mix_though_they_share_seeds_secret_and_addresses() {
    logbook::open();
    let plan = Plan::new(&Source::new());
    let named = |name: &str, cluster: &str| plan.builder(name).cluster_name(cluster).cluster_secret(secret(SECRET));
    let mut shop = cluster_of(2, |name| named(name, "shop")).await;
    let bank = cluster_of(2, |name| named(name, "bank").join_timeout(Duration::from_millis(300))).await;
    refuses(&shop[0], Refusal::Cluster).await;
    logbook::warns(&["it refuses this node: this is cluster \"shop\", not \"bank\""]).await;
    // A node of the shop ends, and one of the bank takes over its address.
    let address = shop[1].me().gossip_addr;
    drop(shop.pop());
    until_free(address).await;
    let heir = named("heir", "bank").gossip_listen(address).start().await.unwrap();
    let mut bank = bank;
    bank.push(heir);
    agree(&bank).await;
    agree(&shop).await;
    assert_eq!(shop[0].peers().len(), 1);
    assert!(bank.iter().all(|node| node.peers().len() == 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_gossip_is_refused_when_it_is_repeated() {
    logbook::open();
    let plan = Plan::new(&Source::new());
    let nodes = cluster_of(2, |name| plan.builder(name).cluster_secret(secret(SECRET))).await;
    // Somebody whom discovery names, and who writes down what it is sent.
    let recorder = UdpSocket::bind("127.0.0.1:0").unwrap();
    recorder.set_read_timeout(Some(PATIENCE)).unwrap();
    let seeds = StaticDiscovery::new([recorder.local_addr().unwrap().to_string()]);
    let _talker = plan
        .builder("talker")
        .cluster_secret(secret(SECRET))
        .discovery(seeds)
        .join_timeout(Duration::from_millis(100))
        .start()
        .await
        .unwrap();
    let mut recorded = [0; 2048];
    let len = recorder.recv(&mut recorded).unwrap();
    for _ in 0..10 {
        recorder.send_to(&recorded[..len], nodes[0].me().gossip_addr).unwrap();
    }
    refuses(&nodes[0], Refusal::Replayed).await;
    logbook::warns(&["it was received before: somebody repeats what was recorded"]).await;
    assert_eq!(nodes[0].peers().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_datagrams_are_refused_and_nobody_is_lost_by_them() {
    logbook::open();
    let plan = Plan::new(&Source::new());
    let nodes = cluster_of(2, |name| plan.builder(name).cluster_secret(secret(SECRET))).await;
    // One that speaks the protocol of the same cluster, but does not know the secret: its member is an invention.
    let invented = plan.builder("invented").join_timeout(Duration::from_millis(300)).start().await.unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in 0..200u8 {
        stranger.send_to(&vec![len; len.into()], nodes[0].me().gossip_addr).unwrap();
    }
    refuses(&nodes[0], Refusal::Foreign).await;
    refuses(&nodes[0], Refusal::Secret).await;
    logbook::warns(&["it is not sealed: a cluster secret is set here, none there"]).await;
    assert_eq!((nodes[0].peers().len(), invented.peers().len()), (2, 1));
    all_read_from_all(&nodes).await;
}

/// In the bytes of the protocol: opcode 5, an id, the keyspace, its generation and no trace, one key.
fn invalidation(key: &str) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
    let id = 1u64.to_be_bytes();
    let generation = u64::MAX.to_be_bytes();
    let frame = [&[5], &id[..], &text(KEYSPACE), &generation, &[0], &1u32.to_be_bytes(), &text(key)].concat();
    [&(frame.len() as u32).to_be_bytes(), &frame[..]].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_by_a_stranger_is_never_heard() {
    logbook::open();
    let plan = Plan::new(&Source::new()).spec(|spec| spec.lease(PATIENCE * 2));
    let nodes = cluster_of(2, |name| plan.builder(name).cluster_secret(secret(SECRET))).await;
    let key = key_of(&nodes, 0);
    for reader in &nodes {
        reader.get(KEYSPACE, &key).await.unwrap();
        reader.get(KEYSPACE, &key).await.unwrap();
    }
    assert!(nodes[1].cached(KEYSPACE, &key).is_some(), "a hot copy");
    let mut stream = TcpStream::connect(nodes[1].me().peer_addr).await.unwrap();
    let from = stream.local_addr().unwrap().to_string();
    stream.write_all(&invalidation(&key)).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "the connection was closed without a word");
    refuses(&nodes[1], Refusal::Foreign).await;
    logbook::warns(&["a connection was refused", &from, "does not speak distcache's protocol"]).await;
    assert!(nodes[1].cached(KEYSPACE, &key).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_a_newer_protocol_is_refused_in_words() {
    logbook::open();
    let plan = Plan::new(&Source::new());
    let node = plan.start("n0").await;
    let mut newer = b"distcach".to_vec();
    newer.extend_from_slice(&[0, 41, 0, 42, 0, 3, 1, 2, 3]);
    let mut stream = TcpStream::connect(node.me().peer_addr).await.unwrap();
    stream.write_all(&newer).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("protocol 1 to 1 is spoken here, 41 to 42 there"));
    refuses(&node, Refusal::Version).await;
    logbook::warns(&["protocol 1 to 1 is spoken here, 41 to 42 there"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_is_changed_under_traffic_and_the_old_one_opens_nothing_afterwards() {
    let plan = Plan::new(&Source::new());
    let mut nodes = cluster_of(3, |name| plan.builder(name).cluster_secret(secret(SECRET))).await;
    let mut events = nodes[0].events();
    let reads = steady_reads(&nodes[0]);
    let steps = [
        secret(SECRET).accepting(OTHER_SECRET).unwrap(),
        secret(OTHER_SECRET).accepting(SECRET).unwrap(),
        secret(OTHER_SECRET),
    ];
    for step in &steps {
        for node in &nodes {
            node.rotate_cluster_secret(step).unwrap();
        }
        // Each node has to have heard the others under the new keys; a lost probe would be seen within this.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(reads.await > 0);
    nodes.push(plan.builder("n3").cluster_secret(secret(OTHER_SECRET)).start().await.unwrap());
    agree(&nodes).await;
    let late = plan.builder("late").cluster_secret(secret(SECRET)).join_timeout(Duration::from_millis(300));
    let late = late.start().await.unwrap();
    refuses(&late, Refusal::Secret).await;
    assert_eq!(late.peers().len(), 1);
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(10), events.next()).await {
        assert!(!matches!(event, distcache::Event::Left(_)), "nobody was lost: {event:?}");
    }
    let alone = Engine::builder().start().await.unwrap();
    assert!(alone.rotate_cluster_secret(&secret(SECRET)).is_err(), "there is none to change");
}

fn write_files(dir: &Path, ca: &Ca, node: &str) -> Tls {
    let path = |name: &str| dir.join(format!("{node}.{name}"));
    let [cert, key] = ca.issue(node);
    std::fs::write(path("ca"), ca.0.pem()).unwrap();
    // The key last: half of a renewal makes no sense, and must not be used.
    std::fs::write(path("cert"), cert).unwrap();
    std::fs::write(path("key"), key).unwrap();
    Tls::from_files(path("ca"), path("cert"), path("key")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_under_traffic_without_a_failed_read() {
    let (plan, ca, dir) = (Plan::new(&Source::new()), Ca::new(), tempfile::tempdir().unwrap());
    let tls: Vec<Tls> = (0..3).map(|n| write_files(dir.path(), &ca, &format!("n{n}"))).collect();
    let of = |name: &str| tls[name[1..].parse::<usize>().unwrap()].clone();
    let mut nodes = cluster_of(3, |name| plan.builder(name).tls(of(name))).await;
    let reads = steady_reads(&nodes[0]);
    for (n, tls) in tls.iter().enumerate() {
        write_files(dir.path(), &ca, &format!("n{n}"));
        assert!(tls.reload().unwrap());
    }
    let stats = || things(&nodes[0]).stats();
    eventually("owners are asked", || stats().fetches > 30).await;
    // A read whose connection has failed is answered too, by the source.
    assert_eq!(stats().fetch_failures, 0);
    nodes.push(plan.builder("n3").tls(ca.tls("n3")).start().await.unwrap());
    agree(&nodes).await;
    all_read_from_all(&nodes).await;
    assert!(reads.await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_looks_at_its_certificates_by_itself() {
    logbook::open();
    let (plan, ca, dir) = (Plan::new(&Source::new()), Ca::new(), tempfile::tempdir().unwrap());
    let tls = write_files(dir.path(), &ca, "renewed-by-itself");
    let _node = plan.builder("renewed-by-itself").tls(tls.clone()).start().await.unwrap();
    write_files(dir.path(), &ca, "renewed-by-itself");
    eventually("the engine has read the new files", || {
        logbook::text().contains("the certificates have changed; new connections use the new ones")
    })
    .await;
    assert!(!tls.reload().unwrap(), "nothing is left to read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_no_longer_a_nodes_own_is_not_taken_for_it() {
    let (plan, ca) = (Plan::new(&Source::new()), Ca::new());
    let mut nodes = cluster_of(2, |name| plan.builder(name).tls(ca.tls(name))).await;
    let address: SocketAddr = nodes[1].me().gossip_addr;
    drop(nodes.pop());
    until_free(address).await;
    let other = plan.builder("n9").tls(ca.tls("n9")).gossip_listen(address).start().await.unwrap();
    nodes.push(other);
    agree(&nodes).await;
    let names: Vec<_> = nodes[0].peers().into_iter().map(|peer| peer.name).collect();
    assert_eq!(names, ["n0", "n9"]);
    all_read_from_all(&nodes).await;
}
