//! The agents as something to command; the real ones are behind `serve/sessions`.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use smartscale_proto::v1::{DrainReport, LocalStorage, OnTimeout};

use crate::{
    ids::{InstanceId, OperationId},
    state::records::BootTime,
};

/// An order to drain.
#[derive(Debug, Clone, Copy)]
pub struct DrainTerms<'a> {
    /// Time for the whole drain.
    pub timeout: Duration,
    /// What happens at its end.
    pub on_timeout: OnTimeout,
    /// What happens to pods that lose data with the node.
    pub local_storage: LocalStorage,
    /// Why, as a sentence.
    pub reason: &'a str,
}

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
        terms: DrainTerms<'_>,
    ) -> Result<(), NotConnected>;
    /// Gives the drain of an operation up.
    async fn abort_drain(&self, instance: &InstanceId, operation: &OperationId) -> Result<(), NotConnected>;
    /// Orders the kubelet to be stopped for good.
    async fn stop_kubelet(&self, instance: &InstanceId, operation: &OperationId) -> Result<(), NotConnected>;
    /// Asks the agent to prove that the Node with this UID is its machine's, by this nonce.
    async fn bind_node(&self, instance: &InstanceId, uid: &str, nonce: &str) -> Result<(), NotConnected>;
    /// The newest report on a drain of this operation (or of a notice: `notice/ID`).
    fn drain_report(&self, instance: &InstanceId, operation: &str) -> Option<DrainReport>;
    /// Whether the agent has said that its kubelet is stopped for this operation.
    fn kubelet_stopped(&self, instance: &InstanceId, operation: &OperationId) -> bool;
    /// The machine is gone for good: nothing of what its agent said is needed any more.
    fn forget(&self, _instance: &InstanceId) {}
    /// Where the boot of a machine stands, as a sentence; `None` when nothing was heard.
    fn boot_step(&self, _instance: &InstanceId) -> Option<String> {
        None
    }
    /// Machines whose agents say that the hypervisor gives much of their CPU to others, with since when.
    fn throttled(&self) -> Vec<(InstanceId, Timestamp)> {
        Vec::new()
    }
    /// Whether the agent says that K3s refuses its machine, since another one had its node's name.
    fn name_is_taken(&self, _instance: &InstanceId) -> bool {
        false
    }
    /// The steps of a machine's boot as far as they were reported, in order.
    fn boot_times(&self, _instance: &InstanceId) -> Vec<BootTime> {
        Vec::new()
    }
    /// Ends when any report arrives that could move an operation on.
    async fn changed(&self);
}
