//! The oracle: at every tick the cheapest nodes for the most pods that will be wanted until what is launched now would be Ready.
//! It lets no pod wait and drains nothing, and is short where the fixed fleet is.

use std::collections::VecDeque;

use crate::{
    cheapest::Cheapest,
    replay::Totals,
    tick::{HOURS, Tick, ticks},
    trace::Trace,
    workload::Workload,
    world::Wanted,
};

/// Pods wanted at each tick of the whole history. Only those look at it that may know everything.
pub(crate) fn pods_wanted<'t>(trace: &'t Trace, workload: &'t Workload) -> impl Iterator<Item = u32> + 't {
    let mut wanted = Wanted::default();
    trace.arrivals().enumerate().map(move |(index, requests)| {
        let now = Tick(u32::try_from(index).unwrap_or(u32::MAX));
        wanted.most(
            now,
            workload.wanted(requests * f64::from(crate::tick::PER_MINUTE)),
        )
    })
}

/// What it comes to. `fixed` is what the fixed fleet came to.
pub(crate) fn totals(trace: &Trace, workload: &Workload, cheapest: &Cheapest, fixed: &Totals) -> Totals {
    let boot = ticks(workload.cloud.boot) as usize;
    let mut totals = Totals {
        shortfall_minutes: fixed.shortfall_minutes,
        unserved_requests: fixed.unserved_requests,
        ..Totals::default()
    };
    let mut take = |pods: u32| {
        let set = cheapest.of(pods);
        let nodes = u32::try_from(set.nodes).unwrap_or(u32::MAX);
        totals.cost_usd += set.cost * HOURS;
        totals.node_hours += f64::from(nodes) * HOURS;
        totals.peak_nodes = totals.peak_nodes.max(nodes);
    };
    // Of the ticks ahead, those whose demand nothing later within reach exceeds: the greatest first.
    let mut ahead: VecDeque<(usize, u32)> = VecDeque::new();
    let mut end = 0;
    for (index, pods) in pods_wanted(trace, workload).enumerate() {
        while ahead.back().is_some_and(|(_, count)| *count <= pods) {
            ahead.pop_back();
        }
        ahead.push_back((index, pods));
        end = index + 1;
        if let Some(now) = index.checked_sub(boot) {
            ahead.retain_from(now);
            take(ahead.front().map_or(0, |(_, count)| *count));
        }
    }
    // The history ends before the last launches would be Ready.
    for now in end.saturating_sub(boot)..end {
        ahead.retain_from(now);
        take(ahead.front().map_or(0, |(_, count)| *count));
    }
    totals
}

trait RetainFrom {
    /// Drops what is before `now`.
    fn retain_from(&mut self, now: usize);
}

impl RetainFrom for VecDeque<(usize, u32)> {
    fn retain_from(&mut self, now: usize) {
        while self.front().is_some_and(|(index, _)| *index < now) {
            self.pop_front();
        }
    }
}
