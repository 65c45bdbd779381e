//! State that outlives a coordinator: the lease, the journal, node records, decision records and samples.
//!
//! One item per key, a JSON document each, and one special item `state` that carries the lease and the published
//! attributes. Two stores have these semantics: SQLite (`sqlite`, embedded, the default) and DynamoDB
//! (`aws/dynamodb`); one conformance suite runs against both.
//!
//! ```text
//!   state            lease (holder, rvn, epoch, lease_ms) + published attributes
//!   op#…             journal: one item per operation
//!   open#…           one item per operation that has not ended, so that a new leader finds them at once
//!   node#…           launch intent and enrolment of a machine
//!   offering#…       back-off of a (type, zone, market)
//!   decision#…       decision records (expire)
//!   sample#…         metric history (expire)
//!   forecast#…       demand by the hour, eight weeks of it (expire)
//!   cost#…           what machines cost, by the hour, thirteen months of it (expire)
//!   audit#…          who called what: one chain of records for each coordinator
//!   audit-head#…     where each of those chains ends
//!   identity#…       certificates of people
//!   revoked-person#… people of whom every certificate until then is refused
//!   setting#…        pause, floor: what people set
//! ```

pub mod backup;
#[doc(hidden)]
pub mod conformance;
pub mod cost;
pub mod lease;
pub mod records;
pub mod sqlite;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smartscale_planner::model::ClusterId;

use crate::ids::{CoordinatorName, Epoch};

/// An item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Its sort key, for example `op#0192…`. Keys sort by their bytes.
    pub key: String,
    /// Its content.
    pub body: Value,
    /// Grows by one at each write, from 1; a conditional write names it.
    pub version: u64,
    /// From then on readers do not see it, whether or not the store has deleted it.
    pub expires_at: Option<Timestamp>,
}

/// What must hold of an item before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// It does not exist.
    Absent,
    /// It exists with this version.
    Version(u64),
}

/// A write of one item.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Creates or replaces.
    Put {
        /// The key.
        key: String,
        /// The content.
        body: Value,
        /// When it lapses.
        expires_at: Option<Timestamp>,
        /// What must hold before.
        condition: Condition,
    },
    /// Deletes; one that is absent is no error.
    Delete {
        /// The key.
        key: String,
    },
}

/// The published attributes of the `state` item (FORMATS §2 `--state`), for people and dashboards. Other keys of
/// the item are kept as they are.
pub type Attributes = BTreeMap<String, Value>;

/// The lease as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// Who holds it; `None` after it was handed over.
    pub holder: Option<CoordinatorName>,
    /// Random text, new at each renewal. A contender watches it, not a clock.
    pub rvn: String,
    /// The term.
    pub epoch: Epoch,
    /// How long it lasts from a renewal.
    pub lease: Duration,
    /// When it lapses by the holder's wall clock: for people, never compared.
    pub expires_at: Timestamp,
}

/// A call to the store that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The lease has another epoch: this coordinator leads no more. Nothing was written.
    #[error("the lease has passed on; nothing was written")]
    Fenced,
    /// An item is not as the write expects. Nothing was written.
    #[error("item `{0}` is not as expected; nothing was written")]
    Conflict(String),
    /// The store refused or could not be reached before anything was written.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// More than the store takes. Nothing was written, and trying again is of no use.
    #[error("item `{key}` has {bytes} bytes where the store takes {limit} at most; nothing was written")]
    TooLarge {
        /// Its key.
        key: String,
        /// How large it is, as it would be stored.
        bytes: usize,
        /// How large it may be.
        limit: usize,
    },
    /// Nobody knows whether the write took place; read again.
    #[error("the store did not answer: {0}")]
    Unknown(String),
    /// An item in the store is not what this version of the program writes.
    #[error("item `{key}` cannot be read: {reason}")]
    Corrupt {
        /// Its key.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// The store of one cluster.
#[async_trait]
pub trait StateStore: Send + Sync {
    /// The lease; `None` before the first acquisition. A strongly consistent read.
    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError>;
    /// Replaces the lease if its `rvn` is still `expected` (`None`: if there is none yet). `false` when it is not.
    async fn replace_lease(&self, expected: Option<&str>, next: &LeaseRow) -> Result<bool, StoreError>;
    /// Writes all of `writes`, and merges `attributes` into the `state` item (null takes one away), or nothing; only
    /// while the lease has `epoch`. At most 90 writes, each of another key.
    async fn commit(&self, epoch: Epoch, writes: &[Write], attributes: &Attributes)
    -> Result<(), StoreError>;
    /// Writes one item without the fence: samples, decision records, audit.
    async fn append(&self, write: &Write) -> Result<(), StoreError>;
    /// One item; a strongly consistent read.
    async fn get(&self, key: &str) -> Result<Option<Item>, StoreError>;
    /// Items whose key begins with `prefix`, in the order of their keys (or the reverse), at most `limit`.
    async fn list(&self, prefix: &str, newest_first: bool, limit: usize) -> Result<Vec<Item>, StoreError>;
    /// The published attributes, with `cluster_id`, and `lock_holder` and `lock_expiry` of the lease; none before
    /// there was a lease.
    async fn attributes(&self) -> Result<Attributes, StoreError>;
}

/// A shared store.
pub type SharedStore = Arc<dyn StateStore>;

/// Key of the item that carries the lease and the published attributes.
pub(crate) const STATE: &str = "state";
/// Most writes of a commit. DynamoDB takes 100 actions, one of them the fence.
pub const MAX_WRITES: usize = 90;
/// The partition key: published with the attributes, the same whoever writes it.
pub(crate) const CLUSTER: &str = "cluster_id";
/// Attributes of the `state` item that are the store's own.
pub(crate) const RESERVED: [&str; 6] = ["item", "rvn", "epoch", "lease_ms", "lock_holder", "lock_expiry"];

/// What the `state` item publishes by itself: whose it is, and the lock.
pub(crate) fn lock_attributes(cluster: &ClusterId, row: &LeaseRow) -> Attributes {
    let mut attributes = Attributes::from([(CLUSTER.to_owned(), Value::from(cluster.as_str()))]);
    if let Some(holder) = &row.holder {
        attributes.insert("lock_holder".to_owned(), Value::from(holder.as_str()));
        attributes.insert("lock_expiry".to_owned(), Value::from(row.expires_at.to_string()));
    }
    attributes
}

/// Refuses keys that a store cannot hold.
pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > 1_024 || key == STATE {
        return Err(StoreError::Conflict(key.chars().take(80).collect()));
    }
    Ok(())
}

/// Refuses what no commit may hold, before a store is asked.
pub(crate) fn check_commit(writes: &[Write], attributes: &Attributes) -> Result<(), StoreError> {
    if writes.len() > MAX_WRITES {
        return Err(StoreError::Unavailable(format!(
            "a commit of {} writes; at most {MAX_WRITES}",
            writes.len()
        )));
    }
    let mut keys = std::collections::BTreeSet::new();
    for write in writes {
        let (Write::Put { key, .. } | Write::Delete { key }) = write;
        check_key(key)?;
        if !keys.insert(key) {
            return Err(StoreError::Conflict(key.clone()));
        }
    }
    match attributes.keys().find(|name| RESERVED.contains(&name.as_str())) {
        Some(name) => Err(StoreError::Conflict(format!("{STATE}.{name}"))),
        None => Ok(()),
    }
}
