//! Claims, volumes and storage classes, as far as they tie pods to places.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use super::{Bytes, LabelSelector, Labels, NamespaceName, NodeName, NodeTerm};

/// A persistent volume claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: Arc<str>,
    /// The API server's identity of this very claim, empty if unknown.
    pub uid: Arc<str>,
    /// The volume that it names.
    pub volume: Option<Arc<str>>,
    /// Whether it has the volume that it names, or only asks for it.
    pub phase: ClaimPhase,
    /// Its storage class; `None` is the default one, the empty one is none.
    pub storage_class: Option<Arc<str>>,
    /// What a volume for it must be like.
    pub wants: VolumeTraits,
    /// Labels of volumes that will do; `None` is any.
    pub selector: Option<LabelSelector>,
    /// The node where its volume is being made.
    pub selected_node: Option<Arc<str>>,
    /// It is going away: a pod that uses it waits for ever.
    pub being_deleted: bool,
    /// The pod that owns it, of an ephemeral volume: uid and name.
    pub owner: Option<(Arc<str>, Arc<str>)>,
}

impl Claim {
    /// At most one pod in the cluster may use it.
    pub fn is_for_one_pod(&self) -> bool {
        self.wants.access_modes.contains(AccessModes::READ_WRITE_ONCE_POD)
    }
}

/// Where a claim stands in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClaimPhase {
    /// It has no volume yet.
    Pending,
    /// The volume that it names is its own.
    #[default]
    Bound,
    /// Its volume is gone.
    Lost,
}

/// What a claim asks of a volume, and what a volume is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeTraits {
    /// Size.
    pub storage: Bytes,
    /// Ways in which it can be used.
    pub access_modes: AccessModes,
    /// A block device, not a file system.
    pub is_block: bool,
    /// Its `volumeAttributesClassName`; empty is none.
    pub attributes_class: Arc<str>,
}

/// A set of access modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessModes(u8);

impl AccessModes {
    /// On one node.
    pub const READ_WRITE_ONCE: Self = Self(1);
    /// To read, everywhere.
    pub const READ_ONLY_MANY: Self = Self(2);
    /// Everywhere.
    pub const READ_WRITE_MANY: Self = Self(4);
    /// By one pod.
    pub const READ_WRITE_ONCE_POD: Self = Self(8);

    /// Whether all of `other` are in it.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A persistent volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersistentVolume {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its CSI driver, if it has one.
    pub driver: Option<Arc<str>>,
    /// What the driver calls it.
    pub handle: Arc<str>,
    /// Nodes that can reach it; `None` is all.
    pub node_terms: Option<Vec<NodeTerm>>,
    /// Zones and regions that its labels tie it to, by label key.
    pub places: Vec<(Arc<str>, Vec<Arc<str>>)>,
    /// Its class; empty is none.
    pub storage_class: Arc<str>,
    /// What it is like.
    pub traits: VolumeTraits,
    /// The claim that it is kept for: namespace, name and, if known, uid.
    pub claim: Option<(NamespaceName, Arc<str>, Arc<str>)>,
    /// Its phase is `Available`.
    pub is_available: bool,
    /// It is going away.
    pub being_deleted: bool,
}

/// A storage class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageClass {
    /// Its name.
    pub name: Arc<str>,
    /// Who makes its volumes.
    pub provisioner: Arc<str>,
    /// When a claim is bound.
    pub binding: BindingMode,
    /// Where volumes may be made; empty is everywhere.
    pub allowed_topologies: Vec<NodeTerm>,
    /// The class of claims that name none; of several the newest is.
    pub is_default: bool,
    /// When it was created.
    pub created: Option<Timestamp>,
}

/// How many volumes of each CSI driver can be attached to a node (`CSINode`). A driver that is not named has no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachLimits {
    /// The node.
    pub node: NodeName,
    /// Limits by driver.
    pub volumes: BTreeMap<Arc<str>, i64>,
}

/// When a claim is bound to a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BindingMode {
    /// At once, wherever.
    #[default]
    Immediate,
    /// When its first pod has a place.
    WaitForFirstConsumer,
}
