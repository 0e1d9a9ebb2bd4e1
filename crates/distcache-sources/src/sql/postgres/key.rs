//! A key as PostgreSQL's types take it, in its binary format.
//!
//! Knows types and bytes, no query. The invariant: a key that is not a value of the type is never sent.

use std::borrow::Cow;

use distcache::SourceError;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgTypeKind};
use sqlx::{Postgres, Type, TypeInfo};

/// What a key has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyForm {
    Int2,
    Int4,
    Int8,
    Oid,
    Uuid,
    /// Compared letter by letter.
    Text,
    /// `char(n)`, which does not count spaces at its end.
    Padded,
    /// Text that its type compares in a way of its own, such as citext, or refuses, such as an enum.
    OtherText,
}

impl KeyForm {
    pub(super) fn of(info: &PgTypeInfo) -> Option<Self> {
        match info.kind() {
            PgTypeKind::Domain(inner) => return Self::of(inner),
            PgTypeKind::Enum(_) => return Some(Self::OtherText),
            PgTypeKind::Simple => {}
            _ => return None,
        }
        Some(match info.name() {
            "INT2" => Self::Int2,
            "INT4" => Self::Int4,
            "INT8" => Self::Int8,
            "OID" => Self::Oid,
            "UUID" => Self::Uuid,
            "TEXT" | "VARCHAR" | "UNKNOWN" => Self::Text,
            "CHAR" => Self::Padded,
            "NAME" | "citext" => Self::OtherText,
            _ => return None,
        })
    }

    /// Whether two keys are one to the database exactly if they have one [`spelling`](Self::spelling).
    pub(super) fn is_exact(self) -> bool {
        self != Self::OtherText
    }

    /// `None` for a key that is no value of this type.
    pub(super) fn bytes(self, key: &str) -> Option<Vec<u8>> {
        match self {
            Self::Int2 => key.parse::<i16>().ok().map(|n| n.to_be_bytes().into()),
            Self::Int4 => key.parse::<i32>().ok().map(|n| n.to_be_bytes().into()),
            Self::Int8 => key.parse::<i64>().ok().map(|n| n.to_be_bytes().into()),
            Self::Oid => key.parse::<u32>().ok().map(|n| n.to_be_bytes().into()),
            Self::Uuid => uuid(key).map(Into::into),
            // PostgreSQL has no text with a NUL in it.
            Self::Text | Self::Padded | Self::OtherText => (!key.contains('\0')).then(|| key.into()),
        }
    }

    /// The one way to write this key, or what the database answered for it.
    pub(super) fn spelling(self, key: &str) -> Cow<'_, str> {
        let number = || key.parse::<i64>().map(|n| Cow::Owned(n.to_string())).unwrap_or(Cow::Borrowed(key));
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 | Self::Oid => number(),
            Self::Uuid => uuid(key).map_or(Cow::Borrowed(key), |bytes| Cow::Owned(uuid_text(&bytes))),
            Self::Padded => Cow::Borrowed(key.trim_end_matches(' ')),
            Self::Text | Self::OtherText => Cow::Borrowed(key),
        }
    }
}

/// With or without hyphens, in small or capital letters.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let hyphens = [8, 13, 18, 23];
    let is_hyphenated = text.len() == 36 && hyphens.iter().all(|at| text.as_bytes()[*at] == b'-');
    if !is_hyphenated && text.len() != 32 {
        return None;
    }
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u128::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok().map(u128::to_be_bytes)
}

pub(super) fn uuid_text(bytes: &[u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(*bytes));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// One dimension, counted from 1, no NULL in it.
pub(super) fn array(info: &PgTypeInfo, elements: &[Vec<u8>]) -> Result<Vec<u8>, SourceError> {
    let PgTypeKind::Array(element) = info.kind() else { return Err(SourceError::failed("the parameter is no array")) };
    let oid = element.oid().ok_or_else(|| SourceError::failed("the type of the array's elements is not known"))?.0;
    let length = u32::try_from(elements.len()).map_err(SourceError::failed)?;
    let bytes: usize = elements.iter().map(|element| element.len() + 4).sum();
    let mut array = Vec::with_capacity(20 + bytes);
    for header in [1, 0, oid, length, 1] {
        array.extend_from_slice(&header.to_be_bytes());
    }
    for element in elements {
        array.extend_from_slice(&u32::try_from(element.len()).map_err(SourceError::failed)?.to_be_bytes());
        array.extend_from_slice(element);
    }
    Ok(array)
}

/// A parameter in the binary format of its type.
pub(super) struct Bound<'q> {
    pub(super) info: &'q PgTypeInfo,
    pub(super) bytes: &'q [u8],
}

impl Encode<'_, Postgres> for Bound<'_> {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buf.extend_from_slice(self.bytes);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.info.clone())
    }
}

/// Asked for only where a value does not say its type by itself.
impl Type<Postgres> for Bound<'_> {
    fn type_info() -> PgTypeInfo {
        <str as Type<Postgres>>::type_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_no_value_of_the_type_is_not_sent() {
        for (form, wrong) in [
            (KeyForm::Int2, "32768"),
            (KeyForm::Int4, "4x"),
            (KeyForm::Int8, ""),
            (KeyForm::Int8, "9223372036854775808"),
            (KeyForm::Oid, "-1"),
            (KeyForm::Uuid, "6f1e7d3e-0000-4000-8000-00000000000g"),
            (KeyForm::Uuid, "+f1e7d3e000040008000000000000001"),
            (KeyForm::Uuid, "6f1e7d3e-0000-4000-8000-0000000000€"),
            (KeyForm::Text, "a\0b"),
        ] {
            assert_eq!(form.bytes(wrong), None, "{form:?} {wrong}");
        }
        assert_eq!(KeyForm::Int4.bytes("-2").unwrap(), [0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(KeyForm::Text.bytes("").unwrap(), b"");
    }

    #[test]
    fn a_uuid_has_one_spelling() {
        let text = "6f1e7d3e-00a0-4000-8000-000000000001";
        let other = ["6F1E7D3E-00A0-4000-8000-000000000001", "6f1e7d3e00a040008000000000000001"];
        for key in other {
            assert_eq!(KeyForm::Uuid.spelling(key), text);
            assert_eq!(KeyForm::Uuid.bytes(key), KeyForm::Uuid.bytes(text));
        }
    }
}
