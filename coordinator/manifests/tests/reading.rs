//! What `kubectl` prints becomes the planner's cluster, and what it cannot mean is named.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use serde_json::json;
use smartscale_manifests::{Kind, Object, Objects, read};
use smartscale_planner::{
    drainability,
    model::{Bytes, Cluster, MilliCpu, VolumeSource},
};

const NOW: &str = "2026-01-02T03:04:05Z";

const PODS: &str = r#"
apiVersion: v1
items:
- apiVersion: v1
  kind: Pod
  metadata:
    name: web-1
    namespace: shop
    creationTimestamp: "2026-01-02T03:00:00Z"
    labels: { app: web, pod-template-hash: abc }
    annotations: { cluster-autoscaler.kubernetes.io/safe-to-evict: "true", big: "dropped" }
    ownerReferences:
    - { apiVersion: apps/v1, kind: ReplicaSet, name: web, controller: true, uid: x }
  spec:
    nodeName: node-a
    schedulerName: default-scheduler
    priority: 7
    containers:
    - name: web
      image: web
      resources: { requests: { cpu: 250m, memory: 64Mi }, limits: { nvidia.com/gpu: 1 } }
      ports: [ { containerPort: 80, hostPort: 8080, protocol: TCP } ]
    tolerations:
    - { key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 300 }
    volumes:
    - { name: cache, emptyDir: {} }
    - { name: shm, emptyDir: { medium: Memory } }
    - { name: data, persistentVolumeClaim: { claimName: data-web-1 } }
    - { name: token, projected: { sources: [] } }
    topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: topology.kubernetes.io/zone
      whenUnsatisfiable: DoNotSchedule
      labelSelector: { matchLabels: { app: web } }
      matchLabelKeys: [ pod-template-hash, missing ]
  status:
    phase: Running
    conditions: [ { type: Ready, status: "True" } ]
- apiVersion: v1
  kind: Service
  metadata: { name: web, namespace: shop }
  spec: { ports: [ { port: 80 } ], selector: { app: web } }
kind: List
metadata:
  resourceVersion: ""
---
---
apiVersion: v1
kind: Node
metadata: { name: node-a, labels: { smartscale.io/pool: workers }, annotations: { x: y } }
spec: { taints: [ { key: dedicated, value: web, effect: NoSchedule } ] }
status:
  capacity: { cpu: 2, memory: 4005888Ki, pods: "110", ephemeral-storage: 20Gi }
  conditions: [ { type: Ready, status: "True" } ]
"#;

fn cluster(texts: &[(&str, read::Format)]) -> Cluster {
    let mut objects = Objects::default();
    for (text, format) in texts {
        for object in read::objects(text, *format).unwrap() {
            objects.apply(object);
        }
    }
    let (cluster, bad) = objects.to_cluster(NOW.parse().unwrap());
    assert!(bad.is_empty(), "{bad:?}");
    cluster
}

#[test]
fn a_list_in_yaml_becomes_a_cluster() {
    let cluster = cluster(&[(PODS, read::Format::Yaml)]);
    let [pod] = cluster.pods.as_slice() else {
        panic!("one pod, not {:?}", cluster.pods)
    };
    assert_eq!(pod.key.to_string(), "shop/web-1");
    assert_eq!(
        (pod.requests.cpu, pod.requests.memory, pod.requests.pods),
        (MilliCpu(250), Bytes(64 << 20), 1)
    );
    assert_eq!(pod.requests.extended.get("nvidia.com/gpu"), Some(&1));
    assert_eq!(
        pod.annotations.len(),
        1,
        "annotations that nothing reads are dropped"
    );
    assert!(pod.ready && pod.is_owned_by("ReplicaSet"));
    assert_eq!(pod.host_ports[0].port, 8080);
    let sources: Vec<_> = pod.volumes.iter().map(|volume| volume.source.clone()).collect();
    assert_eq!(
        sources,
        [
            VolumeSource::EmptyDir,
            VolumeSource::EmptyDirInMemory,
            VolumeSource::Claim("data-web-1".into()),
            VolumeSource::Other
        ]
    );
    let selector = pod.spread[0].selector.as_ref().unwrap();
    assert_eq!(
        selector.match_expressions.len(),
        1,
        "only a label that the pod has: {selector:?}"
    );
    let node = cluster.node("node-a").unwrap();
    assert!(node.ready);
    assert_eq!(
        node.allocatable, node.capacity,
        "allocatable defaults to capacity"
    );
    assert_eq!(node.allocatable.memory, Bytes(4_005_888 << 10));
}

#[test]
fn json_typed_lists_and_nested_lists_are_the_same_cluster() {
    let list = r#"{ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [ { "metadata": { "name": "a" } } ] }"#;
    let late = r#"{ "items": [ { "metadata": { "name": "a" }, "spec": { "containers": null } } ], "kind": "PodList", "apiVersion": "v1" }"#;
    let nested = format!(
        r#"{{ "kind": "List", "apiVersion": "v1", "items": [ {list}, {{ "kind": "List", "items": [] }} ] }}"#
    );
    let expected = cluster(&[(list, read::Format::Json)]);
    assert_eq!(expected.pods.len(), 1);
    for text in [late, &nested] {
        for format in [read::Format::Json, read::Format::Yaml, read::Format::Unknown] {
            assert_eq!(cluster(&[(text, format)]), expected, "{text}");
        }
    }
    assert_eq!(
        cluster(&[(&format!("{list}\n{late}"), read::Format::Json)]),
        expected
    );
}

#[test]
fn an_object_given_twice_counts_once_and_the_last_one_counts() {
    let one = "{kind: Pod, metadata: {name: a}, spec: {nodeName: x}}";
    let two = "{kind: Pod, metadata: {name: a, namespace: default}, spec: {nodeName: y}}";
    let cluster = cluster(&[(one, read::Format::Yaml), (two, read::Format::Yaml)]);
    assert_eq!(cluster.pods.len(), 1);
    assert_eq!(cluster.pods[0].node.as_ref().unwrap().as_str(), "y");
}

#[test]
fn a_kind_of_another_group_or_without_interest_is_passed_over() {
    let text = "{apiVersion: longhorn.io/v1, kind: Node, metadata: {name: a}, spec: {taints: strange}}\n---\n{kind: ConfigMap, data: {items: x}}";
    assert!(cluster(&[(text, read::Format::Yaml)]).nodes.is_empty());
}

#[test]
fn broken_text_is_refused_with_its_place() {
    for (text, format) in [
        ("{\"kind\": \"Pod\",\n \"metadata\": [", read::Format::Json),
        ("kind: Pod\nmetadata: {name: a\n", read::Format::Yaml),
        ("just words", read::Format::Yaml),
        ("- 1\n- 2\n", read::Format::Yaml),
        ("{\"metadata\": {\"name\": \"a\"}}", read::Format::Json),
    ] {
        let error = read::objects(text, format).unwrap_err();
        assert!(!error.message.is_empty(), "{text}");
    }
    let error = read::objects(
        "kind: Pod\nmetadata: {name: a, namespace: b}\nspec: {containers: 7}\n",
        read::Format::Yaml,
    );
    let message = error.unwrap_err().to_string();
    assert!(message.contains("Pod b/a: spec.containers"), "{message}");
}

#[test]
fn a_quantity_or_time_that_does_not_parse_names_object_and_path() {
    let mut objects = Objects::default();
    let text = "
{kind: Pod, metadata: {name: bound, namespace: shop}, spec: {nodeName: n, containers: [{resources: {requests: {cpu: lots}}}]}}
---
{kind: Pod, metadata: {name: waits}, spec: {containers: [{resources: {requests: {memory: 1Zi}}}]}}
---
{kind: Node, metadata: {name: n, creationTimestamp: yesterday, labels: {smartscale.io/pool: workers}}}
---
{kind: PodDisruptionBudget, metadata: {name: b}, spec: {selector: {matchExpressions: [{key: a, operator: Near}]}}, status: {disruptionsAllowed: 3}}
";
    for object in read::objects(text, read::Format::Yaml).unwrap() {
        objects.apply(object);
    }
    let (cluster, bad) = objects.to_cluster(NOW.parse().unwrap());
    let messages: Vec<_> = bad.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 4, "{messages:?}");
    assert!(
        messages
            .iter()
            .any(|m| m.starts_with("Pod shop/bound: spec.containers[0].resources.requests.cpu: `lots`"))
    );
    assert!(
        messages
            .iter()
            .any(|m| m.starts_with("Node n: metadata.creationTimestamp: `yesterday`"))
    );
    // In a watch they are held still: the node stays, its pod keeps it, the budget has nothing left.
    let node = cluster.node("n").unwrap();
    assert!(node.unschedulable && node.annotations.contains_key(drainability::SCALE_DOWN_DISABLED));
    assert_eq!(cluster.pods.len(), 1);
    assert_eq!(cluster.disruption_budgets[0].disruptions_allowed, 0);
    // And a good version heals them.
    objects.remove(Kind::Pod, "shop", "bound");
    objects.remove(Kind::Pod, "default", "waits");
    objects.remove(Kind::PodDisruptionBudget, "default", "b");
    for object in read::objects("{kind: Node, metadata: {name: n}}", read::Format::Yaml).unwrap() {
        objects.apply(object);
    }
    assert!(objects.to_cluster(NOW.parse().unwrap()).1.is_empty());
}

#[test]
fn what_a_watch_cannot_read_at_all_is_named_and_held_still_until_it_can_be_read() {
    let mut objects = Objects::exportable();
    let broken = [
        (
            Kind::Node,
            json!({
                "metadata": { "name": "n", "labels": { "smartscale.io/pool": "workers", "odd": 7 } },
                "spec": { "providerID": "aws:///z/i-1", "taints": "none" },
            }),
        ),
        (
            Kind::Pod,
            json!({ "metadata": { "name": "web", "namespace": "shop" }, "spec": { "nodeName": "n", "containers": 3 } }),
        ),
        (
            Kind::PodDisruptionBudget,
            json!({ "metadata": { "name": "b", "namespace": "shop" }, "spec": [] , "status": { "disruptionsAllowed": "3" } }),
        ),
        (
            Kind::StorageClass,
            json!({ "metadata": { "name": "fast" }, "provisioner": 1 }),
        ),
    ];
    for (kind, object) in &broken {
        let error = Object::from_value(*kind, object).unwrap_err();
        objects.hold(*kind, object, error.path().to_string(), error.inner().to_string());
    }
    let (cluster, bad) = objects.to_cluster(NOW.parse().unwrap());
    let named: Vec<_> = bad
        .iter()
        .map(|bad| (bad.kind, &*bad.name, bad.namespace.as_deref()))
        .collect();
    assert_eq!(
        named,
        [
            (Kind::Node, "n", None),
            (Kind::Pod, "web", Some("shop")),
            (Kind::PodDisruptionBudget, "b", Some("shop")),
            (Kind::StorageClass, "fast", None),
        ]
    );
    let node = cluster.node("n").unwrap();
    assert!(node.unschedulable && node.annotations.contains_key(drainability::SCALE_DOWN_DISABLED));
    assert_eq!(
        node.labels.get("smartscale.io/pool").map(|pool| &**pool),
        Some("workers")
    );
    assert_eq!(node.provider_id.as_deref(), Some("aws:///z/i-1"));
    assert_eq!(cluster.pods.len(), 1, "it fills its node");
    assert_eq!(cluster.disruption_budgets[0].disruptions_allowed, 0);
    assert!(
        read::objects(&objects.to_list_json().unwrap(), read::Format::Json)
            .unwrap()
            .is_empty()
    );

    let healed = Object::from_value(Kind::Node, json!({ "metadata": { "name": "n" } })).unwrap();
    objects.apply(healed);
    for (kind, namespace, name) in [
        (Kind::Pod, "shop", "web"),
        (Kind::PodDisruptionBudget, "shop", "b"),
        (Kind::StorageClass, "", "fast"),
    ] {
        objects.remove(kind, namespace, name);
    }
    let (cluster, bad) = objects.to_cluster(NOW.parse().unwrap());
    assert!(bad.is_empty() && cluster.pods.is_empty());
    assert!(!cluster.node("n").unwrap().unschedulable);
}

#[test]
fn a_pod_gets_the_priority_of_its_class() {
    let text = "
{kind: PriorityClass, apiVersion: scheduling.k8s.io/v1, metadata: {name: high}, value: 1000}
---
{kind: PriorityClass, apiVersion: scheduling.k8s.io/v1, metadata: {name: base}, value: 5, globalDefault: true}
---
{kind: Pod, metadata: {name: a}, spec: {priorityClassName: high}}
---
{kind: Pod, metadata: {name: b}}
";
    let cluster = cluster(&[(text, read::Format::Yaml)]);
    assert_eq!(
        cluster.pods.iter().map(|pod| pod.priority).collect::<Vec<_>>(),
        [1000, 5]
    );
}

#[test]
fn json_read_object_by_object_is_json_read_as_a_whole() {
    let text = r#"
        { "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "a" } },
            { "apiVersion": "v1", "kind": "PodList", "items": [ { "metadata": { "name": "p", "namespace": "a" } } ] } ] }
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "b" } }
    "#;
    let mut one_by_one = Vec::new();
    read::each_of_json(text.as_bytes(), |object| one_by_one.push(object)).unwrap();
    assert_eq!(one_by_one.len(), 3);
    assert_eq!(one_by_one, read::objects(text, read::Format::Json).unwrap());

    read::each_of_json("  \n".as_bytes(), |_| panic!("nothing is there")).unwrap();
    for wrong in [r#"{ "kind": "Pod" "#, r#"{ "metadata": {} }"#, "[]", "x"] {
        let error = read::each_of_json(wrong.as_bytes(), |_| {}).unwrap_err();
        let of_all = read::objects(wrong, read::Format::Json).unwrap_err();
        assert_eq!(error.message, of_all.message, "{wrong}");
    }
}

#[test]
fn what_is_said_of_a_pods_deletion_is_kept_beside_it_as_long_as_it_is_said() {
    let pod = |name: &str, annotations: serde_json::Value| {
        let pod = json!({
            "metadata": { "name": name, "namespace": "shop", "annotations": annotations },
            "spec": { "containers": [{ "resources": { "requests": { "cpu": "much" } } }] },
        });
        serde_json::from_value::<smartscale_manifests::Pod>(pod).unwrap()
    };
    let said = |objects: &Objects| -> Vec<(String, Option<String>, Option<String>)> {
        let all = objects.deletion_costs();
        all.map(|((namespace, name), said)| {
            (
                format!("{namespace}/{name}"),
                said.cost.clone(),
                said.mark.clone(),
            )
        })
        .collect()
    };
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    let mut objects = Objects::default();
    objects.apply(pod("silent", json!({ "other": "1" })));
    objects.apply(pod("web-1", json!({ cost: "7" })));
    objects.apply(pod(
        "web-2",
        json!({ cost: "-90", "smartscale.io/steered": "-90" }),
    ));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        said(&objects),
        [
            ("shop/web-1".to_owned(), text("7"), None),
            ("shop/web-2".to_owned(), text("-90"), text("-90"))
        ]
    );
    objects.apply(pod("web-1", json!({})));
    objects.remove(Kind::Pod, "shop", "web-2");
    assert_eq!(said(&objects), []);
}
