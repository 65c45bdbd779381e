//! From text to meaning: the pieces that every kind's conversion uses, and the error that names object and path.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use jiff::Timestamp;
use serde::de::value::StrDeserializer;
use smartscale_planner::{
    drainability::ANNOTATIONS,
    model::{self, Bytes, MilliCpu},
    quantity,
};

use crate::meta::{LabelSelector, ObjectMeta, Quantity};

/// The kinds that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the kind of its name")]
pub enum Kind {
    Node,
    Pod,
    PodDisruptionBudget,
    DaemonSet,
    ReplicaSet,
    StatefulSet,
    Deployment,
    Job,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    CsiNode,
    Namespace,
    PriorityClass,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::Node,
        Self::Pod,
        Self::PodDisruptionBudget,
        Self::DaemonSet,
        Self::ReplicaSet,
        Self::StatefulSet,
        Self::Deployment,
        Self::Job,
        Self::PersistentVolume,
        Self::PersistentVolumeClaim,
        Self::StorageClass,
        Self::CsiNode,
        Self::Namespace,
        Self::PriorityClass,
    ];

    /// The kind as it is written in an object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::Deployment => "Deployment",
            Self::Job => "Job",
            Self::PersistentVolume => "PersistentVolume",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::StorageClass => "StorageClass",
            Self::CsiNode => "CSINode",
            Self::Namespace => "Namespace",
            Self::PriorityClass => "PriorityClass",
        }
    }

    /// The API group that it belongs to; other groups have kinds of the same names.
    fn group(self) -> &'static str {
        match self {
            Self::Node
            | Self::Pod
            | Self::PersistentVolume
            | Self::PersistentVolumeClaim
            | Self::Namespace => "",
            Self::PodDisruptionBudget => "policy",
            Self::DaemonSet | Self::ReplicaSet | Self::StatefulSet | Self::Deployment => "apps",
            Self::Job => "batch",
            Self::StorageClass | Self::CsiNode => "storage.k8s.io",
            Self::PriorityClass => "scheduling.k8s.io",
        }
    }

    /// The API version with which it is written: the stable one of its group.
    pub fn api_version(self) -> &'static str {
        match self.group() {
            "policy" => "policy/v1",
            "apps" => "apps/v1",
            "batch" => "batch/v1",
            "storage.k8s.io" => "storage.k8s.io/v1",
            "scheduling.k8s.io" => "scheduling.k8s.io/v1",
            _ => "v1",
        }
    }

    /// The kind of an object; `None` if it is none that is read. Without an `apiVersion` the kind alone decides.
    pub fn of(api_version: Option<&str>, kind: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|k| k.as_str() == kind)?;
        let group = api_version.map(|version| version.split_once('/').map_or("", |(group, _)| group));
        group.is_none_or(|group| group == found.group()).then_some(found)
    }

    /// Whether its objects live in namespaces.
    pub fn is_namespaced(self) -> bool {
        !matches!(
            self,
            Self::Node
                | Self::PersistentVolume
                | Self::StorageClass
                | Self::CsiNode
                | Self::Namespace
                | Self::PriorityClass
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An object that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {}{}: {path}: {message}", namespace.as_ref().map(|n| format!("{n}/")).unwrap_or_default(), or_without(name))]
pub struct BadObject {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, of namespaced kinds.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The path of the field.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// How an object is called that has no name.
pub(crate) const WITHOUT_NAME: &str = "(without name)";

fn or_without(name: &str) -> &str {
    if name.is_empty() { WITHOUT_NAME } else { name }
}

/// A field that cannot be understood; its object is added by [`Field::of`].
#[derive(Debug)]
pub(crate) struct Field {
    path: String,
    message: String,
}

impl Field {
    pub(crate) fn new(path: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            path: path.into(),
            message: message.to_string(),
        }
    }

    pub(crate) fn of(self, kind: Kind, meta: &ObjectMeta) -> BadObject {
        BadObject {
            kind,
            namespace: kind
                .is_namespaced()
                .then(|| meta.namespace_or_default().to_owned()),
            name: meta.name.clone(),
            path: self.path,
            message: self.message,
        }
    }
}

/// The object's name. Neither it nor the namespace has a slash, which parts the two in what is printed.
pub(crate) fn name(meta: &ObjectMeta) -> Result<Arc<str>, Field> {
    if meta.name.is_empty() {
        return Err(Field::new("metadata.name", "is missing"));
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    for (path, text) in [("metadata.name", &*meta.name), ("metadata.namespace", namespace)] {
        if text.contains('/') {
            return Err(Field::new(
                path,
                format!("`{text}` is no name: expected letters, digits, `-` and `.`"),
            ));
        }
    }
    Ok(meta.name.as_str().into())
}

pub(crate) fn time(path: &str, text: Option<&str>) -> Result<Option<Timestamp>, Field> {
    let Some(text) = text else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        Field::new(
            path,
            format!("`{text}` is not a time: expected RFC 3339, such as 2026-01-02T03:04:05Z"),
        )
    })
}

pub(crate) fn map(labels: &BTreeMap<String, String>) -> model::Labels {
    labels
        .iter()
        .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
        .collect()
}

/// Only the annotations that a decision reads: others can be large.
pub(crate) fn annotations(meta: &ObjectMeta) -> model::Labels {
    meta.annotations
        .iter()
        .filter(|(key, _)| ANNOTATIONS.contains(&key.as_str()))
        .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
        .collect()
}

pub(crate) fn strings(values: &[String]) -> Vec<Arc<str>> {
    values.iter().map(|value| value.as_str().into()).collect()
}

/// A word of a fixed set, by its serialized name.
pub(crate) fn word<T: serde::de::DeserializeOwned>(
    path: impl Fn() -> String,
    text: &str,
) -> Result<T, Field> {
    T::deserialize(StrDeserializer::<serde::de::value::Error>::new(text))
        .map_err(|error| Field::new(path(), error))
}

pub(crate) fn number<T: FromStr>(path: impl Fn() -> String, text: &impl ToString) -> Result<T, Field> {
    let text = text.to_string();
    text.parse()
        .map_err(|_| Field::new(path(), format!("{text} is out of range")))
}

/// A list of resources (`requests`, `allocatable`). `pods` is read only where it means slots of a node.
pub(crate) fn resources(path: &str, list: &BTreeMap<String, Quantity>) -> Result<model::Resources, Field> {
    let mut resources = model::Resources::default();
    for (name, Quantity(text)) in list {
        let parse = |parse: fn(&str) -> Result<i64, quantity::QuantityError>| {
            parse(text).map_err(|error| Field::new(format!("{path}.{name}"), error))
        };
        match name.as_str() {
            "cpu" => resources.cpu = MilliCpu(parse(quantity::parse_milli)?),
            "memory" => resources.memory = Bytes(parse(quantity::parse_units)?),
            "ephemeral-storage" => resources.ephemeral_storage = Bytes(parse(quantity::parse_units)?),
            "pods" => resources.pods = parse(quantity::parse_units)?,
            _ => {
                resources
                    .extended
                    .insert(name.as_str().into(), parse(quantity::parse_units)?);
            }
        }
    }
    Ok(resources)
}

pub(crate) fn selector(path: &str, selector: &LabelSelector) -> Result<model::LabelSelector, Field> {
    let match_expressions = selector
        .match_expressions
        .iter()
        .enumerate()
        .map(|(index, requirement)| {
            Ok(model::LabelRequirement {
                key: requirement.key.as_str().into(),
                operator: word(
                    || format!("{path}.matchExpressions[{index}].operator"),
                    &requirement.operator,
                )?,
                values: strings(&requirement.values),
            })
        })
        .collect::<Result<_, Field>>()?;
    Ok(model::LabelSelector {
        match_labels: map(&selector.match_labels),
        match_expressions,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    #[test]
    fn a_kind_of_another_group_is_not_ours() {
        assert_eq!(Kind::of(Some("v1"), "Node"), Some(Kind::Node));
        assert_eq!(Kind::of(None, "Node"), Some(Kind::Node));
        assert_eq!(Kind::of(Some("longhorn.io/v1beta2"), "Node"), None);
        assert_eq!(Kind::of(Some("apps/v1"), "DaemonSet"), Some(Kind::DaemonSet));
        assert_eq!(Kind::of(Some("v1"), "Service"), None);
    }

    #[test]
    fn a_bad_quantity_names_its_path() {
        let list = [("cpu".to_owned(), Quantity("lots".into()))].into();
        let error = resources("spec.requests", &list).unwrap_err();
        assert_eq!(error.path, "spec.requests.cpu");
    }

    #[test]
    fn a_bad_object_without_a_name_is_said_to_have_none() {
        let bad = Field::new("spec.priority", "is odd").of(Kind::Pod, &ObjectMeta::default());
        assert_eq!(
            bad.to_string(),
            "Pod default/(without name): spec.priority: is odd"
        );
    }

    #[test]
    fn an_unknown_operator_names_its_path() {
        let labels = LabelSelector {
            match_expressions: vec![crate::LabelSelectorRequirement {
                operator: "Near".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(
            selector("spec.selector", &labels).unwrap_err().path,
            "spec.selector.matchExpressions[0].operator"
        );
    }
}
