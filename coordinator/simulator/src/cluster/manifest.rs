//! The objects as a Kubernetes API server would print them: what the coordinator's view of the cluster is read from, by the
//! same code that reads a real one.

use serde_json::{Map, Value, json};
use smartscale_planner::model::{DaemonSet, Labels, Node, Pod, Resources, Toleration, TolerationOperator};

use super::{Bound, Budget, Deployment, PodEntry, State};

/// Every object of the cluster.
pub(super) fn objects(state: &State) -> Vec<Value> {
    let mut objects = vec![];
    objects.extend(namespaces(state));
    objects.extend(state.nodes.values().map(|entry| node(&entry.node)));
    objects.extend(state.pods.values().map(pod));
    objects.extend(state.budgets.values().map(budget));
    objects.extend(state.daemon_sets.values().map(daemon_set));
    objects.extend(state.deployments.values().map(replica_set));
    objects
}

fn namespaces(state: &State) -> Vec<Value> {
    let mut names: Vec<_> = state
        .pods
        .keys()
        .map(|key| key.namespace.clone())
        .chain(
            state
                .deployments
                .keys()
                .chain(state.daemon_sets.keys())
                .map(|key| key.0.clone()),
        )
        .collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .map(|name| {
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": name.as_str(), "labels": { "kubernetes.io/metadata.name": name.as_str() } },
            })
        })
        .collect()
}

fn labels(labels: &Labels) -> Value {
    labels
        .iter()
        .map(|(key, value)| (key.to_string(), Value::from(&**value)))
        .collect::<Map<_, _>>()
        .into()
}

fn quantities(resources: &Resources, with_pods: bool) -> Value {
    let mut map = Map::new();
    map.insert("cpu".into(), format!("{}m", resources.cpu.0).into());
    map.insert("memory".into(), resources.memory.0.to_string().into());
    if resources.ephemeral_storage.0 > 0 {
        map.insert(
            "ephemeral-storage".into(),
            resources.ephemeral_storage.0.to_string().into(),
        );
    }
    if with_pods {
        map.insert("pods".into(), resources.pods.to_string().into());
    }
    for (name, amount) in &resources.extended {
        map.insert(name.to_string(), amount.to_string().into());
    }
    map.into()
}

fn node(node: &Node) -> Value {
    let taints: Vec<_> = node
        .taints
        .iter()
        .map(|taint| json!({ "key": &*taint.key, "value": &*taint.value, "effect": taint.effect }))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": node.name.as_str(), "uid": format!("node-{}", node.name), "labels": labels(&node.labels),
            "annotations": labels(&node.annotations),
            "creationTimestamp": node.created.map(|at| at.to_string()),
        },
        "spec": {
            "providerID": node.provider_id.as_deref(), "taints": taints, "unschedulable": node.unschedulable,
        },
        "status": {
            "allocatable": quantities(&node.allocatable, true), "capacity": quantities(&node.capacity, true),
            "conditions": [{ "type": "Ready", "status": if node.ready { "True" } else { "False" } }],
        },
    })
}

fn tolerations(pod: &Pod) -> Vec<Value> {
    pod.tolerations.iter().map(toleration).collect()
}

fn toleration(toleration: &Toleration) -> Value {
    let mut map = Map::new();
    if let Some(key) = &toleration.key {
        map.insert("key".into(), (&**key).into());
    }
    let operator = match toleration.operator {
        TolerationOperator::Equal => "Equal",
        TolerationOperator::Exists => "Exists",
        TolerationOperator::Lt => "Lt",
        TolerationOperator::Gt => "Gt",
    };
    map.insert("operator".into(), operator.into());
    if !toleration.value.is_empty() {
        map.insert("value".into(), (&*toleration.value).into());
    }
    if let Some(effect) = toleration.effect {
        map.insert("effect".into(), json!(effect));
    }
    map.into()
}

fn pod_spec(pod: &Pod) -> Map<String, Value> {
    let mut spec = Map::new();
    spec.insert(
        "containers".into(),
        json!([{ "name": "main", "resources": { "requests": quantities(&pod.requests, false) } }]),
    );
    spec.insert("schedulerName".into(), (&*pod.scheduler).into());
    spec.insert("priority".into(), pod.priority.into());
    if !pod.tolerations.is_empty() {
        spec.insert("tolerations".into(), tolerations(pod).into());
    }
    if !pod.node_selector.is_empty() {
        spec.insert("nodeSelector".into(), labels(&pod.node_selector));
    }
    spec
}

fn pod(entry: &PodEntry) -> Value {
    let pod = &entry.pod;
    let mut spec = pod_spec(pod);
    spec.insert(
        "terminationGracePeriodSeconds".into(),
        entry.grace.as_secs().into(),
    );
    if let Some(node) = &pod.node {
        spec.insert("nodeName".into(), node.as_str().into());
    }
    let owners: Vec<_> = pod
        .controller
        .iter()
        .map(|owner| {
            json!({
                "apiVersion": "apps/v1", "kind": &*owner.kind, "name": &*owner.name,
                "uid": format!("{}-{}", owner.kind, owner.name), "controller": true,
            })
        })
        .collect();
    let mut metadata = Map::new();
    metadata.insert("namespace".into(), pod.key.namespace.as_str().into());
    metadata.insert("name".into(), (&*pod.key.name).into());
    metadata.insert("uid".into(), (&*pod.uid).into());
    metadata.insert("labels".into(), labels(&pod.labels));
    metadata.insert("annotations".into(), labels(&pod.annotations));
    metadata.insert("ownerReferences".into(), owners.into());
    if let Some(created) = pod.created {
        metadata.insert("creationTimestamp".into(), created.to_string().into());
    }
    if let Some(deletion) = &pod.deletion {
        metadata.insert("deletionTimestamp".into(), deletion.at.to_string().into());
        metadata.insert("deletionGracePeriodSeconds".into(), entry.grace.as_secs().into());
    }
    let mut status = Map::new();
    status.insert("phase".into(), format!("{:?}", pod.phase).into());
    status.insert(
        "conditions".into(),
        json!([{ "type": "Ready", "status": if pod.ready { "True" } else { "False" } }]),
    );
    if let Some(started) = pod.started {
        status.insert("startTime".into(), started.to_string().into());
    }
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status })
}

fn budget(budget: &Budget) -> Value {
    let (allowed, healthy, desired, expected) = budget.status();
    let bound = match budget.bound {
        Bound::MinAvailable(count) => ("minAvailable", json!(count)),
        Bound::MaxUnavailable(count) => ("maxUnavailable", json!(count)),
        Bound::MinAvailablePercent(share) => ("minAvailable", json!(format!("{share}%"))),
        Bound::MaxUnavailablePercent(share) => ("maxUnavailable", json!(format!("{share}%"))),
    };
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": { "namespace": budget.namespace.as_str(), "name": &*budget.name, "generation": 1 },
        "spec": { "selector": { "matchLabels": labels(&budget.selector.match_labels) }, bound.0: bound.1 },
        "status": {
            "observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": healthy,
            "desiredHealthy": desired, "expectedPods": expected,
        },
    })
}

fn daemon_set(set: &DaemonSet) -> Value {
    let template = &set.template;
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": { "namespace": set.namespace.as_str(), "name": &*set.name },
        "spec": {
            "selector": { "matchLabels": labels(&template.labels) },
            "template": { "metadata": { "labels": labels(&template.labels) }, "spec": pod_spec(template) },
        },
    })
}

fn replica_set(deployment: &Deployment) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": { "namespace": deployment.namespace.as_str(), "name": &*deployment.replica_set() },
        "spec": { "replicas": deployment.replicas },
    })
}
