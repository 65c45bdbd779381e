//! The Kubernetes API as a kubelet's credential may use it: its own node, its own pods, nothing else.
//!
//! The Node authorizer and NodeRestriction allow a kubelet to set its own `spec.unschedulable` and annotations, to read its own
//! pods, to evict and to delete them. It cannot taint itself, list disruption budgets or read DaemonSets
//! (<https://kubernetes.io/docs/reference/access-authn-authz/node/>).

#[cfg(feature = "kube")]
pub mod kube;

use std::time::Duration;

use async_trait::async_trait;
use smartscale_planner::model::{Phase, Pod, PodKey};

/// A pod of this node.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnPod {
    /// The pod.
    pub pod: Pod,
    /// Its termination grace period.
    pub grace: Duration,
}

/// What a drain reads of its node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnNode {
    /// Takes no new pods.
    pub unschedulable: bool,
    /// The operation that cordoned it; `None` if a person did, or nobody.
    pub cordoned_by: Option<String>,
    /// Condition Ready is True.
    pub ready: bool,
}

/// Why a call did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 404: there is no such object.
    #[error("there is no such object")]
    NotFound,
    /// 409: the name belongs to another object by now.
    #[error("another object has this name by now")]
    OtherUid,
    /// 429 with cause `DisruptionBudget`.
    #[error("{0}")]
    Budget(String),
    /// 500: more than one disruption budget covers the pod, which the API server cannot evict then.
    #[error("MultiplePdbs: more than one disruption budget covers this pod, so that it cannot be evicted")]
    MultipleBudgets,
    /// 403 with cause `NamespaceTerminating`: the namespace's end takes the pod along.
    #[error("its namespace is ending, which ends it too")]
    NamespaceTerminating,
    /// 429 without that cause: the API server has too much to do.
    #[error("the API server asks for patience")]
    Throttled {
        /// How long, if it says.
        after: Option<Duration>,
    },
    /// Another 4xx: the same call will not do better soon.
    #[error("the API server refuses: {0}")]
    Refused(String),
    /// 5xx, or no answer.
    #[error("the API server cannot be asked: {0}")]
    Unavailable(String),
}

/// The Kubernetes API with a kubelet's credential.
#[async_trait]
pub trait KubeletApi: Send + Sync {
    /// The node.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when it is not registered, or another.
    async fn node(&self, node: &str) -> Result<OwnNode, Refusal>;
    /// Cordons the node in the name of an operation.
    ///
    /// # Errors
    /// [`Refusal`].
    async fn cordon(&self, node: &str, operation: &str) -> Result<(), Refusal>;
    /// Takes the cordon away.
    ///
    /// # Errors
    /// [`Refusal`].
    async fn uncordon(&self, node: &str) -> Result<(), Refusal>;
    /// Writes the nonce that binds the node to this machine (annotation `smartscale.io/nonce`), if the node has this UID.
    ///
    /// # Errors
    /// [`Refusal::OtherUid`] or [`Refusal::Refused`] when the name belongs to another node by now, or another.
    async fn prove(&self, node: &str, uid: &str, nonce: &str) -> Result<(), Refusal>;
    /// Every pod bound to the node, as the datastore has it.
    ///
    /// # Errors
    /// [`Refusal`].
    async fn pods(&self, node: &str) -> Result<Vec<OwnPod>, Refusal>;
    /// Where each pod bound to the node stands, and whether it terminates; a cache may answer.
    ///
    /// # Errors
    /// [`Refusal`].
    async fn phases(&self, node: &str) -> Result<Vec<(Phase, bool)>, Refusal> {
        let pods = self.pods(node).await?;
        let phase = |own: &OwnPod| (own.pod.phase, own.pod.is_terminating());
        Ok(pods.iter().map(phase).collect())
    }
    /// One pod; `None` when there is none of this name.
    ///
    /// # Errors
    /// [`Refusal`].
    async fn pod(&self, key: &PodKey) -> Result<Option<OwnPod>, Refusal>;
    /// Evicts the pod of this name if it has this UID, with `grace` in place of its own. A call that is refused for its UID has used the disruption budget up
    /// all the same: read the pod first.
    ///
    /// # Errors
    /// [`Refusal`].
    async fn evict(&self, key: &PodKey, uid: &str, grace: Option<Duration>) -> Result<(), Refusal>;
    /// Deletes the pod of this name if it has this UID, past its budget, with this grace.
    ///
    /// # Errors
    /// [`Refusal`].
    async fn delete(&self, key: &PodKey, uid: &str, grace: Duration) -> Result<(), Refusal>;
}
