//! What the coordinator does to nodes by itself, through the API server: cordon, evict, delete. Every call may be
//! repeated.

use std::{collections::BTreeSet, sync::PoisonError};

use async_trait::async_trait;
use http::Method;
use jiff::Timestamp;
use k8s_openapi::{
    api::policy::v1::Eviction as EvictionBody,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use smartscale_manifests as manifests;
use smartscale_planner::{
    drainability::Tier,
    model::{NodeName, Pod, PodKey, keys},
};

use super::{
    api::{Api, ApiError, JSON, JSON_PATCH, MERGE_PATCH, object_path, segment, text},
    hand_over, steering,
};
use crate::{
    act::{
        binding::{Binding, Verified},
        nodes::{Eviction, HandOver, Name, Nodes, NodesError, PodOnNode, Priced},
    },
    ids::OperationId,
    observe::web::form,
};

/// An agent's mark of a drain that a notice began, and no operation.
const NOTICE: &str = "notice/";
/// Conflicting writes of others to the same node are waited out so often.
const CONFLICTS: u32 = 5;
/// How a conflict over a UID reads: of the eviction itself, and of the deletion behind it.
const OTHER_UID: [&str; 2] = ["UID in the precondition", "UID in precondition"];

/// Nodes behind the Kubernetes API.
#[derive(Debug, Clone)]
pub struct KubeNodes {
    api: Api,
}

impl KubeNodes {
    /// Nodes behind this API.
    #[must_use]
    pub fn new(api: Api) -> Self {
        Self { api }
    }

    async fn node(&self, node: &NodeName) -> Result<manifests::Node, NodesError> {
        let path = node_path(node)?;
        self.api.get(&path).await.map_err(|error| of_node(node, error))
    }

    /// Reads the node, lets `change` make a patch of it (`None`: nothing to do), and writes it unless somebody else
    /// has written in between; then anew.
    async fn change(
        &self,
        node: &NodeName,
        kind: &'static str,
        change: impl Fn(&manifests::Node) -> Option<Value> + Send + Sync,
    ) -> Result<(), NodesError> {
        let path = node_path(node)?;
        let mut last = None;
        for _ in 0..CONFLICTS {
            let read = self.node(node).await?;
            let Some(patch) = change(&read) else { return Ok(()) };
            let content = Some((kind, patch.to_string().into_bytes()));
            match self.api.call::<IgnoredAny>(Method::PATCH, &path, content).await {
                Ok(_) => return Ok(()),
                // 409: another version; 422: a `test` of a JSON patch that does not hold.
                Err(error) if matches!(error.code(), Some(409 | 422)) => last = Some(error),
                Err(error) => return Err(of_node(node, error)),
            }
        }
        let last = last.map(|error| error.to_string()).unwrap_or_default();
        Err(NodesError::Unavailable(format!(
            "node {node} is written by somebody else all the time: {last}"
        )))
    }

    async fn pod(&self, key: &PodKey) -> Result<Option<manifests::ObjectMeta>, NodesError> {
        #[derive(Deserialize)]
        struct Meta {
            metadata: manifests::ObjectMeta,
        }
        let pod: Option<Meta> = self.api.find(&pod_path(key)?).await?;
        Ok(pod.map(|pod| pod.metadata))
    }
}

pub(super) fn node_path(node: &NodeName) -> Result<String, NodesError> {
    let name = segment(node.as_str()).map_err(|_| NodesError::NoNode(node.clone()))?;
    Ok(format!("/api/v1/nodes/{name}"))
}

/// The pods on a node.
pub(super) fn pods_path(node: &NodeName) -> Result<String, NodesError> {
    let name = segment(node.as_str()).map_err(|_| NodesError::NoNode(node.clone()))?;
    let query = form(&[("fieldSelector", &format!("spec.nodeName={name}"))]);
    Ok(format!("/api/v1/pods?{query}"))
}

/// Namespaces and names of the claims that a pod uses. A generic ephemeral volume's claim is named for both.
fn claims(pod: &Value) -> impl Iterator<Item = (String, String)> {
    let namespace = text(pod, "/metadata/namespace").unwrap_or_default();
    let name = text(pod, "/metadata/name").unwrap_or_default();
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    let claim = move |volume: &Value| match text(volume, "/persistentVolumeClaim/claimName") {
        Some(claim) => Some(claim.to_owned()),
        None => {
            volume.get("ephemeral")?;
            Some(format!("{name}-{}", text(volume, "/name")?))
        }
    };
    let claims = volumes.into_iter().flatten().filter_map(claim);
    claims.map(move |claim| (namespace.to_owned(), claim))
}

pub(super) fn pod_path(key: &PodKey) -> Result<String, NodesError> {
    Ok(object_path("/api/v1", key.namespace.as_str(), "pods", &key.name)?)
}

fn of_node(node: &NodeName, error: ApiError) -> NodesError {
    if error.code() == Some(404) {
        NodesError::NoNode(node.clone())
    } else {
        error.into()
    }
}

impl From<ApiError> for NodesError {
    /// What may work later is told apart from what will not. A credential that is refused may be in rotation (401).
    fn from(error: ApiError) -> Self {
        match error.code() {
            Some(401 | 408 | 409 | 429 | 500..) | None => Self::Unavailable(error.to_string()),
            Some(_) => Self::Refused(error.to_string()),
        }
    }
}

/// How a cordon stands.
fn cordoned_by(node: &manifests::Node) -> Option<&str> {
    node.metadata.annotations.get(keys::DRAINING).map(String::as_str)
}

/// A merge patch that only counts for the version that was read.
fn cordon_patch(node: &manifests::Node, unschedulable: bool, mark: Option<&OperationId>) -> Value {
    json!({
        "metadata": {
            "resourceVersion": node.metadata.resource_version,
            "annotations": { keys::DRAINING: mark.map(OperationId::as_str) },
        },
        "spec": { "unschedulable": if unschedulable { json!(true) } else { Value::Null } },
    })
}

/// A merge patch that takes a node out of load balancers, or back, only for the version that was read.
fn balancers_patch(node: &manifests::Node, operation: Option<&OperationId>) -> Value {
    json!({
        "metadata": {
            "resourceVersion": node.metadata.resource_version,
            "labels": { keys::NO_BALANCERS: operation.map(OperationId::as_str) },
        },
    })
}

/// A pod as a drain sees it. One whose fields cannot be understood has to leave like any other: a drain must not
/// hang on it, nor forget it.
pub(super) fn on_node(value: Value, now: Timestamp) -> Option<PodOnNode> {
    let meta = |path: &str| text(&value, path).map(str::to_owned);
    let key = PodKey::new(meta("/metadata/namespace")?, meta("/metadata/name")?);
    let uid = meta("/metadata/uid")?;
    let terminating = meta("/metadata/deletionTimestamp").is_some();
    let read = serde_json::from_value::<manifests::Pod>(value).ok();
    let pod = read.and_then(|pod| Pod::try_from(&pod).ok());
    Some(pod.map_or(
        PodOnNode {
            key,
            uid,
            must_leave: true,
            local_storage: false,
            terminating,
            tier: Tier::Ordinary,
        },
        |pod| PodOnNode::of(&pod, now),
    ))
}

#[async_trait]
impl Nodes for KubeNodes {
    async fn cordon(&self, node: &NodeName, operation: Option<&OperationId>) -> Result<bool, NodesError> {
        let foreign = std::sync::atomic::AtomicBool::new(false);
        self.change(node, MERGE_PATCH, |read| {
            let by = cordoned_by(read);
            let ours = by.is_some() && by == operation.map(OperationId::as_str);
            let noticed = by.is_some_and(|by| by.starts_with(NOTICE));
            let before = read.spec.unschedulable && (by.is_none() || noticed);
            foreign.store(before, std::sync::atomic::Ordering::Relaxed);
            match operation {
                // A person's cordon stays a person's, and outlives the drain; a mark of an operation that is not
                // this one is what is left of it, and passes to this one.
                Some(_) if read.spec.unschedulable && by.is_none() => None,
                Some(_) if ours && read.spec.unschedulable => None,
                // An interruption's drain goes on whatever becomes of this operation.
                Some(_) if read.spec.unschedulable && noticed => None,
                // A person makes an operation's cordon their own.
                None if read.spec.unschedulable && by.is_none() => None,
                _ => Some(cordon_patch(read, true, operation)),
            }
        })
        .await?;
        Ok(foreign.into_inner())
    }

    async fn uncordon(&self, node: &NodeName, operation: Option<&OperationId>) -> Result<(), NodesError> {
        self.change(node, MERGE_PATCH, |read| {
            let by = cordoned_by(read);
            let may = operation.is_none_or(|operation| by == Some(operation.as_str()));
            // A person who lets pods onto a node wants its traffic too; an operation puts it back by itself.
            let out = read.metadata.labels.get(keys::NO_BALANCERS);
            let out = operation.is_none() && out.is_some_and(|by| by.parse::<OperationId>().is_ok());
            (may && (read.spec.unschedulable || by.is_some() || out)).then(|| {
                let mut patch = cordon_patch(read, false, None);
                if out && let Some(metadata) = patch.get_mut("metadata") {
                    metadata["labels"] = json!({ keys::NO_BALANCERS: null });
                }
                patch
            })
        })
        .await
    }

    async fn pods(&self, node: &NodeName) -> Result<Vec<PodOnNode>, NodesError> {
        let now = self.api.clock.now();
        let pods = self.api.list(&pods_path(node)?).await?;
        Ok(pods.into_iter().filter_map(|pod| on_node(pod, now)).collect())
    }

    async fn evict(&self, pod: &PodOnNode) -> Result<Eviction, NodesError> {
        // An eviction that is refused for its UID has already taken from the disruption budget, for two minutes: the
        // precondition is a guard, never a probe.
        match self.pod(&pod.key).await? {
            None => return Ok(Eviction::Gone),
            Some(meta) if meta.uid.as_deref() != Some(&*pod.uid) => return Ok(Eviction::Gone),
            Some(meta) if meta.deletion_timestamp.is_some() => return Ok(Eviction::Accepted),
            Some(_) => {}
        }
        let body = EvictionBody {
            metadata: ObjectMeta {
                name: Some(pod.key.name.to_string()),
                namespace: Some(pod.key.namespace.to_string()),
                ..ObjectMeta::default()
            },
            delete_options: Some(DeleteOptions {
                preconditions: Some(Preconditions {
                    uid: Some(pod.uid.clone()),
                    ..Preconditions::default()
                }),
                ..DeleteOptions::default()
            }),
        };
        let body = serde_json::to_vec(&body).map_err(|error| NodesError::Refused(error.to_string()))?;
        let path = format!("{}/eviction", pod_path(&pod.key)?);
        match self
            .api
            .call::<IgnoredAny>(Method::POST, &path, Some((JSON, body)))
            .await
        {
            Ok(_) => Ok(Eviction::Accepted),
            Err(error) => match error.code() {
                Some(404) => Ok(Eviction::Gone),
                // Of the precondition; without these words it is a race for the budget's status.
                Some(409) if OTHER_UID.iter().any(|words| error.says(words)) => Ok(Eviction::Gone),
                Some(429) if error.is_caused_by("DisruptionBudget") => Ok(Eviction::Budget),
                Some(500) if error.says("more than one PodDisruptionBudget") => Ok(Eviction::MultipleBudgets),
                Some(403) if error.is_caused_by("NamespaceTerminating") => Ok(Eviction::NamespaceTerminating),
                _ => Err(error.into()),
            },
        }
    }

    async fn delete_pod(&self, pod: &PodOnNode, grace_seconds: u32) -> Result<(), NodesError> {
        let body = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "gracePeriodSeconds": grace_seconds, "preconditions": { "uid": pod.uid },
        });
        let content = Some((JSON, body.to_string().into_bytes()));
        match self
            .api
            .call::<IgnoredAny>(Method::DELETE, &pod_path(&pod.key)?, content)
            .await
        {
            Ok(_) => Ok(()),
            // Gone, or another pod of the same name.
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn verify(&self, node: &NodeName, binding: &Binding) -> Result<Verified, NodesError> {
        let unproven = std::sync::Mutex::new(None);
        let set = |uid: Option<String>| *unproven.lock().unwrap_or_else(PoisonError::into_inner) = uid;
        self.change(node, JSON_PATCH, |read| {
            let uid = read.metadata.uid.as_deref().unwrap_or_default();
            let carried = read.metadata.annotations.get(keys::NONCE).map(String::as_str);
            if uid.is_empty() || !binding.is_proven(uid, carried) {
                set(Some(uid.to_owned()));
                return None;
            }
            set(None);
            let at = read.spec.taints.iter().position(|taint| taint.key == keys::UNVERIFIED)?;
            Some(json!([
                { "op": "test", "path": "/metadata/resourceVersion", "value": read.metadata.resource_version },
                { "op": "test", "path": format!("/spec/taints/{at}/key"), "value": keys::UNVERIFIED },
                { "op": "remove", "path": format!("/spec/taints/{at}") },
            ]))
        })
        .await?;
        let unproven = unproven.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(unproven.map_or(Verified::Lifted, |uid| Verified::Unproven { uid }))
    }

    async fn leave_balancers(&self, node: &NodeName, operation: &OperationId) -> Result<(), NodesError> {
        self.change(node, MERGE_PATCH, |read| {
            let free = !read.metadata.labels.contains_key(keys::NO_BALANCERS);
            free.then(|| balancers_patch(read, Some(operation)))
        })
        .await
    }

    async fn rejoin_balancers(&self, node: &NodeName, operation: &OperationId) -> Result<(), NodesError> {
        self.change(node, MERGE_PATCH, |read| {
            let by = read.metadata.labels.get(keys::NO_BALANCERS);
            let ours = by.is_some_and(|by| by == operation.as_str());
            ours.then(|| balancers_patch(read, None))
        })
        .await
    }

    async fn attached(&self, node: &NodeName) -> Result<Vec<String>, NodesError> {
        let attachments = self.api.list("/apis/storage.k8s.io/v1/volumeattachments").await?;
        let here = attachments
            .iter()
            .filter(|one| text(one, "/spec/nodeName") == Some(node.as_str()));
        let mut volumes: Vec<String> = here
            .filter_map(|one| text(one, "/spec/source/persistentVolumeName").map(str::to_owned))
            .collect();
        if volumes.is_empty() {
            return Ok(volumes);
        }
        // Pods that stay on the node, a DaemonSet's, keep theirs until its end.
        let pods = self.api.list(&pods_path(node)?).await?;
        let used: BTreeSet<(String, String)> = pods.iter().flat_map(claims).collect();
        if !used.is_empty() {
            let all = self.api.list("/api/v1/persistentvolumes").await?;
            let is_used = |volume: &&Value| {
                let part = |pointer| text(volume, pointer).unwrap_or_default().to_owned();
                used.contains(&(part("/spec/claimRef/namespace"), part("/spec/claimRef/name")))
            };
            let kept: BTreeSet<&str> = all
                .iter()
                .filter(is_used)
                .filter_map(|volume| text(volume, "/metadata/name"))
                .collect();
            volumes.retain(|volume| !kept.contains(volume.as_str()));
        }
        volumes.sort();
        Ok(volumes)
    }

    async fn out_of_service(&self, node: &NodeName) -> Result<(), NodesError> {
        self.change(node, JSON_PATCH, |read| {
            let mut taints: Vec<Value> = Vec::new();
            for taint in &read.spec.taints {
                if taint.key == keys::OUT_OF_SERVICE {
                    return None;
                }
                taints.push(json!({ "key": taint.key, "value": taint.value, "effect": taint.effect }));
            }
            let new = json!({ "key": keys::OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute" });
            let place = if taints.is_empty() { "/spec/taints" } else { "/spec/taints/-" };
            let value = if taints.is_empty() { json!([new]) } else { new };
            Some(json!([
                { "op": "test", "path": "/metadata/resourceVersion", "value": read.metadata.resource_version },
                { "op": "add", "path": place, "value": value },
            ]))
        })
        .await
    }

    async fn free_name(&self, node: &NodeName, since: Timestamp) -> Result<Name, NodesError> {
        let read = match self.node(node).await {
            Ok(read) => read,
            Err(NodesError::NoNode(_)) => return Ok(Name::Free),
            Err(error) => return Err(error),
        };
        let conditions = &read.status.conditions;
        if conditions
            .iter()
            .any(|one| one.type_ == "Ready" && one.status == "True")
        {
            return Ok(Name::InUse);
        }
        let created = read
            .metadata
            .creation_timestamp
            .as_deref()
            .map(str::parse::<Timestamp>);
        if !created.is_some_and(|created| created.is_ok_and(|created| created < since)) {
            return Ok(Name::Free);
        }
        // Not one that has registered in between.
        let body = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "preconditions": { "uid": read.metadata.uid, "resourceVersion": read.metadata.resource_version },
        });
        let content = Some((JSON, body.to_string().into_bytes()));
        match self
            .api
            .call::<IgnoredAny>(Method::DELETE, &node_path(node)?, content)
            .await
        {
            Ok(_) => Ok(Name::Freed),
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(Name::Free),
            Err(error) => Err(error.into()),
        }
    }

    async fn hand_over(&self, node: &NodeName, operation: &OperationId) -> Result<HandOver, NodesError> {
        hand_over::look(&self.api, node, operation, self.api.clock.now()).await
    }

    async fn end_hand_over(&self, node: &NodeName, operation: &OperationId) -> Result<(), NodesError> {
        hand_over::end(&self.api, node, operation, self.api.clock.now()).await
    }

    async fn price(&self, pod: &PodKey, uid: &str, cost: Option<i32>) -> Result<Priced, NodesError> {
        let read = self.pod(pod).await?;
        steering::price(&self.api, pod, uid, read, cost).await
    }

    async fn delete(&self, node: &NodeName) -> Result<(), NodesError> {
        match self
            .api
            .call::<IgnoredAny>(Method::DELETE, &node_path(node)?, None)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(404) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
