//! The filters that ask for one host alone.

use super::Host;
use crate::{
    PendingCode,
    model::{Labels, Pod, Taint, TaintEffect},
};

/// `NodeAffinity`: node selector and required node affinity.
pub(super) fn node_selector(pod: &Pod, host: &Host<'_>) -> Result<(), PendingCode> {
    if selects(pod, &host.name, &host.labels) {
        Ok(())
    } else {
        Err(PendingCode::NodeSelector)
    }
}

pub(super) fn selects(pod: &Pod, name: &str, labels: &Labels) -> bool {
    pod.node_selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && pod.node_affinity.matches(name, labels)
}

/// `TaintToleration`: taints that keep pods away.
pub(super) fn taints(pod: &Pod, host: &Host<'_>) -> Result<(), PendingCode> {
    if bears(pod, &host.taints) {
        Ok(())
    } else {
        Err(PendingCode::Taints)
    }
}

pub(super) fn bears(pod: &Pod, taints: &[Taint]) -> bool {
    taints
        .iter()
        .filter(|taint| taint.effect != TaintEffect::PreferNoSchedule)
        .all(|taint| {
            pod.tolerations
                .iter()
                .any(|toleration| toleration.tolerates(taint))
        })
}

/// `NodeResourcesFit`.
pub(super) fn resources(pod: &Pod, host: &Host<'_>) -> Result<(), PendingCode> {
    if host.allocatable.fits(&host.used, &pod.requests).is_err()
        || host
            .allocatable
            .short_extended(&host.used, &pod.requests)
            .is_some()
    {
        return Err(PendingCode::NoInstanceTypeFits);
    }
    Ok(())
}

/// `NodePorts`.
pub(super) fn host_ports(pod: &Pod, host: &Host<'_>) -> Result<(), PendingCode> {
    if pod.host_ports.is_empty() {
        return Ok(());
    }
    let taken = host.pods.iter().flat_map(|other| &other.host_ports);
    for port in taken {
        if pod.host_ports.iter().any(|own| own.conflicts(port)) {
            return Err(PendingCode::HostPort);
        }
    }
    Ok(())
}
