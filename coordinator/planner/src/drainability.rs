//! What may be evicted from a node, what is left alone, and what forbids it: the one implementation of that rule.
//!
//! ```text
//! pod ─▶ Skip   DaemonSet, mirror, finished          goes with the node, nobody evicts it
//!     ─▶ Leaving  terminating                        never blocks; wait for it
//!     ─▶ Block  bare, local storage, annotations …   the node stays
//!     ─▶ Evict  in tiers, lowest first
//! ```
//!
//! It decides from the pod alone, because the agent sees no more: its kubelet credential reads neither DaemonSets nor
//! disruption budgets. What budgets add is [`pdb_blocker`], for the planner, which sees them. The rules are those of
//! Cluster Autoscaler's `simulator/drainability/rules` and of `kubectl drain`'s filters.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{
    model::{DisruptionBudget, Pod, PodVolume, VolumeSource},
    outcome::BlockerCode,
};

/// Marks the API server's image of a static pod.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// `"true"` lifts some blockers, `"false"` and `"on-completion"` are one.
pub const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
/// Names (comma-separated) of local volumes that may be lost.
pub const SAFE_LOCAL_VOLUMES: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
/// `"true"`, or a duration from the pod's start; on a node `"true"`.
pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";
/// On a node: `"true"` keeps it.
pub const SCALE_DOWN_DISABLED: &str = "cluster-autoscaler.kubernetes.io/scale-down-disabled";

/// Every annotation that a decision reads; a converter may drop all others.
pub const ANNOTATIONS: [&str; 5] = [
    MIRROR,
    SAFE_TO_EVICT,
    SAFE_LOCAL_VOLUMES,
    DO_NOT_DISRUPT,
    SCALE_DOWN_DISABLED,
];

/// Which of the optional blockers are asked for (`scale_down.kube_system`, `scale_down.local_storage`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strictness {
    /// kube-system pods without a disruption budget block.
    pub kube_system_blocks: bool,
    /// Pods with local storage block.
    pub local_storage_blocks: bool,
}

impl Default for Strictness {
    fn default() -> Self {
        Self {
            kube_system_blocks: true,
            local_storage_blocks: true,
        }
    }
}

/// What a drain does with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evictability {
    /// Left alone: it ends with the node and needs no other place.
    Skip(SkipReason),
    /// Already told to go: never evicted again, never a blocker, but waited for. Its replacement needs a place only if
    /// a StatefulSet owns it, which creates it only once this one is gone.
    Leaving {
        /// Whether its replacement still needs a place.
        needs_place: bool,
    },
    /// To be evicted, in the order of tiers.
    Evict(Tier),
    /// Not to be evicted, for all of these reasons. A drain that must happen (a spot interruption) evicts it all the
    /// same, in this tier.
    Block(Vec<BlockerCode>, Tier),
}

/// Why a pod is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// A DaemonSet would put it right back.
    DaemonSet,
    /// A static pod: only its kubelet can end it.
    Mirror,
    /// It has ended by itself.
    Finished,
    /// Its grace is over for so long that it is gone.
    Gone,
}

/// The order of eviction: all pods of a tier at once, the lowest tier first. By priority, as the kubelet's graceful
/// shutdown by pod priority does it: ordinary pods first, cluster-critical and then node-critical ones last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Priority below zero: batch work that anything may displace.
    Low,
    /// Everything without a special priority.
    Ordinary,
    /// Priority of user classes above zero.
    High,
    /// `system-cluster-critical` (2 000 000 000) and above.
    ClusterCritical,
    /// `system-node-critical` (2 000 001 000) and above.
    NodeCritical,
}

impl Tier {
    /// The tier of a resolved priority.
    pub fn of(priority: i32) -> Self {
        match priority {
            i32::MIN..0 => Self::Low,
            0 => Self::Ordinary,
            1..2_000_000_000 => Self::High,
            2_000_000_000..2_000_001_000 => Self::ClusterCritical,
            2_000_001_000.. => Self::NodeCritical,
        }
    }
}

/// Judges one pod by itself. The agent passes `covered_by_pdb = None` (it cannot know): then kube-system pods do not
/// block, because the coordinator, which can, has already decided.
pub fn classify(
    pod: &Pod,
    strictness: Strictness,
    covered_by_pdb: Option<bool>,
    now: Timestamp,
) -> Evictability {
    if pod.is_mirror() {
        return Evictability::Skip(SkipReason::Mirror);
    }
    if pod.is_finished() {
        return Evictability::Skip(SkipReason::Finished);
    }
    if pod.is_gone(now) {
        return Evictability::Skip(SkipReason::Gone);
    }
    if pod.is_owned_by("DaemonSet") {
        return Evictability::Skip(SkipReason::DaemonSet);
    }
    if pod.is_terminating() {
        return Evictability::Leaving {
            needs_place: pod.is_owned_by("StatefulSet"),
        };
    }
    let mut blockers = Vec::new();
    let safe = pod.annotations.get(SAFE_TO_EVICT).map(AsRef::as_ref);
    if safe != Some("true") {
        if pod.controller.is_none() {
            blockers.push(BlockerCode::NotReplicated);
        }
        if strictness.kube_system_blocks
            && pod.key.namespace.as_str() == "kube-system"
            && covered_by_pdb == Some(false)
        {
            blockers.push(BlockerCode::KubeSystemWithoutPdb);
        }
        if strictness.local_storage_blocks && has_local_storage(pod) {
            blockers.push(BlockerCode::LocalStorage);
        }
    }
    if matches!(safe, Some("false" | "on-completion")) {
        blockers.push(BlockerCode::NotSafeToEvict);
    }
    if pod
        .annotations
        .get(DO_NOT_DISRUPT)
        .is_some_and(|value| forbids_disruption(value, pod, now))
    {
        blockers.push(BlockerCode::DoNotDisrupt);
    }
    let tier = Tier::of(pod.priority);
    if blockers.is_empty() {
        Evictability::Evict(tier)
    } else {
        Evictability::Block(blockers, tier)
    }
}

/// Whether [`classify`] tells to evict the pod at any time, however strict, whoever covers it: what that reads of it is
/// not there.
pub(crate) fn always_yields(pod: &Pod) -> bool {
    pod.annotations.is_empty()
        && !pod.is_finished()
        && !pod.is_terminating()
        && pod.controller.is_some()
        && !pod.is_owned_by("DaemonSet")
        && pod.key.namespace.as_str() != "kube-system"
        && !has_local_storage(pod)
}

/// What the disruption budgets say to evicting this pod: with two of them the API server answers 500 for ever, with
/// nothing left 429.
pub fn pdb_blocker<'b>(
    pod: &Pod,
    budgets: impl IntoIterator<Item = &'b DisruptionBudget>,
    left: impl Fn(&DisruptionBudget) -> i32,
) -> Option<BlockerCode> {
    let covering: Vec<_> = budgets.into_iter().filter(|budget| budget.covers(pod)).collect();
    match covering.as_slice() {
        [] => None,
        [budget] => (!spares_unhealthy(budget, pod) && left(budget) < 1).then_some(BlockerCode::NotEnoughPdb),
        _ => Some(BlockerCode::MultiplePdbs),
    }
}

/// Whether evicting this pod costs the budget nothing because it is not ready anyway.
pub fn spares_unhealthy(budget: &DisruptionBudget, pod: &Pod) -> bool {
    budget.always_evict_unhealthy && !pod.ready
}

/// Whether the pod would lose data that lies on the node.
fn has_local_storage(pod: &Pod) -> bool {
    local_volumes(pod).next().is_some()
}

/// The volumes whose data lies on the node, but for those that an annotation exempts.
pub(crate) fn local_volumes(pod: &Pod) -> impl Iterator<Item = &PodVolume> {
    let exempt = pod
        .annotations
        .get(SAFE_LOCAL_VOLUMES)
        .map(AsRef::as_ref)
        .unwrap_or_default();
    pod.volumes
        .iter()
        .filter(|volume| matches!(volume.source, VolumeSource::EmptyDir | VolumeSource::HostPath))
        .filter(move |volume| !exempt.split(',').any(|name| name.trim() == &*volume.name))
}

/// Karpenter's `do-not-disrupt`: `"true"`, or for a duration (Go's notation) from the pod's start. A value that is
/// neither forbids nothing, as there.
fn forbids_disruption(value: &str, pod: &Pod, now: Timestamp) -> bool {
    if value == "true" {
        return true;
    }
    let Some(limit) = crate::duration::parse(value)
        .ok()
        .and_then(|limit| SignedDuration::try_from(limit).ok())
    else {
        return false;
    };
    // A pod that has not started has its whole time before it.
    pod.started
        .is_none_or(|started| now.duration_since(started) < limit)
}

/// How long a terminating pod is waited for at most: its grace is over then and the kubelet has had time to say so.
pub const AFTER_GRACE: Duration = Duration::from_secs(30);
