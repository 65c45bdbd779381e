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

use std::collections::BTreeMap;

use http::Method;
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use smartscale_planner::model::{NodeName, keys};

use super::{
    api::{Api, ApiError, MERGE_PATCH, segment},
    nodes::{List, on_node, pods_path, refusal, text},
};
use crate::{
    act::nodes::{HandOver, NodesError},
    ids::OperationId,
    observe::web::form,
};

/// The annotation that a ReplicaSet's controller asks which pod to delete first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The least that it can say.
const CHEAPEST: &str = "-2147483648";

/// Writes that somebody else's came before are tried so often at once.
const ATTEMPTS: usize = 3;

/// A Deployment that has been grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Grown {
    from: i64,
    by: i64,
}

impl Grown {
    fn to_text(self) -> String {
        format!("{}+{}", self.from, self.by)
    }

    fn of(deployment: &Value) -> Option<Self> {
        let said = annotation(deployment, keys::HANDED_REPLICAS)?;
        let (from, by) = said.split_once('+')?;
        // As wide as Kubernetes' replicas: anybody may write the annotation, and no sum of two overflows.
        let grown = Self {
            from: from.parse::<i32>().ok()?.into(),
            by: by.parse::<i32>().ok()?.into(),
        };
        (grown.from >= 0 && grown.by > 0).then_some(grown)
    }
}

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
        list(api, "/apis/autoscaling/v2/horizontalpodautoscalers").await?
    };
    for ((namespace, name), pods) in groups {
        if busy.contains(&format!("{namespace}/{name}")) {
            continue;
        }
        let path = path_of(&namespace, "deployments", &name)?;
        let Some(deployment) = get(api, &path).await? else {
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
    for pod in list(api, &pods_path(node)?).await? {
        let is_ours = annotation(&pod, DELETION_COST) == Some(CHEAPEST);
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
    for pod in list(api, &pods_path(node)?).await? {
        let Some(set) = controller(&pod, "ReplicaSet") else {
            continue;
        };
        let stays = on_node(pod.clone(), now).is_none_or(|seen| !seen.must_leave || seen.terminating);
        // Somebody's own word about what its deletion costs is theirs.
        let is_spoken_for = annotation(&pod, DELETION_COST).is_some_and(|cost| cost != CHEAPEST);
        if stays || is_spoken_for || !is_ready(&pod) {
            continue;
        }
        let namespace = text(&pod, "/metadata/namespace").unwrap_or_default().to_owned();
        let key = (namespace.clone(), set.to_owned());
        if !owners.contains_key(&key) {
            let path = path_of(&namespace, "replicasets", set)?;
            let found = get(api, &path).await?;
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

async fn marked(api: &Api, operation: &OperationId) -> Result<Vec<Value>, NodesError> {
    let selector = format!("{}={operation}", keys::HANDING_OVER);
    let query = form(&[("labelSelector", &selector)]);
    list(api, &format!("/apis/apps/v1/deployments?{query}")).await
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
    write(api, &path_of(namespace, "deployments", name)?, &patch).await
}

/// Says what deleting a pod costs, of this very pod.
async fn cheapen(api: &Api, pod: &Value, cost: Option<&str>) -> Result<(), NodesError> {
    let (namespace, name) = (
        text(pod, "/metadata/namespace").unwrap_or_default(),
        text(pod, "/metadata/name").unwrap_or_default(),
    );
    let part = |name| segment(name).map_err(|error| NodesError::Refused(error.to_string()));
    let path = format!("/api/v1/namespaces/{}/pods/{}", part(namespace)?, part(name)?);
    let patch = json!({
        "metadata": { "uid": text(pod, "/metadata/uid"), "annotations": { DELETION_COST: cost } },
    });
    write(api, &path, &patch).await
}

/// A write that somebody else's came before, or whose object has gone, is none: the next look sees.
async fn write(api: &Api, path: &str, patch: &Value) -> Result<(), NodesError> {
    let content = Some((MERGE_PATCH, patch.to_string().into_bytes()));
    match api.call::<IgnoredAny>(Method::PATCH, path, content).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
        Err(error) => Err(refusal(&error)),
    }
}

async fn list(api: &Api, path: &str) -> Result<Vec<Value>, NodesError> {
    let list: Result<List, ApiError> = api.get(path).await;
    list.map(|list| list.items).map_err(|error| refusal(&error))
}

async fn get(api: &Api, path: &str) -> Result<Option<Value>, NodesError> {
    match api.get::<Value>(path).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.code() == Some(404) => Ok(None),
        Err(error) => Err(refusal(&error)),
    }
}

fn path_of(namespace: &str, resource: &str, name: &str) -> Result<String, NodesError> {
    let part = |name| segment(name).map_err(|error| NodesError::Refused(error.to_string()));
    Ok(format!(
        "/apis/apps/v1/namespaces/{}/{resource}/{}",
        part(namespace)?,
        part(name)?
    ))
}

fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer)?.as_i64()
}

fn replicas(deployment: &Value) -> Option<i64> {
    number(deployment, "/spec/replicas")
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

/// Whether it still has what was added.
fn is_grown(deployment: &Value, grown: Grown) -> bool {
    replicas(deployment) == Some(grown.from + grown.by)
}

/// Whether its controller has seen what it is to be, and all its pods are of the newest revision and available.
fn is_settled(deployment: &Value) -> bool {
    let status = |what: &str| number(deployment, &format!("/status/{what}")).unwrap_or(0);
    let wanted = replicas(deployment).unwrap_or(0);
    is_observed(deployment)
        && [
            status("replicas"),
            status("updatedReplicas"),
            status("availableReplicas"),
        ] == [wanted; 3]
}

fn is_observed(deployment: &Value) -> bool {
    number(deployment, "/status/observedGeneration") >= number(deployment, "/metadata/generation")
}

/// Whether its controller is about to end pods that are too many of the newest revision, or has not looked yet.
fn shrinks(deployment: &Value) -> bool {
    let status = |what: &str| number(deployment, &format!("/status/{what}")).unwrap_or(0);
    let wanted = replicas(deployment).unwrap_or(0);
    !is_observed(deployment) || status("replicas") > wanted && status("updatedReplicas") == status("replicas")
}

/// How many pods beyond its replicas a Deployment allows while it changes; 0 for one that is paused or replaces all at once.
fn surge(deployment: &Value) -> i64 {
    let is_paused = deployment.pointer("/spec/paused").and_then(Value::as_bool) == Some(true);
    let rolls = text(deployment, "/spec/strategy/type") == Some("RollingUpdate");
    if is_paused || !rolls {
        return 0;
    }
    match deployment.pointer("/spec/strategy/rollingUpdate/maxSurge") {
        Some(Value::Number(number)) => number.as_i64().unwrap_or(0),
        // Rounded up, as the Deployment's controller does.
        Some(Value::String(share)) => {
            let percent: Option<i64> = share.strip_suffix('%').and_then(|digits| digits.parse().ok());
            let replicas = replicas(deployment).unwrap_or(0);
            percent
                .filter(|percent| (0..=100).contains(percent))
                .and_then(|percent| percent.checked_mul(replicas))
                .map_or(0, |hundredths| hundredths.saturating_add(99) / 100)
        }
        _ => 0,
    }
}

/// Whether somebody scales it by themselves.
fn is_autoscaled(autoscalers: &[Value], namespace: &str, name: &str) -> bool {
    autoscalers.iter().any(|autoscaler| {
        text(autoscaler, "/metadata/namespace") == Some(namespace)
            && text(autoscaler, "/spec/scaleTargetRef/kind") == Some("Deployment")
            && text(autoscaler, "/spec/scaleTargetRef/name") == Some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(replicas: i64, max_surge: &Value) -> Value {
        json!({
            "metadata": { "namespace": "default", "name": "web", "generation": 3 },
            "spec": {
                "replicas": replicas,
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": max_surge } },
            },
            "status": {
                "observedGeneration": 3, "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas,
            },
        })
    }

    #[test]
    fn surge_is_what_the_strategy_says_of_a_deployment_that_rolls() {
        for (replicas, max_surge, surge_is) in [
            (4, json!("25%"), 1),
            (5, json!("25%"), 2),
            (4, json!(3), 3),
            (4, json!(0), 0),
            (4, json!("0%"), 0),
            (4, json!("many"), 0),
            (i64::MAX, json!("90%"), 0),
        ] {
            assert_eq!(surge(&deployment(replicas, &max_surge)), surge_is, "{max_surge}");
        }
        let mut paused = deployment(4, &json!(1));
        paused["spec"]["paused"] = json!(true);
        assert_eq!(surge(&paused), 0);
        let mut replaced = deployment(4, &json!(1));
        replaced["spec"]["strategy"] = json!({ "type": "Recreate" });
        assert_eq!(surge(&replaced), 0);
    }

    #[test]
    fn a_deployment_is_settled_once_its_controller_has_seen_it_and_all_is_new_and_available() {
        let settled = deployment(4, &json!(1));
        assert!(is_settled(&settled) && !shrinks(&settled));
        let mut unseen = settled.clone();
        unseen["metadata"]["generation"] = json!(4);
        assert!(!is_settled(&unseen) && shrinks(&unseen));
        let mut rolls = settled.clone();
        rolls["status"]["updatedReplicas"] = json!(2);
        assert!(!is_settled(&rolls) && !shrinks(&rolls));
        let mut fewer = settled;
        fewer["spec"]["replicas"] = json!(3);
        assert!(!is_settled(&fewer) && shrinks(&fewer));
    }

    #[test]
    fn what_was_added_is_known_by_the_deployment_itself_until_somebody_else_scales_it() {
        let mut grown = deployment(5, &json!(1));
        assert_eq!(Grown::of(&grown), None);
        for nonsense in ["", "4", "4+", "+1", "4+0", "-1+1", "4+x", "9223372036854775807+1"] {
            grown["metadata"]["annotations"] = json!({ keys::HANDED_REPLICAS: nonsense });
            assert_eq!(Grown::of(&grown), None, "{nonsense:?}");
        }
        let by_one = Grown { from: 4, by: 1 };
        grown["metadata"]["annotations"] = json!({ keys::HANDED_REPLICAS: by_one.to_text() });
        assert_eq!(Grown::of(&grown), Some(by_one));
        assert!(is_grown(&grown, by_one));
        grown["spec"]["replicas"] = json!(9);
        assert!(!is_grown(&grown, by_one));
    }
}
