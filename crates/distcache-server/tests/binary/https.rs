//! An HTTP client of a page, over TLS, that keeps to the CA it is given.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::http::{self, Answer};
use crate::node::{binary, run};

/// A directory of certificates, made by `distcache certs`.
pub struct Certs {
    dir: tempfile::TempDir,
}

impl Certs {
    pub fn new(args: &[&str]) -> Self {
        let certs = Self { dir: tempfile::tempdir().unwrap() };
        let (code, _, err) = certs.make(args);
        assert_eq!((code, err.as_str()), (0, ""));
        certs
    }

    pub fn make(&self, args: &[&str]) -> (i32, String, String) {
        run(binary().arg("certs").arg("--out").arg(self.dir.path()).args(args))
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub fn ca(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.path("ca.pem"))
    }

    /// A client that believes this CA.
    pub fn client(&self) -> Client {
        Client::new(self, None)
    }

    /// One that shows a certificate of these.
    pub fn client_as(&self, name: &str) -> Client {
        Client::new(self, Some((self, name)))
    }
}

pub fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().collect::<Result<_, _>>().unwrap()
}

#[derive(Clone)]
pub struct Client(Arc<ClientConfig>);

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

impl Client {
    pub fn new(believed: &Certs, shown: Option<(&Certs, &str)>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(believed.ca().remove(0)).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some((certs, name)) => {
                let key = PrivateKeyDer::from_pem_file(certs.path(&format!("{name}.key"))).unwrap();
                let chain = certificates(&certs.path(&format!("{name}.pem")));
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        Self(Arc::new(config))
    }

    /// A connection whose handshake is done.
    pub fn connect(&self, addr: &str) -> io::Result<Stream> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = http::connect(addr)?;
        let mut tls = ClientConnection::new(self.0.clone(), name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(tls, stream))
    }

    pub fn get(&self, addr: &str, path: &str) -> io::Result<Answer> {
        http::send_over(self.connect(addr)?, "GET", path, b"")
    }
}
