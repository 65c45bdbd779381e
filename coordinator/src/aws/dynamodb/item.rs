//! Items as rows of the table: JSON as DynamoDB's own types, so that people can read it in the console.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde_json::Value;

use super::body;
use crate::{
    ids::Epoch,
    state::{Item, LeaseRow, STATE, StoreError},
};

pub(super) type Row = HashMap<String, AttributeValue>;

pub(super) fn number(number: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Epoch seconds, rounded up: an item never lapses before its time.
pub(super) fn seconds(time: Timestamp) -> i64 {
    time.as_second() + i64::from(time.subsec_nanosecond() > 0)
}

pub(super) fn to_attribute(value: &Value) -> AttributeValue {
    match value {
        Value::Null => AttributeValue::Null(true),
        Value::Bool(value) => AttributeValue::Bool(*value),
        Value::Number(value) => AttributeValue::N(value.to_string()),
        Value::String(text) => AttributeValue::S(text.clone()),
        Value::Array(values) => AttributeValue::L(values.iter().map(to_attribute).collect()),
        Value::Object(fields) => AttributeValue::M(
            fields
                .iter()
                .map(|(name, value)| (name.clone(), to_attribute(value)))
                .collect(),
        ),
    }
}

pub(super) fn from_attribute(value: &AttributeValue) -> Result<Value, String> {
    Ok(match value {
        AttributeValue::Null(_) => Value::Null,
        AttributeValue::Bool(value) => Value::Bool(*value),
        // A number that DynamoDB holds in more digits than JSON's readers keep is read as a float.
        AttributeValue::N(text) => match text.parse::<i64>() {
            Ok(number) => Value::from(number),
            Err(_) => serde_json::from_str::<serde_json::Number>(text)
                .map(Value::Number)
                .map_err(|error| format!("number `{text}`: {error}"))?,
        },
        AttributeValue::S(text) => Value::String(text.clone()),
        AttributeValue::L(values) => {
            Value::Array(values.iter().map(from_attribute).collect::<Result<_, _>>()?)
        }
        AttributeValue::M(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| Ok((name.clone(), from_attribute(value)?)))
                .collect::<Result<_, String>>()?,
        ),
        other => return Err(format!("an attribute of another type: {other:?}")),
    })
}

/// A field of a row in a type of its own.
fn field<T: std::str::FromStr>(row: &Row, key: &str, name: &str) -> Result<Option<T>, StoreError> {
    let corrupt = || StoreError::Corrupt {
        key: key.to_owned(),
        reason: format!("attribute `{name}` is wrong"),
    };
    match row.get(name) {
        None | Some(AttributeValue::Null(_)) => Ok(None),
        Some(AttributeValue::N(text) | AttributeValue::S(text)) => {
            text.parse().map(Some).map_err(|_| corrupt())
        }
        Some(_) => Err(corrupt()),
    }
}

fn required<T: std::str::FromStr>(row: &Row, key: &str, name: &str) -> Result<T, StoreError> {
    field(row, key, name)?.ok_or_else(|| StoreError::Corrupt {
        key: key.to_owned(),
        reason: format!("attribute `{name}` is missing"),
    })
}

pub(super) fn item(row: &Row) -> Result<Item, StoreError> {
    let key: String = required(row, "?", "item")?;
    let corrupt = |reason: String| StoreError::Corrupt {
        key: key.clone(),
        reason,
    };
    let expires_at = field::<i64>(row, &key, "expires_at")?
        .map(Timestamp::from_second)
        .transpose()
        .map_err(|error| corrupt(error.to_string()))?;
    Ok(Item {
        body: body::load(row).map_err(corrupt)?,
        version: required(row, &key, "version")?,
        expires_at,
        key,
    })
}

pub(super) fn lease(row: &Row) -> Result<Option<LeaseRow>, StoreError> {
    let Some(rvn) = field(row, STATE, "rvn")? else {
        return Ok(None);
    };
    Ok(Some(LeaseRow {
        holder: field(row, STATE, "lock_holder")?,
        rvn,
        epoch: Epoch(required(row, STATE, "epoch")?),
        lease: Duration::from_millis(required(row, STATE, "lease_ms")?),
        expires_at: required(row, STATE, "lock_expiry")?,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_json_survives() {
        let body = json!({"a": [1, -2, 3.5, u64::MAX, 1e-7], "b": {"c": null, "d": true, "e": ""}, "f": {}, "g": []});
        assert_eq!(from_attribute(&to_attribute(&body)).unwrap(), body);
    }

    #[test]
    fn an_item_never_lapses_before_its_time() {
        let time: Timestamp = "2026-01-02T03:04:05.001Z".parse().unwrap();
        assert_eq!(seconds(time), time.as_second() + 1);
        assert_eq!(seconds(Timestamp::UNIX_EPOCH), 0);
    }
}
