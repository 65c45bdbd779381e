//! Whether an agent is still trusted: the node record decides, at every call and, once a second, for every open
//! stream.
//!
//! While the store does not answer, the last known answer counts: an outage of the store must not throw every agent
//! out. What the store said before is not forgotten by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use crate::{
    ids::InstanceId,
    state::{
        SharedStore, StoreError,
        records::{NodeRecord, Record as _},
    },
};

/// More machines than one coordinator has.
const MOST: usize = 20_000;

/// Why an agent is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// There is no record of the machine: it was not launched by us, or it is gone.
    #[error("this machine is not known")]
    Unknown,
    /// It never enrolled a key.
    #[error("this machine has not enrolled")]
    NotEnrolled,
    /// Trust was withdrawn.
    #[error("this machine's identity was revoked")]
    Revoked,
    /// The machine has enrolled anew since this certificate was signed.
    #[error("this certificate is of a former enrolment of the machine")]
    Former,
    /// Nobody can say at this moment.
    #[error("the node record cannot be read")]
    Store(#[source] StoreError),
}

/// The trusted machines.
pub struct Trust {
    store: SharedStore,
    known: Mutex<BTreeMap<InstanceId, NodeRecord>>,
}

impl Trust {
    /// Trust as the records in `store` say.
    #[must_use]
    pub fn new(store: SharedStore) -> Self {
        Self {
            store,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<InstanceId, NodeRecord>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of a machine that is trusted. `signed_at` is when the caller's certificate was signed.
    ///
    /// # Errors
    /// [`Distrust`].
    pub async fn check(
        &self,
        instance: &InstanceId,
        signed_at: Option<Timestamp>,
    ) -> Result<NodeRecord, Distrust> {
        let key = format!("{}{instance}", NodeRecord::PREFIX);
        let record = match self.store.get(&key).await {
            Ok(Some(item)) => NodeRecord::from_item(&item).map_err(Distrust::Store)?,
            Ok(None) => {
                self.known().remove(instance);
                return Err(Distrust::Unknown);
            }
            Err(error) => {
                let known = self.known().get(instance).cloned();
                tracing::warn!(%error, %instance, "the node record cannot be read; the last known one counts");
                known.ok_or(Distrust::Store(error))?
            }
        };
        self.known().insert(instance.clone(), record.clone());
        judge(&record)?;
        let since = record.certified.as_ref().map(|certified| certified.since);
        // Certificates hold whole seconds.
        match (signed_at, since) {
            (Some(signed_at), Some(since)) if signed_at.as_second() < since.as_second() => {
                Err(Distrust::Former)
            }
            _ => Ok(record),
        }
    }

    /// Those of `instances` that are not trusted any more. One read for all of them.
    ///
    /// # Errors
    /// When the store does not answer: then nothing is known anew.
    pub async fn lost(
        &self,
        instances: &BTreeSet<InstanceId>,
    ) -> Result<Vec<(InstanceId, Distrust)>, StoreError> {
        let mut found = BTreeMap::new();
        for item in self.store.list(NodeRecord::PREFIX, false, MOST).await? {
            match NodeRecord::from_item(&item) {
                Ok(record) => {
                    found.insert(record.instance.clone(), record);
                }
                Err(error) => tracing::error!(%error, "a node record cannot be read"),
            }
        }
        let lost = instances
            .iter()
            .filter_map(|instance| {
                let verdict = found.get(instance).map_or(Err(Distrust::Unknown), judge);
                verdict.err().map(|why| (instance.clone(), why))
            })
            .collect();
        *self.known() = found;
        Ok(lost)
    }
}

fn judge(record: &NodeRecord) -> Result<(), Distrust> {
    if record.revoked_at.is_some() {
        Err(Distrust::Revoked)
    } else if record.enrolled_key.is_none() {
        Err(Distrust::NotEnrolled)
    } else {
        Ok(())
    }
}
