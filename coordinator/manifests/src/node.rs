//! `v1.Node`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smartscale_planner::model;

use crate::{
    convert::{self, BadObject, Field, Kind},
    meta::{ObjectMeta, Quantity, or_default},
};

/// Taints by which other programs say that a node is on its way out.
const LEAVING_TAINTS: [&str; 2] = ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"];

/// `v1.Node`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: NodeSpec,
    /// Status.
    #[serde(deserialize_with = "or_default")]
    pub status: NodeStatus,
}

/// `v1.NodeSpec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// `aws:///zone/instance`.
    #[serde(rename = "providerID", skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// Cordoned.
    #[serde(deserialize_with = "or_default")]
    pub unschedulable: bool,
    /// Taints.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
}

/// `v1.Taint`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Its effect.
    pub effect: String,
}

/// `v1.NodeStatus`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// What pods may use; the API server takes the capacity where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<BTreeMap<String, Quantity>>,
    /// What the machine has.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, Quantity>,
    /// Conditions.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<NodeCondition>,
}

/// `v1.NodeCondition`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCondition {
    /// Which.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
}

impl TryFrom<&Node> for model::Node {
    type Error = BadObject;

    fn try_from(node: &Node) -> Result<Self, BadObject> {
        convert(node).map_err(|field| field.of(Kind::Node, &node.metadata))
    }
}

fn convert(node: &Node) -> Result<model::Node, Field> {
    let meta = &node.metadata;
    let capacity = convert::resources("status.capacity", &node.status.capacity)?;
    let allocatable = match &node.status.allocatable {
        Some(list) => convert::resources("status.allocatable", list)?,
        None => capacity.clone(),
    };
    let deletion = convert::time("metadata.deletionTimestamp", meta.deletion_timestamp.as_deref())?;
    let taints = node
        .spec
        .taints
        .iter()
        .enumerate()
        .map(|(index, taint)| {
            Ok(model::Taint {
                key: taint.key.as_str().into(),
                value: taint.value.as_str().into(),
                effect: convert::word(|| format!("spec.taints[{index}].effect"), &taint.effect)?,
            })
        })
        .collect::<Result<Vec<_>, Field>>()?;
    Ok(model::Node {
        name: model::NodeName::new(convert::name(meta)?),
        labels: convert::map(&meta.labels).into(),
        annotations: convert::annotations(meta),
        unschedulable: node.spec.unschedulable,
        ready: node
            .status
            .conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True"),
        created: convert::time("metadata.creationTimestamp", meta.creation_timestamp.as_deref())?,
        being_deleted: deletion.is_some() || taints.iter().any(|taint| LEAVING_TAINTS.contains(&&*taint.key)),
        taints,
        allocatable,
        capacity,
        provider_id: node.spec.provider_id.as_deref().map(Into::into),
    })
}

/// What stands for a node that cannot be understood: it is there and counts, takes no pods, and is never removed.
pub(crate) fn placeholder(node: &Node) -> model::Node {
    let mut annotations = convert::annotations(&node.metadata);
    annotations.insert(
        smartscale_planner::drainability::SCALE_DOWN_DISABLED.into(),
        "true".into(),
    );
    model::Node {
        name: node.metadata.name.as_str().into(),
        labels: convert::map(&node.metadata.labels).into(),
        annotations,
        taints: Vec::new(),
        unschedulable: true,
        ready: false,
        created: None,
        being_deleted: node.metadata.deletion_timestamp.is_some(),
        allocatable: model::Resources::default(),
        capacity: model::Resources::default(),
        provider_id: node.spec.provider_id.as_deref().map(Into::into),
    }
}
