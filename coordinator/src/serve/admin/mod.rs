//! What people ask and order: the service `Admin`.
//!
//! ```text
//!   call ─▶ audited ─┬─ reading: status, nodes, pods, decisions, explain … ◀── last decision, store, sessions
//!                    └─ ordering: drain, recycle, cordon … (the leader alone) ──▶ Orders, Nodes, store
//! ```
//! Everything is read from what the coordinator knows already: no question of a person makes a call to the cloud or
//! the cluster.

mod blockers;
mod cost;
mod decisions;
mod demand;
mod explain;
pub(super) mod names;
mod nodes;
mod ordering;
mod status;

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use smartscale_planner::{Snapshot, model::NodeName};
use smartscale_proto::{
    time::{SharedClock, to_wire},
    v1::{self, OnTimeout, OperationView, admin_server::Admin},
};
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use super::{
    audit::{self, Audit},
    authorise::Caller,
    leading::Leader,
    people::People,
    sessions::Sessions,
    view::Latest,
};
use crate::{
    act::nodes::Nodes,
    ids::{CoordinatorName, OperationId},
    state::{SharedStore, StoreError},
    tell::{Event, Happening, SharedTell},
};

pub(super) use self::blockers::{Ages, follow};

/// Events that may wait for one watching person.
const WATCHED: usize = 256;

/// An order to drain a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainOrder {
    /// The node; it is ours.
    pub node: NodeName,
    /// Time for it; `None`: the policy's.
    pub timeout: Option<Duration>,
    /// What happens at its end; unspecified: the policy's.
    pub on_timeout: OnTimeout,
    /// Why, for the record.
    pub reason: String,
    /// Who ordered it.
    pub by: String,
}

/// An order to drain a node and launch another in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecycleOrder {
    /// The node; it is ours.
    pub node: NodeName,
    /// Why, for the record.
    pub reason: String,
    /// Who ordered it.
    pub by: String,
}

/// An order that was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// What it is about does not exist.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be carried out as things are; says what would help.
    #[error("{0}")]
    Refused(String),
    /// It could not be journaled.
    #[error("the order cannot be journaled")]
    Store(#[source] StoreError),
}

/// Orders of people, and the operations that there are. Behind it is the executor.
#[async_trait]
pub trait Orders: Send + Sync {
    /// Journals a drain that leaves the node cordoned.
    async fn drain(&self, order: DrainOrder) -> Result<OperationId, OrderError>;
    /// Journals that the drain of a node is given up.
    async fn cancel_drain(&self, node: &NodeName, by: &str) -> Result<OperationId, OrderError>;
    /// Journals a replacement.
    async fn recycle(&self, order: RecycleOrder) -> Result<OperationId, OrderError>;
    /// Operations, newest first.
    async fn operations(&self, limit: usize, open_only: bool) -> Result<Vec<OperationView>, StoreError>;
    /// One operation.
    async fn operation(&self, id: &OperationId) -> Result<Option<OperationView>, StoreError>;
}

/// A source and how fresh it is.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceView {
    /// `kubernetes`, `prometheus`, `agents`, `fleet`, `store`.
    pub source: String,
    /// Age of its newest answer; `None`: it never answered.
    pub age: Option<Duration>,
    /// Whether it is fresh enough to act on.
    pub fresh: bool,
    /// The last error.
    pub error: Option<String>,
}

/// A question that is answered at once.
pub type Ask<I, O> = Arc<dyn Fn(I) -> O + Send + Sync>;

/// What people may see and order.
pub struct Parts {
    /// `act` or `observe`.
    pub mode: String,
    /// Version of the coordinator.
    pub version: String,
    /// The last decision.
    pub latest: watch::Receiver<Option<Arc<Latest>>>,
    /// Takes orders.
    pub orders: Arc<dyn Orders>,
    /// Cordons.
    pub nodes: Arc<dyn Nodes>,
    /// The sources at a moment.
    pub sources: Ask<Timestamp, Vec<SourceView>>,
    /// The cluster's objects as a List in JSON, as `smartscale plan -f` takes them, or why that cannot be had.
    pub objects_json: Ask<(), Result<String, String>>,
    /// Subscribes to everything that happens from now on.
    pub happenings: Ask<(), broadcast::Receiver<Arc<Happening>>>,
    /// Told when a person changed what decisions are drawn from.
    pub nudge: Arc<Notify>,
}

/// What the service shares with its neighbours.
pub(super) struct Beside {
    pub(super) name: CoordinatorName,
    pub(super) cluster: String,
    pub(super) store: SharedStore,
    pub(super) clock: SharedClock,
    pub(super) tell: SharedTell,
    pub(super) leader: Leader,
    pub(super) sessions: Arc<Sessions>,
    pub(super) audit: Arc<Audit>,
    pub(super) people: Arc<People>,
    pub(super) ages: Arc<Ages>,
    pub(super) shutdown: CancellationToken,
}

/// The service.
pub(super) struct AdminDesk {
    parts: Parts,
    beside: Beside,
}

impl AdminDesk {
    pub(super) fn new(parts: Parts, beside: Beside) -> Self {
        Self { parts, beside }
    }

    fn now(&self) -> Timestamp {
        self.beside.clock.now()
    }

    /// The last decision.
    fn latest(&self) -> Result<Arc<Latest>, Status> {
        self.parts.latest.borrow().clone().ok_or_else(|| {
            Status::unavailable(
                "the coordinator has not made a first decision yet: try again in a few seconds",
            )
        })
    }

    /// Runs a call and audits it with its arguments and outcome.
    async fn audited<T, R, F>(
        &self,
        call: &'static str,
        request: Request<T>,
        work: impl FnOnce(Caller, T) -> F + Send,
    ) -> Result<Response<R>, Status>
    where
        T: fmt::Debug + Send,
        F: Future<Output = Result<R, Status>> + Send,
    {
        let path = format!("/smartscale.v1.Admin/{call}");
        audit::audited(
            &self.beside.audit,
            &path,
            request,
            |request| format!("{request:?}"),
            work,
        )
        .await
    }
}

/// The store's failure, as a caller is told.
pub(super) fn unavailable(error: &StoreError) -> Status {
    tracing::warn!(%error, "the state store failed a call");
    Status::unavailable(format!("the state store is not available: {error}"))
}

/// A list's length as asked: 1 to 1000, 0 is 20.
pub(super) fn limit(asked: u32) -> Result<usize, Status> {
    match asked {
        0 => Ok(20),
        1..=1000 => Ok(asked as usize),
        _ => Err(Status::invalid_argument(format!(
            "limit: {asked} is too many, 1 to 1000 are allowed"
        ))),
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

#[async_trait]
impl Admin for AdminDesk {
    type WatchStream = Events;

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        self.audited("Status", request, |_, _| self.status_of_cluster())
            .await
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        self.audited("ListNodes", request, |_, _| async {
            let latest = self.latest()?;
            Ok(v1::ListNodesResponse {
                nodes: self.node_views(&latest),
                notes: latest.of_templates.clone(),
            })
        })
        .await
    }

    async fn list_pods(
        &self,
        request: Request<v1::ListPodsRequest>,
    ) -> Result<Response<v1::ListPodsResponse>, Status> {
        self.audited("ListPods", request, |_, request| async move {
            let latest = self.latest()?;
            Ok(v1::ListPodsResponse {
                pods: nodes::pod_views(&latest, request.pending_only),
            })
        })
        .await
    }

    async fn list_decisions(
        &self,
        request: Request<v1::ListDecisionsRequest>,
    ) -> Result<Response<v1::ListDecisionsResponse>, Status> {
        self.audited("ListDecisions", request, |_, request| self.decisions(request))
            .await
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        self.audited("Explain", request, |_, request| self.explain_subject(request))
            .await
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        self.audited("ListOperations", request, |_, request| async move {
            let limit = limit(request.limit)?;
            let operations = self.parts.orders.operations(limit, request.open_only).await;
            Ok(v1::ListOperationsResponse {
                operations: operations.map_err(|error| unavailable(&error))?,
            })
        })
        .await
    }

    async fn list_blockers(
        &self,
        request: Request<v1::ListBlockersRequest>,
    ) -> Result<Response<v1::ListBlockersResponse>, Status> {
        self.audited("ListBlockers", request, |_, _| async {
            let latest = self.latest()?;
            let causes = blockers::Causes::of(&latest, None).await;
            Ok(v1::ListBlockersResponse {
                blockers: self.beside.ages.views(&latest, &causes, self.now()),
            })
        })
        .await
    }

    async fn list_demand(
        &self,
        request: Request<v1::ListDemandRequest>,
    ) -> Result<Response<v1::ListDemandResponse>, Status> {
        self.audited("ListDemand", request, |_, request| self.demand(request))
            .await
    }

    async fn get_cost(
        &self,
        request: Request<v1::GetCostRequest>,
    ) -> Result<Response<v1::GetCostResponse>, Status> {
        self.audited("GetCost", request, |_, request| self.cost(request))
            .await
    }

    async fn snapshot(
        &self,
        request: Request<v1::SnapshotRequest>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        self.audited("Snapshot", request, |_, _| async {
            let latest = self.latest()?;
            let objects_json = (self.parts.objects_json)(())
                .map_err(|why| Status::unavailable(format!("the cluster's objects cannot be had: {why}")))?;
            snapshot_files(&latest, objects_json)
        })
        .await
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Events>, Status> {
        self.audited("Watch", request, |caller, _| async {
            let leader = self.beside.leader.clone();
            elsewhere(&leader)?;
            let events = (self.parts.happenings)(());
            let (sender, stream) = mpsc::channel(WATCHED);
            let ended = Arc::clone(&self.beside.people).ended(caller.certificate);
            let shutdown = self.beside.shutdown.clone();
            tokio::spawn(pass_on(events, leader, sender, ended, shutdown));
            let stream: Events = Box::pin(ReceiverStream::new(stream));
            Ok(stream)
        })
        .await
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        self.audited("Drain", request, |caller, request| {
            self.order_drain(caller, request)
        })
        .await
    }

    async fn recycle(
        &self,
        request: Request<v1::RecycleRequest>,
    ) -> Result<Response<v1::RecycleResponse>, Status> {
        self.audited("Recycle", request, |caller, request| {
            self.order_recycle(caller, request)
        })
        .await
    }

    async fn cordon(
        &self,
        request: Request<v1::CordonRequest>,
    ) -> Result<Response<v1::CordonResponse>, Status> {
        self.audited("Cordon", request, |caller, request| {
            self.order_cordon(caller, request)
        })
        .await
    }

    async fn uncordon(
        &self,
        request: Request<v1::UncordonRequest>,
    ) -> Result<Response<v1::UncordonResponse>, Status> {
        self.audited("Uncordon", request, |caller, request| {
            self.order_uncordon(caller, request)
        })
        .await
    }

    async fn pause(&self, request: Request<v1::PauseRequest>) -> Result<Response<v1::PauseResponse>, Status> {
        self.audited("Pause", request, |caller, request| {
            self.order_pause(caller, request)
        })
        .await
    }

    async fn resume(
        &self,
        request: Request<v1::ResumeRequest>,
    ) -> Result<Response<v1::ResumeResponse>, Status> {
        self.audited("Resume", request, |caller, request| {
            self.order_resume(caller, request)
        })
        .await
    }

    async fn scale(&self, request: Request<v1::ScaleRequest>) -> Result<Response<v1::ScaleResponse>, Status> {
        self.audited("Scale", request, |caller, request| {
            self.order_scale(caller, request)
        })
        .await
    }
}

fn snapshot_files(latest: &Latest, objects_json: String) -> Result<v1::SnapshotResponse, Status> {
    let snapshot: &Snapshot = &latest.snapshot;
    let text = |value: serde_json::Result<String>| {
        value.map_err(|error| Status::internal(format!("the snapshot has no JSON form: {error}")))
    };
    Ok(v1::SnapshotResponse {
        time: Some(to_wire(latest.at)),
        objects_json,
        metrics_json: text(serde_json::to_string_pretty(&snapshot.metrics.to_json()))?,
        state_json: text(serde_json::to_string_pretty(&snapshot.state))?,
        policy_toml: latest.policy_toml.to_string(),
    })
}

/// Passes events on until the watching person leaves. One who reads too slowly is told how much was left out.
/// What happens is told by the leader; where none is known, what this coordinator says is all there is.
fn elsewhere(leader: &Leader) -> Result<(), Status> {
    match leader.now().leader {
        Some(_) => leader.epoch(Code::FailedPrecondition).map(drop),
        None => Ok(()),
    }
}

async fn pass_on(
    mut events: broadcast::Receiver<Arc<Happening>>,
    mut leader: Leader,
    sender: mpsc::Sender<Result<v1::WatchResponse, Status>>,
    ended: impl Future<Output = Status>,
    shutdown: CancellationToken,
) {
    let mut ended = pin!(ended);
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            // The person was revoked, or the certificate has ended.
            status = &mut ended => {
                let _ = sender.try_send(Err(status));
                return;
            }
            () = leader.changed() => {
                let Err(refusal) = elsewhere(&leader) else { continue };
                let _ = sender.try_send(Err(refusal));
                return;
            }
            () = shutdown.cancelled() => {
                let _ = sender.try_send(Err(Status::unavailable("this coordinator is shutting down")));
                return;
            }
            () = sender.closed() => return,
        };
        let response = match event {
            Ok(happening) => event_view(&happening),
            Err(broadcast::error::RecvError::Lagged(missed)) => v1::WatchResponse {
                time: None,
                kind: "warning".to_owned(),
                subject: "watch".to_owned(),
                message: format!("{missed} events were left out: they came faster than they were read"),
            },
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if sender.send(Ok(response)).await.is_err() {
            return;
        }
    }
}

fn event_view(happening: &Happening) -> v1::WatchResponse {
    let (kind, subject) = match &happening.event {
        Event::LeaseAcquired { epoch } | Event::LeaseLost { epoch } => ("lease", format!("epoch {epoch}")),
        Event::Decided { decision, .. } => ("decision", decision.to_string()),
        Event::Operation { operation, .. } => ("operation", operation.to_string()),
        Event::Joined { instance, .. } | Event::Agent { instance, .. } | Event::BootStep { instance, .. } => {
            ("node", instance.to_string())
        }
        Event::Noticed { instance, .. } => ("notice", instance.to_string()),
        Event::Drain { instance, .. } => ("drain", instance.to_string()),
        Event::Source { source, .. } => ("warning", source.clone()),
        Event::Admin { who, .. } => ("operation", who.clone()),
        Event::Brake { brake, .. } => ("warning", brake.clone()),
        Event::Policy { origin, .. } => ("policy", origin.clone()),
        Event::Trouble { error_type } => ("warning", error_type.clone()),
    };
    v1::WatchResponse {
        time: Some(to_wire(happening.time)),
        kind: kind.to_owned(),
        subject,
        message: happening.message.clone(),
    }
}
