//! A drain by the coordinator itself, where the agent is silent: tier by tier, an eviction for each pod.

use std::time::Duration;

use jiff::Timestamp;
use smartscale_proto::time::age;

use super::{Executor, NodesError, Operation, Removal, rule::Drained};
use crate::{
    act::nodes::{Eviction, PodOnNode},
    tell::{Event, Severity},
};

/// A forced drain leaves pods at most so much grace, in seconds.
const FORCED_GRACE: u32 = 30;
/// Pods that were deleted by force are waited for so long beyond the drain's end.
const FORCED: Duration = Duration::from_secs(60);

impl Executor {
    pub(super) async fn drain_through_api(
        &self,
        operation: &Operation,
        removal: &Removal,
        since: Timestamp,
    ) -> Drained {
        if !self.due(&operation.id) {
            return Drained::NotYet;
        }
        match self.evict_tier(operation, removal, since).await {
            Ok(drained) => drained,
            Err(NodesError::NoNode(_)) => Drained::Gone,
            Err(error) => {
                tracing::warn!(op = %operation.id, %error, "draining through the API");
                Drained::NotYet
            }
        }
    }

    /// Evicts what is left of the lowest tier. A pod that is terminating is left alone: it was evicted before.
    async fn evict_tier(
        &self,
        operation: &Operation,
        removal: &Removal,
        since: Timestamp,
    ) -> Result<Drained, NodesError> {
        self.parts
            .nodes
            .cordon(&removal.node, Some(&operation.id))
            .await?;
        let mut left = self.parts.nodes.pods(&removal.node).await?;
        left.retain(|pod| pod.must_leave);
        let Some(tier) = left.iter().map(|pod| pod.tier).min() else {
            return Ok(Drained::Yes);
        };
        if removal.keeps_local_storage && !removal.force {
            let stay: Vec<PodOnNode> = left
                .iter()
                .filter(|pod| pod.local_storage && !pod.terminating)
                .cloned()
                .collect();
            if !stay.is_empty() {
                return self.leave_to(operation, removal, "would lose data", &stay).await;
            }
        }
        let drains_for = age(since, self.parts.clock.now());
        let over = drains_for >= removal.timeout;
        if removal.force && drains_for >= removal.timeout + FORCED {
            // A kubelet that is down ends no pod, and the API server forgets none before the Node is gone.
            return Ok(Drained::Yes);
        }
        if over && !removal.force {
            return self.leave_to(operation, removal, "would not leave", &left).await;
        }
        for pod in left.iter().filter(|pod| over || pod.tier == tier) {
            if self.term().is_none() {
                return Ok(Drained::NotYet);
            }
            if over {
                self.parts.nodes.delete_pod(pod, FORCED_GRACE).await?;
            } else if !pod.terminating {
                let answer = self.parts.nodes.evict(pod).await?;
                self.tell_eviction(operation, removal, pod, &answer);
            }
        }
        Ok(Drained::NotYet)
    }

    /// Opens a node again that such pods keep.
    async fn leave_to(
        &self,
        operation: &Operation,
        removal: &Removal,
        why: &str,
        pods: &[PodOnNode],
    ) -> Result<Drained, NodesError> {
        let names: Vec<String> = pods.iter().map(|pod| pod.key.to_string()).collect();
        self.parts
            .nodes
            .uncordon(&removal.node, Some(&operation.id))
            .await?;
        Ok(Drained::No(format!("{why}: {}", names.join(", "))))
    }

    fn tell_eviction(&self, operation: &Operation, removal: &Removal, pod: &PodOnNode, answer: &Eviction) {
        let state = match answer {
            Eviction::Accepted => "terminating",
            Eviction::Gone => "gone",
            Eviction::Budget => "budget",
            Eviction::MultipleBudgets => "multiple_budgets",
            Eviction::NamespaceTerminating => "namespace_terminating",
        };
        let Ok(instance) = removal.node.as_str().parse() else {
            return;
        };
        let event = Event::Drain {
            instance,
            operation: operation.id.to_string(),
            pod: Some(pod.key.clone()),
            state: state.to_owned(),
        };
        self.say(Severity::Detail, format!("{}: {state}", pod.key), event);
    }
}
