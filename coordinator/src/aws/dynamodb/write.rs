//! Writes as DynamoDB's: updates with conditions, and the fence in front of a transaction.

use aws_sdk_dynamodb::types::{ConditionCheck, Delete, TransactWriteItem, Update};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    DynamoStore, body,
    expression::Expression,
    failure::build_error,
    item::{number, seconds, to_attribute},
};
use crate::{
    ids::Epoch,
    state::{Attributes, CLUSTER, Condition, STATE, StoreError, Write},
};

/// Most bytes of an item, the names of its attributes included.
const ITEM: usize = 400 * 1024;
/// Most bytes of all items of a transaction.
const TRANSACTION: usize = 4 << 20;
/// An attribute that has a number: at most 21 bytes, and its name.
const NUMBER: usize = 21;

/// A put, and about how many bytes its item will have.
pub(super) struct Put {
    pub(super) expression: Expression,
    bytes: usize,
}

impl DynamoStore {
    pub(super) fn put(
        &self,
        key: &str,
        body: &Value,
        expires_at: Option<Timestamp>,
        condition: Condition,
    ) -> Result<Put, StoreError> {
        let body = body::store(key, body)?;
        let numbers = "version".len() + "expires_at".len() + 2 * NUMBER;
        let keys = "cluster_id".len() + self.cluster.as_str().len() + "item".len() + key.len();
        let bytes = body.name.len() + body.bytes + numbers + keys;
        if bytes > ITEM {
            return Err(StoreError::TooLarge {
                key: key.to_owned(),
                bytes,
                limit: ITEM,
            });
        }
        let mut put = Expression::default();
        put.set(body.name, body.value);
        put.remove(body.other);
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
        Ok(Put {
            expression: put,
            bytes,
        })
    }

    /// The actions of a transaction, the fence first.
    pub(super) fn actions(
        &self,
        epoch: Epoch,
        writes: &[Write],
        attributes: &Attributes,
    ) -> Result<Vec<TransactWriteItem>, StoreError> {
        let mut actions = vec![self.fence(epoch, attributes)?];
        let mut total = 0;
        for write in writes {
            let (action, bytes) = self.action(write)?;
            total += bytes;
            let (Write::Put { key, .. } | Write::Delete { key }) = write;
            if total > TRANSACTION {
                return Err(StoreError::TooLarge {
                    key: format!("{key} and the {} before it", actions.len() - 1),
                    bytes: total,
                    limit: TRANSACTION,
                });
            }
            actions.push(action);
        }
        Ok(actions)
    }

    fn action(&self, write: &Write) -> Result<(TransactWriteItem, usize), StoreError> {
        let action = TransactWriteItem::builder();
        Ok(match write {
            Write::Delete { key } => {
                let delete = Delete::builder()
                    .table_name(&self.table)
                    .set_key(Some(self.key(key)));
                (action.delete(delete.build().map_err(build_error)?).build(), 0)
            }
            Write::Put {
                key,
                body,
                expires_at,
                condition,
            } => {
                let put = self.put(key, body, *expires_at, *condition)?;
                let update = self.transacted(put.expression, key)?;
                (action.update(update).build(), put.bytes)
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
        let mut update = Expression::default();
        update.condition = Some(condition.to_owned());
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
}
