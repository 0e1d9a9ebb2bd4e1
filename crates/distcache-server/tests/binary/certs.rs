//! `distcache certs`: what it makes, and what it does not touch.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{CertificateError, Error, RootCertStore};

use crate::https::{Certs, certificates};
use crate::node::run;

fn roots(ca: Vec<CertificateDer<'static>>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    assert_eq!(roots.add_parsable_certificates(ca), (1, 0));
    Arc::new(roots)
}

/// As a client that connects under a name.
fn as_server(certs: &Certs, file: &str, name: &str) -> Result<(), Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(certs.ca()), provider).build().unwrap();
    let chain = certificates(&certs.path(file));
    let name = ServerName::try_from(name).unwrap();
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).map(drop)
}

/// As a node that a client connects to.
fn as_client(certs: &Certs, file: &str) -> Result<(), Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(certs.ca()), provider).build().unwrap();
    let chain = certificates(&certs.path(file));
    verifier.verify_client_cert(&chain[0], &chain[1..], UnixTime::now()).map(drop)
}

fn openssl(args: &[&str], file: &Path) -> (i32, String, String) {
    let found = Command::new("openssl").arg("version").output();
    assert!(found.is_ok(), "no openssl here; with Debian: apt-get install openssl");
    run(Command::new("openssl").args(args).arg(file))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn nodes_can_be_both_ends_under_all_their_names() {
    let certs = Certs::new(&["a", "cache-b", "--san", "10.0.0.1", "--san", "cache.internal"]);
    for (file, name) in [("a.pem", "a"), ("cache-b.pem", "cache-b")] {
        for name in [name, "cache.internal", "10.0.0.1", "localhost", "127.0.0.1", "::1"] {
            assert_eq!(as_server(&certs, file, name), Ok(()), "{file} {name}");
        }
        assert_eq!(as_client(&certs, file), Ok(()));
    }
    for name in ["cache-b", "10.0.0.2", "other.internal"] {
        let refused = as_server(&certs, "a.pem", name);
        assert!(
            matches!(refused, Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))),
            "{refused:?}"
        );
    }
    let elsewhere = Certs::new(&["a", "--no-localhost"]);
    assert!(as_server(&elsewhere, "a.pem", "localhost").is_err() && as_server(&elsewhere, "a.pem", "a").is_ok());
}

#[test]
fn a_client_is_no_node() {
    let certs = Certs::new(&["--client", "app"]);
    assert_eq!(names(certs.path("").as_path()), ["app.key", "app.pem", "ca.key", "ca.pem"]);
    assert_eq!(as_client(&certs, "app.pem"), Ok(()));
    let refused = as_server(&certs, "app.pem", "app");
    assert!(
        matches!(refused, Err(Error::InvalidCertificate(CertificateError::InvalidPurposeContext { .. }))),
        "{refused:?}"
    );
}

#[test]
fn openssl_finds_nothing_to_complain_about() {
    let certs = Certs::new(&["a", "--client", "app", "--days", "30"]);
    let ca = certs.path("ca.pem");
    let ca = ca.to_str().unwrap();
    for (purpose, file) in [("sslserver", "a.pem"), ("sslclient", "a.pem"), ("sslclient", "app.pem")] {
        let verify = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", ca];
        let (code, out, err) = openssl(&verify, &certs.path(file));
        assert_eq!(code, 0, "{out}{err}");
    }
    assert_ne!(openssl(&["verify", "-purpose", "sslserver", "-CAfile", ca], &certs.path("app.pem")).0, 0);
    let shown = |file: &str| openssl(&["x509", "-noout", "-text", "-in"], &certs.path(file)).1;
    let ca = shown("ca.pem");
    for part in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "prime256v1", "ecdsa-with-SHA256"] {
        assert!(ca.contains(part), "{part}: {ca}");
    }
    let node = shown("a.pem");
    for part in ["CA:FALSE", "Digital Signature", "prime256v1", "Authority Key Identifier"] {
        assert!(node.contains(part), "{part}: {node}");
    }
    let valid_for =
        |seconds: u64| openssl(&["x509", "-noout", "-checkend", &seconds.to_string(), "-in"], &certs.path("a.pem")).0;
    const DAY: u64 = 24 * 60 * 60;
    assert_eq!((valid_for(29 * DAY), valid_for(30 * DAY)), (0, 1));
}

#[cfg(unix)]
#[test]
fn keys_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let certs = Certs::new(&["a"]);
    let check = || {
        for (file, mode) in [("ca.key", 0o600), ("a.key", 0o600)] {
            assert_eq!(std::fs::metadata(certs.path(file)).unwrap().permissions().mode() & 0o777, mode, "{file}");
        }
    };
    check();
    std::fs::set_permissions(certs.path("a.key"), PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(certs.make(&["a", "--force"]).0, 0);
    check();
    assert_eq!(names(certs.path("").as_path()), ["a.key", "a.pem", "ca.key", "ca.pem"]);
}

#[test]
fn nothing_is_overwritten_unless_told_and_the_ca_never() {
    let certs = Certs::new(&["a"]);
    let read = |file: &str| std::fs::read(certs.path(file)).unwrap();
    let all = || ["ca.pem", "ca.key", "a.pem", "a.key"].map(read);
    let before = all();
    let (code, _, err) = certs.make(&["b", "a"]);
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert!(err.contains("a.pem exists; --force replaces it"), "{err}");
    assert_eq!(all(), before);
    assert!(!certs.path("b.pem").exists() && !certs.path("b.key").exists());
    // Half of it is enough.
    std::fs::remove_file(certs.path("a.pem")).unwrap();
    assert_eq!(certs.make(&["a"]).0, 1);

    assert_eq!(certs.make(&["a", "--force"]).0, 0);
    let after = all();
    assert_eq!(before[..2], after[..2]);
    assert!(before[2] != after[2] && before[3] != after[3]);
    assert_eq!(as_server(&certs, "a.pem", "a"), Ok(()));
}

#[test]
fn more_nodes_are_added_under_the_same_ca() {
    let certs = Certs::new(&["a"]);
    let ca = certs.ca();
    let (code, out, _) = certs.make(&["b"]);
    assert_eq!(code, 0);
    assert!(out.contains("(the CA that was there)") && out.contains("b.pem"), "{out}");
    assert_eq!(certs.ca(), ca);
    for (file, name) in [("a.pem", "a"), ("b.pem", "b")] {
        assert_eq!(as_server(&certs, file, name), Ok(()));
    }
    std::fs::remove_file(certs.path("ca.key")).unwrap();
    let (code, _, err) = certs.make(&["c"]);
    assert_eq!(code, 1);
    assert!(err.contains("ca.pem exists without") && err.contains("ca.key"), "{err}");
}

#[test]
fn a_ca_whose_key_is_another_makes_nothing() {
    let (certs, other) = (Certs::new(&["a"]), Certs::new(&["a"]));
    std::fs::copy(other.path("ca.key"), certs.path("ca.key")).unwrap();
    let (code, _, err) = certs.make(&["b"]);
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert!(err.contains("cannot verify what its key has signed"), "{err}");
    assert!(!certs.path("b.pem").exists());
}

#[test]
fn it_is_told_what_there_is_now_and_what_it_is_good_for() {
    let dir = tempfile::tempdir().unwrap();
    let out_dir = dir.path().join("deep/certs");
    let (code, out, err) = run(crate::node::binary().arg("certs").arg("--out").arg(&out_dir).args(["a", "b"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("(a new CA)") && out.contains("(node b, valid for 365 days)"), "{out}");
    let ca = out_dir.join("ca.pem");
    assert!(out.contains(&format!("[tls]\nca = {ca:?}\ncert = {:?}\n", out_dir.join("a.pem"))), "{out}");
    assert!(out.contains("for development"), "{out}");
    assert!(!out.contains("PRIVATE KEY"), "{out}");
    for wrong in [["../a"].as_slice(), &["ca"], &[], &["a", "--days", "0"], &["a", "--san", "a:1"]] {
        assert_eq!(run(crate::node::binary().arg("certs").arg("--out").arg(&out_dir).args(wrong)).0, 2, "{wrong:?}");
    }
    let (code, _, err) = run(crate::node::binary().arg("certs").arg("--out").arg(&out_dir).args(["c", "C"]));
    assert_eq!(code, 1);
    assert!(err.contains("C is named twice"), "{err}");
}
