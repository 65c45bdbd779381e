//! Store, cloud and Kubernetes as a coordinator reaches them: each call goes through its door, and the ledger looks at what
//! it does.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::SignedDuration;
use rand::RngExt as _;
use smartscale_coordinator::{
    act::{
        binding::{Binding, Verified},
        fleet::{Fleet, FleetError, Instance, LaunchRequest, Launched},
        nodes::{Eviction, Nodes, NodesError, PodOnNode},
    },
    ids::{Epoch, InstanceId, OperationId},
    observe::{ClusterView, Observed},
    state::{Attributes, Item, LeaseRow, StateStore, StoreError, Write},
};
use smartscale_manifests::Objects;
use smartscale_planner::model::NodeName;
use smartscale_proto::time::Clock as _;
use smartscale_simulator::cluster::api::View;

use crate::{
    doors::{Door, Fails, at_once},
    ledger::Ledger,
    town::{Bug, Town},
};

impl Fails for StoreError {
    fn before() -> Self {
        Self::Unavailable("cut".to_owned())
    }
    fn unknown() -> Self {
        Self::Unknown("no answer".to_owned())
    }
}

impl Fails for FleetError {
    fn before() -> Self {
        Self::Throttled("cut".to_owned())
    }
    fn unknown() -> Self {
        Self::Unknown("no answer".to_owned())
    }
}

impl Fails for NodesError {
    fn before() -> Self {
        Self::Unavailable("cut".to_owned())
    }
    fn unknown() -> Self {
        Self::Unavailable("no answer".to_owned())
    }
}

/// Everything outside of a coordinator.
pub(crate) struct Outside {
    pub(crate) door: Door,
    pub(crate) town: Town,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) view: View,
    /// A watch that has only begun shows nothing before.
    pub(crate) synced: Duration,
    /// A watch that lags shows what was, until then.
    pub(crate) lag: Mutex<(Duration, Option<Observed<Objects>>)>,
    /// EC2's lists are of a while ago, until then.
    pub(crate) fleet_lag: Mutex<(Duration, Vec<Instance>)>,
    /// How far the coordinator's wall clock is ahead.
    pub(crate) ahead: SignedDuration,
    /// Whether this life has read the journal already.
    pub(crate) read_journal: Mutex<bool>,
}

fn keys(writes: &[Write]) -> String {
    let keys = writes.iter().map(|write| {
        let (Write::Put { key, .. } | Write::Delete { key }) = write;
        key.as_str()
    });
    keys.collect::<Vec<_>>().join(" ")
}

#[async_trait]
impl StateStore for Outside {
    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        let town = self.town.clone();
        self.door
            .call("lease".to_owned(), false, move || at_once(town.store.lease()))
            .await
    }

    async fn replace_lease(&self, expected: Option<&str>, next: &LeaseRow) -> Result<bool, StoreError> {
        let (town, ledger) = (self.town.clone(), Arc::clone(&self.ledger));
        let (expected, next) = (expected.map(str::to_owned), next.clone());
        let (name, what) = (
            self.door.name.clone(),
            format!("lease {} term {}", next.rvn, next.epoch),
        );
        self.door
            .call(what, true, move || {
                let replaced = at_once(town.store.replace_lease(expected.as_deref(), &next));
                ledger.note(format_args!(
                    "{name} {} term {}: {replaced:?}",
                    next.rvn, next.epoch
                ));
                replaced
            })
            .await
    }

    async fn commit(
        &self,
        epoch: Epoch,
        writes: &[Write],
        attributes: &Attributes,
    ) -> Result<(), StoreError> {
        let (town, ledger) = (self.town.clone(), Arc::clone(&self.ledger));
        let (writes, attributes, name) = (writes.to_vec(), attributes.clone(), self.door.name.clone());
        let what = format!("commit term {epoch} {}", keys(&writes));
        // A client sends a transaction again under the same token, so that it is never applied twice.
        self.door
            .call(what, false, move || {
                ledger.committing(epoch, &writes);
                let done = at_once(town.store.commit(epoch, &writes, &attributes));
                ledger.note(format_args!(
                    "{name} commit term {epoch} {}: {done:?}",
                    keys(&writes)
                ));
                if done.is_ok() {
                    ledger.committed();
                } else {
                    ledger.refused();
                }
                done
            })
            .await
    }

    async fn append(&self, write: &Write) -> Result<(), StoreError> {
        let (town, write) = (self.town.clone(), write.clone());
        let what = keys(std::slice::from_ref(&write));
        self.door
            .call(format!("append {what}"), true, move || {
                at_once(town.store.append(&write))
            })
            .await
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, StoreError> {
        let (town, key) = (self.town.clone(), key.to_owned());
        self.door
            .call(format!("get {}", key.clone()), false, move || {
                at_once(town.store.get(&key))
            })
            .await
    }

    async fn list(&self, prefix: &str, newest_first: bool, limit: usize) -> Result<Vec<Item>, StoreError> {
        if self.town.bug == Some(Bug::BlindTakeover) && prefix == "op#" {
            let first = !std::mem::replace(&mut *self.read_journal.lock().unwrap(), true);
            if first {
                return Ok(Vec::new());
            }
        }
        let (town, prefix) = (self.town.clone(), prefix.to_owned());
        self.door
            .call(format!("list {}", prefix.clone()), false, move || {
                at_once(town.store.list(&prefix, newest_first, limit))
            })
            .await
    }

    async fn attributes(&self) -> Result<Attributes, StoreError> {
        let town = self.town.clone();
        self.door
            .call("attributes".to_owned(), false, move || {
                at_once(town.store.attributes())
            })
            .await
    }
}

#[async_trait]
impl Fleet for Outside {
    async fn launch(&self, request: &LaunchRequest) -> Result<Launched, FleetError> {
        let (town, ledger, request) = (self.town.clone(), Arc::clone(&self.ledger), request.clone());
        let (name, token) = (self.door.name.clone(), request.client_token());
        self.door
            .call(format!("launch {token}"), true, move || {
                ledger.launching(&request);
                let sent = if town.bug == Some(Bug::NoTokens) {
                    town.with_fresh_token(&request)
                } else {
                    request.clone()
                };
                let mut answer = at_once(town.cloud.launch(&sent));
                if let Ok(launched) = &mut answer {
                    for instance in &mut launched.instances {
                        instance.operation = Some(request.operation.clone());
                    }
                    ledger.launched(&name, &request, launched);
                } else {
                    ledger.note(format_args!(
                        "{name} launch {}: {answer:?}",
                        request.client_token()
                    ));
                }
                answer
            })
            .await
    }

    async fn find(&self, operation: &OperationId) -> Result<Vec<Instance>, FleetError> {
        let mut listed = self.listed(format!("find {operation}")).await?;
        listed.retain(|instance| instance.operation.as_ref() == Some(operation));
        Ok(listed)
    }

    async fn list(&self) -> Result<Vec<Instance>, FleetError> {
        self.listed("list machines".to_owned()).await
    }

    async fn look(&self, instance: &InstanceId) -> Result<Option<Instance>, FleetError> {
        let listed = self.listed(format!("look at {instance}")).await?;
        Ok(listed.into_iter().find(|one| one.id == *instance))
    }

    async fn terminate(&self, instances: &[InstanceId]) -> Result<(), FleetError> {
        let (town, ledger) = (self.town.clone(), Arc::clone(&self.ledger));
        let (ids, name) = (instances.to_vec(), self.door.name.clone());
        let what = format!("terminate {ids:?}");
        self.door
            .call(what, true, move || {
                ledger.terminating(&name, &ids);
                at_once(town.cloud.terminate(&ids))
            })
            .await
    }
}

impl Outside {
    /// What EC2 says there is: it may not know yet what happened lately.
    async fn listed(&self, what: String) -> Result<Vec<Instance>, FleetError> {
        let town = self.town.clone();
        let listed = self
            .door
            .call(what, false, move || at_once(town.cloud.list()))
            .await?;
        let now = self.door.time.elapsed();
        let mut lag = self.fleet_lag.lock().unwrap();
        if now < lag.0 {
            return Ok(lag.1.clone());
        }
        let mut random = self.door.random.lock().unwrap();
        if now < self.door.until && random.random_ratio(1, 20) {
            let until = now + Duration::from_millis(random.random_range(500..10_000));
            *lag = (until, listed.clone());
        }
        Ok(listed)
    }

    async fn act<T: Send + 'static>(
        &self,
        what: String,
        effect: impl Fn(&Town, &Ledger) -> Result<T, NodesError> + Send + 'static,
    ) -> Result<T, NodesError> {
        let (town, ledger) = (self.town.clone(), Arc::clone(&self.ledger));
        let (name, said) = (self.door.name.clone(), what.clone());
        self.door
            .call(what, true, move || {
                ledger.note(format_args!("{name} {said}"));
                effect(&town, &ledger)
            })
            .await
    }
}

#[async_trait]
impl Nodes for Outside {
    async fn cordon(&self, node: &NodeName, operation: Option<&OperationId>) -> Result<bool, NodesError> {
        let (node, operation) = (node.clone(), operation.cloned());
        self.act(format!("cordon {node}"), move |town, _| {
            at_once(town.cluster.cordon(&node, operation.as_ref()))
        })
        .await
    }

    async fn uncordon(&self, node: &NodeName, operation: Option<&OperationId>) -> Result<(), NodesError> {
        let (node, operation) = (node.clone(), operation.cloned());
        self.act(format!("uncordon {node}"), move |town, ledger| {
            let done = at_once(town.cluster.uncordon(&node, operation.as_ref()));
            ledger.uncordoned(&node);
            done
        })
        .await
    }

    async fn pods(&self, node: &NodeName) -> Result<Vec<PodOnNode>, NodesError> {
        let (town, node) = (self.town.clone(), node.clone());
        self.door
            .call(format!("pods of {}", node.clone()), false, move || {
                at_once(town.cluster.pods(&node))
            })
            .await
    }

    async fn evict(&self, pod: &PodOnNode) -> Result<Eviction, NodesError> {
        let pod = pod.clone();
        self.act(format!("evict {}", pod.key), move |town, ledger| {
            ledger.evicting(&pod.key);
            at_once(town.cluster.evict(&pod))
        })
        .await
    }

    async fn delete_pod(&self, pod: &PodOnNode, grace_seconds: u32) -> Result<(), NodesError> {
        let pod = pod.clone();
        self.act(format!("delete pod {}", pod.key), move |town, ledger| {
            ledger.deleting_pod(&pod.key);
            at_once(town.cluster.delete_pod(&pod, grace_seconds))
        })
        .await
    }

    async fn verify(&self, node: &NodeName, binding: &Binding) -> Result<Verified, NodesError> {
        let (node, binding) = (node.clone(), binding.clone());
        self.act(format!("verify {node}"), move |town, _| {
            at_once(town.cluster.verify(&node, &binding))
        })
        .await
    }

    async fn leave_balancers(&self, node: &NodeName, operation: &OperationId) -> Result<(), NodesError> {
        let (node, operation) = (node.clone(), operation.clone());
        self.act(format!("leave balancers {node}"), move |town, _| {
            at_once(town.cluster.leave_balancers(&node, &operation))
        })
        .await
    }

    async fn rejoin_balancers(&self, node: &NodeName, operation: &OperationId) -> Result<(), NodesError> {
        let (node, operation) = (node.clone(), operation.clone());
        self.act(format!("rejoin balancers {node}"), move |town, _| {
            at_once(town.cluster.rejoin_balancers(&node, &operation))
        })
        .await
    }

    async fn attached(&self, node: &NodeName) -> Result<Vec<String>, NodesError> {
        let (town, node) = (self.town.clone(), node.clone());
        self.door
            .call(format!("attached to {}", node.clone()), false, move || {
                at_once(town.cluster.attached(&node))
            })
            .await
    }

    async fn out_of_service(&self, node: &NodeName) -> Result<(), NodesError> {
        let node = node.clone();
        self.act(format!("out of service {node}"), move |town, _| {
            at_once(town.cluster.out_of_service(&node))
        })
        .await
    }

    async fn delete(&self, node: &NodeName) -> Result<(), NodesError> {
        let node = node.clone();
        self.act(format!("delete node {node}"), move |town, ledger| {
            ledger.deleting_node(&node);
            at_once(town.cluster.delete(&node))
        })
        .await
    }
}

#[async_trait]
impl ClusterView for Outside {
    fn latest(&self) -> Observed<Objects> {
        let now = self.door.time.elapsed();
        if now < self.synced {
            return Observed::default();
        }
        let mut lag = self.lag.lock().unwrap();
        if now < lag.0
            && let Some(old) = &lag.1
        {
            return old.clone();
        }
        let mut latest = self.town.watched(now, self.door.time.now());
        latest.at = latest.at.map(|at| at + self.ahead);
        let mut random = self.door.random.lock().unwrap();
        if now < self.door.until && random.random_ratio(1, 200) {
            let until = now + Duration::from_millis(random.random_range(200..15_000));
            *lag = (until, Some(latest.clone()));
        }
        latest
    }

    async fn changed(&self) {
        self.view.changed().await;
    }
}
