//! Bodies of items: small ones as a map, which people can read in the console, large ones as gzip of their JSON.
//!
//! DynamoDB takes 400 KB an item, and a decision about thousands of pods is larger than that as a map; as gzip it is a
//! tenth. Readers take either form, whatever the size.

use std::io::{Read as _, Write as _};

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::Value;

use super::item::{Row, from_attribute, to_attribute};
use crate::state::StoreError;

/// A body whose JSON has at most so many bytes stays readable.
pub(super) const READABLE: usize = 32 * 1024;
/// A body whose JSON has more bytes than this is neither written nor read: a little gzip may hold a great deal.
const TEXT: usize = 64 << 20;

/// The attribute of a body that people can read.
const MAP: &str = "body";
/// The attribute of one that they cannot.
const GZIP: &str = "body_gzip";

/// A body as it is stored.
#[derive(Debug)]
pub(super) struct Body {
    /// The attribute that has it.
    pub(super) name: &'static str,
    /// The attribute that has one of the other form, and must not stay.
    pub(super) other: &'static str,
    pub(super) value: AttributeValue,
    /// About so many bytes by DynamoDB's count.
    pub(super) bytes: usize,
}

/// The body of item `key` in the form that its size asks for.
pub(super) fn store(key: &str, body: &Value) -> Result<Body, StoreError> {
    let corrupt = |reason: String| StoreError::Corrupt {
        key: key.to_owned(),
        reason,
    };
    let text = serde_json::to_vec(body).map_err(|error| corrupt(error.to_string()))?;
    if text.len() <= READABLE {
        return Ok(Body {
            name: MAP,
            other: GZIP,
            value: to_attribute(body),
            bytes: text.len(),
        });
    }
    if text.len() > TEXT {
        return Err(StoreError::TooLarge {
            key: key.to_owned(),
            bytes: text.len(),
            limit: TEXT,
        });
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    let packed = packed.write_all(&text).and_then(|()| packed.finish());
    let packed = packed.map_err(|error| corrupt(error.to_string()))?;
    Ok(Body {
        name: GZIP,
        other: MAP,
        bytes: packed.len(),
        value: AttributeValue::B(Blob::new(packed)),
    })
}

/// The body of a row in either form; an error says what is wrong.
pub(super) fn load(row: &Row) -> Result<Value, String> {
    match (row.get(MAP), row.get(GZIP)) {
        (Some(body), _) => from_attribute(body),
        (None, Some(AttributeValue::B(packed))) => {
            unpack(packed.as_ref()).map_err(|error| format!("attribute `{GZIP}`: {error}"))
        }
        (None, Some(_)) => Err(format!("attribute `{GZIP}` is wrong")),
        (None, None) => Err(format!("attribute `{MAP}` is missing")),
    }
}

fn unpack(packed: &[u8]) -> Result<Value, String> {
    let mut text = Vec::new();
    let most = u64::try_from(TEXT).unwrap_or(u64::MAX);
    GzDecoder::new(packed)
        .take(most.saturating_add(1))
        .read_to_end(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() > TEXT {
        return Err(format!("more than {TEXT} bytes"));
    }
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use serde_json::json;

    use super::*;

    /// A body whose JSON has exactly so many bytes.
    fn body(bytes: usize) -> Value {
        json!("x".repeat(bytes - 2))
    }

    fn row(stored: Body) -> Row {
        Row::from([(stored.name.to_owned(), stored.value)])
    }

    #[test]
    fn a_body_is_readable_up_to_its_limit_and_packed_from_there_and_comes_back_either_way() {
        for (bytes, name, other) in [(READABLE, MAP, GZIP), (READABLE + 1, GZIP, MAP)] {
            let body = body(bytes);
            let stored = store("op#1", &body).unwrap();
            assert_eq!((stored.name, stored.other), (name, other));
            assert_eq!(load(&row(stored)).unwrap(), body);
        }
        let packed = store("op#1", &body(READABLE + 1)).unwrap();
        assert!(packed.bytes < READABLE / 10, "{}", packed.bytes);
    }

    #[test]
    fn a_body_beyond_all_bounds_is_neither_written_nor_read() {
        let error = store("op#1", &body(TEXT + 1)).unwrap_err();
        assert!(
            matches!(&error, StoreError::TooLarge { key, .. } if key == "op#1"),
            "{error}"
        );
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&vec![b' '; TEXT + 1]).unwrap();
        let packed = AttributeValue::B(Blob::new(packed.finish().unwrap()));
        let error = load(&Row::from([(GZIP.to_owned(), packed)])).unwrap_err();
        assert!(error.contains("more than"), "{error}");
    }

    #[test]
    fn what_is_no_body_is_named() {
        let junk = AttributeValue::B(Blob::new(*b"junk"));
        assert!(
            load(&Row::from([(GZIP.to_owned(), junk)]))
                .unwrap_err()
                .contains(GZIP)
        );
        let text = AttributeValue::S("junk".to_owned());
        assert!(
            load(&Row::from([(GZIP.to_owned(), text)]))
                .unwrap_err()
                .contains("is wrong")
        );
        assert!(load(&Row::new()).unwrap_err().contains("is missing"));
    }
}
