//! `docs/reference/metrics-agent.md`, made from what is served.

use smartscale_proto::v1::{HealthCondition, Pressure};
use smartscale_reference::{agree, samples};

use super::*;

const ABOUT: &str = "\
# Metrics of an agent

What an agent serves at `[metrics] listen` of [`agent.toml`](agent.md), on loopback, for those who scrape nodes and not the coordinator.
What is unknown is left out. The kinds of `smartscale_agent_condition` are in [health-of-a-node](../health-of-a-node.md). This page is
made from what is served (`make reference`); a test holds it against that.

";

#[test]
fn the_reference_of_metrics_is_what_is_served() {
    let health = Health {
        cpu_percent: Some(1.0),
        steal_percent: Some(1.0),
        memory_percent: Some(1.0),
        load1: Some(1.0),
        pressure: Some(Pressure {
            cpu_some_percent: Some(1.0),
            memory_some_percent: Some(1.0),
            io_some_percent: Some(1.0),
        }),
        disk_percent: Some(1.0),
        inode_percent: Some(1.0),
        root_disk_percent: Some(1.0),
        image_disk_percent: Some(1.0),
        conntrack_percent: Some(1.0),
        clock_skew_ms: Some(1),
        node_ready: Some(true),
        kubelet_healthy: Some(true),
        runtime_healthy: Some(true),
        oom_kills: Some(1),
        nic_errors: Some(1),
        conditions: vec![HealthCondition {
            kind: HealthConditionKind::CpuStolen.into(),
            ..HealthCondition::default()
        }],
        // Every field is named, so that a further one comes to mind here. These three are not served.
        memory_total_bytes: None,
        pods: None,
        units: Vec::new(),
    };
    agree("metrics-agent.md", &format!("{ABOUT}{}", samples(&text(&health))));
}
