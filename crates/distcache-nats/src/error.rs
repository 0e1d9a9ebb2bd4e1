//! What went wrong with the NATS server, and whether it may pass.
//!
//! Knows no settings beyond what the message names. The invariant: no secret is part of an error. What only an operator can
//! mend (a login that is refused, a certificate that nobody trusts, a file that is not there) is lasting; a server that is
//! away, however it is away, is passing.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use async_nats::{ConnectError, ConnectErrorKind};
use distcache::DiscoveryError;
use rustls::CertificateError;

/// Every way to fail, in words that name the setting or the server concerned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NatsError {
    #[error("NATS setting {field}: {reason}")]
    Setting { field: String, reason: String },
    #[error("{what} {path:?}: {error}", path = .path.display().to_string())]
    File { what: &'static str, path: PathBuf, error: io::Error },
    #[error("{what}: {reason}")]
    Unusable { what: String, reason: String },
    #[error("the NATS server refuses the login by {login}")]
    LoginRefused { login: String },
    #[error("the NATS server asks for a login, and none is set")]
    LoginMissing,
    #[error("the NATS server asks for TLS, which is not set up here")]
    TlsMissing,
    #[error("no TLS with the NATS server: {0}")]
    Tls(rustls::Error),
    #[error("no NATS server answers at {servers}: {reason}")]
    Unreachable { servers: String, reason: String },
    #[error("the connection to the NATS server is lost")]
    Lost,
    #[error("not connected to a NATS server yet")]
    Connecting,
    #[error("not even this node has answered; the NATS server says: {complaint}")]
    Unanswered { complaint: String },
    #[error("the provider is closed")]
    Closed,
}

impl NatsError {
    fn is_lasting(&self) -> bool {
        match self {
            Self::Tls(error) => !is_a_matter_of_time(error),
            Self::Setting { .. } | Self::File { .. } | Self::Unusable { .. } => true,
            Self::LoginRefused { .. } | Self::LoginMissing | Self::TlsMissing => true,
            Self::Unreachable { .. } | Self::Lost | Self::Connecting | Self::Unanswered { .. } | Self::Closed => false,
        }
    }
}

impl From<NatsError> for DiscoveryError {
    fn from(error: NatsError) -> Self {
        if error.is_lasting() { Self::invalid(error) } else { Self::unavailable(error) }
    }
}

/// A certificate of the server's that has expired is the server's to renew: no reason to refuse this node's start.
fn is_a_matter_of_time(error: &rustls::Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let rustls::Error::InvalidCertificate(fault) = error else { return false };
    matches!(fault, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

/// What this node would have logged in with, and whether it expects TLS.
pub(crate) struct Attempt<'a> {
    pub(crate) servers: &'a str,
    /// `None`: without a login.
    pub(crate) login: Option<String>,
    pub(crate) has_tls: bool,
}

/// Tells a server that is away from one that does not want this node.
///
/// A refused login is a word of the server's own. TLS fails with an error of the TLS library inside an I/O error. All else
/// (refused, reset, timed out, no such host, a server that is full or shutting down) may be otherwise in a second.
pub(crate) fn of_connect(error: &ConnectError, attempt: Attempt<'_>) -> NatsError {
    match (error.kind(), attempt.login) {
        (ConnectErrorKind::AuthorizationViolation, Some(login)) => NatsError::LoginRefused { login },
        (ConnectErrorKind::AuthorizationViolation, None) => NatsError::LoginMissing,
        (ConnectErrorKind::Authentication, Some(login)) => {
            NatsError::Unusable { what: login, reason: "cannot sign what the NATS server asks to be signed".into() }
        }
        _ => match tls_error(error) {
            Some(_) if !attempt.has_tls => NatsError::TlsMissing,
            Some(error) => NatsError::Tls(error.clone()),
            None => NatsError::Unreachable { servers: attempt.servers.into(), reason: error.to_string() },
        },
    }
}

fn tls_error(error: &ConnectError) -> Option<&rustls::Error> {
    let io = error.source()?.downcast_ref::<io::Error>()?;
    io.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: ConnectError) -> NatsError {
        of_connect(&error, Attempt { servers: "nats://a:1", login: Some("user \"u\"".into()), has_tls: true })
    }

    fn tls(error: rustls::Error) -> ConnectError {
        ConnectError::with_source(ConnectErrorKind::Io, io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn what_an_operator_has_to_mend_is_lasting_and_the_rest_passes() {
        let refused = ConnectError::new(ConnectErrorKind::AuthorizationViolation);
        let unknown = tls(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        for lasting in [refused, unknown] {
            assert!(told(lasting).is_lasting());
        }
        let away = ConnectError::with_source(ConnectErrorKind::Io, io::Error::from(io::ErrorKind::ConnectionRefused));
        let full = ConnectError::with_source(ConnectErrorKind::Io, "maximum connections exceeded");
        let slow = ConnectError::new(ConnectErrorKind::TimedOut);
        let expired = tls(rustls::Error::InvalidCertificate(CertificateError::Expired));
        for passing in [away, full, slow, expired] {
            assert!(!told(passing).is_lasting());
        }
    }
}
