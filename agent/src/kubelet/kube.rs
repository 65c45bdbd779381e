//! The Kubernetes API with nothing but the kubelet's kubeconfig.
//!
//! The client does not retry by itself (a 429 of an eviction is an answer, not a hiccup), reads its kubeconfig anew when the
//! kubelet has rotated its certificate, and reads of pods and node only what a drain needs.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use http::{Method, Request};
use k8s_openapi::{
    api::policy::v1::Eviction,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions},
};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
    core::Status,
};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use smartscale_manifests as manifests;
use smartscale_planner::model::{Pod, PodKey};

use super::{CORDONED_BY, KubeletApi, OwnNode, OwnPod, Refusal};
use crate::error::chain;

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// The API server's default.
const GRACE: i64 = 30;

/// The Kubernetes API through a kubelet's kubeconfig.
pub struct KubeconfigApi {
    kubeconfig: PathBuf,
    client: Mutex<Option<(Client, Vec<Stamp>)>>,
}

/// A file and when it was changed.
type Stamp = (PathBuf, Option<SystemTime>);

#[derive(Deserialize)]
struct PodList {
    #[serde(default)]
    items: Vec<manifests::Pod>,
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
            client: Mutex::new(None),
        }
    }

    async fn client(&self) -> Result<Client, Refusal> {
        if let Some((client, stamps)) = &*self.client.lock().unwrap_or_else(PoisonError::into_inner)
            && stamps.iter().all(|(path, time)| changed_at(path) == *time)
        {
            return Ok(client.clone());
        }
        let unavailable = |error: &(dyn std::error::Error + 'static)| {
            Refusal::Unavailable(format!("the kubelet's kubeconfig: {}", chain(error)))
        };
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).map_err(|error| unavailable(&error))?;
        let stamps = stamps(&self.kubeconfig, &kubeconfig);
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(|error| unavailable(&error))?;
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT);
        let client = Client::try_from(config).map_err(|error| unavailable(&error))?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some((client.clone(), stamps));
        Ok(client)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        content: Option<(&'static str, Vec<u8>)>,
    ) -> Result<T, Refusal> {
        let client = self.client().await?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept", "application/json");
        let mut body = Vec::new();
        if let Some((kind, content)) = content {
            request = request.header("content-type", kind);
            body = content;
        }
        let request = request
            .body(body)
            .map_err(|error| Refusal::Refused(error.to_string()))?;
        client.request(request).await.map_err(|error| refusal(&error))
    }

    async fn patch_node(&self, node: &str, unschedulable: bool, mark: Option<&str>) -> Result<(), Refusal> {
        let patch = serde_json::json!({
            "metadata": { "annotations": { CORDONED_BY: mark } },
            "spec": { "unschedulable": unschedulable },
        });
        let content = Some(("application/merge-patch+json", patch.to_string().into_bytes()));
        self.call::<IgnoredAny>(Method::PATCH, &format!("/api/v1/nodes/{node}"), content)
            .await
            .map(drop)
    }
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// The kubeconfig and the files that it names.
fn stamps(path: &Path, kubeconfig: &Kubeconfig) -> Vec<Stamp> {
    let clusters = kubeconfig
        .clusters
        .iter()
        .filter_map(|named| named.cluster.as_ref()?.certificate_authority.clone());
    let users = kubeconfig
        .auth_infos
        .iter()
        .filter_map(|named| named.auth_info.as_ref());
    let users = users
        .flat_map(|user| [user.client_certificate.clone(), user.client_key.clone()])
        .flatten();
    let files = clusters.chain(users).map(PathBuf::from);
    std::iter::once(path.to_owned())
        .chain(files)
        .map(|path| (path.clone(), changed_at(&path)))
        .collect()
}

/// What the API server's answer means.
fn refusal(error: &kube::Error) -> Refusal {
    match error {
        kube::Error::Api(status) => refused(status),
        other => Refusal::Unavailable(chain(other)),
    }
}

fn refused(status: &Status) -> Refusal {
    let causes = || status.details.iter().flat_map(|details| &details.causes);
    let caused_by = |reason: &str| causes().any(|cause| cause.reason == reason);
    let said: String = status.message.chars().take(500).collect();
    match status.code {
        404 => Refusal::NotFound,
        // Of an update it would mean a race; of ours, with a UID as precondition, another object.
        409 => Refusal::OtherUid,
        429 if caused_by("DisruptionBudget") => Refusal::Budget(said),
        429 => {
            let after = status
                .details
                .as_ref()
                .map(|details| details.retry_after_seconds)
                .filter(|after| *after > 0);
            Refusal::Throttled {
                after: after.map(|seconds| Duration::from_secs(seconds.into())),
            }
        }
        403 if caused_by("NamespaceTerminating") => Refusal::NamespaceTerminating,
        500 if said.contains("more than one PodDisruptionBudget") => Refusal::MultipleBudgets,
        400..500 => Refusal::Refused(said),
        _ => Refusal::Unavailable(format!("status {}: {said}", status.code)),
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

fn options(uid: &str, grace: Option<Duration>) -> DeleteOptions {
    DeleteOptions {
        grace_period_seconds: grace.map(|grace| i64::try_from(grace.as_secs()).unwrap_or(i64::MAX)),
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            ..Preconditions::default()
        }),
        ..DeleteOptions::default()
    }
}

fn json(value: &impl serde::Serialize) -> Result<Option<(&'static str, Vec<u8>)>, Refusal> {
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
            cordoned_by: view.metadata.annotations.get(CORDONED_BY).cloned(),
            ready,
        })
    }

    async fn cordon(&self, node: &str, operation: &str) -> Result<(), Refusal> {
        self.patch_node(node, true, Some(operation)).await
    }

    async fn uncordon(&self, node: &str) -> Result<(), Refusal> {
        self.patch_node(node, false, None).await
    }

    async fn pods(&self, node: &str, fresh: bool) -> Result<Vec<OwnPod>, Refusal> {
        let version = if fresh { "" } else { "&resourceVersion=0" };
        let list: PodList = self
            .call(
                Method::GET,
                &format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}{version}"),
                None,
            )
            .await?;
        list.items.iter().map(own).collect()
    }

    async fn pod(&self, key: &PodKey) -> Result<Option<OwnPod>, Refusal> {
        match self.call::<manifests::Pod>(Method::GET, &path(key), None).await {
            Ok(pod) => own(&pod).map(Some),
            Err(Refusal::NotFound) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    async fn evict(&self, key: &PodKey, uid: &str) -> Result<(), Refusal> {
        let eviction = Eviction {
            delete_options: Some(options(uid, None)),
            metadata: ObjectMeta {
                name: Some(key.name.to_string()),
                namespace: Some(key.namespace.to_string()),
                ..ObjectMeta::default()
            },
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
