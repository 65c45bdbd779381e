//! Readings of the cluster averages: who knows them, how they are worked out, and their history.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize as _;
use smartscale_planner::{
    model::Node,
    snapshot::{Reading, Source},
};
use smartscale_proto::time::age;

use super::{Freshness, View};
use crate::{
    ids::InstanceId,
    observe::agents::HealthReport,
    state::{Condition, SharedStore, StoreError, Write},
};

/// Beginning of the keys of stored readings; milliseconds follow, so that they sort by time.
const PREFIX: &str = "sample#";
/// More readings than this are not loaded.
const MOST: usize = 2_000;

/// CPU and memory, in percent.
type Figures = (Option<f64>, Option<f64>);

/// The history, by time.
#[derive(Debug, Default)]
pub(super) struct Readings(BTreeMap<Timestamp, Reading>);

impl Readings {
    pub(super) fn all(&self) -> Vec<Reading> {
        self.0.values().cloned().collect()
    }

    /// Adds one and forgets those that are too old; `false` when it is no newer than the newest.
    pub(super) fn add(&mut self, reading: Reading, now: Timestamp, history: Duration) -> bool {
        if self.0.last_key_value().is_some_and(|(newest, _)| *newest >= reading.time) {
            return false;
        }
        self.0.insert(reading.time, reading);
        self.forget(now, history);
        true
    }

    /// Adds those that lie further than `apart` from each reading that is here already. A follower with readings of
    /// its own would otherwise see a sustained load in half the time that is asked for.
    pub(super) fn fill(&mut self, readings: Vec<Reading>, apart: Duration, now: Timestamp, history: Duration) {
        let apart = SignedDuration::try_from(apart).unwrap_or(SignedDuration::MAX);
        for reading in readings {
            let from = reading.time.saturating_sub(apart).unwrap_or(Timestamp::MIN);
            let to = reading.time.saturating_add(apart).unwrap_or(Timestamp::MAX);
            // One from the future, of a coordinator whose clock is ahead, would keep ours out.
            if reading.time <= now && self.0.range(from..=to).next().is_none() {
                self.0.insert(reading.time, reading);
            }
        }
        self.forget(now, history);
    }

    fn forget(&mut self, now: Timestamp, history: Duration) {
        self.0.retain(|time, _| age(*time, now) <= history);
    }
}

/// A reading from whoever knows most of it: the metrics source's own average, the agents' figures, the metrics
/// source's figures of nodes, in this order. `None` while nobody knows anything.
pub(super) fn take(view: &View, fresh: &Freshness, now: Timestamp) -> Option<Reading> {
    let metrics = view.metrics();
    let fresh_metrics = metrics.at.filter(|at| age(*at, now) <= fresh.metrics).zip(metrics.value);
    let cluster = view.cluster();
    let agents = view.agents();
    let mut candidates: Vec<(Timestamp, Source, Figures)> = Vec::new();
    if let Some((at, reading)) = &fresh_metrics {
        candidates.push((*at, Source::Prometheus, (reading.cpu_percent, reading.memory_percent)));
    }
    if let Some(objects) = &cluster.value {
        let nodes = workers(objects.nodes(), &agents);
        let reports = by_name(&agents, fresh.agents, now);
        let said = |node: &Node| {
            reports
                .get(node.name.as_str())
                .map_or((None, None), |report| (report.health.cpu_percent, report.health.memory_percent))
        };
        candidates.push((now, Source::Agent, average(&nodes, said)));
        if let Some((at, reading)) = &fresh_metrics {
            let said = |node: &Node| reading.nodes.get(&node.name).copied().unwrap_or_default();
            candidates.push((*at, Source::Prometheus, average(&nodes, said)));
        }
    }
    let mut best: Option<Reading> = None;
    let known = |figures: Figures| usize::from(figures.0.is_some()) + usize::from(figures.1.is_some());
    for (time, source, (cpu, memory)) in candidates {
        let figures = (sound(cpu), sound(memory));
        let so_far = best.as_ref().map_or(0, |reading| known((reading.cpu_percent, reading.memory_percent)));
        if known(figures) > so_far {
            best = Some(Reading {
                time,
                cpu_percent: figures.0,
                memory_percent: figures.1,
                source,
            });
        }
    }
    best
}

fn sound(figure: Option<f64>) -> Option<f64> {
    figure.filter(|figure| figure.is_finite() && *figure >= 0.0)
}

/// The Ready nodes that an average is of: those of pools, and others that have an agent. Servers without one say
/// nothing, and their load is nothing that more workers would change.
pub(super) fn workers<'n>(
    nodes: impl Iterator<Item = &'n Node>,
    agents: &BTreeMap<InstanceId, HealthReport>,
) -> Vec<&'n Node> {
    let with_agent: std::collections::BTreeSet<&str> = agents.keys().map(InstanceId::as_str).collect();
    nodes
        .filter(|node| node.ready && !node.being_deleted)
        .filter(|node| node.pool().is_some() || with_agent.contains(node.name.as_str()))
        .collect()
}

/// Reports that are fresh at `now`, by the name of their node, which is the machine's.
pub(super) fn by_name(
    agents: &BTreeMap<InstanceId, HealthReport>,
    fresh: Duration,
    now: Timestamp,
) -> BTreeMap<&str, &HealthReport> {
    agents
        .iter()
        .filter(|(_, report)| age(report.received_at, now) <= fresh)
        .map(|(instance, report)| (instance.as_str(), report))
        .collect()
}

/// Averages weighted by allocatable CPU and memory. Of each figure at least half of the nodes must be known.
fn average(nodes: &[&Node], said: impl Fn(&Node) -> Figures) -> Figures {
    let weigh = |figure: &dyn Fn(&Node) -> Option<f64>, weight: &dyn Fn(&Node) -> i64| {
        let known: Vec<(f64, f64)> = nodes
            .iter()
            .filter_map(|node| Some((figure(node)?, weight(node).max(0) as f64)))
            .collect();
        let total: f64 = known.iter().map(|(_, weight)| weight).sum();
        let enough = known.len() * 2 >= nodes.len() && total > 0.0;
        enough.then(|| known.iter().map(|(figure, weight)| figure * weight).sum::<f64>() / total)
    };
    (
        weigh(&|node| said(node).0, &|node| node.allocatable.cpu.0),
        weigh(&|node| said(node).1, &|node| node.allocatable.memory.0),
    )
}

/// Stores a reading for the next leader.
pub(super) async fn store(store: &SharedStore, reading: &Reading, history: Duration) -> Result<(), StoreError> {
    let key = format!("{PREFIX}{:015}", reading.time.as_millisecond().max(0));
    let body = serde_json::to_value(reading).map_err(|error| StoreError::Corrupt {
        key: key.clone(),
        reason: error.to_string(),
    })?;
    let kept = SignedDuration::try_from(history).unwrap_or(SignedDuration::MAX);
    let write = Write::Put {
        key,
        body,
        expires_at: Some(reading.time.saturating_add(kept).unwrap_or(Timestamp::MAX)),
        condition: Condition::Always,
    };
    store.append(&write).await
}

/// The stored readings of the last `history`. One that cannot be read is passed over.
pub(super) async fn load(
    store: &SharedStore,
    interval: Duration,
    history: Duration,
) -> Result<Vec<Reading>, StoreError> {
    let most = history.as_secs() / interval.as_secs().max(1);
    // Twice as many as there should be: an interval may have been shorter before.
    let limit = usize::try_from(most.saturating_mul(2)).unwrap_or(MOST).clamp(16, MOST);
    let items = store.list(PREFIX, true, limit).await?;
    Ok(items
        .iter()
        .filter_map(|item| {
            let reading = Reading::deserialize(&item.body).map_err(|error| error.to_string());
            reading
                .and_then(|reading| reading.check(&item.key).map(|()| reading).map_err(|error| error.to_string()))
                .inspect_err(|error| tracing::warn!(key = item.key, error, "a stored reading cannot be read"))
                .ok()
        })
        .collect())
}
