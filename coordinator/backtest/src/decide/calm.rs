//! When a plan that did nothing would be the same again, so that it need not be made: nothing has changed that it reads, and no
//! time has come that it waits for.
//!
//! A plan reads the objects, the newest averages (against the scale-up thresholds, and, where something could go, in all or, with
//! `when = "thresholds"`, against those figures), by thresholds each node's usage too, and times: cooldowns, ages, how long a node is unneeded. A test
//! holds runs with and without this against each other.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use smartscale_planner::{
    PATIENCE_FOR_EACH_POD, Plan, Policy, Snapshot, policy::ScaleDownWhen, snapshot::Reading,
};

use crate::world::World;

/// What the last plan saw, which did nothing.
#[derive(Debug)]
pub(super) struct Calm {
    version: u64,
    /// From then on it may be another.
    until: Timestamp,
    /// Some node could go, if it were unneeded for longer or the averages were others.
    waits: bool,
    /// Which nodes are used less than the figures of `thresholds` say.
    idle: Vec<bool>,
}

impl Calm {
    /// After a plan that did nothing; `None` where too much may change.
    pub(super) fn after(
        plan: &Plan,
        policy: &Policy,
        snapshot: &Snapshot,
        world: &World<'_>,
    ) -> Option<Self> {
        let state = &snapshot.state;
        let newest = snapshot.metrics.cluster.last();
        let waits = !plan.unneeded_since.is_empty();
        let sustained = signed(policy.scale_down.sustained);
        let has_clocks = !policy.freezes.is_empty()
            || !policy.schedules.is_empty()
            || policy.limits.max_launches_per_hour > 0
            || policy.pools.iter().any(|pool| pool.max_age.is_some())
            || !state.backoff.is_empty();
        if has_clocks || waits && (sustained.is_zero() || newest.is_some_and(|newest| is_low(policy, newest)))
        {
            return None;
        }
        let now = world.time();
        let mut until = Timestamp::MAX;
        let mut consider = |from: Timestamp, wait: SignedDuration| {
            if let Ok(at) = from.checked_add(wait)
                && at > now
            {
                until = until.min(at);
            }
        };
        if let Some(last) = state.last_scale_time {
            consider(last, signed(policy.scale_up.cooldown));
            consider(last, signed(policy.scale_down.cooldown));
        }
        let start = world.scenery().start;
        for node in world.nodes() {
            if let Some(ready) = node.ready_since {
                consider(ready.time(start), signed(policy.scale_down.min_age));
            }
        }
        for since in plan.unneeded_since.values() {
            // So much, and with `steer` so much more for each pod.
            let passed = now.duration_since(*since).saturating_sub(sustained);
            let whole = passed.as_nanos().max(0) / PATIENCE_FOR_EACH_POD.as_nanos();
            let more = PATIENCE_FOR_EACH_POD.checked_mul(i32::try_from(whole + 1).unwrap_or(i32::MAX));
            consider(*since, sustained);
            consider(
                *since,
                more.map_or(SignedDuration::MAX, |more| sustained.saturating_add(more)),
            );
        }
        Some(Self {
            version: world.version(),
            until,
            waits,
            idle: idle(policy, world),
        })
    }

    /// Whether the plan would be the same at the present tick. `reading`: one that was taken at this tick.
    pub(super) fn lasts(&self, policy: &Policy, world: &World<'_>, reading: Option<&Reading>) -> bool {
        let is_high = |reading: &Reading| {
            let above = |figure: Option<f64>, bound: f64| figure.is_some_and(|figure| figure > bound);
            above(reading.cpu_percent, policy.scale_up.cpu_percent.0)
                || above(reading.memory_percent, policy.scale_up.memory_percent.0)
        };
        // The veto asks every reading; by thresholds nothing goes before one is low.
        let may_go = |reading: &Reading| !by_thresholds(policy) || is_low(policy, reading);
        self.version == world.version()
            && world.time() < self.until
            && !reading.is_some_and(|reading| is_high(reading) || self.waits && may_go(reading))
            && self.idle == idle(policy, world)
    }
}

fn by_thresholds(policy: &Policy) -> bool {
    policy.scale_down.when == ScaleDownWhen::Thresholds
}

/// Averages of which the rule of `thresholds` may come to allow removals.
fn is_low(policy: &Policy, reading: &Reading) -> bool {
    let down = &policy.scale_down;
    let below = |figure: Option<f64>, bound: f64| figure.is_none_or(|figure| figure < bound);
    by_thresholds(policy)
        && below(reading.cpu_percent, down.cpu_percent.0)
        && below(reading.memory_percent, down.memory_percent.0)
}

fn idle(policy: &Policy, world: &World<'_>) -> Vec<bool> {
    let down = &policy.scale_down;
    if !by_thresholds(policy) {
        return Vec::new();
    }
    let is_idle = |node| {
        let usage = world.usage(node);
        usage.cpu_percent < down.cpu_percent.0 && usage.memory_percent < down.memory_percent.0
    };
    world.nodes().iter().map(is_idle).collect()
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
