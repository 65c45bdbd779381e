//! Claims, volumes and storage classes, as far as they tie pods to places.

use std::sync::Arc;

use super::{NamespaceName, NodeTerm, PodKey};

/// A persistent volume claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: Arc<str>,
    /// The volume that it is bound to.
    pub volume: Option<Arc<str>>,
    /// Its storage class; `None` is the default one.
    pub storage_class: Option<Arc<str>>,
    /// Access mode `ReadWriteOncePod`: at most one pod in the cluster.
    pub once_pod: bool,
    /// It is going away: a pod that uses it waits for ever.
    pub being_deleted: bool,
    /// The pod that owns it, of an ephemeral volume.
    pub owner: Option<PodKey>,
}

/// A persistent volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistentVolume {
    /// Its name.
    pub name: Arc<str>,
    /// Its CSI driver, if it has one.
    pub driver: Option<Arc<str>>,
    /// Nodes that can reach it; `None` is all.
    pub node_terms: Option<Vec<NodeTerm>>,
    /// Its class.
    pub storage_class: Option<Arc<str>>,
}

/// A storage class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageClass {
    /// Its name.
    pub name: Arc<str>,
    /// Who makes its volumes.
    pub provisioner: Arc<str>,
    /// When a claim is bound.
    pub binding: BindingMode,
    /// Where volumes may be made; empty is everywhere.
    pub allowed_topologies: Vec<NodeTerm>,
    /// The class of claims that name none.
    pub is_default: bool,
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
