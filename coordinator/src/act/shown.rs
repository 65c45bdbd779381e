//! What the planner is shown of the operations: machines under way, nodes on their way out, what was launched and given up
//! lately.

use std::collections::BTreeSet;

use smartscale_planner::{
    model::NodeName,
    snapshot::{Launching, State, Throttled},
};

use super::{
    executor::{Executor, seen},
    operation::{Operation, Phase},
};
use crate::ids::Epoch;

impl Executor {
    /// Adds what only the executor of a term knows: machines under way, nodes on their way out. Gives that term; `None`
    /// where this coordinator does not lead or has not taken over yet, and what was published stands.
    pub fn fill(&self, state: &mut State, leaving: &mut BTreeSet<NodeName>) -> Option<Epoch> {
        let term = self.term()?;
        if self.journal().epoch() != Some(term) {
            return None;
        }
        let objects = self.parts.cluster.latest().value;
        let now = self.parts.clock.now();
        // A former leader's clock was ahead of this one's: what it did, it did before this one led.
        if state.last_scale_time.is_some_and(|at| at > now) {
            state.last_scale_time = Some(self.leads_since().map_or(now, |since| since.min(now)));
        }
        state.scaling_in_progress = false;
        state.launched = self.journal().launched();
        state.drifted = self.drifted();
        let throttled = self.parts.agents.throttled().into_iter();
        state.throttled = throttled
            .map(|(instance, since)| Throttled {
                node: NodeName::from(instance.as_str()),
                since,
            })
            .collect();
        state.given_up = self.journal().given_up();
        let mut planned_for = BTreeSet::new();
        for operation in self.open() {
            if operation.phase == Phase::Refused {
                // What was refused did not happen.
                if state.last_scale_time == Some(operation.created_at) {
                    state.last_scale_action = None;
                }
                planned_for.insert(operation.id);
                continue;
            }
            if let Some(node) = operation.removes() {
                leaving.insert(node.clone());
            }
            let Some(launch) = operation.launch() else {
                continue;
            };
            // An operation gives up by itself what does not come. Until then it is expected, however long its calls have
            // failed: planned for once more, it would be launched twice.
            let entry = |instance_type| Launching {
                pool: launch.request.pool.clone(),
                instance_type,
                zone: launch.request.zone.clone(),
                market: launch.request.market,
                since: now,
            };
            if operation.phase == Phase::Joining {
                let unregistered = launch
                    .instances
                    .iter()
                    .filter(|instance| seen(objects.as_deref(), instance.id.as_str()).is_none());
                state
                    .launching
                    .extend(unregistered.map(|instance| entry(instance.instance_type.clone())));
            } else if let Some(first) = launch.request.instance_types.first() {
                state
                    .launching
                    .extend((0..launch.request.count).map(|_| entry(first.clone())));
            }
        }
        *self.planned_for() = planned_for;
        Some(term)
    }

    /// Nodes that are lost or being taken back: what is on them has to go, whatever was planned.
    #[must_use]
    pub fn doomed(&self) -> BTreeSet<NodeName> {
        let open = self.open();
        let removals = open.iter().filter_map(Operation::removal);
        let doomed = removals.filter(|removal| removal.lost || removal.interrupted);
        doomed.map(|removal| removal.node.clone()).collect()
    }
}
