//! Which machine this is.
//!
//! [`Imds`](imds::Imds) asks EC2's metadata service, [`StaticMachine`] knows it from the configuration. Nobody believes a machine's
//! word about itself: the coordinator compares it with its own launch record.

#[cfg(feature = "aws")]
pub mod credentials;
pub mod imds;

use std::net::IpAddr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use smartscale_planner::model::Market;
use smartscale_proto::{identity::Segment, v1};

use crate::error::Failure;

/// The machine as it knows itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// EC2 instance id, or the machine's id elsewhere.
    pub id: Segment,
    /// EC2 instance type, for example `t3.small`.
    pub instance_type: String,
    /// Availability zone, for example `us-east-1a`.
    pub zone: String,
    /// How it was bought.
    pub market: Market,
    /// Its primary private address.
    pub private_ip: IpAddr,
    /// The Kubernetes provider id of the node; `None` leaves it to K3s.
    pub provider_id: Option<String>,
}

impl Machine {
    /// The message for the coordinator.
    #[must_use]
    pub fn to_wire(&self) -> v1::Machine {
        v1::Machine {
            instance_id: self.id.to_string(),
            instance_type: self.instance_type.clone(),
            zone: self.zone.clone(),
            market: self.market.to_string(),
            private_ip: self.private_ip.to_string(),
        }
    }
}

/// Knows which machine this is.
#[async_trait]
pub trait MachineIdentity: Send + Sync {
    /// The machine.
    ///
    /// # Errors
    /// [`Failure`] with what could not be learnt; asked again later.
    async fn identity(&self) -> Result<Machine, Failure>;
}

/// A machine that is described by the configuration.
#[derive(Debug, Clone)]
pub struct StaticMachine(pub Machine);

#[async_trait]
impl MachineIdentity for StaticMachine {
    async fn identity(&self) -> Result<Machine, Failure> {
        Ok(self.0.clone())
    }
}
