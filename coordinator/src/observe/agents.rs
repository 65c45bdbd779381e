//! What agents say of their machines, checked before anything is decided from it.
//!
//! An agent may be broken or lie: a figure that no machine can have is dropped and named, the others of the same
//! report count. Who keeps the latest report of each agent (`serve/sessions`) is behind [`AgentHealth`].

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use smartscale_proto::{time::from_wire, v1};

use crate::{ids::InstanceId, tell::Severity};

/// More pods than any kubelet has (the default is 110, the largest clusters run 500 on a node).
const MOST_PODS: u32 = 10_000;
/// More memory than any machine has: 64 TiB.
const MOST_MEMORY: u64 = 64 << 40;
/// A load average above this is no load average.
const MOST_LOAD: f64 = 1_000_000.0;
/// More units than an agent watches.
const MOST_UNITS: usize = 32;
/// Conditions of a report that are looked at.
const MOST_CONDITIONS: usize = 32;
/// Longest name of a unit or state (systemd's own limit for a unit's name).
const LONGEST_NAME: usize = 256;

/// How a machine is. What is absent is unknown, never zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    /// CPU in use, in percent of all CPUs, 0 to 100.
    pub cpu_percent: Option<f64>,
    /// Memory in use (total less available), in percent of total, 0 to 100.
    pub memory_percent: Option<f64>,
    /// Memory in total, in bytes.
    pub memory_total_bytes: Option<u64>,
    /// Load average over one minute.
    pub load1: Option<f64>,
    /// Share of time in which some task waited for a CPU, in percent.
    pub cpu_pressure: Option<f64>,
    /// Share of time in which some task waited for memory, in percent.
    pub memory_pressure: Option<f64>,
    /// Share of time in which some task waited for input or output, in percent.
    pub io_pressure: Option<f64>,
    /// Use of the file system below K3s, in percent of bytes.
    pub disk_percent: Option<f64>,
    /// Use of its inodes, in percent.
    pub inode_percent: Option<f64>,
    /// Pods of the node by phase.
    pub pods: Option<PodCounts>,
    /// Units that make the node work, with their state as systemd names it.
    pub units: BTreeMap<String, String>,
    /// Whether the kubelet says that the node is Ready.
    pub node_ready: Option<bool>,
    /// Whether the kubelet's health endpoint answers.
    pub kubelet_healthy: Option<bool>,
    /// Whether the container runtime's socket accepts a connection.
    pub runtime_healthy: Option<bool>,
    /// Share of the CPU that the hypervisor gave to others, in percent. It is part of the CPU in use: nobody can use it.
    pub steal_percent: Option<f64>,
    /// Use of the root file system, in percent of bytes, where that is another one.
    pub root_disk_percent: Option<f64>,
    /// Use of the file system with the images, where that is yet another one.
    pub image_disk_percent: Option<f64>,
    /// Use of the connection tracking table, in percent.
    pub conntrack_percent: Option<f64>,
    /// Processes killed for want of memory since the machine started.
    pub oom_kills: Option<u64>,
    /// Errors of network interfaces since the machine started.
    pub nic_errors: Option<u64>,
    /// What is wrong with it.
    pub conditions: Vec<Condition>,
}

/// Something that is wrong with a machine, as its agent says with hysteresis.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What.
    pub kind: v1::HealthConditionKind,
    /// Since when, by the machine's clock.
    pub since: Option<Timestamp>,
    /// The figure that says so.
    pub detail: String,
}

impl Condition {
    /// Its name in words: `cpu stolen`.
    #[must_use]
    pub fn word(&self) -> String {
        let name = self.kind.as_str_name();
        let name = name.strip_prefix("HEALTH_CONDITION_KIND_").unwrap_or(name);
        name.to_lowercase().replace('_', " ")
    }

    /// How much that matters to people: pressure comes and goes with the work, the others do not go by themselves.
    #[must_use]
    pub fn severity(&self) -> Severity {
        use v1::HealthConditionKind as Kind;
        match self.kind {
            Kind::CpuPressure | Kind::MemoryPressure | Kind::IoPressure | Kind::Unspecified => {
                Severity::Detail
            }
            _ => Severity::Warning,
        }
    }
}

/// Numbers of pods by phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodCounts {
    /// Pending.
    pub pending: u32,
    /// Running.
    pub running: u32,
    /// Ended well.
    pub succeeded: u32,
    /// Ended badly.
    pub failed: u32,
    /// With a deletion timestamp, whatever the phase.
    pub terminating: u32,
}

/// A figure that no machine can have, and that was therefore dropped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`{figure}` is {value}, which is outside {bounds}")]
pub struct Absurd {
    /// The field of `smartscale.v1.Health`.
    pub figure: &'static str,
    /// What the agent said.
    pub value: String,
    /// What would be right.
    pub bounds: &'static str,
}

/// A report as it was taken in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HealthReport {
    /// What counts of it.
    pub health: Health,
    /// When it arrived, by the coordinator's clock: an agent's clock proves nothing.
    pub received_at: Timestamp,
    /// What was dropped of it.
    pub absurd: Vec<Absurd>,
    /// The agent's clock less ours, by when it says that it made the report: what the way took is part of it.
    pub clock_skew: Option<SignedDuration>,
}

impl HealthReport {
    /// Takes a report in: keeps what can be, drops and names the rest.
    #[must_use]
    pub fn receive(wire: &v1::Health, received_at: Timestamp) -> Self {
        let mut check = Check::default();
        let pressure = wire.pressure.unwrap_or_default();
        let health = Health {
            cpu_percent: check.percent("cpu_percent", wire.cpu_percent),
            memory_percent: check.percent("memory_percent", wire.memory_percent),
            memory_total_bytes: check.memory("memory_total_bytes", wire.memory_total_bytes),
            load1: check.within("load1", wire.load1, MOST_LOAD, "0 to 1000000"),
            cpu_pressure: check.percent("pressure.cpu_some_percent", pressure.cpu_some_percent),
            memory_pressure: check.percent("pressure.memory_some_percent", pressure.memory_some_percent),
            io_pressure: check.percent("pressure.io_some_percent", pressure.io_some_percent),
            disk_percent: check.percent("disk_percent", wire.disk_percent),
            inode_percent: check.percent("inode_percent", wire.inode_percent),
            pods: wire.pods.as_ref().and_then(|pods| check.pods(pods)),
            units: check.units(&wire.units),
            node_ready: wire.node_ready,
            kubelet_healthy: wire.kubelet_healthy,
            runtime_healthy: wire.runtime_healthy,
            steal_percent: check.percent("steal_percent", wire.steal_percent),
            root_disk_percent: check.percent("root_disk_percent", wire.root_disk_percent),
            image_disk_percent: check.percent("image_disk_percent", wire.image_disk_percent),
            conntrack_percent: check.percent("conntrack_percent", wire.conntrack_percent),
            oom_kills: wire.oom_kills,
            nic_errors: wire.nic_errors,
            conditions: conditions(&wire.conditions),
        };
        Self {
            health,
            received_at,
            absurd: check.absurd,
            clock_skew: None,
        }
    }

    /// Notes when the agent says that it made the report.
    #[must_use]
    pub fn sent_at(mut self, time: Option<&prost_types::Timestamp>) -> Self {
        let time = time.and_then(|time| from_wire(time).ok());
        self.clock_skew = time.map(|time| time.duration_since(self.received_at));
        self
    }

    /// Since when, by our clock, the hypervisor gives much of this machine's CPU to others.
    #[must_use]
    pub fn throttled_since(&self) -> Option<Timestamp> {
        let mut conditions = self.health.conditions.iter();
        let stolen = conditions.find(|one| one.kind == v1::HealthConditionKind::CpuStolen)?;
        let since = stolen
            .since?
            .checked_sub(self.clock_skew.unwrap_or(SignedDuration::ZERO));
        Some(since.unwrap_or(self.received_at).min(self.received_at))
    }
}

/// The conditions that are known here, each once.
fn conditions(wire: &[v1::HealthCondition]) -> Vec<Condition> {
    let mut all: Vec<Condition> = Vec::new();
    for condition in wire.iter().take(MOST_CONDITIONS) {
        let kind = condition.kind();
        if kind == v1::HealthConditionKind::Unspecified || all.iter().any(|known| known.kind == kind) {
            continue;
        }
        let detail = condition.detail.chars().filter(|c| !c.is_control());
        all.push(Condition {
            kind,
            since: condition.since.as_ref().and_then(|since| from_wire(since).ok()),
            detail: detail.take(LONGEST_NAME).collect(),
        });
    }
    all
}

/// The latest report of each agent that has said anything.
pub trait AgentHealth: Send + Sync {
    /// Reports by machine. Those of machines whose trust was withdrawn, or that are gone, are left out.
    fn latest(&self) -> BTreeMap<InstanceId, HealthReport>;
}

/// No agents at all, as on a coordinator that does not lead.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAgents;

impl AgentHealth for NoAgents {
    fn latest(&self) -> BTreeMap<InstanceId, HealthReport> {
        BTreeMap::new()
    }
}

/// Collects what is dropped.
#[derive(Default)]
struct Check {
    absurd: Vec<Absurd>,
}

impl Check {
    /// Rounding in an agent may carry a share a hair above the whole.
    fn percent(&mut self, figure: &'static str, value: Option<f64>) -> Option<f64> {
        self.within(figure, value, 100.5, "0 to 100")
            .map(|percent| percent.min(100.0))
    }

    fn within(
        &mut self,
        figure: &'static str,
        value: Option<f64>,
        most: f64,
        bounds: &'static str,
    ) -> Option<f64> {
        let value = value?;
        if value.is_finite() && (0.0..=most).contains(&value) {
            return Some(value);
        }
        self.absurd.push(Absurd {
            figure,
            value: value.to_string(),
            bounds,
        });
        None
    }

    fn memory(&mut self, figure: &'static str, value: Option<u64>) -> Option<u64> {
        let value = value?;
        if (1..=MOST_MEMORY).contains(&value) {
            return Some(value);
        }
        self.absurd.push(Absurd {
            figure,
            value: value.to_string(),
            bounds: "1 B to 64 TiB",
        });
        None
    }

    fn pods(&mut self, pods: &v1::PodCounts) -> Option<PodCounts> {
        let counts = [
            pods.pending,
            pods.running,
            pods.succeeded,
            pods.failed,
            pods.terminating,
        ];
        if let Some(count) = counts.into_iter().find(|count| *count > MOST_PODS) {
            self.absurd.push(Absurd {
                figure: "pods",
                value: count.to_string(),
                bounds: "0 to 10000",
            });
            return None;
        }
        Some(PodCounts {
            pending: pods.pending,
            running: pods.running,
            succeeded: pods.succeeded,
            failed: pods.failed,
            terminating: pods.terminating,
        })
    }

    fn units(&mut self, units: &[v1::UnitState]) -> BTreeMap<String, String> {
        let sound = |unit: &&v1::UnitState| {
            unit.unit.len() <= LONGEST_NAME
                && !unit.unit.is_empty()
                && unit.active_state.len() <= LONGEST_NAME
        };
        let kept: BTreeMap<_, _> = units
            .iter()
            .take(MOST_UNITS)
            .filter(sound)
            .map(|unit| (unit.unit.clone(), unit.active_state.clone()))
            .collect();
        if kept.len() < units.len() {
            self.absurd.push(Absurd {
                figure: "units",
                value: format!("{} units, some without a usable name", units.len()),
                bounds: "32 named units",
            });
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(wire: &v1::Health) -> HealthReport {
        HealthReport::receive(wire, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_an_agent_does_not_say_stays_unknown() {
        let report = receive(&v1::Health::default());
        assert_eq!(report.health, Health::default());
        assert!(report.absurd.is_empty());
    }

    #[test]
    fn an_absurd_figure_is_dropped_and_named_and_the_others_count() {
        let report = receive(&v1::Health {
            cpu_percent: Some(f64::NAN),
            memory_percent: Some(-1.0),
            disk_percent: Some(f64::INFINITY),
            inode_percent: Some(40.0),
            memory_total_bytes: Some(u64::MAX),
            pods: Some(v1::PodCounts {
                running: 1_000_000_000,
                ..Default::default()
            }),
            ..Default::default()
        });
        let dropped: Vec<_> = report.absurd.iter().map(|absurd| absurd.figure).collect();
        assert_eq!(
            dropped,
            [
                "cpu_percent",
                "memory_percent",
                "memory_total_bytes",
                "disk_percent",
                "pods"
            ]
        );
        assert_eq!(
            report.health,
            Health {
                inode_percent: Some(40.0),
                ..Health::default()
            }
        );
        assert_eq!(
            report.absurd[1].to_string(),
            "`memory_percent` is -1, which is outside 0 to 100"
        );
    }

    #[test]
    fn a_share_a_hair_above_the_whole_is_the_whole() {
        let report = receive(&v1::Health {
            cpu_percent: Some(100.2),
            ..Default::default()
        });
        assert_eq!(report.health.cpu_percent, Some(100.0));
        assert!(report.absurd.is_empty());
    }

    #[test]
    fn a_condition_is_of_our_time_however_wrong_the_machines_clock_is() {
        let at = |second| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second);
        let to_wire = |time| Some(smartscale_proto::time::to_wire(time));
        let wire = v1::Health {
            conditions: vec![
                v1::HealthCondition {
                    kind: v1::HealthConditionKind::CpuStolen.into(),
                    since: to_wire(at(9_000)),
                    detail: "70\nof it".into(),
                },
                v1::HealthCondition {
                    kind: 4711,
                    ..Default::default()
                },
            ],
            ..Default::default()
        };
        // It runs an hour ahead.
        let report = HealthReport::receive(&wire, at(6_000)).sent_at(to_wire(at(9_600)).as_ref());
        assert_eq!(report.throttled_since(), Some(at(5_400)));
        assert_eq!(report.health.conditions.len(), 1);
        assert_eq!(report.health.conditions[0].detail, "70of it");
        assert_eq!(report.health.conditions[0].word(), "cpu stolen");
    }

    #[test]
    fn a_flood_of_units_is_bounded() {
        let unit = |n: usize| v1::UnitState {
            unit: format!("{n}.service"),
            active_state: "active".into(),
        };
        let report = receive(&v1::Health {
            units: (0..1000).map(unit).collect(),
            ..Default::default()
        });
        assert_eq!(report.health.units.len(), MOST_UNITS);
        assert_eq!(report.absurd.len(), 1);
    }
}
