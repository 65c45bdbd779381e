//! Metrics for Prometheus, by its naming conventions: base units, `_total` for counters, few labels with few values.
//!
//! Counters follow from what is told; gauges are set by whoever knows. All of them are of this coordinator: a
//! standby's counters stand still, and [`set_leader`](Metrics::set_leader) says which one leads.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use super::{Event, Happening, Severity};
use crate::decide::Foreseen;

macro_rules! labels {
    ($($name:ident { $($field:ident),+ })+) => {$(
        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        struct $name { $($field: String),+ }
    )+};
}

labels! {
    ByAction { action }
    ByReason { reason }
    ByErrorType { error_type }
    ByNotice { kind, source }
    ByOutcome { outcome }
    ByOperation { kind, outcome }
    BySource { source }
    ByStep { step }
    BySink { sink }
    ByDelivery { sink, outcome }
    ByState { state }
    ByHold { hold }
    ByCode { code }
    ByQuantile { quantile }
    ByFloor { floor }
}

type Decimal = Gauge<f64, AtomicU64>;

/// The metrics of one coordinator; clones share them.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    decisions: Family<ByAction, Counter>,
    decision_seconds: Histogram,
    scale_up: Family<ByReason, Counter>,
    scale_down: Counter,
    failures: Family<ByErrorType, Counter>,
    operations: Family<ByOperation, Counter>,
    joins: Histogram,
    join_steps: Family<ByStep, Histogram>,
    notices: Family<ByNotice, Counter>,
    queue_messages: Family<ByOutcome, Counter>,
    drained_pods: Family<ByState, Counter>,
    troubles: Family<ByErrorType, Counter>,
    leases: Counter,
    dropped: Family<BySink, Counter>,
    notified: Family<ByDelivery, Counter>,
    nodes: Family<ByState, Gauge>,
    cost: Decimal,
    pending: Gauge,
    pending_age: Decimal,
    unplaced: Family<ByCode, Gauge>,
    held: Family<ByHold, Gauge>,
    agents: Gauge,
    leader: Gauge,
    cpu: Decimal,
    memory: Decimal,
    forecast: Family<ByQuantile, Decimal>,
    forecast_extra: Decimal,
    forecast_loss: Family<ByFloor, Decimal>,
    forecast_coverage: Decimal,
    forecast_active: Gauge,
    steered: Gauge,
    source_fresh: Family<BySource, Gauge>,
    source_age: Family<BySource, Decimal>,
    /// Of our own nodes, for CloudWatch; below zero while unknown.
    node_count: AtomicI64,
}

impl Metrics {
    /// Metrics of a coordinator of this version.
    #[must_use]
    pub fn new(version: &str) -> Self {
        // Boots take from seconds (simulated) to the five minutes after which a machine is given up.
        let joins = Histogram::new([
            5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0,
        ]);
        let of_a_step = || {
            Histogram::new([
                0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0,
            ])
        };
        let decision_seconds =
            Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
        let mut inner = Inner {
            registry: Registry::with_prefix("smartscale"),
            decisions: Family::default(),
            decision_seconds,
            scale_up: Family::default(),
            scale_down: Counter::default(),
            failures: Family::default(),
            operations: Family::default(),
            joins,
            join_steps: Family::new_with_constructor(of_a_step),
            notices: Family::default(),
            queue_messages: Family::default(),
            drained_pods: Family::default(),
            troubles: Family::default(),
            leases: Counter::default(),
            dropped: Family::default(),
            notified: Family::default(),
            nodes: Family::default(),
            cost: Decimal::default(),
            pending: Gauge::default(),
            pending_age: Decimal::default(),
            unplaced: Family::default(),
            held: Family::default(),
            agents: Gauge::default(),
            leader: Gauge::default(),
            cpu: Decimal::default(),
            memory: Decimal::default(),
            forecast: Family::default(),
            forecast_extra: Decimal::default(),
            forecast_loss: Family::default(),
            forecast_coverage: Decimal::default(),
            forecast_active: Gauge::default(),
            steered: Gauge::default(),
            source_fresh: Family::default(),
            source_age: Family::default(),
            node_count: AtomicI64::new(-1),
        };
        inner.cpu.set(f64::NAN);
        inner.memory.set(f64::NAN);
        inner.forecast_extra.set(f64::NAN);
        inner.forecast_coverage.set(f64::NAN);
        inner.register(version);
        inner.begin();
        Self {
            inner: Arc::new(inner),
        }
    }

    /// All metrics in the `OpenMetrics` text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail; a metric that could not be encoded would leave the text short.
        if let Err(error) = text::encode(&mut text, &self.inner.registry) {
            tracing::error!(%error, "metrics cannot be encoded");
        }
        text
    }

    /// A message of the queue of notices was read, and this became of it.
    pub fn count_queue_message(&self, outcome: &str) {
        self.inner
            .queue_messages
            .get_or_create(&ByOutcome {
                outcome: outcome.to_owned(),
            })
            .inc();
    }

    /// Nodes of ours: how many are Ready, and how many are known in all.
    pub fn set_nodes(&self, ready: u32, total: u32) {
        let set = |state: &str, n: u32| {
            self.inner
                .nodes
                .get_or_create(&ByState { state: state.into() })
                .set(i64::from(n));
        };
        set("ready", ready);
        set("not_ready", total.saturating_sub(ready));
        self.inner.node_count.store(i64::from(total), Ordering::Relaxed);
    }

    /// Nodes of ours; `None` while nobody knows.
    #[must_use]
    pub fn node_count(&self) -> Option<u32> {
        u32::try_from(self.inner.node_count.load(Ordering::Relaxed)).ok()
    }

    /// What our nodes cost in USD an hour.
    pub fn set_cost(&self, per_hour: f64) {
        self.inner.cost.set(per_hour);
    }

    /// Pods that wait for a place, and for how many seconds the one does that has waited longest.
    pub fn set_pending(&self, pods: usize, longest_seconds: f64) {
        self.inner.pending.set(i64::try_from(pods).unwrap_or(i64::MAX));
        self.inner.pending_age.set(longest_seconds);
    }

    /// Pods for which the plan found no place on any node, present or launched: one code each.
    pub fn set_unplaced(&self, codes: impl Iterator<Item = String>) {
        self.inner.unplaced.clear();
        for code in codes {
            self.inner.unplaced.get_or_create(&ByCode { code }).inc();
        }
    }

    /// What holds the latest decision back, in the words of its record.
    pub fn set_held(&self, holds: impl Iterator<Item = String>) {
        self.inner.held.clear();
        for hold in holds {
            self.inner.held.get_or_create(&ByHold { hold }).set(1);
        }
    }

    /// Agents with a session.
    pub fn set_agents(&self, agents: usize) {
        self.inner.agents.set(i64::try_from(agents).unwrap_or(i64::MAX));
    }

    /// Whether this coordinator leads.
    pub fn set_leader(&self, leads: bool) {
        self.inner.leader.set(i64::from(leads));
    }

    /// Whether this coordinator leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.inner.leader.get() == 1
    }

    /// Cluster averages in percent; unknown is NaN, as a gauge that shows the last known figure would lie.
    pub fn set_utilisation(&self, cpu_percent: Option<f64>, memory_percent: Option<f64>) {
        self.inner
            .cpu
            .set(cpu_percent.map_or(f64::NAN, |percent| percent / 100.0));
        self.inner
            .memory
            .set(memory_percent.map_or(f64::NAN, |percent| percent / 100.0));
    }

    /// Cluster averages of CPU and memory in percent; `None` while nobody knows.
    #[must_use]
    pub fn utilisation(&self) -> (Option<f64>, Option<f64>) {
        let percent = |gauge: &Decimal| Some(gauge.get() * 100.0).filter(|percent| percent.is_finite());
        (percent(&self.inner.cpu), percent(&self.inner.memory))
    }

    /// What the forecast expects and how good it has been; without one its gauges say so.
    pub fn set_forecast(&self, foreseen: Option<&Foreseen>) {
        const MILLI: f64 = 1000.0;
        let inner = &self.inner;
        inner.forecast.clear();
        inner.forecast_loss.clear();
        let Some(foreseen) = foreseen else {
            inner.forecast_extra.set(f64::NAN);
            inner.forecast_coverage.set(f64::NAN);
            inner.forecast_active.set(0);
            return;
        };
        let (band, accuracy) = (&foreseen.expectation.band, &foreseen.accuracy);
        for (quantile, value) in [(0.5, band.median), (foreseen.quantile, band.high)] {
            let labels = ByQuantile {
                quantile: quantile.to_string(),
            };
            inner.forecast.get_or_create(&labels).set(value / MILLI);
        }
        for (floor, loss) in [("forecast", accuracy.loss), ("none", accuracy.reactive_loss)] {
            let labels = ByFloor { floor: floor.into() };
            inner.forecast_loss.get_or_create(&labels).set(loss / MILLI);
        }
        inner.forecast_extra.set(foreseen.expectation.extra / MILLI);
        inner.forecast_coverage.set(accuracy.coverage);
        inner.forecast_active.set(i64::from(accuracy.helps));
    }

    /// Pods that scale-ins are led to.
    pub fn set_steered(&self, pods: usize) {
        self.inner.steered.set(i64::try_from(pods).unwrap_or(i64::MAX));
    }

    /// How a source stands.
    pub fn set_source(&self, source: &str, fresh: bool, age_seconds: Option<f64>) {
        let labels = BySource {
            source: source.into(),
        };
        self.inner
            .source_fresh
            .get_or_create(&labels)
            .set(i64::from(fresh));
        self.inner
            .source_age
            .get_or_create(&labels)
            .set(age_seconds.unwrap_or(f64::NAN));
    }

    pub(super) fn count(&self, happening: &Happening) {
        let inner = &*self.inner;
        match &happening.event {
            Event::Decided { action, seconds, .. } => {
                inner
                    .decisions
                    .get_or_create(&ByAction {
                        action: action.clone(),
                    })
                    .inc();
                inner.decision_seconds.observe(*seconds);
            }
            Event::Operation {
                ended: true,
                succeeded,
                operation_kind,
                error_type,
                grounds,
                ..
            } => {
                let outcome = if *succeeded { "succeeded" } else { "failed" };
                let labels = ByOperation {
                    kind: operation_kind.clone(),
                    outcome: outcome.into(),
                };
                inner.operations.get_or_create(&labels).inc();
                match (operation_kind.as_str(), succeeded) {
                    ("launch", true) => {
                        inner
                            .scale_up
                            .get_or_create(&ByReason {
                                reason: grounds.asked_by(),
                            })
                            .inc();
                    }
                    ("remove", true) => {
                        inner.scale_down.inc();
                    }
                    (_, true) => {}
                    (_, false) => self.count_failure(error_type.as_deref()),
                }
            }
            Event::Joined { seconds, .. } => inner.joins.observe(*seconds),
            Event::BootStep {
                step,
                outcome,
                seconds,
                ..
            } => {
                if outcome == "done" {
                    let label = ByStep { step: step.clone() };
                    inner.join_steps.get_or_create(&label).observe(*seconds);
                }
            }
            Event::Noticed { notice, source, .. } => {
                inner
                    .notices
                    .get_or_create(&ByNotice {
                        kind: notice.clone(),
                        source: source.clone(),
                    })
                    .inc();
            }
            Event::Drain {
                pod: Some(_), state, ..
            } => {
                inner
                    .drained_pods
                    .get_or_create(&ByState { state: state.clone() })
                    .inc();
            }
            Event::Trouble { error_type } => {
                inner
                    .troubles
                    .get_or_create(&ByErrorType {
                        error_type: error_type.clone(),
                    })
                    .inc();
                if happening.severity == Severity::Failure {
                    self.count_failure(Some(error_type));
                }
            }
            Event::LeaseAcquired { .. } => {
                inner.leases.inc();
            }
            Event::Operation { .. }
            | Event::Drain { .. }
            | Event::LeaseLost { .. }
            | Event::Source { .. }
            | Event::Brake { .. }
            | Event::Policy { .. }
            | Event::Agent { .. }
            | Event::Admin { .. } => {}
        }
    }

    fn count_failure(&self, error_type: Option<&str>) {
        let labels = ByErrorType {
            error_type: error_type.unwrap_or("other").into(),
        };
        self.inner.failures.get_or_create(&labels).inc();
    }

    /// Nothing was given to this sink yet.
    pub(super) fn begin_sink(&self, sink: &str) {
        drop(self.inner.dropped.get_or_create(&BySink { sink: sink.into() }));
        for outcome in ["delivered", "failed"] {
            let (sink, outcome) = (sink.into(), outcome.into());
            drop(self.inner.notified.get_or_create(&ByDelivery { sink, outcome }));
        }
    }

    pub(super) fn count_dropped(&self, sink: &str, happenings: usize) {
        self.inner
            .dropped
            .get_or_create(&BySink { sink: sink.into() })
            .inc_by(happenings as u64);
    }

    pub(super) fn count_notified(&self, sink: &str, delivered: bool, happenings: usize) {
        let outcome = if delivered { "delivered" } else { "failed" };
        let labels = ByDelivery {
            sink: sink.into(),
            outcome: outcome.into(),
        };
        self.inner
            .notified
            .get_or_create(&labels)
            .inc_by(happenings as u64);
    }
}

impl Inner {
    /// Counters of what rarely happens are there from the start: of one that appears with 1, `increase()` sees nothing
    /// (<https://prometheus.io/docs/practices/instrumentation/#avoid-missing-metrics>).
    fn begin(&self) {
        for kind in ["launch", "remove", "drain", "recycle"] {
            for outcome in ["succeeded", "failed"] {
                let (kind, outcome) = (kind.into(), outcome.into());
                drop(self.operations.get_or_create(&ByOperation { kind, outcome }));
            }
        }
        for error_type in ["capacity", "quota", "join_timeout", "drain_timeout"] {
            let error_type = error_type.into();
            drop(self.failures.get_or_create(&ByErrorType { error_type }));
        }
    }

    fn register(&mut self, version: &str) {
        let r = &mut self.registry;
        r.register(
            "build",
            "Version of this coordinator",
            Info::new([("version", version.to_owned())]),
        );
        r.register("decisions", "Decisions taken, by action", self.decisions.clone());
        r.register_with_unit(
            "decision",
            "Time to observe, plan and record",
            Unit::Seconds,
            self.decision_seconds.clone(),
        );
        r.register(
            "scale_up_events",
            "Launches that ended well, by the rule behind them; other: a minimum, a forecast, a person, a replacement",
            self.scale_up.clone(),
        );
        r.register(
            "scale_down_events",
            "Removals that ended well",
            self.scale_down.clone(),
        );
        r.register(
            "scaling_failures",
            "Operations that failed, by class of the error",
            self.failures.clone(),
        );
        r.register(
            "operations",
            "Operations that ended, by kind and outcome",
            self.operations.clone(),
        );
        r.register_with_unit(
            "node_join",
            "Launch call to node Ready",
            Unit::Seconds,
            self.joins.clone(),
        );
        r.register_with_unit(
            "node_join_step",
            "Steps of machines' boots that are done, each from its own beginning",
            Unit::Seconds,
            self.join_steps.clone(),
        );
        r.register(
            "notices",
            "Announcements of EC2 about instances, by kind and by who said so",
            self.notices.clone(),
        );
        r.register(
            "queue_messages",
            "Messages of the queue of notices, by what became of them",
            self.queue_messages.clone(),
        );
        r.register(
            "drained_pods",
            "Steps of pods in drains, by state reached",
            self.drained_pods.clone(),
        );
        r.register(
            "troubles",
            "Things that went wrong outside of operations",
            self.troubles.clone(),
        );
        r.register(
            "lease_acquisitions",
            "Times this coordinator became the leader",
            self.leases.clone(),
        );
        r.register(
            "happenings_dropped",
            "Happenings, or decisions on their way to a log, for which a full queue had no room",
            self.dropped.clone(),
        );
        r.register(
            "notifications",
            "Deliveries to notifiers, and of decisions to a log, by outcome",
            self.notified.clone(),
        );
        r.register("nodes", "Nodes of our pools, by state", self.nodes.clone());
        r.register(
            "fleet_usd_per_hour",
            "What the nodes of our pools cost, by the prices known",
            self.cost.clone(),
        );
        r.register("pending_pods", "Pods that wait for a place", self.pending.clone());
        r.register_with_unit(
            "pending_pods_oldest",
            "Age of the pod that has waited for a place longest; 0: none waits",
            Unit::Seconds,
            self.pending_age.clone(),
        );
        r.register(
            "unplaced_pods",
            "Pods for which the latest plan found no place on any node, present or launched, by why",
            self.unplaced.clone(),
        );
        r.register(
            "held",
            "1 for each thing that holds the latest decision back",
            self.held.clone(),
        );
        r.register("agents", "Agents with a session", self.agents.clone());
        r.register("leader", "1 while this coordinator leads", self.leader.clone());
        r.register(
            "cluster_cpu_ratio",
            "Cluster average of CPU in use; NaN: unknown",
            self.cpu.clone(),
        );
        r.register(
            "cluster_memory_ratio",
            "Cluster average of memory in use; NaN: unknown",
            self.memory.clone(),
        );
        r.register(
            "forecast_cpu_cores",
            "Highest CPU requests expected while a node boots, by quantile",
            self.forecast.clone(),
        );
        r.register(
            "forecast_extra_cpu_cores",
            "Room kept beyond what pods request; NaN: no forecast",
            self.forecast_extra.clone(),
        );
        r.register(
            "forecast_loss_cpu_cores",
            "Pinball loss at the policy's quantile over about a day, of the forecast's floor and of having none",
            self.forecast_loss.clone(),
        );
        r.register(
            "forecast_coverage_ratio",
            "Share of minutes in which requests stayed below the floor; NaN: no forecast",
            self.forecast_coverage.clone(),
        );
        r.register(
            "forecast_active",
            "1 while the forecast may raise the floor; 0 without one, or while it is worse than none",
            self.forecast_active.clone(),
        );
        r.register(
            "steered_pods",
            "Pods that bear a deletion cost of ours, so that scale-ins end them first",
            self.steered.clone(),
        );
        r.register(
            "source_fresh",
            "1 while a source's answer is fresh enough to act on",
            self.source_fresh.clone(),
        );
        r.register_with_unit(
            "source_age",
            "Age of a source's newest answer; NaN: none yet",
            Unit::Seconds,
            self.source_age.clone(),
        );
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod reference;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use jiff::Timestamp;
    use smartscale_planner::RuleName;

    use super::*;
    use crate::tell::Grounds;

    fn told(metrics: &Metrics, event: Event) {
        metrics.count(&Happening {
            time: Timestamp::UNIX_EPOCH,
            severity: Severity::Info,
            message: String::new(),
            event,
        });
    }

    fn operation(kind: &str, ended: bool, succeeded: bool, error_type: Option<&str>) -> Event {
        Event::Operation {
            operation: "op-1".parse().unwrap(),
            operation_kind: kind.into(),
            phase: "x".into(),
            ended,
            succeeded,
            reason: "launch 1 node for 3 pending pods (0.0208 USD an hour)".into(),
            nodes: Vec::new(),
            pods: Vec::new(),
            error_type: error_type.map(Into::into),
            decision: None,
            grounds: Grounds::of_rules([RuleName::PendingPods]),
        }
    }

    #[test]
    fn an_operation_is_counted_once_at_its_end() {
        let metrics = Metrics::new("1.2.3");
        told(&metrics, operation("launch", false, false, None));
        told(&metrics, operation("launch", true, true, None));
        told(&metrics, operation("remove", true, true, None));
        told(&metrics, operation("launch", true, false, Some("capacity")));
        let text = metrics.encode();
        for line in [
            r#"smartscale_build_info{version="1.2.3"} 1"#,
            r#"smartscale_scale_up_events_total{reason="pending_pods"} 1"#,
            "smartscale_scale_down_events_total 1",
            r#"smartscale_scaling_failures_total{error_type="capacity"} 1"#,
            r#"smartscale_operations_total{kind="launch",outcome="failed"} 1"#,
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn latencies_are_histograms_in_seconds() {
        let metrics = Metrics::new("1");
        told(
            &metrics,
            Event::Joined {
                instance: "i-1".parse().unwrap(),
                seconds: 42.0,
            },
        );
        let text = metrics.encode();
        assert!(
            text.contains(r#"smartscale_node_join_seconds_bucket{le="45.0"} 1"#),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_is_unknown_is_not_shown_as_zero() {
        let metrics = Metrics::new("1");
        assert_eq!(metrics.node_count(), None);
        assert!(metrics.encode().contains("smartscale_cluster_cpu_ratio NaN"));
        metrics.set_nodes(2, 3);
        metrics.set_utilisation(Some(70.0), None);
        assert_eq!(metrics.node_count(), Some(3));
        assert!(metrics.encode().contains("smartscale_cluster_cpu_ratio 0.7"));
    }
}
