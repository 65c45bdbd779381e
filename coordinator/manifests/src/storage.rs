//! Persistent volumes, claims and storage classes.

mod csi;

use std::{collections::BTreeMap, sync::Arc};

pub use csi::{CsiDriver, CsiDriverRoom, CsiNode, CsiNodeSpec};

use serde::{Deserialize, Serialize};
use smartscale_planner::{
    model::{self, NodeOperator, NodeRequirement, NodeTerm},
    quantity,
};

use crate::{
    convert::{self, BadObject, Field, Kind},
    meta::{LabelSelector, ObjectMeta, Quantity, or_default},
    pod::{self, NodeSelector},
};

/// Annotations of the storage class that claims without one get, the newer first.
pub(crate) const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// The beta annotation by which claims and volumes named their class, which still counts.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Where a claim's volume is being made; the scheduler writes it.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Every annotation of storage that is read.
pub(crate) const ANNOTATIONS: [&str; 4] = [DEFAULT_CLASS[0], DEFAULT_CLASS[1], CLASS, SELECTED_NODE];

/// `v1.PersistentVolume`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolume {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: PersistentVolumeSpec,
    /// Status.
    #[serde(deserialize_with = "or_default")]
    pub status: VolumeStatus,
}

/// `v1.PersistentVolumeSpec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeSpec {
    /// Nodes that reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<VolumeNodeAffinity>,
    /// Its class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// Its CSI driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csi: Option<VolumeDriver>,
    /// Its size.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, Quantity>,
    /// Ways in which it can be used.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    /// `Filesystem` (default) or `Block`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<String>,
    /// Its attributes' class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_attributes_class_name: Option<String>,
    /// The claim that it is kept for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim_ref: Option<ClaimReference>,
}

/// `v1.PersistentVolumeStatus`, and the claim's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeStatus {
    /// `Available`, `Bound`, … of a volume, `Pending`, `Bound`, `Lost` of a claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
}

/// The claim that a volume is kept for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimReference {
    /// Its namespace.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Its identity, if it is fixed already.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// `v1.VolumeNodeAffinity`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeNodeAffinity {
    /// What must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<NodeSelector>,
}

/// A CSI volume source, by driver.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeDriver {
    /// Its driver.
    #[serde(deserialize_with = "or_default")]
    pub driver: String,
    /// What the driver calls it.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub volume_handle: String,
}

/// `v1.PersistentVolumeClaim`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeClaim {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: PersistentVolumeClaimSpec,
    /// Status.
    #[serde(deserialize_with = "or_default")]
    pub status: VolumeStatus,
}

/// `v1.PersistentVolumeClaimSpec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeClaimSpec {
    /// The volume that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_name: Option<String>,
    /// Its class; absent is the default one, empty is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// Its access modes.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    /// Its size, under `requests.storage`.
    #[serde(deserialize_with = "or_default")]
    pub resources: pod::Resources,
    /// Labels of volumes that will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// `Filesystem` (default) or `Block`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<String>,
    /// Its attributes' class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_attributes_class_name: Option<String>,
}

/// `storage.k8s.io/v1.StorageClass`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageClass {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Who makes its volumes.
    #[serde(deserialize_with = "or_default")]
    pub provisioner: String,
    /// `Immediate` or `WaitForFirstConsumer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_binding_mode: Option<String>,
    /// Where volumes may be made.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub allowed_topologies: Vec<TopologyTerm>,
}

/// `v1.TopologySelectorTerm`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopologyTerm {
    /// All of which must hold.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub match_label_expressions: Vec<TopologyRequirement>,
}

/// `v1.TopologySelectorLabelRequirement`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopologyRequirement {
    /// The label.
    pub key: String,
    /// Its values.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl TryFrom<&PersistentVolume> for model::PersistentVolume {
    type Error = BadObject;

    fn try_from(volume: &PersistentVolume) -> Result<Self, BadObject> {
        let (meta, spec) = (&volume.metadata, &volume.spec);
        let convert = || {
            let required = spec
                .node_affinity
                .as_ref()
                .and_then(|affinity| affinity.required.as_ref());
            let node_terms = match required {
                Some(required) => Some(pod::node_terms("spec.nodeAffinity.required", required)?),
                None => None,
            };
            let csi = spec.csi.as_ref();
            let class = meta.annotations.get(CLASS).or(spec.storage_class_name.as_ref());
            Ok(model::PersistentVolume {
                name: convert::name(meta)?,
                driver: csi.map(|csi| csi.driver.as_str().into()),
                handle: csi.map_or("", |csi| &csi.volume_handle).into(),
                node_terms,
                places: places(&meta.labels),
                storage_class: class.map_or("", String::as_str).into(),
                traits: traits(
                    storage("spec.capacity", &spec.capacity)?,
                    &spec.access_modes,
                    spec.volume_mode.as_deref(),
                    spec.volume_attributes_class_name.as_deref(),
                ),
                claim: spec.claim_ref.as_ref().map(|claim| {
                    (
                        claim.namespace.as_str().into(),
                        claim.name.as_str().into(),
                        claim.uid.as_str().into(),
                    )
                }),
                // Without a status it is as good as new.
                is_available: volume
                    .status
                    .phase
                    .as_deref()
                    .is_none_or(|phase| phase == "Available"),
                being_deleted: meta.deletion_timestamp.is_some(),
                labels: convert::map(&meta.labels),
            })
        };
        convert().map_err(|field: Field| field.of(Kind::PersistentVolume, meta))
    }
}

fn traits(
    storage: model::Bytes,
    access_modes: &[String],
    mode: Option<&str>,
    attributes_class: Option<&str>,
) -> model::VolumeTraits {
    use model::AccessModes as Modes;
    let modes = access_modes.iter().map(|mode| match mode.as_str() {
        "ReadWriteOnce" => Modes::READ_WRITE_ONCE,
        "ReadOnlyMany" => Modes::READ_ONLY_MANY,
        "ReadWriteMany" => Modes::READ_WRITE_MANY,
        "ReadWriteOncePod" => Modes::READ_WRITE_ONCE_POD,
        _ => Modes::default(),
    });
    model::VolumeTraits {
        storage,
        access_modes: modes.fold(Modes::default(), Modes::with),
        is_block: mode == Some("Block"),
        attributes_class: attributes_class.unwrap_or_default().into(),
    }
}

fn storage(path: &str, list: &BTreeMap<String, Quantity>) -> Result<model::Bytes, Field> {
    let Some(Quantity(text)) = list.get("storage") else {
        return Ok(model::Bytes::ZERO);
    };
    let parsed = quantity::parse_units(text);
    parsed
        .map(model::Bytes)
        .map_err(|error| Field::new(format!("{path}.storage"), error))
}

/// Zone and region labels of a volume tie it too (kube-scheduler's `VolumeZone`); several zones are joined by `__`.
fn places(labels: &BTreeMap<String, String>) -> Vec<(Arc<str>, Vec<Arc<str>>)> {
    model::keys::PLACES
        .iter()
        .filter_map(|key| {
            let values = labels.get(*key)?.split("__").map(Into::into).collect();
            Some(((*key).into(), values))
        })
        .collect()
}

impl TryFrom<&PersistentVolumeClaim> for model::Claim {
    type Error = BadObject;

    fn try_from(claim: &PersistentVolumeClaim) -> Result<Self, BadObject> {
        let (meta, spec) = (&claim.metadata, &claim.spec);
        let convert = || {
            let owner = meta
                .owner_references
                .iter()
                .find(|owner| owner.controller && owner.kind == "Pod");
            let class = meta.annotations.get(CLASS).or(spec.storage_class_name.as_ref());
            Ok(model::Claim {
                namespace: meta.namespace_or_default().into(),
                name: convert::name(meta)?,
                uid: meta.uid.as_deref().unwrap_or_default().into(),
                volume: spec
                    .volume_name
                    .as_deref()
                    .filter(|name| !name.is_empty())
                    .map(Into::into),
                // Without a status (it was written by hand) it has what it names.
                phase: match claim.status.phase.as_deref() {
                    Some("Lost") => model::ClaimPhase::Lost,
                    Some("Pending") => model::ClaimPhase::Pending,
                    _ => model::ClaimPhase::Bound,
                },
                storage_class: class.map(|class| class.as_str().into()),
                wants: traits(
                    storage("spec.resources.requests", &spec.resources.requests)?,
                    &spec.access_modes,
                    spec.volume_mode.as_deref(),
                    spec.volume_attributes_class_name.as_deref(),
                ),
                selector: match &spec.selector {
                    Some(selector) => Some(convert::selector("spec.selector", selector)?),
                    None => None,
                },
                selected_node: meta
                    .annotations
                    .get(SELECTED_NODE)
                    .map(|node| node.as_str().into()),
                being_deleted: convert::time(
                    "metadata.deletionTimestamp",
                    meta.deletion_timestamp.as_deref(),
                )?
                .is_some(),
                owner: owner.map(|owner| (owner.uid.as_str().into(), owner.name.as_str().into())),
            })
        };
        convert().map_err(|field: Field| field.of(Kind::PersistentVolumeClaim, meta))
    }
}

impl TryFrom<&StorageClass> for model::StorageClass {
    type Error = BadObject;

    fn try_from(class: &StorageClass) -> Result<Self, BadObject> {
        let meta = &class.metadata;
        let convert = || {
            let allowed_topologies = class
                .allowed_topologies
                .iter()
                .map(|term| NodeTerm {
                    expressions: term
                        .match_label_expressions
                        .iter()
                        .map(|requirement| NodeRequirement {
                            key: requirement.key.as_str().into(),
                            operator: NodeOperator::In,
                            values: convert::strings(&requirement.values),
                        })
                        .collect(),
                    fields: Vec::new(),
                })
                .collect();
            Ok(model::StorageClass {
                name: convert::name(meta)?,
                provisioner: class.provisioner.as_str().into(),
                binding: match class.volume_binding_mode.as_deref() {
                    None | Some("Immediate") => model::BindingMode::Immediate,
                    Some("WaitForFirstConsumer") => model::BindingMode::WaitForFirstConsumer,
                    Some(other) => {
                        return Err(Field::new(
                            "volumeBindingMode",
                            format!("`{other}` is neither Immediate nor WaitForFirstConsumer"),
                        ));
                    }
                },
                allowed_topologies,
                created: convert::time("metadata.creationTimestamp", meta.creation_timestamp.as_deref())?,
                is_default: DEFAULT_CLASS
                    .iter()
                    .any(|key| meta.annotations.get(*key).is_some_and(|value| value == "true")),
            })
        };
        convert().map_err(|field: Field| field.of(Kind::StorageClass, meta))
    }
}
