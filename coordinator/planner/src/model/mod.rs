//! The cluster as the planner sees it: only what a decision reads, in types that name no protocol.
//!
//! `smartscale-manifests` fills it from Kubernetes objects, the simulator directly, tests through
//! [`crate::fixtures`]. Order in the vectors never changes a decision.

mod affinity;
mod node;
mod pod;
mod selector;
mod storage;
mod workload;

pub use affinity::{NodeAffinity, PodAffinityTerm, SpreadConstraint, UnsatisfiableAction, Weighted};
pub use node::{ControlPlaneLabels, Node, SETTLING, Taint, TaintEffect};
pub use pod::{
    DEFAULT_SCHEDULER, Deletion, HostPort, Owner, Phase, Pod, PodVolume, Protocol, Toleration,
    TolerationOperator, VolumeSource,
};
pub use selector::{LabelOperator, LabelRequirement, LabelSelector, NodeOperator, NodeRequirement, NodeTerm};
pub use storage::{
    AccessModes, AttachLimits, BindingMode, Claim, ClaimPhase, PersistentVolume, StorageClass, VolumeTraits,
};
pub use workload::{DaemonSet, DisruptionBudget, Namespace};

pub use crate::{
    names::{ClusterId, InstanceType, Market, NamespaceName, NodeName, NotAPodKey, PodKey, PoolName, Zone},
    resources::{Bytes, MilliCpu, Percent, Resources},
};

use std::{collections::BTreeMap, sync::Arc};

/// Labels or annotations by key.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Keys of labels, taints and annotations that the decision and its execution know by name.
pub mod keys {
    /// The pool that a node belongs to.
    pub const POOL: &str = "smartscale.io/pool";
    /// How the node was bought: `spot` or `on-demand`.
    pub const MARKET: &str = "smartscale.io/market";
    /// The taint that a node carries until the coordinator has verified it.
    pub const UNVERIFIED: &str = "smartscale.io/unverified";
    /// Annotation with which a node's own kubelet proves that it is on the machine that the node is named after.
    pub const NONCE: &str = "smartscale.io/nonce";
    /// Annotation by which a drain, the agent's or the coordinator's, marks a cordon as its own; the value is its operation. A
    /// cordon without it is a person's, and is never lifted. Set and removed together with `spec.unschedulable`.
    pub const DRAINING: &str = "smartscale.io/draining";
    /// Label of a Deployment that has more replicas than its users want, so that pods of a node that goes have their successors
    /// first; the value is the operation.
    pub const HANDING_OVER: &str = "smartscale.io/handing-over";
    /// Annotation beside it: the replicas that are wanted, and how many were added (`4+1`).
    pub const HANDED_REPLICAS: &str = "smartscale.io/handed-replicas";
    /// Annotation of a pod by which a ReplicaSet's controller chooses what a scale-in deletes: the lowest first, 0 without it
    /// (KEP-2255).
    pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    /// Annotation that marks such a cost as ours, written with it; the value is the cost. One that says something else than the
    /// cost does is what is left where somebody else has changed it.
    pub const STEERED: &str = "smartscale.io/steered";
    /// Keeps external load balancers from a node (KEP-1143); its presence counts, not its value, which is our operation.
    pub const NO_BALANCERS: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
    /// Taint of a node that is down for good: its pods are deleted and its volumes detached at once (KEP-2268).
    pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
    /// The node's own name.
    pub const HOSTNAME: &str = "kubernetes.io/hostname";
    /// Its instance type.
    pub const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
    /// Its zone.
    pub const ZONE: &str = "topology.kubernetes.io/zone";
    /// Its region.
    pub const REGION: &str = "topology.kubernetes.io/region";
    /// Labels that tie a volume to a place, with their older names.
    pub const PLACES: [&str; 4] = [
        ZONE,
        REGION,
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    ];
    /// Its processor architecture.
    pub const ARCH: &str = "kubernetes.io/arch";
    /// Its operating system.
    pub const OS: &str = "kubernetes.io/os";
}

/// Everything that lives in the cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// All nodes, the server's and foreign ones included.
    pub nodes: Vec<Node>,
    /// All pods, finished ones too if they were given. Shared, so that a cluster of which little changes is put together
    /// anew at little cost.
    pub pods: Vec<Arc<Pod>>,
    /// DaemonSets, whose pods a new node will carry.
    pub daemon_sets: Vec<DaemonSet>,
    /// Disruption budgets.
    pub disruption_budgets: Vec<DisruptionBudget>,
    /// Namespaces, for `namespaceSelector`.
    pub namespaces: Vec<Namespace>,
    /// Volume claims.
    pub claims: Vec<Claim>,
    /// Persistent volumes.
    pub volumes: Vec<PersistentVolume>,
    /// Storage classes.
    pub storage_classes: Vec<StorageClass>,
    /// How many volumes nodes can have attached; of a node that is not named nothing is known.
    pub attach_limits: Vec<AttachLimits>,
}

impl Cluster {
    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name.as_str() == name)
    }

    /// Sorts everything by name, so that two snapshots of the same cluster are equal whatever order they came in.
    pub fn sort(&mut self) {
        self.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        self.pods.sort_by(|a, b| a.key.cmp(&b.key));
        self.daemon_sets
            .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        self.disruption_budgets
            .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        self.namespaces.sort_by(|a, b| a.name.cmp(&b.name));
        self.claims
            .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        self.volumes.sort_by(|a, b| a.name.cmp(&b.name));
        self.storage_classes.sort_by(|a, b| a.name.cmp(&b.name));
        self.attach_limits.sort_by(|a, b| a.node.cmp(&b.node));
    }
}
