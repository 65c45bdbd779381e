//! Why a pod has no place, in words and as a code.

use super::{Context, Offering, launches::Outcome};
use crate::{
    PendingCode, PendingPod,
    model::{DEFAULT_SCHEDULER, Pod},
    placement::{QuickMap, World},
};

/// Whether some existing or launchable node could take a pod with this code: then nothing is removed.
pub(super) fn could_be_taken(code: PendingCode) -> bool {
    matches!(
        code,
        PendingCode::BackedOff | PendingCode::MaxStep | PendingCode::AtMaxNodes | PendingCode::Held
    )
}

impl<'a> Context<'a> {
    /// Every pod without a place, by name.
    pub(super) fn pending(
        &self,
        world: &mut World<'a>,
        outcome: &Outcome<'a>,
        expendable: &[&Pod],
    ) -> Vec<PendingPod> {
        let mut pending = Vec::new();
        for index in &world.unbound {
            let pod = &*self.snapshot.cluster.pods[*index];
            let alive = !pod.is_finished()
                && !pod.is_terminating()
                && !pod.is_owned_by("DaemonSet")
                && &*pod.scheduler == DEFAULT_SCHEDULER;
            let code = match () {
                () if !alive => continue,
                () if pod.gated => PendingCode::SchedulingGated,
                () if pod.resource_claims => PendingCode::ResourceClaim,
                () => continue,
            };
            pending.push(self.entry(pod, code));
        }
        let below = expendable
            .iter()
            .map(|pod| self.entry(pod, PendingCode::PriorityCutoff));
        pending.extend(below);
        pending.extend(outcome.held.iter().map(|pod| self.entry(pod, PendingCode::Held)));
        let mut codes: QuickMap<usize, PendingCode> = QuickMap::default();
        for pod in &outcome.left {
            let class = world.classes.class(pod);
            let code = *codes
                .entry(class)
                .or_insert_with(|| self.code(world, pod, outcome));
            pending.push(self.entry(pod, code));
        }
        pending.sort_by(|a, b| a.pod.cmp(&b.pod));
        pending
    }

    /// The filter that stopped the pod on the new node where it got furthest.
    fn code(&self, world: &mut World<'a>, pod: &Pod, outcome: &Outcome<'a>) -> PendingCode {
        self.offerings
            .iter()
            .map(|offering| match world.check_thought_of(pod, &offering.host) {
                Err(code) => code,
                Ok(()) => self.limit(offering, outcome),
            })
            .max()
            .unwrap_or(PendingCode::NodeSelector)
    }

    /// What keeps an offering from being launched that would hold the pod.
    pub(crate) fn limit(&self, offering: &Offering<'a>, outcome: &Outcome<'a>) -> PendingCode {
        match () {
            () if offering.backed_off => PendingCode::BackedOff,
            () if outcome.out_of_steps => PendingCode::MaxStep,
            () if self.is_at_max(offering.pool, outcome) => PendingCode::AtMaxNodes,
            () => PendingCode::Held,
        }
    }

    fn is_at_max(&self, pool: usize, outcome: &Outcome<'a>) -> bool {
        let pool = &self.policy.pools[pool];
        let nodes: usize = outcome.room.pools.values().map(|count| count.nodes).sum();
        let full = outcome
            .room
            .pools
            .get(&pool.name)
            .is_some_and(|count| count.nodes >= pool.max_nodes as usize);
        // While nothing is launched, what would have been still takes up the room.
        full || nodes >= self.policy.limits.max_nodes as usize || !outcome.held.is_empty()
    }

    /// Until when a freeze, and nothing else, stops launches.
    fn launches_frozen(&self) -> Option<jiff::Timestamp> {
        let freeze = self.brakes.launches && !self.brakes.stopped;
        self.brakes.frozen_until.filter(|_| freeze)
    }

    fn entry(&self, pod: &Pod, code: PendingCode) -> PendingPod {
        PendingPod {
            pod: pod.key.clone(),
            reason: self.reason(pod, code),
            code,
        }
    }

    fn reason(&self, pod: &Pod, code: PendingCode) -> String {
        let limits = &self.policy.limits;
        match code {
            PendingCode::SchedulingGated => "it waits for its scheduling gates to be lifted".to_owned(),
            PendingCode::PriorityCutoff => {
                let cutoff = self.policy.scale_up.priority_cutoff;
                format!(
                    "its priority {} is below scale_up.priority_cutoff = {cutoff}, so no node is launched for it",
                    pod.priority
                )
            }
            PendingCode::ResourceClaim => {
                "it uses dynamic resource claims, of which nothing can be said beforehand".to_owned()
            }
            PendingCode::NodeSelector => {
                "no pool has nodes that its node selector and node affinity accept".to_owned()
            }
            PendingCode::Taints => {
                "it does not tolerate the taints of the pools that it could use".to_owned()
            }
            PendingCode::Volume => {
                "a volume claim of it is missing, unbound, taken, or tied to another place".to_owned()
            }
            PendingCode::NoInstanceTypeFits => self.too_large(pod),
            PendingCode::HostPort => {
                "a host port that it needs is taken on every new node by a DaemonSet".to_owned()
            }
            PendingCode::PodAffinity => "no new node would be near the pods that it must be near".to_owned(),
            PendingCode::PodAntiAffinity => {
                "every new node would be too near to pods that must be kept apart".to_owned()
            }
            PendingCode::TopologySpread => {
                "any new node would break its topology spread constraints".to_owned()
            }
            PendingCode::BackedOff => {
                "every offering that could hold it failed lately and is not tried again yet".to_owned()
            }
            PendingCode::MaxStep if self.brakes.rate_is_least(&self.policy.scale_up) => {
                format!(
                    "limits.max_launches_per_hour = {}, and within the last hour {} were launched",
                    limits.max_launches_per_hour,
                    super::launched(&self.snapshot.state, self.now)
                )
            }
            PendingCode::MaxStep => {
                format!(
                    "this decision already launches scale_up.max_step = {} nodes",
                    self.policy.scale_up.max_step
                )
            }
            PendingCode::AtMaxNodes => {
                format!(
                    "the cluster (limits.max_nodes = {}) or its pool is at its maximum",
                    limits.max_nodes
                )
            }
            PendingCode::Held => match self.launches_frozen() {
                Some(until) => {
                    format!("a node would be launched for it, but a freeze holds until {until:.0}")
                }
                None if self.brakes.launches => {
                    "a node would be launched for it, but nothing is launched now".to_owned()
                }
                None => format!(
                    "a node would be launched for it, but limits.max_usd_per_hour = {} is used up",
                    limits.max_usd_per_hour
                ),
            },
        }
    }

    fn too_large(&self, pod: &Pod) -> String {
        let (cpu, memory) = (pod.requests.cpu, pod.requests.memory);
        let free = |o: &super::Offering<'_>| {
            let (have, used) = (&o.host.allocatable, &o.host.used);
            (have.cpu.minus(used.cpu), have.memory.minus(used.memory))
        };
        match self.offerings.iter().max_by_key(|offering| free(offering)) {
            Some(largest) => {
                let (free_cpu, free_memory) = free(largest);
                format!(
                    "it requests {cpu} CPU and {memory} memory; no type offers enough of everything, {} leaves {free_cpu} and {free_memory} beside DaemonSets",
                    largest.spec.name
                )
            }
            None => format!("it requests {cpu} CPU and {memory} memory, and nothing can be bought"),
        }
    }
}
