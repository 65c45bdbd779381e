//! The Kubernetes API with nothing but the kubelet's kubeconfig.
//!
//! The client does not retry by itself (a 429 of an eviction is an answer, not a hiccup), reads its kubeconfig anew when the
//! kubelet has rotated its certificate, and reads of pods and node only what a drain needs.

mod client;
mod kubeconfig;
mod yaml;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http::{Method, StatusCode, header};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use smartscale_manifests as manifests;
use smartscale_planner::model::{
    Phase, Pod, PodKey,
    keys::{DRAINING, NONCE},
};

use self::{
    client::{Call, Client, Limits},
    kubeconfig::Access,
};
use super::{KubeletApi, OwnNode, OwnPod, Refusal};
use crate::{error::chain, http::Answer};

/// The API server's default.
const GRACE: i64 = 30;

/// The Kubernetes API through a kubelet's kubeconfig.
pub struct KubeconfigApi {
    kubeconfig: PathBuf,
    limits: Limits,
    client: Mutex<Option<Arc<Client>>>,
}

/// What a refusal says of itself (`metav1.Status`).
#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    message: String,
    details: StatusDetails,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct StatusDetails {
    causes: Vec<StatusCause>,
    retry_after_seconds: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusCause {
    reason: String,
}

/// `policy/v1`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Eviction<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Named<'a>,
    delete_options: DeleteOptions<'a>,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    namespace: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeleteOptions<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_period_seconds: Option<u64>,
    preconditions: Preconditions<'a>,
}

#[derive(Serialize)]
struct Preconditions<'a> {
    uid: &'a str,
}

#[derive(Deserialize)]
struct PodList<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

/// What is counted of a pod: nothing of the rest is kept, of which a hundred pods have a megabyte.
#[derive(Deserialize)]
struct PhaseView {
    metadata: DeletionView,
    #[serde(default)]
    status: PhaseOnly,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeletionView {
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Deserialize, Default)]
struct PhaseOnly {
    #[serde(default)]
    phase: String,
}

#[derive(Deserialize)]
struct NodeView {
    metadata: manifests::ObjectMeta,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeSpec {
    unschedulable: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeStatus {
    conditions: Vec<manifests::NodeCondition>,
}

impl KubeconfigApi {
    /// Uses the kubeconfig at `path`, which may come into being later.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            kubeconfig: path.to_owned(),
            limits: Limits::default(),
            client: Mutex::new(None),
        }
    }

    fn client(&self) -> Result<Arc<Client>, Refusal> {
        let mut held = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = held.as_ref().filter(|client| client.access.is_current()) {
            return Ok(Arc::clone(client));
        }
        *held = None;
        let access = Access::read(&self.kubeconfig).map_err(|error| {
            let text = chain(&error);
            Refusal::Unavailable(format!(
                "the kubelet's kubeconfig {}: {text}",
                self.kubeconfig.display()
            ))
        })?;
        let client = Arc::new(Client::new(access, self.limits));
        *held = Some(Arc::clone(&client));
        Ok(client)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        content: Option<(&'static str, Vec<u8>)>,
    ) -> Result<T, Refusal> {
        let call = Call {
            method,
            path,
            content: content.map(|(kind, content)| (kind, content.into())),
        };
        let answer = self
            .client()?
            .call(&call)
            .await
            .map_err(|error| Refusal::Unavailable(chain(&error)))?;
        if answer.status == StatusCode::UNAUTHORIZED {
            // The files may say better by now, whatever their times are.
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        if !answer.status.is_success() {
            return Err(refused(&answer));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| Refusal::Unavailable(format!("the answer makes no sense: {error}")))
    }

    async fn patch_node(&self, node: &str, unschedulable: bool, mark: Option<&str>) -> Result<(), Refusal> {
        let patch = serde_json::json!({
            "metadata": { "annotations": { DRAINING: mark } },
            "spec": { "unschedulable": unschedulable },
        });
        let content = Some(("application/merge-patch+json", patch.to_string().into_bytes()));
        self.call::<IgnoredAny>(Method::PATCH, &format!("/api/v1/nodes/{node}"), content)
            .await
            .map(drop)
    }
}

/// What the API server's answer means.
fn refused(answer: &Answer) -> Refusal {
    // Filters in front of the API answer in plain text.
    let status: Status = serde_json::from_slice(&answer.body).unwrap_or_else(|_| Status {
        message: String::from_utf8_lossy(&answer.body).into_owned(),
        ..Status::default()
    });
    let caused_by = |reason: &str| status.details.causes.iter().any(|cause| cause.reason == reason);
    let said: String = status.message.chars().take(500).collect();
    match answer.status.as_u16() {
        404 => Refusal::NotFound,
        // Of an update it would mean a race; of ours, with a UID as precondition, another object.
        409 => Refusal::OtherUid,
        429 if caused_by("DisruptionBudget") => Refusal::Budget(said),
        429 => {
            let header = answer.headers.get(header::RETRY_AFTER);
            let header = header.and_then(|value| value.to_str().ok()?.parse().ok());
            let after = Some(status.details.retry_after_seconds).filter(|after| *after > 0);
            Refusal::Throttled {
                after: after.or(header).map(Duration::from_secs),
            }
        }
        403 if caused_by("NamespaceTerminating") => Refusal::NamespaceTerminating,
        500 if said.contains("more than one PodDisruptionBudget") => Refusal::MultipleBudgets,
        400..500 => Refusal::Refused(said),
        code => Refusal::Unavailable(format!("status {code}: {said}")),
    }
}

/// A pod for a drain. What a drain does not need must not keep it from leaving, so that a pod whose other fields cannot be
/// understood is read without them.
fn own(pod: &manifests::Pod) -> Result<OwnPod, Refusal> {
    let read = Pod::try_from(pod).or_else(|error| {
        tracing::warn!(%error, "a pod is read without what cannot be understood");
        let spec = manifests::PodSpec {
            node_name: pod.spec.node_name.clone(),
            priority: pod.spec.priority,
            ..manifests::PodSpec::default()
        };
        Pod::try_from(&manifests::Pod { spec, ..pod.clone() })
    });
    let pod_model = read.map_err(|error| Refusal::Refused(error.to_string()))?;
    let grace = pod.spec.termination_grace_period_seconds.unwrap_or(GRACE);
    Ok(OwnPod {
        pod: pod_model,
        grace: Duration::from_secs(u64::try_from(grace).unwrap_or(0)),
    })
}

fn path(key: &PodKey) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", key.namespace, key.name)
}

fn options(uid: &str, grace: Option<Duration>) -> DeleteOptions<'_> {
    DeleteOptions {
        grace_period_seconds: grace.map(|grace| grace.as_secs()),
        preconditions: Preconditions { uid },
    }
}

fn json(value: &impl Serialize) -> Result<Option<(&'static str, Vec<u8>)>, Refusal> {
    let content = serde_json::to_vec(value).map_err(|error| Refusal::Refused(error.to_string()))?;
    Ok(Some(("application/json", content)))
}

#[async_trait]
impl KubeletApi for KubeconfigApi {
    async fn node(&self, node: &str) -> Result<OwnNode, Refusal> {
        let view: NodeView = self
            .call(Method::GET, &format!("/api/v1/nodes/{node}"), None)
            .await?;
        let ready = view
            .status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        Ok(OwnNode {
            unschedulable: view.spec.unschedulable,
            cordoned_by: view.metadata.annotations.get(DRAINING).cloned(),
            ready,
        })
    }

    async fn cordon(&self, node: &str, operation: &str) -> Result<(), Refusal> {
        self.patch_node(node, true, Some(operation)).await
    }

    async fn uncordon(&self, node: &str) -> Result<(), Refusal> {
        self.patch_node(node, false, None).await
    }

    async fn prove(&self, node: &str, uid: &str, nonce: &str) -> Result<(), Refusal> {
        // A UID in a patch is a precondition: no patch may change it, so the API server answers 422 where the node has another.
        let patch = serde_json::json!({ "metadata": { "uid": uid, "annotations": { NONCE: nonce } } });
        let content = Some(("application/merge-patch+json", patch.to_string().into_bytes()));
        self.call::<IgnoredAny>(Method::PATCH, &format!("/api/v1/nodes/{node}"), content)
            .await
            .map(drop)
    }

    async fn pods(&self, node: &str) -> Result<Vec<OwnPod>, Refusal> {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
        let list: PodList<manifests::Pod> = self.call(Method::GET, &path, None).await?;
        list.items.iter().map(own).collect()
    }

    async fn phases(&self, node: &str) -> Result<Vec<(Phase, bool)>, Refusal> {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&resourceVersion=0");
        let list: PodList<PhaseView> = self.call(Method::GET, &path, None).await?;
        let phase = |pod: &PhaseView| {
            let phase = match &*pod.status.phase {
                "Pending" => Phase::Pending,
                "Running" => Phase::Running,
                "Succeeded" => Phase::Succeeded,
                "Failed" => Phase::Failed,
                _ => Phase::Unknown,
            };
            (phase, pod.metadata.deletion_timestamp.is_some())
        };
        Ok(list.items.iter().map(phase).collect())
    }

    async fn pod(&self, key: &PodKey) -> Result<Option<OwnPod>, Refusal> {
        match self.call::<manifests::Pod>(Method::GET, &path(key), None).await {
            Ok(pod) => own(&pod).map(Some),
            Err(Refusal::NotFound) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    async fn evict(&self, key: &PodKey, uid: &str, grace: Option<Duration>) -> Result<(), Refusal> {
        let eviction = Eviction {
            api_version: "policy/v1",
            kind: "Eviction",
            metadata: Named {
                name: &key.name,
                namespace: key.namespace.as_str(),
            },
            delete_options: options(uid, grace),
        };
        let path = format!("{}/eviction", path(key));
        self.call::<IgnoredAny>(Method::POST, &path, json(&eviction)?)
            .await
            .map(drop)
    }

    async fn delete(&self, key: &PodKey, uid: &str, grace: Duration) -> Result<(), Refusal> {
        let options = options(uid, Some(grace));
        self.call::<IgnoredAny>(Method::DELETE, &path(key), json(&options)?)
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests;
