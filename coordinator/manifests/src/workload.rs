//! What stands above pods: DaemonSets and other controllers, disruption budgets, namespaces, priority classes.

use serde::{Deserialize, Serialize};
use smartscale_planner::model::{self, TaintEffect, TolerationOperator};

use crate::{
    convert::{self, BadObject, Field, Kind},
    meta::{LabelSelector, ObjectMeta, or_default},
    pod::{self, PodSpec},
};

macro_rules! metadata_only {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            /// Metadata.
            pub metadata: ObjectMeta,
        }
    };
}

metadata_only!(
    /// `apps/v1.ReplicaSet`: that it exists, no more (a pod names its controller itself).
    ReplicaSet
);
metadata_only!(
    /// `apps/v1.StatefulSet`: that it exists, no more.
    StatefulSet
);
metadata_only!(
    /// `apps/v1.Deployment`: that it exists, no more.
    Deployment
);
metadata_only!(
    /// `batch/v1.Job`: that it exists, no more.
    Job
);
metadata_only!(
    /// `v1.Namespace`, for `namespaceSelector`.
    Namespace
);

/// `scheduling.k8s.io/v1.PriorityClass`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PriorityClass {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// The priority.
    pub value: i32,
    /// It is that of pods that name none.
    #[serde(deserialize_with = "or_default")]
    pub global_default: bool,
}

/// `policy/v1.PodDisruptionBudget`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodDisruptionBudget {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: PodDisruptionBudgetSpec,
    /// Status.
    #[serde(deserialize_with = "or_default")]
    pub status: PodDisruptionBudgetStatus,
}

/// `policy/v1.PodDisruptionBudgetSpec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodDisruptionBudgetSpec {
    /// Which pods it covers: absent none, empty all of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// `IfHealthyBudget` or `AlwaysAllow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unhealthy_pod_eviction_policy: Option<String>,
}

/// `policy/v1.PodDisruptionBudgetStatus`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodDisruptionBudgetStatus {
    /// How many pods may go now.
    #[serde(deserialize_with = "or_default")]
    pub disruptions_allowed: i32,
    /// The spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// `apps/v1.DaemonSet`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSet {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: DaemonSetSpec,
}

/// `apps/v1.DaemonSetSpec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetSpec {
    /// The pod it puts on nodes.
    #[serde(deserialize_with = "or_default")]
    pub template: PodTemplate,
}

/// `v1.PodTemplateSpec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Labels and annotations of its pods.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// Their spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: PodSpec,
}

impl TryFrom<&PodDisruptionBudget> for model::DisruptionBudget {
    type Error = BadObject;

    fn try_from(budget: &PodDisruptionBudget) -> Result<Self, BadObject> {
        let convert = || {
            let meta = &budget.metadata;
            let stale = matches!(
                (meta.generation, budget.status.observed_generation),
                (Some(generation), Some(observed)) if observed < generation
            );
            convert::time("metadata.creationTimestamp", meta.creation_timestamp.as_deref())?;
            Ok(model::DisruptionBudget {
                namespace: meta.namespace_or_default().into(),
                name: convert::name(meta)?,
                selector: match &budget.spec.selector {
                    Some(selector) => Some(convert::selector("spec.selector", selector)?),
                    None => None,
                },
                // The API server refuses every eviction while the budget's controller has not seen its spec.
                disruptions_allowed: if stale {
                    0
                } else {
                    budget.status.disruptions_allowed.max(0)
                },
                always_evict_unhealthy: budget.spec.unhealthy_pod_eviction_policy.as_deref()
                    == Some("AlwaysAllow"),
            })
        };
        convert().map_err(|field: Field| field.of(Kind::PodDisruptionBudget, &budget.metadata))
    }
}

/// What stands for a disruption budget that cannot be understood: it covers its whole namespace and has nothing left.
pub(crate) fn placeholder(budget: &PodDisruptionBudget) -> model::DisruptionBudget {
    model::DisruptionBudget {
        namespace: budget.metadata.namespace_or_default().into(),
        name: budget.metadata.name.as_str().into(),
        selector: Some(model::LabelSelector::default()),
        disruptions_allowed: 0,
        always_evict_unhealthy: false,
    }
}

impl TryFrom<&DaemonSet> for model::DaemonSet {
    type Error = BadObject;

    fn try_from(set: &DaemonSet) -> Result<Self, BadObject> {
        let convert = || {
            let meta = &set.metadata;
            convert::time("metadata.creationTimestamp", meta.creation_timestamp.as_deref())?;
            let name = convert::name(meta)?;
            let template = pod::Pod {
                metadata: ObjectMeta {
                    name: meta.name.clone(),
                    namespace: Some(meta.namespace_or_default().to_owned()),
                    labels: set.spec.template.metadata.labels.clone(),
                    annotations: set.spec.template.metadata.annotations.clone(),
                    ..ObjectMeta::default()
                },
                spec: set.spec.template.spec.clone(),
                ..pod::Pod::default()
            };
            let mut template = pod::convert(&template, "spec.template.spec")?;
            template.controller = Some(model::Owner {
                kind: "DaemonSet".into(),
                name: name.clone(),
            });
            template.node = None;
            template
                .tolerations
                .extend(daemon_tolerations(set.spec.template.spec.host_network));
            Ok(model::DaemonSet {
                namespace: meta.namespace_or_default().into(),
                name,
                template,
            })
        };
        convert().map_err(|field: Field| field.of(Kind::DaemonSet, &set.metadata))
    }
}

/// What the DaemonSet controller makes every pod of its bear (`pkg/controller/daemon/util.AddOrUpdateDaemonPodTolerations`).
fn daemon_tolerations(host_network: bool) -> impl Iterator<Item = model::Toleration> {
    let mut keys = vec![
        ("node.kubernetes.io/not-ready", TaintEffect::NoExecute),
        ("node.kubernetes.io/unreachable", TaintEffect::NoExecute),
        ("node.kubernetes.io/disk-pressure", TaintEffect::NoSchedule),
        ("node.kubernetes.io/memory-pressure", TaintEffect::NoSchedule),
        ("node.kubernetes.io/pid-pressure", TaintEffect::NoSchedule),
        ("node.kubernetes.io/unschedulable", TaintEffect::NoSchedule),
    ];
    if host_network {
        keys.push(("node.kubernetes.io/network-unavailable", TaintEffect::NoSchedule));
    }
    keys.into_iter().map(|(key, effect)| model::Toleration {
        key: Some(key.into()),
        operator: TolerationOperator::Exists,
        value: "".into(),
        effect: Some(effect),
    })
}

impl TryFrom<&Namespace> for model::Namespace {
    type Error = BadObject;

    fn try_from(namespace: &Namespace) -> Result<Self, BadObject> {
        let meta = &namespace.metadata;
        let name = convert::name(meta).map_err(|field| field.of(Kind::Namespace, meta))?;
        let mut labels = convert::map(&meta.labels);
        labels
            .entry("kubernetes.io/metadata.name".into())
            .or_insert_with(|| name.clone());
        Ok(model::Namespace {
            name: model::NamespaceName::new(name),
            labels,
        })
    }
}
