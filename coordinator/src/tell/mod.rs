//! Telling: what happened goes to notifications, Kubernetes events, metrics and watching people.
//!
//! Whoever makes something happen calls [`Tell::tell`] once; who hears of it is decided here alone.
//!
//! ```text
//!  tell ──▶ hub ──▶ log · metrics · watching people         at once
//!            └────▶ bounded queue ─▶ courier ─┬─▶ notifier            CloudWatch, Kubernetes events
//!                                             └─▶ desk ─▶ messenger   SNS, Slack, webhook
//!  decision ────▶ bounded queue ─▶ carrier ────▶ log stream           CloudWatch Logs
//! ```
//! Each is told in its own time, with retries; a full queue drops and counts. A desk makes messages that people read, and
//! knows how many of them they want, and when.

pub mod decision_log;
pub mod desk;
pub mod error_type;
pub mod gauges;
pub mod http;
pub mod hub;
pub mod message;
pub mod metrics;
pub mod notifier;
pub mod post;

pub use decision_log::DecisionLog;
pub use desk::{Manners, Messenger};
pub use error_type::ErrorType;
pub use hub::{Courier, Hub, Sink};
pub use message::Message;
pub use metrics::Metrics;
pub use notifier::{Notifier, NotifyError};

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smartscale_planner::{
    Plan, Rule, RuleName,
    model::{NodeName, PodKey},
};

use crate::{
    ids::{DecisionId, Epoch, InstanceId, OperationId},
    policy::ConfigMapName,
};

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

impl Severity {
    /// The word in JSON and in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detail => "detail",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }

    /// The severity of a word; `None` for any other word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Detail, Self::Info, Self::Warning, Self::Failure]
            .into_iter()
            .find(|severity| severity.as_str() == word)
    }
}

/// What stands behind a decision, or behind an operation that came of one, for those who are told of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grounds {
    /// The rules that fired, with their figures.
    pub rules: Vec<Rule>,
    /// What it costs (positive) or saves (negative), in USD per hour; absent where nobody knows.
    pub cost_change_per_hour: Option<f64>,
}

impl Grounds {
    /// Those of a plan; what it costs is said by whoever knows how much of it is meant.
    #[must_use]
    pub fn of(plan: &Plan, cost_change_per_hour: f64) -> Self {
        let fired = plan.rules.iter().filter(|rule| rule.fired);
        Self {
            rules: fired.cloned().collect(),
            cost_change_per_hour: Some(cost_change_per_hour),
        }
    }

    /// The rule that asked for more nodes, as a word to count by: a sentence with figures would be another one each time.
    /// `other`: a minimum, a forecast, a person, a replacement.
    #[must_use]
    pub fn asked_by(&self) -> String {
        let asking = [RuleName::PendingPods, RuleName::CpuAbove, RuleName::MemoryAbove];
        let fired = |name: &RuleName| self.rules.iter().any(|rule| rule.rule == *name && rule.fired);
        asking
            .into_iter()
            .find(fired)
            .map_or_else(|| "other".to_owned(), |name| name.to_string())
    }
}

#[cfg(test)]
impl Grounds {
    /// Rules that fired.
    pub(crate) fn of_rules(rules: impl IntoIterator<Item = RuleName>) -> Self {
        let fired = |rule| Rule {
            rule,
            value: None,
            threshold: 0.0,
            fired: true,
            source: smartscale_planner::snapshot::Source::Agent,
            age_seconds: None,
        };
        Self {
            rules: rules.into_iter().map(fired).collect(),
            cost_change_per_hour: None,
        }
    }
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
        /// What it weighed and what it costs.
        grounds: Grounds,
        /// Nodes it removes.
        nodes: Vec<NodeName>,
        /// The operations that it began.
        operations: Vec<OperationId>,
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
        /// The decision it came from; absent when a person or a notice began it.
        decision: Option<DecisionId>,
        /// What that decision weighed, and what the operation costs.
        grounds: Grounds,
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
        /// Who says so: `agent` or `queue`.
        source: String,
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
        /// `kubernetes`, `prometheus`, `agents`, `fleet`, `store`, `notices`.
        source: String,
        /// Whether it answers.
        fresh: bool,
    },
    /// An agent enrolled, connected, or left.
    Agent {
        /// The machine.
        instance: InstanceId,
        /// `enrolled`, `connected`, `disconnected`.
        state: String,
    },
    /// A step of a machine's boot moved on.
    BootStep {
        /// The machine.
        instance: InstanceId,
        /// `identity`, `secrets`, `enrolment`, `kubelet` or `ready`.
        step: String,
        /// `running`, `retrying`, `done` or `failed`.
        outcome: String,
        /// Since it began, in seconds, by the machine's clock.
        seconds: f64,
    },
    /// A person acted.
    Admin {
        /// Who.
        who: String,
        /// What.
        call: String,
    },
    /// A brake of the policy began or ceased to hold something.
    Brake {
        /// `freeze`, `launch_rate` or `spending`.
        brake: String,
        /// Whether it holds.
        holds: bool,
    },
    /// An offered policy came into force, or was refused.
    Policy {
        /// Where it lies.
        origin: String,
        /// `in_force` or `refused`.
        state: String,
        /// The ConfigMap that it lies in; absent for a file.
        config_map: Option<ConfigMapName>,
        /// That ConfigMap's UID; absent where there is none.
        uid: Option<String>,
    },
    /// Something is wrong that fits nowhere else.
    Trouble {
        /// Class of the trouble for metrics.
        error_type: String,
    },
}

impl Event {
    /// What it was, in a word: the `kind` of its JSON.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::LeaseAcquired { .. } => "lease_acquired",
            Self::LeaseLost { .. } => "lease_lost",
            Self::Decided { .. } => "decided",
            Self::Operation { .. } => "operation",
            Self::Joined { .. } => "joined",
            Self::Noticed { .. } => "noticed",
            Self::Drain { .. } => "drain",
            Self::Source { .. } => "source",
            Self::Agent { .. } => "agent",
            Self::BootStep { .. } => "boot_step",
            Self::Admin { .. } => "admin",
            Self::Brake { .. } => "brake",
            Self::Policy { .. } => "policy",
            Self::Trouble { .. } => "trouble",
        }
    }

    /// What it is about: a node, an operation's or a decision's id, a source; empty where it is about nothing
    /// that has a name.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::LeaseAcquired { epoch } | Self::LeaseLost { epoch } => epoch.to_string(),
            Self::Decided { decision, .. } => decision.to_string(),
            Self::Operation { operation, .. } => operation.to_string(),
            Self::Joined { instance, .. }
            | Self::Noticed { instance, .. }
            | Self::Drain { instance, .. }
            | Self::Agent { instance, .. }
            | Self::BootStep { instance, .. } => instance.to_string(),
            Self::Source { source, .. } => source.clone(),
            Self::Admin { who, .. } => who.clone(),
            Self::Brake { brake, .. } => brake.clone(),
            Self::Policy { origin, .. } => origin.clone(),
            Self::Trouble { .. } => String::new(),
        }
    }
}

/// Who is told.
pub trait Tell: Send + Sync {
    /// Takes note of something that happened. Never blocks and never fails: telling is not worth stopping for.
    fn tell(&self, happening: Happening);
}

/// A shared [`Tell`].
pub type SharedTell = Arc<dyn Tell>;

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Tell for Silent {
    fn tell(&self, _: Happening) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_are_counted_by_the_rule_that_asked_for_them() {
        for (rules, asked_by) in [
            (vec![RuleName::PendingPods, RuleName::CpuAbove], "pending_pods"),
            (vec![RuleName::MemoryAbove, RuleName::CpuAbove], "cpu_above"),
            (vec![RuleName::MemoryAbove], "memory_above"),
            // A replacement.
            (vec![RuleName::CpuBelow, RuleName::MemoryBelow], "other"),
            (Vec::new(), "other"),
        ] {
            assert_eq!(Grounds::of_rules(rules).asked_by(), asked_by);
        }
    }
}
