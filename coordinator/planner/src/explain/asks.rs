//! What a pod asks for, in words.

use std::collections::BTreeMap;

use super::{
    cause::{node_requirement, selector, short_key},
    words,
};
use crate::model::{
    Bytes, MilliCpu, NodeTerm, Pod, PodAffinityTerm, SpreadConstraint, Toleration, TolerationOperator,
    UnsatisfiableAction, VolumeSource,
};

/// Its requests by resource, in Kubernetes' notation.
pub(super) fn requests(pod: &Pod) -> BTreeMap<String, String> {
    let asks = &pod.requests;
    let mut requests: BTreeMap<String, String> = [("cpu".to_owned(), asks.cpu.to_string())].into();
    requests.insert("memory".to_owned(), asks.memory.to_string());
    if asks.cpu == MilliCpu::ZERO {
        requests.remove("cpu");
    }
    if asks.memory == Bytes::ZERO {
        requests.remove("memory");
    }
    if asks.ephemeral_storage > Bytes::ZERO {
        requests.insert("ephemeral-storage".to_owned(), asks.ephemeral_storage.to_string());
    }
    let extended = asks.extended.iter().filter(|(_, amount)| **amount > 0);
    requests.extend(extended.map(|(name, amount)| (name.to_string(), amount.to_string())));
    requests
}

/// Its constraints, a sentence each, in the order in which they are asked.
pub(super) fn constraints(pod: &Pod) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    if !pod.node_selector.is_empty() {
        let labels: Vec<String> = pod
            .node_selector
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        all.push(format!("node selector {}", labels.join(",")));
    }
    if let Some(required) = &pod.node_affinity.required {
        let required: Vec<String> = required.iter().map(term).collect();
        all.push(if required.is_empty() {
            "node affinity without any term".to_owned()
        } else {
            format!("node affinity {}", required.join(", or "))
        });
    }
    for preferred in &pod.node_affinity.preferred {
        all.push(format!(
            "rather on {} (weight {})",
            term(&preferred.item),
            preferred.weight
        ));
    }
    let tolerations = pod.tolerations.iter().filter(|t| !is_of_everybody(t));
    let tolerations: Vec<String> = tolerations.map(toleration).collect();
    if !tolerations.is_empty() {
        all.push(format!("tolerates {}", words::and(&tolerations)));
    }
    for volume in &pod.volumes {
        match &volume.source {
            VolumeSource::Claim(claim) | VolumeSource::OwnClaim { name: claim, .. } => {
                all.push(format!("volume {} of claim {claim}", volume.name));
            }
            _ => {}
        }
    }
    let ports: Vec<String> = pod.host_ports.iter().map(words::port).collect();
    if !ports.is_empty() {
        all.push(format!("host ports {}", words::and(&ports)));
    }
    all.extend(pod.pod_affinity.iter().map(|term| format!("near {}", near(term))));
    all.extend(
        pod.pod_anti_affinity
            .iter()
            .map(|term| format!("apart from {}", near(term))),
    );
    for preferred in &pod.preferred_pod_affinity {
        let what = if preferred.weight < 0 {
            "rather apart from"
        } else {
            "rather near"
        };
        all.push(format!(
            "{what} {} (weight {})",
            near(&preferred.item),
            preferred.weight.abs()
        ));
    }
    all.extend(pod.spread.iter().map(spread));
    all
}

/// A term of node affinity.
pub(super) fn term(term: &NodeTerm) -> String {
    let requirements = term.expressions.iter().chain(&term.fields);
    let parts: Vec<String> = requirements.map(node_requirement).collect();
    parts.join(" and ")
}

fn near(term: &PodAffinityTerm) -> String {
    let key = short_key(&term.topology_key);
    format!("pods {} by {key}", selector(term.selector.as_ref()))
}

fn spread(spread: &SpreadConstraint) -> String {
    let soft = match spread.when_unsatisfiable {
        UnsatisfiableAction::DoNotSchedule => "",
        UnsatisfiableAction::ScheduleAnyway => "rather ",
    };
    let domains = spread
        .min_domains
        .map_or_else(String::new, |min| format!(", at least {min} domains"));
    format!(
        "{soft}spread of pods {} by {}, max skew {}{domains}",
        selector(spread.selector.as_ref()),
        short_key(&spread.topology_key),
        spread.max_skew
    )
}

/// Those that the API server gives every pod.
fn is_of_everybody(toleration: &Toleration) -> bool {
    let key = toleration.key.as_deref();
    matches!(
        key,
        Some("node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable")
    )
}

fn toleration(toleration: &Toleration) -> String {
    let effect = toleration
        .effect
        .map_or_else(String::new, |effect| format!(":{effect:?}"));
    match (&toleration.key, toleration.operator) {
        (None, _) => format!("every taint{effect}"),
        (Some(key), TolerationOperator::Exists) => format!("{key}{effect}"),
        (Some(key), _) => format!("{key}={}{effect}", toleration.value),
    }
}
