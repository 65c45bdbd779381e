//! What the scheduler will see: the cluster's objects once what the plan counts on has happened.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;
use smartscale_planner::Policy;

use crate::cluster::now;

/// Kinds that the scheduler's filters read.
const KINDS: [&str; 9] = [
    "Node",
    "Pod",
    "DaemonSet",
    "Namespace",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "StorageClass",
    "CSINode",
    "CSIDriver",
];

/// The object as the scheduler will see it by the time the plan counts on: taints of a start are gone where the
/// contract of `plan` counts on it, and so are pods whose grace is long over.
pub(crate) fn seen_by_scheduler(object: &Value, policy: &Policy) -> Option<Value> {
    let kind = object["kind"].as_str().unwrap_or_default();
    if !KINDS.contains(&kind) {
        return None;
    }
    let time = |path: &str| {
        object["metadata"][path]
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok())
    };
    let age = |path: &str| time(path).map(|at| now().duration_since(at).as_secs());
    if kind == "Pod" && age("deletionTimestamp").is_some_and(|over| over > 30) {
        return None;
    }
    let mut object = object.clone();
    if kind == "Node" && age("creationTimestamp").is_some_and(|age| age < 300) {
        let ready = object["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|c| c["type"] == "Ready" && c["status"] == "True");
        let pool = object["metadata"]["labels"]["smartscale.io/pool"]
            .as_str()
            .and_then(|name| policy.pool(name));
        let control_plane = object["metadata"]["labels"]
            .get("node-role.kubernetes.io/control-plane")
            .is_some();
        if let Some(taints) = object["spec"]["taints"].as_array_mut() {
            taints.retain(|taint| {
                let key = taint["key"].as_str().unwrap_or_default();
                let of_start = [
                    "node.kubernetes.io/not-ready",
                    "node.kubernetes.io/unreachable",
                    "node.cloudprovider.kubernetes.io/uninitialized",
                ];
                let of_pool = !control_plane
                    && pool.is_some_and(|pool| pool.startup_taints.iter().any(|k| **k == *key));
                (ready || !of_start.contains(&key)) && !of_pool
            });
        }
    }
    Some(object)
}

/// What nodes to come can attach: as little as an existing node of their type. It stands in objects that come with them.
pub(crate) fn attach_limits<'a>(existing: &[Value], coming: impl Iterator<Item = &'a Value>) -> Vec<Value> {
    let kind = |kind: &'static str| existing.iter().filter(move |object| object["kind"] == kind);
    let instance_type = |node: &Value| node["metadata"]["labels"]["node.kubernetes.io/instance-type"].clone();
    let least = |of: &Value| {
        let limits = kind("CSINode").filter(|csi| {
            let node = kind("Node").find(|node| node["metadata"]["name"] == csi["metadata"]["name"]);
            node.is_some_and(|node| instance_type(node) == *of)
        });
        limits
            .min_by_key(|csi| csi["spec"]["drivers"][0]["allocatable"]["count"].as_i64())
            .cloned()
    };
    let mut all = BTreeMap::new();
    for node in coming {
        if let Some(mut limits) = least(&instance_type(node)) {
            limits["metadata"]["name"] = node["metadata"]["name"].clone();
            all.insert(limits["metadata"]["name"].to_string(), limits);
        }
    }
    all.into_values().collect()
}
