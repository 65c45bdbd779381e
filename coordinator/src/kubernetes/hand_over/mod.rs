//! Hand-over: where a Deployment allows surge, what takes a pod's place is there before the pod goes.
//!
//! ```text
//!   pods of the node: the cheapest to delete ─▶ Deployment: k replicas more, marked ─▶ k more are available elsewhere
//!                                                └◀─ as many as before, unmarked: its controller ends the cheapest
//! ```
//! k is what `maxSurge` allows. No pod is evicted: at no moment are fewer available than the Deployment wants. What there is to
//! remember is on the Deployment itself (label [`keys::HANDING_OVER`], annotation [`keys::HANDED_REPLICAS`]), so that whoever
//! leads next goes on. One that somebody else scales meanwhile is left to them. The order in which a ReplicaSet deletes pods is
//! that of Kubernetes' documentation (ReplicaSet, *Scaling*; KEP-2255 for the cost).

mod deployment;

use std::collections::BTreeMap;

use http::Method;
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use smartscale_planner::model::{NodeName, keys};

use self::deployment::{Grown, is_grown, is_settled, replicas, shrinks, surge};
use super::{
    api::{Api, ApiError, MERGE_PATCH, object_path, text},
    nodes::{on_node, pods_path},
};
use crate::{
    act::nodes::{HandOver, NodesError},
    ids::OperationId,
    observe::web::form,
};

/// The least that a deletion cost can be.
const CHEAPEST: &str = "-2147483648";

/// Where Deployments and ReplicaSets are.
const APPS: &str = "/apis/apps/v1";

/// Writes that somebody else's came before are tried so often at once.
const ATTEMPTS: usize = 3;

/// One look; see [`Nodes::hand_over`](crate::act::nodes::Nodes::hand_over).
pub(super) async fn look(
    api: &Api,
    node: &NodeName,
    operation: &OperationId,
    now: Timestamp,
) -> Result<HandOver, NodesError> {
    let mut busy = Vec::new();
    let marked = marked(api, operation).await?;
    for deployment in &marked {
        let is_ours = Grown::of(deployment).is_some_and(|grown| is_grown(deployment, grown));
        if !is_ours || is_settled(deployment) {
            shrink(api, deployment).await?;
        }
        busy.push(name_of(deployment));
    }
    let groups = groups(api, node, now).await?;
    let scaled = if groups.is_empty() {
        Vec::new()
    } else {
        api.list("/apis/autoscaling/v2/horizontalpodautoscalers").await?
    };
    for ((namespace, name), pods) in groups {
        if busy.contains(&format!("{namespace}/{name}")) {
            continue;
        }
        let path = object_path(APPS, &namespace, "deployments", &name)?;
        let Some(deployment): Option<Value> = api.find(&path).await? else {
            continue;
        };
        if shrinks(&deployment) {
            busy.push(name_of(&deployment));
            continue;
        }
        // Another node's pods are handed over at this moment.
        if annotation(&deployment, keys::HANDED_REPLICAS).is_some() {
            busy.push(name_of(&deployment));
            continue;
        }
        let surge = surge(&deployment);
        if surge < 1 || !is_settled(&deployment) || is_autoscaled(&scaled, &namespace, &name) {
            continue;
        }
        let Some(from) = replicas(&deployment) else {
            continue;
        };
        let by = surge.min(i64::try_from(pods.len()).unwrap_or(i64::MAX));
        for pod in &pods {
            cheapen(api, pod, Some(CHEAPEST)).await?;
        }
        let grown = Grown { from, by };
        let patch = json!({
            "metadata": {
                "resourceVersion": version(&deployment),
                "labels": { keys::HANDING_OVER: operation.as_str() },
                "annotations": { keys::HANDED_REPLICAS: grown.to_text() },
            },
            "spec": { "replicas": from + by },
        });
        write(api, &path, &patch).await?;
        busy.push(name_of(&deployment));
    }
    Ok(if busy.is_empty() {
        HandOver::Over
    } else {
        HandOver::UnderWay(busy)
    })
}

/// Gives it up: every Deployment has as many replicas as before, and no pod of the node is the cheapest any more.
pub(super) async fn end(
    api: &Api,
    node: &NodeName,
    operation: &OperationId,
    now: Timestamp,
) -> Result<(), NodesError> {
    let mut left = marked(api, operation).await?;
    for _ in 0..ATTEMPTS {
        for deployment in &left {
            shrink(api, deployment).await?;
        }
        left = marked(api, operation).await?;
        if left.is_empty() {
            break;
        }
    }
    if let Some(deployment) = left.first() {
        let name = name_of(deployment);
        return Err(NodesError::Unavailable(format!(
            "{name} is written by somebody else all the time"
        )));
    }
    for pod in api.list(&pods_path(node)?).await? {
        let is_ours = annotation(&pod, keys::DELETION_COST) == Some(CHEAPEST);
        let leaves = on_node(pod.clone(), now).is_some_and(|pod| pod.terminating);
        if is_ours && !leaves {
            cheapen(api, &pod, None).await?;
        }
    }
    Ok(())
}

/// The node's pods that can be handed over, by the Deployment that they are of (namespace and name).
async fn groups(
    api: &Api,
    node: &NodeName,
    now: Timestamp,
) -> Result<BTreeMap<(String, String), Vec<Value>>, NodesError> {
    let mut owners: BTreeMap<(String, String), Option<String>> = BTreeMap::new();
    let mut groups: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
    for pod in api.list(&pods_path(node)?).await? {
        let Some(set) = controller(&pod, "ReplicaSet") else {
            continue;
        };
        let stays = on_node(pod.clone(), now).is_none_or(|seen| !seen.must_leave || seen.terminating);
        // Somebody's own word about what its deletion costs is theirs; that to which scale-ins were steered is ours.
        let cost = annotation(&pod, keys::DELETION_COST);
        let is_steered = cost == annotation(&pod, keys::STEERED);
        let is_spoken_for = cost.is_some_and(|cost| cost != CHEAPEST) && !is_steered;
        if stays || is_spoken_for || !is_ready(&pod) {
            continue;
        }
        let namespace = text(&pod, "/metadata/namespace").unwrap_or_default().to_owned();
        let key = (namespace.clone(), set.to_owned());
        if !owners.contains_key(&key) {
            let path = object_path(APPS, &namespace, "replicasets", set)?;
            let found: Option<Value> = api.find(&path).await?;
            let owner = found.as_ref().and_then(|set| controller(set, "Deployment"));
            owners.insert(key.clone(), owner.map(str::to_owned));
        }
        if let Some(Some(deployment)) = owners.get(&key) {
            groups
                .entry((namespace, deployment.clone()))
                .or_default()
                .push(pod);
        }
    }
    Ok(groups)
}

async fn marked(api: &Api, operation: &OperationId) -> Result<Vec<Value>, ApiError> {
    let selector = format!("{}={operation}", keys::HANDING_OVER);
    let query = form(&[("labelSelector", &selector)]);
    api.list(&format!("{APPS}/deployments?{query}")).await
}

/// Takes the mark away, and with it what was added, unless somebody else has scaled it since.
async fn shrink(api: &Api, deployment: &Value) -> Result<(), NodesError> {
    let mut patch = json!({
        "metadata": {
            "resourceVersion": version(deployment),
            "labels": { keys::HANDING_OVER: null },
            "annotations": { keys::HANDED_REPLICAS: null },
        },
    });
    if let Some(grown) = Grown::of(deployment).filter(|grown| is_grown(deployment, *grown)) {
        patch["spec"] = json!({ "replicas": grown.from });
    }
    let (namespace, name) = (
        text(deployment, "/metadata/namespace").unwrap_or_default(),
        text(deployment, "/metadata/name").unwrap_or_default(),
    );
    write(api, &object_path(APPS, namespace, "deployments", name)?, &patch).await
}

/// Says what deleting a pod costs, of this very pod. It is not steering that says so any more.
async fn cheapen(api: &Api, pod: &Value, cost: Option<&str>) -> Result<(), NodesError> {
    let (namespace, name) = (
        text(pod, "/metadata/namespace").unwrap_or_default(),
        text(pod, "/metadata/name").unwrap_or_default(),
    );
    let path = object_path("/api/v1", namespace, "pods", name)?;
    let patch = json!({
        "metadata": { "uid": text(pod, "/metadata/uid"), "annotations": { keys::DELETION_COST: cost, keys::STEERED: null } },
    });
    write(api, &path, &patch).await
}

/// A write that somebody else's came before, or whose object has gone, is none: the next look sees.
async fn write(api: &Api, path: &str, patch: &Value) -> Result<(), NodesError> {
    let content = Some((MERGE_PATCH, patch.to_string().into_bytes()));
    match api.call::<IgnoredAny>(Method::PATCH, path, content).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn version(object: &Value) -> Option<&str> {
    text(object, "/metadata/resourceVersion")
}

fn annotation<'v>(object: &'v Value, key: &str) -> Option<&'v str> {
    object.pointer("/metadata/annotations")?.get(key)?.as_str()
}

/// `namespace/name`.
fn name_of(object: &Value) -> String {
    format!(
        "{}/{}",
        text(object, "/metadata/namespace").unwrap_or_default(),
        text(object, "/metadata/name").unwrap_or_default()
    )
}

/// The name of the object's controller, if that is of this kind of `apps`.
fn controller<'v>(object: &'v Value, kind: &str) -> Option<&'v str> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| {
        owner.get("controller").and_then(Value::as_bool) == Some(true)
            && text(owner, "/kind") == Some(kind)
            && text(owner, "/apiVersion").is_some_and(|version| version.starts_with("apps/"))
    })?;
    text(owner, "/name")
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        text(condition, "/type") == Some("Ready") && text(condition, "/status") == Some("True")
    })
}

/// Whether somebody scales it by themselves.
fn is_autoscaled(autoscalers: &[Value], namespace: &str, name: &str) -> bool {
    autoscalers.iter().any(|autoscaler| {
        text(autoscaler, "/metadata/namespace") == Some(namespace)
            && text(autoscaler, "/spec/scaleTargetRef/kind") == Some("Deployment")
            && text(autoscaler, "/spec/scaleTargetRef/name") == Some(name)
    })
}
