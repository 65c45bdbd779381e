//! Where pods can go: kube-scheduler's filters over existing, launching and planned nodes.
//!
//! ```text
//! World (hosts with their pods) ── prefilter(pod) ─▶ counts per domain ── check(pod, host) ─▶ Ok | PendingCode
//! ```
//!
//! The filters are asked in the order of [`PendingCode`], so that the first one that says no names how far a pod got.
//! Placing changes the world; every change can be taken back, which is how moves and packings are tried.

mod affinity;
mod filters;
mod volumes;

use std::sync::Arc;

use jiff::Timestamp;

pub(crate) use affinity::Prefilter;
pub(crate) use filters::accepts_statically;

use crate::{
    PendingCode, Policy,
    model::{Cluster, Labels, Node, Pod, Resources, SETTLING, Taint, UnsatisfiableAction},
};

/// What a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `cluster.nodes[i]`.
    Existing(usize),
    /// The n-th launching entry that has not lapsed.
    Launching(usize),
    /// To be launched by this plan.
    Planned,
}

/// A node with what is on it.
#[derive(Clone, Debug)]
pub(crate) struct Host<'a> {
    pub(crate) place: Place,
    pub(crate) name: Arc<str>,
    pub(crate) labels: Arc<Labels>,
    /// Taints that count; those that go away by themselves are left out.
    pub(crate) taints: Arc<[Taint]>,
    pub(crate) allocatable: Resources,
    pub(crate) used: Resources,
    pub(crate) pods: Vec<&'a Pod>,
    /// How many of them have required anti-affinity.
    pub(crate) repelling: usize,
    /// It takes pods that wait.
    pub(crate) accepts: bool,
    /// It takes pods that are moved.
    pub(crate) is_destination: bool,
    /// It is thought away, with everything on it.
    pub(crate) gone: bool,
}

impl<'a> Host<'a> {
    pub(crate) fn add(&mut self, pod: &'a Pod) {
        self.used.add(&pod.requests);
        self.repelling += usize::from(!pod.pod_anti_affinity.is_empty());
        self.pods.push(pod);
    }

    fn take(&mut self, pod: &Pod) {
        if let Some(index) = self.pods.iter().rposition(|other| std::ptr::eq(*other, pod)) {
            self.pods.remove(index);
            self.used.subtract(&pod.requests);
            self.repelling -= usize::from(!pod.pod_anti_affinity.is_empty());
        }
    }

    /// How full it is: the larger share of CPU and memory.
    pub(crate) fn fullness(&self) -> f64 {
        let share = |used: f64, have: f64| if have > 0.0 { used / have } else { 1.0 };
        share(self.used.cpu.as_f64(), self.allocatable.cpu.as_f64())
            .max(share(self.used.memory.as_f64(), self.allocatable.memory.as_f64()))
    }
}

/// All hosts, and what of the cluster the filters ask for.
#[derive(Clone, Debug)]
pub(crate) struct World<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) hosts: Vec<Host<'a>>,
    /// Nodes as each pool could launch them, a group for every pool × zone: they open spread domains.
    pub(crate) domains: Vec<DomainGroup>,
}

/// What a pool could launch in a zone, as far as spread domains care.
#[derive(Clone, Debug)]
pub(crate) struct DomainGroup {
    /// Labels that all of its nodes have alike; only these open domains.
    pub(crate) common: Labels,
    /// Labels and taints of each kind of node.
    pub(crate) nodes: Vec<(Arc<Labels>, Arc<[Taint]>)>,
}

impl<'a> World<'a> {
    /// The existing nodes with their bound pods.
    pub(crate) fn new(cluster: &'a Cluster, policy: &Policy, now: Timestamp) -> Self {
        let mut order: Vec<usize> = (0..cluster.nodes.len()).collect();
        order.sort_by(|a, b| cluster.nodes[*a].name.cmp(&cluster.nodes[*b].name));
        let mut hosts: Vec<Host<'a>> = order
            .into_iter()
            .map(|index| existing(&cluster.nodes[index], index, policy, now))
            .collect();
        let by_name: std::collections::HashMap<Arc<str>, usize> = hosts
            .iter()
            .enumerate()
            .map(|(index, host)| (host.name.clone(), index))
            .collect();
        let mut bound: Vec<&Pod> = cluster
            .pods
            .iter()
            .filter(|pod| pod.node.is_some() && !pod.is_finished() && !pod.is_gone(now))
            .collect();
        bound.sort_by(|a, b| a.key.cmp(&b.key));
        for pod in bound {
            let host = pod.node.as_ref().and_then(|name| by_name.get(name.as_str()));
            if let Some(host) = host.and_then(|index| hosts.get_mut(*index)) {
                host.add(pod);
            }
        }
        Self {
            cluster,
            hosts,
            domains: Vec::new(),
        }
    }

    /// Counts for the filters that look beyond one host; made anew after every placement.
    pub(crate) fn prefilter(&self, pod: &Pod) -> Prefilter {
        Prefilter::new(self, pod)
    }

    /// Whether the pod may go onto the host; otherwise the first filter that refuses.
    pub(crate) fn check(&self, pod: &Pod, prefilter: &Prefilter, host: &Host<'_>) -> Result<(), PendingCode> {
        filters::node_selector(pod, host)?;
        filters::taints(pod, host)?;
        volumes::check(self, pod, host)?;
        filters::resources(pod, host)?;
        filters::host_ports(pod, host)?;
        prefilter.check(pod, host)
    }

    /// The first five filters alone, which do not look beyond the host.
    pub(crate) fn check_alone(&self, pod: &Pod, host: &Host<'_>) -> Result<(), PendingCode> {
        filters::node_selector(pod, host)?;
        filters::taints(pod, host)?;
        volumes::check(self, pod, host)?;
        filters::resources(pod, host)?;
        filters::host_ports(pod, host)
    }

    /// Whether placing it depends on what is on other hosts.
    pub(crate) fn looks_around(&self, pod: &Pod) -> bool {
        !pod.pod_affinity.is_empty()
            || !pod.pod_anti_affinity.is_empty()
            || pod
                .spread
                .iter()
                .any(|s| s.when_unsatisfiable == UnsatisfiableAction::DoNotSchedule)
            || self.repels_somebody()
    }

    /// Whether some pod has anti-affinity, which also binds those that come later.
    pub(crate) fn repels_somebody(&self) -> bool {
        self.hosts.iter().any(|host| !host.gone && host.repelling > 0)
    }

    /// The fullest host of those that pass `wanted` and every filter; the first by name among equals.
    pub(crate) fn find(&self, pod: &Pod, wanted: impl Fn(&Host<'_>) -> bool) -> Option<usize> {
        let prefilter = self.prefilter(pod);
        let mut best: Option<(usize, (bool, i32, f64))> = None;
        for (index, host) in self.hosts.iter().enumerate() {
            if host.gone || !wanted(host) || self.check(pod, &prefilter, host).is_err() {
                continue;
            }
            let rank = (
                matches!(host.place, Place::Launching(_)),
                -self.preference(pod, host),
                -host.fullness(),
            );
            if best
                .as_ref()
                .is_none_or(|(_, other)| rank.partial_cmp(other) == Some(std::cmp::Ordering::Less))
            {
                best = Some((index, rank));
            }
        }
        best.map(|(index, _)| index)
    }

    /// How much a pod would like the host: preferred node affinity, and taints that only discourage.
    fn preference(&self, pod: &Pod, host: &Host<'_>) -> i32 {
        let liked: i32 = pod
            .node_affinity
            .preferred
            .iter()
            .filter(|term| term.item.matches(&host.name, &host.labels))
            .map(|term| term.weight)
            .sum();
        let discouraged = host
            .taints
            .iter()
            .filter(|taint| taint.effect == crate::model::TaintEffect::PreferNoSchedule)
            .filter(|taint| {
                !pod.tolerations
                    .iter()
                    .any(|toleration| toleration.tolerates(taint))
            })
            .count();
        liked.saturating_sub(i32::try_from(discouraged).unwrap_or(i32::MAX))
    }

    /// Puts the pod there.
    pub(crate) fn put(&mut self, pod: &'a Pod, host: usize) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.add(pod);
        }
    }

    /// Takes it back.
    pub(crate) fn take(&mut self, pod: &Pod, host: usize) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.take(pod);
        }
    }
}

fn existing<'a>(node: &Node, index: usize, policy: &Policy, now: Timestamp) -> Host<'a> {
    let young = node.is_younger_than(SETTLING, now);
    let startup: &[Arc<str>] = match policy.pool_of(node) {
        Some(pool) if young => &pool.startup_taints,
        _ => &[],
    };
    let settling = young && !node.ready;
    let goes_away = |taint: &Taint| (settling && taint.marks_a_start()) || startup.contains(&taint.key);
    let taints = node
        .taints
        .iter()
        .filter(|taint| !goes_away(taint))
        .cloned()
        .collect();
    let usable = !node.unschedulable && !node.being_deleted;
    Host {
        place: Place::Existing(index),
        name: node.name.as_str().into(),
        labels: Arc::new(node.labels.clone()),
        taints,
        allocatable: node.allocatable.clone(),
        used: Resources::default(),
        pods: Vec::new(),
        repelling: 0,
        accepts: usable && (node.ready || young),
        is_destination: usable && node.ready,
        gone: false,
    }
}
