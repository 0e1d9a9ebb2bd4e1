//! TLS: whom a node trusts, whom the server trusts, and what is said when they do not.

use std::fs;
use std::path::Path;

use distcache::{Discovery, DiscoveryError};
use distcache_nats::{NatsDiscovery, Tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::server::*;

/// A CA, a server of it and a client of it, and another CA: as files.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| fs::write(dir.path().join(name), text).unwrap();
        let ca = authority();
        for (name, ca) in [("ca", &ca), ("other", &authority())] {
            write(&format!("{name}.pem"), ca.pem.clone());
        }
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
            write(&format!("{name}.pem"), params.signed_by(&key, &ca.issuer).unwrap().pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn server_tls(&self, more: &str) -> String {
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let (cert, key) = (quoted(&self.path("server.pem")), quoted(&self.path("server.key")));
        format!("tls {{ cert_file: {cert}, key_file: {key}, ca_file: {}, {more} }}", quoted(&self.path("ca.pem")))
    }
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Authority { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
}

async fn refused(discovery: NatsDiscovery) -> String {
    let error = discovery.register(addr(9)).await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Invalid(_)), "{error:?}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_the_ca_is_trusted_and_of_no_other() {
    let files = Files::new();
    let server = Server::with(&files.server_tls("")).await;
    let trusting = |ca: &str| server.discovery().tls(Tls::new().ca(files.path(ca)));
    let (one, other) = (registered(trusting("ca.pem"), 1).await, registered(trusting("ca.pem"), 2).await);
    finds(&one, [1, 2]).await;
    finds(&other, [1, 2]).await;

    let wrong = refused(trusting("other.pem")).await;
    assert!(wrong.contains("no TLS with the NATS server: invalid peer certificate"), "{wrong}");
    let by_the_system = NatsDiscovery::new([format!("tls://{}", server.addr)], CLUSTER);
    assert!(refused(by_the_system).await.contains("invalid peer certificate"));
    let without = refused(server.discovery()).await;
    assert!(without.ends_with("the NATS server asks for TLS, which is not set up here"), "{without}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_verifies_its_clients_gets_a_certificate() {
    let files = Files::new();
    let server = Server::with(&files.server_tls("verify: true")).await;
    let tls = || Tls::new().ca(files.path("ca.pem"));
    let known = || server.discovery().tls(tls().identity(files.path("client.pem"), files.path("client.key")));
    let (one, other) = (registered(known(), 1).await, registered(known(), 2).await);
    finds(&one, [1, 2]).await;
    finds(&other, [1, 2]).await;
    // How the server hangs up is its own affair; it never counts as connected.
    let unknown = server.discovery().tls(tls());
    let _ = unknown.register(addr(3)).await;
    unknown.discover().await.unwrap_err();
    finds(&one, [1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_tls_is_set_a_server_without_it_is_not_spoken_to() {
    let files = Files::new();
    let server = Server::start().await;
    let discovery = server.discovery().tls(Tls::new().ca(files.path("ca.pem")));
    let error = refused(discovery).await;
    assert!(error.contains("no TLS with the NATS server"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_used_are_named() {
    let files = Files::new();
    let server = Server::with(&files.server_tls("")).await;
    let with = |tls| refused(server.discovery().tls(tls));
    assert!(with(Tls::new().ca("/nowhere/ca.pem")).await.contains("NATS CA \"/nowhere/ca.pem\": No such file"));
    let no_certificate = with(Tls::new().ca(files.path("client.key"))).await;
    assert!(no_certificate.contains("client.key\": holds none in PEM"), "{no_certificate}");
    let swapped = Tls::new().ca(files.path("ca.pem")).identity(files.path("client.key"), files.path("client.pem"));
    assert!(with(swapped).await.contains("NATS client key"));
    let mixed = Tls::new().ca(files.path("ca.pem")).identity(files.path("client.pem"), files.path("server.key"));
    let mixed = with(mixed).await;
    assert!(mixed.contains("no TLS with the NATS server"), "{mixed}");
}
