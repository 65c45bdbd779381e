//! Utilisation, merged: per node the fresher of agent and Prometheus, agent first; for the cluster Prometheus, or
//! the agents' average weighted by what the nodes offer. What nobody knows stays unknown.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use smartscale_planner::{
    model::{Cluster, Node, NodeName},
    snapshot::{Reading, Source},
};
use smartscale_proto::time::age;

use super::{MetricsReading, Observed, agents::HealthReport};
use crate::ids::InstanceId;

/// A node's reading counts for so long (FORMATS §2).
pub(crate) const NODE_READING: Duration = Duration::from_secs(60);
/// A usage above this, in percent, is a mistake of the query and not a usage.
pub(crate) const MOST_PERCENT: f64 = 1_000.0;

/// A figure that can be a usage.
pub(crate) fn sound(percent: Option<f64>) -> Option<f64> {
    percent.filter(|percent| percent.is_finite() && (0.0..=MOST_PERCENT).contains(percent))
}

/// What the agent of a node says. Its figures are of the whole machine; the planner's are of what pods may use.
fn of_agent(node: &Node, report: &HealthReport) -> Option<Reading> {
    let scaled = |percent: Option<f64>, capacity: f64, allocatable: f64| {
        let known = capacity > 0.0 && allocatable > 0.0;
        percent.map(|percent| {
            if known {
                percent * capacity / allocatable
            } else {
                percent
            }
        })
    };
    let (capacity, allocatable) = (&node.capacity, &node.allocatable);
    #[allow(clippy::cast_precision_loss, reason = "a ratio of sizes")]
    let float = |n: i64| n as f64;
    let reading = Reading {
        time: report.received_at,
        cpu_percent: sound(scaled(
            report.health.cpu_percent,
            float(capacity.cpu.0),
            float(allocatable.cpu.0),
        )),
        memory_percent: sound(scaled(
            report.health.memory_percent,
            float(capacity.memory.0),
            float(allocatable.memory.0),
        )),
        source: Source::Agent,
    };
    (reading.cpu_percent.is_some() || reading.memory_percent.is_some()).then_some(reading)
}

/// The machine of a node: by its provider id (`aws:///ZONE/ID`), or by its name, which is the same on our nodes.
fn report_of<'a>(node: &Node, agents: &'a BTreeMap<InstanceId, HealthReport>) -> Option<&'a HealthReport> {
    let by = |text: &str| text.parse::<InstanceId>().ok().and_then(|id| agents.get(&id));
    node.provider_id
        .as_deref()
        .and_then(|id| id.rsplit('/').next())
        .and_then(by)
        .or_else(|| by(node.name.as_str()))
}

/// The newest reading of each node that has any.
pub(crate) fn of_nodes(
    cluster: &Cluster,
    agents: &BTreeMap<InstanceId, HealthReport>,
    prometheus: &Observed<MetricsReading>,
    now: Timestamp,
) -> BTreeMap<NodeName, Reading> {
    let of_prometheus = |name: &NodeName| {
        let (cpu_percent, memory_percent) = *prometheus.value.as_ref()?.nodes.get(name)?;
        let reading = Reading {
            time: prometheus.at?,
            cpu_percent: sound(cpu_percent),
            memory_percent: sound(memory_percent),
            source: Source::Prometheus,
        };
        (reading.cpu_percent.is_some() || reading.memory_percent.is_some()).then_some(reading)
    };
    let of = |node: &Node| {
        let agent = report_of(node, agents).and_then(|report| of_agent(node, report));
        let prometheus = of_prometheus(&node.name);
        match (agent, prometheus) {
            (Some(agent), Some(prometheus)) => {
                let agent_counts = age(agent.time, now) <= NODE_READING || agent.time >= prometheus.time;
                Some(if agent_counts { agent } else { prometheus })
            }
            (agent, prometheus) => agent.or(prometheus),
        }
    };
    cluster
        .nodes
        .iter()
        .filter_map(|node| Some((node.name.clone(), of(node)?)))
        .collect()
}

/// The cluster averages that Prometheus gave, if it gave any no longer than `limit` ago.
pub(crate) fn of_prometheus(
    prometheus: &Observed<MetricsReading>,
    limit: Duration,
    now: Timestamp,
) -> Option<Reading> {
    let (value, time) = (prometheus.value.as_ref()?, prometheus.at?);
    let reading = Reading {
        time,
        cpu_percent: sound(value.cpu_percent),
        memory_percent: sound(value.memory_percent),
        source: Source::Prometheus,
    };
    (age(time, now) <= limit && (reading.cpu_percent.is_some() || reading.memory_percent.is_some()))
        .then_some(reading)
}

/// The average of what fresh agents say, weighted by what their nodes offer; unknown unless the nodes that report
/// make more than half of what all Ready nodes of pools offer: a few agents do not speak for a cluster.
pub(crate) fn of_agents(
    cluster: &Cluster,
    agents: &BTreeMap<InstanceId, HealthReport>,
    now: Timestamp,
) -> Option<Reading> {
    let ours: Vec<(&Node, Option<Reading>)> = cluster
        .nodes
        .iter()
        .filter(|node| node.ready && !node.being_deleted && node.pool().is_some())
        .map(|node| {
            let fresh = report_of(node, agents)
                .filter(|report| age(report.received_at, now) <= NODE_READING)
                .and_then(|report| of_agent(node, report));
            (node, fresh)
        })
        .collect();
    #[allow(clippy::cast_precision_loss, reason = "an average of sizes")]
    let average = |weight: fn(&Node) -> i64, figure: fn(&Reading) -> Option<f64>| {
        let all: f64 = ours.iter().map(|(node, _)| weight(node) as f64).sum();
        let known: Vec<(f64, f64)> = ours
            .iter()
            .filter_map(|(node, reading)| Some((weight(node) as f64, figure(reading.as_ref()?)?)))
            .collect();
        let weights: f64 = known.iter().map(|(weight, _)| weight).sum();
        let sum: f64 = known.iter().map(|(weight, percent)| weight * percent).sum();
        (weights > 0.0 && weights * 2.0 > all).then(|| sum / weights)
    };
    let reading = Reading {
        time: now,
        cpu_percent: average(|node| node.allocatable.cpu.0, |reading| reading.cpu_percent),
        memory_percent: average(|node| node.allocatable.memory.0, |reading| reading.memory_percent),
        source: Source::Agent,
    };
    (reading.cpu_percent.is_some() || reading.memory_percent.is_some()).then_some(reading)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use std::sync::Arc;

    use jiff::SignedDuration;
    use smartscale_planner::fixtures;

    use super::*;
    use crate::observe::agents::Health;

    fn ago(seconds: i64) -> Timestamp {
        fixtures::now() - SignedDuration::from_secs(seconds)
    }

    fn cluster(nodes: &[(&str, &str)]) -> Cluster {
        let node =
            |(name, cpu): &(&str, &str)| fixtures::node(name).cpu(cpu).memory("4Gi").pool("workers").into();
        Cluster {
            nodes: nodes.iter().map(node).collect(),
            ..Cluster::default()
        }
    }

    fn report(cpu: Option<f64>, seconds: i64) -> HealthReport {
        let health = Health {
            cpu_percent: cpu,
            ..Health::default()
        };
        HealthReport {
            health,
            received_at: ago(seconds),
            absurd: Vec::new(),
            clock_skew: None,
        }
    }

    fn agents(reports: &[(&str, f64, i64)]) -> BTreeMap<InstanceId, HealthReport> {
        reports
            .iter()
            .map(|(id, cpu, seconds)| (id.parse().unwrap(), report(Some(*cpu), *seconds)))
            .collect()
    }

    fn prometheus(nodes: &[(&str, f64)], seconds: i64) -> Observed<MetricsReading> {
        let nodes = nodes
            .iter()
            .map(|(name, cpu)| (NodeName::from(*name), (Some(*cpu), None)))
            .collect();
        Observed {
            value: Some(Arc::new(MetricsReading {
                nodes,
                ..MetricsReading::default()
            })),
            at: Some(ago(seconds)),
            error: None,
        }
    }

    fn cpu_of(reports: &[(&str, f64, i64)], queried: &[(&str, f64)], seconds: i64) -> Option<(f64, Source)> {
        let merged = of_nodes(
            &cluster(&[("a", "2")]),
            &agents(reports),
            &prometheus(queried, seconds),
            fixtures::now(),
        );
        merged
            .get("a")
            .map(|reading| (reading.cpu_percent.unwrap(), reading.source))
    }

    #[test]
    fn the_agent_comes_first_while_it_is_fresh() {
        assert_eq!(
            cpu_of(&[("a", 10.0, 30)], &[("a", 20.0)], 5),
            Some((10.0, Source::Agent))
        );
    }

    #[test]
    fn prometheus_speaks_for_a_silent_agent() {
        assert_eq!(
            cpu_of(&[("a", 10.0, 90)], &[("a", 20.0)], 5),
            Some((20.0, Source::Prometheus))
        );
        assert_eq!(
            cpu_of(&[("a", 10.0, 90)], &[("a", 20.0)], 100),
            Some((10.0, Source::Agent))
        );
    }

    #[test]
    fn a_node_of_which_nobody_speaks_is_unknown() {
        assert_eq!(cpu_of(&[("b", 10.0, 1)], &[("c", 20.0)], 1), None);
    }

    #[test]
    fn an_absurd_figure_is_unknown() {
        for absurd in [f64::NAN, -1.0, f64::INFINITY, 1e9] {
            assert_eq!(cpu_of(&[], &[("a", absurd)], 1), None);
        }
    }

    #[test]
    fn the_agents_average_is_weighted_by_what_nodes_offer() {
        let cluster = cluster(&[("small", "1"), ("large", "3")]);
        let reading = of_agents(
            &cluster,
            &agents(&[("small", 100.0, 1), ("large", 20.0, 1)]),
            fixtures::now(),
        )
        .unwrap();
        assert_eq!((reading.cpu_percent, reading.memory_percent), (Some(40.0), None));
    }

    #[test]
    fn a_few_agents_do_not_speak_for_the_cluster() {
        let cluster = cluster(&[("a", "2"), ("b", "2")]);
        assert_eq!(
            of_agents(&cluster, &agents(&[("a", 90.0, 1)]), fixtures::now()),
            None
        );
        assert_eq!(
            of_agents(
                &cluster,
                &agents(&[("a", 90.0, 1), ("b", 90.0, 61)]),
                fixtures::now()
            ),
            None
        );
    }

    #[test]
    fn what_a_machine_uses_is_told_in_percent_of_what_pods_may_use() {
        let mut cluster = cluster(&[("a", "2")]);
        cluster.nodes[0].capacity.cpu.0 = 4_000;
        let merged = of_nodes(
            &cluster,
            &agents(&[("a", 40.0, 1)]),
            &Observed::default(),
            fixtures::now(),
        );
        assert_eq!(merged["a"].cpu_percent, Some(80.0));
    }
}
