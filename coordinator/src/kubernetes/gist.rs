//! What of a node bears on a decision, as a number: a heartbeat every few seconds is no reason to decide anew.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value;

/// What of a node bears on a decision: not its heartbeats, images or addresses.
pub(super) fn gist(node: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in [
        "/metadata/uid",
        "/metadata/labels",
        "/metadata/deletionTimestamp",
        "/spec/unschedulable",
        "/spec/taints",
        "/status/allocatable",
    ] {
        node.pointer(path).map(Value::to_string).hash(&mut hasher);
    }
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.get("type").and_then(Value::as_str) == Some("Ready"))
        .and_then(|condition| condition.get("status"))
        .and_then(Value::as_str);
    ready.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn heartbeats_of_a_node_do_not_bear_on_decisions() {
        let node = |heartbeat: &str, ready: &str| {
            json!({
                "metadata": { "name": "i-1", "resourceVersion": heartbeat },
                "status": { "conditions": [ { "type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat } ] },
            })
        };
        assert_eq!(gist(&node("1", "True")), gist(&node("2", "True")));
        assert_ne!(gist(&node("1", "True")), gist(&node("1", "False")));
    }
}
