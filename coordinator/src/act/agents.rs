//! The agents as something to command; the real ones are behind `serve/sessions`.

use std::time::Duration;

use async_trait::async_trait;
use smartscale_proto::v1::{DrainReport, OnTimeout};

use crate::ids::{InstanceId, OperationId};

/// No session of this agent is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent has no session")]
pub struct NotConnected;

/// Agents of the machines. Commands are idempotent: the same operation again is the same command.
#[async_trait]
pub trait Agents: Send + Sync {
    /// Whether the agent has a session at this moment.
    fn is_connected(&self, instance: &InstanceId) -> bool;
    /// How long the agent has been without a session; `None` when it has one or never had any.
    fn silent_for(&self, instance: &InstanceId) -> Option<Duration>;
    /// Orders a drain.
    async fn drain(
        &self,
        instance: &InstanceId,
        operation: &OperationId,
        timeout: Duration,
        on_timeout: OnTimeout,
        reason: &str,
    ) -> Result<(), NotConnected>;
    /// Gives the drain of an operation up.
    async fn abort_drain(&self, instance: &InstanceId, operation: &OperationId) -> Result<(), NotConnected>;
    /// Orders the kubelet to be stopped for good.
    async fn stop_kubelet(&self, instance: &InstanceId, operation: &OperationId) -> Result<(), NotConnected>;
    /// The newest report on a drain of this operation (or of a notice: `notice/ID`).
    fn drain_report(&self, instance: &InstanceId, operation: &str) -> Option<DrainReport>;
    /// Whether the agent has said that its kubelet is stopped for this operation.
    fn kubelet_stopped(&self, instance: &InstanceId, operation: &OperationId) -> bool;
    /// Machines that EC2 takes back, each with the id of the notice, as their agents said.
    fn interruptions(&self) -> Vec<(InstanceId, String)> {
        Vec::new()
    }
    /// Where the boot of a machine stands, as a sentence; `None` when nothing was heard.
    fn boot_step(&self, _instance: &InstanceId) -> Option<String> {
        None
    }
    /// Ends when any report arrives that could move an operation on.
    async fn changed(&self);
}
