//! Giving a drain up because a person says so: the node takes pods again, and the operation ends.
//!
//! The wish is journaled first, so that the next leader carries it out too. The agent uncordons and says so; where it is
//! silent, or never heard of the drain, the cordon is taken away through the API.

use smartscale_planner::model::NodeName;
use smartscale_proto::v1::DrainPhase;

use super::{Executor, NodesError, Operation, Phase, Removal};
use crate::{
    ids::{Epoch, InstanceId, OperationId},
    serve::admin::OrderError,
    state::{Attributes, StoreError},
    tell::ErrorType,
};

impl Executor {
    /// Journals that the drain of a node is to be given up.
    pub(in crate::act) async fn cancel(&self, node: &NodeName, by: &str) -> Result<OperationId, OrderError> {
        let epoch = self.term().ok_or(OrderError::Store(StoreError::Fenced))?;
        let of_node =
            |operation: &Operation| operation.removal().is_some_and(|removal| removal.node == *node);
        let Some(mut operation) = self.open().into_iter().find(of_node) else {
            return Err(OrderError::NotFound(format!(
                "nothing drains {node}; `smartscale uncordon {node}` lets pods onto a node that was drained"
            )));
        };
        let refused = |why: &str| Err(OrderError::Refused(format!("{node}: {why}")));
        let id = operation.id.clone();
        if !matches!(operation.phase, Phase::Planned | Phase::Draining) {
            return refused("its drain is over, and its machine goes");
        }
        let Some(removal) = operation.removal_mut() else {
            return refused("nothing drains it");
        };
        if removal.interrupted {
            return refused("EC2 takes its machine back, whatever anybody wants");
        }
        if removal.lost {
            return refused("its machine is gone");
        }
        if removal.cancelled_by.replace(by.to_owned()).is_some() {
            return Ok(id);
        }
        operation.note(self.parts.clock.now(), format!("to be given up: {by} says so"));
        if self
            .write(epoch, &mut operation, Vec::new(), Attributes::new())
            .await
        {
            Ok(id)
        } else {
            Err(OrderError::Refused(format!(
                "{node}: its operation moved on in this very moment; look again"
            )))
        }
    }

    /// Gives the drain up, step by step.
    pub(super) async fn give_drain_up(
        &self,
        operation: Operation,
        removal: &Removal,
        instance: &InstanceId,
        epoch: Epoch,
    ) {
        let by = removal.cancelled_by.as_deref().unwrap_or("somebody");
        let error = format!("{by} gave it up");
        if removal.hand_over.is_some() && !self.hand_back(&operation, removal).await {
            return;
        }
        if operation.phase == Phase::Draining && !self.is_open_again(&operation, removal, instance).await {
            return;
        }
        self.not_due(&operation.id);
        self.abort(operation, epoch, error, ErrorType::Cancelled).await;
    }

    /// Whether the node takes pods again, and nobody drains it any more.
    async fn is_open_again(&self, operation: &Operation, removal: &Removal, instance: &InstanceId) -> bool {
        let agents = &self.parts.agents;
        let report = agents.drain_report(instance, operation.id.as_str());
        let phase = report.map(|report| report.phase());
        if matches!(phase, Some(DrainPhase::Aborted)) {
            return true;
        }
        if agents.is_connected(instance) {
            if self.due(&operation.id) {
                // An agent that is gone in this very moment is noticed at the next look.
                let _ = agents.abort_drain(instance, &operation.id).await;
            }
            if phase.is_some() && !removal.through_api {
                return false;
            }
        }
        match self
            .parts
            .nodes
            .uncordon(&removal.node, Some(&operation.id))
            .await
        {
            Ok(()) | Err(NodesError::NoNode(_)) => true,
            Err(error) => {
                tracing::warn!(op = %operation.id, %error, "the node is not uncordoned yet");
                false
            }
        }
    }
}
