//! An operation: something that changes the cluster, journaled before its first side effect.
//!
//! ```text
//!  launch   Planned ─▶ Requesting ─▶ Joining ─▶ Done
//!              ▲           │            │
//!              │           ▼            │
//!              └─────── Refused ◀───────┤
//!                          └────────────┴─────▶ Failed
//!
//!  remove   Planned ─▶ Draining ─▶ Stopping ─▶ Terminating ─▶ Forgetting ─▶ Done
//!  recycle     │          ├───────────────────────▲ (the machine is gone already)
//!              └──────────┴─▶ Aborted
//!
//!  drain    Planned ─▶ Draining ─▶ Done
//!              └──────────┴─▶ Aborted
//! ```
//! A launch of which nothing came is planned anew within the same operation, without the offerings that refused: the next
//! attempt, with a client token of its own. Each step is idempotent: whoever takes an operation over repeats the step of its phase. The order of a removal
//! (drained, kubelet stopped, machine terminated, Node deleted, record forgotten) is the order of the phases.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smartscale_planner::model::{NodeName, PodKey};

use super::fleet::{Instance, LaunchRequest};
use crate::{
    ids::{DecisionId, Epoch, InstanceId, OperationId},
    state::records::Record,
    tell::Grounds,
};

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Journaled; nothing was done yet.
    Planned,
    /// The launch call is made, or its outcome is unknown.
    Requesting,
    /// The instances exist and are to become Ready nodes.
    Joining,
    /// Nothing came of the attempt: it is to be planned anew.
    Refused,
    /// Pods are leaving.
    Draining,
    /// The kubelet is being stopped, so that the node does not register again.
    Stopping,
    /// The machine is being terminated.
    Terminating,
    /// The Node object and the record are being deleted.
    Forgetting,
    /// Ended well.
    Done,
    /// Ended without what was wanted.
    Failed,
    /// Given up: the node stays and takes pods again.
    Aborted,
}

impl Phase {
    /// The phase's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Requesting => "requesting",
            Self::Joining => "joining",
            Self::Refused => "refused",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Terminating => "terminating",
            Self::Forgetting => "forgetting",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }

    /// Whether nothing follows.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Aborted)
    }
}

/// A launch of machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The call, as it is made.
    pub request: LaunchRequest,
    /// SHA-256 of the secret that was handed over with the call, in hexadecimal.
    pub secret_hash: Option<String>,
    /// When the first call was made.
    pub requested_at: Option<Timestamp>,
    /// Since when it is known what it brought: from then on its machines have their time.
    #[serde(default)]
    pub launched_at: Option<Timestamp>,
    /// What it brought.
    pub instances: Vec<Instance>,
    /// Those that have become Ready nodes.
    pub ready: Vec<InstanceId>,
    /// Those that are not Ready by now are terminated, also one that becomes it.
    #[serde(default)]
    pub given_up: bool,
}

impl Launch {
    /// One that nothing was done for yet.
    #[must_use]
    pub fn of(request: LaunchRequest) -> Self {
        Self {
            request,
            secret_hash: None,
            requested_at: None,
            launched_at: None,
            instances: Vec::new(),
            ready: Vec::new(),
            given_up: false,
        }
    }

    /// The next attempt of the same operation, for what it is to be now.
    #[must_use]
    pub(super) fn again(&self, request: LaunchRequest) -> Self {
        Self::of(LaunchRequest {
            operation: self.request.operation.clone(),
            attempt: self.request.attempt.saturating_add(1),
            ..request
        })
    }
}

/// A drain, and what follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The node; by its name also the machine.
    pub node: NodeName,
    /// Time for the drain.
    pub timeout: Duration,
    /// At its end the pods that are left are deleted, instead of the drain given up.
    pub force: bool,
    /// EC2 takes the machine back: nothing of it can be given up.
    #[serde(default)]
    pub interrupted: bool,
    /// A pod that loses data with the node keeps it: it came there after the node was found fit to go.
    #[serde(default)]
    pub keeps_local_storage: bool,
    /// Its pods are handed over for so long at most before it is drained; absent once that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hand_over: Option<Duration>,
    /// Launches that must be done before.
    pub after: Vec<OperationId>,
    /// When the drain began.
    pub draining_since: Option<Timestamp>,
    /// Since when this phase of the removal lasts.
    pub phase_since: Option<Timestamp>,
    /// The coordinator drains through the API, since the agent is silent.
    pub through_api: bool,
    /// The machine is gone without our doing: nothing drains any more.
    #[serde(default)]
    pub lost: bool,
    /// Who wants the drain given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<String>,
}

impl Removal {
    /// One that nothing was done for yet, to be aborted rather than forced.
    #[must_use]
    pub fn of(node: NodeName, timeout: Duration) -> Self {
        Self {
            node,
            timeout,
            force: false,
            interrupted: false,
            keeps_local_storage: false,
            hand_over: None,
            after: Vec::new(),
            draining_since: None,
            phase_since: None,
            through_api: false,
            lost: false,
            cancelled_by: None,
        }
    }
}

/// What an operation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// Launches machines.
    Launch(Launch),
    /// Drains a node, terminates its machine and forgets it.
    Remove(Removal),
    /// Drains a node and leaves it cordoned.
    Drain(Removal),
    /// A removal whose replacement is launched before.
    Recycle(Removal),
}

impl Kind {
    /// The kind's name.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Launch(_) => "launch",
            Self::Remove(_) => "remove",
            Self::Drain(_) => "drain",
            Self::Recycle(_) => "recycle",
        }
    }

    fn allows(&self, from: Phase, to: Phase) -> bool {
        use Phase::{
            Aborted, Done, Draining, Failed, Forgetting, Joining, Planned, Refused, Requesting, Stopping,
            Terminating,
        };
        match self {
            Self::Launch(_) => matches!(
                (from, to),
                (Planned, Requesting)
                    | (Requesting, Requesting | Joining | Refused)
                    | (Joining, Joining | Refused | Done | Failed)
                    | (Refused, Planned | Failed)
            ),
            Self::Remove(_) | Self::Recycle(_) => matches!(
                (from, to),
                (Planned, Draining | Aborted)
                    | (Draining, Draining | Stopping | Terminating | Aborted)
                    | (Stopping, Terminating)
                    | (Terminating, Forgetting)
                    | (Forgetting, Done)
            ),
            Self::Drain(_) => {
                matches!(
                    (from, to),
                    (Planned, Draining | Aborted) | (Draining, Draining | Done | Aborted)
                )
            }
        }
    }
}

/// One step in an operation's life, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When.
    pub time: Timestamp,
    /// The phase it reached.
    pub phase: Phase,
    /// What happened, as a sentence.
    pub note: String,
}

/// An operation of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What it is.
    pub what: Kind,
    /// Where it stands.
    pub phase: Phase,
    /// The decision it came from; absent when a person or a notice began it.
    pub decision: Option<DecisionId>,
    /// Why, in one sentence.
    pub reason: String,
    /// What that decision weighed, and what the operation costs.
    #[serde(default)]
    pub grounds: Grounds,
    /// Who ordered it; absent when the coordinator decided.
    pub by: Option<String>,
    /// Pods it was begun for.
    pub pods: Vec<PodKey>,
    /// When it was journaled.
    pub created_at: Timestamp,
    /// When it last moved.
    pub updated_at: Timestamp,
    /// The term under which it last moved.
    pub epoch: Epoch,
    /// How often another leader took it over.
    pub takeovers: u32,
    /// What it went through.
    pub steps: Vec<Step>,
    /// The last error.
    pub error: Option<String>,
    /// Its class, for metrics.
    pub error_type: Option<String>,
    /// The version of the item that it was read from or last written to, which the next write names: a write that
    /// lands late, whose answer nobody waits for any more, must not undo a later one. 0: not written yet.
    #[serde(skip)]
    pub version: u64,
}

/// A transition that the diagram does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {kind} operation cannot go from {from:?} to {to:?}")]
pub struct Illegal {
    kind: &'static str,
    from: Phase,
    to: Phase,
}

/// History that is kept of an operation.
const STEPS: usize = 40;

impl Operation {
    /// Moves on, or stays with something new to say.
    ///
    /// # Errors
    /// [`Illegal`] when the diagram lacks the arrow.
    pub fn advance(&mut self, to: Phase, now: Timestamp, note: impl Into<String>) -> Result<(), Illegal> {
        if !self.what.allows(self.phase, to) {
            return Err(Illegal {
                kind: self.what.as_str(),
                from: self.phase,
                to,
            });
        }
        if let Some(removal) = self.removal_mut() {
            removal.phase_since = Some(now);
        }
        self.phase = to;
        self.note(now, note);
        Ok(())
    }

    /// Stays where it is, with something new to say.
    pub(super) fn note(&mut self, now: Timestamp, note: impl Into<String>) {
        self.updated_at = now;
        self.steps.push(Step {
            time: now,
            phase: self.phase,
            note: note.into(),
        });
        if self.steps.len() > STEPS {
            self.steps.remove(1);
        }
    }

    /// The launch it is, if it is one.
    #[must_use]
    pub fn launch(&self) -> Option<&Launch> {
        match &self.what {
            Kind::Launch(launch) => Some(launch),
            _ => None,
        }
    }

    /// The drain it has, if it has one.
    #[must_use]
    pub fn removal(&self) -> Option<&Removal> {
        match &self.what {
            Kind::Remove(removal) | Kind::Drain(removal) | Kind::Recycle(removal) => Some(removal),
            Kind::Launch(_) => None,
        }
    }

    pub(super) fn launch_mut(&mut self) -> Option<&mut Launch> {
        match &mut self.what {
            Kind::Launch(launch) => Some(launch),
            _ => None,
        }
    }

    pub(super) fn removal_mut(&mut self) -> Option<&mut Removal> {
        match &mut self.what {
            Kind::Remove(removal) | Kind::Drain(removal) | Kind::Recycle(removal) => Some(removal),
            Kind::Launch(_) => None,
        }
    }

    /// Whether the machine of the node ends with this operation.
    #[must_use]
    pub fn removes(&self) -> Option<&NodeName> {
        match &self.what {
            Kind::Remove(removal) | Kind::Recycle(removal) => Some(&removal.node),
            Kind::Launch(_) | Kind::Drain(_) => None,
        }
    }

    /// The nodes or machines it concerns.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeName> {
        match (self.launch(), self.removal()) {
            (Some(launch), _) => launch
                .instances
                .iter()
                .map(|instance| NodeName::from(instance.id.as_str()))
                .collect(),
            (_, Some(removal)) => vec![removal.node.clone()],
            _ => Vec::new(),
        }
    }
}

impl Record for Operation {
    const PREFIX: &'static str = "op#";

    fn id(&self) -> String {
        self.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

    use smartscale_planner::model::Market;

    use super::*;

    const PHASES: [Phase; 11] = [
        Phase::Planned,
        Phase::Requesting,
        Phase::Joining,
        Phase::Refused,
        Phase::Draining,
        Phase::Stopping,
        Phase::Terminating,
        Phase::Forgetting,
        Phase::Done,
        Phase::Failed,
        Phase::Aborted,
    ];

    fn launch() -> Launch {
        Launch::of(LaunchRequest {
            operation: "op-1".parse().unwrap(),
            attempt: 1,
            pool: "workers".into(),
            zone: "us-east-1a".into(),
            market: Market::Spot,
            instance_types: vec!["t3.small".into()],
            count: 1,
            enrolment_secret: None,
        })
    }

    fn removal() -> Removal {
        Removal::of("a".into(), Duration::from_secs(300))
    }

    #[test]
    fn nothing_follows_an_end_and_an_end_can_be_reached_from_everywhere_else() {
        for kind in [
            Kind::Launch(launch()),
            Kind::Remove(removal()),
            Kind::Drain(removal()),
            Kind::Recycle(removal()),
        ] {
            let mut reached = vec![Phase::Planned];
            let mut next = 0;
            while let Some(from) = reached.get(next).copied() {
                let to: Vec<Phase> = PHASES.into_iter().filter(|to| kind.allows(from, *to)).collect();
                assert_eq!(to.is_empty(), from.is_end(), "{} {from:?}", kind.as_str());
                reached.extend(
                    to.into_iter()
                        .filter(|phase| !reached.contains(phase))
                        .collect::<Vec<_>>(),
                );
                next += 1;
            }
            assert!(reached.contains(&Phase::Done));
        }
    }

    #[test]
    fn a_machine_is_never_terminated_before_its_drain_and_its_node_never_deleted_before_the_machine() {
        let kind = Kind::Remove(removal());
        for from in [Phase::Planned, Phase::Forgetting, Phase::Aborted, Phase::Done] {
            assert!(!kind.allows(from, Phase::Terminating), "{from:?}");
        }
        for from in PHASES.into_iter().filter(|phase| *phase != Phase::Terminating) {
            assert!(!kind.allows(from, Phase::Forgetting), "{from:?}");
        }
    }

    #[test]
    fn an_illegal_transition_changes_nothing() {
        let mut operation = Operation {
            id: "op-1".parse().unwrap(),
            what: Kind::Drain(removal()),
            phase: Phase::Planned,
            decision: None,
            reason: String::new(),
            grounds: Grounds::default(),
            by: None,
            pods: Vec::new(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            epoch: Epoch(1),
            takeovers: 0,
            steps: Vec::new(),
            error: None,
            error_type: None,
            version: 0,
        };
        let before = operation.clone();
        assert!(
            operation
                .advance(Phase::Terminating, Timestamp::MAX, "no")
                .is_err()
        );
        assert_eq!(operation, before);
        let json = operation.body().unwrap();
        assert_eq!(serde_json::from_value::<Operation>(json).unwrap(), operation);
    }
}
