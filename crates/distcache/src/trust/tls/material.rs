//! Certificates and a key, and the rustls configurations that are made of them.
//!
//! The invariant: a configuration is only made of material that another node with the same CA would believe now, so that a
//! mistake shows where it was made.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::verify::OfTheCa;
use super::{Current, TlsError, words};

pub(super) struct Material {
    roots: Arc<RootCertStore>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// What each part is called in errors: the CA, the certificate, the key.
    what: [String; 3],
}

impl Clone for Material {
    fn clone(&self) -> Self {
        Self {
            roots: self.roots.clone(),
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            what: self.what.clone(),
        }
    }
}

impl PartialEq for Material {
    fn eq(&self, other: &Self) -> bool {
        self.roots.roots == other.roots.roots && self.chain == other.chain && self.key == other.key
    }
}

impl Material {
    pub(super) fn parse(what: [String; 3], [ca, cert, key]: [&[u8]; 3]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in certificates(&what[0], ca)? {
            roots.add(root).map_err(|error| TlsError::invalid(&what[0], words::of_error(&error)))?;
        }
        let chain = certificates(&what[1], cert)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| TlsError::invalid(&what[2], format!("no private key in PEM: {error}")))?;
        Ok(Self { roots: Arc::new(roots), chain, key, what })
    }

    /// The configurations of both sides. Sessions are never resumed: whoever connects again is looked at again.
    pub(super) fn current(self, is_mutual: bool) -> Result<Current, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = OfTheCa::new(self.roots.clone(), &provider, is_mutual);
        let verifier = Arc::new(verifier.map_err(|error| TlsError::invalid(&self.what[0], error))?);
        self.check_as_others_would(&verifier)?;
        let unfit = |error: rustls::Error| TlsError::invalid(&self.what[2], words::of_error(&error));
        let version = |error| TlsError::invalid("TLS 1.3", error);

        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(version)?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(unfit)?;
        client.resumption = Resumption::disabled();

        let server =
            ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).map_err(version)?;
        let server = match is_mutual {
            true => server.with_client_cert_verifier(verifier),
            false => server.with_no_client_auth(),
        };
        let mut server = server.with_single_cert(self.chain.clone(), self.key.clone_key()).map_err(unfit)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Current { client: Arc::new(client), server: Arc::new(server), material: Some(self) })
    }

    /// An expired certificate, or one of another CA, is found out here and not by every other node at once.
    fn check_as_others_would(&self, verifier: &OfTheCa) -> Result<(), TlsError> {
        let Some((own, between)) = self.chain.split_first() else { return Ok(()) };
        let unfit = |error: rustls::Error| TlsError::invalid(&self.what[1], words::of_error(&error));
        verifier.check(own, between, UnixTime::now()).map_err(unfit)
    }
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(TlsError::invalid(what, "no certificate in PEM")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(TlsError::invalid(what, error)),
    }
}
