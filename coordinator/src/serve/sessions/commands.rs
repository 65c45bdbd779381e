//! The sessions as the executor and the observer use them: commands down, reports up.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use smartscale_proto::{
    time::{duration_from_wire, duration_to_wire},
    v1::{self, BootReport, DrainReport, Outcome, SessionResponse, session_response::Command},
};

use super::Sessions;
use crate::{
    act::agents::{Agents, DrainTerms, NotConnected},
    ids::{InstanceId, OperationId},
    observe::agents::{AgentHealth, HealthReport},
    state::records::BootTime,
};

/// Longest error of a boot step that is kept.
const LONGEST_ERROR: usize = 300;

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

    /// Has every agent in session take a fresh certificate, spread so that a thousand take 20 s.
    pub fn renew_all(&self) {
        const EACH: Duration = Duration::from_millis(20);
        let connected = self.connected();
        let within = EACH.saturating_mul(u32::try_from(connected.len()).unwrap_or(u32::MAX));
        for instance in connected {
            let renew = v1::RenewCommand {
                within: Some(duration_to_wire(within)),
            };
            if self.command(&instance, Command::Renew(renew)).is_err() {
                tracing::warn!(%instance, "an agent could not be told to renew; it does at half of its certificate's life");
            }
        }
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
        terms: DrainTerms<'_>,
    ) -> Result<(), NotConnected> {
        let command = v1::DrainCommand {
            operation_id: operation.to_string(),
            timeout: Some(duration_to_wire(terms.timeout)),
            on_timeout: terms.on_timeout.into(),
            reason: terms.reason.to_owned(),
            local_storage: terms.local_storage.into(),
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

    async fn bind_node(&self, instance: &InstanceId, uid: &str, nonce: &str) -> Result<(), NotConnected> {
        let command = v1::BindNodeCommand {
            node_uid: uid.to_owned(),
            nonce: nonce.to_owned(),
        };
        self.command(instance, Command::BindNode(command))
    }

    fn forget(&self, instance: &InstanceId) {
        self.machines().remove(instance);
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

    fn boot_step(&self, instance: &InstanceId) -> Option<String> {
        let last = self.boot(instance).pop()?;
        let step = super::words(last.step().as_str_name(), "BOOT_STEP_");
        let outcome = super::words(last.outcome().as_str_name(), "OUTCOME_");
        Some(match last.error.as_str() {
            "" => format!("{step}: {outcome}"),
            error => format!("{step}: {outcome}: {error}"),
        })
    }

    fn throttled(&self) -> Vec<(InstanceId, Timestamp)> {
        let machines = self.machines();
        let throttled = machines.iter().filter_map(|(instance, machine)| {
            let open = machine.open.is_some();
            let since = machine.health.as_ref()?.throttled_since();
            Some((instance.clone(), since.filter(|_| open)?))
        });
        throttled.collect()
    }

    fn name_is_taken(&self, instance: &InstanceId) -> bool {
        let steps = self.boot(instance);
        let last = steps.last();
        last.is_some_and(|step| {
            step.failure() == v1::JoinFailure::DuplicateHostname && step.outcome() == Outcome::Retrying
        })
    }

    fn boot_times(&self, instance: &InstanceId) -> Vec<BootTime> {
        let steps = self.boot(instance);
        steps.iter().map(boot_time).collect()
    }

    async fn changed(&self) {
        let _ = self.seen.lock().await.changed().await;
    }
}

fn boot_time(boot: &BootReport) -> BootTime {
    let took = boot.took.as_ref().and_then(|took| duration_from_wire(took).ok());
    BootTime {
        step: super::words(boot.step().as_str_name(), "BOOT_STEP_"),
        seconds: took.unwrap_or_default().as_secs_f64(),
        attempts: boot.attempts,
        error: boot.error.chars().take(LONGEST_ERROR).collect(),
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
