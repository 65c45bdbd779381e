//! The node: K3s' unit, the kubelet and the runtime, and what the kubelet's credential may do, which a drain works with.

use smartscale_proto::check::Finding;

use super::failed;
use crate::{agent::Parts, kubelet::KubeletApi};

const AREA: &str = "node";
const JOINED_NOT: &str = "this machine has not joined yet";

/// Asks systemd, the kubelet, the runtime and the API server. `node`: as which it joined.
pub(super) async fn findings(parts: &Parts, node: Option<&str>) -> Vec<Finding> {
    let unit = &parts.config.k3s.unit;
    let tried = format!("asked systemd for {unit}");
    let state = match parts.units.active_state(unit).await {
        Ok(state) => state,
        Err(failure) => {
            let remedy = "look at k3s.systemctl and k3s.unit of the agent's configuration";
            return vec![failed(AREA, &tried, &failure, remedy)];
        }
    };
    let Some(node) = node.filter(|_| state == "active") else {
        return vec![Finding::skipped(AREA, tried, format!("{state}: {JOINED_NOT}"))];
    };
    let mut findings = vec![Finding::passed(AREA, tried, state)];
    let healthy = |tried: String, healthy: Option<bool>| match healthy {
        Some(true) => Finding::passed(AREA, tried, "healthy"),
        Some(false) => Finding::failed(AREA, tried, "not healthy", format!("journalctl -u {unit}")),
        None => Finding::failed(
            AREA,
            tried,
            "no answer",
            "look at k3s.healthz and k3s.runtime_socket of the agent's configuration",
        ),
    };
    let k3s = &parts.config.k3s;
    findings.push(healthy(
        format!("asked the kubelet at {}", k3s.healthz),
        parts.vitals.kubelet_healthy().await,
    ));
    findings.push(healthy(
        format!("connected to the runtime at {}", k3s.runtime_socket.display()),
        parts.vitals.runtime_healthy().await,
    ));
    findings.extend(rights(&*parts.kubelet, node).await);
    findings
}

/// What a drain reads. Cordon and eviction come with the same credential (Node authorizer), and are not tried.
async fn rights(api: &dyn KubeletApi, node: &str) -> [Finding; 2] {
    let remedy = "look at k3s.kubeconfig of the agent's configuration, and whether the node's certificate is good (k3s certificate check)";
    let tried = format!("read Node {node} with the kubelet's credential");
    let own = match api.node(node).await {
        Ok(own) if own.ready => Finding::passed(AREA, tried, "it is Ready"),
        Ok(_) => Finding::warning(
            AREA,
            tried,
            "it is not Ready",
            format!("kubectl describe node {node}"),
        ),
        Err(refusal) => Finding::failed(AREA, tried, refusal.to_string(), remedy),
    };
    let tried = "listed the node's pods with the kubelet's credential";
    let pods = match api.phases(node).await {
        Ok(phases) => Finding::passed(AREA, tried, format!("{} of them", phases.len())),
        Err(refusal) => Finding::failed(AREA, tried, refusal.to_string(), remedy),
    };
    [own, pods]
}
