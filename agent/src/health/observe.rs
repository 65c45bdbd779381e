//! The loops that observe health: vital signs at the pace of the reports, services and pods at their own, so that a slow
//! answer of one never holds up the others. What any of them finds changed is reported at once.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use smartscale_planner::model::Phase;
use smartscale_proto::{
    time::{SharedClock, within},
    v1,
};
use tokio::sync::{Notify, watch};

use super::{
    Reading, Vitals,
    change::changed,
    conditions::{Conditions, Services},
    sane::sane,
};
use crate::{config, kubelet::KubeletApi, units::Units};

/// Time for a call of the API.
const CALL_TIME: Duration = Duration::from_secs(10);

/// A report and when it was made.
pub type Sample = Option<(Timestamp, v1::Health)>;

/// The kubelet and the runtime are probed so often, which costs two connections on this machine; systemd, which costs a
/// process, is asked when one of them changes, and at its own pace.
const PROBES: Duration = Duration::from_secs(1);

/// What is known beside the vital signs.
#[derive(Clone, PartialEq, Default)]
struct Surroundings {
    units: Vec<v1::UnitState>,
    kubelet_healthy: Option<bool>,
    runtime_healthy: Option<bool>,
    pods: Option<v1::PodCounts>,
    node_ready: Option<bool>,
}

/// This machine's clock against the coordinator's, as it was at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skew {
    /// When, by the wall.
    pub wall: Timestamp,
    /// When, by the clock's elapsed time, which nobody sets.
    pub elapsed: Duration,
    /// How much this clock was ahead then.
    pub ahead: SignedDuration,
}

impl Skew {
    /// How much it is ahead now, in milliseconds: a clock that was set since then shows against the one that nobody sets.
    fn now_ms(&self, clock: &SharedClock) -> i64 {
        let set = clock.now().duration_since(self.wall);
        let passed = SignedDuration::try_from(clock.elapsed().saturating_sub(self.elapsed))
            .unwrap_or(SignedDuration::ZERO);
        let ahead = self.ahead.saturating_add(set).saturating_sub(passed);
        i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX)
    }
}

/// How often is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// While figures change.
    pub changing: Duration,
    /// While they do not.
    pub quiet: Duration,
}

/// Observes the machine's health.
pub struct Observer {
    /// Reads vital signs.
    pub vitals: Arc<dyn Vitals>,
    /// Asks for the state of units.
    pub units: Arc<dyn Units>,
    /// Asks for pods and node.
    pub kubelet: Arc<dyn KubeletApi>,
    /// The clock.
    pub clock: SharedClock,
    /// The unit that makes the node work.
    pub unit: String,
    /// The configured intervals.
    pub settings: config::Health,
    /// The intervals that the coordinator wishes.
    pub intervals: watch::Receiver<Intervals>,
    /// The coordinator's clock, once it was told.
    pub skew: watch::Receiver<Option<Skew>>,
    /// The node's name, once it is known.
    pub node: watch::Receiver<Option<String>>,
    /// Where the latest report goes.
    pub latest: watch::Sender<Sample>,
}

impl Observer {
    /// Observes for ever.
    pub async fn run(self) {
        let around = Around::default();
        tokio::join!(self.report(&around), self.services(&around), self.pods(&around));
    }

    async fn report(&self, around: &Around) {
        let mut last: Option<(Duration, v1::Health)> = None;
        let mut conditions = Conditions::default();
        loop {
            let intervals = *self.intervals.borrow();
            let reading = self.vitals.read().await;
            let known = around.known().clone();
            let now = self.clock.elapsed();
            let services = Services {
                kubelet: known.kubelet_healthy,
                runtime: known.runtime_healthy,
                expected: known.is_meant_to_run(),
                skew_ms: self.skew.borrow().map(|skew| skew.now_ms(&self.clock)),
            };
            let standing = conditions.take(&reading, services, now, self.clock.now());
            let health = compose(&reading, &known, services, standing);
            let due = last.as_ref().is_none_or(|(at, before)| {
                changed(before, &health)
                    || now.saturating_sub(*at) + intervals.changing / 2 >= intervals.quiet
            });
            if due {
                last = Some((now, health.clone()));
                self.latest.send_replace(Some((self.clock.now(), health)));
            }
            tokio::select! {
                () = self.clock.sleep(intervals.changing) => {}
                () = around.news.notified() => {}
            }
        }
    }

    async fn services(&self, around: &Around) {
        let pace = PROBES.min(self.settings.services);
        let mut asked: Option<Duration> = None;
        loop {
            let (kubelet, runtime) =
                tokio::join!(self.vitals.kubelet_healthy(), self.vitals.runtime_healthy());
            let now = self.clock.elapsed();
            let known = around.known().clone();
            let flipped = known.kubelet_healthy != kubelet || known.runtime_healthy != runtime;
            let due = asked.is_none_or(|asked| now.saturating_sub(asked) >= self.settings.services);
            let units = if due || flipped {
                asked = Some(now);
                self.unit_states().await
            } else {
                known.units
            };
            around.learn(|around| {
                around.units = units;
                around.kubelet_healthy = kubelet;
                around.runtime_healthy = runtime;
            });
            self.clock.sleep(pace).await;
        }
    }

    async fn unit_states(&self) -> Vec<v1::UnitState> {
        let state = self.units.active_state(&self.unit).await;
        let state = state.inspect_err(|error| tracing::debug!(%error, "the state of the unit is unknown"));
        let state = state.map(|active_state| v1::UnitState {
            unit: self.unit.clone(),
            active_state,
        });
        state.into_iter().collect()
    }

    async fn pods(&self, around: &Around) {
        loop {
            let node = self.node.borrow().clone();
            if let Some(node) = node {
                let phases = within(&*self.clock, CALL_TIME, self.kubelet.phases(&node)).await;
                let ready = within(&*self.clock, CALL_TIME, self.kubelet.node(&node)).await;
                around.learn(|around| {
                    around.pods = phases.and_then(Result::ok).map(|phases| count(&phases));
                    around.node_ready = ready.and_then(Result::ok).map(|node| node.ready);
                });
            }
            self.clock.sleep(self.settings.pods).await;
        }
    }
}

/// The surroundings, and a word to whoever waits for news of them.
#[derive(Default)]
struct Around {
    known: Mutex<Surroundings>,
    news: Notify,
}

impl Around {
    fn known(&self) -> MutexGuard<'_, Surroundings> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, change: impl FnOnce(&mut Surroundings)) {
        let mut known = self.known();
        let before = known.clone();
        change(&mut known);
        if *known != before {
            self.news.notify_one();
        }
    }
}

impl Surroundings {
    /// Whether kubelet and runtime should answer: a unit that is still starting, or was stopped, owes nothing.
    fn is_meant_to_run(&self) -> bool {
        self.units
            .iter()
            .any(|unit| matches!(unit.active_state.as_str(), "active" | "failed"))
    }
}

fn count(phases: &[(Phase, bool)]) -> v1::PodCounts {
    let mut counts = v1::PodCounts::default();
    for (phase, is_terminating) in phases {
        match phase {
            Phase::Pending => counts.pending += 1,
            Phase::Running => counts.running += 1,
            Phase::Succeeded => counts.succeeded += 1,
            Phase::Failed => counts.failed += 1,
            Phase::Unknown => {}
        }
        counts.terminating += u32::from(*is_terminating);
    }
    counts
}

fn compose(
    reading: &Reading,
    around: &Surroundings,
    services: Services,
    conditions: Vec<v1::HealthCondition>,
) -> v1::Health {
    let pressure = v1::Pressure {
        cpu_some_percent: reading.cpu_pressure,
        memory_some_percent: reading.memory_pressure,
        io_some_percent: reading.io_pressure,
    };
    sane(v1::Health {
        cpu_percent: reading.cpu_percent,
        memory_percent: reading.memory_percent,
        memory_total_bytes: reading.memory_total_bytes,
        load1: reading.load1,
        pressure: (pressure != v1::Pressure::default()).then_some(pressure),
        disk_percent: reading.disk_percent,
        inode_percent: reading.inode_percent,
        pods: around.pods,
        units: around.units.clone(),
        node_ready: around.node_ready,
        kubelet_healthy: around.kubelet_healthy,
        runtime_healthy: around.runtime_healthy,
        steal_percent: reading.steal_percent,
        root_disk_percent: reading.root_disk_percent,
        image_disk_percent: reading.image_disk_percent,
        conntrack_percent: reading.conntrack_percent,
        oom_kills: reading.oom_kills,
        nic_errors: reading.nic_errors,
        // To a tenth of a second: the way here took that long.
        clock_skew_ms: services.skew_ms.map(|skew| skew / 100 * 100),
        conditions,
    })
}

#[cfg(test)]
mod tests;
