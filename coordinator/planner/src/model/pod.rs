//! A pod: what it asks for, where it is, and whose it is.

use std::{net::IpAddr, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    Labels, NodeAffinity, NodeName, PodAffinityTerm, PodKey, Resources, SpreadConstraint, Taint, TaintEffect,
    Weighted,
};

/// A pod of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Namespace and name.
    pub key: PodKey,
    /// The API server's identity of this very pod, empty if unknown.
    pub uid: Arc<str>,
    /// All its labels.
    pub labels: Labels,
    /// The annotations that a decision reads (see [`crate::drainability::ANNOTATIONS`]).
    pub annotations: Labels,
    /// Where it is bound. `None` is pending.
    pub node: Option<NodeName>,
    /// Where it stands in its life.
    pub phase: Phase,
    /// Its condition `Ready` is `True`.
    pub ready: bool,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When the kubelet took it up.
    pub started: Option<Timestamp>,
    /// Set while it terminates.
    pub deletion: Option<Deletion>,
    /// The owner that would create it anew.
    pub controller: Option<Owner>,
    /// What it asks for; `pods` is 1.
    pub requests: Resources,
    /// Its resolved priority.
    pub priority: i32,
    /// The scheduler may make room for it by preempting pods of lower priority (`preemptionPolicy` is not `Never`).
    pub preempts: bool,
    /// The node where the scheduler is doing so (`status.nominatedNodeName`).
    pub nominated: Option<NodeName>,
    /// The scheduler that it waits for.
    pub scheduler: Arc<str>,
    /// Labels its node must have.
    pub node_selector: Labels,
    /// Required and preferred node affinity.
    pub node_affinity: NodeAffinity,
    /// Required pod affinity.
    pub pod_affinity: Vec<PodAffinityTerm>,
    /// Required pod anti-affinity.
    pub pod_anti_affinity: Vec<PodAffinityTerm>,
    /// Preferred pod affinity (positive weight) and anti-affinity (negative).
    pub preferred_pod_affinity: Vec<Weighted<PodAffinityTerm>>,
    /// Taints that it bears.
    pub tolerations: Vec<Toleration>,
    /// How its like must be spread.
    pub spread: Vec<SpreadConstraint>,
    /// Ports of the host that it takes.
    pub host_ports: Vec<HostPort>,
    /// It waits for somebody to lift its scheduling gates.
    pub gated: bool,
    /// Its volumes.
    pub volumes: Vec<PodVolume>,
    /// It uses dynamic resource allocation, of which nothing can be said offline.
    pub resource_claims: bool,
}

/// The scheduler of a pod that names none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

impl Pod {
    /// A pod that waits for a place, asks for `requests` and for nothing else, and is nobody's.
    pub fn pending(key: PodKey, requests: Resources) -> Self {
        Self {
            key,
            uid: "".into(),
            labels: Labels::new(),
            annotations: Labels::new(),
            node: None,
            phase: Phase::Pending,
            ready: false,
            created: None,
            started: None,
            deletion: None,
            controller: None,
            requests,
            priority: 0,
            preempts: true,
            nominated: None,
            scheduler: DEFAULT_SCHEDULER.into(),
            node_selector: Labels::new(),
            node_affinity: NodeAffinity::default(),
            pod_affinity: Vec::new(),
            pod_anti_affinity: Vec::new(),
            preferred_pod_affinity: Vec::new(),
            tolerations: Vec::new(),
            spread: Vec::new(),
            host_ports: Vec::new(),
            gated: false,
            volumes: Vec::new(),
            resource_claims: false,
        }
    }

    /// Ended for good: it takes no room.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// It has been told to go.
    pub fn is_terminating(&self) -> bool {
        self.deletion.is_some()
    }

    /// It was told to go so long ago that it must be gone: 30 s past the end of its grace. The API server's
    /// `deletionTimestamp` already is that end.
    pub fn is_gone(&self, now: Timestamp) -> bool {
        self.deletion
            .as_ref()
            .is_some_and(|d| now.duration_since(d.at) > SignedDuration::from_secs(30))
    }

    /// Its controller is of this kind.
    pub fn is_owned_by(&self, kind: &str) -> bool {
        self.controller.as_ref().is_some_and(|owner| &*owner.kind == kind)
    }

    /// Its kubelet reads it from a file or URL; the API server has only the image of it.
    pub fn is_mirror(&self) -> bool {
        self.annotations.contains_key(crate::drainability::MIRROR)
    }

    /// It waits for a place that we may look for: unbound, alive, ungated, no DaemonSet's, our scheduler's.
    pub fn wants_place(&self) -> bool {
        self.node.is_none()
            && !self.is_finished()
            && !self.is_terminating()
            && !self.gated
            && !self.is_owned_by("DaemonSet")
            && &*self.scheduler == DEFAULT_SCHEDULER
    }
}

/// Where a pod stands in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not all containers run yet.
    #[default]
    Pending,
    /// At least one container runs.
    Running,
    /// All ended well.
    Succeeded,
    /// All ended, one badly.
    Failed,
    /// Its node does not say.
    Unknown,
}

/// A pod's end, once it was told to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When its grace ends (`metadata.deletionTimestamp`).
    pub at: Timestamp,
    /// When it was told to go: that less the grace (`metadata.deletionGracePeriodSeconds`), where it is said.
    pub since: Option<Timestamp>,
}

/// The controller that owns a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// `ReplicaSet`, `StatefulSet`, `DaemonSet`, `Job`, `Node`, …
    pub kind: Arc<str>,
    /// Its name, in the pod's namespace.
    pub name: Arc<str>,
}

/// A taint that a pod bears.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Toleration {
    /// The taint's key; `None` with `Exists` bears all.
    pub key: Option<Arc<str>>,
    /// How the value is compared.
    pub operator: TolerationOperator,
    /// The value to compare with.
    pub value: Arc<str>,
    /// The effect that it bears; `None` bears all.
    pub effect: Option<TaintEffect>,
}

/// How a toleration compares its value with the taint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TolerationOperator {
    /// Equal.
    Equal,
    /// Any.
    Exists,
    /// The taint's value is a number below (KEP-5471; off by default in 1.36).
    Lt,
    /// The taint's value is a number above.
    Gt,
}

impl Toleration {
    /// Whether it bears this taint (`v1.Toleration.ToleratesTaint`; the numeric operators are behind a gate that is
    /// off, hence bear nothing).
    pub fn tolerates(&self, taint: &Taint) -> bool {
        if self.effect.is_some_and(|effect| effect != taint.effect) {
            return false;
        }
        match &self.key {
            Some(key) if !key.is_empty() && *key != taint.key => return false,
            None if self.operator != TolerationOperator::Exists => return false,
            _ => {}
        }
        match self.operator {
            TolerationOperator::Exists => true,
            TolerationOperator::Equal => self.value == taint.value,
            TolerationOperator::Lt | TolerationOperator::Gt => false,
        }
    }
}

/// A port of the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The address it is taken on; `None` is all.
    pub ip: Option<IpAddr>,
    /// Its number.
    pub port: u16,
}

impl HostPort {
    /// Whether two pods cannot have both on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.port == other.port
            && (self.ip.is_none() || other.ip.is_none() || self.ip == other.ip)
    }
}

/// Transport protocols of host ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodVolume {
    /// Its name in the pod.
    pub name: Arc<str>,
    /// Where it comes from.
    pub source: VolumeSource,
}

/// Where a volume comes from, as far as placement and eviction care.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VolumeSource {
    /// An emptyDir on the node's disk.
    EmptyDir,
    /// An emptyDir in memory.
    EmptyDirInMemory,
    /// A folder of the node.
    HostPath,
    /// A persistent volume claim in the pod's namespace.
    Claim(Arc<str>),
    /// The claim that is made for this very pod's ephemeral volume.
    OwnClaim {
        /// It is called `POD-VOLUME`.
        name: Arc<str>,
        /// The pod that must own it: its uid, or its name where that is unknown.
        pod: Arc<str>,
    },
    /// A CSI driver's inline volume: nothing to place, nothing to lose.
    Inline,
    /// Config maps, secrets and the like.
    Other,
}
