//! Whether a certificate is that of a node.

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;

/// What a certificate has to be valid for: of `host:port` the host.
pub(super) fn host(node: &str) -> &str {
    match node.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.parse::<u16>().is_ok() => host,
        _ => node,
    }
}

/// Says in words why it is not. The match follows RFC 6125: DNS names with a wildcard as their first label, and IP addresses.
pub(super) fn check(cert: &CertificateDer<'_>, name: &str) -> Result<(), String> {
    let Ok(expected) = ServerName::try_from(name) else {
        return Err(format!("{name:?} is no name that a certificate can be valid for: a DNS name or an IP address is"));
    };
    let parsed = ParsedCertificate::try_from(cert).map_err(|error| error.to_string())?;
    verify_server_name(&parsed, &expected).map_err(|_| format!("the certificate is not valid for {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn the_port_in_a_name_is_no_part_of_the_host() {
        assert_eq!(host("web-1:3320"), "web-1");
        assert_eq!(host("10.0.0.1:3320"), "10.0.0.1");
        for whole in ["web-1", "web-1:name", "fe80::1", "a:99999"] {
            assert_eq!(host(whole), whole);
        }
    }
}
