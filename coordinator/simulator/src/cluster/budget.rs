//! Disruption budgets: the arithmetic of the disruption controller and the eviction subresource of the API server
//! (`pkg/controller/disruption`, `pkg/registry/core/pod/storage/eviction.go`).
//!
//! An eviction spends the budget *before* the pod's UID is compared: one that is refused for its UID has used the budget up for
//! two minutes, as on a real API server.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use smartscale_planner::model::{DisruptionBudget, LabelSelector, NamespaceName, Phase, Pod, PodKey};

use super::{State, signed};

/// A pod that was to be evicted and is still there counts as disrupted for so long (`DeletionTimeout`).
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);

/// What a budget keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// So many stay.
    MinAvailable(u32),
    /// At most so many are away.
    MaxUnavailable(u32),
    /// Such a share stays, in percent, rounded up.
    MinAvailablePercent(u32),
    /// At most such a share is away, in percent, rounded up.
    MaxUnavailablePercent(u32),
}

/// A PodDisruptionBudget with its status.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: Arc<str>,
    /// Which pods.
    pub selector: LabelSelector,
    /// What it keeps.
    pub bound: Bound,
    /// Pods that an eviction was accepted for and that are not terminating yet, with its time.
    disrupted: BTreeMap<PodKey, Timestamp>,
    /// `status.disruptionsAllowed`.
    allowed: u32,
    /// `status.currentHealthy`.
    healthy: u32,
    /// `status.desiredHealthy`.
    desired: u32,
    /// `status.expectedPods`.
    expected: u32,
}

impl Budget {
    /// A budget over the pods with label `app`.
    #[must_use]
    pub fn new(namespace: &str, name: &str, app: &str, bound: Bound) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            selector: LabelSelector::of("app", app),
            bound,
            disrupted: BTreeMap::new(),
            allowed: 0,
            healthy: 0,
            desired: 0,
            expected: 0,
        }
    }

    /// `status.disruptionsAllowed`.
    #[must_use]
    pub fn allowed(&self) -> u32 {
        self.allowed
    }

    pub(super) fn status(&self) -> (u32, u32, u32, u32) {
        (self.allowed, self.healthy, self.desired, self.expected)
    }

    pub(super) fn to_model(&self) -> DisruptionBudget {
        DisruptionBudget {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            selector: Some(self.selector.clone()),
            disruptions_allowed: i32::try_from(self.allowed).unwrap_or(i32::MAX),
            always_evict_unhealthy: false,
        }
    }

    fn covers(&self, pod: &Pod) -> bool {
        self.namespace == pod.key.namespace && self.selector.matches(&pod.labels)
    }
}

/// Why an eviction was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvictionRefused {
    /// 404.
    #[error("there is no such pod")]
    NotFound,
    /// 409: the pod of this name has another UID.
    #[error("the pod of this name has another UID")]
    OtherUid,
    /// 429 with cause `DisruptionBudget`.
    #[error(
        "Cannot evict pod as it would violate the pod's disruption budget. The disruption budget {0} needs more healthy pods"
    )]
    Budget(Arc<str>),
    /// 500.
    #[error(
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    )]
    MultipleBudgets,
}

/// The disruption controller's pass: what each budget allows now.
pub(super) fn step(state: &mut State, now: Timestamp) {
    let State {
        budgets,
        pods,
        deployments,
        ..
    } = state;
    let mut changed = false;
    for budget in budgets.values_mut() {
        let covered: Vec<&Pod> = pods
            .values()
            .map(|entry| &entry.pod)
            .filter(|pod| budget.covers(pod) && !pod.is_finished())
            .collect();
        budget.disrupted.retain(|key, since| {
            now.duration_since(*since) < signed(DELETION_TIMEOUT)
                && pods.get(key).is_some_and(|entry| !entry.pod.is_terminating())
        });
        let scale: u32 = deployments
            .values()
            .filter(|d| {
                let owner = d.replica_set();
                d.namespace == budget.namespace
                    && covered
                        .iter()
                        .any(|pod| pod.controller.as_ref().is_some_and(|c| c.name == owner))
            })
            .map(|d| d.replicas)
            .sum();
        let count = u32::try_from(covered.len()).unwrap_or(u32::MAX);
        let share = |percent: u32, of: u32| (of * percent).div_ceil(100);
        let (expected, desired) = match budget.bound {
            Bound::MinAvailable(min) => (count, min),
            Bound::MaxUnavailable(max) => (scale, scale.saturating_sub(max)),
            Bound::MinAvailablePercent(min) => (scale, share(min, scale)),
            Bound::MaxUnavailablePercent(max) => (scale, scale.saturating_sub(share(max, scale))),
        };
        let healthy = covered
            .iter()
            .filter(|pod| pod.ready && !pod.is_terminating() && !budget.disrupted.contains_key(&pod.key))
            .count();
        let healthy = u32::try_from(healthy).unwrap_or(u32::MAX);
        let allowed = if expected == 0 {
            0
        } else {
            healthy.saturating_sub(desired)
        };
        changed |= budget.status() != (allowed, healthy, desired, expected);
        (budget.allowed, budget.healthy, budget.desired, budget.expected) =
            (allowed, healthy, desired, expected);
    }
    if changed {
        state.touch();
    }
}

/// Evicts a pod. Without a UID any pod of this name is meant.
pub(super) fn evict(
    state: &mut State,
    key: &PodKey,
    uid: Option<&str>,
    now: Timestamp,
) -> Result<(), EvictionRefused> {
    let pod = &state.pods.get(key).ok_or(EvictionRefused::NotFound)?.pod;
    // Pods that serve nobody spend no budget (`canIgnorePDB`).
    let serves = !pod.is_finished() && pod.phase != Phase::Pending && !pod.is_terminating();
    if serves {
        let ready = pod.ready;
        let mut covering = state
            .budgets
            .values_mut()
            .filter(|budget| budget.namespace == key.namespace && budget.selector.matches(&pod.labels));
        if let Some(budget) = covering.next() {
            if covering.next().is_some() {
                return Err(EvictionRefused::MultipleBudgets);
            }
            // An unhealthy pod may go while the others suffice (`IfHealthyBudget`).
            let spare = !ready && budget.healthy >= budget.desired && budget.desired > 0;
            if !spare {
                if budget.allowed == 0 {
                    return Err(EvictionRefused::Budget(budget.name.clone()));
                }
                budget.allowed -= 1;
                budget.disrupted.insert(key.clone(), now);
                state.touch();
            }
        }
    }
    let pod = &state.pods.get(key).ok_or(EvictionRefused::NotFound)?.pod;
    if uid.is_some_and(|uid| uid != &*pod.uid) {
        return Err(EvictionRefused::OtherUid);
    }
    if !pod.is_terminating() {
        state.delete_pod(key, None, now);
    }
    Ok(())
}
