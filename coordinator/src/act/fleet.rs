//! The fleet: machines that can be launched and terminated. The real ones are EC2 (`aws/fleet`) and a program of the
//! user's (`command/`), the embedded one the simulator's cloud.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smartscale_planner::model::{InstanceType, Market, PoolName, Zone};

use crate::ids::{InstanceId, OperationId};

/// One launch call, complete: it is journaled as it is before it is made, and a repetition sends the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRequest {
    /// The operation, put on every instance as a tag.
    pub operation: OperationId,
    /// Number of the attempt within the operation, from 1. Another request needs another attempt, since a client
    /// token belongs to one request.
    pub attempt: u32,
    /// The pool, put on every instance as a tag.
    pub pool: PoolName,
    /// The zone.
    pub zone: Zone,
    /// How to buy.
    pub market: Market,
    /// Types that would do, cheapest first, at least one.
    pub instance_types: Vec<InstanceType>,
    /// How many instances.
    pub count: u32,
    /// Secret that each instance proves itself with, where the attestor is `token`: handed to the fleet, kept as
    /// a hash. Never written to the journal.
    #[serde(skip)]
    pub enrolment_secret: Option<String>,
}

impl LaunchRequest {
    /// The client token (at most 64 ASCII characters): EC2 answers a repetition with the first answer.
    #[must_use]
    pub fn client_token(&self) -> String {
        format!("{}-{}", self.operation, self.attempt)
    }
}

/// What a launch call brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launched {
    /// Instances that exist now; may be fewer than asked.
    pub instances: Vec<Instance>,
    /// Offerings that refused.
    pub refused: Vec<RefusedOffering>,
}

/// An offering that refused to launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedOffering {
    /// The type; absent when the cloud did not say.
    pub instance_type: Option<InstanceType>,
    /// The zone.
    pub zone: Zone,
    /// The market.
    pub market: Market,
    /// Why.
    pub cause: RefusalCause,
    /// The cloud's own code and words.
    pub message: String,
}

/// Why an offering refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCause {
    /// The cloud has none at the moment: this offering backs off.
    Capacity,
    /// The account may not have more.
    Quota,
    /// The request is wrong for this offering: people must act.
    Configuration,
    /// Too many calls.
    Throttled,
    /// None of those.
    Other,
}

/// A machine of the fleet as the cloud describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its type.
    pub instance_type: InstanceType,
    /// Its zone.
    pub zone: Zone,
    /// How it was bought.
    pub market: Market,
    /// The pool of its tag; absent when it has none.
    pub pool: Option<PoolName>,
    /// The operation of its tag; absent when it has none.
    pub operation: Option<OperationId>,
    /// Where it is in its life.
    pub state: InstanceState,
    /// When it was launched.
    pub launched_at: Timestamp,
    /// When it was told to end, or to stop; absent while it runs, and where the cloud does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

/// The life of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Being started.
    Pending,
    /// Started.
    Running,
    /// On its way out.
    ShuttingDown,
    /// Gone.
    Terminated,
    /// Being stopped.
    Stopping,
    /// Stopped, and not billed.
    Stopped,
}

impl InstanceState {
    /// Whether the instance is there or will be.
    #[must_use]
    pub fn is_alive(self) -> bool {
        !matches!(self, Self::ShuttingDown | Self::Terminated)
    }
}

/// What does not agree with how pools are launched now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    /// Machines of another template, version or image than their pool's launches have now, each with how it differs.
    pub machines: BTreeMap<InstanceId, String>,
    /// Templates with our cluster's tag that no pool and no machine uses, by name and id.
    pub unused: Vec<String>,
    /// What is wrong with what pools are launched from, as sentences.
    pub unsound: Vec<String>,
}

/// A fleet call that failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// The cloud refused and nothing happened; the same request will be refused again.
    #[error("the cloud refused: {0}")]
    Refused(String),
    /// Too many calls; nothing happened.
    #[error("the cloud asks for fewer calls: {0}")]
    Throttled(String),
    /// Nobody knows whether it happened: no answer, or one that could not be read. The same request with the
    /// same token, or a look by the operation's tag, finds out.
    #[error("the cloud did not answer: {0}")]
    Unknown(String),
}

/// Machines that can be launched and terminated.
#[async_trait]
pub trait Fleet: Send + Sync {
    /// Launches. The same request again gives the same instances.
    async fn launch(&self, request: &LaunchRequest) -> Result<Launched, FleetError>;
    /// Every instance that bears the operation's tag, ended ones included as long as the cloud shows them.
    async fn find(&self, operation: &OperationId) -> Result<Vec<Instance>, FleetError>;
    /// Every instance that bears our cluster's tag, ended ones included as long as the cloud shows them. One that is missing
    /// may still be there: the cloud's lists lag behind.
    async fn list(&self) -> Result<Vec<Instance>, FleetError>;
    /// One instance by its id; `None`: the cloud knows none of that id. Asked before an instance that a list lacks counts
    /// as gone.
    async fn look(&self, instance: &InstanceId) -> Result<Option<Instance>, FleetError>;
    /// Machines that are not what a launch of their pool would be now. A cloud that launches from no template has none.
    async fn drift(&self) -> Result<Drift, FleetError> {
        Ok(Drift::default())
    }
    /// Terminates. An instance that is terminated already, or unknown, is no error.
    async fn terminate(&self, instances: &[InstanceId]) -> Result<(), FleetError>;
}
