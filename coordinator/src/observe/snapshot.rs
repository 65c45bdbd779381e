//! What the planner is shown, put together from what every source said last.
//!
//! Without a view of the cluster that is fresh enough nothing can be decided: an empty cluster would look like one
//! below its minimum, a stale one like one whose pods still wait. The snapshot is then marked paused, so that the
//! plan is shown and nothing is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use serde_json::Value;
use smartscale_manifests::BadObject;
use smartscale_planner::{
    Snapshot,
    drainability::{Evictability, Strictness, classify},
    model::{ClusterId, Node, NodeName, Pod, SETTLING, Taint},
    snapshot::{Action, Metrics, State},
};

use super::{
    sources::{SourceState, View},
    utilisation,
};
use crate::state::Attributes;

/// More bad objects than this are counted and not named.
const MOST_NAMED: usize = 20;

/// A snapshot and what is wrong with what it was made of.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// What the planner is shown.
    pub snapshot: Snapshot,
    /// Objects that could not be read; what they stand for is held still.
    pub bad: Vec<BadObject>,
    /// How every source stood.
    pub sources: Vec<SourceState>,
    /// Whether the cluster's objects were fresh enough to act on; if not, the snapshot says paused.
    pub sees_cluster: bool,
}

impl Assembled {
    /// What is wrong, as sentences.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let hold =
            (!self.sees_cluster).then(|| "the cluster is not seen well enough: nothing is done".to_owned());
        let sources = self
            .sources
            .iter()
            .filter(|state| !state.fresh || state.error.is_some())
            .map(|state| {
                let age = match state.age {
                    Some(age) => format!("last answered {} s ago", age.as_secs()),
                    None => "has not answered yet".to_owned(),
                };
                match &state.error {
                    Some(error) => format!("{} {age}: {error}", state.source),
                    None => format!("{} {age}", state.source),
                }
            });
        let bad = self.bad.iter().take(MOST_NAMED).map(ToString::to_string);
        let more = self.bad.len().saturating_sub(MOST_NAMED);
        let more = (more > 0).then(|| format!("{more} more objects cannot be read"));
        hold.into_iter().chain(sources).chain(bad).chain(more)
    }
}

/// Nodes that running operations remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Going {
    /// All of them.
    pub leaving: BTreeSet<NodeName>,
    /// Those whose end nobody decided: the pods on them need a place now, not when each of them has been evicted.
    pub doomed: BTreeSet<NodeName>,
}

/// Puts a snapshot together. `state` is what the store and the executor say, `going` what running operations remove.
#[must_use]
pub fn assemble(view: &View, mut state: State, going: &Going, now: Timestamp) -> Assembled {
    let sources = view.states(now);
    let sees_cluster = sources
        .iter()
        .any(|state| state.source == "kubernetes" && state.fresh);
    let (mut cluster, bad) = view
        .cluster()
        .value
        .map(|objects| objects.to_cluster(now))
        .unwrap_or_default();
    for node in &mut cluster.nodes {
        node.being_deleted |= going.leaving.contains(&node.name);
        node.ready &= !is_settling(node, now);
    }
    if !going.doomed.is_empty() {
        cluster
            .pods
            .iter_mut()
            .for_each(|pod| take_off(pod, &going.doomed, now));
    }
    state.paused |= !sees_cluster;
    let metrics = Metrics {
        cluster: view.readings(),
        nodes: utilisation::of_nodes(&cluster, &view.agents(), &view.metrics(), now),
        source: view.averages_come_from(),
    };
    Assembled {
        snapshot: Snapshot {
            cluster,
            metrics,
            state,
        },
        bad,
        sources,
        sees_cluster,
    }
}

/// A pod that must leave a doomed node is shown as one that waits, so that what replaces the node is launched at the notice
/// and for all of its pods at once.
fn take_off(pod: &mut Arc<Pod>, doomed: &BTreeSet<NodeName>, now: Timestamp) {
    let is_on_one = pod.node.as_ref().is_some_and(|node| doomed.contains(node));
    let leaves = || {
        let fate = classify(pod, Strictness::default(), None, now);
        matches!(fate, Evictability::Evict(_) | Evictability::Block(..))
    };
    if is_on_one && leaves() {
        let pod = Arc::make_mut(pod);
        pod.node = None;
        pod.nominated = None;
    }
}

/// A kubelet says Ready some moments before the taints of its start are taken off the node. For the scheduler, and so
/// for the planner, the node becomes ready with the latter: otherwise a pod that this very node was launched for
/// would seem to have no place, and get a second one.
fn is_settling(node: &Node, now: Timestamp) -> bool {
    node.is_younger_than(SETTLING, now) && node.taints.iter().any(Taint::marks_a_start)
}

/// The planner's state in the published attributes, and what of them cannot be read, as sentences. Pause, back-off
/// and machines under way are kept elsewhere.
#[must_use]
pub fn state_from(attributes: &Attributes) -> (State, Vec<String>) {
    let mut problems = Vec::new();
    let mut state = State {
        cluster_id: read::<ClusterId>(attributes, "cluster_id", &mut problems),
        last_scale_time: read::<Timestamp>(attributes, "last_scale_time", &mut problems),
        last_scale_action: read::<Action>(attributes, "last_scale_action", &mut problems),
        scaling_in_progress: read::<bool>(attributes, "scaling_in_progress", &mut problems)
            .unwrap_or_default(),
        ..State::default()
    };
    state.unneeded_since = read::<BTreeMap<NodeName, Timestamp>>(attributes, "unneeded_since", &mut problems)
        .unwrap_or_default();
    (state, problems)
}

fn read<T: serde::de::DeserializeOwned>(
    attributes: &Attributes,
    key: &str,
    problems: &mut Vec<String>,
) -> Option<T> {
    let value = attributes
        .get(key)
        .filter(|value| !value.is_null() && **value != Value::String(String::new()))?;
    match T::deserialize(value) {
        Ok(read) => Some(read),
        Err(error) => {
            problems.push(format!(
                "attribute `{key}` of the state item cannot be read: {error}"
            ));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attributes(value: Value) -> Attributes {
        serde_json::from_value(value).unwrap_or_default()
    }

    #[test]
    fn published_attributes_become_the_planners_state() {
        let (state, problems) = state_from(&attributes(json!({
            "cluster_id": "k3s", "node_count": 3, "last_scale_time": "2026-01-02T03:04:05Z",
            "last_scale_action": "scale_up", "scaling_in_progress": true,
            "unneeded_since": { "i-1": "2026-01-02T03:00:00Z" }, "last_cpu_avg": null
        })));
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(state.last_scale_action, Some(Action::ScaleUp));
        assert!(state.scaling_in_progress && state.last_scale_time.is_some());
        assert_eq!(state.unneeded_since.len(), 1);
    }

    #[test]
    fn an_attribute_that_cannot_be_read_is_named_and_the_others_count() {
        let (state, problems) = state_from(&attributes(
            json!({ "last_scale_time": "yesterday", "scaling_in_progress": true }),
        ));
        assert!(state.scaling_in_progress);
        assert_eq!(problems.len(), 1);
        assert!(
            problems
                .iter()
                .all(|problem| problem.contains("`last_scale_time`"))
        );
    }
}
