//! What a node is needed for though its pods would fit elsewhere: usage, measured or by requests, with its figures.

use super::{Seen, words::and};
use crate::{
    decide::{Serving, Verdict, node_usage},
    model::{MilliCpu, Node, Percent},
    placement::{Place, World},
};

impl<'a> Seen<'_, 'a> {
    /// Measured, by requests, or because the rest would run hot or serve too little.
    pub(super) fn utilised(&self, world: &World<'a>, verdict: &Verdict<'a>) -> String {
        let (context, node) = (self.context, verdict.node);
        let (up, down) = (&context.policy.scale_up, &context.policy.scale_down);
        let mut parts = Vec::new();
        let usage = node_usage(&context.snapshot.metrics, node.name.as_str(), context.now);
        if let Some(usage) = usage.filter(|_| context.asks_averages_below()) {
            for (what, value, bound) in [
                ("CPU", usage.cpu, down.cpu_percent),
                ("memory", usage.memory, down.memory_percent),
            ] {
                if value >= bound.0 {
                    parts.push(format!("{what} {} against {bound}", Percent(value)));
                }
            }
        }
        let bound = down.unneeded_when_requests_below_percent;
        let requested = self.requested_percent(verdict);
        if bound.0 < 100.0 && requested >= bound.0 {
            parts.push(format!("requests {} against {bound}", Percent(requested)));
        }
        if parts.is_empty() {
            parts.extend(self.guarded(world, verdict));
        }
        if parts.is_empty() {
            let rest = self.rest_without(verdict);
            for (what, value, bound) in [
                ("CPU", rest.0, up.cpu_percent),
                ("memory", rest.1, up.memory_percent),
            ] {
                if value > bound.0 {
                    parts.push(format!(
                        "without it the other nodes would be at {} {what}, above {bound}",
                        Percent(value)
                    ));
                }
            }
        }
        match parts.is_empty() {
            false => and(&parts),
            true if down.guard_percent.0 > 0.0 => {
                "without it and those that would go with it the other nodes would \
                 be above a scale-up threshold, or too few pods would serve (scale_down.guard_percent)"
                    .to_owned()
            }
            true => "without it the other nodes would be above a scale-up threshold".to_owned(),
        }
    }

    /// How little would serve elsewhere while its pods start anew, where the drain guard asks for more.
    fn guarded(&self, world: &World<'a>, verdict: &Verdict<'a>) -> Option<String> {
        let context = self.context;
        let guard = context.policy.scale_down.guard_percent;
        let (mut all, mut stays) = (Serving::default(), Serving::default());
        let mut capacity = 0.0;
        for (index, host) in world.hosts.iter().enumerate() {
            let Place::Existing(node) = host.place else {
                continue;
            };
            let node = &context.snapshot.cluster.nodes[node];
            if node.ready {
                capacity += node.allocatable.cpu.as_f64();
            }
            if node.being_deleted {
                continue;
            }
            let serving = context.serving_on(world, index, node);
            all += serving;
            if index != verdict.host && !self.plan.remove.iter().any(|removal| removal.node == node.name) {
                stays += serving;
            }
        }
        let used = context.averages.newest?.cpu / 100.0 * capacity;
        (guard.0 > 0.0 && !all.unknown && used * guard.fraction() > stays.cpu).then(|| {
            format!(
                "the pods that serve elsewhere request {} of CPU, less than {guard} of the {} that are used now \
                 (scale_down.guard_percent)",
                milli(stays.cpu),
                milli(used)
            )
        })
    }

    /// The higher of CPU and memory that its bound pods request, in percent.
    fn requested_percent(&self, verdict: &Verdict<'a>) -> f64 {
        let node = verdict.node;
        let pods = self.context.snapshot.cluster.pods.iter();
        let mut used = crate::model::Resources::default();
        pods.filter(|pod| {
            pod.node.as_ref() == Some(&node.name) && !pod.is_finished() && !pod.is_gone(self.context.now)
        })
        .for_each(|pod| used.add(&pod.requests));
        let share = |used: f64, have: f64| if have > 0.0 { used / have * 100.0 } else { 100.0 };
        share(used.cpu.as_f64(), node.allocatable.cpu.as_f64())
            .max(share(used.memory.as_f64(), node.allocatable.memory.as_f64()))
    }

    /// CPU and memory of the Ready nodes that stay, in percent, if this one went as well as those that do.
    fn rest_without(&self, verdict: &Verdict<'a>) -> (f64, f64) {
        let Some(usage) = self.context.averages.newest else {
            return (0.0, 0.0);
        };
        let ready = || {
            self.context
                .snapshot
                .cluster
                .nodes
                .iter()
                .filter(|node| node.ready)
        };
        let goes = |node: &Node| {
            node.name == verdict.node.name || self.plan.remove.iter().any(|removal| removal.node == node.name)
        };
        let rest = |of: fn(&Node) -> f64, percent: f64| {
            let all: f64 = ready().map(of).sum();
            let stays: f64 = ready().filter(|node| !goes(node)).map(of).sum();
            if stays > 0.0 {
                percent * all / stays
            } else {
                f64::INFINITY
            }
        };
        (
            rest(|node| node.allocatable.cpu.as_f64(), usage.cpu),
            rest(|node| node.allocatable.memory.as_f64(), usage.memory),
        )
    }
}

fn milli(cpu: f64) -> MilliCpu {
    #[allow(clippy::cast_possible_truncation, reason = "cores of a cluster")]
    MilliCpu(cpu.round() as i64)
}
