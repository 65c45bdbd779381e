//! A drain as it is kept on disk and as it is reported.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use smartscale_planner::{drainability::Tier, model::PodKey};
use smartscale_proto::{
    time::{SharedClock, age, to_wire},
    v1,
};

use super::{LocalStorage, OnTimeout, Order};
use crate::kubelet::OwnPod;

/// A moment by both clocks: by the one that nobody sets while the machine runs, and by the wall clock for a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// By the wall clock.
    pub wall: Timestamp,
    /// By the clock's elapsed time, of the boot that [`DrainState::boot_id`] names.
    pub elapsed: Duration,
}

impl Moment {
    /// `delay` from now.
    #[must_use]
    pub fn after(clock: &SharedClock, delay: Duration) -> Self {
        let signed = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
        let now = clock.now();
        Self {
            wall: now.checked_add(signed).unwrap_or(Timestamp::MAX),
            elapsed: clock.elapsed() + delay,
        }
    }

    /// The same wall time in another boot.
    fn rebased(self, clock: &SharedClock) -> Self {
        Self {
            wall: self.wall,
            elapsed: clock.elapsed() + age(clock.now(), self.wall),
        }
    }
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Keeps new pods away.
    Cordoning,
    /// Evicts, and waits for pods to be gone.
    Evicting,
    /// Deletes what is left.
    Forcing,
    /// Lets pods onto the node again.
    Aborting,
    /// Done.
    Drained,
    /// Given up.
    Aborted,
    /// Could not be carried out.
    Failed,
}

impl Stage {
    /// Nothing is left to do.
    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Drained | Self::Aborted | Self::Failed)
    }
}

/// Whose the cordon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cordon {
    /// Not known yet.
    Unknown,
    /// This drain's: an abort takes it away.
    Ours,
    /// A person's, or another program's: nobody here takes it away.
    Foreign,
}

/// How a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodStage {
    /// Waits for its tier, or for the next attempt.
    Waiting,
    /// A disruption budget said no.
    Budget,
    /// Told to go.
    Terminating,
    /// Gone.
    Gone,
    /// Deleted at the deadline.
    Forced,
    /// Would not leave.
    Stayed,
}

/// A pod that has to leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Namespace and name.
    pub key: PodKey,
    /// UID: another pod of the same name is another record.
    pub uid: String,
    /// Resolved priority, which gives the tier.
    pub priority: i32,
    /// Its termination grace period.
    pub grace: Duration,
    /// How it stands.
    pub stage: PodStage,
    /// Eviction calls made.
    pub evictions: u32,
    /// When the first one was accepted.
    pub evicted_at: Option<Timestamp>,
    /// When it was seen gone.
    pub gone_at: Option<Timestamp>,
    /// When its grace ends, once it was told to go.
    pub ends_at: Option<Timestamp>,
    /// Why it is where it is.
    pub reason: String,
}

impl PodRecord {
    pub(super) fn new(own: &OwnPod) -> Self {
        Self {
            key: own.pod.key.clone(),
            uid: own.pod.uid.to_string(),
            priority: own.pod.priority,
            grace: own.grace,
            stage: PodStage::Waiting,
            evictions: 0,
            evicted_at: None,
            gone_at: None,
            ends_at: None,
            reason: String::new(),
        }
    }

    /// The order in which it leaves.
    #[must_use]
    pub fn tier(&self) -> Tier {
        Tier::of(self.priority)
    }

    /// It is still there, as far as is known.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.gone_at.is_none()
    }

    pub(super) fn gone(&mut self, now: Timestamp) {
        if self.is_open() {
            self.gone_at = Some(now);
            if self.stage != PodStage::Forced {
                self.stage = PodStage::Gone;
            }
            self.reason.clear();
        }
    }

    fn to_wire(&self) -> v1::PodOutcome {
        let state = match self.stage {
            PodStage::Waiting => v1::PodState::Waiting,
            PodStage::Budget => v1::PodState::Budget,
            PodStage::Terminating => v1::PodState::Terminating,
            PodStage::Gone => v1::PodState::Gone,
            PodStage::Forced => v1::PodState::Forced,
            PodStage::Stayed => v1::PodState::Stayed,
        };
        v1::PodOutcome {
            namespace: self.key.namespace.to_string(),
            name: self.key.name.to_string(),
            uid: self.uid.clone(),
            state: state.into(),
            evictions: self.evictions,
            evicted_at: self.evicted_at.map(to_wire),
            gone_at: self.gone_at.map(to_wire),
            reason: self.reason.clone(),
        }
    }
}

/// A drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainState {
    /// The node.
    pub node: String,
    /// The operations that want it, the first one first.
    pub operations: Vec<String>,
    /// Why.
    pub reason: String,
    /// How far it is.
    pub stage: Stage,
    /// Whose the cordon is.
    pub cordon: Cordon,
    /// When it began.
    pub started_at: Timestamp,
    /// When it must be over.
    pub deadline: Moment,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// When the machine is taken.
    pub taken_at: Option<Timestamp>,
    /// What happens to pods that lose data with the node.
    #[serde(default)]
    pub local_storage: LocalStorage,
    /// When forcing is over.
    pub forced_until: Option<Moment>,
    /// The boot of the elapsed times.
    pub boot_id: String,
    /// The pods that have to leave.
    pub pods: Vec<PodRecord>,
    /// The last error that concerns the whole drain.
    pub error: String,
}

impl DrainState {
    pub(super) fn new(order: Order, clock: &SharedClock, boot_id: &str) -> Self {
        Self {
            node: order.node,
            operations: vec![order.operation],
            reason: order.reason,
            stage: Stage::Cordoning,
            cordon: Cordon::Unknown,
            started_at: clock.now(),
            deadline: Moment::after(clock, order.timeout),
            on_timeout: order.on_timeout,
            taken_at: order.taken_at,
            local_storage: order.local_storage,
            forced_until: None,
            boot_id: boot_id.to_owned(),
            pods: Vec::new(),
            error: String::new(),
        }
    }

    /// The drain in this boot: after a reboot the wall clock alone says when its deadline is.
    pub(super) fn resumed(mut self, clock: &SharedClock, boot_id: &str) -> Self {
        if self.boot_id != boot_id {
            self.deadline = self.deadline.rebased(clock);
            self.forced_until = self.forced_until.map(|moment| moment.rebased(clock));
            boot_id.clone_into(&mut self.boot_id);
        }
        self
    }

    /// Takes a further order in. What takes the machine away dictates the terms; other orders come under those that stand.
    pub(super) fn join(&mut self, order: Order, clock: &SharedClock) {
        if order.taken_at.is_some() || order.on_timeout == OnTimeout::Force {
            self.force(&order, clock);
        }
        self.operations.push(order.operation);
    }

    /// Takes a known order in again. Only where it says now what it did not say before, that the node must be left, anything
    /// changes; gives whether it does.
    pub(super) fn harden(&mut self, order: &Order, clock: &SharedClock) -> bool {
        let hardens = order.on_timeout == OnTimeout::Force && self.on_timeout != OnTimeout::Force;
        if hardens {
            self.force(order, clock);
        }
        hardens
    }

    fn force(&mut self, order: &Order, clock: &SharedClock) {
        let deadline = Moment::after(clock, order.timeout);
        if deadline.elapsed < self.deadline.elapsed {
            self.deadline = deadline;
        }
        self.on_timeout = OnTimeout::Force;
        self.taken_at = self.taken_at.or(order.taken_at);
        if matches!(self.stage, Stage::Aborting) {
            self.stage = Stage::Cordoning;
            self.pods
                .iter_mut()
                .filter(|pod| pod.stage == PodStage::Stayed)
                .for_each(|pod| pod.stage = PodStage::Waiting);
        }
    }

    /// Whether a pod that loses data with the node keeps this drain from emptying it.
    pub(super) fn keeps_local_storage(&self) -> bool {
        self.local_storage == LocalStorage::Keep && self.on_timeout == OnTimeout::Abort
    }

    pub(super) fn record(&mut self, uid: &str) -> Option<&mut PodRecord> {
        self.pods.iter_mut().find(|pod| pod.uid == uid)
    }

    /// The report for one of its operations; `None` before there is anything to say.
    #[must_use]
    pub fn to_wire(&self, operation: &str) -> Option<v1::DrainReport> {
        let begun = self
            .pods
            .iter()
            .any(|pod| pod.evictions > 0 || pod.stage != PodStage::Waiting);
        let phase = match self.stage {
            Stage::Cordoning => return None,
            Stage::Evicting if !begun => v1::DrainPhase::Cordoned,
            Stage::Evicting | Stage::Forcing | Stage::Aborting => v1::DrainPhase::Evicting,
            Stage::Drained => v1::DrainPhase::Drained,
            Stage::Aborted => v1::DrainPhase::Aborted,
            Stage::Failed => v1::DrainPhase::Failed,
        };
        Some(v1::DrainReport {
            operation_id: operation.to_owned(),
            phase: phase.into(),
            started_at: Some(to_wire(self.started_at)),
            deadline: Some(to_wire(self.deadline.wall)),
            pods: self.pods.iter().map(PodRecord::to_wire).collect(),
            error: self.error.clone(),
        })
    }
}
