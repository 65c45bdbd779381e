//! Orders of people, and operations as people see them.

use async_trait::async_trait;
use smartscale_planner::model::NodeName;
use smartscale_proto::{time::to_wire, v1};

use super::{
    begin::{launching, planned},
    executor::Executor,
    fleet::LaunchRequest,
    journal,
    operation::{Kind, Operation, Phase, Removal},
};
use crate::{
    ids::OperationId,
    serve::admin::{DrainOrder, OrderError, Orders, RecycleOrder},
    state::{StoreError, records::Record as _},
};

impl Executor {
    fn removal(&self, node: NodeName) -> Removal {
        let drain = self.parts.policy.borrow().policy.drain;
        Removal {
            force: drain.on_timeout == smartscale_planner::policy::OnTimeout::Force,
            ..Removal::of(node, drain.timeout)
        }
    }

    fn refuse_busy(&self, node: &NodeName) -> Result<(), OrderError> {
        let open = self.open();
        let holder = open
            .iter()
            .find(|operation| operation.removal().is_some_and(|removal| removal.node == *node));
        holder.map_or(Ok(()), |operation| {
            let kind = operation.what.as_str();
            Err(OrderError::Refused(format!(
                "{node} is in the {kind} operation {} already",
                operation.id
            )))
        })
    }
}

#[async_trait]
impl Orders for Executor {
    async fn drain(&self, order: DrainOrder) -> Result<OperationId, OrderError> {
        self.refuse_busy(&order.node)?;
        let now = self.parts.clock.now();
        let mut removal = self.removal(order.node.clone());
        removal.timeout = order.timeout.unwrap_or(removal.timeout);
        removal.force = match order.on_timeout {
            v1::OnTimeout::Unspecified => removal.force,
            v1::OnTimeout::Abort => false,
            v1::OnTimeout::Force => true,
        };
        let id = self.parts.ids.operation(now);
        let reason = reason(&order.reason, &order.by, "drain");
        let operation = planned(
            id.clone(),
            Kind::Drain(removal),
            Vec::new(),
            None,
            reason,
            Some(order.by),
            now,
        );
        self.order(vec![operation]).await.map_err(OrderError::Store)?;
        Ok(id)
    }

    async fn cancel_drain(&self, node: &NodeName, by: &str) -> Result<OperationId, OrderError> {
        self.cancel(node, by).await
    }

    async fn recycle(&self, order: RecycleOrder) -> Result<OperationId, OrderError> {
        self.refuse_busy(&order.node)?;
        let now = self.parts.clock.now();
        let objects = self.parts.cluster.latest().value;
        let node = objects
            .as_deref()
            .and_then(|objects| objects.node(order.node.as_str()));
        let described =
            node.and_then(|node| Some((node.pool()?, node.zone()?, node.market()?, node.instance_type()?)));
        let Some((pool, zone, market, instance_type)) = described else {
            return Err(OrderError::Refused(format!(
                "{} lacks the labels that say what would replace it (pool, zone, market, instance type)",
                order.node
            )));
        };
        let reason = reason(&order.reason, &order.by, "recycle");
        let request = LaunchRequest {
            operation: self.parts.ids.operation(now),
            attempt: 1,
            pool,
            zone,
            market,
            instance_types: vec![instance_type],
            count: 1,
            enrolment_secret: None,
        };
        let mut removal = self.removal(order.node.clone());
        removal.after = vec![request.operation.clone()];
        let launch = launching(
            request,
            Vec::new(),
            None,
            reason.clone(),
            Some(order.by.clone()),
            now,
        );
        let id = self.parts.ids.operation(now);
        let recycle = planned(
            id.clone(),
            Kind::Recycle(removal),
            Vec::new(),
            None,
            reason,
            Some(order.by),
            now,
        );
        self.order(vec![launch, recycle])
            .await
            .map_err(OrderError::Store)?;
        Ok(id)
    }

    async fn operations(&self, limit: usize, open_only: bool) -> Result<Vec<v1::OperationView>, StoreError> {
        let (operations, _) =
            journal::read(&self.parts.store, limit.max(if open_only { 1000 } else { 0 })).await?;
        let wanted = operations
            .iter()
            .filter(|operation| !open_only || !operation.phase.is_end());
        Ok(wanted.take(limit).map(view).collect())
    }

    async fn operation(&self, id: &OperationId) -> Result<Option<v1::OperationView>, StoreError> {
        let item = self
            .parts
            .store
            .get(&format!("{}{id}", Operation::PREFIX))
            .await?;
        item.map(|item| Operation::from_item(&item).map(|operation| view(&operation)))
            .transpose()
    }
}

fn reason(said: &str, by: &str, what: &str) -> String {
    if said.is_empty() {
        format!("{what} ordered by {by}")
    } else {
        format!("{said} ({what} ordered by {by})")
    }
}

fn view(operation: &Operation) -> v1::OperationView {
    v1::OperationView {
        id: operation.id.to_string(),
        kind: operation.what.as_str().to_owned(),
        phase: operation.phase.as_str().to_owned(),
        ended: operation.phase.is_end(),
        succeeded: operation.phase == Phase::Done,
        started_at: Some(to_wire(operation.created_at)),
        updated_at: Some(to_wire(operation.updated_at)),
        nodes: operation.nodes().iter().map(ToString::to_string).collect(),
        reason: operation.reason.clone(),
        error: operation.error.clone().unwrap_or_default(),
        decision: operation
            .decision
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        epoch: operation.epoch.0,
        takeovers: operation.takeovers,
        steps: operation
            .steps
            .iter()
            .map(|step| v1::OperationStep {
                time: Some(to_wire(step.time)),
                phase: step.phase.as_str().to_owned(),
                note: step.note.clone(),
            })
            .collect(),
    }
}
