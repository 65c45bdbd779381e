//! Keeps the books: machines in the cloud, records in the store and Nodes in the cluster say the same in the end.

use std::{collections::BTreeMap, sync::PoisonError, time::Duration};

use smartscale_planner::model::NodeName;
use smartscale_proto::time::age;

use super::{
    begin::planned,
    executor::{Executor, seen},
    fleet::Instance,
    operation::{Kind, Removal},
};
use crate::{
    ids::{Epoch, InstanceId},
    state::records::{NodeRecord, Record as _},
    tell::{ErrorType, Severity},
};

/// More machines than a cluster of ours has.
const MOST_NODES: usize = 10_000;
/// A machine that the cloud does not show so soon after its launch may still appear.
const APPEARS: Duration = Duration::from_secs(120);

/// A machine that nobody knows.
struct Stranger {
    /// It is seen for the first time.
    new: bool,
    /// It is a Ready node.
    works: bool,
    /// Since when, by the monotonic clock, it has not been one.
    since: Duration,
}

impl Executor {
    /// Compares what the cloud, the store and the cluster say.
    pub(super) async fn reconcile(&self, epoch: Epoch) {
        // Steps go on meanwhile: what one ends while the books are read is still its own.
        let open = self.open();
        let instances = match self.parts.fleet.list().await {
            Ok(instances) => instances,
            Err(error) => {
                tracing::warn!(%error, "the fleet could not be listed");
                return;
            }
        };
        let records = match self.parts.store.list(NodeRecord::PREFIX, false, MOST_NODES).await {
            Ok(items) => items,
            Err(error) => {
                tracing::warn!(%error, "the node records could not be listed");
                return;
            }
        };
        let records: BTreeMap<InstanceId, NodeRecord> = records
            .iter()
            .filter_map(|item| NodeRecord::from_item(item).ok())
            .map(|record| (record.instance.clone(), record))
            .collect();
        let alive: BTreeMap<&InstanceId, &Instance> = instances
            .iter()
            .filter(|instance| instance.state.is_alive())
            .map(|instance| (&instance.id, instance))
            .collect();
        let concerned = |id: &InstanceId| {
            open.iter().any(|operation| {
                operation
                    .launch()
                    .is_some_and(|launch| launch.instances.iter().any(|one| one.id == *id))
                    || operation
                        .removal()
                        .is_some_and(|removal| removal.node.as_str() == id.as_str())
            })
        };
        for (id, instance) in &alive {
            let launching = instance
                .operation
                .as_ref()
                .is_some_and(|operation| self.find_open(operation).is_some());
            if !records.contains_key(*id) && !launching && !concerned(id) {
                self.stranger(instance).await;
            }
        }
        self.strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| alive.contains_key(id) && !records.contains_key(id));
        let at_work = records
            .iter()
            .filter(|(id, _)| alive.contains_key(id) && !concerned(id))
            .map(|(_, record)| record);
        self.replace_sick(&at_work.collect::<Vec<_>>()).await;
        self.free_names(
            records
                .values()
                .filter(|record| alive.contains_key(&record.instance)),
        )
        .await;
        let ended = |id: &InstanceId| instances.iter().any(|instance| instance.id == *id);
        for (id, record) in &records {
            if !alive.contains_key(id) && !concerned(id) {
                // One that is listed as ended has ended. One that is left out is there as long as its agent speaks.
                if ended(id) || !self.parts.agents.is_connected(id) {
                    self.lost(record, epoch).await;
                }
            } else if self.seen(id.as_str()).is_some_and(|seen| seen.unverified) {
                self.verify(record).await;
            }
        }
    }

    /// An instance with our tag that nobody knows: what no journaled launch explains is terminated after a grace. But not a
    /// Ready node: an agent lets its machine join only once it has enrolled, so that this one was known, and its record has
    /// been lost since. Its pods are worth more than tidy books.
    async fn stranger(&self, instance: &Instance) {
        let now = self.parts.clock.elapsed();
        let Some(Stranger { new, works, since }) = self.meet(&instance.id, now) else {
            return;
        };
        if new {
            let id = &instance.id;
            let grace = self.parts.settings.orphan_grace.as_secs();
            let message = if works {
                format!(
                    "{id} is a Ready node that the store does not know: it is left alone, and \
                     `smartscale recycle {id}` replaces it"
                )
            } else {
                format!("{id} bears our tag and is not ours: it is terminated in {grace} s")
            };
            self.trouble(Severity::Warning, message, ErrorType::UnknownInstance);
        }
        let due = now.saturating_sub(since) >= self.parts.settings.orphan_grace;
        if due && !works && self.term().is_some() {
            match self
                .parts
                .fleet
                .terminate(std::slice::from_ref(&instance.id))
                .await
            {
                Ok(()) => {
                    let message = format!("{} was terminated: nobody knew it", instance.id);
                    self.trouble(Severity::Warning, message, ErrorType::UnknownInstance);
                }
                Err(error) => tracing::warn!(instance = %instance.id, %error, "not terminated yet"),
            }
        }
    }

    /// Takes note of a stranger. `None` while nobody knows whether it works: that is no time in which it did not.
    fn meet(&self, id: &InstanceId, now: Duration) -> Option<Stranger> {
        let objects = self.parts.cluster.latest().value;
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(objects) = objects else {
            strangers.entry(id.clone()).and_modify(|since| *since = now);
            return None;
        };
        let works = seen(Some(&objects), id.as_str()).is_some_and(|seen| seen.ready);
        let new = !strangers.contains_key(id);
        let since = strangers.entry(id.clone()).or_insert(now);
        if works {
            // One that is not Ready for a moment has all of the grace.
            *since = now;
        }
        Some(Stranger {
            new,
            works,
            since: *since,
        })
    }

    /// A record without a machine is removed like any other, but that nothing drains any more.
    async fn lost(&self, record: &NodeRecord, epoch: Epoch) {
        // What has enrolled has been there: its absence is no lag any more.
        if record.enrolled_at.is_none() && age(record.launched_at, self.parts.clock.now()) < APPEARS {
            return;
        }
        // The list lags behind.
        if !self.is_gone(&record.instance).await {
            return;
        }
        if self.term() != Some(epoch) {
            return;
        }
        let what = Kind::Remove(Removal {
            lost: true,
            ..Removal::of(NodeName::from(record.instance.as_str()), Duration::ZERO)
        });
        let now = self.parts.clock.now();
        let reason = format!("{} is gone without our doing", record.instance);
        let id = self.parts.ids.operation(now);
        let operation = planned(id, what, Vec::new(), None, reason.clone(), None, now);
        match self.order(vec![operation]).await {
            Ok(()) => self.trouble(Severity::Warning, reason, ErrorType::InstanceLost),
            Err(error) => tracing::warn!(%error, "a lost machine was not journaled yet"),
        }
    }
}
