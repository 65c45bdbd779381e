//! What the workloads ask for, and what that says about what they need.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    Policy, Snapshot,
    decide::node_usage,
    model::{Bytes, MilliCpu, Node, NodeName, Pod, Resources},
};

/// What the workloads' pods ask for at one moment; DaemonSets' and finished pods aside.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Demand {
    /// CPU requests of all pods that have a node or wait for one, in mCPU.
    pub requested: f64,
    /// Those of pods that wait for a node.
    pub waiting: f64,
    /// CPU that these pods use, in mCPU. `None` while it is unknown.
    pub used: Option<f64>,
}

/// A node of ours, while what its pods use is found out.
struct Used<'a> {
    node: &'a Node,
    /// CPU requests of its pods that are no workload's: DaemonSets' and the node's own.
    others: MilliCpu,
}

impl Used<'_> {
    fn capacity(&self) -> f64 {
        self.node.capacity.cpu.as_f64()
    }

    /// What the workloads' pods use where so much of the node is used in all. A percentage is of the whole node. What is kept
    /// from pods is taken to be used by the system, and what DaemonSets request by their pods: nobody measures them apart.
    fn by_workloads(&self, percent: f64) -> f64 {
        let system = (self.node.capacity.cpu - self.node.allocatable.cpu).max(MilliCpu::ZERO);
        (percent / 100.0 * self.capacity() - (system + self.others).as_f64()).max(0.0)
    }
}

impl Demand {
    /// Of the pods on nodes of pools whose taints keep nobody off, and of those that wait for one and could have it, with what
    /// such a pod requests on average; that is unknown where there are none of them, and so nothing is asked for.
    /// `None` while none requests CPU, or no cluster is seen at all.
    #[must_use]
    pub fn of(snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> Option<(Self, Option<Resources>)> {
        let cluster = &snapshot.cluster;
        let is_open = |node: &&Node| policy.pool_of(node).is_some_and(|pool| !pool.is_tainted());
        let open = cluster.nodes.iter().filter(is_open).map(|node| {
            let others = MilliCpu::ZERO;
            (&node.name, Used { node, others })
        });
        let mut ours: BTreeMap<&NodeName, Used<'_>> = open.collect();
        let mut requested = Resources::default();
        let (mut waiting, mut number) = (MilliCpu::ZERO, 0_i64);
        for pod in cluster.pods.iter().filter(|pod| !pod.is_finished()) {
            let of_workload = !pod.is_owned_by("DaemonSet") && !pod.is_mirror();
            match &pod.node {
                Some(node) => match ours.get_mut(node) {
                    Some(of) if !of_workload => {
                        of.others += pod.requests.cpu;
                        continue;
                    }
                    Some(_) if !pod.is_terminating() => {}
                    _ => continue,
                },
                None if of_workload && could_be_served(policy, pod) => waiting += pod.requests.cpu,
                None => continue,
            }
            requested.add(&pod.requests);
            number += 1;
        }
        if number == 0 && !cluster.nodes.is_empty() {
            // Workloads that are scaled to none.
            let nothing = Self {
                used: Some(0.0),
                ..Self::default()
            };
            return Some((nothing, None));
        }
        if requested.cpu <= MilliCpu::ZERO {
            return None;
        }
        let each = Resources {
            cpu: MilliCpu((requested.cpu.0 / number).max(1)),
            memory: Bytes(requested.memory.0 / number),
            pods: 1,
            ..Resources::default()
        };
        // Of nodes that say nothing (they have just joined, or their agent is away) the use is taken to be the others'.
        let (mut used, mut known, mut all) = (0.0, 0.0, 0.0);
        for of in ours.values().filter(|of| of.node.ready) {
            all += of.capacity();
            if let Some(usage) = node_usage(&snapshot.metrics, of.node.name.as_str(), now) {
                used += of.by_workloads(usage.cpu);
                known += of.capacity();
            }
        }
        let used = (known > 0.0 && known >= 0.5 * all).then(|| used / known * all);
        let demand = Self {
            requested: requested.cpu.as_f64(),
            waiting: waiting.as_f64(),
            used,
        };
        Some((demand, Some(each)))
    }

    /// Pods that wait, or have just been made, would use what others cannot serve. `before`: what was requested by pods with a
    /// node when it was last looked.
    fn is_cut_short(&self, before: Option<f64>) -> bool {
        let running = self.requested - self.waiting;
        let serving = before.map_or(running, |before| before.min(running));
        let more = self.waiting > 0.0 || serving < running;
        more && self.used.is_none_or(|used| used >= FULL * serving)
    }
}

/// Pods that use this share of their requests are taken to be at their limit.
const FULL: f64 = 0.95;
/// How much of a new sample the gauge takes over.
const SHARE: f64 = 0.05;
/// Growth of the requests in a minute that says something about what they are measured by.
const GROWTH: f64 = 0.01;

/// Learns how much of their requests pods use when their number grows: what a `HorizontalPodAutoscaler` aims at.
///
/// An autoscaler keeps pods for a while after the demand for them has gone (its stabilization window, 5 minutes), so that
/// requests are slow to show a fall. What is used shows it at once; in units of what pods are made for it is the demand itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gauge {
    /// Used ÷ requested.
    share: Option<f64>,
    /// Requests of the last minute.
    last: Option<f64>,
}

impl Gauge {
    /// As it was learnt before.
    pub(super) fn learnt(share: Option<f64>) -> Self {
        Self {
            share: share.filter(|share| (0.05..=1.0).contains(share)),
            last: None,
        }
    }

    /// The share of their requests that pods use when more of them are made.
    pub(super) fn share(&self) -> Option<f64> {
        self.share
    }

    /// The demand: by what is used, or by requests as long as nobody knows what use means.
    pub(super) fn signal(&self, demand: &Demand, before: Option<f64>) -> f64 {
        match (self.share, demand.used) {
            (Some(share), Some(used)) if !demand.is_cut_short(before) => used / share,
            _ => demand.requested,
        }
    }

    /// Takes in a minute.
    pub(super) fn learn(&mut self, requested: f64, used: Option<f64>) {
        let before = self.last.replace(requested);
        let (Some(before), Some(used)) = (before, used) else {
            return;
        };
        // The first pods after none have only just begun.
        let has_grown = before > 0.0 && requested > before * (1.0 + GROWTH);
        if !has_grown || used <= 0.0 {
            return;
        }
        let sample = (used / requested).clamp(0.05, 1.0);
        self.share = Some(
            self.share
                .map_or(sample, |share| share + SHARE * (sample - share)),
        );
    }
}

/// What the pods of a node can ask for, in mCPU of their requests, if each is as large as `pod`: of the node that is cheapest
/// for each of them, in the pools whose taints keep nobody off. `None`: no node holds one, or it requests no CPU.
#[must_use]
pub fn room_of_a_node(policy: &Policy, pod: &Resources) -> Option<f64> {
    let mut best: Option<(f64, i64)> = None;
    for pool in policy.pools.iter().filter(|pool| !pool.is_tainted()) {
        for spec in &pool.types {
            let held = held(&pool.allocatable(spec), pod);
            let offerings = pool
                .markets
                .iter()
                .flat_map(|market| pool.zones.iter().map(|zone| (zone, *market)));
            let price = offerings
                .filter_map(|(zone, market)| pool.price(spec, zone, market))
                .min_by(f64::total_cmp);
            let Some(price) = price.filter(|_| held > 0) else {
                continue;
            };
            #[allow(clippy::cast_precision_loss, reason = "pods of a node")]
            let each = price / held as f64;
            if best.is_none_or(|(least, _)| each < least) {
                best = Some((each, held));
            }
        }
    }
    let (_, held) = best.filter(|_| pod.cpu > MilliCpu::ZERO)?;
    Some(MilliCpu(held.saturating_mul(pod.cpu.0)).as_f64())
}

/// Whether a pod without a node waits for one that there could be.
fn could_be_served(policy: &Policy, pod: &Pod) -> bool {
    pod.wants_place()
        && pod.priority >= policy.scale_up.priority_cutoff
        && fits_somewhere(policy, &pod.requests)
}

/// Whether some node of an open pool could hold it.
fn fits_somewhere(policy: &Policy, pod: &Resources) -> bool {
    let mut pools = policy.pools.iter().filter(|pool| !pool.is_tainted());
    pools.any(|pool| {
        pool.types
            .iter()
            .any(|spec| held(&pool.allocatable(spec), pod) > 0)
    })
}

/// How many pods like this one it holds.
fn held(allocatable: &Resources, pod: &Resources) -> i64 {
    let by = |have: i64, each: i64| if each > 0 { have.max(0) / each } else { i64::MAX };
    by(allocatable.cpu.0, pod.cpu.0)
        .min(by(allocatable.memory.0, pod.memory.0))
        .min(allocatable.pods.max(0))
}
