//! The API server as one node's kubelet credential may use it (Node authorizer, NodeRestriction): that node, its pods, nothing
//! else. Which node a caller is stands in its credential, never in its request.

use std::time::Duration;

use async_trait::async_trait;
use smartscale_agent::kubelet::{KubeletApi, OwnNode, OwnPod, Refusal};
use smartscale_planner::model::{NodeName, PodKey, keys};

use super::{Cluster, EvictionRefused, PodEntry, State, budget};

impl Cluster {
    /// The API with the credential of `node`'s kubelet.
    #[must_use]
    pub fn kubelet_api(&self, node: &str) -> NodeApi {
        NodeApi {
            cluster: self.clone(),
            node: node.into(),
        }
    }
}

/// The API with a kubelet's credential.
pub struct NodeApi {
    cluster: Cluster,
    node: NodeName,
}

impl NodeApi {
    fn own(&self, node: &str) -> Result<(), Refusal> {
        if self.node.as_str() == node {
            return Ok(());
        }
        Err(Refusal::Refused(format!(
            "node {:?} is not allowed to act on node {node:?}",
            self.node.as_str()
        )))
    }

    fn own_pod<'s>(&self, state: &'s State, key: &PodKey) -> Result<&'s PodEntry, Refusal> {
        let entry = state.pods.get(key).ok_or(Refusal::NotFound)?;
        if entry.pod.node.as_ref() == Some(&self.node) {
            return Ok(entry);
        }
        Err(Refusal::Refused(format!(
            "node {:?} can only act on pods with spec.nodeName set to itself",
            self.node.as_str()
        )))
    }
}

fn own(entry: &PodEntry) -> OwnPod {
    OwnPod {
        pod: entry.pod.clone(),
        grace: entry.grace,
    }
}

#[async_trait]
impl KubeletApi for NodeApi {
    async fn node(&self, node: &str) -> Result<OwnNode, Refusal> {
        self.own(node)?;
        let state = self.cluster.state();
        let entry = state.nodes.get(node).ok_or(Refusal::NotFound)?;
        Ok(OwnNode {
            unschedulable: entry.node.unschedulable,
            cordoned_by: entry
                .node
                .annotations
                .get(keys::DRAINING)
                .map(ToString::to_string),
            ready: entry.node.ready,
        })
    }

    async fn cordon(&self, node: &str, operation: &str) -> Result<(), Refusal> {
        self.own(node)?;
        self.cluster.change(|state, _, _| {
            let entry = state.nodes.get_mut(node).ok_or(Refusal::NotFound)?;
            entry.node.unschedulable = true;
            entry
                .node
                .annotations
                .insert(keys::DRAINING.into(), operation.into());
            state.touch();
            Ok(())
        })
    }

    async fn uncordon(&self, node: &str) -> Result<(), Refusal> {
        self.own(node)?;
        self.cluster.change(|state, _, _| {
            let entry = state.nodes.get_mut(node).ok_or(Refusal::NotFound)?;
            entry.node.unschedulable = false;
            entry.node.annotations.remove(keys::DRAINING);
            state.touch();
            Ok(())
        })
    }

    async fn prove(&self, node: &str, uid: &str, nonce: &str) -> Result<(), Refusal> {
        self.own(node)?;
        self.cluster.change(|state, _, _| {
            let entry = state.nodes.get_mut(node).ok_or(Refusal::NotFound)?;
            if entry.uid() != uid {
                return Err(Refusal::OtherUid);
            }
            entry.node.annotations.insert(keys::NONCE.into(), nonce.into());
            state.touch();
            Ok(())
        })
    }

    async fn pods(&self, node: &str) -> Result<Vec<OwnPod>, Refusal> {
        self.own(node)?;
        let state = self.cluster.state();
        Ok(state
            .pods
            .values()
            .filter(|entry| entry.pod.node.as_ref() == Some(&self.node))
            .map(own)
            .collect())
    }

    async fn pod(&self, key: &PodKey) -> Result<Option<OwnPod>, Refusal> {
        let state = self.cluster.state();
        match self.own_pod(&state, key) {
            Ok(entry) => Ok(Some(own(entry))),
            Err(Refusal::NotFound) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    async fn evict(&self, key: &PodKey, uid: &str, grace: Option<Duration>) -> Result<(), Refusal> {
        self.cluster.change(|state, now, _| {
            let told_before = self.own_pod(state, key)?.pod.is_terminating();
            let evicted = budget::evict(state, key, Some(uid), now).map_err(|refused| match refused {
                EvictionRefused::NotFound => Refusal::NotFound,
                EvictionRefused::OtherUid => Refusal::OtherUid,
                EvictionRefused::Budget(_) => Refusal::Budget(refused.to_string()),
                EvictionRefused::MultipleBudgets => Refusal::MultipleBudgets,
            });
            if let (Ok(()), Some(grace), false) = (&evicted, grace, told_before) {
                state.delete_pod(key, Some(grace), now);
            }
            evicted
        })
    }

    async fn delete(&self, key: &PodKey, uid: &str, grace: Duration) -> Result<(), Refusal> {
        self.cluster.change(|state, now, _| {
            if *self.own_pod(state, key)?.pod.uid != *uid {
                return Err(Refusal::OtherUid);
            }
            state.delete_pod(key, Some(grace), now);
            Ok(())
        })
    }
}
