//! What may be done at all now: an operation that runs, a pause, freeze windows, and the most that is launched and spent
//! in an hour.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::{
    Hold, Policy, Snapshot,
    policy::{ScaleUp, Stop},
    snapshot::{Launching, State},
};

/// Launches count for so long.
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// What is stopped, and what is left of the bounds.
#[derive(Clone, Debug)]
pub(crate) struct Brakes {
    /// Nothing at all is done: an operation runs, or somebody paused.
    pub(crate) stopped: bool,
    /// Nothing is launched.
    pub(crate) launches: bool,
    /// Nothing is removed without a new node.
    pub(crate) removals: bool,
    /// Nothing is replaced.
    pub(crate) replacements: bool,
    /// The first end of a freeze that holds.
    pub(crate) frozen_until: Option<Timestamp>,
    /// `limits.max_launches_per_hour` still allows so many.
    pub(crate) nodes: usize,
    /// `limits.max_usd_per_hour` still allows so much.
    pub(crate) usd: f64,
}

impl Brakes {
    pub(super) fn new(
        snapshot: &Snapshot,
        policy: &Policy,
        launching: &[&Launching],
        now: Timestamp,
    ) -> Self {
        let state = &snapshot.state;
        let stopped = state.paused || state.scaling_in_progress;
        let mut brakes = Self {
            stopped,
            launches: stopped,
            removals: stopped,
            replacements: stopped,
            frozen_until: None,
            nodes: usize::MAX,
            usd: f64::INFINITY,
        };
        if state.brakes_lifted_until.is_some_and(|until| now < until) {
            return brakes;
        }
        for freeze in &policy.freezes {
            let Some(until) = freeze.window.until(now) else {
                continue;
            };
            brakes.launches |= freeze.stops(Stop::ScaleUp);
            brakes.removals |= freeze.stops(Stop::ScaleDown);
            brakes.replacements |= freeze.stops(Stop::Replace);
            brakes.frozen_until = Some(brakes.frozen_until.map_or(until, |other| other.min(until)));
        }
        let limits = &policy.limits;
        if limits.max_launches_per_hour > 0 {
            brakes.nodes = (limits.max_launches_per_hour as usize).saturating_sub(launched(state, now));
        }
        if limits.max_usd_per_hour > 0.0 {
            let nodes = snapshot.cluster.nodes.iter();
            let ours = nodes.filter(|node| policy.pool_of(node).is_some());
            let running: f64 = ours.filter_map(|node| policy.price_of(node)).sum();
            let price_of = |entry: &&Launching| {
                policy
                    .types
                    .get(&entry.instance_type)?
                    .price(&entry.zone, entry.market)
            };
            let coming: f64 = launching
                .iter()
                .filter_map(price_of)
                .map(|price| price.per_hour)
                .sum();
            brakes.usd = limits.max_usd_per_hour - running - coming;
        }
        brakes
    }

    /// Whether the launches of an hour are the narrower bound of a decision, not `scale_up.max_step`.
    pub(crate) fn rate_is_least(&self, scale_up: &ScaleUp) -> bool {
        let step = scale_up.max_step as usize;
        self.nodes < usize::MAX && (step == 0 || self.nodes <= step)
    }

    pub(super) fn holds(&self) -> BTreeSet<Hold> {
        self.frozen_until.map(|_| Hold::Freeze).into_iter().collect()
    }
}

/// Nodes that were launched within the last hour. Times after `now` are not believed: they count as now.
pub(crate) fn launched(state: &State, now: Timestamp) -> usize {
    let recent = state
        .launched
        .iter()
        .filter(|launch| now.duration_since(launch.time) < HOUR);
    recent.map(|launch| launch.nodes as usize).sum()
}
