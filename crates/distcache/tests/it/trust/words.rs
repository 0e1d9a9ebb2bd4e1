//! Whoever is refused has a line in the log that says what to mend, or whom to look at.

use foca::{Header, Message};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::*;
use crate::attacks::stranger::{Topic, hello};

/// Connects to the node `n0` from an address of its own, shows this certificate and says hello; until it is shown out.
/// The address, by which the log can be told from that of other tests.
async fn knock(n: u8, addr: SocketAddr, ca: &Ca, shown: Option<[String; 2]>) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.0.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some([cert, key]) => {
            let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![cert], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    };
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, n], 0).into()).unwrap();
    let stream = socket.connect(addr).await.unwrap();
    let from = stream.local_addr().unwrap();
    let name = ServerName::try_from("n0").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    // With TLS 1.3 the node's verdict comes after the client's side is done.
    let _ = stream.write_all(&hello(Topic::Requests)).await;
    let shown_out = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    assert!(shown_out.is_ok(), "the node keeps talking to a stranger");
    from.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_wrong_certificate_is_refused_with_a_line_of_its_own() {
    logbook::open();
    let (plan, ca, other) = (Plan::new(&Source::new()), Ca::new(), Ca::new());
    let node = plan.builder("n0").tls(ca.tls("n0")).start().await.unwrap();
    let expired = ca.issue_with("mallory", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let for_clients =
        ca.issue_with("mallory", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let cases = [
        (Some(expired), "the certificate has expired"),
        (Some(other.issue("mallory")), "the certificate is not signed by the cluster's CA"),
        (Some(for_clients), "the certificate is not made for a node: nodes need server and client authentication"),
        (None, "no certificate was shown, and one is required here"),
        (Some(ca.issue("alice")), "the certificate is not valid for \"mallory\""),
    ];
    for (n, (shown, line)) in cases.into_iter().enumerate() {
        let from = knock(10 + n as u8, node.me().peer_addr, &ca, shown).await;
        logbook::warns(&["a connection was refused", &from, line]).await;
    }
    assert_eq!((count(&node, Refusal::Certificate), count(&node, Refusal::Name)), (4, 1));
}

/// A datagram of the cluster by which `claimed` says hello, as anybody can write it where no secret is set.
fn announcement(claimed: SocketAddr, epoch: u64, to: SocketAddr) -> Vec<u8> {
    let identity = |addr: SocketAddr, epoch: u64| (addr, epoch, 0u32);
    let (src, dst) = (identity(claimed, epoch), identity(to, 0));
    let header = postcard::to_stdvec(&Header { src, src_incarnation: 0, dst, message: Message::Announce }).unwrap();
    [b"dcG\x01\x00", &xxhash_rust::xxh3::xxh3_64(b"distcache").to_be_bytes()[..], &header].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invented_member_is_none_and_an_epoch_at_the_end_of_all_numbers_has_its_line() {
    logbook::open();
    let plan = Plan::new(&Source::new());
    let nodes = plan.cluster(2).await;
    let to = nodes[0].me().gossip_addr;
    let (stranger, invented) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    invented.set_read_timeout(Some(PATIENCE)).unwrap();
    let nowhere = invented.local_addr().unwrap();
    stranger.send_to(&announcement(nowhere, 1, to), to).unwrap();
    assert!(invented.recv(&mut [0; 2048]).is_ok(), "gossip takes the invented one for somebody and answers");
    // It again, and the other node: believed, this would keep the true one from ever coming back.
    for claimed in [nowhere, nodes[1].me().gossip_addr] {
        stranger.send_to(&announcement(claimed, u64::MAX, to), to).unwrap();
    }
    eventually("both are counted", || count(&nodes[0], Refusal::Implausible) == 2).await;
    let claim = format!("the node at {nowhere} claims an epoch of {}, far ahead of this node's time", u64::MAX);
    logbook::warns(&["a datagram was refused", &stranger.local_addr().unwrap().to_string(), &claim]).await;
    agree(&nodes).await;
    all_read_from_all(&nodes).await;
    assert!(nodes.iter().all(|node| node.peers().len() == 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_has_read_how_nodes_begin_gets_no_further_and_has_its_line() {
    logbook::open();
    let plan = Plan::new(&Source::new()).spec(|spec| spec.lease(PATIENCE * 2));
    let nodes = cluster_of(2, |name| plan.builder(name).cluster_secret(secret(SECRET))).await;
    let key = key_of(&nodes, 0);
    for _ in 0..2 {
        nodes[1].get(KEYSPACE, &key).await.unwrap();
    }
    assert!(nodes[1].cached(KEYSPACE, &key).is_some(), "a hot copy");
    let mut stream = TcpStream::connect(nodes[1].me().peer_addr).await.unwrap();
    let from = stream.local_addr().unwrap().to_string();
    stream.write_all(&[hello(Topic::Requests), invalidation(&key)].concat()).await.unwrap();
    let shown_out = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    assert!(shown_out.is_ok(), "the node keeps talking to a stranger");
    logbook::warns(&["a connection was refused", &from, "a cluster secret is set here, none there"]).await;
    assert!(nodes[1].cached(KEYSPACE, &key).is_some());
}
