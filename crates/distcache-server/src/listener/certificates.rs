//! The certificates that a listener shows and asks for, read from files and again when the files change.
//!
//! Knows files and rustls, no sockets. The invariant: what is in use was read whole and fits together; files that do not are
//! said once and change nothing.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::limits::{CERTIFICATE_FILE_BYTES_MAX, CERTIFICATES_READ_EVERY};

/// Where they stand, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Set: a client has to show a certificate of one of these CAs.
    pub client_ca: Option<PathBuf>,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct CertificateError {
    path: PathBuf,
    #[source]
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("larger than {} KiB", CERTIFICATE_FILE_BYTES_MAX >> 10)]
    TooLarge,
    #[error("is no PEM: {0}")]
    Pem(#[source] pem::Error),
    #[error("holds no certificate; expected one between BEGIN CERTIFICATE and END CERTIFICATE")]
    NoCertificate,
    #[error("holds no private key; expected one between BEGIN PRIVATE KEY and END PRIVATE KEY")]
    NoKey,
    #[error("is not the key of the certificate in {}", .0.display())]
    OtherKey(PathBuf),
    #[error("holds a certificate or key that cannot be used: {0}")]
    Unusable(#[source] rustls::Error),
    #[error("holds no CA that can be used: {0}")]
    NoCa(#[source] VerifierBuilderError),
}

/// The files' contents as they were read, and never shown.
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Tells one state of the files from another without keeping the key.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fingerprint(u64);

/// What is in use, exchanged whole.
pub(super) struct Certificates {
    files: CertificateFiles,
    first: Fingerprint,
    current: ArcSwap<ServerConfig>,
}

impl Certificates {
    pub(super) fn load(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let contents = files.read()?;
        let current = ArcSwap::from(files.config(&contents)?);
        Ok(Self { files: files.clone(), first: contents.fingerprint(), current })
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Looks at the files until told to stop. A change counts once it was seen twice: certificate and key are two files, and
    /// neither is written in one moment.
    pub(super) async fn keep_fresh(&self, name: &'static str, counters: &Counters, stop: &CancellationToken) {
        let (mut used, mut seen) = (Ok(self.first), Ok(self.first));
        while stop.run_until_cancelled(tokio::time::sleep(CERTIFICATES_READ_EVERY)).await.is_some() {
            let read = self.files.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || read.read()).await else { continue };
            // A file that cannot be read is a state like any other.
            let now = read.as_ref().map(Contents::fingerprint).map_err(ToString::to_string);
            if now != seen || now == used {
                seen = now;
                continue;
            }
            used = now;
            match read.and_then(|contents| self.files.config(&contents)) {
                Ok(config) => {
                    self.current.store(config);
                    counters.certificates_reloaded.add_one();
                    tracing::info!(listener = name, cert = %self.files.cert.display(), "certificates reloaded");
                }
                Err(error) => {
                    counters.certificates_rejected.add_one();
                    tracing::error!(listener = name, %error, "certificates not reloaded; those in use stay");
                }
            }
        }
    }
}

impl CertificateFiles {
    /// Whether a listener could use them.
    pub fn check(&self) -> Result<(), CertificateError> {
        self.config(&self.read()?).map(drop)
    }

    fn read(&self) -> Result<Contents, CertificateError> {
        let client_ca = self.client_ca.as_deref().map(read).transpose()?;
        Ok(Contents { cert: read(&self.cert)?, key: read(&self.key)?, client_ca })
    }

    fn config(&self, contents: &Contents) -> Result<Arc<ServerConfig>, CertificateError> {
        let of_cert = |problem| CertificateError { path: self.cert.clone(), problem };
        let of_key = |problem| CertificateError { path: self.key.clone(), problem };
        let chain = certificates(&contents.cert).map_err(of_cert)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| match error {
            pem::Error::NoItemsFound => of_key(Problem::NoKey),
            error => of_key(Problem::Pem(error)),
        })?;
        let provider = Arc::new(ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = versions.map_err(|error| of_cert(Problem::Unusable(error)))?;
        let builder = match self.client_ca.as_ref().zip(contents.client_ca.as_ref()) {
            None => builder.with_no_client_auth(),
            Some((path, bytes)) => {
                let of_ca = |problem| CertificateError { path: path.clone(), problem };
                builder.with_client_cert_verifier(verifier(bytes, provider).map_err(of_ca)?)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => of_key(Problem::OtherKey(self.cert.clone())),
            error => of_cert(Problem::Unusable(error)),
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn verifier(
    bytes: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, Problem> {
    let mut roots = RootCertStore::empty();
    for ca in certificates(bytes)? {
        roots.add(ca).map_err(Problem::Unusable)?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(Problem::NoCa)
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let of_file = |problem| CertificateError { path: path.to_owned(), problem };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| of_file(Problem::Read(error)))?;
    let read = file.take(CERTIFICATE_FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    match read.map_err(|error| of_file(Problem::Read(error)))? as u64 {
        0..=CERTIFICATE_FILE_BYTES_MAX => Ok(bytes),
        _ => Err(of_file(Problem::TooLarge)),
    }
}

fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match all {
        Ok(all) if all.is_empty() => Err(Problem::NoCertificate),
        Ok(all) => Ok(all),
        Err(error) => Err(Problem::Pem(error)),
    }
}

impl Contents {
    fn fingerprint(&self) -> Fingerprint {
        let mut hasher = DefaultHasher::new();
        (&self.cert, &self.key, &self.client_ca).hash(&mut hasher);
        Fingerprint(hasher.finish())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}
