//! A cell of PostgreSQL, from its binary format.
//!
//! Knows the formats of its types (<https://www.postgresql.org/docs/current/datatype.html>, and the `…send` functions of the
//! server). The invariant: bytes that are no value of their type are an error, never a panic.

use std::borrow::Cow;
use std::fmt::Write as _;

use distcache::SourceError;
use sqlx::postgres::{PgRow, PgTypeInfo, PgTypeKind};
use sqlx::{Row, TypeInfo, ValueRef};

use super::super::time::{date, fraction};
use super::super::value::{Cell, Cells};
use super::key::uuid_text;

/// The types that have a form in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    Text,
    Bytea,
    Json,
    Jsonb,
    Uuid,
    Date,
    Time,
    Timestamp,
    Timestamptz,
}

impl Form {
    pub(super) fn of(info: &PgTypeInfo) -> Option<Self> {
        match info.kind() {
            PgTypeKind::Domain(inner) => return Self::of(inner),
            PgTypeKind::Enum(_) => return Some(Self::Text),
            PgTypeKind::Simple | PgTypeKind::Pseudo => {}
            _ => return None,
        }
        Some(match info.name() {
            "BOOL" => Self::Bool,
            "INT2" => Self::Int2,
            "INT4" => Self::Int4,
            "INT8" => Self::Int8,
            "OID" => Self::Oid,
            "FLOAT4" => Self::Float4,
            "FLOAT8" => Self::Float8,
            "NUMERIC" => Self::Numeric,
            "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "UNKNOWN" | "\"CHAR\"" | "XML" | "xml" | "citext" => Self::Text,
            "BYTEA" => Self::Bytea,
            "JSON" => Self::Json,
            "JSONB" => Self::Jsonb,
            "UUID" => Self::Uuid,
            "DATE" => Self::Date,
            "TIME" => Self::Time,
            "TIMESTAMP" => Self::Timestamp,
            "TIMESTAMPTZ" => Self::Timestamptz,
            _ => return None,
        })
    }

    fn read(self, bytes: &[u8]) -> Option<Cell<'_>> {
        let text = |text: String| Cell::Text(Cow::Owned(text.into_bytes()));
        Some(match self {
            Self::Bool => Cell::Bool(*bytes.first()? != 0),
            Self::Int2 => Cell::Integer(i16::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Int4 => Cell::Integer(i32::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Int8 => Cell::Integer(i64::from_be_bytes(bytes.try_into().ok()?)),
            Self::Oid => Cell::Integer(u32::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Float4 => Cell::Single(f32::from_be_bytes(bytes.try_into().ok()?)),
            Self::Float8 => Cell::Real(f64::from_be_bytes(bytes.try_into().ok()?)),
            Self::Numeric => Cell::Decimal(numeric(bytes)?),
            Self::Text => Cell::Text(Cow::Borrowed(bytes)),
            Self::Bytea => Cell::Blob(bytes),
            Self::Json => Cell::Json(std::str::from_utf8(bytes).ok()?),
            // A version, and the text.
            Self::Jsonb => Cell::Json(std::str::from_utf8(bytes.strip_prefix(&[1])?).ok()?),
            Self::Uuid => text(uuid_text(bytes.try_into().ok()?)),
            Self::Date => text(day(i32::from_be_bytes(bytes.try_into().ok()?))),
            Self::Time => text(time_of_day(i64::from_be_bytes(bytes.try_into().ok()?))),
            Self::Timestamp => text(moment(i64::from_be_bytes(bytes.try_into().ok()?), "")),
            Self::Timestamptz => text(moment(i64::from_be_bytes(bytes.try_into().ok()?), "Z")),
        })
    }
}

impl Cells for PgRow {
    fn cell(&self, column: usize) -> Result<Cell<'_>, SourceError> {
        let value = self.try_get_raw(column).map_err(SourceError::failed)?;
        if value.is_null() {
            return Ok(Cell::Null);
        }
        let bytes = value.as_bytes().map_err(SourceError::failed)?;
        let info = value.type_info();
        let read = Form::of(&info).and_then(|form| form.read(bytes));
        read.ok_or_else(|| SourceError::failed(format!("column {column}: no value of type {} is known", info.name())))
    }
}

/// Digits to the base of 10,000: how many, the weight of the first, the sign, decimals to show.
fn numeric(bytes: &[u8]) -> Option<String> {
    let mut words = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (count, weight, sign, scale) = (words.next()?, words.next()? as i16, words.next()?, words.next()?);
    let digits: Vec<u16> = words.collect();
    match sign {
        0x0000 | 0x4000 => {}
        0xC000 => return Some("NaN".into()),
        0xD000 => return Some("Infinity".into()),
        0xF000 => return Some("-Infinity".into()),
        _ => return None,
    }
    if digits.len() != usize::from(count) {
        return None;
    }
    let digit =
        |place: i32| usize::try_from(i32::from(weight) - place).ok().and_then(|at| digits.get(at)).unwrap_or(&0);
    let mut text = String::from(if sign == 0x4000 { "-" } else { "" });
    write!(text, "{}", if weight < 0 { &0 } else { digit(weight.into()) }).ok()?;
    for place in (0..i32::from(weight)).rev() {
        write!(text, "{:04}", digit(place)).ok()?;
    }
    if scale > 0 {
        let decimals =
            (1..=i32::from(scale.div_ceil(4))).map(|place| format!("{:04}", digit(-place))).collect::<String>();
        write!(text, ".{}", &decimals[..usize::from(scale)]).ok()?;
    }
    Some(text)
}

/// Days since 1970 of 2000-01-01, where PostgreSQL begins to count.
const EPOCH_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;

fn day(days: i32) -> String {
    match days {
        i32::MAX => "infinity".into(),
        i32::MIN => "-infinity".into(),
        days => date(i64::from(days) + EPOCH_DAYS),
    }
}

fn moment(micros: i64, zone: &str) -> String {
    match micros {
        i64::MAX => "infinity".into(),
        i64::MIN => "-infinity".into(),
        micros => {
            let days = date(micros.div_euclid(DAY_MICROS) + EPOCH_DAYS);
            format!("{days}T{}{zone}", time_of_day(micros.rem_euclid(DAY_MICROS)))
        }
    }
}

fn time_of_day(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}{}", fraction((micros % 1_000_000) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn a_numeric_keeps_its_digits() {
        let shown = |all: &[u16]| numeric(&words(all)).unwrap();
        assert_eq!(shown(&[0, 0, 0, 0]), "0");
        assert_eq!(shown(&[3, 1, 0x4000, 3, 1, 2345, 6780]), "-12345.678");
        assert_eq!(shown(&[1, 2, 0, 0, 7]), "700000000");
        assert_eq!(shown(&[1, (-2_i16) as u16, 0, 8, 42]), "0.00000042");
        assert_eq!(shown(&[0, 0, 0xC000, 0]), "NaN");
    }

    #[test]
    fn bytes_that_are_no_value_are_none() {
        assert_eq!(numeric(&words(&[2, 0, 0, 0, 1])), None);
        assert_eq!(numeric(&[]), None);
        for form in
            [Form::Bool, Form::Int2, Form::Int8, Form::Float4, Form::Jsonb, Form::Uuid, Form::Date, Form::Timestamp]
        {
            assert!(form.read(&[]).is_none(), "{form:?}");
        }
    }

    #[test]
    fn moments_are_written_as_iso_8601() {
        assert_eq!(moment(0, ""), "2000-01-01T00:00:00");
        assert_eq!(moment(-1, "Z"), "1999-12-31T23:59:59.999999Z");
        assert_eq!(moment(i64::MAX, "Z"), "infinity");
        assert_eq!(moment(86_400_000_000 * 31 + 500_000, ""), "2000-02-01T00:00:00.5");
        assert_eq!(day(60), "2000-03-01");
    }
}
