//! A cell of MySQL or MariaDB, from their binary protocol
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html>).
//!
//! The invariant: bytes that are no value of their type are an error, never a panic.

use std::borrow::Cow;

use distcache::SourceError;
use sqlx::mysql::{MySqlRow, MySqlTypeInfo};
use sqlx::{Decode, MySql, Row, Type, TypeInfo, ValueRef};

use super::super::time::fraction;
use super::super::value::{Cell, Cells};

/// The types that have a form in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Null,
    Signed,
    Unsigned,
    Float,
    Double,
    Decimal,
    Text,
    Blob,
    Bit,
    Json,
    Date,
    Time,
    Datetime,
    Timestamp,
}

impl Form {
    pub(super) fn of(info: &MySqlTypeInfo) -> Option<Self> {
        Some(match info.name() {
            "NULL" => Self::Null,
            "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" => Self::Signed,
            "YEAR" => Self::Unsigned,
            name if name.ends_with(" UNSIGNED") => Self::Unsigned,
            "FLOAT" => Self::Float,
            "DOUBLE" => Self::Double,
            "DECIMAL" => Self::Decimal,
            "BIT" => Self::Bit,
            "JSON" => Self::Json,
            "DATE" => Self::Date,
            "TIME" => Self::Time,
            "DATETIME" => Self::Datetime,
            "TIMESTAMP" => Self::Timestamp,
            "GEOMETRY" => return None,
            "SET" => Self::Text,
            // Text of a binary collation is called binary by its name, but has another character set.
            _ if <str as Type<MySql>>::compatible(info) => Self::Text,
            _ => Self::Blob,
        })
    }
}

impl Cells for MySqlRow {
    fn cell(&self, column: usize) -> Result<Cell<'_>, SourceError> {
        let value = self.try_get_raw(column).map_err(SourceError::failed)?;
        if value.is_null() {
            return Ok(Cell::Null);
        }
        let info = value.type_info().into_owned();
        let Some(form) = Form::of(&info) else {
            return Err(SourceError::failed(format!("column {column}: no value of type {} is known", info.name())));
        };
        match form {
            Form::Null => Ok(Cell::Null),
            Form::Signed => Decode::<MySql>::decode(value).map(Cell::Integer),
            Form::Unsigned => Decode::<MySql>::decode(value).map(Cell::Unsigned),
            Form::Float => Decode::<MySql>::decode(value).map(Cell::Single),
            Form::Double => Decode::<MySql>::decode(value).map(Cell::Real),
            _ => <&[u8] as Decode<MySql>>::decode(value).and_then(|bytes| {
                form.read(bytes).ok_or_else(|| format!("column {column}: these bytes are no {}", info.name()).into())
            }),
        }
        .map_err(SourceError::failed)
    }
}

impl Form {
    fn read(self, bytes: &[u8]) -> Option<Cell<'_>> {
        let text = |text: Option<String>| Some(Cell::Text(Cow::Owned(text?.into_bytes())));
        match self {
            Self::Decimal => Some(Cell::Decimal(std::str::from_utf8(bytes).ok()?.to_owned())),
            Self::Text => Some(Cell::Text(Cow::Borrowed(bytes))),
            Self::Json => Some(Cell::Json(std::str::from_utf8(bytes).ok()?)),
            Self::Bit if bytes.len() <= 8 => {
                Some(Cell::Unsigned(bytes.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte))))
            }
            Self::Date => text(date(counted(bytes)?)),
            Self::Datetime => text(moment(counted(bytes)?, "")),
            // sqlx sets the time zone of its connections to UTC.
            Self::Timestamp => text(moment(counted(bytes)?, "Z")),
            Self::Time => text(time(counted(bytes)?)),
            _ => Some(Cell::Blob(bytes)),
        }
    }
}

/// Behind a byte that says how many there are.
fn counted(bytes: &[u8]) -> Option<&[u8]> {
    let (count, rest) = bytes.split_first()?;
    (rest.len() == usize::from(*count)).then_some(rest)
}

fn date(bytes: &[u8]) -> Option<String> {
    let [low, high, month, day, ..] = *bytes else { return None };
    Some(format!("{:04}-{month:02}-{day:02}", u16::from_le_bytes([low, high])))
}

fn moment(bytes: &[u8], zone: &str) -> Option<String> {
    Some(format!("{}T{}{zone}", date(bytes)?, clock(bytes.get(4..)?, 0)?))
}

/// A span of up to 838 hours, in both directions.
fn time(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return Some("00:00:00".into());
    }
    let (sign, days) = (bytes.first()?, bytes.get(1..5)?);
    let hours = u32::from_le_bytes(days.try_into().ok()?).checked_mul(24)?;
    Some(format!("{}{}", if *sign == 1 { "-" } else { "" }, clock(bytes.get(5..)?, hours)?))
}

fn clock(bytes: &[u8], more_hours: u32) -> Option<String> {
    let (hours, minutes, seconds, micros) = match *bytes {
        [] => (0, 0, 0, 0),
        [hours, minutes, seconds] => (hours, minutes, seconds, 0),
        [hours, minutes, seconds, a, b, c, d] => (hours, minutes, seconds, u32::from_le_bytes([a, b, c, d])),
        _ => return None,
    };
    Some(format!("{:02}:{minutes:02}:{seconds:02}{}", more_hours + u32::from(hours), fraction(micros)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_value_are_none() {
        for form in [Form::Date, Form::Datetime, Form::Timestamp, Form::Time] {
            for bytes in [&[][..], &[4, 1], &[1, 1], &[5, 1, 1, 1, 1, 1], &[9, 0, 255, 255, 255, 255, 1, 1, 1, 1]] {
                let is_date = form == Form::Date && bytes.len() == 6;
                assert!(is_date || form.read(bytes).is_none(), "{form:?} {bytes:?}");
            }
        }
    }

    #[test]
    fn times_are_written_as_iso_8601() {
        assert_eq!(moment(&[0xe8, 7, 2, 29], "Z").unwrap(), "2024-02-29T00:00:00Z");
        assert_eq!(time(&[1, 34, 0, 0, 0, 22, 59, 59]).unwrap(), "-838:59:59");
    }
}
