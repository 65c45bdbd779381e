//! The journal: the open operations as the leader of a term knows them, each written before what it does.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::operation::Operation;
use crate::{
    ids::{Epoch, OperationId},
    state::{Attributes, Condition, SharedStore, StoreError, Write, records::Record},
};

/// Ended operations are kept so long.
const KEPT: SignedDuration = SignedDuration::from_hours(14 * 24);
/// Operations that are read when a term begins; older ones have ended.
const MOST: usize = 2_000;

/// The open operations of a term.
#[derive(Debug, Default)]
pub(super) struct Journal {
    epoch: Option<Epoch>,
    /// The last term that was begun, and when.
    began: Option<(Epoch, Timestamp)>,
    open: BTreeMap<OperationId, Operation>,
}

impl Journal {
    /// The term that it was read for.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// When this coordinator began to lead.
    pub(super) fn began_at(&self) -> Option<Timestamp> {
        self.began.map(|(_, at)| at)
    }

    /// The open operations, oldest first.
    pub(super) fn open(&self) -> impl Iterator<Item = &Operation> {
        self.open.values()
    }

    /// One of them.
    pub(super) fn get(&self, id: &OperationId) -> Option<&Operation> {
        self.open.get(id)
    }

    /// Keeps or drops an operation as it was written.
    pub(super) fn note(&mut self, operation: &Operation) {
        if operation.phase.is_end() {
            self.open.remove(&operation.id);
        } else {
            self.open.insert(operation.id.clone(), operation.clone());
        }
    }

    /// Nobody knows whether the last write took place: what is open must be read again before anything else is done.
    pub(super) fn doubt(&mut self) {
        self.epoch = None;
    }

    /// Replaces everything by what the store says for a new term.
    pub(super) fn begin(&mut self, epoch: Epoch, now: Timestamp, operations: Vec<Operation>) {
        self.epoch = Some(epoch);
        if self.began.is_none_or(|(began, _)| began != epoch) {
            self.began = Some((epoch, now));
        }
        self.open = operations
            .into_iter()
            .map(|operation| (operation.id.clone(), operation))
            .collect();
    }
}

/// The operations of the store, newest first. One that cannot be read is told of by its error and passed over.
pub(super) async fn read(
    store: &SharedStore,
    limit: usize,
) -> Result<(Vec<Operation>, Vec<StoreError>), StoreError> {
    let items = store.list(Operation::PREFIX, true, limit).await?;
    let mut unreadable = Vec::new();
    let operations = items
        .iter()
        .filter_map(|item| {
            Operation::from_item(item)
                .map_err(|error| unreadable.push(error))
                .ok()
        })
        .collect();
    Ok((operations, unreadable))
}

/// The open operations of the store for the leader of `epoch`, those of an older term counted as taken over.
pub(super) async fn take_over(
    store: &SharedStore,
    epoch: Epoch,
    now: Timestamp,
) -> Result<(Vec<Operation>, Vec<StoreError>), StoreError> {
    let (mut operations, unreadable) = read(store, MOST).await?;
    operations.retain(|operation| !operation.phase.is_end());
    for operation in &mut operations {
        if operation.epoch != epoch {
            operation.takeovers = operation.takeovers.saturating_add(1);
            operation.epoch = epoch;
            operation.steps.push(super::operation::Step {
                time: now,
                phase: operation.phase,
                note: format!("taken over in term {epoch}"),
            });
        }
    }
    Ok((operations, unreadable))
}

/// Writes operations, with what belongs to the same moment, under the term.
pub(super) async fn commit(
    store: &SharedStore,
    epoch: Epoch,
    operations: &[Operation],
    mut more: Vec<Write>,
    attributes: Attributes,
) -> Result<(), StoreError> {
    for operation in operations {
        let expires_at = operation.phase.is_end().then(|| {
            operation
                .updated_at
                .saturating_add(KEPT)
                .unwrap_or(Timestamp::MAX)
        });
        more.push(put(operation, expires_at)?);
    }
    store.commit(epoch, &more, &attributes).await
}

/// A write of a record, whatever was there.
pub(super) fn put<R: Record>(record: &R, expires_at: Option<Timestamp>) -> Result<Write, StoreError> {
    Ok(Write::Put {
        key: record.key(),
        body: record.body()?,
        expires_at,
        condition: Condition::Always,
    })
}

/// The published attributes of a change of the fleet.
pub(super) fn scaled(action: &str, now: Timestamp) -> Attributes {
    Attributes::from([
        ("last_scale_time".to_owned(), json!(now)),
        ("last_scale_action".to_owned(), json!(action)),
    ])
}
