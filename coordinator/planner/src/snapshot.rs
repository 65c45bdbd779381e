//! What the planner is shown: the cluster, what was measured, and what happened before. All of it carries its own
//! time, so that the planner, not the observer, judges whether a figure still counts.
//!
//! [`Metrics::from_json`] and [`State::from_json`] read the files of `smartscale plan`; both types serialize back to
//! them, which is what `smartscale snapshot` exports.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Due,
    model::{Bytes, Cluster, ClusterId, InstanceType, Market, MilliCpu, NodeName, PoolName, Zone},
};

/// Everything that one decision sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The cluster's objects.
    pub cluster: Cluster,
    /// What was measured.
    pub metrics: Metrics,
    /// What happened before.
    pub state: State,
}

/// Who said a figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The node's own agent.
    Agent,
    /// Prometheus.
    Prometheus,
    /// A file, offline.
    #[default]
    File,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Agent => "agent",
            Self::Prometheus => "prometheus",
            Self::File => "file",
        })
    }
}

/// A figure pair with its time and source. A `None` is unknown, never zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// When it was measured, or for rates, the end of the measured interval.
    pub time: Timestamp,
    /// CPU in use, in percent of allocatable; may be above 100.
    #[serde(default)]
    pub cpu_percent: Option<f64>,
    /// Memory in use, in percent of allocatable.
    #[serde(default)]
    pub memory_percent: Option<f64>,
    /// Who said it.
    #[serde(default, skip_serializing_if = "is_file")]
    pub source: Source,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_file(source: &Source) -> bool {
    *source == Source::File
}

/// What was measured. Order of the readings does not matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Cluster averages, as many as the longest `sustained` needs.
    pub cluster: Vec<Reading>,
    /// The newest reading of each node.
    pub nodes: BTreeMap<NodeName, Reading>,
    /// Who is named as the source while there is no reading.
    pub source: Source,
}

/// What happened before: the published attributes of the state item and what the coordinator keeps beside them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct State {
    /// Whose state it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<ClusterId>,
    /// When the cluster was last scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Timestamp>,
    /// What was done then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_action: Option<Action>,
    /// An operation runs.
    pub scaling_in_progress: bool,
    /// A person has paused the coordinator.
    pub paused: bool,
    /// Offerings that are not to be tried for a time.
    pub backoff: Vec<Backoff>,
    /// Pools of which nothing is to be launched for a time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stopped_pools: Vec<StoppedPool>,
    /// Nodes that were launched and have not registered yet.
    pub launching: Vec<Launching>,
    /// Since when each node has been unneeded without a break.
    pub unneeded_since: BTreeMap<NodeName, Timestamp>,
    /// What was launched within the last hour at least, for `limits.max_launches_per_hour`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub launched: Vec<Launched>,
    /// A person has lifted the brakes (freezes, launches and spending per hour) until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brakes_lifted_until: Option<Timestamp>,
    /// What EC2 announced of nodes that are still there. Interruptions are not among it: their nodes are
    /// [`being_deleted`](crate::model::Node::being_deleted).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub announced: Vec<Announced>,
    /// Nodes whose removal was given up lately; for `scale_down.cooldown` it is not begun again because they are due.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<GivenUp>,
    /// Nodes that have drifted from what their pools launch now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drifted: Vec<Drifted>,
    /// Nodes much of whose CPU the hypervisor has given to others for a while.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub throttled: Vec<Throttled>,
    /// Room that the forecast wants beyond what pods ask for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
}

/// Room that is expected to be asked for soon (`[forecast]`), as so many pods of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// How many.
    pub pods: u32,
    /// For so many of them no node is launched: the room is kept where it is there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub only_kept: u32,
    /// So many of the pods that are there now need nothing of what they request: their autoscaler is about to end them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub surplus: u32,
    /// What each requests.
    pub cpu_millis: MilliCpu,
    /// What each requests.
    pub memory_bytes: Bytes,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Something that EC2 announced of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The node.
    pub node: NodeName,
    /// What.
    pub notice: Forewarning,
    /// When it begins, where it has a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// A notice that leaves time to plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forewarning {
    /// The spot machine has an elevated risk of interruption.
    Rebalance,
    /// Maintenance of the machine is scheduled.
    Maintenance,
}

impl From<Forewarning> for Due {
    fn from(notice: Forewarning) -> Self {
        match notice {
            Forewarning::Rebalance => Self::Rebalance,
            Forewarning::Maintenance => Self::Maintenance,
        }
    }
}

/// A removal that was given up: its pods would not leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// The node.
    pub node: NodeName,
    /// When.
    pub at: Timestamp,
}

/// A node that is not what a launch of its pool would be now: another template, version or image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drifted {
    /// The node.
    pub node: NodeName,
    /// How it differs, in words.
    pub how: String,
}

/// A node much of whose CPU the hypervisor gives to others, as its agent says: a burstable machine without credits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttled {
    /// The node.
    pub node: NodeName,
    /// Since when.
    pub since: Timestamp,
}

/// What a plan does, or what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nodes are launched.
    ScaleUp,
    /// Nodes are removed.
    ScaleDown,
    /// Nodes are removed and cheaper ones launched for their pods.
    Replace,
    /// Nothing.
    #[default]
    None,
}

impl Action {
    /// The word in JSON and in the state item.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScaleUp => "scale_up",
            Self::ScaleDown => "scale_down",
            Self::Replace => "replace",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An offering that failed lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Its type.
    pub instance_type: InstanceType,
    /// Its zone.
    pub zone: Zone,
    /// Its market.
    pub market: Market,
    /// Until when it is not tried; from then on it is.
    pub until: Timestamp,
}

/// A pool that is stopped: its launches failed for a reason of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedPool {
    /// The pool.
    pub pool: PoolName,
    /// Until when nothing of it is launched.
    pub until: Timestamp,
    /// Why, as a sentence.
    pub reason: String,
}

/// A node that was launched and has not registered yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launching {
    /// Its pool.
    pub pool: PoolName,
    /// Its type.
    pub instance_type: InstanceType,
    /// Its zone.
    pub zone: Zone,
    /// Its market.
    pub market: Market,
    /// When the launch was asked for.
    pub since: Timestamp,
}

/// Nodes that were launched by one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launched {
    /// When.
    pub time: Timestamp,
    /// How many.
    pub nodes: u32,
}

/// What is wrong with a metrics or state file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct InputError {
    /// The key's path in the file.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl InputError {
    fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

/// Reads JSON, naming the key's path (or line and column, where the text itself is broken) in the error.
pub(crate) fn from_json<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, InputError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        // A broken key is `?` in its path; the whole is `.`.
        let path = e.path().to_string();
        let known = path.trim_end_matches(['?', '.']);
        InputError::new(if known.is_empty() { "." } else { known }, e.inner().to_string())
    })?;
    json.end().map_err(|e| InputError::new(".", e.to_string()))?;
    Ok(value)
}

#[derive(Deserialize, Serialize, Default)]
#[serde(default)]
struct MetricsFile {
    cluster: Option<ClusterMetricsFile>,
    nodes: Option<BTreeMap<NodeName, Option<Reading>>>,
}

#[derive(Deserialize, Serialize, Default)]
#[serde(default)]
struct ClusterMetricsFile {
    readings: Option<Vec<Reading>>,
}

impl Metrics {
    /// Reads the `--metrics` file of `smartscale plan`.
    ///
    /// # Errors
    /// If the text is no such JSON, or a figure is negative or not finite; the key's path is named.
    pub fn from_json(text: &str) -> Result<Self, InputError> {
        let file: MetricsFile = from_json(text)?;
        let cluster = file.cluster.and_then(|c| c.readings).unwrap_or_default();
        let nodes: BTreeMap<_, _> = file
            .nodes
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, reading)| Some((name, reading?)))
            .collect();
        for (index, reading) in cluster.iter().enumerate() {
            reading.check(&format!("cluster.readings[{index}]"))?;
        }
        for (name, reading) in &nodes {
            reading.check(&format!("nodes.{name}"))?;
        }
        Ok(Self {
            cluster,
            nodes,
            source: Source::File,
        })
    }

    /// As the `--metrics` file holds it.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "cluster": { "readings": self.cluster }, "nodes": self.nodes })
    }
}

impl Reading {
    /// Refuses figures that nothing can have measured.
    ///
    /// # Errors
    /// Names the figure below `path` that is negative or not finite.
    pub fn check(&self, path: &str) -> Result<(), InputError> {
        for (name, figure) in [
            ("cpu_percent", self.cpu_percent),
            ("memory_percent", self.memory_percent),
        ] {
            if let Some(figure) = figure.filter(|f| !f.is_finite() || *f < 0.0) {
                return Err(InputError::new(
                    format!("{path}.{name}"),
                    format!("{figure} is no usage: expected a percentage of 0 or more, or null for unknown"),
                ));
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct StateFile {
    cluster_id: Option<ClusterId>,
    last_scale_time: Option<Timestamp>,
    last_scale_action: Option<Action>,
    scaling_in_progress: Option<bool>,
    paused: Option<bool>,
    backoff: Option<Vec<Backoff>>,
    stopped_pools: Option<Vec<StoppedPool>>,
    launching: Option<Vec<Launching>>,
    unneeded_since: Option<BTreeMap<NodeName, Option<Timestamp>>>,
    launched: Option<Vec<Launched>>,
    brakes_lifted_until: Option<Timestamp>,
    announced: Option<Vec<Announced>>,
    drifted: Option<Vec<Drifted>>,
    throttled: Option<Vec<Throttled>>,
    given_up: Option<Vec<GivenUp>>,
    expected: Option<Expected>,
}

impl State {
    /// Reads the `--state` file of `smartscale plan`. Every key is optional, unknown ones are passed over.
    ///
    /// # Errors
    /// If the text is no such JSON, or the state is of another cluster than `expected`; the key's path is named.
    pub fn from_json(text: &str, expected: &ClusterId) -> Result<Self, InputError> {
        let file: StateFile = from_json(text)?;
        if let Some(id) = file.cluster_id.as_ref().filter(|id| *id != expected) {
            return Err(InputError::new(
                "cluster_id",
                format!("the state is of cluster `{id}`, but the policy's cluster.id is `{expected}`"),
            ));
        }
        Ok(Self {
            cluster_id: file.cluster_id,
            last_scale_time: file.last_scale_time,
            last_scale_action: file.last_scale_action,
            scaling_in_progress: file.scaling_in_progress.unwrap_or_default(),
            paused: file.paused.unwrap_or_default(),
            backoff: file.backoff.unwrap_or_default(),
            stopped_pools: file.stopped_pools.unwrap_or_default(),
            launching: file.launching.unwrap_or_default(),
            unneeded_since: file
                .unneeded_since
                .unwrap_or_default()
                .into_iter()
                .filter_map(|(node, since)| Some((node, since?)))
                .collect(),
            launched: file.launched.unwrap_or_default(),
            brakes_lifted_until: file.brakes_lifted_until,
            announced: file.announced.unwrap_or_default(),
            drifted: file.drifted.unwrap_or_default(),
            throttled: file.throttled.unwrap_or_default(),
            given_up: file.given_up.unwrap_or_default(),
            expected: file.expected,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    #[test]
    fn metrics_are_read_and_written_alike() {
        let text = r#"{ "cluster": { "readings": [ { "time": "2026-01-02T03:00:00Z", "cpu_percent": 82.0, "memory_percent": null } ] },
            "nodes": { "node-a": { "time": "2026-01-02T03:04:00Z", "cpu_percent": 120, "memory_percent": 20.0 }, "node-b": null } }"#;
        let metrics = Metrics::from_json(text).unwrap();
        assert_eq!(metrics.cluster[0].memory_percent, None);
        assert_eq!(metrics.nodes.len(), 1);
        assert_eq!(
            Metrics::from_json(&metrics.to_json().to_string()).unwrap(),
            metrics
        );
    }

    #[test]
    fn a_negative_figure_is_named_by_its_path() {
        let text = r#"{ "nodes": { "a": { "time": "2026-01-02T03:04:00Z", "cpu_percent": -1 } } }"#;
        assert_eq!(Metrics::from_json(text).unwrap_err().path, "nodes.a.cpu_percent");
        let text = r#"{ "cluster": { "readings": [ { "time": "yesterday" } ] } }"#;
        assert_eq!(
            Metrics::from_json(text).unwrap_err().path,
            "cluster.readings[0].time"
        );
        assert!(
            Metrics::from_json(
                r#"{ "nodes": { "a": { "time": "2026-01-02T03:04:00Z", "cpu_percent": 1e999 } } }"#
            )
            .is_err()
        );
        for (text, path) in [
            ("{ nodes }", "."),
            (r#"{ "nodes": { a } }"#, "nodes"),
            (r#"{ "": x }"#, "."),
        ] {
            assert_eq!(Metrics::from_json(text).unwrap_err().path, path, "{text}");
        }
    }

    #[test]
    fn a_state_of_another_cluster_is_refused_and_nulls_are_absent() {
        let ours = ClusterId::from("a");
        let state = State::from_json(
            r#"{ "cluster_id": "a", "backoff": null, "unneeded_since": { "n": null }, "node_count": 3 }"#,
            &ours,
        );
        assert_eq!(
            state.unwrap(),
            State {
                cluster_id: Some(ours.clone()),
                ..State::default()
            }
        );
        assert_eq!(
            State::from_json(r#"{ "cluster_id": "b" }"#, &ours)
                .unwrap_err()
                .path,
            "cluster_id"
        );
        assert_eq!(
            State::from_json(r#"{ "last_scale_action": "up" }"#, &ours)
                .unwrap_err()
                .path,
            "last_scale_action"
        );
    }
}
