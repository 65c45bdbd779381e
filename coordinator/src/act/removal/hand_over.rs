//! Before a drain: pods whose Deployments allow surge are replaced elsewhere first. It has its own time; what it did not come to is
//! drained like everything else.

use super::{Executor, NodesError, Operation, Phase, Removal};
use crate::{act::nodes::HandOver, ids::Epoch, state::Attributes};

impl Executor {
    /// One look at the hand-over; when it is over, the drain begins with all of its time.
    pub(super) async fn hand_over(
        &self,
        operation: Operation,
        removal: &Removal,
        is_late: bool,
        epoch: Epoch,
    ) {
        // Nobody waits for a machine that is gone or taken, or longer than was said.
        let looked = if is_late || removal.lost || removal.interrupted {
            Err("no time is left to hand pods over".to_owned())
        } else {
            match self.look_at_hand_over(&operation, removal).await {
                Ok(HandOver::UnderWay(deployments)) => {
                    tracing::debug!(op = %operation.id, ?deployments, "pods are handed over");
                    return;
                }
                Err(error @ NodesError::Unavailable(_)) => {
                    tracing::warn!(op = %operation.id, %error, "handing pods over");
                    return;
                }
                Ok(HandOver::Over) => Ok(()),
                Err(error) => Err(format!("pods cannot be handed over: {error}")),
            }
        };
        let note = match looked {
            Ok(()) => "what could be handed over is".to_owned(),
            Err(why) if self.hand_back(&operation, removal).await => why,
            Err(_) => return,
        };
        let (now, mut operation) = (self.parts.clock.now(), operation);
        if let Some(removal) = operation.removal_mut() {
            removal.hand_over = None;
            removal.draining_since = Some(now);
        }
        if operation.advance(Phase::Draining, now, note).is_ok() {
            self.write(epoch, &mut operation, Vec::new(), Attributes::new())
                .await;
        }
    }

    async fn look_at_hand_over(
        &self,
        operation: &Operation,
        removal: &Removal,
    ) -> Result<HandOver, NodesError> {
        let (nodes, id) = (&self.parts.nodes, &operation.id);
        nodes.cordon(&removal.node, Some(id)).await?;
        nodes.hand_over(&removal.node, id).await
    }

    /// Whether every Deployment has as many replicas as its users want.
    pub(super) async fn hand_back(&self, operation: &Operation, removal: &Removal) -> bool {
        let ended = self.parts.nodes.end_hand_over(&removal.node, &operation.id).await;
        match ended {
            Ok(()) | Err(NodesError::NoNode(_)) => true,
            // Without the right to it nothing was handed over either. Where somebody has taken the right away since, or refuses the
            // very change, trying again does not help: people are told.
            Err(NodesError::Refused(why)) => {
                tracing::warn!(op = %operation.id, why, "what was handed over is not given back: look for the label smartscale.io/handing-over");
                true
            }
            Err(error @ NodesError::Unavailable(_)) => {
                tracing::warn!(op = %operation.id, %error, "Deployments are not as their users want them yet");
                false
            }
        }
    }
}
