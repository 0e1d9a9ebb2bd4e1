//! What went wrong between this node and the API server, in words that say what to do about it.
//!
//! Knows statuses and texts. The invariant: no text of a failure repeats a token, a key or a line of a kubeconfig file, so
//! errors whose words quote their input are put into words of our own.

use std::error::Error as StdError;
use std::fmt;

use distcache::DiscoveryError;
use kube::config::KubeconfigError;
use serde::Deserialize;

use crate::limits::SAID_CHARS_MAX;

/// Why there is no list or watch now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// What this provider was told, or what it found on its node, cannot work.
    #[error("{0}")]
    Settings(String),
    /// The API server forbids the question.
    #[error("the API server forbids {verb} of pods in namespace {namespace:?}: {said}; {}", grant(.namespace))]
    Forbidden { verb: &'static str, namespace: String, said: String },
    /// The API server does not understand the question; a selector that makes no sense is the one way to come here.
    #[error("the API server refuses the selector {labels:?}: {said}")]
    Refused { labels: String, said: String },
    /// The history that a watch would have to go on from is gone: the pods have to be listed anew.
    #[error("the API server has no history that goes back far enough ({said})")]
    Gone { said: String },
    /// Any other answer that is not one.
    #[error("the API server says: {said}")]
    Said { code: u16, said: String },
    /// No answer.
    #[error("the API server cannot be asked: {0}")]
    Unreachable(String),
    /// An answer over a bound.
    #[error("the API server answers {what} of more than {bytes_max} bytes")]
    TooLarge { what: &'static str, bytes_max: usize },
    /// An answer that is not what was asked for.
    #[error("the API server answers something that is not understood: {0}")]
    Nonsense(String),
}

fn grant(namespace: &str) -> String {
    format!(
        "its service account needs a Role in {namespace:?} with apiGroups [\"\"], resources [\"pods\"], verbs [\"list\", \
         \"watch\"], and a RoleBinding to it"
    )
}

impl Failure {
    pub(crate) fn settings(text: impl Into<String>) -> Self {
        Self::Settings(text.into())
    }

    /// With the errors behind it: what a client says first is mostly that something went wrong.
    pub(crate) fn unreachable(error: &(dyn StdError + 'static)) -> Self {
        Self::Unreachable(shortened(&with_causes(error)))
    }

    pub(crate) fn nonsense(error: impl fmt::Display) -> Self {
        Self::Nonsense(shortened(&error.to_string()))
    }

    /// Whether somebody has to do something about it.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Forbidden { .. } | Self::Refused { .. })
    }

    /// Whether a watch may go on from where it was: the API server was not there, or had no time, or took the token for one
    /// of yesterday. Any other answer may mean that the version itself is wrong.
    pub(crate) fn is_resumable(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Said { code, .. } => matches!(code, 401 | 429 | 500 | 502 | 503),
            _ => false,
        }
    }

    /// The way to ask cannot be set up.
    pub(crate) fn of_access(error: &kube::Error) -> Self {
        match error {
            kube::Error::InferKubeconfig(error) => Self::of_kubeconfig(error),
            kube::Error::Auth(error) => Self::settings(format!("cannot authenticate: {}", of_auth(error))),
            other => Self::settings(format!("cannot ask the API server: {}", with_causes(other))),
        }
    }

    pub(crate) fn of_kubeconfig(error: &KubeconfigError) -> Self {
        Self::settings(match error {
            // Its own words show the lines around the mistake, and what stands there may be a token.
            KubeconfigError::Parse(error) => match error.location() {
                Some(place) => format!("the kubeconfig is not understood at line {}", place.line()),
                None => "the kubeconfig is not understood".to_owned(),
            },
            other => with_causes(other),
        })
    }
}

impl From<Failure> for DiscoveryError {
    fn from(failure: Failure) -> Self {
        if failure.is_lasting() { Self::invalid(failure) } else { Self::unavailable(failure) }
    }
}

/// A plugin's output is its token, and its arguments may be one.
fn of_auth(error: &kube::client::AuthError) -> String {
    use kube::client::AuthError;
    match error {
        AuthError::AuthExecRun { out, .. } => format!("the plugin ended with {}", out.status),
        AuthError::AuthExecParse(_) => "the plugin's answer is not understood".to_owned(),
        other => with_causes(other),
    }
}

fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

/// A `Status` of the API: an answer that says no, in a response's body or in an event of a watch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) code: u16,
    message: String,
    reason: String,
}

impl Status {
    /// What a response that is not a success says; its body may come from something in between.
    pub(crate) fn of_response(code: u16, body: &[u8]) -> Self {
        let said = serde_json::from_slice(body)
            .unwrap_or_else(|_| Self { message: String::from_utf8_lossy(body).trim().to_owned(), ..Self::default() });
        Self { code, ..said }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.reason.is_empty() {
            write!(f, " {}", shortened(&self.reason))?;
        }
        if !self.message.is_empty() {
            write!(f, ", {}", shortened(&self.message))?;
        }
        Ok(())
    }
}

/// On one line, and no longer than is read.
fn shortened(text: &str) -> String {
    let mut chars = text.chars().map(|one| if one.is_control() { ' ' } else { one });
    let short: String = chars.by_ref().take(SAID_CHARS_MAX).collect();
    if chars.next().is_some() { short + "…" } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_with_its_reason_and_anything_else_as_it_is() {
        let json = br#"{ "kind": "Status", "code": 500, "reason": "InternalError", "message": "etcd is\nslow" }"#;
        assert_eq!(Status::of_response(500, json).to_string(), "500 InternalError, etcd is slow");
        assert_eq!(
            Status::of_response(502, b"<html>bad gateway</html>\n").to_string(),
            "502, <html>bad gateway</html>"
        );
        assert_eq!(Status::of_response(503, b"").to_string(), "503");
        let long = Status::of_response(503, "x".repeat(9_999).as_bytes()).to_string();
        assert!(long.len() < SAID_CHARS_MAX + 10 && long.ends_with('…'), "{long}");
    }

    #[test]
    fn what_is_forbidden_says_which_rule_is_missing() {
        let failure = Failure::Forbidden { verb: "list", namespace: "shop".into(), said: "403 Forbidden".into() };
        let text = DiscoveryError::from(failure).to_string();
        for word in ["list of pods", "\"shop\"", "Role", "RoleBinding", "apiGroups [\"\"]", "[\"list\", \"watch\"]"] {
            assert!(text.contains(word), "{word} in {text}");
        }
    }

    #[test]
    fn only_what_somebody_must_mend_is_lasting() {
        assert!(!DiscoveryError::from(Failure::settings("x")).is_retryable());
        assert!(DiscoveryError::from(Failure::Said { code: 500, said: "500".into() }).is_retryable());
        assert!(DiscoveryError::from(Failure::Gone { said: "410".into() }).is_retryable());
    }
}
