#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
use std::sync::Arc;

use smartscale_proto::time::SystemClock;

use super::*;
use crate::{
    act::nodes::{HandOver, Nodes as _},
    kubernetes::{
        nodes::KubeNodes,
        testing::{Log, Seen, client, status},
    },
};

fn nodes(answer: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> (KubeNodes, Log) {
    let (client, log) = client(answer);
    (KubeNodes::new(Api::new(client, Arc::new(SystemClock))), log)
}

fn ok(value: &Value) -> (u16, String) {
    (200, value.to_string())
}

/// The bodies of the patches of these objects.
fn patches(log: &Log) -> Vec<Value> {
    let log = log.lock().unwrap();
    log.iter()
        .filter(|seen| seen.line.starts_with("PATCH"))
        .map(|seen| seen.body.clone())
        .collect()
}

fn pod_with(annotations: &Value) -> Value {
    json!({ "metadata": {
        "name": "web-1", "namespace": "shop", "uid": "u-1", "resourceVersion": "7", "annotations": annotations,
    } })
}

/// A pod that bears these annotations, and what pricing it comes to.
async fn price(annotations: Value, cost: Option<i32>) -> (Priced, Vec<Value>) {
    let (nodes, log) = nodes(move |_| ok(&pod_with(&annotations)));
    let pod = PodKey::new("shop", "web-1");
    let priced = nodes.price(&pod, "u-1", cost).await.unwrap();
    (priced, patches(&log))
}

#[tokio::test]
async fn a_deletion_cost_bears_our_mark_and_only_counts_for_the_version_that_was_read() {
    let written = |annotations: Value| {
        let patch = json!({ "metadata": { "resourceVersion": "7", "annotations": annotations } });
        (Priced::Written, vec![patch])
    };
    let ours = json!({ keys::DELETION_COST: "-90", keys::STEERED: "-90" });
    assert_eq!(price(json!({}), Some(-90)).await, written(ours.clone()));
    assert_eq!(
        price(ours.clone(), Some(-85)).await,
        written(json!({ keys::DELETION_COST: "-85", keys::STEERED: "-85" }))
    );
    assert_eq!(
        price(ours.clone(), None).await,
        written(json!({ keys::DELETION_COST: null, keys::STEERED: null }))
    );
    assert_eq!(price(ours, Some(-90)).await, (Priced::Left, vec![]));
}

#[tokio::test]
async fn a_deletion_cost_of_somebody_else_is_never_written() {
    for theirs in [
        json!({ keys::DELETION_COST: "-90" }),
        json!({ keys::DELETION_COST: "7", keys::STEERED: "-90" }),
    ] {
        assert_eq!(price(theirs, Some(-90)).await, (Priced::Left, vec![]));
    }
    let theirs = json!({ keys::DELETION_COST: "7", keys::STEERED: "-90" });
    let only_the_mark =
        json!({ "metadata": { "resourceVersion": "7", "annotations": { keys::STEERED: null } } });
    assert_eq!(price(theirs, None).await, (Priced::Written, vec![only_the_mark]));
}

#[tokio::test]
async fn a_pod_that_is_gone_or_is_written_at_the_same_moment_is_no_failure() {
    let pod = PodKey::new("shop", "web-1");
    let (absent, _) = nodes(|_| status(404, "pods \"web-1\" not found", None));
    assert_eq!(absent.price(&pod, "u-1", Some(-90)).await, Ok(Priced::Gone));
    let (another, log) = nodes(|_| ok(&pod_with(&json!({}))));
    assert_eq!(another.price(&pod, "u-2", Some(-90)).await, Ok(Priced::Gone));
    assert_eq!(patches(&log), Vec::<Value>::new());
    for (code, priced) in [(404, Priced::Gone), (409, Priced::Overtaken)] {
        let (nodes, _) = nodes(move |seen| match seen.line.starts_with("GET") {
            true => ok(&pod_with(&json!({}))),
            false => status(code, "too late", None),
        });
        assert_eq!(nodes.price(&pod, "u-1", Some(-90)).await, Ok(priced));
    }
    let (closed, _) = nodes(|seen| match seen.line.starts_with("GET") {
        true => ok(&pod_with(&json!({}))),
        false => status(403, "pods is forbidden", None),
    });
    let refused = closed.price(&pod, "u-1", Some(-90)).await;
    assert!(matches!(refused, Err(NodesError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_hand_over_takes_pods_that_are_steered_with_our_mark_and_leaves_those_of_somebody_else() {
    let pod = |name: &str, annotations: Value| {
        json!({
            "metadata": {
                "name": name, "namespace": "shop", "uid": name, "annotations": annotations,
                "ownerReferences": [
                    { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "controller": true },
                ],
            },
            "spec": { "nodeName": "i-1", "containers": [{}] },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
        })
    };
    let pods = json!({ "items": [
        pod("steered", json!({ keys::DELETION_COST: "-90", keys::STEERED: "-90" })),
        pod("theirs", json!({ keys::DELETION_COST: "-90" })),
    ] });
    let set = json!({ "metadata": { "ownerReferences": [
        { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "controller": true },
    ] } });
    let deployment = json!({
        "metadata": { "name": "web", "namespace": "shop", "generation": 1, "resourceVersion": "7" },
        "spec": { "replicas": 2, "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1 } } },
        "status": { "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2 },
    });
    let (nodes, log) = nodes(move |seen| match &seen.line {
        line if line.starts_with("GET /api/v1/pods?") => ok(&pods),
        line if line.ends_with("/replicasets/web-1") => ok(&set),
        line if line.ends_with("/deployments/web") => ok(&deployment),
        _ => ok(&json!({ "items": [] })),
    });
    let handed = nodes.hand_over(&"i-1".into(), &"op-1".parse().unwrap()).await;
    assert_eq!(handed, Ok(HandOver::UnderWay(vec!["shop/web".to_owned()])));
    let costs: Vec<Value> = patches(&log)
        .into_iter()
        .filter(|patch| patch.pointer("/metadata/uid").is_some())
        .collect();
    let cheapest = json!({ "metadata": {
        "uid": "steered", "annotations": { keys::DELETION_COST: "-2147483648", keys::STEERED: null },
    } });
    assert_eq!(costs, [cheapest]);
}
