//! The drain guard: a node is drained only if the pods that serve elsewhere can carry the present demand and some more.
//!
//! The pods of a drained node do not serve until they have started elsewhere. That their requests have room there, and that
//! the nodes which stay are not hot, says nothing about that time: three pods at 90 % of what they ask for cannot stand in
//! for a fourth. A pod is taken to serve what it requests of CPU, and the demand to be the CPU that is used; then
//!
//! ```text
//! used × guard_percent ≤ Σ CPU requests of the Ready pods on nodes that stay
//! ```
//!
//! In the backtest that is the demand itself, since the CPU that its pods use is their requests × what is asked of them.

use std::ops::AddAssign;

use super::{Context, removals::Left, verdicts::Verdict};
use crate::{
    model::{MilliCpu, Node, Pod},
    placement::World,
};

/// What serves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Serving {
    /// CPU requests, in thousandths of a core.
    pub(crate) cpu: f64,
    /// Some pod asks for nothing: what it serves is anybody's guess.
    pub(crate) unknown: bool,
}

impl AddAssign for Serving {
    fn add_assign(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.unknown |= other.unknown;
    }
}

impl<'a> Context<'a> {
    /// What serves on nodes that stay; `None` where that is not asked, or cannot be answered.
    pub(super) fn serving(&self, world: &World<'a>, verdicts: &[Verdict<'a>]) -> Option<Serving> {
        if self.policy.scale_down.guard_percent.0 <= 0.0 {
            return None;
        }
        let staying = verdicts.iter().filter(|verdict| !verdict.node.being_deleted);
        let mut all = Serving::default();
        staying.for_each(|verdict| all += self.serving_on(world, verdict.host, verdict.node));
        (!all.unknown).then_some(all)
    }

    /// What serves on a node, by its place in the world.
    pub(crate) fn serving_on(&self, world: &World<'a>, host: usize, node: &Node) -> Serving {
        let mut serving = Serving::default();
        if !node.ready {
            return serving;
        }
        for index in &world.hosts[host].bound {
            let pod = &*self.snapshot.cluster.pods[*index];
            if serves(pod) {
                serving.cpu += pod.requests.cpu.as_f64();
                serving.unknown |= pod.requests.cpu == MilliCpu::ZERO && !is_of_the_system(pod);
            }
        }
        serving
    }

    /// Whether the pods that serve elsewhere are too few for what is used now, until those of this node serve again. Not
    /// asked of a node on which nothing serves that would be evicted.
    pub(super) fn bares(&self, world: &World<'a>, verdict: &Verdict<'a>, left: &Left) -> bool {
        if verdict.due.is_some() || !verdict.node.ready || !verdict.evicted.iter().any(|pod| serves(pod)) {
            return false;
        }
        let (Some(all), Some((used, _))) = (left.serving, left.used) else {
            return false;
        };
        let stays = all.cpu - self.serving_on(world, verdict.host, verdict.node).cpu;
        used * self.policy.scale_down.guard_percent.fraction() > stays * (1.0 + 1e-9)
    }
}

fn serves(pod: &Pod) -> bool {
    pod.ready && !pod.is_terminating() && !pod.is_finished()
}

/// What no workload's demand comes to: K3s' own pods ask for no CPU, as a rule.
fn is_of_the_system(pod: &Pod) -> bool {
    pod.is_owned_by("DaemonSet") || pod.is_mirror() || pod.key.namespace.as_str() == "kube-system"
}
