//! The sessions as the executor and the observer use them: commands down, reports up.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use smartscale_proto::{
    time::duration_to_wire,
    v1::{self, DrainReport, OnTimeout, Outcome, SessionResponse, session_response::Command},
};

use super::Sessions;
use crate::{
    act::agents::{Agents, NotConnected},
    ids::{InstanceId, OperationId},
    observe::agents::{AgentHealth, HealthReport},
};

impl Sessions {
    fn command(&self, instance: &InstanceId, command: Command) -> Result<(), NotConnected> {
        let sender = self
            .of(instance, |machine| {
                machine.open.as_ref().map(|open| open.commands.clone())
            })
            .flatten()
            .ok_or(NotConnected)?;
        sender
            .try_send(SessionResponse {
                command: Some(command),
            })
            .map_err(|_| NotConnected)
    }
}

#[async_trait]
impl Agents for Sessions {
    fn is_connected(&self, instance: &InstanceId) -> bool {
        self.of(instance, |machine| machine.open.is_some())
            .unwrap_or(false)
    }

    fn silent_for(&self, instance: &InstanceId) -> Option<Duration> {
        let since = self.of(instance, |machine| machine.silent_since).flatten()?;
        Some(self.clock.elapsed().saturating_sub(since))
    }

    async fn drain(
        &self,
        instance: &InstanceId,
        operation: &OperationId,
        timeout: Duration,
        on_timeout: OnTimeout,
        reason: &str,
    ) -> Result<(), NotConnected> {
        let command = v1::DrainCommand {
            operation_id: operation.to_string(),
            timeout: Some(duration_to_wire(timeout)),
            on_timeout: on_timeout.into(),
            reason: reason.to_owned(),
        };
        self.command(instance, Command::Drain(command))
    }

    async fn abort_drain(&self, instance: &InstanceId, operation: &OperationId) -> Result<(), NotConnected> {
        let operation_id = operation.to_string();
        self.command(
            instance,
            Command::AbortDrain(v1::AbortDrainCommand { operation_id }),
        )
    }

    async fn stop_kubelet(&self, instance: &InstanceId, operation: &OperationId) -> Result<(), NotConnected> {
        let operation_id = operation.to_string();
        self.command(
            instance,
            Command::StopKubelet(v1::StopKubeletCommand { operation_id }),
        )
    }

    fn drain_report(&self, instance: &InstanceId, operation: &str) -> Option<DrainReport> {
        self.of(instance, |machine| {
            machine
                .drains
                .iter()
                .rev()
                .find(|drain| drain.operation_id == operation)
                .cloned()
        })
        .flatten()
    }

    fn kubelet_stopped(&self, instance: &InstanceId, operation: &OperationId) -> bool {
        self.of(instance, |machine| {
            machine.results.iter().any(|result| {
                result.operation_id == operation.as_str()
                    && result.command == "stop_kubelet"
                    && result.outcome() == Outcome::Done
            })
        })
        .unwrap_or(false)
    }

    fn interruptions(&self) -> Vec<(InstanceId, String)> {
        let machines = self.machines();
        let taken = |machine: &super::Machine| {
            machine
                .notices
                .iter()
                .find(|notice| notice.kind() == v1::NoticeKind::SpotInterruption)
                .cloned()
        };
        machines
            .iter()
            .filter_map(|(instance, machine)| Some((instance.clone(), taken(machine)?.id)))
            .collect()
    }

    fn boot_step(&self, instance: &InstanceId) -> Option<String> {
        let last = self.boot(instance).pop()?;
        let step = super::words(last.step().as_str_name(), "BOOT_STEP_");
        let outcome = super::words(last.outcome().as_str_name(), "OUTCOME_");
        Some(match last.error.as_str() {
            "" => format!("{step}: {outcome}"),
            error => format!("{step}: {outcome}: {error}"),
        })
    }

    async fn changed(&self) {
        let _ = self.seen.lock().await.changed().await;
    }
}

impl AgentHealth for Sessions {
    fn latest(&self) -> BTreeMap<InstanceId, HealthReport> {
        self.machines()
            .iter()
            .filter_map(|(instance, machine)| Some((instance.clone(), machine.health.clone()?)))
            .collect()
    }
}
