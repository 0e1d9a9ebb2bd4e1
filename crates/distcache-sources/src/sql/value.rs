//! From a row of a database to the bytes of a value.
//!
//! Knows cells, not where they come from. The invariant: the same row of the same types makes the same bytes, whatever the
//! database.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use distcache::SourceError;
use serde::ser::{Error as _, Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use sqlx::{Column, Row};

/// One cell, by what it is.
// Not every database has all of them.
#[cfg_attr(not(all(feature = "sqlite", feature = "postgres", feature = "mysql")), allow(dead_code))]
pub(super) enum Cell<'r> {
    Null,
    Bool(bool),
    Integer(i64),
    Unsigned(u64),
    Single(f32),
    Real(f64),
    /// A decimal number as the database writes it, no digit lost.
    Decimal(String),
    Text(Cow<'r, [u8]>),
    Blob(&'r [u8]),
    /// A document, as the database writes it.
    Json(&'r str),
}

impl Cell<'_> {
    fn plain(&self) -> Option<Bytes> {
        Some(match self {
            Cell::Null => return None,
            Cell::Bool(is) => is.to_string().into(),
            Cell::Integer(n) => n.to_string().into(),
            Cell::Unsigned(n) => n.to_string().into(),
            Cell::Single(x) => format!("{x:?}").into(),
            Cell::Real(x) => format!("{x:?}").into(),
            Cell::Decimal(digits) => digits.clone().into(),
            Cell::Text(bytes) => Bytes::copy_from_slice(bytes),
            Cell::Blob(bytes) => Bytes::copy_from_slice(bytes),
            Cell::Json(document) => Bytes::copy_from_slice(document.as_bytes()),
        })
    }
}

/// The columns of a row, one by one.
pub(super) trait Cells: Row {
    fn cell(&self, column: usize) -> Result<Cell<'_>, SourceError>;
}

/// The columns from `first` on: one as it is (NULL is `None`), several as a JSON object.
pub(super) fn value(row: &impl Cells, first: usize) -> Result<Option<Bytes>, SourceError> {
    if row.len() > first + 1 {
        let json = serde_json::to_vec(&Object { row, first }).map_err(SourceError::failed)?;
        return Ok(Some(json.into()));
    }
    Ok(row.cell(first)?.plain())
}

/// One column as text, the way a key is written.
pub(super) fn text(row: &impl Cells, column: usize) -> Result<Option<String>, SourceError> {
    let Some(bytes) = row.cell(column)?.plain() else { return Ok(None) };
    String::from_utf8(bytes.into()).map(Some).map_err(SourceError::failed)
}

struct Object<'r, R> {
    row: &'r R,
    first: usize,
}

impl<R: Cells> Serialize for Object<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.row.len() - self.first))?;
        for column in &self.row.columns()[self.first..] {
            let cell = self.row.cell(column.ordinal()).map_err(S::Error::custom)?;
            map.serialize_entry(column.name(), &cell)?;
        }
        map.end()
    }
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cell::Null => serializer.serialize_unit(),
            Cell::Bool(is) => serializer.serialize_bool(*is),
            Cell::Integer(n) => serializer.serialize_i64(*n),
            Cell::Unsigned(n) => serializer.serialize_u64(*n),
            Cell::Single(x) => serializer.serialize_f32(*x),
            Cell::Real(x) => serializer.serialize_f64(*x),
            // NaN and Infinity are numbers of a database, not of JSON.
            Cell::Decimal(digits) => match serde_json::from_str::<&RawValue>(digits) {
                Ok(number) => number.serialize(serializer),
                Err(_) => serializer.serialize_str(digits),
            },
            Cell::Text(bytes) => serializer.serialize_str(std::str::from_utf8(bytes).map_err(S::Error::custom)?),
            Cell::Blob(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            Cell::Json(document) => {
                serde_json::from_str::<&RawValue>(document).map_err(S::Error::custom)?.serialize(serializer)
            }
        }
    }
}
