//! The calls that a drain starts, and when: at most one about the node, one list, and one a pod at a time.

use std::{sync::Arc, time::Duration};

use futures_util::stream::FuturesUnordered;
use smartscale_planner::drainability::Tier;
use smartscale_proto::time::within;

use super::{
    OnTimeout, attempt,
    engine::{Engine, Event, Flight, Run},
    state::{Cordon, DrainState, Moment, PodRecord, PodStage, Stage},
};

/// For so long after the list was asked for, what it says of a pod need not be read again before its eviction.
const READ_LASTS: Duration = Duration::from_secs(1);

impl Engine {
    /// Starts what is due in this stage.
    pub(super) fn start(
        &self,
        drain: &mut DrainState,
        run: &mut Run,
        flights: &mut FuturesUnordered<Flight>,
    ) {
        let now = self.tools.clock.elapsed();
        match drain.stage {
            Stage::Cordoning | Stage::Aborting => {
                if run.node.is_due(now) {
                    run.node.flying = true;
                    flights.push(self.node_call(drain));
                }
            }
            Stage::Evicting | Stage::Forcing => {
                if run.list.is_due(now) {
                    run.list.flying = true;
                    flights.push(self.list_call(drain));
                }
                if drain.stage == Stage::Evicting {
                    self.start_evictions(drain, run, flights);
                } else {
                    self.start_deletions(drain, run, flights);
                }
            }
            Stage::Drained | Stage::Aborted | Stage::Failed => {}
        }
    }

    fn start_evictions(&self, drain: &mut DrainState, run: &mut Run, flights: &mut FuturesUnordered<Flight>) {
        let now = self.tools.clock.elapsed();
        let Some(allowed) = allowed_tier(drain, run, now) else {
            return;
        };
        let due = |pod: &PodRecord| {
            pod.is_open()
                && matches!(pod.stage, PodStage::Waiting | PodStage::Budget)
                && pod.tier() <= allowed
        };
        let graces: Vec<_> = drain
            .pods
            .iter()
            .map(|pod| self.eviction_grace(drain, pod.grace))
            .collect();
        // All of them were read just now, when they were listed.
        let is_read = run
            .listed
            .is_some_and(|asked| now.saturating_sub(asked) < READ_LASTS);
        let pods = drain.pods.iter_mut().zip(graces);
        for (pod, grace) in pods.filter(|(pod, _)| due(pod)) {
            let attempts = run.pods.entry(pod.uid.clone()).or_default();
            if attempts.is_due(now) {
                attempts.flying = true;
                let (api, clock) = (Arc::clone(&self.tools.api), Arc::clone(&self.tools.clock));
                let (limit, uid) = (self.tools.settings.call_time, pod.uid.clone());
                let target = attempt::Target {
                    key: pod.key.clone(),
                    uid: uid.clone(),
                    is_read,
                };
                flights.push(Box::pin(async move {
                    let attempt = attempt::evict(api, clock, limit, target, grace).await;
                    Event::Attempted(uid, attempt)
                }));
            }
        }
    }

    fn start_deletions(&self, drain: &mut DrainState, run: &mut Run, flights: &mut FuturesUnordered<Flight>) {
        let now = self.tools.clock.elapsed();
        let cap = self.force_grace(drain);
        let end = Moment::after(&self.tools.clock, cap).wall;
        for pod in drain
            .pods
            .iter()
            .filter(|pod| pod.is_open() && pod.stage != PodStage::Forced)
        {
            // One that ends in time by itself is left to it.
            if pod.stage == PodStage::Terminating && pod.ends_at.is_none_or(|at| at <= end) {
                continue;
            }
            let attempts = run.pods.entry(pod.uid.clone()).or_default();
            if attempts.is_due(now) {
                attempts.flying = true;
                let (api, clock) = (Arc::clone(&self.tools.api), Arc::clone(&self.tools.clock));
                let (limit, key, uid) = (self.tools.settings.call_time, pod.key.clone(), pod.uid.clone());
                let grace = pod.grace.clamp(Duration::from_secs(1), cap);
                flights.push(Box::pin(async move {
                    let call = api.delete(&key, &uid, grace);
                    let done = within(&*clock, limit, call)
                        .await
                        .unwrap_or_else(|| Err(attempt::too_late()));
                    Event::Deleted(uid, done)
                }));
            }
        }
    }

    fn list_call(&self, drain: &DrainState) -> Flight {
        let (api, clock) = (Arc::clone(&self.tools.api), Arc::clone(&self.tools.clock));
        let (limit, node) = (self.tools.settings.call_time, drain.node.clone());
        Box::pin(async move {
            let asked = clock.elapsed();
            let listed = within(&*clock, limit, api.pods(&node)).await;
            Event::Listed(asked, listed.unwrap_or_else(|| Err(attempt::too_late())))
        })
    }

    /// The next call about the node: read it, cordon it, or uncordon it.
    fn node_call(&self, drain: &DrainState) -> Flight {
        let (api, clock) = (Arc::clone(&self.tools.api), Arc::clone(&self.tools.clock));
        let (limit, node) = (self.tools.settings.call_time, drain.node.clone());
        let operation = drain.operations.first().cloned().unwrap_or_default();
        let late = || Err(attempt::too_late());
        match (drain.stage, drain.cordon) {
            (Stage::Aborting, _) => Box::pin(async move {
                let uncordon = async {
                    let present = api.node(&node).await?;
                    // Without our mark somebody else has taken the cordon over.
                    if present.unschedulable && present.cordoned_by.is_some() {
                        api.uncordon(&node).await?;
                    }
                    Ok(())
                };
                Event::Uncordoned(within(&*clock, limit, uncordon).await.unwrap_or_else(late))
            }),
            (_, Cordon::Ours) => Box::pin(async move {
                let call = api.cordon(&node, &operation);
                Event::Cordoned(within(&*clock, limit, call).await.unwrap_or_else(late))
            }),
            (_, Cordon::Unknown | Cordon::Foreign) => Box::pin(async move {
                let read = within(&*clock, limit, api.node(&node)).await;
                Event::Node(read.unwrap_or_else(|| Err(attempt::too_late())))
            }),
        }
    }
}

/// The highest tier whose pods may be told to go. The lowest one that still has pods; in a drain that will be forced
/// each tier has the stage for its share of the time that is left, so that a pod that never leaves does not cost those after
/// it their graceful end.
fn allowed_tier(drain: &DrainState, run: &mut Run, now: Duration) -> Option<Tier> {
    let mut open: Vec<Tier> = drain
        .pods
        .iter()
        .filter(|pod| pod.is_open())
        .map(PodRecord::tier)
        .collect();
    open.sort_unstable();
    open.dedup();
    let lowest = *open.first()?;
    let share = |after: usize| {
        let left = drain.deadline.elapsed.saturating_sub(now);
        left / u32::try_from(after.max(1)).unwrap_or(u32::MAX)
    };
    let (mut allowed, mut since, mut time) = match run.tier {
        Some(present) if present.0 >= lowest => present,
        _ => (lowest, now, share(open.len())),
    };
    if drain.on_timeout == OnTimeout::Force && now >= since + time {
        let later: Vec<Tier> = open.iter().copied().filter(|tier| *tier > allowed).collect();
        if let Some(next) = later.first() {
            (allowed, since, time) = (*next, now, share(later.len()));
        }
    }
    run.tier = Some((allowed, since, time));
    Some(allowed)
}
