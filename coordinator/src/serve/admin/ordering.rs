//! What people order. The leader alone takes orders; each is checked before it is journaled, and the refusal says
//! what would be right.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use smartscale_planner::model::NodeName;
use smartscale_proto::{
    time::{duration_from_wire, to_wire},
    v1::{self, OnTimeout},
};
use tonic::{Code, Status};

use super::{AdminDesk, DrainOrder, OrderError, RecycleOrder, names, unavailable};
use crate::{
    act::nodes::NodesError,
    ids::Epoch,
    serve::authorise::Caller,
    state::{
        Attributes, Condition, MAX_WRITES, StoreError, Write,
        records::{BrakesLifted, Floor, Pause, PoolRecord, Record},
    },
    tell::{Event, Happening, Severity},
};

/// The longest pause or floor: a month.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 3600);
/// The longest drain: a day.
const LONGEST_DRAIN: Duration = Duration::from_secs(24 * 3600);
/// A floor for which nobody said how long.
const FLOOR: Duration = Duration::from_secs(3600);
/// Characters of a reason.
const REASON: usize = 500;

impl AdminDesk {
    pub(super) async fn order_drain(
        &self,
        caller: Caller,
        request: v1::DrainRequest,
    ) -> Result<v1::DrainResponse, Status> {
        self.lead()?;
        let node = self.our_node(&request.node)?;
        if request.cancel {
            return self.cancel_drain(&caller, &node).await;
        }
        let order = DrainOrder {
            timeout: bounded("timeout", request.timeout, LONGEST_DRAIN)?,
            on_timeout: OnTimeout::try_from(request.on_timeout).map_err(|_| {
                Status::invalid_argument(format!(
                    "on_timeout: {} is unknown, abort (1) or force (2) is",
                    request.on_timeout
                ))
            })?,
            reason: reason(request.reason)?,
            by: caller.person(),
            node,
        };
        let node = order.node.clone();
        let operation = self
            .parts
            .orders
            .drain(order)
            .await
            .map_err(|error| self.refused(error))?;
        self.done(
            &caller,
            "Drain",
            &format!("ordered the drain of {node} ({operation})"),
        );
        Ok(v1::DrainResponse {
            operation_id: operation.to_string(),
        })
    }

    async fn cancel_drain(&self, caller: &Caller, node: &NodeName) -> Result<v1::DrainResponse, Status> {
        let operation = self.parts.orders.cancel_drain(node, &caller.person()).await;
        let operation = operation.map_err(|error| self.refused(error))?;
        self.done(
            caller,
            "Drain",
            &format!("gave the drain of {node} up ({operation})"),
        );
        Ok(v1::DrainResponse {
            operation_id: operation.to_string(),
        })
    }

    pub(super) async fn order_recycle(
        &self,
        caller: Caller,
        request: v1::RecycleRequest,
    ) -> Result<v1::RecycleResponse, Status> {
        self.lead()?;
        let node = self.our_node(&request.node)?;
        let order = RecycleOrder {
            node: node.clone(),
            reason: reason(request.reason)?,
            by: caller.person(),
        };
        let operation = self
            .parts
            .orders
            .recycle(order)
            .await
            .map_err(|error| self.refused(error))?;
        self.done(
            &caller,
            "Recycle",
            &format!("ordered the replacement of {node} ({operation})"),
        );
        Ok(v1::RecycleResponse {
            operation_id: operation.to_string(),
        })
    }

    pub(super) async fn order_cordon(
        &self,
        caller: Caller,
        request: v1::CordonRequest,
    ) -> Result<v1::CordonResponse, Status> {
        self.lead()?;
        let node = self.our_node(&request.node)?;
        self.parts
            .nodes
            .cordon(&node, None)
            .await
            .map_err(|error| node_status(&error))?;
        self.done(&caller, "Cordon", &format!("cordoned {node}"));
        Ok(v1::CordonResponse {})
    }

    pub(super) async fn order_uncordon(
        &self,
        caller: Caller,
        request: v1::UncordonRequest,
    ) -> Result<v1::UncordonResponse, Status> {
        self.lead()?;
        let node = self.our_node(&request.node)?;
        self.parts
            .nodes
            .uncordon(&node, None)
            .await
            .map_err(|error| node_status(&error))?;
        self.done(&caller, "Uncordon", &format!("uncordoned {node}"));
        Ok(v1::UncordonResponse {})
    }

    pub(super) async fn order_pause(
        &self,
        caller: Caller,
        request: v1::PauseRequest,
    ) -> Result<v1::PauseResponse, Status> {
        let epoch = self.lead()?;
        let now = self.now();
        let until = bounded("duration", request.duration, LONGEST)?.map(|duration| after(now, duration));
        let pause = Pause {
            until,
            by: caller.person(),
            reason: reason(request.reason)?,
            since: now,
        };
        self.set(epoch, &pause).await?;
        let end = until.map_or_else(
            || "until somebody resumes".to_owned(),
            |until| format!("until {until:.0}"),
        );
        self.done(&caller, "Pause", &format!("paused scaling {end}"));
        Ok(v1::PauseResponse {
            until: until.map(to_wire),
        })
    }

    pub(super) async fn order_resume(
        &self,
        caller: Caller,
        request: v1::ResumeRequest,
    ) -> Result<v1::ResumeResponse, Status> {
        let epoch = self.lead()?;
        let now = self.now();
        let (lift, put_back) = match request.lift_brakes {
            Some(zero) if zero == prost_types::Duration::default() => (None, true),
            lift => (lift, false),
        };
        let until = match bounded("lift_brakes", lift, LONGEST)? {
            Some(duration) => {
                let lifted = BrakesLifted {
                    until: after(now, duration),
                    by: caller.person(),
                    since: now,
                };
                self.set(epoch, &lifted).await?;
                Some(lifted.until)
            }
            None => None,
        };
        // A person who resumes has seen what stopped a pool as well.
        let store = &self.beside.store;
        let pools = store.list(PoolRecord::PREFIX, false, MAX_WRITES - 2).await;
        let pools = pools.map_err(|error| unavailable(&error))?;
        let keys = pools.into_iter().map(|item| item.key);
        let deletions = keys
            .chain([Pause::PREFIX.to_owned()])
            .chain(put_back.then(|| BrakesLifted::PREFIX.to_owned()))
            .map(|key| Write::Delete { key });
        self.write_all(epoch, &deletions.collect::<Vec<_>>()).await?;
        let lifted = until.map_or_else(String::new, |until| format!(", brakes lifted until {until:.0}"));
        self.done(&caller, "Resume", &format!("resumed scaling{lifted}"));
        Ok(v1::ResumeResponse {
            brakes_lifted_until: until.map(to_wire),
        })
    }

    pub(super) async fn order_scale(
        &self,
        caller: Caller,
        request: v1::ScaleRequest,
    ) -> Result<v1::ScaleResponse, Status> {
        let epoch = self.lead()?;
        let duration = bounded("duration", request.duration, LONGEST)?.unwrap_or(FLOOR);
        let reason = reason(request.reason)?;
        if request.nodes == 0 {
            self.write(
                epoch,
                Write::Delete {
                    key: Floor::PREFIX.to_owned(),
                },
            )
            .await?;
            self.done(&caller, "Scale", "took the floor away");
            return Ok(v1::ScaleResponse { until: None });
        }
        let most = self.latest()?.policy.limits.max_nodes;
        if request.nodes > most {
            return Err(Status::invalid_argument(format!(
                "nodes: {} is above the policy's limits.max_nodes of {most}",
                request.nodes
            )));
        }
        let until = after(self.now(), duration);
        self.set(
            epoch,
            &Floor {
                nodes: request.nodes,
                until,
                by: caller.person(),
                reason,
            },
        )
        .await?;
        self.done(
            &caller,
            "Scale",
            &format!("set a floor of {} nodes until {until:.0}", request.nodes),
        );
        Ok(v1::ScaleResponse {
            until: Some(to_wire(until)),
        })
    }

    fn lead(&self) -> Result<Epoch, Status> {
        self.beside.leader.epoch(Code::FailedPrecondition)
    }

    /// A node of a pool of the policy.
    fn our_node(&self, name: &str) -> Result<NodeName, Status> {
        if name.is_empty() {
            return Err(Status::invalid_argument("node: the name of a node is needed"));
        }
        let latest = self.latest()?;
        let cluster = &latest.snapshot.cluster;
        let node = cluster.node(name).ok_or_else(|| {
            names::not_found("node", name, cluster.nodes.iter().map(|node| node.name.as_str()))
        })?;
        if latest.policy.pool_of(node).is_none() {
            return Err(Status::failed_precondition(format!(
                "{name} belongs to no pool of the policy: use kubectl for nodes that SmartScale does not own"
            )));
        }
        Ok(node.name.clone())
    }

    async fn set<R: Record>(&self, epoch: Epoch, record: &R) -> Result<(), Status> {
        let body = record.body().map_err(|error| unavailable(&error))?;
        let write = Write::Put {
            key: record.key(),
            body,
            expires_at: None,
            condition: Condition::Always,
        };
        self.write(epoch, write).await
    }

    async fn write(&self, epoch: Epoch, write: Write) -> Result<(), Status> {
        self.write_all(epoch, &[write]).await
    }

    async fn write_all(&self, epoch: Epoch, writes: &[Write]) -> Result<(), Status> {
        match self.beside.store.commit(epoch, writes, &Attributes::new()).await {
            Ok(()) => {
                self.parts.nudge.notify_one();
                Ok(())
            }
            Err(StoreError::Fenced) => Err(self.beside.leader.fenced(Code::FailedPrecondition)),
            Err(error) => Err(unavailable(&error)),
        }
    }

    fn done(&self, caller: &Caller, call: &str, what: &str) {
        self.beside.tell.tell(Happening {
            time: self.now(),
            severity: Severity::Info,
            message: format!("{} {what}", caller.person()),
            event: Event::Admin {
                who: caller.who(),
                call: call.to_owned(),
            },
        });
    }

    fn refused(&self, error: OrderError) -> Status {
        match error {
            OrderError::NotFound(what) => Status::not_found(what),
            OrderError::Refused(why) => Status::failed_precondition(why),
            OrderError::Store(StoreError::Fenced) => self.beside.leader.fenced(Code::FailedPrecondition),
            OrderError::Store(error) => unavailable(&error),
        }
    }
}

fn node_status(error: &NodesError) -> Status {
    match error {
        NodesError::NoNode(_) => Status::not_found(error.to_string()),
        NodesError::Refused(_) => Status::failed_precondition(error.to_string()),
        NodesError::Unavailable(_) => Status::unavailable(error.to_string()),
    }
}

fn after(now: Timestamp, duration: Duration) -> Timestamp {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    now.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// A duration of at least a second and at most `longest`; absent stays absent.
fn bounded(
    field: &str,
    duration: Option<prost_types::Duration>,
    longest: Duration,
) -> Result<Option<Duration>, Status> {
    let Some(duration) = duration else { return Ok(None) };
    let read = duration_from_wire(&duration)
        .ok()
        .filter(|read| (Duration::from_secs(1)..=longest).contains(read));
    read.map(Some).ok_or_else(|| {
        Status::invalid_argument(format!(
            "{field}: from 1 s to {} h is possible",
            longest.as_secs() / 3600
        ))
    })
}

fn reason(text: String) -> Result<String, Status> {
    if text.chars().count() > REASON || text.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!(
            "reason: one line of at most {REASON} characters is possible"
        )));
    }
    Ok(text)
}
