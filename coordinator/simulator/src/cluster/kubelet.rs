//! What happens on and to nodes by itself: kubelets start pods and end them, say that they are alive, and the node lifecycle
//! controller draws its conclusions when they do not.

use std::time::Duration;

use jiff::Timestamp;
use smartscale_planner::model::{Node, NodeName, Phase, PodKey, Taint, TaintEffect};

use super::{State, signed};
use crate::log::{Log, Source};

/// `--node-monitor-grace-period`: silent for longer is NotReady.
const MONITOR_GRACE: Duration = Duration::from_secs(40);
/// Pods of a node that exists no more are collected after this (`--terminated-pod-gc` and its quarantine).
const ORPHANED: Duration = Duration::from_secs(40);

/// The taint of a node that is not Ready yet.
const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The taint of a node whose kubelet is silent.
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

pub(super) fn step(state: &mut State, now: Timestamp, log: &Log) {
    nodes(state, now, log);
    pods(state, now, log);
}

fn nodes(state: &mut State, now: Timestamp, log: &Log) {
    let mut changed = false;
    for entry in state.nodes.values_mut() {
        if entry.kubelet {
            entry.heartbeat = now;
        }
        let silent = now.duration_since(entry.heartbeat) > signed(MONITOR_GRACE);
        let ready = !silent && now >= entry.ready_from;
        if ready != entry.node.ready {
            entry.node.ready = ready;
            let (kind, message) = if ready {
                ("node_ready", "node is Ready")
            } else {
                ("node_not_ready", "node is not Ready")
            };
            log.write(Source::Cluster, kind, entry.node.name.as_str(), message);
            changed = true;
        }
        let wanted = if ready {
            None
        } else {
            Some(if silent { UNREACHABLE } else { NOT_READY })
        };
        changed |= condition_taint(&mut entry.node, wanted);
    }
    if changed {
        state.touch();
    }
}

/// Gives a node the taint of its condition and takes the other away. Whether that changed something.
fn condition_taint(node: &mut Node, wanted: Option<&str>) -> bool {
    let ours = |taint: &Taint| matches!(&*taint.key, NOT_READY | UNREACHABLE);
    let present = node
        .taints
        .iter()
        .find(|taint| ours(taint))
        .map(|taint| taint.key.clone());
    if present.as_deref() == wanted {
        return false;
    }
    node.taints.retain(|taint| !ours(taint));
    if let Some(key) = wanted {
        node.taints.push(Taint {
            key: key.into(),
            value: "".into(),
            effect: TaintEffect::NoSchedule,
        });
    }
    true
}

fn pods(state: &mut State, now: Timestamp, log: &Log) {
    let alive = |state: &State, node: &NodeName| state.nodes.get(node).map(|entry| entry.kubelet);
    let mut gone: Vec<PodKey> = Vec::new();
    let keys: Vec<PodKey> = state.pods.keys().cloned().collect();
    for key in keys {
        let Some(node) = state.pods.get(&key).and_then(|entry| entry.pod.node.clone()) else {
            continue;
        };
        match alive(state, &node) {
            None => {
                let since = *state.deleted_nodes.entry(node).or_insert(now);
                if now.duration_since(since) >= signed(ORPHANED) {
                    gone.push(key);
                }
            }
            Some(false) => {}
            Some(true) => {
                let Some(entry) = state.pods.get_mut(&key) else {
                    continue;
                };
                if entry.gone_at.is_some_and(|at| now >= at) {
                    gone.push(key);
                } else if !entry.pod.ready
                    && !entry.pod.is_terminating()
                    && entry.ready_at.is_some_and(|at| now >= at)
                {
                    (entry.pod.ready, entry.pod.phase, entry.pod.started) = (true, Phase::Running, Some(now));
                    state.touch();
                }
            }
        }
    }
    for key in gone {
        if let Some(entry) = state.pods.remove(&key) {
            let node = entry.pod.node.as_ref().map(NodeName::as_str).unwrap_or_default();
            if !entry.pod.is_owned_by("DaemonSet") {
                log.write(
                    Source::Cluster,
                    "pod_gone",
                    key.to_string(),
                    format!("pod left {node}"),
                );
            }
            state.touch();
        }
    }
    let State {
        pods, deleted_nodes, ..
    } = state;
    deleted_nodes.retain(|node, _| pods.values().any(|entry| entry.pod.node.as_ref() == Some(node)));
}
