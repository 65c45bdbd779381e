//! The plan: what to do, in the very shape of `smartscale plan -o json`, and why.
//!
//! A plan leaves no choice to execution: every launch names its pool, zone, market and types, every move its
//! destination. What the coordinator must remember for the next plan travels with it but is not part of the output.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    model::{InstanceType, Market, NodeName, PodKey, PoolName, Zone},
    policy::PriceSource,
    snapshot::{Action, Source},
};

/// A decision with its reasons.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What it does; `none` when nothing is launched or removed.
    pub action: Action,
    /// One sentence a person understands.
    pub summary: String,
    /// Nodes to launch, one element each.
    pub launch: Vec<Launch>,
    /// Nodes to remove.
    pub remove: Vec<Removal>,
    /// What becomes of the pods that wait.
    pub pods: Pods,
    /// Every node, with all that keeps it from being removed.
    pub nodes: Vec<NodeVerdict>,
    /// The rules with their figures.
    pub rules: Vec<Rule>,
    /// What held the plan back.
    pub held_by: Vec<Hold>,
    /// Assumptions that a reader must know (estimated memory, assumed spot prices).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumptions: Vec<String>,
    /// Where each pod that found a place goes, in the order in which the places were found: pending pods first, then the
    /// moves of one removal after another. No part of the output.
    #[serde(skip)]
    pub placements: Vec<Placement>,
    /// To be kept for the next plan ([`crate::snapshot::State::unneeded_since`]); no part of the output.
    #[serde(skip)]
    pub unneeded_since: BTreeMap<NodeName, Timestamp>,
    /// With `scale_down.steer`: nodes that scale-ins of workloads are to empty, the first one first; no part of the output.
    #[serde(skip)]
    pub steer: Vec<NodeName>,
}

/// One node to launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Its pool.
    pub pool: PoolName,
    /// Its zone.
    pub zone: Zone,
    /// How it is bought.
    pub market: Market,
    /// Every type that would do, cheapest first, 60 at most.
    pub instance_types: Vec<InstanceType>,
    /// The first type's price in USD.
    pub price_per_hour: f64,
    /// Who said that price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_source: Option<PriceSource>,
    /// How old it is, in seconds; absent for the policy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_age_seconds: Option<i64>,
    /// Pending (or moved) pods that are planned onto it; empty if it is launched for a minimum or a metric rule.
    pub pods: Vec<PodKey>,
}

/// One node to remove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Removal {
    /// Its name.
    pub node: NodeName,
    /// Why it goes.
    pub reason: RemovalReason,
    /// Where each of its pods will find a place.
    pub moves: Vec<Move>,
    /// Its price in USD; 0 if nobody knows it.
    pub saves_per_hour: f64,
    /// Why it goes although it is needed, whatever that costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Due>,
    /// Who said that price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saves_source: Option<PriceSource>,
    /// How old it is, in seconds; absent for the policy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saves_age_seconds: Option<i64>,
}

/// Why a node is to go although it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Due {
    /// Maintenance of its machine is scheduled.
    Maintenance,
    /// EC2 sees an elevated risk that its spot machine is interrupted.
    Rebalance,
    /// It is not what its pool's launches would be now.
    Drift,
    /// It is older than its pool's nodes may be.
    Age,
    /// The hypervisor gives much of its CPU to others: a burstable machine without credits.
    Throttled,
}

impl Due {
    /// What follows "a node that".
    pub fn words(self) -> &'static str {
        match self {
            Self::Maintenance => "EC2 has scheduled maintenance for",
            Self::Rebalance => "EC2 recommends to rebalance",
            Self::Drift => "is not what its pool launches now",
            Self::Age => "is older than its pool's max_age",
            Self::Throttled => "is out of CPU credits",
        }
    }

    /// The same as a clause.
    pub fn clause(self) -> &'static str {
        match self {
            Self::Maintenance => "EC2 has scheduled maintenance for it",
            Self::Rebalance => "EC2 recommends to rebalance it",
            Self::Drift => "it is not what its pool launches now",
            Self::Age => "it is older than its pool's max_age",
            Self::Throttled => "it is out of CPU credits",
        }
    }
}

/// Why a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemovalReason {
    /// Nothing that matters runs on it.
    Empty,
    /// Its pods fit elsewhere.
    Underutilised,
    /// A cheaper node is launched for its pods.
    Replaced,
}

/// A pod and the place that is there for it once its node goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// The pod.
    pub pod: PodKey,
    /// The place.
    pub to: Destination,
}

/// A pod with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The pod.
    pub pod: PodKey,
    /// The place.
    pub to: Destination,
}

/// An existing node, a node on its way, or the n-th launch of the same plan (written `launch[n]`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// A node that stays.
    Node(NodeName),
    /// The n-th of the launching entries that have not lapsed, by pool, zone, type, market and time. No move goes there.
    Launching(usize),
    /// An element of [`Plan::launch`].
    Launch(usize),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => name.fmt(f),
            Self::Launching(index) => f.pad(&format!("launching[{index}]")),
            Self::Launch(index) => f.pad(&format!("launch[{index}]")),
        }
    }
}

impl Serialize for Destination {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let index = |prefix: &str| {
            let number = text.strip_prefix(prefix)?.strip_suffix(']')?;
            number.parse().ok()
        };
        Ok(index("launch[")
            .map(Self::Launch)
            .or_else(|| index("launching[").map(Self::Launching))
            .unwrap_or_else(|| Self::Node(text.as_str().into())))
    }
}

/// What becomes of the pods that wait.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pods {
    /// How many found a place, on existing, launching or planned nodes.
    pub placed: usize,
    /// Those that did not.
    pub pending: Vec<PendingPod>,
}

/// A pod without a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingPod {
    /// The pod.
    pub pod: PodKey,
    /// The reason in words.
    pub reason: String,
    /// The reason as a code.
    pub code: PendingCode,
}

/// Why a pod has no place. The order is that of the filters: of several candidates the one counts where the pod got
/// furthest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PendingCode {
    /// It waits for its scheduling gates.
    SchedulingGated,
    /// Its priority is below `scale_up.priority_cutoff`: no node is launched for it.
    PriorityCutoff,
    /// It uses dynamic resource allocation.
    ResourceClaim,
    /// Node selector or affinity, or a zone or architecture that no pool has.
    NodeSelector,
    /// It does not bear a taint.
    Taints,
    /// A volume cannot be had there.
    Volume,
    /// Every type is too small.
    NoInstanceTypeFits,
    /// A host port is taken.
    HostPort,
    /// Required pod affinity.
    PodAffinity,
    /// Required pod anti-affinity.
    PodAntiAffinity,
    /// A spread constraint.
    TopologySpread,
    /// The offering failed lately.
    BackedOff,
    /// `scale_up.max_step` is used up.
    MaxStep,
    /// The cluster or the pool is at its maximum.
    AtMaxNodes,
    /// Nothing is launched now: an operation runs, or somebody paused, or a cooldown.
    Held,
}

/// A node and what keeps it from being removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeVerdict {
    /// The node.
    pub node: NodeName,
    /// Nothing blocks it.
    pub candidate: bool,
    /// All that blocks it.
    pub blockers: Vec<Blocker>,
}

/// One thing that keeps a node from being removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Blocker {
    /// What.
    pub code: BlockerCode,
    /// The pod that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodKey>,
}

impl Blocker {
    /// A blocker of the node itself.
    pub fn of_node(code: BlockerCode) -> Self {
        Self { code, pod: None }
    }

    /// A blocker by one of its pods.
    pub fn of_pod(code: BlockerCode, pod: PodKey) -> Self {
        Self { code, pod: Some(pod) }
    }
}

/// The codes of [`Blocker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BlockerCode {
    /// The node is in no pool of the policy, or is of the control plane.
    NotOurs,
    /// An annotation of the node says so.
    ScaleDownDisabled,
    /// It is on its way out already.
    BeingDeleted,
    /// It has not been unneeded for `scale_down.sustained`.
    NotUnneededLongEnough,
    /// It is in use above the thresholds, measured or by requests.
    Utilised,
    /// Nobody knows how much it is used.
    UnknownUsage,
    /// The cluster or the pool is at its minimum.
    AtMinNodes,
    /// A limit on disruption at once is used up.
    Budget,
    /// It is younger than `scale_down.min_age`.
    TooYoung,
    /// A pod without a controller: nobody would create it anew.
    NotReplicated,
    /// A pod of kube-system without a disruption budget.
    KubeSystemWithoutPdb,
    /// A pod with data on the node.
    LocalStorage,
    /// A pod's annotation forbids it.
    NotSafeToEvict,
    /// A pod's annotation forbids it for now or for ever.
    DoNotDisrupt,
    /// A disruption budget has nothing left.
    NotEnoughPdb,
    /// Two disruption budgets cover the pod: the API server refuses to evict it.
    MultiplePdbs,
    /// No other node can take the pod.
    NoPlaceToMove,
}

impl fmt::Display for BlockerCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}"))
    }
}

impl fmt::Display for PendingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}"))
    }
}

/// A rule with its figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Which.
    pub rule: RuleName,
    /// The newest figure; `None` is unknown.
    pub value: Option<f64>,
    /// What it is compared with.
    pub threshold: f64,
    /// It holds, for as long as it must.
    pub fired: bool,
    /// Who said the figure.
    pub source: Source,
    /// How old the figure is, in seconds.
    pub age_seconds: Option<i64>,
}

/// The rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleName {
    /// Average CPU above `scale_up.cpu_percent`.
    CpuAbove,
    /// Average memory above `scale_up.memory_percent`.
    MemoryAbove,
    /// Average CPU below `scale_down.cpu_percent`.
    CpuBelow,
    /// Average memory below `scale_down.memory_percent`.
    MemoryBelow,
    /// Pods wait for a place.
    PendingPods,
}

/// What held a plan back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// The last scale-up is too recent.
    CooldownUp,
    /// The last action is too recent for a removal.
    CooldownDown,
    /// The cluster or a pool is at its maximum.
    AtMax,
    /// The cluster or a pool is at its minimum.
    AtMin,
    /// A threshold is passed, but not for long enough.
    NotSustained,
    /// No fresh cluster metrics.
    MetricsUnknown,
    /// An operation runs.
    OperationInProgress,
    /// Somebody paused.
    Paused,
    /// Pods that some node could take wait, so nothing is removed.
    PendingPods,
    /// A freeze window of the policy stops something.
    Freeze,
    /// `limits.max_launches_per_hour` is used up.
    LaunchRate,
    /// `limits.max_usd_per_hour` is used up.
    Spending,
}

impl Hold {
    /// Whether it bounds launches: beside a launch only that is news, since nothing is removed at the same time anyhow.
    pub fn bounds_launches(self) -> bool {
        matches!(self, Self::AtMax | Self::LaunchRate | Self::Spending)
    }
}

macro_rules! display_as_serialized {
    ($($type:ty),+) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut word = String::new();
                for (index, c) in format!("{self:?}").chars().enumerate() {
                    if c.is_uppercase() && index > 0 {
                        word.push('_');
                    }
                    word.extend(c.to_lowercase());
                }
                f.pad(&word)
            }
        }
    )+};
}
display_as_serialized!(RuleName, Hold, RemovalReason);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    #[test]
    fn words_are_printed_as_they_are_serialized() {
        assert_eq!(
            serde_json::to_value(Hold::OperationInProgress).unwrap(),
            Hold::OperationInProgress.to_string()
        );
        assert_eq!(
            serde_json::to_value(RuleName::CpuAbove).unwrap(),
            RuleName::CpuAbove.to_string()
        );
        assert_eq!(
            serde_json::to_value(BlockerCode::MultiplePdbs).unwrap(),
            BlockerCode::MultiplePdbs.to_string()
        );
        assert_eq!(
            serde_json::to_value(RemovalReason::Underutilised).unwrap(),
            RemovalReason::Underutilised.to_string()
        );
    }

    #[test]
    fn a_destination_survives_json() {
        let all = [
            Destination::Node("i-1".into()),
            Destination::Launch(3),
            Destination::Launching(0),
        ];
        for to in all {
            let json = serde_json::to_string(&to).unwrap();
            assert_eq!(serde_json::from_str::<Destination>(&json).unwrap(), to);
        }
    }
}
