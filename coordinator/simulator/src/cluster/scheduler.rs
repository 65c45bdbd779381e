//! The scheduler: which node a pending pod is bound to. Filters are the planner's own rules (taints, selectors, room);
//! among nodes that pass, the least allocated one wins (kube-scheduler's default score), then the first by name.

use std::collections::BTreeMap;

use jiff::Timestamp;
use smartscale_planner::model::{Node, NodeName, Pod, PodKey, Resources, TaintEffect};

use super::{State, signed};
use crate::log::{Log, Source};

pub(super) fn step(state: &mut State, now: Timestamp, log: &Log) {
    // By priority, then age, as the scheduler's queue.
    let mut pending: Vec<(i32, Option<Timestamp>, PodKey)> = state
        .pods
        .values()
        .filter(|entry| entry.pod.wants_place())
        .map(|entry| (-entry.pod.priority, entry.pod.created, entry.pod.key.clone()))
        .collect();
    if pending.is_empty() {
        return;
    }
    pending.sort();
    let mut used = used(state);
    for (_, _, key) in pending {
        let Some(entry) = state.pods.get(&key) else {
            continue;
        };
        let Some(node) = choose(state, &used, &entry.pod) else {
            continue;
        };
        used.entry(node.clone()).or_default().add(&entry.pod.requests);
        log.write(
            Source::Cluster,
            "pod_placed",
            key.to_string(),
            format!("pod placed on {node}"),
        );
        if let Some(entry) = state.pods.get_mut(&key) {
            entry.pod.node = Some(node);
            entry.ready_at = Some(now + signed(entry.start));
        }
        state.touch();
    }
}

/// What the pods of each node request, terminating ones included.
fn used(state: &State) -> BTreeMap<NodeName, Resources> {
    let mut used: BTreeMap<NodeName, Resources> = BTreeMap::new();
    for entry in state.pods.values() {
        if let Some(node) = &entry.pod.node
            && !entry.pod.is_finished()
        {
            used.entry(node.clone()).or_default().add(&entry.pod.requests);
        }
    }
    used
}

fn choose(state: &State, used: &BTreeMap<NodeName, Resources>, pod: &Pod) -> Option<NodeName> {
    let nothing = Resources::default();
    let mut best: Option<(f64, &NodeName)> = None;
    for entry in state.nodes.values() {
        let node = &entry.node;
        let used = used.get(&node.name).unwrap_or(&nothing);
        if !tolerated(pod, node, false)
            || !selected(pod, node)
            || node.allocatable.fits(used, &pod.requests).is_err()
        {
            continue;
        }
        let share = |used: f64, all: f64| if all > 0.0 { used / all } else { 1.0 };
        let allocated = (share(
            (used.cpu + pod.requests.cpu).as_f64(),
            node.allocatable.cpu.as_f64(),
        ) + share(
            (used.memory + pod.requests.memory).as_f64(),
            node.allocatable.memory.as_f64(),
        )) / 2.0;
        if best.is_none_or(|(least, _)| allocated < least - 1e-9) {
            best = Some((allocated, &node.name));
        }
    }
    best.map(|(_, name)| name.clone())
}

/// Whether a DaemonSet puts its pod on this node: the controller adds tolerations for every condition of a node
/// (<https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#taints-and-tolerations>).
pub(super) fn daemon_belongs(template: &Pod, node: &Node) -> bool {
    tolerated(template, node, true) && selected(template, node)
}

fn tolerated(pod: &Pod, node: &Node, daemon: bool) -> bool {
    if node.unschedulable && !daemon {
        return false;
    }
    node.taints
        .iter()
        .filter(|taint| taint.effect != TaintEffect::PreferNoSchedule)
        .all(|taint| {
            daemon && taint.key.starts_with("node.kubernetes.io/")
                || pod
                    .tolerations
                    .iter()
                    .any(|toleration| toleration.tolerates(taint))
        })
}

fn selected(pod: &Pod, node: &Node) -> bool {
    pod.node_selector
        .iter()
        .all(|(key, value)| node.labels.get(key) == Some(value))
        && pod.node_affinity.matches(node.name.as_str(), &node.labels)
}
