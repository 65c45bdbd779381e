//! The filters again, talkatively: what exactly the first one that refuses has against a host.
//!
//! Whether and by which filter a pod is refused is asked of the filters themselves; only the figures are gathered here.

use super::{Host, World, affinity, filters};
use crate::{
    PendingCode,
    explain::cause::{self, Cause, Refusal},
    model::{Bytes, MilliCpu, NodeTerm, Pod, TaintEffect, keys},
};

impl<'a> World<'a> {
    /// Why the host does not take the pod; `None` if it does.
    pub(crate) fn refusal(&self, pod: &Pod, host: &Host<'_>) -> Option<Refusal> {
        let code = self.check(pod, host).err()?;
        let shape = self.classes.shape(pod);
        let causes = match code {
            PendingCode::NodeSelector => selector(pod, host),
            PendingCode::Taints => taints(pod, host),
            PendingCode::Volume => self
                .volumes
                .causes(self.cluster, shape, pod, host, &self.hosts, |pod| {
                    self.classes.shape(pod)
                }),
            PendingCode::NoInstanceTypeFits => short(pod, host),
            PendingCode::HostPort => ports(pod, host),
            _ => {
                let near = affinity::reasons::Near {
                    cluster: self.cluster,
                    hosts: &self.hosts,
                };
                self.counts.causes(shape, pod, host, &near)
            }
        };
        Some(Refusal { code, causes })
    }

    /// As [`World::refusal`], for a host that is not in the world: what it would bring along counts too.
    pub(crate) fn refusal_thought_of(&mut self, pod: &Pod, host: &Host<'a>) -> Option<Refusal> {
        self.check_thought_of(pod, host).err()?;
        if let Some(refusal) = self.refusal(pod, host) {
            return Some(refusal);
        }
        let index = self.push(host.clone());
        let refusal = self.refusal(pod, &self.hosts[index]);
        self.truncate(index);
        refusal
    }
}

fn selector(pod: &Pod, host: &Host<'_>) -> Vec<Cause> {
    let mut causes: Vec<Cause> = pod
        .node_selector
        .iter()
        .filter(|(key, value)| host.labels.get(*key) != Some(value))
        .map(|(key, value)| Cause::Selector {
            asks: format!("{key}={value}"),
            has: host.labels.get(key).map(ToString::to_string),
        })
        .collect();
    if let Some(terms) = &pod.node_affinity.required
        && !pod.node_affinity.matches(&host.name, &host.labels)
    {
        // Of several terms the one that lacks least: any of them would do.
        let best = terms.iter().map(|term| unmet(term, host)).min_by_key(Vec::len);
        match best {
            Some(unmet) if !unmet.is_empty() => causes.extend(unmet),
            _ => causes.push(Cause::NoTerm),
        }
    }
    causes
}

fn unmet(term: &NodeTerm, host: &Host<'_>) -> Vec<Cause> {
    let labels = term
        .expressions
        .iter()
        .map(|wanted| (wanted, host.labels.get(&wanted.key).map(AsRef::as_ref)));
    let name: &str = &host.name;
    let fields = term
        .fields
        .iter()
        .map(|wanted| (wanted, (&*wanted.key == "metadata.name").then_some(name)));
    labels
        .chain(fields)
        .filter(|(wanted, has)| !wanted.matches(*has))
        .map(|(wanted, has)| Cause::Selector {
            asks: cause::node_requirement(wanted),
            has: has.map(ToOwned::to_owned),
        })
        .collect()
}

fn taints(pod: &Pod, host: &Host<'_>) -> Vec<Cause> {
    host.taints
        .iter()
        .filter(|taint| taint.effect != TaintEffect::PreferNoSchedule)
        .filter(|taint| !filters::bears(pod, std::slice::from_ref(taint)))
        .map(|taint| Cause::Taint {
            taint: cause::taint(taint),
        })
        .collect()
}

/// As `Resources::fits` compares, but all that is short.
fn short(pod: &Pod, host: &Host<'_>) -> Vec<Cause> {
    let (asks, used, have) = (&pod.requests, &host.used, &host.allocatable);
    let mut causes = Vec::new();
    if asks.cpu > MilliCpu::ZERO && used.cpu + asks.cpu > have.cpu {
        causes.push(Cause::short_cpu(asks.cpu, used.cpu, have.cpu));
    }
    if asks.memory > Bytes::ZERO && used.memory + asks.memory > have.memory {
        causes.push(Cause::short_bytes(
            "memory",
            asks.memory,
            used.memory,
            have.memory,
        ));
    }
    let disk = (
        asks.ephemeral_storage,
        used.ephemeral_storage,
        have.ephemeral_storage,
    );
    if disk.0 > Bytes::ZERO && disk.1 + disk.0 > disk.2 {
        causes.push(Cause::short_bytes("ephemeral-storage", disk.0, disk.1, disk.2));
    }
    if used.pods.saturating_add(asks.pods) > have.pods {
        causes.push(Cause::short_units("pods", asks.pods, used.pods, have.pods));
    }
    for (name, amount) in asks.extended.iter().filter(|(_, amount)| **amount > 0) {
        let have = have.extended.get(name).copied().unwrap_or(0);
        let used = used.extended.get(name).copied().unwrap_or(0);
        if used.saturating_add(*amount) > have {
            causes.push(Cause::short_units(name, *amount, used, have));
        }
    }
    causes
}

fn ports(pod: &Pod, host: &Host<'_>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for own in &pod.host_ports {
        let taker = host
            .pods
            .iter()
            .find(|other| other.host_ports.iter().any(|port| own.conflicts(port)));
        if let Some(taker) = taker {
            causes.push(Cause::HostPort {
                port: crate::explain::port(own),
                pod: taker.key.clone(),
            });
        }
    }
    causes
}

/// The value of a topology key on a host.
pub(super) fn domain(host: &Host<'_>, key: &str) -> String {
    match host.labels.get(key) {
        // Its hostname label may be a stand-in; its name is what people know.
        Some(_) if key == keys::HOSTNAME => host.name.to_string(),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}
