//! The latest health as Prometheus reads it (text format 0.0.4), for those who scrape nodes and not the coordinator. What is
//! unknown is left out.

use std::fmt::Write as _;

use smartscale_proto::v1::{Health, HealthConditionKind};

/// The samples of `health`.
#[must_use]
pub fn text(health: &Health) -> String {
    let pressure = health.pressure.unwrap_or_default();
    let truth = |value: Option<bool>| value.map(|value| f64::from(u8::from(value)));
    #[allow(clippy::cast_precision_loss, reason = "samples are of this type")]
    let float = |value: Option<u64>| value.map(|value| value as f64);
    #[allow(clippy::cast_precision_loss, reason = "samples are of this type")]
    let skew = health.clock_skew_ms.map(|skew| skew as f64 / 1000.0);
    let figures = [
        ("cpu_percent", "CPU in use", health.cpu_percent),
        (
            "steal_percent",
            "CPU that the hypervisor gave to others",
            health.steal_percent,
        ),
        ("memory_percent", "Memory in use", health.memory_percent),
        ("load1", "Load average over a minute", health.load1),
        (
            "pressure_cpu_percent",
            "Time in which some process waited for CPU",
            pressure.cpu_some_percent,
        ),
        (
            "pressure_memory_percent",
            "Time in which some process waited for memory",
            pressure.memory_some_percent,
        ),
        (
            "pressure_io_percent",
            "Time in which some process waited for I/O",
            pressure.io_some_percent,
        ),
        (
            "disk_percent",
            "Use of the file system of K3s' data",
            health.disk_percent,
        ),
        (
            "inode_percent",
            "Inodes in use of the file system of K3s' data",
            health.inode_percent,
        ),
        (
            "root_disk_percent",
            "Use of the root file system",
            health.root_disk_percent,
        ),
        (
            "image_disk_percent",
            "Use of the file system of containers' images",
            health.image_disk_percent,
        ),
        (
            "conntrack_percent",
            "Entries in use of the table of tracked connections",
            health.conntrack_percent,
        ),
        (
            "clock_skew_seconds",
            "How far the machine's clock is ahead of the coordinator's",
            skew,
        ),
        (
            "node_ready",
            "1 while the node is Ready",
            truth(health.node_ready),
        ),
        (
            "kubelet_healthy",
            "1 while the kubelet says that it is well",
            truth(health.kubelet_healthy),
        ),
        (
            "runtime_healthy",
            "1 while the container runtime answers",
            truth(health.runtime_healthy),
        ),
    ];
    let counters = [
        (
            "oom_kills_total",
            "Processes killed for want of memory since the machine started",
            float(health.oom_kills),
        ),
        (
            "nic_errors_total",
            "Errors of network interfaces since the machine started",
            float(health.nic_errors),
        ),
    ];
    let mut text = String::new();
    let kinds = [("gauge", &figures[..]), ("counter", &counters[..])];
    for (kind, samples) in kinds {
        for (name, help, value) in samples {
            if let Some(value) = value {
                // Writing to a String does not fail.
                let _ = writeln!(
                    text,
                    "# HELP smartscale_agent_{name} {help}\n# TYPE smartscale_agent_{name} {kind}\nsmartscale_agent_{name} {value}"
                );
            }
        }
    }
    let _ = writeln!(
        text,
        "# HELP smartscale_agent_condition 1 for each thing that is wrong with the machine\n# TYPE smartscale_agent_condition gauge"
    );
    for condition in &health.conditions {
        if condition.kind() != HealthConditionKind::Unspecified {
            let kind = condition.kind().as_str_name();
            let kind = kind.strip_prefix("HEALTH_CONDITION_KIND_").unwrap_or(kind);
            let _ = writeln!(
                text,
                "smartscale_agent_condition{{kind=\"{}\"}} 1",
                kind.to_lowercase()
            );
        }
    }
    text
}

#[cfg(test)]
mod reference;

#[cfg(test)]
mod tests {
    use smartscale_proto::v1::HealthCondition;

    use super::*;

    #[test]
    fn what_is_unknown_is_left_out_and_what_is_wrong_is_named() {
        let text = text(&Health {
            cpu_percent: Some(12.5),
            oom_kills: Some(3),
            node_ready: Some(true),
            conditions: vec![HealthCondition {
                kind: HealthConditionKind::CpuStolen.into(),
                ..HealthCondition::default()
            }],
            ..Health::default()
        });
        for line in [
            "smartscale_agent_cpu_percent 12.5",
            "# TYPE smartscale_agent_oom_kills_total counter",
            "smartscale_agent_oom_kills_total 3",
            "smartscale_agent_node_ready 1",
            "smartscale_agent_condition{kind=\"cpu_stolen\"} 1",
        ] {
            assert!(
                text.lines().any(|own| own == line),
                "{line} is missing in\n{text}"
            );
        }
        assert!(!text.contains("memory_percent"), "{text}");
    }
}
