//! Whom a client believes to be a node, and what it shows of itself, when a URL says https.
//!
//! The invariant: no certificate is believed that does not lead to a CA from the user's own file.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, AlertDescription, ClientConfig, InvalidMessage, RootCertStore};

#[derive(clap::Args, Default)]
pub struct TrustArgs {
    /// For https: the CA of the node's certificate, in PEM
    #[arg(long = "ca", value_name = "FILE", env = "DISTCACHE_CA")]
    tls_ca: Option<PathBuf>,
    /// For a node that asks for one: a certificate, in PEM
    #[arg(long = "cert", value_name = "FILE", env = "DISTCACHE_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long = "key", value_name = "FILE", env = "DISTCACHE_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// A file that TLS cannot be spoken with.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("{}: {error}", path.display())]
    Pem {
        path: PathBuf,
        #[source]
        error: pem::Error,
    },
    #[error("{} holds no certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{}: {error}", path.display())]
    Unusable {
        path: PathBuf,
        #[source]
        error: rustls::Error,
    },
}

/// By default nobody is believed, and only `http://` can be spoken.
#[derive(Clone, Default)]
pub struct Trust(Option<TlsConnector>);

impl Trust {
    pub fn of(args: &TrustArgs) -> Result<Self, TrustError> {
        let Some(ca) = &args.tls_ca else { return Ok(Self::default()) };
        let unusable = |path: &PathBuf| {
            let path = path.clone();
            move |error| TrustError::Unusable { path, error }
        };
        let mut roots = RootCertStore::empty();
        for one in certificates(ca)? {
            roots.add(one).map_err(unusable(ca))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder =
            builder.with_safe_default_protocol_versions().map_err(unusable(ca))?.with_root_certificates(roots);
        let config = match args.tls_cert.as_ref().zip(args.tls_key.as_ref()) {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let of_key = |error| TrustError::Pem { path: key.clone(), error };
                let key = PrivateKeyDer::from_pem_file(key).map_err(of_key)?;
                builder.with_client_auth_cert(certificates(cert)?, key).map_err(unusable(cert))?
            }
        };
        Ok(Self(Some(TlsConnector::from(Arc::new(config)))))
    }

    /// `None` if there is nobody to believe.
    pub(super) fn handshake(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Option<impl Future<Output = io::Result<TlsStream<TcpStream>>>> {
        let connector = self.0.clone()?;
        let name = ServerName::try_from(host.to_owned());
        Some(async move {
            let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            connector.connect(name, stream).await
        })
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let of_file = |error| TrustError::Pem { path: path.clone(), error };
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(of_file)?.collect();
    let all = all.map_err(of_file)?;
    if all.is_empty() {
        return Err(TrustError::NoCertificate { path: path.clone() });
    }
    Ok(all)
}

/// Whether the other end answered a TLS handshake with something else.
pub(super) fn speaks_no_tls(error: &io::Error) -> bool {
    let invalid =
        |error: &rustls::Error| matches!(error, rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType));
    error.get_ref().and_then(|inner| inner.downcast_ref()).is_some_and(invalid)
}

pub(super) fn asks_for_certificate(error: &(dyn Error + 'static)) -> bool {
    let asks =
        |error: &rustls::Error| matches!(error, rustls::Error::AlertReceived(AlertDescription::CertificateRequired));
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.any(|cause| {
        // An I/O error is no `source` of itself, but holds one.
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause.downcast_ref().is_some_and(asks) || inner.and_then(|inner| inner.downcast_ref()).is_some_and(asks)
    })
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Trust(a CA)" } else { "Trust(nobody)" })
    }
}
