//! A node: what it offers, what it repels, and how old and healthy it is.

use std::{ops::Bound, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{InstanceType, Labels, Market, NodeName, PoolName, Resources, Zone, keys};

/// For so long a node that is not Ready yet is expected to become so, and startup taints to go away.
pub const SETTLING: SignedDuration = SignedDuration::from_mins(5);

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name; on AWS the instance id.
    pub name: NodeName,
    /// All its labels.
    pub labels: Arc<Labels>,
    /// The annotations that a decision reads (see [`crate::drainability::ANNOTATIONS`]).
    pub annotations: Labels,
    /// What it repels.
    pub taints: Vec<Taint>,
    /// Cordoned.
    pub unschedulable: bool,
    /// Its condition `Ready` is `True`.
    pub ready: bool,
    /// When it was created; `None` counts as old.
    pub created: Option<Timestamp>,
    /// It is on its way out: has a deletion timestamp, or somebody (the coordinator's operation, another autoscaler)
    /// has marked it.
    pub being_deleted: bool,
    /// What pods may use.
    pub allocatable: Resources,
    /// What the machine has.
    pub capacity: Resources,
    /// `aws:///zone/instance`, if known.
    pub provider_id: Option<Arc<str>>,
}

impl Node {
    /// The value of one label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(AsRef::as_ref)
    }

    /// The pool that the node says it belongs to. Whether the policy has it is another question
    /// ([`crate::policy::Policy::pool_of`]).
    pub fn pool(&self) -> Option<PoolName> {
        self.label(keys::POOL).map(PoolName::from)
    }

    /// How it was bought, if its label says so.
    pub fn market(&self) -> Option<Market> {
        self.label(keys::MARKET).and_then(Market::parse)
    }

    /// Its zone, if labelled.
    pub fn zone(&self) -> Option<Zone> {
        self.label(keys::ZONE).map(Zone::from)
    }

    /// Its instance type, if labelled.
    pub fn instance_type(&self) -> Option<InstanceType> {
        self.label(keys::INSTANCE_TYPE).map(InstanceType::from)
    }

    /// Whether it was created less than `limit` before `now`. Of unknown age: no.
    pub fn is_younger_than(&self, limit: SignedDuration, now: Timestamp) -> bool {
        self.created
            .is_some_and(|created| now.duration_since(created) < limit)
    }
}

/// The labels that mark a machine of the control plane, whatever their value.
pub trait ControlPlaneLabels {
    /// Whether one of them is there.
    fn is_control_plane(&self) -> bool;
}

impl ControlPlaneLabels for Node {
    fn is_control_plane(&self) -> bool {
        const PREFIX: &str = "node-role.kubernetes.io/";
        // Asked of every node again and again, and most have no role at all.
        let roles = self
            .labels
            .range::<str, _>((Bound::Included(PREFIX), Bound::Unbounded));
        roles
            .map_while(|(key, _)| key.strip_prefix(PREFIX))
            .any(|role| matches!(role, "control-plane" | "master" | "etcd"))
    }
}

/// What a node repels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taint {
    /// Its key.
    pub key: Arc<str>,
    /// Its value, empty if none.
    pub value: Arc<str>,
    /// What it does to pods that do not tolerate it.
    pub effect: TaintEffect,
}

impl Taint {
    /// Whether it is one that Kubernetes itself puts on a node until that is Ready for the first time.
    pub fn marks_a_start(&self) -> bool {
        matches!(
            &*self.key,
            "node.kubernetes.io/not-ready"
                | "node.kubernetes.io/unreachable"
                | "node.cloudprovider.kubernetes.io/uninitialized"
        )
    }
}

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum TaintEffect {
    /// They are not placed.
    NoSchedule,
    /// They are rather not placed.
    PreferNoSchedule,
    /// They are not placed, and those that run are evicted.
    NoExecute,
}
