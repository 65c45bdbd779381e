//! What the coordinators have written down, read back for the story, the view and the summary.

use serde::Serialize;
pub use smartscale_coordinator::act::operation::Operation;
use smartscale_coordinator::{
    ids::{CoordinatorName, InstanceId},
    state::{
        SharedStore, StoreError,
        records::{DecisionRecord, NodeRecord, Record},
    },
};
use smartscale_planner::{Action, Plan, RuleName};

/// Records of a kind that are read at most.
const MOST: usize = 1000;

async fn all<R: Record>(store: &SharedStore) -> Result<Vec<R>, StoreError> {
    store
        .list(R::PREFIX, false, MOST)
        .await?
        .iter()
        .map(R::from_item)
        .collect()
}

/// The operations, oldest first.
///
/// # Errors
/// What the store says.
pub async fn operations(store: &SharedStore) -> Result<Vec<Operation>, StoreError> {
    all(store).await
}

/// The decisions, oldest first.
///
/// # Errors
/// What the store says.
pub async fn decisions(store: &SharedStore) -> Result<Vec<DecisionRecord>, StoreError> {
    all(store).await
}

/// The record of a machine.
///
/// # Errors
/// What the store says.
pub async fn node(store: &SharedStore, instance: &InstanceId) -> Result<Option<NodeRecord>, StoreError> {
    let item = store.get(&format!("{}{instance}", NodeRecord::PREFIX)).await?;
    item.as_ref().map(NodeRecord::from_item).transpose()
}

/// Who holds the lease.
///
/// # Errors
/// What the store says.
pub async fn leader(store: &SharedStore) -> Result<Option<CoordinatorName>, StoreError> {
    Ok(store.lease().await?.and_then(|row| row.holder))
}

/// What a decision came to, without its time: the same seed gives the same list of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Essence {
    /// What was done.
    pub action: String,
    /// `pool/zone/market/types (pods)` of each launch.
    pub launches: Vec<String>,
    /// `node (reason, moves)` of each removal.
    pub removals: Vec<String>,
    /// The rules that called for it: those that fired above, or for pending pods. A removal's reason stands with it.
    pub rules: Vec<String>,
}

impl Essence {
    /// The essence of a plan; `None` for "do nothing".
    #[must_use]
    pub fn of(plan: &Plan) -> Option<Self> {
        if plan.action == Action::None {
            return None;
        }
        let launches = plan.launch.iter().map(|launch| {
            let types: Vec<&str> = launch.instance_types.iter().map(AsRef::as_ref).collect();
            format!(
                "{}/{}/{}/{} for {} pods",
                launch.pool,
                launch.zone,
                launch.market,
                types.join(","),
                launch.pods.len()
            )
        });
        let removals = plan.remove.iter().map(|removal| {
            format!(
                "{} ({}, {} moves)",
                removal.node,
                removal.reason,
                removal.moves.len()
            )
        });
        Some(Self {
            action: plan.action.to_string(),
            launches: launches.collect(),
            removals: removals.collect(),
            rules: plan
                .rules
                .iter()
                .filter(|rule| rule.fired && calls_for_more(rule.rule))
                .map(|rule| rule.rule.to_string())
                .collect(),
        })
    }
}

fn calls_for_more(rule: RuleName) -> bool {
    matches!(
        rule,
        RuleName::PendingPods | RuleName::CpuAbove | RuleName::MemoryAbove
    )
}
