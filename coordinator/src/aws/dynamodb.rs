//! The state store on one DynamoDB table, for coordinators on several machines.
//!
//! ```text
//!  cluster_id (partition)  item (sort)     the rest
//!  k3s-demo                state           rvn, epoch, lease_ms, lock_holder, lock_expiry, node_count, … (plain types)
//!  k3s-demo                op#…  node#…    body (a map), version, expires_at (epoch seconds: the table's TTL)
//! ```
//!
//! - The fence is a condition on `state.epoch` in the same transaction as the writes: a leader of the past writes
//!   nothing, however late its request arrives.
//! - The SDK repeats a transaction under its own request token, which is safe; it must not repeat a plain
//!   conditional update, since the second would fail because the first took effect. Those are sent once, and an
//!   answer that is missing is [`StoreError::Unknown`].
//! - DynamoDB deletes expired items days late, so readers and conditions judge `expires_at` themselves.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_dynamodb::{
    Client,
    config::Builder,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    operation::transact_write_items::TransactWriteItemsError,
    types::{
        AttributeDefinition, AttributeValue, BillingMode, ConditionCheck, Delete, KeySchemaElement, KeyType,
        ScalarAttributeType, TableStatus, TimeToLiveSpecification, TransactWriteItem, Update,
    },
};
use jiff::Timestamp;
use serde_json::Value;
use smartscale_planner::model::ClusterId;
use smartscale_proto::time::SharedClock;

use crate::{
    ids::Epoch,
    state::{
        Attributes, CLUSTER, Condition, Item, LeaseRow, RESERVED, STATE, StateStore, StoreError, Write,
        check_commit, check_key, lock_attributes,
    },
};

/// One call, its repetitions by the SDK included.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a new table may take to become active.
const TABLE_TIMEOUT: Duration = Duration::from_secs(60);

type Row = HashMap<String, AttributeValue>;

/// A store in a table.
#[derive(Clone)]
pub struct DynamoStore {
    client: Client,
    table: String,
    cluster: ClusterId,
    clock: SharedClock,
}

impl std::fmt::Debug for DynamoStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DynamoStore")
            .field("table", &self.table)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl DynamoStore {
    /// The store of `cluster` in `table`. Sends nothing yet.
    #[must_use]
    pub fn new(config: &SdkConfig, table: impl Into<String>, cluster: ClusterId, clock: SharedClock) -> Self {
        let config = Builder::from(config)
            .behavior_version(BehaviorVersion::v2026_01_12())
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(2))
                    .operation_timeout(CALL_TIMEOUT)
                    .build(),
            )
            .build();
        Self {
            client: Client::from_conf(config),
            table: table.into(),
            cluster,
            clock,
        }
    }

    /// Creates the table, on demand, with its time to live, and waits until it can be used. A table that is there
    /// already is no error.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when DynamoDB refuses, or the table is not active within a minute.
    pub async fn create_table(&self) -> Result<(), StoreError> {
        let attribute = |name: &str| {
            AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(ScalarAttributeType::S)
                .build()
                .map_err(build_error)
        };
        let key = |name: &str, kind| {
            KeySchemaElement::builder()
                .attribute_name(name)
                .key_type(kind)
                .build()
                .map_err(build_error)
        };
        let created = self
            .client
            .create_table()
            .table_name(&self.table)
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(attribute("cluster_id")?)
            .attribute_definitions(attribute("item")?)
            .key_schema(key("cluster_id", KeyType::Hash)?)
            .key_schema(key("item", KeyType::Range)?)
            .send()
            .await;
        match created {
            Ok(_) => {}
            Err(error) if error.code() == Some("ResourceInUseException") => {}
            Err(error) => return Err(self.read_error(&error)),
        }
        let give_up = self.clock.elapsed() + TABLE_TIMEOUT;
        loop {
            let table = self.client.describe_table().table_name(&self.table).send().await;
            let table = table.map_err(|error| self.read_error(&error))?;
            if table.table().and_then(|table| table.table_status()) == Some(&TableStatus::Active) {
                break;
            }
            if self.clock.elapsed() >= give_up {
                return Err(StoreError::Unavailable(format!(
                    "table {} does not become active",
                    self.table
                )));
            }
            self.clock.sleep(Duration::from_millis(500)).await;
        }
        self.enable_time_to_live().await
    }

    async fn enable_time_to_live(&self) -> Result<(), StoreError> {
        if self.has_time_to_live().await? {
            return Ok(());
        }
        let wanted = TimeToLiveSpecification::builder()
            .enabled(true)
            .attribute_name("expires_at")
            .build()
            .map_err(build_error)?;
        let enabled = self
            .client
            .update_time_to_live()
            .table_name(&self.table)
            .time_to_live_specification(wanted)
            .send()
            .await;
        match enabled {
            Ok(_) => Ok(()),
            // Another coordinator that starts at the same moment was first.
            Err(_) if self.has_time_to_live().await? => Ok(()),
            Err(error) => Err(self.read_error(&error)),
        }
    }

    async fn has_time_to_live(&self) -> Result<bool, StoreError> {
        let present = self
            .client
            .describe_time_to_live()
            .table_name(&self.table)
            .send()
            .await;
        let present = present.map_err(|error| self.read_error(&error))?;
        let name = present
            .time_to_live_description()
            .and_then(|description| description.attribute_name());
        Ok(name == Some("expires_at"))
    }

    fn key(&self, item: &str) -> Row {
        Row::from([
            (
                "cluster_id".to_owned(),
                AttributeValue::S(self.cluster.as_str().to_owned()),
            ),
            ("item".to_owned(), AttributeValue::S(item.to_owned())),
        ])
    }

    fn is_expired(&self, expires_at: Option<Timestamp>) -> bool {
        expires_at.is_some_and(|expires_at| expires_at <= self.clock.now())
    }

    async fn row(&self, item: &str) -> Result<Option<Row>, StoreError> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(self.key(item)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| self.read_error(&error))?;
        Ok(answer.item)
    }

    /// A failed read changed nothing, so nothing about it is unknown.
    fn read_error<E, R>(&self, error: &SdkError<E, R>) -> StoreError
    where
        SdkError<E, R>: std::error::Error,
    {
        StoreError::Unavailable(format!("table {}: {}", self.table, DisplayErrorContext(error)))
    }

    fn write_error<E, R>(&self, error: &SdkError<E, R>) -> StoreError
    where
        E: ProvideErrorMetadata + 'static,
        R: 'static,
        SdkError<E, R>: std::error::Error,
    {
        let words = format!("table {}: {}", self.table, DisplayErrorContext(error));
        let never_sent = match error {
            SdkError::ConstructionFailure(_) => true,
            SdkError::DispatchFailure(_) => was_refused(error),
            SdkError::ServiceError(answer) => !matches!(
                answer.err().code(),
                // DynamoDB may have carried the write out before it failed to answer.
                None | Some(
                    "InternalServerError"
                        | "InternalFailure"
                        | "ServiceUnavailable"
                        | "TransactionInProgressException"
                )
            ),
            _ => false,
        };
        if never_sent {
            StoreError::Unavailable(words)
        } else {
            StoreError::Unknown(words)
        }
    }

    /// One plain update, sent once: see the head of this file.
    async fn update(&self, update: Expression, key: &str) -> Result<bool, StoreError> {
        let once = aws_sdk_dynamodb::config::Config::builder().retry_config(RetryConfig::disabled());
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(self.key(key)))
            .update_expression(update.text())
            .set_condition_expression(update.condition)
            .set_expression_attribute_names(Some(update.names))
            .set_expression_attribute_values((!update.values.is_empty()).then_some(update.values))
            .customize()
            .config_override(once)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(false),
            Err(error) => Err(self.write_error(&error)),
        }
    }

    fn put(&self, body: &Value, expires_at: Option<Timestamp>, condition: Condition) -> Expression {
        let mut put = Expression::default();
        put.set("body", to_attribute(body));
        match expires_at {
            Some(time) => put.set("expires_at", number(seconds(time))),
            None => put.remove("expires_at"),
        }
        match condition {
            // An expired item that DynamoDB has not deleted yet counts as absent.
            Condition::Absent => {
                put.set("version", number(1));
                put.value(":now", number(self.clock.now().as_second()));
                put.names.insert("#x".to_owned(), "expires_at".to_owned());
                put.names.insert("#i".to_owned(), "item".to_owned());
                put.condition = Some("attribute_not_exists(#i) OR #x <= :now".to_owned());
            }
            Condition::Always => put.add("version", number(1)),
            Condition::Version(version) => {
                put.add("version", number(1));
                put.value(":was", number(version));
                put.names.insert("#was".to_owned(), "version".to_owned());
                put.condition = Some("#was = :was".to_owned());
            }
        }
        put
    }

    fn action(&self, write: &Write) -> Result<TransactWriteItem, StoreError> {
        Ok(match write {
            Write::Delete { key } => {
                let delete = Delete::builder()
                    .table_name(&self.table)
                    .set_key(Some(self.key(key)));
                TransactWriteItem::builder()
                    .delete(delete.build().map_err(build_error)?)
                    .build()
            }
            Write::Put {
                key,
                body,
                expires_at,
                condition,
            } => {
                let put = self.put(body, *expires_at, *condition);
                TransactWriteItem::builder()
                    .update(self.transacted(put, key)?)
                    .build()
            }
        })
    }

    fn transacted(&self, update: Expression, key: &str) -> Result<Update, StoreError> {
        Update::builder()
            .table_name(&self.table)
            .set_key(Some(self.key(key)))
            .update_expression(update.text())
            .set_condition_expression(update.condition)
            .set_expression_attribute_names(Some(update.names))
            .set_expression_attribute_values((!update.values.is_empty()).then_some(update.values))
            .build()
            .map_err(build_error)
    }

    fn fence(&self, epoch: Epoch, attributes: &Attributes) -> Result<TransactWriteItem, StoreError> {
        let condition = "#epoch = :epoch";
        let attributes: Vec<_> = attributes.iter().filter(|(name, _)| *name != CLUSTER).collect();
        if attributes.is_empty() {
            let check = ConditionCheck::builder()
                .table_name(&self.table)
                .set_key(Some(self.key(STATE)))
                .condition_expression(condition)
                .expression_attribute_names("#epoch", "epoch")
                .expression_attribute_values(":epoch", number(epoch.0))
                .build()
                .map_err(build_error)?;
            return Ok(TransactWriteItem::builder().condition_check(check).build());
        }
        let mut update = Expression {
            condition: Some(condition.to_owned()),
            ..Expression::default()
        };
        update.names.insert("#epoch".to_owned(), "epoch".to_owned());
        update.value(":epoch", number(epoch.0));
        for (name, value) in attributes {
            if value.is_null() {
                update.remove(name);
            } else {
                update.set(name, to_attribute(value));
            }
        }
        Ok(TransactWriteItem::builder()
            .update(self.transacted(update, STATE)?)
            .build())
    }

    /// Why DynamoDB cancelled a transaction: one reason per action, the fence's first.
    fn cancelled(&self, error: &SdkError<TransactWriteItemsError>, writes: &[Write]) -> StoreError {
        let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error()
        else {
            return self.write_error(error);
        };
        let failed = |reason: &&aws_sdk_dynamodb::types::CancellationReason| {
            reason.code() == Some("ConditionalCheckFailed")
        };
        let reasons = cancelled.cancellation_reasons();
        if reasons.first().as_ref().is_some_and(failed) {
            return StoreError::Fenced;
        }
        let conflict = reasons
            .iter()
            .skip(1)
            .zip(writes)
            .find(|(reason, _)| failed(reason));
        if let Some((_, Write::Put { key, .. } | Write::Delete { key })) = conflict {
            return StoreError::Conflict(key.clone());
        }
        // Another transaction on the same items, throttling, a value that is refused: nothing was written.
        let reasons: Vec<String> = reasons
            .iter()
            .filter(|reason| reason.code().is_some_and(|code| code != "None"))
            .map(|reason| {
                format!(
                    "{} {}",
                    reason.code().unwrap_or("?"),
                    reason.message().unwrap_or_default()
                )
            })
            .collect();
        StoreError::Unavailable(format!(
            "table {}: transaction cancelled: {}",
            self.table,
            reasons.join("; ")
        ))
    }
}

/// An update's clauses with their placeholders.
#[derive(Debug, Default)]
struct Expression {
    set: Vec<String>,
    remove: Vec<String>,
    add: Vec<String>,
    condition: Option<String>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Expression {
    /// A placeholder of its own: many names are reserved words.
    fn name(&mut self, name: &str) -> String {
        let placeholder = format!("#n{}", self.names.len());
        self.names.insert(placeholder.clone(), name.to_owned());
        placeholder
    }

    fn value(&mut self, placeholder: &str, value: AttributeValue) {
        self.values.insert(placeholder.to_owned(), value);
    }

    fn pair(&mut self, name: &str, value: AttributeValue) -> (String, String) {
        let name = self.name(name);
        let placeholder = format!(":v{}", self.values.len());
        self.value(&placeholder, value);
        (name, placeholder)
    }

    fn set(&mut self, name: &str, value: AttributeValue) {
        let (name, value) = self.pair(name, value);
        self.set.push(format!("{name} = {value}"));
    }

    fn add(&mut self, name: &str, value: AttributeValue) {
        let (name, value) = self.pair(name, value);
        self.add.push(format!("{name} {value}"));
    }

    fn remove(&mut self, name: &str) {
        let name = self.name(name);
        self.remove.push(name);
    }

    fn text(&self) -> String {
        let clauses = [("SET", &self.set), ("REMOVE", &self.remove), ("ADD", &self.add)];
        let clauses = clauses.iter().filter(|(_, parts)| !parts.is_empty());
        clauses
            .map(|(word, parts)| format!("{word} {}", parts.join(", ")))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Whether the connection was refused, so that no byte of the request left.
fn was_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[allow(clippy::needless_pass_by_value, reason = "map_err passes it by value")]
fn build_error(error: aws_sdk_dynamodb::error::BuildError) -> StoreError {
    StoreError::Unavailable(format!("a request could not be built: {error}"))
}

fn number(number: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Epoch seconds, rounded up: an item never lapses before its time.
fn seconds(time: Timestamp) -> i64 {
    time.as_second() + i64::from(time.subsec_nanosecond() > 0)
}

fn to_attribute(value: &Value) -> AttributeValue {
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

fn from_attribute(value: &AttributeValue) -> Result<Value, String> {
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

fn item(row: &Row) -> Result<Item, StoreError> {
    let key: String = required(row, "?", "item")?;
    let corrupt = |reason: String| StoreError::Corrupt {
        key: key.clone(),
        reason,
    };
    let body = row
        .get("body")
        .ok_or_else(|| corrupt("attribute `body` is missing".to_owned()))?;
    let expires_at = field::<i64>(row, &key, "expires_at")?
        .map(Timestamp::from_second)
        .transpose()
        .map_err(|error| corrupt(error.to_string()))?;
    Ok(Item {
        body: from_attribute(body).map_err(corrupt)?,
        version: required(row, &key, "version")?,
        expires_at,
        key,
    })
}

fn lease(row: &Row) -> Result<Option<LeaseRow>, StoreError> {
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

#[async_trait]
impl StateStore for DynamoStore {
    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        match self.row(STATE).await? {
            Some(row) => lease(&row),
            None => Ok(None),
        }
    }

    async fn replace_lease(&self, expected: Option<&str>, next: &LeaseRow) -> Result<bool, StoreError> {
        let mut update = Expression::default();
        update.set("rvn", AttributeValue::S(next.rvn.clone()));
        update.set("epoch", number(next.epoch.0));
        update.set("lease_ms", number(next.lease.as_millis()));
        update.set("lock_expiry", AttributeValue::S(next.expires_at.to_string()));
        match &next.holder {
            Some(holder) => update.set("lock_holder", AttributeValue::S(holder.to_string())),
            None => update.remove("lock_holder"),
        }
        update.names.insert("#rvn".to_owned(), "rvn".to_owned());
        update.condition = Some(match expected {
            Some(rvn) => {
                update.value(":rvn", AttributeValue::S(rvn.to_owned()));
                "#rvn = :rvn".to_owned()
            }
            None => "attribute_not_exists(#rvn)".to_owned(),
        });
        self.update(update, STATE).await
    }

    async fn commit(
        &self,
        epoch: Epoch,
        writes: &[Write],
        attributes: &Attributes,
    ) -> Result<(), StoreError> {
        check_commit(writes, attributes)?;
        let mut actions = vec![self.fence(epoch, attributes)?];
        for write in writes {
            actions.push(self.action(write)?);
        }
        let sent = self
            .client
            .transact_write_items()
            .set_transact_items(Some(actions))
            .send()
            .await;
        sent.map(|_| ()).map_err(|error| self.cancelled(&error, writes))
    }

    async fn append(&self, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::Put {
                key,
                body,
                expires_at,
                condition,
            } => {
                check_key(key)?;
                match self.update(self.put(body, *expires_at, *condition), key).await? {
                    true => Ok(()),
                    false => Err(StoreError::Conflict(key.clone())),
                }
            }
            Write::Delete { key } => {
                check_key(key)?;
                let sent = self
                    .client
                    .delete_item()
                    .table_name(&self.table)
                    .set_key(Some(self.key(key)))
                    .send()
                    .await;
                sent.map(|_| ()).map_err(|error| self.write_error(&error))
            }
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, StoreError> {
        check_key(key)?;
        let Some(row) = self.row(key).await? else {
            return Ok(None);
        };
        let item = item(&row)?;
        Ok(if self.is_expired(item.expires_at) {
            None
        } else {
            Some(item)
        })
    }

    async fn list(&self, prefix: &str, newest_first: bool, limit: usize) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut start = None;
        let page = i32::try_from(limit.clamp(1, 1_000)).unwrap_or(1_000);
        while items.len() < limit {
            let query = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .scan_index_forward(!newest_first)
                .limit(page)
                .key_condition_expression("#c = :c AND begins_with(#i, :p)")
                .expression_attribute_names("#c", "cluster_id")
                .expression_attribute_names("#i", "item")
                .expression_attribute_values(":c", AttributeValue::S(self.cluster.as_str().to_owned()))
                .expression_attribute_values(":p", AttributeValue::S(prefix.to_owned()))
                .set_exclusive_start_key(start);
            let answer = query.send().await.map_err(|error| self.read_error(&error))?;
            for row in answer.items() {
                if matches!(row.get("item"), Some(AttributeValue::S(key)) if key == STATE) {
                    continue;
                }
                let item = item(row)?;
                if !self.is_expired(item.expires_at) && items.len() < limit {
                    items.push(item);
                }
            }
            start = answer.last_evaluated_key;
            if start.is_none() {
                break;
            }
        }
        Ok(items)
    }

    async fn attributes(&self) -> Result<Attributes, StoreError> {
        let Some(row) = self.row(STATE).await? else {
            return Ok(Attributes::new());
        };
        let Some(lease) = lease(&row)? else {
            return Ok(Attributes::new());
        };
        let mut attributes = lock_attributes(&self.cluster, &lease);
        let own = |name: &str| name == CLUSTER || RESERVED.contains(&name);
        for (name, value) in row.iter().filter(|(name, _)| !own(name)) {
            let value = from_attribute(value).map_err(|reason| StoreError::Corrupt {
                key: format!("{STATE}.{name}"),
                reason,
            })?;
            attributes.insert(name.clone(), value);
        }
        Ok(attributes)
    }
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

    #[test]
    fn an_expression_names_everything_by_placeholders() {
        let mut update = Expression::default();
        update.set("count", number(1));
        update.remove("size");
        update.add("version", number(1));
        assert_eq!(update.text(), "SET #n0 = :v0 REMOVE #n1 ADD #n2 :v1");
    }
}
