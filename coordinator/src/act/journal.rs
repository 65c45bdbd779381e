//! The journal: the open operations as the leader of a term knows them, each written before what it does.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use smartscale_planner::{
    model::NodeName,
    snapshot::{GivenUp, Launched},
};

use super::operation::{Kind, Operation, Phase};
use crate::{
    ids::{Epoch, OperationId},
    state::{Attributes, Condition, Item, SharedStore, StoreError, Write, records::Record},
};

/// Ended operations are kept so long.
const KEPT: SignedDuration = SignedDuration::from_hours(14 * 24);
/// What was launched is known for so long at least: twice what the brake on launches looks back.
const COUNTED: SignedDuration = SignedDuration::from_hours(2);
/// That a removal was given up is known for so long at least: longer than any cooldown that is meant.
const TRIED: SignedDuration = SignedDuration::from_hours(48);
/// Operations that are read when a term begins; older ones have ended.
const MOST: usize = 2_000;

/// The open operations of a term.
#[derive(Debug, Default)]
pub(super) struct Journal {
    epoch: Option<Epoch>,
    /// The last term that was begun, and when.
    began: Option<(Epoch, Timestamp)>,
    open: BTreeMap<OperationId, Operation>,
    /// What was launched lately, by operation and attempt, also by operations that have ended.
    launched: BTreeMap<(OperationId, u32), Launched>,
    /// Nodes whose removal was given up, when last.
    given_up: BTreeMap<NodeName, Timestamp>,
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

    /// Launches that are known; those of the last hour are among them.
    pub(super) fn launched(&self) -> Vec<Launched> {
        self.launched.values().copied().collect()
    }

    /// Removals that were given up.
    pub(super) fn given_up(&self) -> Vec<GivenUp> {
        let given_up = self.given_up.iter();
        given_up
            .map(|(node, at)| GivenUp {
                node: node.clone(),
                at: *at,
            })
            .collect()
    }

    /// Takes note of what is remembered of an operation when it has ended.
    fn remember(&mut self, operation: &Operation) {
        if let (Phase::Aborted, Some(node)) = (operation.phase, operation.removes()) {
            let at = self.given_up.entry(node.clone()).or_insert(operation.updated_at);
            let newest = operation.updated_at.max(*at);
            *at = newest;
            self.given_up.retain(|_, at| newest.duration_since(*at) < TRIED);
        }
        let Some(launch) = operation.launch() else { return };
        // Nothing of a refused attempt exists, unless machines of it did not join.
        let brought = launch.instances.len();
        let nodes = match operation.phase {
            Phase::Requesting => launch.request.count,
            _ => u32::try_from(brought).unwrap_or(u32::MAX),
        };
        let key = (operation.id.clone(), launch.request.attempt);
        match launch.requested_at.filter(|_| nodes > 0) {
            Some(time) => {
                self.launched.insert(key, Launched { time, nodes });
            }
            None => {
                self.launched.remove(&key);
            }
        }
        let newest = self.launched.values().map(|launch| launch.time).max();
        self.launched
            .retain(|_, launch| newest.is_none_or(|newest| newest.duration_since(launch.time) < COUNTED));
    }

    /// Keeps or drops an operation as it was written.
    pub(super) fn note(&mut self, operation: &Operation) {
        self.remember(operation);
        if operation.phase.is_end() {
            self.open.remove(&operation.id);
        } else {
            self.open.insert(operation.id.clone(), operation.clone());
        }
    }

    /// What is known may not be what the store has: what is open must be read again before anything else is done.
    pub(super) fn doubt(&mut self) {
        self.epoch = None;
    }

    /// Replaces what is open by what the store says for a new term; ended operations only tell what they launched.
    pub(super) fn begin(&mut self, epoch: Epoch, now: Timestamp, operations: Vec<Operation>) {
        self.epoch = Some(epoch);
        if self.began.is_none_or(|(began, _)| began != epoch) {
            self.began = Some((epoch, now));
        }
        // What this coordinator saw launched stays: of attempts that were followed by others the store says no more.
        for operation in &operations {
            self.remember(operation);
        }
        self.open = operations
            .into_iter()
            .filter(|operation| !operation.phase.is_end())
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
        .filter_map(|item| match Operation::from_item(item) {
            Ok(operation) => Some(Operation {
                version: item.version,
                ..operation
            }),
            Err(error) => {
                unreadable.push(error);
                None
            }
        })
        .collect();
    Ok((operations, unreadable))
}

/// The operations of the store for the leader of `epoch`, the open ones of an older term counted as taken over.
pub(super) async fn take_over(
    store: &SharedStore,
    epoch: Epoch,
    now: Timestamp,
) -> Result<(Vec<Operation>, Vec<StoreError>), StoreError> {
    let (mut operations, unreadable) = read(store, MOST).await?;
    for operation in &mut operations {
        if operation.epoch != epoch && !operation.phase.is_end() {
            operation.takeovers = operation.takeovers.saturating_add(1);
            operation.epoch = epoch;
            by_our_clock(operation, now);
            operation.steps.push(super::operation::Step {
                time: now,
                phase: operation.phase,
                note: format!("taken over in term {epoch}"),
            });
        }
    }
    Ok((operations, unreadable))
}

/// Two machines' clocks are not compared: what another leader began has its time anew, counted by the clock of whoever goes
/// on with it. A drain that seemed to be over its time would be forced, or count as over, the moment it is taken over.
fn by_our_clock(operation: &mut Operation, now: Timestamp) {
    match &mut operation.what {
        Kind::Remove(removal) | Kind::Drain(removal) | Kind::Recycle(removal) => {
            removal.draining_since = removal.draining_since.map(|_| now);
            removal.phase_since = removal.phase_since.map(|_| now);
        }
        // A launch's time begins anew with its leader in any case.
        Kind::Launch(launch) => {
            launch.requested_at = launch.requested_at.map(|at| at.min(now));
            launch.launched_at = launch.launched_at.map(|at| at.min(now));
        }
    }
}

/// Writes operations, with what belongs to the same moment, under the term, if each is in the store as it was read or
/// last written.
pub(super) async fn commit(
    store: &SharedStore,
    epoch: Epoch,
    operations: &mut [Operation],
    mut more: Vec<Write>,
    attributes: Attributes,
) -> Result<(), StoreError> {
    for operation in operations.iter_mut() {
        operation.epoch = epoch;
        let expires_at = operation.phase.is_end().then(|| {
            operation
                .updated_at
                .saturating_add(KEPT)
                .unwrap_or(Timestamp::MAX)
        });
        more.push(Write::Put {
            key: operation.key(),
            body: operation.body()?,
            expires_at,
            condition: match operation.version {
                0 => Condition::Absent,
                version => Condition::Version(version),
            },
        });
    }
    store.commit(epoch, &more, &attributes).await?;
    for operation in operations {
        operation.version += 1;
    }
    Ok(())
}

/// A write of a record in place of what `item` had of it, and of nothing newer.
pub(super) fn replace<R: Record>(record: &R, item: &Item) -> Result<Write, StoreError> {
    Ok(Write::Put {
        key: record.key(),
        body: record.body()?,
        expires_at: item.expires_at,
        condition: Condition::Version(item.version),
    })
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
