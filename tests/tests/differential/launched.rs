//! Launched nodes, as they will register.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use smartscale_planner::{
    model::{Market, Zone},
    policy::{Pool, TypeSpec},
};

/// A launched node as it will register, by FORMATS §1.
pub(crate) fn new_node(name: &str, pool: &Pool, spec: &TypeSpec, zone: &Zone, market: Market) -> Value {
    let room = pool.allocatable(spec);
    let mut labels: BTreeMap<String, String> = pool
        .labels
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect();
    for (key, value) in [
        ("smartscale.io/pool", pool.name.as_str()),
        ("smartscale.io/market", market.as_str()),
        ("node.kubernetes.io/instance-type", spec.name.as_str()),
        ("topology.kubernetes.io/zone", zone.as_str()),
        ("topology.kubernetes.io/region", "us-east-1"),
        ("kubernetes.io/arch", &spec.arch),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/hostname", name),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    let mut allocatable = json!({
        "cpu": format!("{}m", room.cpu.0), "memory": room.memory.0.to_string(), "pods": room.pods.to_string(),
        "ephemeral-storage": room.ephemeral_storage.0.to_string(),
    });
    for (resource, amount) in &room.extended {
        allocatable[&**resource] = amount.to_string().into();
    }
    let taints: Vec<_> = pool
        .taints
        .iter()
        .map(|taint| json!({ "key": &*taint.key, "value": &*taint.value, "effect": taint.effect }))
        .collect();
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels },
            "spec": { "taints": taints }, "status": { "allocatable": allocatable, "capacity": allocatable } })
}
