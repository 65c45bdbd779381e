//! Persistent volumes, claims and storage classes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smartscale_planner::model::{self, NodeOperator, NodeRequirement, NodeTerm};

use crate::{
    convert::{self, BadObject, Field, Kind},
    meta::{ObjectMeta, or_default},
    pod::{self, NodeSelector},
};

/// Annotations of the storage class that claims without one get, the newer first.
pub(crate) const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// `v1.PersistentVolume`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolume {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: PersistentVolumeSpec,
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
}

/// `v1.PersistentVolumeClaimSpec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeClaimSpec {
    /// The volume that it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_name: Option<String>,
    /// Its class; absent is the default one, empty is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// Its access modes.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
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
        let convert = || {
            let required = volume
                .spec
                .node_affinity
                .as_ref()
                .and_then(|affinity| affinity.required.as_ref());
            let terms = match required {
                Some(required) => Some(pod::node_terms("spec.nodeAffinity.required", required)?),
                None => None,
            };
            Ok(model::PersistentVolume {
                name: convert::name(&volume.metadata)?,
                driver: volume.spec.csi.as_ref().map(|csi| csi.driver.as_str().into()),
                node_terms: with_zone_labels(terms, &volume.metadata.labels),
                storage_class: volume.spec.storage_class_name.as_deref().map(Into::into),
            })
        };
        convert().map_err(|field: Field| field.of(Kind::PersistentVolume, &volume.metadata))
    }
}

/// Zone and region labels of a volume tie it too (kube-scheduler's `VolumeZone`); several zones are joined by `__`.
fn with_zone_labels(
    terms: Option<Vec<NodeTerm>>,
    labels: &BTreeMap<String, String>,
) -> Option<Vec<NodeTerm>> {
    let requirements: Vec<NodeRequirement> = [model::keys::ZONE, model::keys::REGION]
        .into_iter()
        .filter_map(|key| {
            let values = labels.get(key)?.split("__").map(Into::into).collect();
            Some(NodeRequirement {
                key: key.into(),
                operator: NodeOperator::In,
                values,
            })
        })
        .collect();
    if requirements.is_empty() {
        return terms;
    }
    let mut terms = terms.unwrap_or_else(|| vec![NodeTerm::default()]);
    for term in &mut terms {
        term.expressions.extend(requirements.iter().cloned());
    }
    Some(terms)
}

impl TryFrom<&PersistentVolumeClaim> for model::Claim {
    type Error = BadObject;

    fn try_from(claim: &PersistentVolumeClaim) -> Result<Self, BadObject> {
        let meta = &claim.metadata;
        let convert = || {
            let namespace = model::NamespaceName::from(meta.namespace_or_default());
            let owner = meta
                .owner_references
                .iter()
                .find(|owner| owner.controller && owner.kind == "Pod")
                .map(|owner| model::PodKey::new(namespace.clone(), owner.name.as_str()));
            Ok(model::Claim {
                name: convert::name(meta)?,
                volume: claim
                    .spec
                    .volume_name
                    .as_deref()
                    .filter(|name| !name.is_empty())
                    .map(Into::into),
                storage_class: claim.spec.storage_class_name.as_deref().map(Into::into),
                once_pod: claim
                    .spec
                    .access_modes
                    .iter()
                    .any(|mode| mode == "ReadWriteOncePod"),
                being_deleted: convert::time(
                    "metadata.deletionTimestamp",
                    meta.deletion_timestamp.as_deref(),
                )?
                .is_some(),
                owner,
                namespace,
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
                is_default: DEFAULT_CLASS
                    .iter()
                    .any(|key| meta.annotations.get(*key).is_some_and(|value| value == "true")),
            })
        };
        convert().map_err(|field: Field| field.of(Kind::StorageClass, meta))
    }
}
