//! What the coordinator decided last, for those who ask.

use std::sync::Arc;

use jiff::Timestamp;
use smartscale_planner::{Plan, Policy, Snapshot};

use crate::ids::DecisionId;

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
}
