//! Builders for the objects that tests create, so that a test says only what it is about.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    Container, ExecAction, Node, NodeSpec, NodeStatus, Pod, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, Taint, Toleration,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

type Map = BTreeMap<String, String>;

/// A pod with one container that asks for nothing, in namespace `default`.
#[must_use]
pub fn pod(name: &str) -> PodBuilder {
    PodBuilder(Pod {
        metadata: metadata(name),
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "main".into(),
                image: Some("rig.invalid/none".into()),
                ..Container::default()
            }],
            automount_service_account_token: Some(false),
            ..PodSpec::default()
        }),
        status: None,
    })
}

/// Builds a pod.
#[derive(Debug, Clone)]
pub struct PodBuilder(Pod);

impl PodBuilder {
    /// Asks for CPU and memory, such as `500m` and `256Mi`.
    #[must_use]
    pub fn requests(mut self, cpu: &str, memory: &str) -> Self {
        let requests = BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu.to_owned())),
            ("memory".to_owned(), Quantity(memory.to_owned())),
        ]);
        if let Some(container) = self.spec().containers.first_mut() {
            container.resources = Some(ResourceRequirements {
                requests: Some(requests),
                ..Default::default()
            });
        }
        self
    }

    /// Runs an image with these arguments.
    #[must_use]
    pub fn runs(mut self, image: &str, arguments: &[&str]) -> Self {
        if let Some(container) = self.spec().containers.first_mut() {
            container.image = Some(image.to_owned());
            container.args = Some(arguments.iter().map(|&argument| argument.to_owned()).collect());
        }
        self
    }

    /// Is Ready so many seconds after its start at the earliest, once `probe` has ended with 0.
    #[must_use]
    pub fn ready_after(mut self, seconds: i32, probe: &[&str]) -> Self {
        if let Some(container) = self.spec().containers.first_mut() {
            container.readiness_probe = Some(Probe {
                exec: Some(ExecAction {
                    command: Some(probe.iter().map(|&word| word.to_owned()).collect()),
                }),
                initial_delay_seconds: Some(seconds),
                period_seconds: Some(1),
                timeout_seconds: Some(10),
                ..Probe::default()
            });
        }
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0
            .metadata
            .labels
            .get_or_insert_default()
            .insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.0
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(key.to_owned(), value.to_owned());
        self
    }

    /// Only nodes with this label.
    #[must_use]
    pub fn node_selector(mut self, key: &str, value: &str) -> Self {
        self.spec()
            .node_selector
            .get_or_insert_default()
            .insert(key.to_owned(), value.to_owned());
        self
    }

    /// Puts it on a node, past the scheduler.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.spec().node_name = Some(node.to_owned());
        self
    }

    /// Tolerates every taint.
    #[must_use]
    pub fn tolerates_all(mut self) -> Self {
        let all = Toleration {
            operator: Some("Exists".into()),
            ..Toleration::default()
        };
        self.spec().tolerations.get_or_insert_default().push(all);
        self
    }

    /// How long its end may take, in seconds.
    #[must_use]
    pub fn grace(mut self, seconds: i64) -> Self {
        self.spec().termination_grace_period_seconds = Some(seconds);
        self
    }

    /// The pod.
    #[must_use]
    pub fn build(self) -> Pod {
        self.0
    }

    fn spec(&mut self) -> &mut PodSpec {
        self.0.spec.get_or_insert_default()
    }
}

/// A deployment of `replicas` such pods, labelled `app=NAME`.
#[must_use]
pub fn deployment(name: &str, replicas: i32, pod: PodBuilder) -> Deployment {
    let pod = pod.label("app", name).build();
    Deployment {
        metadata: metadata(name),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: selector(&app(name)),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: pod.metadata.labels,
                    annotations: pod.metadata.annotations,
                    ..ObjectMeta::default()
                }),
                spec: pod.spec,
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// A budget that keeps `min_available` pods of `app=NAME`.
#[must_use]
pub fn budget(name: &str, min_available: i32) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(name),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(min_available)),
            selector: Some(selector(&app(name))),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

/// A node as a kubelet registers it: allocatable as given, up to 110 pods.
#[must_use]
pub fn node(name: &str) -> NodeBuilder {
    let mut metadata = metadata(name);
    metadata.namespace = None;
    let labels = [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "amd64"),
    ];
    metadata.labels = Some(
        labels
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    );
    NodeBuilder(Node {
        metadata,
        spec: Some(NodeSpec::default()),
        status: None,
    })
    .allocatable("2", "8Gi")
}

/// Builds a node.
#[derive(Debug, Clone)]
pub struct NodeBuilder(Node);

impl From<Node> for NodeBuilder {
    fn from(node: Node) -> Self {
        Self(node)
    }
}

impl NodeBuilder {
    /// What it offers, such as `2` and `8Gi`.
    #[must_use]
    pub fn allocatable(mut self, cpu: &str, memory: &str) -> Self {
        let offered: BTreeMap<_, _> = [("cpu", cpu), ("memory", memory), ("pods", "110")]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), Quantity(value.to_owned())))
            .collect();
        let status = NodeStatus {
            allocatable: Some(offered.clone()),
            capacity: Some(offered),
            ..self.0.status.take().unwrap_or_default()
        };
        self.0.status = Some(status);
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0
            .metadata
            .labels
            .get_or_insert_default()
            .insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.0
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds a taint.
    #[must_use]
    pub fn taint(mut self, key: &str, value: Option<&str>, effect: &str) -> Self {
        let taint = Taint {
            key: key.to_owned(),
            value: value.map(str::to_owned),
            effect: effect.to_owned(),
            time_added: None,
        };
        self.0
            .spec
            .get_or_insert_default()
            .taints
            .get_or_insert_default()
            .push(taint);
        self
    }

    /// Its provider id, such as `aws:///us-east-1a/i-1`.
    #[must_use]
    pub fn provider_id(mut self, id: &str) -> Self {
        self.0.spec.get_or_insert_default().provider_id = Some(id.to_owned());
        self
    }

    /// The node.
    #[must_use]
    pub fn build(self) -> Node {
        self.0
    }
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("default".into()),
        ..ObjectMeta::default()
    }
}

fn app(name: &str) -> Map {
    Map::from([("app".to_owned(), name.to_owned())])
}

fn selector(labels: &Map) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels.clone()),
        ..LabelSelector::default()
    }
}
