//! What went wrong with TLS, in words that tell which side has to be mended.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use super::super::handshake::HandshakeError;
use super::super::refusals::Refusal;

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// A handshake that this node began has failed.
pub(super) fn of_connecting(error: &io::Error) -> HandshakeError {
    match tls_error(error) {
        Some(Error::InvalidMessage(_)) => {
            HandshakeError::Refused(Refusal::Plaintext, "it answers without TLS, which is required here".into())
        }
        Some(tls) => of_tls(tls),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            HandshakeError::TurnedAway("it ended the TLS handshake; perhaps it does not speak TLS".into())
        }
        None => HandshakeError::Io(error.kind().into()),
    }
}

/// A handshake that the other side began has failed.
pub(super) fn of_accepting(error: &io::Error) -> HandshakeError {
    tls_error(error).map_or_else(|| HandshakeError::Io(error.kind().into()), of_tls)
}

/// The other side has sent its verdict after the handshake.
pub(super) fn of_alert(error: &io::Error) -> Option<HandshakeError> {
    tls_error(error).map(of_tls)
}

fn of_tls(error: &Error) -> HandshakeError {
    match error {
        Error::AlertReceived(alert) => HandshakeError::TurnedAway(of_received(*alert)),
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => {
            HandshakeError::Refused(Refusal::Certificate, of_error(error))
        }
        other => HandshakeError::Refused(Refusal::Incompatible, format!("the TLS handshake failed: {other}")),
    }
}

/// What is wrong with a certificate.
pub(super) fn of_error(error: &Error) -> String {
    use CertificateError::*;
    let what = match error {
        Error::InvalidCertificate(Expired | ExpiredContext { .. }) => "the certificate has expired",
        Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
            "the certificate is not valid yet; perhaps a clock is wrong"
        }
        Error::InvalidCertificate(UnknownIssuer | BadSignature) => "the certificate is not signed by the cluster's CA",
        Error::InvalidCertificate(InvalidPurpose | InvalidPurposeContext { .. }) => {
            "the certificate is not made for a node: nodes need server and client authentication"
        }
        Error::InvalidCertificate(Revoked) => "the certificate is revoked",
        Error::NoCertificatesPresented => "no certificate was shown, and one is required here",
        Error::InconsistentKeys(_) => "the private key is not that of the certificate",
        // A cause that rustls passes on without a type.
        other if other.to_string().contains("CaUsedAsEndEntity") => "the certificate is that of a CA, not of a node",
        other => return other.to_string(),
    };
    what.into()
}

/// What the other side says of this node's certificate.
fn of_received(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateExpired => "this node's certificate has expired".into(),
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "this node's certificate is not signed by the CA that it believes".into()
        }
        AlertDescription::CertificateRequired => "it requires a certificate, and this node has shown none".into(),
        AlertDescription::UnsupportedCertificate => {
            "this node's certificate is not made for a node: nodes need server and client authentication".into()
        }
        other => format!("it has ended TLS with the alert {other:?}"),
    }
}
