//! What the coordinator does to Kubernetes nodes by itself; the real one is the API server (`kubernetes/nodes`).

use async_trait::async_trait;
use jiff::Timestamp;
use smartscale_planner::{
    BlockerCode,
    drainability::{Evictability, Strictness, Tier, classify},
    model::{NodeName, Pod, PodKey},
};

use super::binding::{Binding, Verified};
use crate::ids::OperationId;

/// A pod of a node, as a drain through the API sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodOnNode {
    /// Namespace and name.
    pub key: PodKey,
    /// UID: an eviction is for this pod, not for a later one of the same name.
    pub uid: String,
    /// Whether it has to leave (no DaemonSet's, mirror or finished pod).
    pub must_leave: bool,
    /// Whether it loses data with the node (and no annotation says that this is no loss).
    pub local_storage: bool,
    /// Whether it has a deletion timestamp.
    pub terminating: bool,
    /// Its priority tier: tiers leave in ascending order.
    pub tier: Tier,
}

impl PodOnNode {
    /// What a drain has to know of this pod.
    #[must_use]
    pub fn of(pod: &Pod, now: Timestamp) -> Self {
        let fate = classify(pod, Strictness::default(), None, now);
        Self {
            key: pod.key.clone(),
            uid: pod.uid.to_string(),
            must_leave: !matches!(fate, Evictability::Skip(_)),
            local_storage: matches!(
                &fate,
                Evictability::Block(blockers, _) if blockers.contains(&BlockerCode::LocalStorage)
            ),
            terminating: pod.is_terminating(),
            tier: Tier::of(pod.priority),
        }
    }
}

/// What the API server said to an eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eviction {
    /// Accepted: the pod ends.
    Accepted,
    /// There is no such pod any more (404, or another UID).
    Gone,
    /// A disruption budget says no for now.
    Budget,
    /// More than one budget covers the pod: the API server never evicts it.
    MultipleBudgets,
    /// The namespace is being deleted; the pod goes with it.
    NamespaceTerminating,
}

/// What became of the Node whose name a machine wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// There is none, or a new one.
    Free,
    /// It was deleted.
    Freed,
    /// It is Ready: another machine has the name.
    InUse,
}

/// How a hand-over stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandOver {
    /// These Deployments (`namespace/name`) have more pods than they want, or are about to have fewer again.
    UnderWay(Vec<String>),
    /// No pod of the node can be handed over, any more or at all.
    Over,
}

/// What became of the deletion cost of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priced {
    /// It is as wished, and was not before.
    Written,
    /// There was nothing to do, or it is somebody else's.
    Left,
    /// Somebody wrote the pod at the same moment: nothing was written.
    Overtaken,
    /// There is no such pod any more (or another one of its name), or it is about to end.
    Gone,
}

/// A call to the API server that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodesError {
    /// There is no such node.
    #[error("there is no node {0}")]
    NoNode(NodeName),
    /// The API server refused.
    #[error("the Kubernetes API refused: {0}")]
    Refused(String),
    /// It did not answer, or asks for fewer calls: the same call may work later.
    #[error("the Kubernetes API is not available: {0}")]
    Unavailable(String),
}

/// Kubernetes nodes as things to act on. Every call is idempotent.
#[async_trait]
pub trait Nodes: Send + Sync {
    /// Keeps new pods off a node. With an operation the cordon bears its name
    /// (annotation `smartscale.io/draining`), so that it is told apart from a person's.
    /// Returns whether the node was cordoned before by somebody else.
    async fn cordon(&self, node: &NodeName, operation: Option<&OperationId>) -> Result<bool, NodesError>;
    /// Lets pods onto a node again. With an operation only if the cordon bears its name.
    async fn uncordon(&self, node: &NodeName, operation: Option<&OperationId>) -> Result<(), NodesError>;
    /// The pods on a node.
    async fn pods(&self, node: &NodeName) -> Result<Vec<PodOnNode>, NodesError>;
    /// Asks for the eviction of a pod, with its UID as precondition.
    async fn evict(&self, pod: &PodOnNode) -> Result<Eviction, NodesError>;
    /// Deletes a pod with `grace_seconds`; 0 leaves no grace.
    async fn delete_pod(&self, pod: &PodOnNode, grace_seconds: u32) -> Result<(), NodesError>;
    /// Lifts the taint `smartscale.io/unverified` from a node that carries its nonce (annotation `smartscale.io/nonce`). One
    /// look for both: what is proven is what is changed.
    async fn verify(&self, node: &NodeName, binding: &Binding) -> Result<Verified, NodesError>;
    /// Takes a node out of external load balancers for an operation. A node that somebody else took out stays theirs.
    async fn leave_balancers(&self, node: &NodeName, operation: &OperationId) -> Result<(), NodesError>;
    /// Puts a node back that the operation took out.
    async fn rejoin_balancers(&self, node: &NodeName, operation: &OperationId) -> Result<(), NodesError>;
    /// Volumes that are attached to a node and that none of the pods on it uses, by the names of their
    /// PersistentVolumes.
    async fn attached(&self, node: &NodeName) -> Result<Vec<String>, NodesError>;
    /// Says that a node is down for good, so that its pods are deleted and its volumes detached without it.
    async fn out_of_service(&self, node: &NodeName) -> Result<(), NodesError>;
    /// Deletes the Node of this name, unless it is Ready or was created at `since` or later.
    async fn free_name(&self, _node: &NodeName, _since: Timestamp) -> Result<Name, NodesError> {
        Ok(Name::Free)
    }
    /// One look at a hand-over of the node's pods, which takes the step that is next: where a Deployment allows surge, the
    /// successors are started elsewhere, and the node's pods ended once those are available. The node is closed.
    async fn hand_over(&self, _node: &NodeName, _operation: &OperationId) -> Result<HandOver, NodesError> {
        Ok(HandOver::Over)
    }
    /// Gives a hand-over up: Deployments have as many replicas as their users want.
    async fn end_hand_over(&self, _node: &NodeName, _operation: &OperationId) -> Result<(), NodesError> {
        Ok(())
    }
    /// Has a ReplicaSet's controller ask this cost when it chooses what a scale-in deletes, and marks it as ours; `None` takes
    /// back what is ours. One look for both: what was read is what is changed, and what somebody else said stays
    /// ([`Standing::change`](super::steering::standing::Standing::change)).
    async fn price(&self, _pod: &PodKey, _uid: &str, _cost: Option<i32>) -> Result<Priced, NodesError> {
        Ok(Priced::Gone)
    }
    /// Deletes the Node object. One that is gone already is no error.
    async fn delete(&self, node: &NodeName) -> Result<(), NodesError>;
}
