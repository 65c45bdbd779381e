//! What the coordinator decided last, for those who ask.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use smartscale_planner::{
    Plan, Policy, Snapshot,
    model::{Node, NodeName, PodKey},
    snapshot::Reading,
};

use crate::{decide::Foreseen, ids::DecisionId};

/// The last decision with everything that it was drawn from.
#[derive(Debug, Clone)]
pub struct Latest {
    /// When it was taken.
    pub at: Timestamp,
    /// What was seen.
    pub snapshot: Arc<Snapshot>,
    /// What was decided.
    pub plan: Arc<Plan>,
    /// The policy that was applied.
    pub policy: Arc<Policy>,
    /// The same as TOML.
    pub policy_toml: Arc<str>,
    /// The record of the decision; `None` where none was written (a follower's).
    pub decision: Option<DecisionId>,
    /// What the plan costs (positive) or saves (negative), in USD per hour.
    pub cost_change_per_hour: f64,
    /// What is wrong or worth knowing, as sentences.
    pub warnings: Vec<String>,
    /// What there is to say of launch templates, as sentences.
    pub of_templates: Vec<String>,
    /// What the forecast expected, where the policy wants one.
    pub foreseen: Option<Foreseen>,
    /// Pods that bear a deletion cost of ours, with it: scale-ins end them before others.
    pub steered: BTreeMap<PodKey, i32>,
}

/// A reading of the cluster's averages counts for so long (FORMATS §2).
const READING_LIFE: SignedDuration = SignedDuration::from_mins(3);

impl Latest {
    /// Nodes of the policy's pools.
    pub fn our_nodes(&self) -> impl Iterator<Item = &Node> {
        let ours = |node: &&Node| self.policy.pool_of(node).is_some();
        self.snapshot.cluster.nodes.iter().filter(ours)
    }

    /// How a node differs from what a launch of its pool would be now.
    #[must_use]
    pub fn drift_of(&self, node: &NodeName) -> Option<&str> {
        let mut drifted = self.snapshot.state.drifted.iter();
        drifted.find(|one| one.node == *node).map(|one| one.how.as_str())
    }

    /// How many pods wait for a place.
    #[must_use]
    pub fn pending(&self) -> usize {
        let pods = &self.snapshot.cluster.pods;
        pods.iter().filter(|pod| pod.wants_place()).count()
    }

    /// How long the pod has been there that has waited for a place longest; zero where none waits.
    #[must_use]
    pub fn longest_pending(&self) -> Duration {
        let pods = self.snapshot.cluster.pods.iter();
        pods.filter(|pod| pod.wants_place())
            .filter_map(|pod| Some(self.at.duration_since(pod.created?).unsigned_abs()))
            .max()
            .unwrap_or_default()
    }

    /// What our nodes cost in USD an hour, by the policy's prices; a node whose price is unknown counts nothing.
    #[must_use]
    pub fn cost_per_hour(&self) -> f64 {
        self.our_nodes()
            .filter_map(|node| self.policy.price_of(node))
            .sum()
    }

    /// The newest reading of the cluster's averages, if it still counts at `now`.
    #[must_use]
    pub fn reading(&self, now: Timestamp) -> Option<&Reading> {
        let readings = self.snapshot.metrics.cluster.iter();
        readings
            .max_by_key(|reading| reading.time)
            .filter(|reading| now.duration_since(reading.time) <= READING_LIFE)
    }
}
