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
use smartscale_planner::model::NodeName;
use smartscale_proto::time::SharedClock;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    agents::Agents,
    drift::Found,
    fleet::Fleet,
    journal::{self, Journal},
    listing::Listing,
    nodes::Nodes,
    operation::{Kind, Operation, Phase},
    settings::Settings,
    tasks::{Task, Tasks},
};
use crate::{
    config::Mode,
    decide::PolicyInForce,
    ids::{Epoch, InstanceId, OperationId, SharedIds},
    observe::{ClusterView, notices::board::NoticeBoard},
    state::{Attributes, SharedStore, StoreError, Write, lease::Leadership, records::Record},
    tell::{ErrorType, Event, Happening, Severity, SharedTell},
};

/// What an executor works with.
pub struct Parts {
    /// Whether it acts by itself. Operations that are open go on, and people's orders are taken, in any mode.
    pub mode: Mode,
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
    /// What EC2 announced.
    pub notices: Arc<NoticeBoard>,
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
    /// What the fleet listed last for the removals.
    pub(super) listing: Listing,
    /// When the books were last compared.
    reconciled: Mutex<Option<Duration>>,
    /// Instances that nobody knows: since when.
    pub(super) strangers: Mutex<BTreeMap<InstanceId, Duration>>,
    /// Machines that are sick: since when.
    pub(super) sick: Mutex<BTreeMap<InstanceId, Duration>>,
    /// It was said that many are.
    pub(super) many_sick: Mutex<bool>,
    /// Machines that say that their name is taken: since when.
    pub(super) taken: Mutex<BTreeMap<InstanceId, Timestamp>>,
    pub(super) drift: Mutex<Found>,
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
            listing: Listing::default(),
            reconciled: Mutex::default(),
            strangers: Mutex::default(),
            sick: Mutex::default(),
            taken: Mutex::default(),
            many_sick: Mutex::default(),
            drift: Mutex::default(),
        })
    }

    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
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

    /// Has the books compared now: a machine is said to have changed.
    pub fn compare_books(&self) {
        *self.reconciled.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.nudge();
    }

    pub(super) fn ask_for_a_plan(&self) {
        self.replan.notify_one();
    }

    /// Ends when something must be planned anew at once.
    pub async fn wants_a_plan(&self) {
        self.replan.notified().await;
    }

    /// Drives operations until `shutdown`; the steps under way are finished first. Each is a task of its own: a cloud
    /// that does not answer holds the operation that asks it, and no other.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut leadership = self.parts.leadership.clone();
        let mut tasks = Tasks::default();
        loop {
            let due = tasks.meanwhile(self.prepare()).await;
            self.begin_tasks(&mut tasks, due);
            let period = self.parts.clock.sleep(self.parts.settings.period);
            tokio::pin!(period);
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return tasks.finish().await,
                    () = &mut period => break,
                    () = self.nudge.notified() => break,
                    () = self.parts.agents.changed() => break,
                    changed = leadership.changed() => match changed {
                        Ok(()) => break,
                        // Nobody is left who would say that it leads.
                        Err(_) => return tasks.finish().await,
                    },
                    () = tasks.one_ends() => {}
                }
            }
        }
    }

    /// Moves every open operation by at most one phase, if this coordinator leads, and waits until that is done.
    #[cfg(test)]
    pub(super) async fn turn(self: &Arc<Self>) {
        let mut tasks = Tasks::default();
        let due = self.prepare().await;
        self.begin_tasks(&mut tasks, due);
        tasks.finish().await;
    }

    /// The term in which open operations may move; the journal is known and holds what there are notices of.
    async fn prepare(&self) -> Option<Epoch> {
        let epoch = self.term()?;
        if !self.begin_term(epoch).await {
            return None;
        }
        if self.parts.mode == Mode::Act {
            self.adopt_interruptions(epoch).await;
        }
        Some(epoch)
    }

    /// Begins the next step of every open operation that no step is under way for, and the books when it is time.
    fn begin_tasks(self: &Arc<Self>, tasks: &mut Tasks, due: Option<Epoch>) {
        let Some(epoch) = due else { return };
        for operation in self.open() {
            let executor = Arc::clone(self);
            let task = Task::Step(operation.id.clone());
            tasks.begin(task, async move { executor.step(operation, epoch).await });
        }
        let now = self.parts.clock.elapsed();
        let last = *self.reconciled();
        if last.is_none_or(|last| now.saturating_sub(last) >= self.parts.settings.reconcile) {
            let executor = Arc::clone(self);
            tasks.begin(Task::Books, async move {
                if executor.parts.mode == Mode::Act {
                    executor.reconcile(epoch).await;
                }
                executor.look_for_drift().await;
                *executor.reconciled() = Some(now);
            });
        }
    }

    fn reconciled(&self) -> MutexGuard<'_, Option<Duration>> {
        self.reconciled.lock().unwrap_or_else(PoisonError::into_inner)
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
                    self.trouble(Severity::Warning, error.to_string(), ErrorType::Journal);
                }
                let open = operations.iter().filter(|operation| !operation.phase.is_end());
                for operation in open.filter(|operation| operation.takeovers > 0) {
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
                    ErrorType::Store,
                );
                false
            }
        }
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
        operation: &mut Operation,
        more: Vec<Write>,
        mut attributes: Attributes,
    ) -> bool {
        let _writing = self.writing.lock().await;
        let others = self.journal().open().any(|open| open.id != operation.id);
        attributes.insert(
            "scaling_in_progress".to_owned(),
            (others || !operation.phase.is_end()).into(),
        );
        let operations = std::slice::from_mut(operation);
        match journal::commit(&self.parts.store, epoch, operations, more, attributes).await {
            Ok(()) => {
                self.journal().note(operation);
                let severity = match operation.phase {
                    Phase::Failed | Phase::Aborted => Severity::Warning,
                    _ => Severity::Info,
                };
                self.tell_operation(operation, severity, last_note(operation));
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
    /// for the next term and be carried out when nobody wants them any more. One that meets another version than it
    /// expects tells that such a write has landed. The journal is read again at the next turn.
    fn doubt(&self, error: &StoreError) {
        if matches!(error, StoreError::Unknown(_) | StoreError::Conflict(_)) {
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
        attributes.insert("scaling_in_progress".to_owned(), true.into());
        let _writing = self.writing.lock().await;
        if self.term() != Some(epoch) || self.journal().epoch() != Some(epoch) {
            return Err(StoreError::Fenced);
        }
        // Whoever asked may not have seen yet that somebody else removes the node.
        let busy = self.busy_nodes();
        let goes = |operation: &Operation| {
            let removal = operation.removal();
            removal.is_some_and(|removal| busy.contains(&removal.node))
        };
        if let Some(late) = operations
            .iter()
            .find(|operation| goes(operation))
            .map(Record::key)
        {
            operations.retain(|operation| !goes(operation));
            if operations.is_empty() {
                return Err(StoreError::Conflict(late));
            }
        }
        journal::commit(&self.parts.store, epoch, &mut operations, Vec::new(), attributes)
            .await
            .inspect_err(|error| self.doubt(error))?;
        for operation in &operations {
            self.journal().note(operation);
            self.tell_operation(operation, Severity::Info, last_note(operation));
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
            decision: operation.decision.clone(),
            grounds: operation.grounds.clone(),
        };
        self.say(severity, message, event);
    }

    pub(super) fn trouble(&self, severity: Severity, message: String, error_type: ErrorType) {
        self.say(
            severity,
            message,
            Event::Trouble {
                error_type: error_type.into(),
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

fn last_note(operation: &Operation) -> String {
    operation
        .steps
        .last()
        .map(|step| step.note.clone())
        .unwrap_or_default()
}

pub(super) fn seen(objects: Option<&Objects>, name: &str) -> Option<Seen> {
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
