//! What a provider was told, and whether it makes sense.
//!
//! Knows names and their rules; asks nobody. The invariant: settings that passed [`Settings::check`] make a path of the API and
//! not of something else.

use crate::access::Access;
use crate::failure::Failure;
use crate::pod::IpFamily;

/// The port that the manifests of a node name.
const PORT_NAME: &str = "gossip";
/// Bytes of a selector: it stands in the request's first line.
const SELECTOR_BYTES_MAX: usize = 2_048;

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) access: Access,
    /// The one of the service account or kubeconfig unless told.
    pub(crate) namespace: Option<String>,
    pub(crate) labels: String,
    pub(crate) wanted: Wanted,
}

/// Which pods others are sent to, and where.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) port: Port,
    pub(crate) ready_only: bool,
    pub(crate) ip_family: IpFamily,
}

#[derive(Clone, Debug)]
pub(crate) enum Port {
    Named(String),
    Number(u16),
}

impl Settings {
    pub(crate) fn new(labels: impl Into<String>) -> Self {
        let port = Port::Named(PORT_NAME.into());
        let wanted = Wanted { port, ready_only: false, ip_family: IpFamily::default() };
        Self { access: Access::InCluster, namespace: None, labels: labels.into(), wanted }
    }

    pub(crate) fn check(&self) -> Result<(), Failure> {
        let refused =
            |field, value: &str, reason: &str| Err(Failure::settings(format!("{field} = {value:?}: {reason}")));
        if self.labels.trim().is_empty() {
            return refused("labels", &self.labels, "must name the pods, such as \"app=distcache\"");
        }
        if self.labels.len() > SELECTOR_BYTES_MAX {
            return refused("labels", &self.labels[..0], &format!("must be at most {SELECTOR_BYTES_MAX} bytes"));
        }
        if let Some(namespace) = &self.namespace
            && !is_dns_label(namespace)
        {
            return refused("namespace", namespace, "must be lower-case letters, digits and dashes, at most 63");
        }
        match &self.wanted.port {
            Port::Named(name) if !is_port_name(name) => refused(
                "port",
                name,
                "must be the name of a container's port: lower-case letters, digits and dashes, at most 15",
            ),
            Port::Number(0) => refused("port", "0", "must be the port that nodes gossip at"),
            _ => Ok(()),
        }
    }
}

/// RFC 1123, as the API server holds namespaces to it.
pub(crate) fn is_dns_label(name: &str) -> bool {
    is_dashed_word(name) && name.len() <= 63
}

/// RFC 6335.
fn is_port_name(name: &str) -> bool {
    is_dashed_word(name) && name.len() <= 15 && name.bytes().any(|byte| byte.is_ascii_lowercase())
}

fn is_dashed_word(name: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(is_fine) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings::new("app=distcache");
        change(&mut settings);
        settings.check().unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_work_is_named_with_its_value() {
        Settings::new("app in (a, b), !old").check().unwrap();
        assert_eq!(
            refused(|settings| settings.labels = " ".into()),
            "labels = \" \": must name the pods, such as \"app=distcache\""
        );
        assert!(refused(|settings| settings.labels = "x".repeat(9_999)).contains("at most 2048 bytes"));
        for namespace in ["", "../secrets", "Team", "-a", &"a".repeat(64)] {
            let message = refused(|settings| settings.namespace = Some(namespace.into()));
            assert!(message.starts_with(&format!("namespace = {namespace:?}: must be")), "{message}");
        }
        for name in ["", "Gossip", "8080", "a-port-with-a-long-name"] {
            let message = refused(|settings| settings.wanted.port = Port::Named(name.into()));
            assert!(message.starts_with(&format!("port = {name:?}: must be the name")), "{message}");
        }
        assert!(refused(|settings| settings.wanted.port = Port::Number(0)).starts_with("port = \"0\""));
    }
}
