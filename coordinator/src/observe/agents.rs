//! What agents say of their machines, checked before anything is decided from it.
//!
//! An agent may be broken or lie: a figure that no machine can have is dropped and named, the others of the same
//! report count. Who keeps the latest report of each agent (`serve/sessions`) is behind [`AgentHealth`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use smartscale_proto::v1;

use crate::ids::InstanceId;

/// More pods than any kubelet has (the default is 110, the largest clusters run 500 on a node).
const MOST_PODS: u32 = 10_000;
/// More memory than any machine has: 64 TiB.
const MOST_MEMORY: u64 = 64 << 40;
/// A load average above this is no load average.
const MOST_LOAD: f64 = 1_000_000.0;
/// More units than an agent watches.
const MOST_UNITS: usize = 32;
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
        };
        Self {
            health,
            received_at,
            absurd: check.absurd,
        }
    }
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
