//! Limits on launches, with their figures.

use serde::Serialize;

use super::{
    Seen,
    words::{count, moment, span},
};
use crate::{PendingCode, decide::launched, model::Pod};

/// A limit on launches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limit {
    /// Its key in the policy or state.
    pub limit: String,
    /// Whether it is what keeps the pod pending.
    pub stops: bool,
    /// Its figures.
    pub detail: String,
}

impl Seen<'_, '_> {
    /// All that apply, as they stand after this plan's launches.
    pub(super) fn limits(&self, pod: &Pod, code: Option<PendingCode>) -> Vec<Limit> {
        let (context, policy) = (self.context, self.context.policy);
        let mut limits = Vec::new();
        let mut limit = |limit: &str, stops: bool, detail: String| {
            limits.push(Limit {
                limit: limit.to_owned(),
                stops,
                detail,
            });
        };
        let is = |wanted: PendingCode| code == Some(wanted);
        let stopped = &context.snapshot.state.stopped_pools;
        for stopped in stopped.iter().filter(|stopped| stopped.until > context.now) {
            limit(
                "stopped pool",
                is(PendingCode::BackedOff),
                format!(
                    "{} until {}: {}",
                    stopped.pool,
                    moment(stopped.until),
                    stopped.reason
                ),
            );
        }
        let backed_off = context
            .offerings
            .iter()
            .filter(|offering| offering.backed_off)
            .count();
        if backed_off > 0 {
            let until = context
                .snapshot
                .state
                .backoff
                .iter()
                .map(|entry| entry.until)
                .filter(|until| *until > context.now)
                .min();
            let until = until.map_or_else(String::new, |until| {
                format!(", the first until {}", moment(until))
            });
            let all = context.offerings.len();
            limit(
                "back-off",
                is(PendingCode::BackedOff),
                format!("{backed_off} of {} failed lately{until}", count(all, "offering")),
            );
        }
        let room = &self.outcome.room;
        let nodes: usize = room.pools.values().map(|count| count.nodes).sum();
        let max = policy.limits.max_nodes;
        let at_max = is(PendingCode::AtMaxNodes);
        limit(
            "limits.max_nodes",
            at_max && nodes >= max as usize,
            format!("{nodes} of {max} nodes, this plan's launches included"),
        );
        for pool in &policy.pools {
            let nodes = room.pools.get(&pool.name).map_or(0, |count| count.nodes);
            if pool.max_nodes < max {
                limit(
                    &format!("pool {}: max_nodes", pool.name),
                    at_max && nodes >= pool.max_nodes as usize,
                    format!("{nodes} of {} nodes", pool.max_nodes),
                );
            }
        }
        if policy.scale_up.max_step > 0 {
            limit(
                "scale_up.max_step",
                is(PendingCode::MaxStep),
                format!(
                    "{} of {} launches in one decision",
                    self.outcome.launches.len(),
                    policy.scale_up.max_step
                ),
            );
        }
        if context.cooldown_up {
            let since = context.snapshot.state.last_scale_time;
            let ago = since.map_or_else(String::new, |at| {
                format!(
                    "the last scale-up was {} ago; ",
                    span(context.now.duration_since(at))
                )
            });
            limit(
                "scale_up.cooldown",
                false,
                format!("{ago}it does not apply to pods that no node under way can take"),
            );
        }
        let of_all = &policy.limits;
        if of_all.max_launches_per_hour > 0 {
            limit(
                "limits.max_launches_per_hour",
                is(PendingCode::MaxStep) && context.brakes.rate_is_least(&policy.scale_up),
                format!(
                    "{} of {} were launched within the last hour, {} by this plan",
                    launched(&context.snapshot.state, context.now),
                    of_all.max_launches_per_hour,
                    self.outcome.launches.len()
                ),
            );
        }
        if of_all.max_usd_per_hour > 0.0 {
            let spent = of_all.max_usd_per_hour - context.brakes.usd;
            limit(
                "limits.max_usd_per_hour",
                is(PendingCode::Held) && self.outcome.too_dear,
                format!(
                    "nodes cost {spent:.4} of {} USD an hour before this plan",
                    of_all.max_usd_per_hour
                ),
            );
        }
        if context.brakes.launches {
            let state = &context.snapshot.state;
            limit(
                match () {
                    () if state.paused => "paused",
                    () if state.scaling_in_progress => "scaling_in_progress",
                    () => "freeze",
                },
                is(PendingCode::Held),
                "nothing is launched now".to_owned(),
            );
        }
        if policy.scale_up.priority_cutoff > i32::MIN {
            limit(
                "scale_up.priority_cutoff",
                is(PendingCode::PriorityCutoff),
                format!(
                    "priority {} against {}",
                    pod.priority, policy.scale_up.priority_cutoff
                ),
            );
        }
        limits
    }
}
