//! TLS to the NATS server: whom to trust, and how this node shows itself.
//!
//! Knows no connection. The invariant: the configuration names its own cryptography, so it does not depend on what else the
//! process has chosen or linked; certificates are read anew for every connection.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::error::NatsError;

/// TLS to the NATS server. Where it is set, no server without TLS is spoken to.
///
/// ```
/// let tls = distcache_nats::Tls::new().ca("ca.pem").identity("node.pem", "node.key");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Tls {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Trusts what the system trusts, and shows no certificate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the certificates in this PEM file and no others.
    pub fn ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Some(path.into());
        self
    }

    /// Shows this certificate (chain) with this key, PEM files both: for servers that verify their clients.
    pub fn identity(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((cert.into(), key.into()));
        self
    }

    /// Reads the files.
    pub(crate) async fn config(&self) -> Result<ClientConfig, NatsError> {
        let tls = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let roots = tls.roots()?;
            let builder = builder()?.with_root_certificates(roots);
            let Some((cert, key)) = &tls.identity else { return Ok(builder.with_no_client_auth()) };
            let key_file = "NATS client key";
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| file_error(key_file, key, error))?;
            builder
                .with_client_auth_cert(certificates("NATS client certificate", cert)?, private)
                .map_err(NatsError::Tls)
        });
        read.await.unwrap_or_else(|_| Err(NatsError::Closed))
    }

    fn roots(&self) -> Result<RootCertStore, NatsError> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                for cert in certificates("NATS CA", path)? {
                    roots.add(cert).map_err(NatsError::Tls)?;
                }
            }
            // What cannot be read of the system's certificates is not trusted; the rest is.
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        Ok(roots)
    }
}

/// For a server that asks for TLS where none is set up: nobody is trusted.
pub(crate) fn nobody_trusted() -> Result<ClientConfig, NatsError> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, NatsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    builder.with_safe_default_protocol_versions().map_err(NatsError::Tls)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, NatsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read.map_err(|error| file_error(what, path, error))? {
        none if none.is_empty() => Err(file_error(what, path, pem::Error::NoItemsFound)),
        certificates => Ok(certificates),
    }
}

fn file_error(what: &'static str, path: &Path, error: pem::Error) -> NatsError {
    let error = match error {
        pem::Error::Io(error) => error,
        pem::Error::NoItemsFound => io::Error::new(io::ErrorKind::InvalidData, "holds none in PEM"),
        // The library's own words are left out: they may quote the file.
        _ => io::Error::new(io::ErrorKind::InvalidData, "is no PEM"),
    };
    NatsError::File { what, path: path.to_owned(), error }
}
