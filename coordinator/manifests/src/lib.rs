//! Kubernetes objects, read field by field, into the planner's model.
//!
//! ```text
//! files  ─▶ read::objects ─┐
//!                          ├─▶ Object ─▶ Objects (keyed) ─▶ planner::model::Cluster + what is wrong with which object
//! watch  ─▶ typed structs ─┘
//! ```
//!
//! The structs hold only fields that are read and pass over all others: they come from other people's clusters.
//! Quantities and times stay text until they are converted, so that one unparsable object never stops a watch; the
//! conversion names object and path ([`BadObject`]). In files that is bad input; in a watch the object is passed over
//! *conservatively*: what it stands for is neither moved nor removed (see [`Objects::to_cluster`]).

#![warn(missing_docs)]

mod collection;
mod convert;
mod deletion_cost;
mod export;
mod meta;
mod node;
mod pod;
pub mod read;
mod storage;
mod workload;

pub use collection::{Object, Objects};
pub use convert::{BadObject, Kind};
pub use deletion_cost::DeletionCost;
pub use meta::{LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference, Quantity};
pub use node::{Node, NodeCondition, NodeSpec, NodeStatus, Taint};
pub use pod::{
    Affinity, Container, ContainerPort, EmptyDir, EphemeralVolume, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinity, PodAffinityTerm, PodCondition, PodSpec,
    PodStatus, PreferredNodeTerm, PreferredPodTerm, Present, Resources, Toleration, TopologySpreadConstraint,
    Volume, VolumeClaimReference,
};
pub use storage::{
    ClaimReference, CsiDriver, CsiDriverRoom, CsiNode, CsiNodeSpec, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, PersistentVolumeSpec, StorageClass, TopologyRequirement, TopologyTerm,
    VolumeDriver, VolumeNodeAffinity, VolumeStatus,
};
pub use workload::{
    DaemonSet, DaemonSetSpec, Deployment, Job, Namespace, PodDisruptionBudget, PodDisruptionBudgetSpec,
    PodDisruptionBudgetStatus, PodTemplate, PriorityClass, ReplicaSet, StatefulSet,
};
