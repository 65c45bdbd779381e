//! The steps of a removal: the agent drains (or the coordinator, through the API, when the agent is silent), the
//! kubelet is stopped, the machine is terminated, the Node is deleted, the record is forgotten. In that order, since
//! a running kubelet would register again and a Node deleted early would lose its pods without grace.

mod cancel;
mod hand_over;
#[cfg(test)]
mod model;
mod rule;
mod through_api;

use std::{sync::PoisonError, time::Duration};

use jiff::Timestamp;
use smartscale_proto::{
    time::age,
    v1::{DrainPhase, DrainReport, LocalStorage, OnTimeout},
};

use self::rule::{Drained, Next};
use super::{
    agents::DrainTerms,
    executor::Executor,
    interruption,
    journal::scaled,
    nodes::NodesError,
    operation::{Operation, Phase, Removal},
};
use crate::{
    ids::{Epoch, InstanceId, OperationId},
    state::{
        Attributes, Write,
        records::{NodeRecord, Record as _},
    },
    tell::{ErrorType, Severity},
};

/// A command to an agent is repeated so often while nothing comes back, and an eviction that a budget refused.
const AGAIN: Duration = Duration::from_secs(5);

impl Executor {
    pub(super) async fn step_removal(&self, operation: Operation, epoch: Epoch) {
        let Some(removal) = operation.removal().cloned() else {
            return;
        };
        let Ok(instance) = removal.node.as_str().parse::<InstanceId>() else {
            let error = format!("`{}` is not the name of a machine of ours", removal.node);
            self.abort(operation, epoch, error, ErrorType::NotOurs).await;
            return;
        };
        if removal.cancelled_by.is_some() && !removal.interrupted && !removal.lost {
            let before_the_end = matches!(operation.phase, Phase::Planned | Phase::Draining);
            if before_the_end {
                self.give_drain_up(operation, &removal, &instance, epoch).await;
                return;
            }
        }
        match rule::next(operation.phase) {
            Next::Begin => self.start_drain(operation, &removal, epoch).await,
            Next::Drain => self.drain(operation, &removal, &instance, epoch).await,
            Next::Stop => self.stop(operation, &removal, &instance, epoch).await,
            Next::Terminate => self.terminate(operation, &removal, &instance, epoch).await,
            Next::Forget => self.forget(operation, &removal, &instance, epoch).await,
            Next::Nothing => {}
        }
    }

    async fn start_drain(&self, mut operation: Operation, removal: &Removal, epoch: Epoch) {
        for launch in &removal.after {
            if self.find_open(launch).is_some() {
                return;
            }
            match self.ended_well(launch).await {
                Some(true) => {}
                Some(false) => {
                    let error = format!("its replacement ({launch}) was not launched");
                    self.abort(operation, epoch, error, ErrorType::Replacement).await;
                    return;
                }
                None => return,
            }
        }
        if !removal.lost
            && let Err(error) = self
                .parts
                .nodes
                .leave_balancers(&removal.node, &operation.id)
                .await
        {
            // No reason to keep its pods: whoever balances notices that it is not Ready any more.
            tracing::warn!(op = %operation.id, %error, "the node stays in external load balancers");
        }
        let now = self.parts.clock.now();
        if let Some(removal) = operation.removal_mut() {
            removal.draining_since = Some(now);
            removal.hand_over = self.parts.settings.hand_over;
        }
        if operation
            .advance(Phase::Draining, now, format!("draining {}", removal.node))
            .is_ok()
        {
            self.write(epoch, &mut operation, Vec::new(), Attributes::new())
                .await;
        }
    }

    /// Whether an operation that is not open ended well; `None` while the store cannot be asked.
    async fn ended_well(&self, id: &OperationId) -> Option<bool> {
        match self.parts.store.get(&format!("{}{id}", Operation::PREFIX)).await {
            Ok(None) => Some(false),
            Ok(Some(item)) => {
                Some(Operation::from_item(&item).is_ok_and(|operation| operation.phase == Phase::Done))
            }
            Err(error) => {
                tracing::warn!(op = %id, %error, "an operation could not be read");
                None
            }
        }
    }

    async fn drain(&self, operation: Operation, removal: &Removal, instance: &InstanceId, epoch: Epoch) {
        let now = self.parts.clock.now();
        let since = removal.draining_since.unwrap_or(operation.created_at);
        if let Some(time) = removal.hand_over {
            self.hand_over(operation, removal, age(since, now) >= time, epoch)
                .await;
            return;
        }
        let drained = if removal.lost {
            Drained::Gone
        } else if removal.through_api {
            self.drain_through_api(&operation, removal, since).await
        } else {
            match self
                .drain_through_agent(&operation, removal, instance, since)
                .await
            {
                Some(drained) => drained,
                None => {
                    let note = "the agent does not drain: draining through the API";
                    self.take_drain_over(operation, now, epoch, note).await;
                    return;
                }
            }
        };
        match (rule::drained(operation.removes().is_some(), &drained), drained) {
            (None, _) => {}
            (Some(_), Drained::No(error)) => {
                self.abort(operation, epoch, error, ErrorType::DrainTimeout).await;
            }
            (Some(Phase::Done), _) => {
                self.move_on(operation, epoch, Phase::Done, "drained; it stays cordoned")
                    .await;
            }
            (Some(to), Drained::Gone) => {
                let mut operation = operation;
                if let Some(removal) = operation.removal_mut() {
                    removal.lost = true;
                }
                self.move_on(operation, epoch, to, "the machine is gone").await;
            }
            (Some(to), _) if !removal.through_api => match self.is_empty(&operation, removal).await {
                Ok(true) => self.move_on(operation, epoch, to, "drained").await,
                Ok(false) => {
                    let note = "pods came back to the drained node: draining through the API";
                    self.take_drain_over(operation, now, epoch, note).await;
                }
                Err(error) => {
                    tracing::warn!(op = %operation.id, %error, "nobody knows yet whether the drained node is empty");
                }
            },
            (Some(to), _) => self.move_on(operation, epoch, to, "drained").await,
        }
    }

    /// Whether a node that was drained is empty, and closed. A person may have lifted the cordon meanwhile, or it was a
    /// person's all along and the agent left it to them.
    async fn is_empty(&self, operation: &Operation, removal: &Removal) -> Result<bool, NodesError> {
        let looked = async {
            self.parts
                .nodes
                .cordon(&removal.node, Some(&operation.id))
                .await?;
            let pods = self.parts.nodes.pods(&removal.node).await?;
            Ok(!pods.iter().any(|pod| pod.must_leave))
        };
        match looked.await {
            Err(NodesError::NoNode(_)) => Ok(true),
            looked => looked,
        }
    }

    async fn take_drain_over(&self, mut operation: Operation, now: Timestamp, epoch: Epoch, note: &str) {
        if let Some(removal) = operation.removal_mut() {
            removal.through_api = true;
        }
        if operation.advance(Phase::Draining, now, note).is_ok() {
            self.write(epoch, &mut operation, Vec::new(), Attributes::new())
                .await;
        }
    }

    /// Has the agent drain, and reads how far it is. `None`: the agent is silent.
    async fn drain_through_agent(
        &self,
        operation: &Operation,
        removal: &Removal,
        instance: &InstanceId,
        since: Timestamp,
    ) -> Option<Drained> {
        // What the agent began by itself at the notice.
        let own = self
            .parts
            .notices
            .own_drain(instance)
            .filter(|_| removal.interrupted);
        for id in [Some(operation.id.to_string()), own.clone()]
            .into_iter()
            .flatten()
        {
            let Some(report) = self.parts.agents.drain_report(instance, &id) else {
                continue;
            };
            match report.phase() {
                DrainPhase::Drained => return Some(Drained::Yes),
                // Nobody keeps a machine that EC2 takes: what the agent gave up goes on through the API.
                DrainPhase::Aborted | DrainPhase::Failed if removal.interrupted => return None,
                DrainPhase::Aborted | DrainPhase::Failed => return Some(Drained::No(stayed(&report))),
                _ => {}
            }
        }
        let now = self.parts.clock.now();
        let mut limit = self.parts.settings.agent_silent;
        if removal.interrupted {
            limit = limit.min(interruption::SILENT);
        }
        if self.parts.agents.is_connected(instance) {
            if own.is_none() && self.due(&operation.id) {
                let on_timeout = if removal.force {
                    OnTimeout::Force
                } else {
                    OnTimeout::Abort
                };
                let left = removal
                    .timeout
                    .saturating_sub(age(since, now))
                    .max(Duration::from_secs(1));
                let terms = DrainTerms {
                    timeout: left,
                    on_timeout,
                    local_storage: if removal.keeps_local_storage {
                        LocalStorage::Keep
                    } else {
                        LocalStorage::Evict
                    },
                    reason: &operation.reason,
                };
                // An agent that is gone in this very moment is noticed at the next look.
                let _ = self.parts.agents.drain(instance, &operation.id, terms).await;
            }
            // An agent that is there but does not come to an end by itself is not waited for for ever.
            let overdue = age(since, now) >= removal.timeout + limit;
            return (!overdue).then_some(Drained::NotYet);
        }
        if self.machine_gone(instance).await {
            return Some(Drained::Gone);
        }
        let silent = self
            .parts
            .agents
            .silent_for(instance)
            .unwrap_or_else(|| age(since, now));
        (silent.min(age(since, now)) < limit).then_some(Drained::NotYet)
    }

    /// Whether something that is repeated is due again.
    fn due(&self, id: &OperationId) -> bool {
        let now = self.parts.clock.elapsed();
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let due = sent.get(id).is_none_or(|last| now.saturating_sub(*last) >= AGAIN);
        if due {
            sent.insert(id.clone(), now);
        }
        due
    }

    fn not_due(&self, id: &OperationId) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.remove(id);
    }

    async fn stop(&self, operation: Operation, removal: &Removal, instance: &InstanceId, epoch: Epoch) {
        let now = self.parts.clock.now();
        let since = removal.phase_since.unwrap_or(operation.updated_at);
        if self.parts.agents.kubelet_stopped(instance, &operation.id) {
            self.move_on(operation, epoch, Phase::Terminating, "the kubelet is stopped")
                .await;
        } else if age(since, now) >= self.parts.settings.stop || removal.through_api {
            // Its agent is silent, or cannot: the machine's end ends the kubelet as well, and the Node is deleted only
            // after that. Agents that look for a new leader are waited for.
            self.move_on(
                operation,
                epoch,
                Phase::Terminating,
                "the agent did not stop the kubelet",
            )
            .await;
        } else if self.parts.agents.is_connected(instance) && self.due(&operation.id) {
            let _ = self.parts.agents.stop_kubelet(instance, &operation.id).await;
        }
    }

    async fn terminate(&self, operation: Operation, removal: &Removal, instance: &InstanceId, epoch: Epoch) {
        // Whoever is lost unmounts nothing any more.
        if !removal.lost
            && self.holds_volumes(&operation, removal).await
            && !self.machine_gone(instance).await
        {
            return;
        }
        if self.due(&operation.id)
            && let Err(error) = self.parts.fleet.terminate(std::slice::from_ref(instance)).await
        {
            tracing::warn!(op = %operation.id, %error, "the machine was not terminated yet");
            return;
        }
        if let Some(to) = rule::terminated(self.machine_gone(instance).await) {
            self.move_on(operation, epoch, to, "the machine is terminated")
                .await;
        }
    }

    /// Whether volumes are still attached to the node, for which its end has to wait: a volume that was not unmounted is
    /// not attached elsewhere for minutes. A bound is kept, and said when it passes.
    async fn holds_volumes(&self, operation: &Operation, removal: &Removal) -> bool {
        let attached = match self.parts.nodes.attached(&removal.node).await {
            Ok(attached) if attached.is_empty() => return false,
            Err(NodesError::NoNode(_)) => return false,
            Ok(attached) => attached.join(", "),
            Err(error) => format!("nobody knows which ({error})"),
        };
        let since = removal.phase_since.unwrap_or(operation.updated_at);
        let waited = age(since, self.parts.clock.now());
        if waited < self.parts.settings.detach {
            return true;
        }
        if self.due(&operation.id) {
            let message = format!(
                "{} is not waited for any longer, after {} s volumes are still attached to it: {attached}",
                removal.node,
                waited.as_secs()
            );
            self.trouble(Severity::Warning, message, ErrorType::VolumesAttached);
            self.not_due(&operation.id);
        }
        false
    }

    async fn forget(&self, mut operation: Operation, removal: &Removal, instance: &InstanceId, epoch: Epoch) {
        if removal.lost && self.is_left_behind(&operation, removal).await {
            return;
        }
        match self.parts.nodes.delete(&removal.node).await {
            Ok(()) | Err(NodesError::NoNode(_)) => {}
            Err(error) => {
                tracing::warn!(op = %operation.id, %error, "the Node was not deleted yet");
                return;
            }
        }
        let now = self.parts.clock.now();
        // A lost machine's pods were never told to go.
        let drained = if removal.lost { "" } else { "drained, " };
        let note = format!("{} is {drained}terminated and forgotten", removal.node);
        if operation.advance(Phase::Done, now, note).is_ok() {
            let mut forget = self.parts.notices.forgetting(instance);
            forget.push(Write::Delete {
                key: format!("{}{instance}", NodeRecord::PREFIX),
            });
            let attributes = if operation.decision.is_some() {
                scaled("scale_down", now)
            } else {
                Attributes::new()
            };
            if self.write(epoch, &mut operation, forget, attributes).await {
                self.parts.notices.forget(instance);
                self.parts.agents.forget(instance);
            }
        }
    }

    /// Whether pods or volumes still hang on the node of a lost machine. Its pods were never told to go: without the taint
    /// a StatefulSet's would wait for it, and its volumes for six minutes.
    async fn is_left_behind(&self, operation: &Operation, removal: &Removal) -> bool {
        match self.parts.nodes.out_of_service(&removal.node).await {
            Ok(()) => self.holds_volumes(operation, removal).await,
            Err(NodesError::NoNode(_)) => false,
            Err(error) => {
                tracing::warn!(op = %operation.id, %error, "the node is not said to be out of service yet");
                true
            }
        }
    }

    async fn move_on(&self, mut operation: Operation, epoch: Epoch, to: Phase, note: &str) {
        if operation.advance(to, self.parts.clock.now(), note).is_ok() {
            self.not_due(&operation.id);
            self.write(epoch, &mut operation, Vec::new(), Attributes::new())
                .await;
        }
    }

    async fn abort(&self, mut operation: Operation, epoch: Epoch, error: String, error_type: ErrorType) {
        if operation.phase == Phase::Draining
            && let Some(removal) = operation.removal()
            && let Err(error) = self
                .parts
                .nodes
                .rejoin_balancers(&removal.node, &operation.id)
                .await
            && !matches!(error, NodesError::NoNode(_))
        {
            tracing::warn!(op = %operation.id, %error, "the node is not back in external load balancers yet");
            return;
        }
        let now = self.parts.clock.now();
        operation.error = Some(error.clone());
        operation.error_type = Some(error_type.into());
        if operation
            .advance(Phase::Aborted, now, format!("given up: {error}"))
            .is_ok()
        {
            self.write(epoch, &mut operation, Vec::new(), Attributes::new())
                .await;
        }
    }
}

/// The pods that would not leave, as a sentence.
fn stayed(report: &DrainReport) -> String {
    let gone = smartscale_proto::v1::PodState::Gone;
    let pods: Vec<String> = report
        .pods
        .iter()
        .filter(|pod| pod.state() != gone)
        .map(|pod| match pod.reason.as_str() {
            "" => format!("{}/{}", pod.namespace, pod.name),
            reason => format!("{}/{} ({reason})", pod.namespace, pod.name),
        })
        .collect();
    if pods.is_empty() {
        report.error.clone()
    } else {
        format!("would not leave: {}", pods.join(", "))
    }
}
