//! The state store on one DynamoDB table, for coordinators on several machines.
//!
//! ```text
//!  cluster_id (partition)  item (sort)     the rest
//!  k3s-demo                state           rvn, epoch, lease_ms, lock_holder, lock_expiry, node_count, … (plain types)
//!  k3s-demo                op#…  node#…    body (a map; body_gzip above 32 KB), version, expires_at (epoch seconds:
//!                                          the table's TTL)
//! ```
//!
//! - The fence is a condition on `state.epoch` in the same transaction as the writes: a leader of the past writes
//!   nothing, however late its request arrives.
//! - The SDK repeats a transaction under its own request token, which is safe; it must not repeat a plain
//!   conditional update, since the second would fail because the first took effect. Those are sent once, and an
//!   answer that is missing is [`StoreError::Unknown`].
//! - DynamoDB deletes expired items days late, so readers and conditions judge `expires_at` themselves.

mod body;
mod expression;
mod failure;
mod item;
mod table;
mod write;

use std::time::Duration;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_dynamodb::{Client, config::Builder, error::ProvideErrorMetadata, types::AttributeValue};
use jiff::Timestamp;
use smartscale_planner::model::ClusterId;
use smartscale_proto::time::SharedClock;

use self::{
    expression::Expression,
    item::{Row, from_attribute, item, lease, number},
};
use crate::{
    ids::Epoch,
    state::{
        Attributes, CLUSTER, Item, LeaseRow, RESERVED, STATE, StateStore, StoreError, Write, check_commit,
        check_key, lock_attributes,
    },
};

/// One call, its repetitions by the SDK included.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

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
        let actions = self.actions(epoch, writes, attributes)?;
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
                let put = self.put(key, body, *expires_at, *condition)?;
                match self.update(put.expression, key).await? {
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
            let mut query = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .scan_index_forward(!newest_first)
                .limit(page)
                .expression_attribute_names("#c", "cluster_id")
                .expression_attribute_values(":c", AttributeValue::S(self.cluster.as_str().to_owned()))
                .set_exclusive_start_key(start);
            // DynamoDB refuses an empty prefix, which means all.
            query = if prefix.is_empty() {
                query.key_condition_expression("#c = :c")
            } else {
                query
                    .key_condition_expression("#c = :c AND begins_with(#i, :p)")
                    .expression_attribute_names("#i", "item")
                    .expression_attribute_values(":p", AttributeValue::S(prefix.to_owned()))
            };
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
