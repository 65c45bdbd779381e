//! The loops that observe health: vital signs at the pace of the reports, services and pods at their own, so that a slow
//! answer of one never holds up the others.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use smartscale_planner::model::Phase;
use smartscale_proto::{
    time::{SharedClock, within},
    v1,
};
use tokio::sync::watch;

use super::{Reading, Vitals, change::changed, sane::sane};
use crate::{
    config,
    kubelet::{KubeletApi, OwnPod},
    units::Units,
};

/// Time for a call of the API.
const CALL_TIME: Duration = Duration::from_secs(10);

/// A report and when it was made.
pub type Sample = Option<(Timestamp, v1::Health)>;

/// What is known beside the vital signs.
#[derive(Default)]
struct Surroundings {
    units: Vec<v1::UnitState>,
    kubelet_healthy: Option<bool>,
    runtime_healthy: Option<bool>,
    pods: Option<v1::PodCounts>,
    node_ready: Option<bool>,
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
    /// The node's name, once it is known.
    pub node: watch::Receiver<Option<String>>,
    /// Where the latest report goes.
    pub latest: watch::Sender<Sample>,
}

impl Observer {
    /// Observes for ever.
    pub async fn run(self) {
        let around = Mutex::new(Surroundings::default());
        tokio::join!(self.report(&around), self.services(&around), self.pods(&around));
    }

    async fn report(&self, around: &Mutex<Surroundings>) {
        let mut last: Option<(Duration, v1::Health)> = None;
        loop {
            let intervals = *self.intervals.borrow();
            let health = compose(&self.vitals.read().await, &lock(around));
            let now = self.clock.elapsed();
            let due = last.as_ref().is_none_or(|(at, before)| {
                changed(before, &health)
                    || now.saturating_sub(*at) + intervals.changing / 2 >= intervals.quiet
            });
            if due {
                last = Some((now, health.clone()));
                self.latest.send_replace(Some((self.clock.now(), health)));
            }
            self.clock.sleep(intervals.changing).await;
        }
    }

    async fn services(&self, around: &Mutex<Surroundings>) {
        loop {
            let (unit, kubelet, runtime) = tokio::join!(
                self.units.active_state(&self.unit),
                self.vitals.kubelet_healthy(),
                self.vitals.runtime_healthy()
            );
            let units = unit
                .inspect_err(|error| tracing::debug!(%error, "the state of the unit is unknown"))
                .map(|active_state| {
                    vec![v1::UnitState {
                        unit: self.unit.clone(),
                        active_state,
                    }]
                });
            {
                let mut around = lock(around);
                around.units = units.unwrap_or_default();
                around.kubelet_healthy = kubelet;
                around.runtime_healthy = runtime;
            }
            self.clock.sleep(self.settings.services).await;
        }
    }

    async fn pods(&self, around: &Mutex<Surroundings>) {
        loop {
            let node = self.node.borrow().clone();
            if let Some(node) = node {
                let pods = within(&*self.clock, CALL_TIME, self.kubelet.pods(&node, false)).await;
                let ready = within(&*self.clock, CALL_TIME, self.kubelet.node(&node)).await;
                let mut around = lock(around);
                around.pods = pods.and_then(Result::ok).map(|pods| count(&pods));
                around.node_ready = ready.and_then(Result::ok).map(|node| node.ready);
            }
            self.clock.sleep(self.settings.pods).await;
        }
    }
}

fn lock(around: &Mutex<Surroundings>) -> MutexGuard<'_, Surroundings> {
    around.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(pods: &[OwnPod]) -> v1::PodCounts {
    let mut counts = v1::PodCounts::default();
    for own in pods {
        match own.pod.phase {
            Phase::Pending => counts.pending += 1,
            Phase::Running => counts.running += 1,
            Phase::Succeeded => counts.succeeded += 1,
            Phase::Failed => counts.failed += 1,
            Phase::Unknown => {}
        }
        counts.terminating += u32::from(own.pod.is_terminating());
    }
    counts
}

fn compose(reading: &Reading, around: &Surroundings) -> v1::Health {
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
    })
}
