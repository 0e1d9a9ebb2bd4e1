//! Certificates and keys of whatever is in the files: refused with a word on what is wrong, or good for other nodes too.

use rustls::pki_types::pem::PemObject;

use super::*;
use crate::fuzz_support::Target;

/// The CA's certificates, the node's and its key, with a zero between them.
pub const TLS_PEM: Target = Target { name: "tls_pem", run, seeds: Vec::new };

fn run(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let [ca, cert, key] = [(); 3].map(|()| parts.next().unwrap_or_default());
    for cert in CertificateDer::pem_slice_iter(cert).filter_map(Result::ok) {
        for name in ["node-1", "10.0.0.1"] {
            let _ = names::check(&cert, name);
        }
    }
    match Tls::from_pem(ca, cert, key) {
        Ok(tls) => {
            assert!(tls.own_name_error("another").is_some());
            assert!(tls.mutual(false).is_ok());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
