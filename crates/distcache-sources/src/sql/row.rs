//! From a row of a database to the bytes of a value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use distcache::SourceError;
use serde::ser::{Serialize, SerializeMap, Serializer};
use sqlx::sqlite::SqliteRow;
use sqlx::{Column, Decode, Row, TypeInfo, ValueRef};

/// One cell as SQLite stores it, whatever the column was declared as.
enum Cell<'r> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'r [u8]),
    Blob(&'r [u8]),
}

/// The columns from `first` on: one as it is (NULL is `None`), several as a JSON object.
pub(super) fn value(row: &SqliteRow, first: usize) -> Result<Option<Bytes>, SourceError> {
    if row.len() > first + 1 {
        let json = serde_json::to_vec(&Object { row, first }).map_err(SourceError::failed)?;
        return Ok(Some(json.into()));
    }
    Ok(match cell(row, first)? {
        Cell::Null => None,
        Cell::Integer(n) => Some(n.to_string().into()),
        Cell::Real(x) => Some(format!("{x:?}").into()),
        Cell::Text(bytes) | Cell::Blob(bytes) => Some(Bytes::copy_from_slice(bytes)),
    })
}

/// One column as text, the way a key is written.
pub(super) fn text(row: &SqliteRow, column: usize) -> Result<Option<String>, SourceError> {
    Ok(match cell(row, column)? {
        Cell::Null => None,
        Cell::Integer(n) => Some(n.to_string()),
        Cell::Real(x) => Some(format!("{x:?}")),
        Cell::Text(bytes) | Cell::Blob(bytes) => {
            Some(std::str::from_utf8(bytes).map_err(SourceError::failed)?.to_owned())
        }
    })
}

fn cell(row: &SqliteRow, column: usize) -> Result<Cell<'_>, SourceError> {
    let value = row.try_get_raw(column).map_err(SourceError::failed)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let kind = value.type_info();
    match kind.name() {
        "INTEGER" => i64::decode(value).map(Cell::Integer),
        "REAL" => f64::decode(value).map(Cell::Real),
        "TEXT" => <&[u8]>::decode(value).map(Cell::Text),
        _ => <&[u8]>::decode(value).map(Cell::Blob),
    }
    .map_err(SourceError::failed)
}

struct Object<'r> {
    row: &'r SqliteRow,
    first: usize,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        let mut map = serializer.serialize_map(Some(self.row.len() - self.first))?;
        for column in &self.row.columns()[self.first..] {
            match cell(self.row, column.ordinal()).map_err(S::Error::custom)? {
                Cell::Null => map.serialize_entry(column.name(), &())?,
                Cell::Integer(n) => map.serialize_entry(column.name(), &n)?,
                Cell::Real(x) => map.serialize_entry(column.name(), &x)?,
                Cell::Text(bytes) => {
                    let text = std::str::from_utf8(bytes).map_err(S::Error::custom)?;
                    map.serialize_entry(column.name(), text)?;
                }
                Cell::Blob(bytes) => map.serialize_entry(column.name(), &STANDARD.encode(bytes))?,
            }
        }
        map.end()
    }
}
