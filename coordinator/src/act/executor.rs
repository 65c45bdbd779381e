//! The executor: takes plans, orders and notices into the journal and drives every open operation on, while this
//! coordinator leads. Before each side effect it asks whether it still may act; the store refuses what it writes
//! under an older term.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use smartscale_manifests::Objects;
use smartscale_planner::{
    model::{NodeName, PodKey},
    snapshot::{Launching, State},
};
use smartscale_proto::time::SharedClock;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    agents::Agents,
    fleet::{Fleet, LaunchRequest},
    journal::{self, Journal},
    nodes::Nodes,
    operation::{Kind, Launch, Operation, Phase},
};
use crate::{
    decide::PolicyInForce,
    ids::{DecisionId, Epoch, InstanceId, OperationId, SharedIds},
    observe::ClusterView,
    state::{Attributes, SharedStore, StoreError, Write, lease::Leadership},
    tell::{Event, Happening, Severity, SharedTell},
};

/// Times of the executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Open operations are looked at so often.
    pub period: Duration,
    /// Records, nodes and instances are compared so often.
    pub reconcile: Duration,
    /// A launched machine that is not a Ready node by then is terminated.
    pub ready: Duration,
    /// A drain whose agent is silent for so long goes on through the API.
    pub agent_silent: Duration,
    /// An instance with our tag that nobody knows is terminated after this.
    pub orphan_grace: Duration,
    /// Life of a launch secret.
    pub secret_life: Duration,
    /// The kubelet has so long to stop; the machine is terminated anyhow then.
    pub stop: Duration,
    /// Volumes have so long to be detached from a node; its machine is terminated anyhow then.
    pub detach: Duration,
    /// A machine whose agent is silent and whose kubelet is not Ready for so long is replaced.
    pub sick: Duration,
    /// A launch that was refused waits so long for the plan of its next attempt.
    pub replan: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(1),
            reconcile: Duration::from_secs(30),
            ready: Duration::from_secs(300),
            agent_silent: Duration::from_secs(60),
            orphan_grace: Duration::from_secs(600),
            secret_life: Duration::from_secs(900),
            stop: Duration::from_secs(20),
            detach: Duration::from_secs(120),
            sick: Duration::from_secs(300),
            replan: Duration::from_secs(60),
        }
    }
}

/// What an executor works with.
pub struct Parts {
    /// Times.
    pub settings: Settings,
    /// The clock.
    pub clock: SharedClock,
    /// Ids of operations.
    pub ids: SharedIds,
    /// The journal's store.
    pub store: SharedStore,
    /// Who is told.
    pub tell: SharedTell,
    /// Machines.
    pub fleet: Arc<dyn Fleet>,
    /// Kubernetes nodes.
    pub nodes: Arc<dyn Nodes>,
    /// Agents.
    pub agents: Arc<dyn Agents>,
    /// What the cluster looks like.
    pub cluster: Arc<dyn ClusterView>,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// The policy in force.
    pub policy: watch::Receiver<PolicyInForce>,
}

/// A node as the watch shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) ready: bool,
    pub(super) unverified: bool,
}

/// Drives operations.
pub struct Executor {
    pub(super) parts: Parts,
    journal: Mutex<Journal>,
    /// Held while something is journaled: what a write says of the other operations must hold when it lands.
    writing: tokio::sync::Mutex<()>,
    nudge: Notify,
    /// A plan is to be made now.
    replan: Notify,
    /// Launches that were refused and that the plan under way is made for: what it lacks of them is not wanted any more.
    planned_for: Mutex<BTreeSet<OperationId>>,
    /// Orders that were sent to agents, by operation: when last.
    pub(super) sent: Mutex<BTreeMap<OperationId, Duration>>,
    /// When the books were last compared.
    reconciled: Mutex<Option<Duration>>,
    /// Instances that nobody knows: since when.
    pub(super) strangers: Mutex<BTreeMap<InstanceId, Duration>>,
    /// Machines that are sick: since when.
    pub(super) sick: Mutex<BTreeMap<InstanceId, Duration>>,
    /// It was said that many are.
    pub(super) many_sick: Mutex<bool>,
}

impl Executor {
    /// An executor; [`run`](Self::run) drives it.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            journal: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            nudge: Notify::new(),
            replan: Notify::new(),
            planned_for: Mutex::default(),
            sent: Mutex::default(),
            reconciled: Mutex::default(),
            strangers: Mutex::default(),
            sick: Mutex::default(),
            many_sick: Mutex::default(),
        })
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The term under which this coordinator may act at this moment.
    pub(super) fn term(&self) -> Option<Epoch> {
        self.parts.leadership.borrow().may_act(&*self.parts.clock)
    }

    /// Has the open operations looked at now.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    pub(super) fn ask_for_a_plan(&self) {
        self.replan.notify_one();
    }

    /// Ends when something must be planned anew at once.
    pub async fn wants_a_plan(&self) {
        self.replan.notified().await;
    }

    /// Drives operations until `shutdown`; the step under way is finished first.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut leadership = self.parts.leadership.clone();
        loop {
            self.turn().await;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.parts.clock.sleep(self.parts.settings.period) => {}
                () = self.nudge.notified() => {}
                () = self.parts.agents.changed() => {}
                _ = leadership.changed() => {}
            }
        }
    }

    /// Moves every open operation by at most one phase, if this coordinator leads.
    pub(super) async fn turn(self: &Arc<Self>) {
        let Some(epoch) = self.term() else { return };
        if !self.begin_term(epoch).await {
            return;
        }
        self.adopt_notices(epoch).await;
        self.step_all(epoch).await;
        let now = self.parts.clock.elapsed();
        let due = {
            let mut reconciled = self.reconciled.lock().unwrap_or_else(PoisonError::into_inner);
            let due = reconciled.is_none_or(|last| now.saturating_sub(last) >= self.parts.settings.reconcile);
            if due {
                *reconciled = Some(now);
            }
            due
        };
        if due {
            self.reconcile(epoch).await;
        }
    }

    /// Takes the open operations over when a term begins, and after a write whose outcome is unknown; whoever needs
    /// them first does it. `false` while the store cannot be read.
    pub async fn begin_term(&self, epoch: Epoch) -> bool {
        if self.journal().epoch() == Some(epoch) {
            return true;
        }
        // What is read here replaces what is known: nothing may be written in between.
        let _writing = self.writing.lock().await;
        if self.journal().epoch() == Some(epoch) {
            return true;
        }
        let now = self.parts.clock.now();
        match journal::take_over(&self.parts.store, epoch, now).await {
            Ok((operations, unreadable)) => {
                for error in unreadable {
                    self.trouble(Severity::Warning, error.to_string(), "journal");
                }
                for operation in operations.iter().filter(|operation| operation.takeovers > 0) {
                    let message = format!(
                        "{} {} goes on in term {epoch}",
                        operation.what.as_str(),
                        operation.id
                    );
                    self.tell_operation(operation, Severity::Info, message);
                }
                self.journal().begin(epoch, now, operations);
                true
            }
            Err(error) => {
                self.trouble(
                    Severity::Warning,
                    format!("the journal cannot be read: {error}"),
                    "store",
                );
                false
            }
        }
    }

    async fn step_all(self: &Arc<Self>, epoch: Epoch) {
        let open: Vec<Operation> = self.journal().open().cloned().collect();
        let steps = open.into_iter().map(|operation| self.step(operation, epoch));
        futures_util::future::join_all(steps).await;
    }

    async fn step(&self, operation: Operation, epoch: Epoch) {
        match &operation.what {
            Kind::Launch(_) => self.step_launch(operation, epoch).await,
            Kind::Remove(_) | Kind::Drain(_) | Kind::Recycle(_) => self.step_removal(operation, epoch).await,
        }
    }

    /// Writes an operation that moved, tells of it, and looks at it again at once. `false`: it was not written, and
    /// stays as it was.
    pub(super) async fn write(
        &self,
        epoch: Epoch,
        mut operation: Operation,
        more: Vec<Write>,
        mut attributes: Attributes,
    ) -> bool {
        operation.epoch = epoch;
        let _writing = self.writing.lock().await;
        let others = self.journal().open().any(|open| open.id != operation.id);
        attributes.insert(
            "scaling_in_progress".to_owned(),
            (others || !operation.phase.is_end()).into(),
        );
        let operations = std::slice::from_ref(&operation);
        match journal::commit(&self.parts.store, epoch, operations, more, attributes).await {
            Ok(()) => {
                self.journal().note(&operation);
                let severity = match operation.phase {
                    Phase::Failed | Phase::Aborted => Severity::Warning,
                    _ => Severity::Info,
                };
                let note = operation
                    .steps
                    .last()
                    .map(|step| step.note.clone())
                    .unwrap_or_default();
                self.tell_operation(&operation, severity, note);
                self.nudge.notify_one();
                true
            }
            Err(error) => {
                tracing::warn!(op = %operation.id, %error, "a step was not journaled");
                self.doubt(&error);
                false
            }
        }
    }

    /// A write whose outcome nobody knows may stand in the store: operations that are not known here would wait there
    /// for the next term and be carried out when nobody wants them any more. The journal is read again at the next turn.
    fn doubt(&self, error: &StoreError) {
        if matches!(error, StoreError::Unknown(_)) {
            self.journal().doubt();
            self.nudge.notify_one();
        }
    }

    /// Journals operations that begin in `epoch`, whose open operations are known.
    pub(super) async fn begin(
        &self,
        epoch: Epoch,
        mut operations: Vec<Operation>,
        mut attributes: Attributes,
    ) -> Result<(), StoreError> {
        for operation in &mut operations {
            operation.epoch = epoch;
        }
        attributes.insert("scaling_in_progress".to_owned(), true.into());
        let _writing = self.writing.lock().await;
        if self.term() != Some(epoch) || self.journal().epoch() != Some(epoch) {
            return Err(StoreError::Fenced);
        }
        journal::commit(&self.parts.store, epoch, &operations, Vec::new(), attributes)
            .await
            .inspect_err(|error| self.doubt(error))?;
        for operation in &operations {
            self.journal().note(operation);
            let note = operation
                .steps
                .last()
                .map(|step| step.note.clone())
                .unwrap_or_default();
            self.tell_operation(operation, Severity::Info, note);
        }
        self.nudge.notify_one();
        Ok(())
    }

    /// Journals operations that a person or a notice began.
    pub(super) async fn order(&self, operations: Vec<Operation>) -> Result<(), StoreError> {
        let epoch = self.term().ok_or(StoreError::Fenced)?;
        self.begin(epoch, operations, Attributes::new()).await
    }

    /// Nodes that an open operation drains.
    pub(super) fn busy_nodes(&self) -> BTreeSet<NodeName> {
        self.journal()
            .open()
            .filter_map(|operation| Some(operation.removal()?.node.clone()))
            .collect()
    }

    /// When this coordinator began to lead.
    pub(super) fn leads_since(&self) -> Option<Timestamp> {
        self.journal().began_at()
    }

    /// The open operations.
    #[must_use]
    pub fn open(&self) -> Vec<Operation> {
        self.journal().open().cloned().collect()
    }

    /// An open operation.
    pub(super) fn find_open(&self, id: &OperationId) -> Option<Operation> {
        self.journal().get(id).cloned()
    }

    /// Adds what only the executor of a term knows: machines under way, nodes on their way out. Gives that term; `None`
    /// where this coordinator does not lead or has not taken over yet, and what was published stands.
    pub fn fill(&self, state: &mut State, leaving: &mut BTreeSet<NodeName>) -> Option<Epoch> {
        let term = self.term()?;
        if self.journal().epoch() != Some(term) {
            return None;
        }
        let objects = self.parts.cluster.latest().value;
        state.scaling_in_progress = false;
        let mut planned_for = BTreeSet::new();
        for operation in self.open() {
            if operation.phase == Phase::Refused {
                // What was refused did not happen.
                if state.last_scale_time == Some(operation.created_at) {
                    state.last_scale_action = None;
                }
                planned_for.insert(operation.id);
                continue;
            }
            if let Some(node) = operation.removes() {
                leaving.insert(node.clone());
            }
            let Some(launch) = operation.launch() else {
                continue;
            };
            let since = launch.requested_at.unwrap_or(operation.created_at);
            let entry = |instance_type| Launching {
                pool: launch.request.pool.clone(),
                instance_type,
                zone: launch.request.zone.clone(),
                market: launch.request.market,
                since,
            };
            if operation.phase == Phase::Joining {
                let unregistered = launch
                    .instances
                    .iter()
                    .filter(|instance| seen(objects.as_deref(), instance.id.as_str()).is_none());
                state
                    .launching
                    .extend(unregistered.map(|instance| entry(instance.instance_type.clone())));
            } else if let Some(first) = launch.request.instance_types.first() {
                state
                    .launching
                    .extend((0..launch.request.count).map(|_| entry(first.clone())));
            }
        }
        *self.planned_for() = planned_for;
        Some(term)
    }

    /// Nodes that are lost or being taken back: what is on them has to go, whatever was planned.
    #[must_use]
    pub fn doomed(&self) -> BTreeSet<NodeName> {
        let open = self.open();
        let removals = open.iter().filter_map(Operation::removal);
        let doomed = removals.filter(|removal| removal.lost || removal.notice.is_some());
        doomed.map(|removal| removal.node.clone()).collect()
    }

    pub(super) fn planned_for(&self) -> MutexGuard<'_, BTreeSet<OperationId>> {
        self.planned_for.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node as the watch shows it now.
    pub(super) fn seen(&self, name: &str) -> Option<Seen> {
        seen(self.parts.cluster.latest().value.as_deref(), name)
    }

    pub(super) fn tell_operation(&self, operation: &Operation, severity: Severity, message: String) {
        let event = Event::Operation {
            operation: operation.id.clone(),
            operation_kind: operation.what.as_str().to_owned(),
            phase: operation.phase.as_str().to_owned(),
            ended: operation.phase.is_end(),
            succeeded: operation.phase == Phase::Done,
            reason: operation.reason.clone(),
            nodes: operation.nodes(),
            pods: operation.pods.clone(),
            error_type: operation.error_type.clone(),
        };
        self.say(severity, message, event);
    }

    pub(super) fn trouble(&self, severity: Severity, message: String, error_type: &str) {
        self.say(
            severity,
            message,
            Event::Trouble {
                error_type: error_type.to_owned(),
            },
        );
    }

    pub(super) fn say(&self, severity: Severity, message: String, event: Event) {
        self.parts.tell.tell(Happening {
            time: self.parts.clock.now(),
            severity,
            message,
            event,
        });
    }
}

fn seen(objects: Option<&Objects>, name: &str) -> Option<Seen> {
    let node = objects?.node(name)?;
    let unverified = node
        .taints
        .iter()
        .any(|taint| &*taint.key == smartscale_planner::model::keys::UNVERIFIED);
    Some(Seen {
        ready: node.ready,
        unverified,
    })
}

/// An operation that nothing was done for yet.
#[allow(clippy::too_many_arguments, reason = "each is a column of the journal")]
pub(super) fn planned(
    id: OperationId,
    what: Kind,
    pods: Vec<PodKey>,
    decision: Option<DecisionId>,
    reason: String,
    by: Option<String>,
    now: Timestamp,
) -> Operation {
    let note = format!("{} planned: {reason}", what.as_str());
    let step = super::operation::Step {
        time: now,
        phase: Phase::Planned,
        note,
    };
    Operation {
        id,
        what,
        phase: Phase::Planned,
        decision,
        reason,
        by,
        pods,
        created_at: now,
        updated_at: now,
        epoch: Epoch::default(),
        takeovers: 0,
        steps: vec![step],
        error: None,
        error_type: None,
    }
}

/// A launch that nothing was done for yet.
pub(super) fn launching(
    request: LaunchRequest,
    pods: Vec<PodKey>,
    decision: Option<DecisionId>,
    reason: String,
    by: Option<String>,
    now: Timestamp,
) -> Operation {
    let id = request.operation.clone();
    planned(
        id,
        Kind::Launch(Launch::of(request)),
        pods,
        decision,
        reason,
        by,
        now,
    )
}
