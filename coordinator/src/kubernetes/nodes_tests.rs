#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use smartscale_proto::time::SystemClock;

use super::*;
use crate::kubernetes::testing::{Log, Seen, client, lines, status};

fn nodes(answer: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> (KubeNodes, Log) {
    let (client, log) = client(answer);
    (KubeNodes::new(Api::new(client, Arc::new(SystemClock))), log)
}

fn ok(value: &Value) -> (u16, String) {
    (200, value.to_string())
}

fn node(cordoned_by: Option<&str>, unschedulable: bool) -> Value {
    let annotations = cordoned_by.map_or_else(|| json!({}), |by| json!({ keys::DRAINING: by }));
    json!({
        "metadata": { "name": "i-1", "resourceVersion": "7", "annotations": annotations },
        "spec": { "unschedulable": unschedulable, "taints": [
            { "key": "other", "effect": "NoSchedule" },
            { "key": keys::UNVERIFIED, "effect": "NoExecute" },
        ] },
    })
}

fn op(id: &str) -> OperationId {
    id.parse().unwrap()
}

fn patches(log: &Log) -> Vec<Value> {
    let log = log.lock().unwrap();
    log.iter()
        .filter(|seen| seen.line.starts_with("PATCH"))
        .map(|seen| seen.body.clone())
        .collect()
}

/// A node as it stands, and what a cordon by `op-1` makes of it.
async fn cordon(cordoned_by: Option<&'static str>, unschedulable: bool) -> (bool, Vec<Value>) {
    let (nodes, log) = nodes(move |_| ok(&node(cordoned_by, unschedulable)));
    let foreign = nodes.cordon(&"i-1".into(), Some(&op("op-1"))).await.unwrap();
    (foreign, patches(&log))
}

#[tokio::test]
async fn a_cordon_bears_its_operation_and_only_counts_for_the_version_that_was_read() {
    let (foreign, patches) = cordon(None, false).await;
    assert!(!foreign);
    assert_eq!(
        patches,
        [json!({
            "metadata": { "resourceVersion": "7", "annotations": { keys::DRAINING: "op-1" } },
            "spec": { "unschedulable": true },
        })]
    );
}

#[tokio::test]
async fn a_persons_cordon_stays_a_persons_and_our_own_is_written_once() {
    assert_eq!(cordon(None, true).await, (true, vec![]));
    assert_eq!(cordon(Some("op-1"), true).await, (false, vec![]));
}

#[tokio::test]
async fn the_drain_of_an_interruption_is_not_taken_over() {
    assert_eq!(cordon(Some("notice/n1"), true).await, (true, vec![]));
}

#[tokio::test]
async fn what_an_older_operation_left_behind_passes_to_this_one() {
    let (foreign, patches) = cordon(Some("op-0"), true).await;
    assert!(!foreign);
    assert_eq!(patches[0]["metadata"]["annotations"][keys::DRAINING], "op-1");
}

#[tokio::test]
async fn an_operation_never_lifts_the_cordon_of_a_person_and_a_person_lifts_any() {
    let (nodes, log) = nodes(|_| ok(&node(None, true)));
    nodes.uncordon(&"i-1".into(), Some(&op("op-1"))).await.unwrap();
    assert!(patches(&log).is_empty());
    nodes.uncordon(&"i-1".into(), None).await.unwrap();
    assert_eq!(patches(&log)[0]["spec"]["unschedulable"], Value::Null);
}

#[tokio::test]
async fn a_write_of_somebody_else_in_between_is_read_and_tried_again() {
    let tries = AtomicU32::new(0);
    let (nodes, log) = nodes(move |seen| {
        if seen.line.starts_with("PATCH") && tries.fetch_add(1, Ordering::Relaxed) < 2 {
            return status(409, "the object has been modified", None);
        }
        ok(&node(None, false))
    });
    nodes.cordon(&"i-1".into(), Some(&op("op-1"))).await.unwrap();
    assert_eq!(patches(&log).len(), 3);
}

#[tokio::test]
async fn only_the_startup_taint_is_lifted_and_only_where_it_stands() {
    let binding = Binding::new(&"i-1".parse().unwrap(), &"ab".repeat(32)).unwrap();
    let nonce = binding.nonce("u-1");
    let proven = move |nonce: &str| {
        let mut node = node(None, false);
        node["metadata"]["uid"] = json!("u-1");
        node["metadata"]["annotations"] = json!({ keys::NONCE: nonce });
        node
    };
    let (nodes, log) = nodes(move |_| ok(&proven(&nonce)));
    let verified = nodes.verify(&"i-1".into(), &binding).await;
    assert_eq!(verified, Ok(Verified::Lifted));
    assert_eq!(
        patches(&log),
        [json!([
            { "op": "test", "path": "/metadata/resourceVersion", "value": "7" },
            { "op": "test", "path": "/spec/taints/1/key", "value": keys::UNVERIFIED },
            { "op": "remove", "path": "/spec/taints/1" },
        ])]
    );
    assert_eq!(log.lock().unwrap()[1].content_type, JSON_PATCH);
}

#[tokio::test]
async fn a_node_without_its_nonce_or_with_another_keeps_its_startup_taint() {
    let binding = Binding::new(&"i-1".parse().unwrap(), &"ab".repeat(32)).unwrap();
    let unproven = |uid: &str| Ok(Verified::Unproven { uid: uid.to_owned() });
    // None; another's; and the right one of a Node that had this name before.
    for (uid, carried) in [
        ("u-1", None),
        ("u-1", Some("0".repeat(64))),
        ("u-2", Some(binding.nonce("u-1"))),
        ("", Some(binding.nonce(""))),
    ] {
        let mut read = node(None, false);
        read["metadata"]["uid"] = json!(uid);
        if let Some(nonce) = carried {
            read["metadata"]["annotations"] = json!({ keys::NONCE: nonce });
        }
        let (nodes, log) = nodes(move |_| ok(&read));
        assert_eq!(nodes.verify(&"i-1".into(), &binding).await, unproven(uid));
        assert!(patches(&log).is_empty(), "{uid}");
    }
}

fn pod() -> PodOnNode {
    PodOnNode {
        key: PodKey::new("shop", "web-1"),
        uid: "u-1".into(),
        must_leave: true,
        local_storage: false,
        terminating: false,
        tier: Tier::Ordinary,
    }
}

fn stored(uid: &str, terminating: bool) -> Value {
    let at = terminating.then_some("2026-01-02T03:04:05Z");
    json!({ "metadata": { "name": "web-1", "namespace": "shop", "uid": uid, "deletionTimestamp": at } })
}

/// What the adapter makes of the API server's answer to an eviction.
async fn evict(answer: (u16, String)) -> Result<Eviction, NodesError> {
    let (nodes, _) = nodes(move |seen| {
        if seen.line.starts_with("GET") {
            ok(&stored("u-1", false))
        } else {
            answer.clone()
        }
    });
    nodes.evict(&pod()).await
}

#[tokio::test]
async fn an_eviction_names_the_uid_of_the_pod_that_was_read() {
    let (nodes, log) = nodes(|seen| {
        if seen.line.starts_with("GET") {
            ok(&stored("u-1", false))
        } else {
            (201, "{}".into())
        }
    });
    assert_eq!(nodes.evict(&pod()).await, Ok(Eviction::Accepted));
    assert_eq!(lines(&log)[1], "POST /api/v1/namespaces/shop/pods/web-1/eviction");
    let body = log.lock().unwrap()[1].body.clone();
    assert_eq!(body["deleteOptions"]["preconditions"]["uid"], "u-1");
    assert_eq!(
        (&body["apiVersion"], &body["kind"]),
        (&json!("policy/v1"), &json!("Eviction"))
    );
}

#[tokio::test]
async fn another_pod_of_the_name_or_one_that_ends_already_is_never_asked_to_go() {
    for (read, expected) in [
        (ok(&stored("u-2", false)), Eviction::Gone),
        (ok(&stored("u-1", true)), Eviction::Accepted),
        (status(404, "pods \"web-1\" not found", None), Eviction::Gone),
    ] {
        let (nodes, log) = nodes(move |_| read.clone());
        assert_eq!(nodes.evict(&pod()).await, Ok(expected));
        assert_eq!(lines(&log).len(), 1, "reading is no eviction");
    }
}

#[tokio::test]
async fn the_api_servers_refusals_are_told_apart() {
    let budget = "Cannot evict pod as it would violate the pod's disruption budget.";
    let two =
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    let uid = "Operation cannot be fulfilled on Pod \"web-1\": the UID in the precondition (u-1) does not match the UID in \
               record (u-2). The object might have been deleted and then recreated";
    let stored_uid = "Precondition failed: UID in precondition: u-1, UID in object meta: u-2";
    let cause = Some("NamespaceTerminating");
    assert_eq!(
        evict(status(429, budget, Some("DisruptionBudget"))).await,
        Ok(Eviction::Budget)
    );
    assert_eq!(evict(status(500, two, None)).await, Ok(Eviction::MultipleBudgets));
    assert_eq!(
        evict(status(403, "forbidden", cause)).await,
        Ok(Eviction::NamespaceTerminating)
    );
    assert_eq!(evict(status(404, "not found", None)).await, Ok(Eviction::Gone));
    assert_eq!(evict(status(409, uid, None)).await, Ok(Eviction::Gone));
    assert_eq!(evict(status(409, stored_uid, None)).await, Ok(Eviction::Gone));
    for passing in [
        status(429, "too many requests", None),
        status(
            409,
            "Operation cannot be fulfilled on poddisruptionbudgets \"web\"",
            None,
        ),
        status(503, "apiserver is shutting down", None),
        status(500, "etcdserver: request timed out", None),
    ] {
        assert!(matches!(evict(passing).await, Err(NodesError::Unavailable(_))));
    }
    assert!(matches!(
        evict(status(403, "forbidden", None)).await,
        Err(NodesError::Refused(_))
    ));
}

#[tokio::test]
async fn pods_are_classified_and_one_that_cannot_be_understood_has_to_leave() {
    let owner = |kind: &str| json!([{ "kind": kind, "name": "x", "controller": true }]);
    let pod = |name: &str, owners: Value, cpu: &str, priority: i32| {
        json!({
            "metadata": { "name": name, "namespace": "shop", "uid": name, "ownerReferences": owners },
            "spec": {
                "nodeName": "i-1", "priority": priority,
                "containers": [ { "name": "c", "resources": { "requests": { "cpu": cpu } } } ],
            },
            "status": { "phase": "Running" },
        })
    };
    let list = json!({ "items": [
        pod("web", owner("ReplicaSet"), "1", 0),
        pod("log", owner("DaemonSet"), "1", 0),
        pod("dns", owner("ReplicaSet"), "1", 2_000_000_000),
        pod("odd", owner("ReplicaSet"), "one", 0),
    ] });
    let (nodes, log) = nodes(move |_| ok(&list));
    let pods = nodes.pods(&"i-1".into()).await.unwrap();
    let seen: Vec<_> = pods
        .iter()
        .map(|pod| (&*pod.uid, pod.must_leave, pod.tier))
        .collect();
    assert_eq!(
        seen,
        [
            ("web", true, Tier::Ordinary),
            ("log", false, Tier::Ordinary),
            ("dns", true, Tier::ClusterCritical),
            ("odd", true, Tier::Ordinary)
        ]
    );
    assert_eq!(
        lines(&log),
        ["GET /api/v1/pods?fieldSelector=spec.nodeName%3Di-1"]
    );
}

#[tokio::test]
async fn a_node_or_pod_that_is_gone_is_gone() {
    let binding = Binding::new(&"i-1".parse().unwrap(), &"ab".repeat(32)).unwrap();
    let (nodes, _) = nodes(|_| status(404, "not found", None));
    assert_eq!(nodes.delete(&"i-1".into()).await, Ok(()));
    assert_eq!(nodes.delete_pod(&pod(), 0).await, Ok(()));
    assert_eq!(
        nodes.cordon(&"i-1".into(), None).await,
        Err(NodesError::NoNode("i-1".into()))
    );
    assert_eq!(
        nodes.verify(&"../x".into(), &binding).await,
        Err(NodesError::NoNode("../x".into()))
    );
}

#[tokio::test]
async fn a_deletion_names_grace_and_uid() {
    let (nodes, log) = nodes(|_| (200, "{}".into()));
    nodes.delete_pod(&pod(), 5).await.unwrap();
    let body = log.lock().unwrap()[0].body.clone();
    assert_eq!(
        (&body["gracePeriodSeconds"], &body["preconditions"]["uid"]),
        (&json!(5), &json!("u-1"))
    );
}

#[tokio::test]
async fn a_name_is_freed_of_a_node_that_is_neither_ready_nor_new_and_of_that_one_alone() {
    let since: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let asked = async |ready: &str, created: &str, answer: (u16, String)| {
        let node = json!({
            "metadata": { "name": "i-1", "uid": "u-1", "resourceVersion": "7", "creationTimestamp": created },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        });
        let (nodes, log) = nodes(move |seen| match seen.line.starts_with("GET") {
            true => ok(&node),
            false => answer.clone(),
        });
        let name = nodes.free_name(&"i-1".into(), since).await.unwrap();
        let deletions: Vec<Value> = log
            .lock()
            .unwrap()
            .iter()
            .skip(1)
            .map(|seen| seen.body.clone())
            .collect();
        (name, deletions)
    };
    let done = || (200, "{}".to_owned());
    let (old, new) = ("2026-01-02T03:04:04Z", "2026-01-02T03:04:05Z");
    assert_eq!(asked("True", old, done()).await, (Name::InUse, vec![]));
    assert_eq!(asked("False", new, done()).await, (Name::Free, vec![]));
    assert_eq!(asked("False", "", done()).await, (Name::Free, vec![]));
    let (name, deletions) = asked("Unknown", old, done()).await;
    assert_eq!(name, Name::Freed);
    assert_eq!(
        deletions[0]["preconditions"],
        json!({ "uid": "u-1", "resourceVersion": "7" })
    );
    let (name, _) = asked("Unknown", old, status(409, "changed", None)).await;
    assert_eq!(name, Name::Free, "another one has it now");
}
