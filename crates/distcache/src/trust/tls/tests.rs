//! Two gates over real sockets, with certificates of every kind.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;

use super::*;
use crate::trust::handshake::{Hello, Topic};
use crate::trust::{Gate, Guest, Refusal, Stream};

const LIMIT: Duration = Duration::from_secs(10);

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate of a node and its key, changed by `change` before it is signed.
    fn issue(&self, node: &str, change: impl FnOnce(&mut CertificateParams)) -> [String; 2] {
        let mut params = CertificateParams::new([node.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        [params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem()]
    }

    fn tls(&self, node: &str) -> Tls {
        self.try_tls(node, |_| {}).unwrap()
    }

    fn try_tls(&self, node: &str, change: impl FnOnce(&mut CertificateParams)) -> Result<Tls, TlsError> {
        let [cert, key] = self.issue(node, change);
        Tls::from_pem(self.pem().as_bytes(), cert.as_bytes(), key.as_bytes())
    }

    /// What `from_pem` would not let pass: a node that does not look at its own certificate.
    fn careless_tls(&self, node: &str, change: impl FnOnce(&mut CertificateParams)) -> Tls {
        let [cert, key] = self.issue(node, change);
        let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let good = self.tls(node).current.load_full();
        let resolver =
            Arc::new(Always(Arc::new(CertifiedKey::from_der(chain, key, &ring::default_provider()).unwrap())));
        let (mut client, mut server) = (ClientConfig::clone(&good.client), ServerConfig::clone(&good.server));
        client.client_auth_cert_resolver = resolver.clone();
        server.cert_resolver = resolver;
        Tls::from_configs(Arc::new(client), Arc::new(server))
    }
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

#[derive(Debug)]
struct Never;

impl ResolvesClientCert for Never {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

type Outcome = Result<Guest, HandshakeError>;

/// Node `a` connects to node `b`. Both outcomes.
async fn meet(a: Option<Tls>, b: Option<Tls>) -> (Outcome, Outcome) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let gate = |tls| Gate { tls, ..Gate::default() };
    let hello = |node| Hello::new(Topic::Requests, "shop", node, 1, 1 << 20);
    let (here, there) = (gate(a), gate(b));
    let answer = async {
        let (stream, _) = listener.accept().await.unwrap();
        there.admit(stream, &hello("b"), LIMIT, &|| true).await
    };
    let me = hello("a");
    tokio::join!(here.connect(addr, Some("b"), &me, LIMIT), answer)
}

/// `a` is refused by `b`: why, and what `a` is told.
async fn refused_here(a: Option<Tls>, b: Option<Tls>) -> (Refusal, String, String) {
    let (here, there) = meet(a, b).await;
    let (Err(HandshakeError::Refused(reason, why)), Err(told)) = (there, here) else { panic!("b refuses a") };
    (reason, why, told.to_string())
}

/// `b` is refused by `a`: why, and what `b` is told.
async fn refused_there(a: Option<Tls>, b: Option<Tls>) -> (Refusal, String, String) {
    let (here, there) = meet(a, b).await;
    let (Err(HandshakeError::Refused(reason, why)), Err(told)) = (here, there) else { panic!("a refuses b") };
    (reason, why, told.to_string())
}

fn expired(params: &mut CertificateParams) {
    params.not_after = date_time_ymd(2020, 1, 1);
}

fn client_only(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

fn server_only(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
}

#[tokio::test]
async fn nodes_of_one_ca_meet_and_speak_tls() {
    let ca = Ca::new();
    let (here, there) = meet(Some(ca.tls("a")), Some(ca.tls("b"))).await;
    let (here, there) = (here.unwrap(), there.unwrap());
    assert_eq!((&*here.them.node, &*there.them.node), ("b", "a"));
    assert!(matches!((&here.stream, &there.stream), (Stream::Tls(_), Stream::Tls(_))));
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_either_side() {
    let ca = Ca::new();
    let (reason, why, told) = refused_here(Some(ca.careless_tls("a", expired)), Some(ca.tls("b"))).await;
    assert_eq!((reason, &*why), (Refusal::Certificate, "the certificate has expired"));
    assert!(told.contains("this node's certificate has expired"), "{told}");
    let (reason, why, told) = refused_there(Some(ca.tls("a")), Some(ca.careless_tls("b", expired))).await;
    assert_eq!((reason, &*why), (Refusal::Certificate, "the certificate has expired"));
    assert!(told.contains("this node's certificate has expired"), "{told}");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused_on_either_side() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (reason, why, told) = refused_there(Some(ca.tls("a")), Some(other.tls("b"))).await;
    assert_eq!((reason, &*why), (Refusal::Certificate, "the certificate is not signed by the cluster's CA"));
    assert!(told.contains("not signed by the CA that it believes"), "{told}");
    // Believes both, shows one that b does not believe.
    let [cert, key] = other.issue("a", |_| {});
    let both = format!("{}{}", ca.pem(), other.pem());
    let a = Tls::from_pem(both.as_bytes(), cert.as_bytes(), key.as_bytes()).unwrap();
    let (reason, _, told) = refused_here(Some(a), Some(ca.tls("b"))).await;
    assert_eq!(reason, Refusal::Certificate);
    assert!(told.contains("not signed by the CA that it believes"), "{told}");
}

#[tokio::test]
async fn a_certificate_of_another_node_is_refused_on_either_side() {
    let ca = Ca::new();
    let (reason, why, told) = refused_here(Some(ca.tls("c")), Some(ca.tls("b"))).await;
    assert_eq!((reason, &*why), (Refusal::Name, "the certificate is not valid for \"a\""));
    assert!(told.contains("not valid for \"a\""), "{told}");
    let (here, _) = meet(Some(ca.tls("a")), Some(ca.tls("c"))).await;
    let error = here.err().unwrap();
    assert_eq!(error.refusal(), Some(Refusal::Name));
    assert_eq!(error.to_string(), "the certificate is not valid for \"b\"");
}

#[tokio::test]
async fn a_certificate_for_clients_or_servers_only_is_no_nodes_certificate_on_either_side() {
    let ca = Ca::new();
    for one_sided in [client_only, server_only] {
        let refused = [
            refused_there(Some(ca.tls("a")), Some(ca.careless_tls("b", one_sided))).await,
            refused_here(Some(ca.careless_tls("a", one_sided)), Some(ca.tls("b"))).await,
        ];
        for (reason, why, told) in refused {
            assert_eq!(reason, Refusal::Certificate);
            assert!(why.contains("not made for a node"), "{why}");
            assert!(told.contains("this node's certificate is not made for a node"), "{told}");
        }
    }
    let [cert, key] = ca.issue("b", server_only);
    let error = Tls::from_pem(ca.pem().as_bytes(), cert.as_bytes(), key.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("need server and client authentication"), "{error}");
}

#[tokio::test]
async fn whoever_shows_no_certificate_is_refused_unless_tls_is_not_mutual() {
    let ca = Ca::new();
    let anonymous = || {
        let good = ca.tls("a").current.load_full();
        let mut client = ClientConfig::clone(&good.client);
        client.client_auth_cert_resolver = Arc::new(Never);
        Tls::from_configs(Arc::new(client), good.server.clone())
    };
    let (reason, why, told) = refused_here(Some(anonymous()), Some(ca.tls("b"))).await;
    assert_eq!(reason, Refusal::Certificate);
    assert!(why.contains("no certificate was shown"), "{why}");
    assert!(told.contains("requires a certificate"), "{told}");
    let one_way = ca.tls("b").mutual(false).unwrap();
    let (here, there) = meet(Some(anonymous()), Some(one_way)).await;
    assert!(here.is_ok() && there.is_ok());
}

#[tokio::test]
async fn plaintext_and_tls_say_so_when_they_meet() {
    let ca = Ca::new();
    let (reason, why, told) = refused_here(None, Some(ca.tls("b"))).await;
    assert_eq!(reason, Refusal::Plaintext);
    assert!(why.contains("without TLS, which is required") && told.contains(&why), "{why} / {told}");
    let (here, there) = meet(Some(ca.tls("a")), None).await;
    let (here, there) = (here.err().unwrap(), there.err().unwrap());
    assert_eq!((here.refusal(), there.refusal()), (Some(Refusal::Plaintext), Some(Refusal::Plaintext)));
    assert!(here.to_string().contains("answers without TLS"), "{here}");
    assert!(there.to_string().contains("tried with TLS, which is not set up"), "{there}");
}

#[tokio::test]
async fn one_name_for_all_nodes_serves_where_certificates_are_shared() {
    let ca = Ca::new();
    let shared = || Some(ca.tls("cache.internal").server_name("cache.internal"));
    let (here, there) = meet(shared(), shared()).await;
    assert!(here.is_ok() && there.is_ok());
    let (reason, ..) = refused_here(Some(ca.tls("a").server_name("cache.internal")), shared()).await;
    assert_eq!(reason, Refusal::Name);
}

#[test]
fn a_certificate_names_its_node_by_dns_name_wildcard_or_address_and_the_port_does_not_count() {
    let ca = Ca::new();
    let address = |params: &mut CertificateParams| {
        params.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
    };
    assert_eq!(ca.tls("web-1").own_name_error("web-1:3320"), None);
    assert_eq!(ca.tls("*.cache.internal").own_name_error("a.cache.internal"), None);
    assert_eq!(ca.try_tls("x", address).unwrap().own_name_error("10.0.0.1:3320"), None);
    assert!(ca.tls("web-1").own_name_error("web-2").unwrap().contains("\"web-2\""));
    assert!(ca.tls("web-1").own_name_error("the first node").unwrap().contains("DNS name"));
}

#[test]
fn what_others_would_refuse_is_refused_at_home_and_names_the_file() {
    let ca = Ca::new();
    let error = |tls: Result<Tls, TlsError>| tls.unwrap_err().to_string();
    assert_eq!(error(ca.try_tls("a", expired)), "the node's certificate: the certificate has expired");
    assert!(error(ca.try_tls("a", client_only)).contains("need server and client authentication"));
    let [cert, key] = ca.issue("a", |_| {});
    let other = Ca::new().pem();
    let foreign = Tls::from_pem(other.as_bytes(), cert.as_bytes(), key.as_bytes());
    assert_eq!(error(foreign), "the node's certificate: the certificate is not signed by the cluster's CA");
    let of_the_ca = Tls::from_pem(ca.pem().as_bytes(), ca.pem().as_bytes(), key.as_bytes());
    assert_eq!(error(of_the_ca), "the node's certificate: the certificate is that of a CA, not of a node");
    let [_, other_key] = ca.issue("a", |_| {});
    let mismatch = Tls::from_pem(ca.pem().as_bytes(), cert.as_bytes(), other_key.as_bytes());
    assert_eq!(error(mismatch), "the node's key: the private key is not that of the certificate");
    assert!(error(Tls::from_pem(b"", cert.as_bytes(), key.as_bytes())).contains("no certificate in PEM"));
    assert!(error(Tls::from_pem(ca.pem().as_bytes(), cert.as_bytes(), b"")).contains("no private key"));
    assert!(error(Tls::from_files("/no/such/ca.pem", "c", "k")).contains("/no/such/ca.pem"));
}

#[tokio::test]
async fn renewed_files_are_used_for_new_connections_and_broken_ones_never() {
    let ca = Ca::new();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let write = |[cert, key]: [String; 2]| {
        std::fs::write(path("cert.pem"), cert).unwrap();
        std::fs::write(path("key.pem"), key).unwrap();
    };
    std::fs::write(path("ca.pem"), ca.pem()).unwrap();
    write(ca.issue("b", |_| {}));
    let tls = Tls::from_files(path("ca.pem"), path("cert.pem"), path("key.pem")).unwrap();
    let shown = async || {
        let (here, there) = meet(Some(ca.tls("a")), Some(tls.clone())).await;
        there.unwrap();
        let Stream::Tls(stream) = here.unwrap().stream else { panic!("TLS") };
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let first = shown().await;
    assert!(!tls.reload().unwrap(), "nothing has changed");
    std::fs::write(path("cert.pem"), "half a fi").unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("cert.pem"));
    write(Ca::new().issue("b", |_| {}));
    assert!(tls.reload().is_err(), "of another CA");
    assert_eq!(shown().await, first);
    write(ca.issue("b", |_| {}));
    assert!(tls.reload().unwrap());
    assert_ne!(shown().await, first);
}

#[test]
fn keys_are_never_printed() {
    let ca = Ca::new();
    let [cert, key] = ca.issue("a", |_| {});
    let tls = Tls::from_pem(ca.pem().as_bytes(), cert.as_bytes(), key.as_bytes()).unwrap();
    let shown = format!("{tls:?}");
    assert!(shown.len() < 100 && !shown.contains(&key[30..60]), "{shown}");
}
