//! A key as MySQL is given it.
//!
//! The invariant: a key of an integer column is an integer, or is not sent.

use std::fmt;

use serde::Serialize;

use super::super::builder::KeyType;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Key<'k> {
    Text(&'k str),
    Signed(i64),
    Unsigned(u64),
}

/// `None` for a key that is no value of this type.
pub(super) fn parsed(key_type: KeyType, key: &str) -> Option<Key<'_>> {
    match key_type {
        KeyType::Text => Some(Key::Text(key)),
        KeyType::Integer => match key.parse() {
            Ok(signed) => Some(Key::Signed(signed)),
            Err(_) => key.parse().ok().map(Key::Unsigned),
        },
    }
}

/// The one way to write it.
impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Signed(n) => n.fmt(f),
            Self::Unsigned(n) => n.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_integer_is_no_key_of_an_integer_column() {
        let integer = |key| parsed(KeyType::Integer, key);
        assert_eq!(integer("-7"), Some(Key::Signed(-7)));
        assert_eq!(integer("18446744073709551615"), Some(Key::Unsigned(u64::MAX)));
        for wrong in ["", "42nd", "4.0", "1e3", "18446744073709551616", " 1"] {
            assert_eq!(integer(wrong), None, "{wrong}");
        }
        assert_eq!(parsed(KeyType::Text, "42nd"), Some(Key::Text("42nd")));
    }
}
