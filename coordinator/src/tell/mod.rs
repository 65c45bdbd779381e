//! Telling: what happened goes to notifications, Kubernetes events, metrics and watching people.
//!
//! Whoever makes something happen calls [`Tell::tell`] once; who hears of it is decided here alone.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use smartscale_planner::model::{NodeName, PodKey};

use crate::ids::{DecisionId, Epoch, InstanceId, OperationId};

/// How much attention something deserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth a line in a log.
    Detail,
    /// Worth knowing.
    Info,
    /// Worth a look.
    Warning,
    /// Somebody must act.
    Failure,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Happening {
    /// When.
    pub time: Timestamp,
    /// How much attention it deserves.
    pub severity: Severity,
    /// One sentence for people.
    pub message: String,
    /// What it was.
    pub event: Event,
}

/// What can happen.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A coordinator became the leader.
    LeaseAcquired {
        /// The term that began.
        epoch: Epoch,
    },
    /// A coordinator is the leader no more.
    LeaseLost {
        /// The term that ended.
        epoch: Epoch,
    },
    /// A decision was recorded.
    Decided {
        /// The record.
        decision: DecisionId,
        /// `scale_up`, `scale_down`, `replace` or `none`.
        action: String,
        /// Rules that fired, for example `pending_pods`.
        reasons: Vec<String>,
        /// How long observing, planning and recording took, in seconds.
        seconds: f64,
    },
    /// An operation reached a phase.
    Operation {
        /// The operation.
        operation: OperationId,
        /// `launch`, `remove`, `drain`, `recycle`.
        operation_kind: String,
        /// The phase it reached.
        phase: String,
        /// Whether it has ended.
        ended: bool,
        /// Whether it ended well.
        succeeded: bool,
        /// Why it was begun: the rule or person.
        reason: String,
        /// Nodes it concerns.
        nodes: Vec<NodeName>,
        /// Pods it was begun for.
        pods: Vec<PodKey>,
        /// Class of the error for metrics (`capacity`, `quota`, `drain_timeout`, …); absent without one.
        error_type: Option<String>,
    },
    /// A launched machine is a Ready node.
    Joined {
        /// The machine.
        instance: InstanceId,
        /// Launch call to Ready, in seconds.
        seconds: f64,
    },
    /// EC2 announced something about a machine.
    Noticed {
        /// The machine.
        instance: InstanceId,
        /// `spot_interruption`, `rebalance` or `maintenance`.
        notice: String,
    },
    /// A drain moved on at a pod.
    Drain {
        /// The machine.
        instance: InstanceId,
        /// The operation or `notice/ID`.
        operation: String,
        /// The pod; absent when it is about the drain as a whole.
        pod: Option<PodKey>,
        /// How it stands, in the words of the contract (`terminating`, `gone`, `drained`, …).
        state: String,
    },
    /// A source stopped or began to answer.
    Source {
        /// `kubernetes`, `prometheus`, `agents`, `fleet`, `store`.
        source: String,
        /// Whether it answers.
        fresh: bool,
    },
    /// An agent enrolled, connected, or left.
    Agent {
        /// The machine.
        instance: InstanceId,
        /// `enrolled`, `connected`, `disconnected`, `booting`.
        state: String,
    },
    /// A person acted.
    Admin {
        /// Who.
        who: String,
        /// What.
        call: String,
    },
    /// Something is wrong that fits nowhere else.
    Trouble {
        /// Class of the trouble for metrics.
        error_type: String,
    },
}

/// Who is told.
pub trait Tell: Send + Sync {
    /// Takes note of something that happened. Never blocks and never fails: telling is not worth stopping for.
    fn tell(&self, happening: Happening);
}

/// A shared [`Tell`].
pub type SharedTell = Arc<dyn Tell>;
