//! The API server as the coordinator uses it: its watch of the objects and what it does to nodes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::{Value, from_value};
use smartscale_coordinator::{
    act::{
        binding::{Binding, Verified},
        nodes::{Eviction, Nodes, NodesError, PodOnNode, Priced},
        steering::standing::{Change, Standing},
    },
    ids::OperationId,
    observe::{ClusterView, Observed},
};
use smartscale_manifests::{Object, Objects};
use smartscale_planner::model::{NodeName, PodKey, keys};
use tokio::sync::{Mutex, watch};

use super::{Cluster, EvictionRefused, State, budget, manifest};
use crate::log::Source;

impl Cluster {
    /// The objects as a coordinator's watch holds them.
    #[must_use]
    pub fn objects(&self) -> Arc<Objects> {
        let mut state = self.state();
        if let Some((version, objects)) = &state.rendered
            && *version == state.version
        {
            return Arc::clone(objects);
        }
        let objects = Arc::new(read(&state, Objects::exportable()));
        state.rendered = Some((state.version, Arc::clone(&objects)));
        objects
    }

    /// The objects without the text that an export would need, which takes half as long.
    #[must_use]
    pub fn objects_to_read(&self) -> Objects {
        read(&self.state(), Objects::default())
    }

    /// A watch of the objects, for one coordinator.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            cluster: self.clone(),
            seen: Mutex::new(self.changes()),
        }
    }
}

fn read(state: &State, mut objects: Objects) -> Objects {
    for manifest in manifest::objects(state) {
        match object(manifest) {
            Ok(object) => objects.apply(object),
            Err(error) => tracing::error!(%error, "a simulated object cannot be read"),
        }
    }
    objects
}

/// The object of a manifest, read as a watch of its kind would read it.
fn object(manifest: Value) -> Result<Object, serde_json::Error> {
    let kind = manifest
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    Ok(match kind.as_str() {
        "Node" => from_value::<smartscale_manifests::Node>(manifest)?.into(),
        "Pod" => from_value::<smartscale_manifests::Pod>(manifest)?.into(),
        "PodDisruptionBudget" => from_value::<smartscale_manifests::PodDisruptionBudget>(manifest)?.into(),
        "DaemonSet" => from_value::<smartscale_manifests::DaemonSet>(manifest)?.into(),
        "ReplicaSet" => from_value::<smartscale_manifests::ReplicaSet>(manifest)?.into(),
        _ => from_value::<smartscale_manifests::Namespace>(manifest)?.into(),
    })
}

/// A watch of the cluster's objects.
pub struct View {
    cluster: Cluster,
    seen: Mutex<watch::Receiver<u64>>,
}

#[async_trait]
impl ClusterView for View {
    fn latest(&self) -> Observed<Objects> {
        Observed {
            value: Some(self.cluster.objects()),
            at: Some(self.cluster.clock.now()),
            error: None,
        }
    }

    async fn changed(&self) {
        if self.seen.lock().await.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn node_mut<'s>(state: &'s mut State, node: &NodeName) -> Result<&'s mut super::NodeEntry, NodesError> {
    state.touch();
    state
        .nodes
        .get_mut(node)
        .ok_or_else(|| NodesError::NoNode(node.clone()))
}

#[async_trait]
impl Nodes for Cluster {
    async fn cordon(&self, node: &NodeName, operation: Option<&OperationId>) -> Result<bool, NodesError> {
        self.change(|state, _, _| {
            let entry = node_mut(state, node)?;
            let before = entry.node.unschedulable;
            let ours = operation.is_some_and(|operation| {
                entry
                    .node
                    .annotations
                    .get(keys::DRAINING)
                    .is_some_and(|by| &**by == operation.as_str())
            });
            entry.node.unschedulable = true;
            if let Some(operation) = operation
                && !before
            {
                entry
                    .node
                    .annotations
                    .insert(keys::DRAINING.into(), operation.as_str().into());
            }
            Ok(before && !ours)
        })
    }

    async fn uncordon(&self, node: &NodeName, operation: Option<&OperationId>) -> Result<(), NodesError> {
        self.change(|state, _, _| {
            let entry = node_mut(state, node)?;
            let by = entry.node.annotations.get(keys::DRAINING);
            if operation.is_none_or(|operation| by.is_some_and(|by| &**by == operation.as_str())) {
                entry.node.unschedulable = false;
                entry.node.annotations.remove(keys::DRAINING);
            }
            Ok(())
        })
    }

    async fn pods(&self, node: &NodeName) -> Result<Vec<PodOnNode>, NodesError> {
        let now = self.clock.now();
        let state = self.state();
        if !state.nodes.contains_key(node) {
            return Err(NodesError::NoNode(node.clone()));
        }
        Ok(state
            .pods
            .values()
            .filter(|entry| entry.pod.node.as_ref() == Some(node))
            .map(|entry| PodOnNode::of(&entry.pod, now))
            .collect())
    }

    async fn evict(&self, pod: &PodOnNode) -> Result<Eviction, NodesError> {
        let outcome = self.change(|state, now, _| budget::evict(state, &pod.key, Some(&pod.uid), now));
        match outcome {
            Ok(()) => Ok(Eviction::Accepted),
            Err(EvictionRefused::NotFound | EvictionRefused::OtherUid) => Ok(Eviction::Gone),
            Err(EvictionRefused::Budget(_)) => Ok(Eviction::Budget),
            Err(EvictionRefused::MultipleBudgets) => Ok(Eviction::MultipleBudgets),
        }
    }

    async fn delete_pod(&self, pod: &PodOnNode, grace_seconds: u32) -> Result<(), NodesError> {
        self.change(|state, now, _| {
            if state
                .pods
                .get(&pod.key)
                .is_some_and(|entry| *entry.pod.uid == *pod.uid)
            {
                state.delete_pod(&pod.key, Some(Duration::from_secs(grace_seconds.into())), now);
            }
        });
        Ok(())
    }

    async fn verify(&self, node: &NodeName, binding: &Binding) -> Result<Verified, NodesError> {
        self.change(|state, _, _| {
            let entry = node_mut(state, node)?;
            let (uid, carried) = (entry.uid(), entry.node.annotations.get(keys::NONCE));
            if !binding.is_proven(&uid, carried.map(|nonce| &**nonce)) {
                return Ok(Verified::Unproven { uid });
            }
            entry.node.taints.retain(|taint| &*taint.key != keys::UNVERIFIED);
            Ok(Verified::Lifted)
        })
    }

    // Neither load balancers nor volumes are simulated.
    async fn leave_balancers(&self, _: &NodeName, _: &OperationId) -> Result<(), NodesError> {
        Ok(())
    }
    async fn rejoin_balancers(&self, _: &NodeName, _: &OperationId) -> Result<(), NodesError> {
        Ok(())
    }
    async fn attached(&self, _: &NodeName) -> Result<Vec<String>, NodesError> {
        Ok(Vec::new())
    }
    async fn out_of_service(&self, _: &NodeName) -> Result<(), NodesError> {
        Ok(())
    }
    async fn price(&self, pod: &PodKey, uid: &str, cost: Option<i32>) -> Result<Priced, NodesError> {
        self.change(|state, _, _| {
            let entry = state.pods.get_mut(pod).map(|entry| &mut entry.pod);
            let Some(pod) = entry.filter(|pod| *pod.uid == *uid && !pod.is_terminating()) else {
                return Ok(Priced::Gone);
            };
            let said = |key: &str| pod.annotations.get(key).map(|said| &**said);
            let standing = Standing::of(said(keys::DELETION_COST), said(keys::STEERED));
            let Some(change) = standing.change(cost) else {
                return Ok(Priced::Left);
            };
            if change != Change::Forget {
                pod.annotations.remove(keys::DELETION_COST);
            }
            pod.annotations.remove(keys::STEERED);
            if let Change::Say(cost) = change {
                for key in [keys::DELETION_COST, keys::STEERED] {
                    pod.annotations.insert(key.into(), cost.to_string().into());
                }
            }
            state.touch();
            Ok(Priced::Written)
        })
    }
    async fn delete(&self, node: &NodeName) -> Result<(), NodesError> {
        self.change(|state, now, log| {
            if state.nodes.remove(node).is_some() {
                log.write(Source::Cluster, "node_deleted", node.as_str(), "node deleted");
                state.deleted_nodes.insert(node.clone(), now);
                state.touch();
            }
        });
        Ok(())
    }
}
