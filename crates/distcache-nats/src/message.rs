//! What nodes say to each other by way of the NATS server, and on which subjects.
//!
//! Knows no connection. The invariant: two clusters never share a subject, and nothing that is not an answer of this version is
//! taken for one.

use std::net::SocketAddr;

use bytes::Bytes;

/// What every message begins with; the number is the version.
const MARK: &str = "distcache/1";
const ANY_VERSION: &str = "distcache/";
/// No message is longer: the mark, a space, an IPv6 address with scope and port.
const MESSAGE_BYTES_MAX: usize = 128;
pub(crate) const PREFIX_BYTES_MAX: usize = 128;

/// What a node asks.
pub(crate) const QUESTION: Bytes = Bytes::from_static(MARK.as_bytes());

/// The subjects of one cluster. All of them stand below one, so that one permission covers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subjects {
    /// Where nodes ask who is there.
    pub(crate) question: String,
    /// What the subjects that answers go to begin with.
    pub(crate) answers: String,
}

impl Subjects {
    pub(crate) fn new(prefix: &str, cluster_name: &str) -> Self {
        let cluster = token(cluster_name);
        Self { question: format!("{prefix}.{cluster}.nodes"), answers: format!("{prefix}.{cluster}.answers") }
    }

    /// Whether an answer may go there. Otherwise whoever asks could have every node speak on any subject.
    pub(crate) fn takes_answers(&self, subject: &str) -> bool {
        subject.strip_prefix(&self.answers).is_some_and(|rest| rest.starts_with('.'))
    }
}

/// A name as one token of a subject: letters, digits, `-` and `_` as they are, every other byte as `%` and two digits.
fn token(name: &str) -> String {
    let mut token = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => token.push(byte.into()),
            _ => token.push_str(&format!("%{byte:02X}")),
        }
    }
    token
}

/// Why a prefix cannot be part of a subject; `None`: it can.
pub(crate) fn fault_of_prefix(prefix: &str) -> Option<&'static str> {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '*' | '>');
    match prefix {
        prefix if prefix.len() > PREFIX_BYTES_MAX => Some("is longer than 128 bytes"),
        prefix if prefix.split('.').any(str::is_empty) => Some("has an empty part"),
        prefix if prefix.starts_with('$') => Some("begins with $, which is the server's own"),
        prefix if !prefix.chars().all(is_plain) => Some("has a wildcard, a space or a character that is not ASCII"),
        _ => None,
    }
}

/// What this node answers.
pub(crate) fn answer(me: SocketAddr) -> Bytes {
    format!("{MARK} {me}").into()
}

/// Why a message is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("it has {0} bytes, more than {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    #[error("it is no answer of a node")]
    Foreign,
    #[error("it is of another version")]
    OtherVersion,
    #[error("it names no address")]
    NoAddress,
}

pub(crate) fn read_answer(message: &[u8]) -> Result<SocketAddr, Wrong> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(Wrong::TooLong(message.len()));
    }
    let text = std::str::from_utf8(message).map_err(|_| Wrong::Foreign)?;
    match text.split_once(' ') {
        Some((MARK, addr)) => addr.parse().map_err(|_| Wrong::NoAddress),
        Some((mark, _)) if mark.starts_with(ANY_VERSION) => Err(Wrong::OtherVersion),
        _ => Err(Wrong::Foreign),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_as_it_was_written() {
        for addr in ["10.0.0.1:3322", "[2001:db8::1]:3322", "[fe80::1%4294967295]:65535"] {
            let addr = addr.parse().unwrap();
            assert_eq!(read_answer(&answer(addr)), Ok(addr));
        }
        assert!(answer("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535".parse().unwrap()).len() < 128);
    }

    #[test]
    fn whatever_else_is_said_is_passed_over() {
        let wrong = |message: &[u8]| read_answer(message).unwrap_err();
        assert_eq!(wrong(b""), Wrong::Foreign);
        assert_eq!(wrong(b"\xff\xfe"), Wrong::Foreign);
        assert_eq!(wrong(b"10.0.0.1:3322"), Wrong::Foreign);
        assert_eq!(wrong(&QUESTION), Wrong::Foreign);
        assert_eq!(wrong(b"distcache/2 10.0.0.1:3322"), Wrong::OtherVersion);
        assert_eq!(wrong(b"distcache/1 cache.internal:3322"), Wrong::NoAddress);
        assert_eq!(wrong(b"distcache/1 10.0.0.1:3322 and more"), Wrong::NoAddress);
        assert_eq!(wrong(&[b' '; 1 << 20]), Wrong::TooLong(1 << 20));
    }

    #[test]
    fn clusters_have_subjects_of_their_own_whatever_their_names() {
        let question = |cluster| Subjects::new("distcache", cluster).question;
        assert_eq!(question("shop"), "distcache.shop.nodes");
        assert_eq!(question("shop.eu *>"), "distcache.shop%2Eeu%20%2A%3E.nodes");
        assert_ne!(question("shop.eu"), question("shop%2Eeu"));
        assert_ne!(question("é"), question("e"));
    }

    #[test]
    fn answers_go_to_the_cluster_s_own_subjects_only() {
        let subjects = Subjects::new("distcache", "shop");
        assert!(subjects.takes_answers("distcache.shop.answers.x1"));
        for other in ["distcache.shop.nodes", "distcache.shop.answers", "distcache.shop.answersx", "_INBOX.x1", ""] {
            assert!(!subjects.takes_answers(other), "{other}");
        }
    }

    #[test]
    fn a_prefix_is_made_of_plain_parts() {
        for fine in ["distcache", "team-a.distcache", "x_1"] {
            assert_eq!(fault_of_prefix(fine), None, "{fine}");
        }
        for fault in ["", ".", "a..b", "a.", "a.*", "a.>", "a b", "a\r\nPUB", "ä", "$SYS", &"x".repeat(129)] {
            assert!(fault_of_prefix(fault).is_some(), "{fault:?}");
        }
    }
}
