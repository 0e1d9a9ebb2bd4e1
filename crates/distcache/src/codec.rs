//! Between a program's own types and the bytes that are cached.
//!
//! Knows neither keys nor keyspaces, and keeps no state between values. The invariant: what a ready codec wrote it reads again
//! as the same value, and bytes that it did not write are an error, never a panic.

use std::error::Error as StdError;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a codec says about a value that it cannot write or bytes that it cannot read: any error, or text.
pub type CodecError = Box<dyn StdError + Send + Sync>;

/// Writes values of one type as bytes and reads them again.
///
/// Ready ones: [`Json`], [`Postcard`] and [`Raw`]. Every node has to read what any other wrote, also while a new version of the
/// program is rolled out.
///
/// ```
/// use distcache::{Bytes, Codec, CodecError};
///
/// struct BigEndian;
///
/// impl Codec<u64> for BigEndian {
///     fn encode(&self, value: &u64) -> Result<Bytes, CodecError> {
///         Ok(Bytes::copy_from_slice(&value.to_be_bytes()))
///     }
///
///     fn decode(&self, bytes: &Bytes) -> Result<u64, CodecError> {
///         Ok(u64::from_be_bytes(bytes[..].try_into()?))
///     }
/// }
///
/// let bytes = BigEndian.encode(&42)?;
/// assert_eq!(BigEndian.decode(&bytes)?, 42);
/// assert!(BigEndian.decode(&Bytes::from("forty-two")).is_err());
/// # Ok::<(), CodecError>(())
/// ```
pub trait Codec<T>: Send + Sync + 'static {
    /// The value as bytes.
    fn encode(&self, value: &T) -> Result<Bytes, CodecError>;

    /// The value that these bytes are. Whatever they are, this must not panic: they may have come from an older program.
    fn decode(&self, bytes: &Bytes) -> Result<T, CodecError>;
}

/// JSON: can be read by anything, also over HTTP, and takes fields that come and go (`#[serde(default)]`). Numbers with a
/// fraction come back to the last bit.
///
/// What it says about bytes that it cannot read may quote a part of them.
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

#[cfg(feature = "json")]
impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        Ok(serde_json::to_vec(value)?.into())
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// [Postcard](https://postcard.jamesmunns.com/wire-format): small and quick, and only for nodes that have the very same type:
/// fields have no names in it, so a field more or less makes other values of the old bytes, or none. It does not bound how deep
/// values are nested; for types that contain themselves take [`Json`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        Ok(postcard::to_stdvec(value)?.into())
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, CodecError> {
        match postcard::take_from_bytes(bytes)? {
            (value, []) => Ok(value),
            // The mark of another type, most often an older one.
            (_, rest) => Err(format!("{} bytes are left over behind the value", rest.len()).into()),
        }
    }
}

/// Bytes as they are: for [`Bytes`], `Vec<u8>` and, where they are UTF-8, `String`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    fn encode(&self, value: &Bytes) -> Result<Bytes, CodecError> {
        Ok(value.clone())
    }

    fn decode(&self, bytes: &Bytes) -> Result<Bytes, CodecError> {
        Ok(bytes.clone())
    }
}

impl Codec<Vec<u8>> for Raw {
    fn encode(&self, value: &Vec<u8>) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(value))
    }

    fn decode(&self, bytes: &Bytes) -> Result<Vec<u8>, CodecError> {
        Ok(bytes.to_vec())
    }
}

impl Codec<String> for Raw {
    fn encode(&self, value: &String) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn decode(&self, bytes: &Bytes) -> Result<String, CodecError> {
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        id: u64,
        change: i64,
        weight: f64,
        note: Option<String>,
        lines: Vec<Line>,
        tags: BTreeMap<String, bool>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Line {
        Nothing,
        Text(String),
        Article { number: u32, price: f32 },
    }

    fn lines() -> impl Strategy<Value = Line> {
        let article = (any::<u32>(), any::<f32>().prop_filter("JSON has no NaN", |price| price.is_finite()));
        prop_oneof![
            Just(Line::Nothing),
            any::<String>().prop_map(Line::Text),
            article.prop_map(|(number, price)| Line::Article { number, price }),
        ]
    }

    prop_compose! {
        fn orders()(
            (id, change, note) in any::<(u64, i64, Option<String>)>(),
            weight in any::<f64>().prop_filter("JSON has no NaN", |weight| weight.is_finite()),
            lines in prop::collection::vec(lines(), 0..8),
            tags in prop::collection::btree_map(any::<String>(), any::<bool>(), 0..4),
        ) -> Order {
            Order { id, change, weight, note, lines, tags }
        }
    }

    fn there_and_back<T>(codec: &impl Codec<T>, value: &T) -> T {
        codec.decode(&codec.encode(value).unwrap()).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_was_written_is_read_again(order in orders(), bytes: Vec<u8>, text: String) {
            #[cfg(feature = "json")]
            prop_assert_eq!(&there_and_back(&Json, &order), &order);
            prop_assert_eq!(&there_and_back(&Postcard, &order), &order);
            prop_assert_eq!(&there_and_back(&Raw, &bytes), &bytes);
            prop_assert_eq!(&there_and_back(&Raw, &text), &text);
            let shared = Bytes::from(bytes);
            prop_assert_eq!(there_and_back(&Raw, &shared), shared);
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_refused(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            #[cfg(feature = "json")]
            let _ = Codec::<Order>::decode(&Json, &bytes);
            let _ = Codec::<Order>::decode(&Postcard, &bytes);
            prop_assert_eq!(Codec::<String>::decode(&Raw, &bytes).is_ok(), std::str::from_utf8(&bytes).is_ok());
        }

        #[test]
        fn what_is_cut_off_or_goes_on_is_refused(order in orders(), cut: prop::sample::Index) {
            let whole = Codec::encode(&Postcard, &order).unwrap();
            let short = whole.slice(..cut.index(whole.len()));
            prop_assert!(Codec::<Order>::decode(&Postcard, &short).is_err());
            let long = Bytes::from([&whole[..], b"1"].concat());
            prop_assert!(Codec::<Order>::decode(&Postcard, &long).is_err());
            #[cfg(feature = "json")]
            {
                let whole = Codec::encode(&Json, &order).unwrap();
                let long = Bytes::from([&whole[..], b"1"].concat());
                prop_assert!(Codec::<Order>::decode(&Json, &whole.slice(..cut.index(whole.len()))).is_err());
                prop_assert!(Codec::<Order>::decode(&Json, &long).is_err());
            }
        }
    }

    #[test]
    fn bytes_behind_a_value_are_counted() {
        let error = Codec::<u8>::decode(&Postcard, &Bytes::from_static(&[1, 2, 3])).unwrap_err();
        assert_eq!(error.to_string(), "2 bytes are left over behind the value");
    }

    #[test]
    fn shared_bytes_stay_shared() {
        let value = Bytes::from(vec![7; 64]);
        assert_eq!(there_and_back(&Raw, &value).as_ptr(), value.as_ptr());
    }
}
