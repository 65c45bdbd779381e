//! One run: tick after tick of the history, decided by somebody.

use smartscale_planner::model::Market;

use crate::{
    decide::Decider,
    series::Recorder,
    tick::{HOURS, PER_MINUTE, TICK, Tick},
    trace::Trace,
    world::{Measured, Scenery, World},
};

/// What a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Totals {
    /// Hours of nodes that were billed.
    pub node_hours: f64,
    /// USD.
    pub cost_usd: f64,
    /// Minutes from the first row in which some tick was short.
    pub shortfall_minutes: u64,
    /// Requests that nobody served.
    pub unserved_requests: f64,
    /// Seconds that pods waited for a node, added up.
    pub pending_pod_seconds: f64,
    /// Launches that succeeded.
    pub launches: u64,
    /// Nodes that ended before the history did.
    pub terminations: u64,
    /// Pods that were displaced by a removal or an interruption.
    pub evictions: u64,
    /// Most nodes that were billed at once.
    pub peak_nodes: u32,
    /// Ticks in which something was launched or removed.
    pub decisions: u64,
}

/// Replays the whole history.
pub(crate) fn run(
    scenery: &Scenery<'_>,
    trace: &Trace,
    nodes: &[(usize, Market)],
    decider: &mut impl Decider,
    arrange: impl FnOnce(&mut World<'_>),
    recorder: &mut impl Recorder,
) -> Totals {
    let mut world = World::new(scenery, nodes);
    arrange(&mut world);
    let mut sums = Sums::default();
    for (index, requests) in trace.arrivals().enumerate() {
        let now = Tick(u32::try_from(index).unwrap_or(u32::MAX));
        world.begin(now, requests);
        let acted = decider.decide(&mut world);
        if acted {
            world.bind();
        }
        let measured = world.measure();
        sums.take(now, &measured, acted);
        recorder.record(now, &measured, decider.forecast());
    }
    recorder.finish();
    let counts = world.counts();
    Totals {
        launches: counts.launches,
        terminations: counts.terminations,
        evictions: counts.evictions,
        ..sums.totals
    }
}

/// What ticks add up to.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) totals: Totals,
    /// The last minute that was short.
    short: Option<u32>,
}

impl Sums {
    fn take(&mut self, now: Tick, measured: &Measured, acted: bool) {
        let totals = &mut self.totals;
        totals.node_hours += f64::from(measured.billed) * HOURS;
        totals.cost_usd += measured.cost * HOURS;
        totals.unserved_requests += measured.unserved;
        totals.pending_pod_seconds += f64::from(measured.pending) * TICK.as_secs_f64();
        totals.peak_nodes = totals.peak_nodes.max(measured.billed);
        totals.decisions += u64::from(acted);
        let minute = now.0 / PER_MINUTE;
        if measured.short && self.short != Some(minute) {
            self.short = Some(minute);
            totals.shortfall_minutes += 1;
        }
    }
}
