//! Seeds for the PEM of certificates and keys: a CA and nodes made up for this purpose alone.

use distcache::fuzz_support::{Seed, Target};
use rcgen::{BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// The CA's certificates, the node's and its key, with a zero between them.
pub const TLS_PEM: Target = Target { seeds, ..distcache::fuzz_support::TLS_PEM };

fn seeds() -> Vec<Seed> {
    let ca = Ca::new();
    let (node, key) = ca.certify(&["node-1", "10.0.0.1"]);
    let (_, other_key) = ca.certify(&["node-2"]);
    let seed = |name: &str, parts: [&str; 3]| (name.to_owned(), parts.join("\0").into_bytes());
    vec![
        seed("good", [&ca.pem, &node, &key]),
        seed("of-another-ca", [&Ca::new().pem, &node, &key]),
        seed("with-another-key", [&ca.pem, &node, &other_key]),
        seed("with-chain", [&ca.pem, &[node.as_str(), &ca.pem].concat(), &key]),
        seed("no-key", [&ca.pem, &node, ""]),
        seed("self-signed", [&ca.pem, &ca.pem, &key]),
    ]
}

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = new_key();
        let pem = params.self_signed(&key).as_ref().map(Certificate::pem).expect("a CA signs itself");
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for these names, and its key.
    fn certify(&self, names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = new_key();
        let cert = params.signed_by(&key, &self.issuer).expect("a CA signs");
        (cert.pem(), key.serialize_pem())
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("the operating system gives random numbers")
}
