//! Checking: everything that this machine needs to join, to stay and to be drained is tried, and nothing is changed.
//!
//! ```text
//!   kernel ─ machine ─▶ join (secrets, K3s server, clock) ─ coordinators ─ certificate ─ node (kubelet, runtime, unit)
//! ```
//! What the agent works with is asked through the same traits. Before the machine is enrolled, or has joined, what comes after is
//! left out, and says so.

pub mod asked;
mod certificate;
mod coordinators;
mod join;
mod kernel;
mod machine;
mod node;

use futures_util::future::join3;
use smartscale_proto::{
    check::{Finding, Report},
    tls::{Credential, Rotating, client::Dialer},
};

use self::coordinators::Doors;
use crate::{
    agent::Parts,
    enrol,
    error::{Failure, Known},
};

/// Tries everything that `parts` are made of.
pub async fn report(parts: &Parts) -> Report {
    // Whom the last coordinator said to trust, as the agent does; nothing is shown that is this machine's own.
    let material = Rotating::new(Credential {
        chain: Vec::new(),
        key: None,
        anchors: enrol::stored_anchors(&*parts.folder).unwrap_or_else(|| parts.config.anchors.clone()),
    });
    report_by(parts, &Dialer::new(material, parts.config.expected.clone())).await
}

async fn report_by(parts: &Parts, doors: &dyn Doors) -> Report {
    let config = &parts.config;
    let enrolled = enrol::stored(&*parts.folder);
    let mut findings = parts.vitals.proc().map(kernel::findings).unwrap_or_default();
    let (machine, found) = machine::finding(&*parts.machine).await;
    findings.push(found);
    // At once: where much is silent, the times to wait do not add up.
    let (join, coordinators, node) = join3(
        join::findings(&config.secrets, &*parts.secrets, &*parts.server, machine.as_ref()),
        coordinators::findings(&config.coordinators, doors, &*parts.clock),
        node::findings(parts, enrolled.as_ref().map(|enrolled| &*enrolled.node)),
    )
    .await;
    findings.extend(join);
    findings.extend(coordinators);
    findings.push(certificate::finding(
        enrolled.as_ref(),
        machine.as_ref(),
        parts.clock.now(),
    ));
    findings.extend(node);
    let name = machine.map_or_else(
        || "of an unknown machine".to_owned(),
        |machine| machine.id.to_string(),
    );
    Report {
        program: format!("agent {name}"),
        version: crate::VERSION.to_owned(),
        findings,
    }
}

/// What failed, with what the agent knows to be done about it.
fn failed(area: &str, tried: &str, failure: &Failure, otherwise: &'static str) -> Finding {
    let remedy = failure.known().map_or(otherwise, Known::remedy);
    Finding::failed(area, tried, failure.to_string(), remedy)
}

#[cfg(test)]
mod tests;
