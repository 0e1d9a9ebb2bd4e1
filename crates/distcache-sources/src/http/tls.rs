//! Whom to trust behind `https`.
//!
//! Knows no connection. The invariant: the configuration names its own cryptography, so it does not depend on what else the
//! process has chosen or linked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::error::HttpSourceError;

/// The certificates in this file and no others, or what the system trusts.
pub(super) fn config(ca: Option<&PathBuf>) -> Result<ClientConfig, HttpSourceError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| HttpSourceError::Tls(error.into()))?;
            }
        }
        // What cannot be read of the system's certificates is not trusted; the rest is.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| HttpSourceError::Tls(error.into()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, HttpSourceError> {
    let refused = |reason: String| HttpSourceError::File { what: "CA file", path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(refused("holds no certificates in PEM".into())),
    }
}
