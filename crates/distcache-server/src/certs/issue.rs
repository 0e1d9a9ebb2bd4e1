//! Certificates of a small CA: ECDSA over P-256, one step from the CA to everybody.
//!
//! Knows no files. The invariant: what is issued was verified against the CA's certificate as a node would verify it.

use std::fmt;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore};

use super::San;

/// With the begin of its key's identifier, the subject of every CA that this makes: two of them are told apart, and the key is
/// all that it takes to issue certificates.
const CA_NAME: &str = "distcache development CA";
const CA_DAYS: i64 = 10 * 365;
/// Into the past, for machines whose clocks run behind.
const CLOCKS_DIFFER: Duration = Duration::hours(1);

/// Whom a certificate is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Both ends of a connection, under its own name and these.
    Node { sans: Vec<San> },
    /// The end that connects.
    Client,
}

#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    Rcgen(#[from] rcgen::Error),
    #[error("is no certificate: {0}")]
    Pem(#[from] pem::Error),
    #[error("is no CA that can be used: {0}")]
    NoCa(#[from] VerifierBuilderError),
    #[error("cannot verify what its key has signed: {0}; was it made by `distcache certs`, and is it still valid?")]
    NotOfThisCa(#[from] rustls::Error),
}

/// A CA with its key.
pub(super) struct Authority {
    certificate: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Result<Self, IssueError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = ca_params(&key).self_signed(&key)?.pem();
        Self::open(certificate, key.serialize_pem())
    }

    pub(super) fn open(certificate: String, key: String) -> Result<Self, IssueError> {
        let pair = KeyPair::from_pem(&key)?;
        Ok(Self { certificate, key, issuer: Issuer::new(ca_params(&pair), pair) })
    }

    pub(super) fn certificate(&self) -> &str {
        &self.certificate
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Certificate and key, in PEM.
    pub(super) fn issue(&self, name: &str, purpose: &Purpose, days: u16) -> Result<(String, String), IssueError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(name, days.into());
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Purpose::Node { sans } = purpose {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
            for san in sans {
                params.subject_alt_names.push(san_type(san)?);
            }
        }
        let certificate = params.signed_by(&key, &self.issuer)?;
        self.verify(certificate.der())?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    fn verify(&self, certificate: &CertificateDer<'_>) -> Result<(), IssueError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes())?)?;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        verifier.verify_client_cert(certificate, &[], UnixTime::now())?;
        Ok(())
    }
}

fn ca_params(key: &KeyPair) -> CertificateParams {
    let id = CertificateParams::default().key_identifier(key);
    let id: String = id.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut params = params(&format!("{CA_NAME} {id}"), CA_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(name: &str, days: i64) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.not_before = now - CLOCKS_DIFFER;
    params.not_after = now + Duration::days(days);
    params
}

fn san_type(san: &San) -> Result<SanType, rcgen::Error> {
    match san {
        San::Dns(name) => Ok(SanType::DnsName(name.as_str().try_into()?)),
        San::Ip(ip) => Ok(SanType::IpAddress(*ip)),
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}
