//! `storage.k8s.io/v1.CSINode`: how many volumes can be attached to a node.

use serde::{Deserialize, Serialize};
use smartscale_planner::model;

use crate::{
    convert::{self, BadObject, Kind},
    meta::{ObjectMeta, or_default},
};

/// `storage.k8s.io/v1.CSINode`, called after its node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiNode {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: CsiNodeSpec,
}

/// `storage.k8s.io/v1.CSINodeSpec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiNodeSpec {
    /// Drivers that run there.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub drivers: Vec<CsiDriver>,
}

/// `storage.k8s.io/v1.CSINodeDriver`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiDriver {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// What it can do on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<CsiDriverRoom>,
}

/// `storage.k8s.io/v1.VolumeNodeResources`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiDriverRoom {
    /// The most volumes; absent is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
}

impl TryFrom<&CsiNode> for model::AttachLimits {
    type Error = BadObject;

    fn try_from(node: &CsiNode) -> Result<Self, BadObject> {
        let limit =
            |driver: &CsiDriver| Some((driver.name.as_str().into(), driver.allocatable.as_ref()?.count?));
        let name = convert::name(&node.metadata).map_err(|field| field.of(Kind::CsiNode, &node.metadata))?;
        Ok(Self {
            node: model::NodeName::new(name),
            volumes: node.spec.drivers.iter().filter_map(limit).collect(),
        })
    }
}
