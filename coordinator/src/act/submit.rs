//! Takes a plan into the journal: an operation for each launch call and for each node that goes, the next attempt of a
//! launch that was refused.

use std::collections::BTreeMap;

use jiff::Timestamp;
use smartscale_planner::{Action, Plan, RemovalReason, model::PodKey};

use super::{
    begin::{launching, planned},
    executor::Executor,
    fleet::LaunchRequest,
    journal,
    operation::{Kind, Operation, Phase, Removal},
};
use crate::{
    ids::{DecisionId, Epoch, OperationId},
    state::{Attributes, StoreError},
    tell::Grounds,
};

/// The most machines of one call: their records are written in one transaction with the operation.
const MOST_OF_A_CALL: u32 = 50;

/// A launch call that a plan asks for.
struct Call {
    request: LaunchRequest,
    pods: Vec<PodKey>,
    grounds: Grounds,
}

impl Executor {
    /// Journals what a plan wants. `term` is the one whose operations the plan was made with ([`fill`](Self::fill)): in
    /// another one it would launch again what is under way. Launches that were refused before that plan and that it asks
    /// for no more end.
    ///
    /// # Errors
    /// [`StoreError`] when nothing was journaled; [`StoreError::Fenced`] when that term is over.
    pub async fn submit(
        &self,
        plan: &Plan,
        decision: &DecisionId,
        term: Epoch,
    ) -> Result<Vec<OperationId>, StoreError> {
        let now = self.parts.clock.now();
        let mut refused = self.planned_anew();
        let mut operations: Vec<Operation> = Vec::new();
        for call in self.calls(plan, now) {
            let next = next_attempt(&mut refused, &call, decision, now);
            operations.push(next.unwrap_or_else(|| {
                let reason = plan.summary.clone();
                Operation {
                    grounds: call.grounds,
                    ..launching(call.request, call.pods, Some(decision.clone()), reason, None, now)
                }
            }));
        }
        let launches: Vec<OperationId> = operations.iter().map(|operation| operation.id.clone()).collect();
        operations.extend(self.removals(plan, decision, &launches, now));
        let ids: Vec<OperationId> = operations.iter().map(|operation| operation.id.clone()).collect();
        for mut operation in refused {
            let error = operation.error.clone().unwrap_or_default();
            let note = format!("not launched, and not planned anew: {error}");
            if operation.advance(Phase::Failed, now, note).is_ok() {
                operations.push(operation);
            }
        }
        if operations.is_empty() {
            return Ok(ids);
        }
        let attributes = match plan.action {
            _ if ids.is_empty() => Attributes::new(),
            Action::None => journal::scaled(Action::ScaleUp.as_str(), now),
            action => journal::scaled(action.as_str(), now),
        };
        self.begin(term, operations, attributes).await?;
        self.planned_for().clear();
        Ok(ids)
    }

    /// Whether a launch waits for what the plan under way says of it.
    #[must_use]
    pub fn awaits_a_plan(&self) -> bool {
        !self.planned_for().is_empty()
    }

    /// Launches that were refused before the plan under way was begun, oldest first.
    fn planned_anew(&self) -> Vec<Operation> {
        let planned_for = self.planned_for().clone();
        let is_refused = |operation: &Operation| operation.phase == Phase::Refused;
        let known = planned_for.iter().filter_map(|id| self.find_open(id));
        known.filter(is_refused).collect()
    }

    /// The launch calls of a plan: one for each pool, zone, market and list of types, and not too many machines each.
    fn calls(&self, plan: &Plan, now: Timestamp) -> Vec<Call> {
        let mut groups: BTreeMap<String, Vec<Call>> = BTreeMap::new();
        for launch in &plan.launch {
            let types: Vec<&str> = launch.instance_types.iter().map(AsRef::as_ref).collect();
            let group = format!(
                "{}/{}/{}/{}",
                launch.pool,
                launch.zone,
                launch.market,
                types.join(",")
            );
            let calls = groups.entry(group).or_default();
            if calls
                .last()
                .is_none_or(|call| call.request.count >= MOST_OF_A_CALL)
            {
                let request = LaunchRequest {
                    operation: self.parts.ids.operation(now),
                    attempt: 1,
                    pool: launch.pool.clone(),
                    zone: launch.zone.clone(),
                    market: launch.market,
                    instance_types: launch.instance_types.clone(),
                    count: 0,
                    enrolment_secret: None,
                };
                calls.push(Call {
                    request,
                    pods: Vec::new(),
                    grounds: Grounds::of(plan, 0.0),
                });
            }
            if let Some(call) = calls.last_mut() {
                call.request.count += 1;
                call.pods.extend(launch.pods.iter().cloned());
                if let Some(cost) = &mut call.grounds.cost_change_per_hour {
                    *cost += launch.price_per_hour;
                }
            }
        }
        groups.into_values().flatten().collect()
    }

    /// The removals of a plan, but of nodes that go already. Replacements wait for `launches`.
    fn removals(
        &self,
        plan: &Plan,
        decision: &DecisionId,
        launches: &[OperationId],
        now: Timestamp,
    ) -> Vec<Operation> {
        let (drain, strictness) = {
            let policy = &self.parts.policy.borrow().policy;
            (policy.drain, policy.scale_down.strictness)
        };
        let busy = self.busy_nodes();
        let removals = plan.remove.iter().filter(|removal| !busy.contains(&removal.node));
        let operation = |removal: &smartscale_planner::Removal| {
            let what = Kind::Remove(Removal {
                force: drain.on_timeout == smartscale_planner::policy::OnTimeout::Force,
                // What is due goes with all that is on it.
                keeps_local_storage: strictness.local_storage_blocks && removal.due.is_none(),
                after: if removal.reason == RemovalReason::Replaced {
                    launches.to_vec()
                } else {
                    Vec::new()
                },
                ..Removal::of(removal.node.clone(), drain.timeout)
            });
            let reason = format!("{}: {}", removal_words(removal), plan.summary);
            let pods = removal.moves.iter().map(|step| step.pod.clone()).collect();
            let id = self.parts.ids.operation(now);
            let mut grounds = Grounds::of(plan, -removal.saves_per_hour);
            if removal.saves_per_hour == 0.0 {
                // Nobody knows its price.
                grounds.cost_change_per_hour = None;
            }
            Operation {
                grounds,
                ..planned(id, what, pods, Some(decision.clone()), reason, None, now)
            }
        };
        removals.map(operation).collect()
    }
}

/// The call as the next attempt of the refused launch that shares most pods with it; one for no pods follows one for no
/// pods. A person's launch is not planned anew: what it asks for is what the person said.
fn next_attempt(
    refused: &mut Vec<Operation>,
    call: &Call,
    decision: &DecisionId,
    now: Timestamp,
) -> Option<Operation> {
    let shared = |operation: &Operation| {
        let of_call = |pod: &&PodKey| call.pods.contains(pod);
        operation.pods.iter().filter(of_call).count()
    };
    let fits = |operation: &Operation| {
        operation.by.is_none()
            && (shared(operation) > 0 || (operation.pods.is_empty() && call.pods.is_empty()))
    };
    let candidates = (0..refused.len()).filter(|index| fits(&refused[*index]));
    // Of equals the oldest.
    let index = candidates.rev().max_by_key(|index| shared(&refused[*index]))?;
    let mut operation = refused.remove(index);
    let next = operation.launch()?.again(call.request.clone());
    let note = format!(
        "attempt {} planned: {} in {} ({})",
        next.request.attempt, next.request.count, next.request.zone, next.request.market
    );
    operation.what = Kind::Launch(next);
    operation.pods.clone_from(&call.pods);
    operation.decision = Some(decision.clone());
    operation.grounds = call.grounds.clone();
    operation.error = None;
    operation.error_type = None;
    operation.advance(Phase::Planned, now, note).ok()?;
    Some(operation)
}

fn removal_words(removal: &smartscale_planner::Removal) -> &'static str {
    if let Some(due) = removal.due {
        return due.clause();
    }
    match removal.reason {
        RemovalReason::Empty => "empty",
        RemovalReason::Underutilised => "its pods fit elsewhere",
        RemovalReason::Replaced => "replaced by a cheaper node",
    }
}
