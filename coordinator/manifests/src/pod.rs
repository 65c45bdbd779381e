//! `v1.Pod`: the structs. What they mean is decided in the submodules.

mod affinity;
mod requests;

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use smartscale_planner::model;

pub(crate) use affinity::node_terms;

use crate::{
    convert::{self, BadObject, Field, Kind},
    meta::{LabelSelector, ObjectMeta, Quantity, or_default},
};

/// `v1.Pod`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: PodSpec,
    /// Status.
    #[serde(deserialize_with = "or_default")]
    pub status: PodStatus,
}

/// `v1.PodSpec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Where it is bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Containers.
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<Container>,
    /// Init containers and sidecars.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
    /// Requests of the whole pod (KEP-2837).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// What the runtime class adds.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub overhead: BTreeMap<String, Quantity>,
    /// Labels its node must have.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Affinity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Tolerations.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Topology spread.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Scheduling gates.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub scheduling_gates: Vec<Present>,
    /// Dynamic resource claims.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub resource_claims: Vec<Present>,
    /// Volumes.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Its ports are the host's.
    #[serde(deserialize_with = "or_default")]
    pub host_network: bool,
    /// Its priority, once admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// The class that gives it its priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// `Never`, or `PreemptLowerPriority` (the default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemption_policy: Option<String>,
    /// Its scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,
    /// Its grace in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<i64>,
}

/// Something whose presence alone matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present;

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl Serialize for Present {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        serializer.serialize_map(Some(0))?.end()
    }
}

/// `v1.Container`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Requests and limits.
    #[serde(deserialize_with = "or_default")]
    pub resources: Resources,
    /// Ports.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ContainerPort>,
    /// `Always` on an init container makes it a sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
}

/// `v1.ResourceRequirements`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What is kept for it.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// What it may use; also requested where no request is given.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

/// `v1.ContainerPort`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// In the pod.
    #[serde(deserialize_with = "or_default")]
    pub container_port: i64,
    /// On the host.
    #[serde(deserialize_with = "or_default")]
    pub host_port: i64,
    /// The host's address.
    #[serde(rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    /// `TCP`, `UDP`, `SCTP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// `v1.Toleration`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    /// The taint's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `Equal` or `Exists`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// The taint's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The taint's effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
}

/// `v1.Affinity`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Affinity {
    /// To nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<NodeAffinity>,
    /// To pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_affinity: Option<PodAffinity>,
    /// From pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_anti_affinity: Option<PodAffinity>,
}

/// `v1.NodeAffinity`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct NodeAffinity {
    /// What must hold.
    #[serde(
        rename = "requiredDuringSchedulingIgnoredDuringExecution",
        skip_serializing_if = "Option::is_none"
    )]
    pub required: Option<NodeSelector>,
    /// What would be nice.
    #[serde(
        rename = "preferredDuringSchedulingIgnoredDuringExecution",
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub preferred: Vec<PreferredNodeTerm>,
}

/// `v1.NodeSelector`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelector {
    /// One of which must hold.
    #[serde(deserialize_with = "or_default")]
    pub node_selector_terms: Vec<NodeSelectorTerm>,
}

/// `v1.PreferredSchedulingTerm`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct PreferredNodeTerm {
    /// 1–100.
    pub weight: i32,
    /// The term.
    pub preference: NodeSelectorTerm,
}

/// `v1.NodeSelectorTerm`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelectorTerm {
    /// Over labels.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<NodeSelectorRequirement>,
    /// Over fields.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub match_fields: Vec<NodeSelectorRequirement>,
}

/// `v1.NodeSelectorRequirement`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct NodeSelectorRequirement {
    /// Label or field.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`.
    pub operator: String,
    /// Values.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// `v1.PodAffinity` and `v1.PodAntiAffinity`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct PodAffinity {
    /// All of which must hold.
    #[serde(
        rename = "requiredDuringSchedulingIgnoredDuringExecution",
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub required: Vec<PodAffinityTerm>,
    /// What would be nice.
    #[serde(
        rename = "preferredDuringSchedulingIgnoredDuringExecution",
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub preferred: Vec<PreferredPodTerm>,
}

/// `v1.WeightedPodAffinityTerm`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PreferredPodTerm {
    /// 1–100.
    pub weight: i32,
    /// The term.
    pub pod_affinity_term: PodAffinityTerm,
}

/// `v1.PodAffinityTerm`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodAffinityTerm {
    /// Which pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// In which namespaces, by name.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// In which namespaces, by label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// The domain's label.
    pub topology_key: String,
    /// Labels whose values must be the pod's own.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub match_label_keys: Vec<String>,
    /// Labels whose values must not be the pod's own.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub mismatch_label_keys: Vec<String>,
}

/// `v1.TopologySpreadConstraint`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopologySpreadConstraint {
    /// How uneven it may be.
    pub max_skew: i32,
    /// The domain's label.
    pub topology_key: String,
    /// `DoNotSchedule` or `ScheduleAnyway`.
    pub when_unsatisfiable: String,
    /// Which pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Fewest domains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_domains: Option<i32>,
    /// Labels whose values must be the pod's own.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub match_label_keys: Vec<String>,
    /// `Honor` (default) or `Ignore`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_affinity_policy: Option<String>,
    /// `Honor` or `Ignore` (default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_taints_policy: Option<String>,
}

/// `v1.Volume`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// Its name in the pod.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// A folder made for the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDir>,
    /// A folder of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_path: Option<Present>,
    /// A claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<VolumeClaimReference>,
    /// A claim made for the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<EphemeralVolume>,
    /// A CSI driver's inline volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csi: Option<Present>,
}

/// `v1.EmptyDirVolumeSource`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EmptyDir {
    /// `Memory`, or empty for the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub medium: Option<String>,
}

/// `v1.PersistentVolumeClaimVolumeSource`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeClaimReference {
    /// The claim's name.
    pub claim_name: String,
}

/// `v1.EphemeralVolumeSource`: its claim is called after pod and volume.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct EphemeralVolume {}

/// `v1.PodStatus`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Conditions.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<PodCondition>,
    /// When the kubelet took it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// Where the scheduler makes room for it by preemption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nominated_node_name: Option<String>,
}

/// `v1.PodCondition`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    /// Which.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl TryFrom<&Pod> for model::Pod {
    type Error = BadObject;

    fn try_from(pod: &Pod) -> Result<Self, BadObject> {
        convert(pod, "spec").map_err(|field| field.of(Kind::Pod, &pod.metadata))
    }
}

/// The pod, with the paths of its spec's fields below `at`.
pub(crate) fn convert(pod: &Pod, at: &str) -> Result<model::Pod, Field> {
    let (meta, spec) = (&pod.metadata, &pod.spec);
    let labels = convert::map(&meta.labels);
    let name = convert::name(meta)?;
    let namespace = model::NamespaceName::from(meta.namespace_or_default());
    let affinity = affinity::convert(at, spec.affinity.as_ref(), &namespace, &labels)?;
    let deletion = convert::time("metadata.deletionTimestamp", meta.deletion_timestamp.as_deref())?;
    Ok(model::Pod {
        uid: meta.uid.as_deref().unwrap_or_default().into(),
        annotations: convert::annotations(meta),
        node: spec
            .node_name
            .as_deref()
            .filter(|node| !node.is_empty())
            .map(Into::into),
        phase: phase(pod.status.phase.as_deref())?,
        ready: pod
            .status
            .conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True"),
        created: convert::time("metadata.creationTimestamp", meta.creation_timestamp.as_deref())?,
        started: convert::time("status.startTime", pod.status.start_time.as_deref())?,
        deletion: deletion.map(|at| model::Deletion {
            at,
            since: meta
                .deletion_grace_period_seconds
                .and_then(|grace| at.checked_sub(SignedDuration::from_secs(grace)).ok()),
        }),
        controller: meta
            .owner_references
            .iter()
            .find(|owner| owner.controller)
            .map(|owner| model::Owner {
                kind: owner.kind.as_str().into(),
                name: owner.name.as_str().into(),
            }),
        requests: requests::of(at, spec)?,
        priority: spec.priority.unwrap_or(0),
        preempts: spec.preemption_policy.as_deref() != Some("Never"),
        nominated: pod
            .status
            .nominated_node_name
            .as_deref()
            .filter(|node| !node.is_empty())
            .map(Into::into),
        scheduler: spec
            .scheduler_name
            .as_deref()
            .filter(|s| !s.is_empty())
            .unwrap_or(model::DEFAULT_SCHEDULER)
            .into(),
        node_selector: convert::map(&spec.node_selector),
        node_affinity: affinity.node,
        pod_affinity: affinity.near,
        pod_anti_affinity: affinity.apart,
        preferred_pod_affinity: affinity.preferred,
        tolerations: tolerations(at, &spec.tolerations)?,
        spread: affinity::spread(at, &spec.topology_spread_constraints, &labels)?,
        host_ports: host_ports(at, spec)?,
        gated: !spec.scheduling_gates.is_empty(),
        volumes: spec
            .volumes
            .iter()
            .map(|volume| self::volume(&name, meta.uid.as_deref(), volume))
            .collect(),
        resource_claims: !spec.resource_claims.is_empty(),
        key: model::PodKey { namespace, name },
        labels,
    })
}

/// What stands for a pod that cannot be understood: where it is bound the node is full and stays; unbound it is not
/// there.
pub(crate) fn placeholder(pod: &Pod) -> Option<model::Pod> {
    let known = Pod {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            labels: pod.metadata.labels.clone(),
            ..ObjectMeta::default()
        },
        spec: PodSpec {
            node_name: pod.spec.node_name.clone(),
            ..PodSpec::default()
        },
        status: PodStatus {
            phase: Some("Unknown".to_owned()),
            ..PodStatus::default()
        },
    };
    let mut known = convert(&known, "spec").ok()?;
    known.node.as_ref()?;
    known.annotations.insert(
        smartscale_planner::drainability::SAFE_TO_EVICT.into(),
        "false".into(),
    );
    known.requests.cpu = model::MilliCpu(i64::MAX / 4);
    known.requests.memory = model::Bytes(i64::MAX / 4);
    Some(known)
}

fn phase(text: Option<&str>) -> Result<model::Phase, Field> {
    Ok(match text {
        None | Some("" | "Pending") => model::Phase::Pending,
        Some("Running") => model::Phase::Running,
        Some("Succeeded") => model::Phase::Succeeded,
        Some("Failed") => model::Phase::Failed,
        Some("Unknown") => model::Phase::Unknown,
        Some(other) => {
            return Err(Field::new(
                "status.phase",
                format!("`{other}` is no phase of a pod"),
            ));
        }
    })
}

fn tolerations(at: &str, list: &[Toleration]) -> Result<Vec<model::Toleration>, Field> {
    list.iter()
        .enumerate()
        .map(|(index, toleration)| {
            let path = |field: &str| format!("{at}.tolerations[{index}].{field}");
            Ok(model::Toleration {
                key: toleration
                    .key
                    .as_deref()
                    .filter(|key| !key.is_empty())
                    .map(Into::into),
                operator: match toleration.operator.as_deref() {
                    None | Some("" | "Equal") => model::TolerationOperator::Equal,
                    Some("Exists") => model::TolerationOperator::Exists,
                    Some("Lt") => model::TolerationOperator::Lt,
                    Some("Gt") => model::TolerationOperator::Gt,
                    Some(other) => {
                        return Err(Field::new(
                            path("operator"),
                            format!("`{other}` is neither Equal nor Exists"),
                        ));
                    }
                },
                value: toleration.value.as_deref().unwrap_or_default().into(),
                effect: match toleration.effect.as_deref() {
                    None | Some("") => None,
                    Some(effect) => Some(convert::word(|| path("effect"), effect)?),
                },
            })
        })
        .collect()
}

/// The host's ports of all containers that run as long as the pod does.
fn host_ports(at: &str, spec: &PodSpec) -> Result<Vec<model::HostPort>, Field> {
    let sidecars = spec
        .init_containers
        .iter()
        .enumerate()
        .filter(|(_, c)| requests::is_sidecar(c));
    let containers = spec
        .containers
        .iter()
        .enumerate()
        .map(|(index, c)| ("containers", index, c));
    let all = containers.chain(sidecars.map(|(index, c)| ("initContainers", index, c)));
    let mut ports = Vec::new();
    for (list, container_index, container) in all {
        for (index, port) in container.ports.iter().enumerate() {
            let path = |field: &str| format!("{at}.{list}[{container_index}].ports[{index}].{field}");
            // On the host's network the API server fills in the host port.
            let number = if port.host_port == 0 && spec.host_network {
                port.container_port
            } else {
                port.host_port
            };
            if number == 0 {
                continue;
            }
            ports.push(model::HostPort {
                protocol: match port.protocol.as_deref() {
                    None | Some("" | "TCP") => model::Protocol::Tcp,
                    Some("UDP") => model::Protocol::Udp,
                    Some("SCTP") => model::Protocol::Sctp,
                    Some(other) => {
                        return Err(Field::new(
                            path("protocol"),
                            format!("`{other}` is none of TCP, UDP, SCTP"),
                        ));
                    }
                },
                ip: match port.host_ip.as_deref() {
                    None | Some("" | "0.0.0.0" | "::") => None,
                    Some(ip) => Some(
                        ip.parse()
                            .map_err(|_| Field::new(path("hostIP"), format!("`{ip}` is no address")))?,
                    ),
                },
                port: convert::number(|| path("hostPort"), &number)?,
            });
        }
    }
    Ok(ports)
}

fn volume(pod: &Arc<str>, uid: Option<&str>, volume: &Volume) -> model::PodVolume {
    let source = match volume {
        Volume {
            empty_dir: Some(EmptyDir { medium }),
            ..
        } if medium.as_deref() == Some("Memory") => model::VolumeSource::EmptyDirInMemory,
        Volume {
            empty_dir: Some(_), ..
        } => model::VolumeSource::EmptyDir,
        Volume {
            host_path: Some(_), ..
        } => model::VolumeSource::HostPath,
        Volume {
            persistent_volume_claim: Some(claim),
            ..
        } => model::VolumeSource::Claim(claim.claim_name.as_str().into()),
        Volume {
            ephemeral: Some(_), ..
        } => model::VolumeSource::OwnClaim {
            name: format!("{pod}-{}", volume.name).into(),
            pod: uid
                .filter(|uid| !uid.is_empty())
                .map_or_else(|| pod.clone(), Into::into),
        },
        Volume { csi: Some(_), .. } => model::VolumeSource::Inline,
        _ => model::VolumeSource::Other,
    };
    model::PodVolume {
        name: volume.name.as_str().into(),
        source,
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            self.metadata.namespace_or_default(),
            self.metadata.name
        )
    }
}
