//! What is kept beside a value to ask whether it has changed (RFC 9110, sections 8.8 and 13.1).
//!
//! The invariant: what the server wrote is sent back letter by letter.

use hyper::header::{ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};

/// Kept as two lines; a header has no line break in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Validator {
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

impl Validator {
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let header = |name| headers.get(name).filter(|value: &&HeaderValue| !value.is_empty()).cloned();
        let validator = Self { etag: header(ETAG), last_modified: header(LAST_MODIFIED) };
        (validator.etag.is_some() || validator.last_modified.is_some()).then_some(validator)
    }

    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut lines = bytes.splitn(2, |byte| *byte == b'\n').map(|line| HeaderValue::from_bytes(line).ok());
        let mut next = || lines.next().flatten().filter(|line| !line.is_empty());
        Self { etag: next(), last_modified: next() }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let line = |value: &Option<HeaderValue>| value.as_ref().map_or(Vec::new(), |value| value.as_bytes().to_vec());
        [line(&self.etag), line(&self.last_modified)].join(&b'\n')
    }

    /// Both where there are both, as section 13.1.3 would have it.
    pub(super) fn conditions(self) -> HeaderMap {
        let pairs = [(IF_NONE_MATCH, self.etag), (IF_MODIFIED_SINCE, self.last_modified)];
        pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validator_comes_back_as_it_was() {
        for (etag, modified) in [("W/\"a\\b\"", "Sat, 29 Oct 1994 19:43:31 GMT"), ("\"x\"", ""), ("", "yesterday")] {
            let headers = [(ETAG, etag), (LAST_MODIFIED, modified)].map(|(name, value)| (name, value.parse().unwrap()));
            let validator = Validator::of(&HeaderMap::from_iter(headers)).unwrap();
            let read = Validator::read(&validator.bytes());
            assert_eq!(read, validator);
            let conditions = read.conditions();
            assert_eq!(conditions.get(IF_NONE_MATCH).map_or("", |etag| etag.to_str().unwrap()), etag);
            assert_eq!(conditions.get(IF_MODIFIED_SINCE).map_or("", |date| date.to_str().unwrap()), modified);
        }
        assert_eq!(Validator::of(&HeaderMap::new()), None);
        // Another source may have left it.
        assert!(Validator::read(b"\x00\x01").conditions().is_empty());
    }
}
