//! TLS between nodes: what a node shows, whom it believes, and how that is renewed while it runs.
//!
//! Knows certificates and streams, nothing of what is said over them. The invariants: a connection is TLS 1.3 or none; both
//! sides show a certificate of the cluster's CA unless told otherwise; files that make no sense never replace ones that did.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::handshake::{self, HandshakeError};
use crate::net::TcpStream;

#[cfg(feature = "fuzz-internals")]
pub(crate) mod fuzz;
mod material;
mod names;
#[cfg(test)]
pub(crate) mod tests;
mod verify;
mod words;

use material::Material;

/// How often the files are looked at. A renewed certificate is in use after this at the latest.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);
/// Names what is taken from a TLS session to bind the proof of a secret to it.
const BINDING_LABEL: &[u8] = b"EXPORTER-distcache";

/// TLS for everything that nodes say to each other over TCP.
///
/// One root CA signs the certificates of all nodes, and each node shows its own in both directions (mutual TLS), good for server
/// and client authentication. A certificate has to be valid for the name of its node ([`EngineBuilder::name`]; of `host:port` the
/// host), as a DNS name or an IP address among its subject alternative names; or, with
/// [`server_name`](Self::server_name), for one name that all nodes share.
///
/// Files are read again while the node runs: renewed certificates are used for new connections, those that stand go on.
///
/// ```no_run
/// use distcache::{Engine, Tls};
///
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let tls = Tls::from_files("ca.pem", "node.pem", "node.key")?;
/// let engine = Engine::builder().name("a").tls(tls).start().await?;
/// # Ok(())
/// # }
/// ```
///
/// [`EngineBuilder::name`]: crate::EngineBuilder::name
#[derive(Clone)]
pub struct Tls {
    current: Arc<ArcSwap<Current>>,
    files: Option<Files>,
    is_mutual: bool,
    shared_name: Option<String>,
}

/// What new connections are made with.
struct Current {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    /// What the configs were made of; absent where they were given.
    material: Option<Material>,
}

#[derive(Clone)]
struct Files {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        error: io::Error,
    },
    /// Something is missing, damaged or does not fit together.
    #[error("{what}: {reason}")]
    Invalid {
        /// Which part: a file, where it came from one.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl TlsError {
    fn invalid(what: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::Invalid { what: what.into(), reason: reason.to_string() }
    }
}

impl Tls {
    /// From PEM files: the root certificates of the CA, this node's certificate with what stands between it and the root, and its
    /// private key. Checks that they fit together and are valid now.
    pub fn from_files(
        ca: impl Into<PathBuf>,
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        let files = Files { ca: ca.into(), cert: cert.into(), key: key.into() };
        let material = files.read()?;
        Ok(Self { files: Some(files), ..Self::of(material)? })
    }

    /// The same from PEM in memory; see [`from_files`](Self::from_files).
    pub fn from_pem(ca: &[u8], cert: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let what = ["the CA's certificates", "the node's certificate", "the node's key"].map(String::from);
        Self::of(Material::parse(what, [ca, cert, key])?)
    }

    /// From configurations that are made elsewhere. Their verifiers decide who is believed; a certificate that the other side
    /// shows still has to be valid for the name of its node.
    pub fn from_configs(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Self {
        let current = Current { client, server, material: None };
        Self { current: Arc::new(ArcSwap::from_pointee(current)), files: None, is_mutual: true, shared_name: None }
    }

    fn of(material: Material) -> Result<Self, TlsError> {
        let current = Arc::new(ArcSwap::from_pointee(material.current(true)?));
        Ok(Self { current, files: None, is_mutual: true, shared_name: None })
    }

    /// Whether whoever connects has to show a certificate too; it has to unless told. Without, anybody who reaches the ports and
    /// has no certificate can ask, unless a [`ClusterSecret`](crate::ClusterSecret) keeps them out. No effect on given configurations.
    pub fn mutual(self, is_mutual: bool) -> Result<Self, TlsError> {
        let material = self.current.load().material.clone();
        let current = match material {
            Some(material) => Arc::new(ArcSwap::from_pointee(material.current(is_mutual)?)),
            None => self.current,
        };
        Ok(Self { current, is_mutual, ..self })
    }

    /// One name that the certificates of all nodes are valid for, instead of each being valid for the name of its node: for
    /// certificates that nodes share.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.shared_name = Some(name.into());
        self
    }

    /// Reads the files again; whether they have changed. If they make no sense, what was there before stays in use. The engine
    /// calls this every few seconds.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let Some(files) = &self.files else { return Ok(false) };
        let material = files.read()?;
        if self.current.load().material.as_ref() == Some(&material) {
            return Ok(false);
        }
        self.current.store(Arc::new(material.current(self.is_mutual)?));
        Ok(true)
    }

    /// Looks again and again whether the files have changed.
    pub(crate) async fn renew(self) {
        let mut failure = None;
        while self.files.is_some() {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let again = self.clone();
            let Ok(renewed) = tokio::task::spawn_blocking(move || again.reload()).await else { return };
            match renewed.map_err(|error| error.to_string()) {
                Ok(false) => failure = None,
                Ok(true) => {
                    failure = None;
                    tracing::info!("the certificates have changed; new connections use the new ones");
                }
                Err(error) if failure.as_ref() == Some(&error) => {}
                Err(error) => {
                    tracing::error!(
                        error,
                        "the certificates have changed and cannot be used; the old ones stay in use"
                    );
                    failure = Some(error);
                }
            }
        }
    }

    /// Why this node's own certificate would be refused under its own name, if so.
    pub(crate) fn own_name_error(&self, node: &str) -> Option<String> {
        let current = self.current.load();
        let cert = current.material.as_ref()?.chain.first()?;
        names::check(cert, self.name_of(node)).err()
    }

    fn name_of<'a>(&'a self, node: &'a str) -> &'a str {
        self.shared_name.as_deref().unwrap_or_else(|| names::host(node))
    }

    /// Why the certificate that was shown is not that of `node`, if so.
    pub(crate) fn name_error(&self, shown: &Shown, node: &str) -> Option<String> {
        names::check(shown.as_ref()?, self.name_of(node)).err()
    }

    /// Over a connection that was just made.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        addr: SocketAddr,
        node: Option<&str>,
    ) -> Result<Secured, HandshakeError> {
        let expected = node.map(|node| self.name_of(node)).or(self.shared_name.as_deref());
        let by_name = expected.and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let name = by_name.unwrap_or_else(|| ServerName::IpAddress(addr.ip().into()));
        let connector = TlsConnector::from(self.current.load().client.clone());
        let stream = connector.connect(name, stream).await.map_err(|error| words::of_connecting(&error))?;
        let binding = binding(|out| stream.get_ref().1.export_keying_material(out, BINDING_LABEL, None))?;
        Ok(Secured::new(stream.into(), binding))
    }

    /// Over a connection that was accepted and begins like TLS.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Result<Secured, HandshakeError> {
        let acceptor = TlsAcceptor::from(self.current.load().server.clone());
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => {
                let binding = binding(|out| stream.get_ref().1.export_keying_material(out, BINDING_LABEL, None))?;
                Ok(Secured::new(stream.into(), binding))
            }
            Err((error, mut stream)) => {
                handshake::let_it_arrive(&mut stream).await;
                Err(words::of_accepting(&error))
            }
        }
    }
}

/// A TLS session.
pub(crate) struct Secured {
    pub(crate) stream: Box<TlsStream<TcpStream>>,
    /// Binds a proof to this session.
    pub(crate) binding: [u8; 32],
    pub(crate) shown: Shown,
}

/// The certificate that the other side has shown.
pub(crate) type Shown = Option<CertificateDer<'static>>;

impl Secured {
    fn new(stream: TlsStream<TcpStream>, binding: [u8; 32]) -> Self {
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let shown = certificates.first().map(|cert| cert.clone().into_owned());
        Self { stream: Box::new(stream), binding, shown }
    }
}

fn binding(export: impl FnOnce([u8; 32]) -> Result<[u8; 32], rustls::Error>) -> Result<[u8; 32], HandshakeError> {
    export([0; 32]).map_err(|error| HandshakeError::Io(io::Error::other(error)))
}

/// What a connection's failure after the TLS handshake says: with TLS 1.3 the other side's verdict comes only then.
pub(crate) fn worded(error: HandshakeError) -> HandshakeError {
    match error {
        HandshakeError::Io(error) => words::of_alert(&error).unwrap_or(HandshakeError::Io(error)),
        other => other,
    }
}

impl Files {
    fn read(&self) -> Result<Material, TlsError> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|error| TlsError::Unreadable { path: path.to_owned(), error });
        let pem = [read(&self.ca)?, read(&self.cert)?, read(&self.key)?];
        let what = [&self.ca, &self.cert, &self.key].map(|path| path.display().to_string());
        Material::parse(what, [&pem[0], &pem[1], &pem[2]])
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files.as_ref().map(|files| [&files.ca, &files.cert, &files.key]);
        f.debug_struct("Tls").field("files", &files).field("is_mutual", &self.is_mutual).finish_non_exhaustive()
    }
}
