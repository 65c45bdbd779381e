//! Records that are kept in the store, each with its key.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use smartscale_planner::{
    Plan,
    model::{InstanceType, Market, PoolName, Zone},
    snapshot::{Backoff, StoppedPool},
};

use super::{Item, StoreError};
use crate::ids::{DecisionId, Epoch, InstanceId, OperationId};

/// Something with a key of its own kind.
pub trait Record: Serialize + DeserializeOwned {
    /// Beginning of every key of this kind.
    const PREFIX: &'static str;
    /// The rest of the key.
    fn id(&self) -> String;

    /// The whole key.
    fn key(&self) -> String {
        format!("{}{}", Self::PREFIX, self.id())
    }

    /// The record as an item's content.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it has no JSON form, which none of ours does.
    fn body(&self) -> Result<Value, StoreError> {
        serde_json::to_value(self).map_err(|error| StoreError::Corrupt {
            key: self.key(),
            reason: error.to_string(),
        })
    }

    /// The record in an item.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] naming the item and what is wrong.
    fn from_item(item: &Item) -> Result<Self, StoreError> {
        Self::deserialize(&item.body).map_err(|error| StoreError::Corrupt {
            key: item.key.clone(),
            reason: error.to_string(),
        })
    }
}

/// A machine that we launched: what was meant, and whose key it enrolled. Without it nothing is signed, and
/// revoking it ends every call of its agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The machine.
    pub instance: InstanceId,
    /// Its pool.
    pub pool: PoolName,
    /// Its type.
    pub instance_type: InstanceType,
    /// Its zone.
    pub zone: Zone,
    /// How it was bought.
    pub market: Market,
    /// The operation that launched it.
    pub operation: OperationId,
    /// When.
    pub launched_at: Timestamp,
    /// SHA-256 of the one-time secret, in hexadecimal; absent where the attestor is another, or once it is spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_hash: Option<String>,
    /// When that secret lapses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_expires_at: Option<Timestamp>,
    /// SHA-256 of the first enrolled public key (SubjectPublicKeyInfo, DER), in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_key: Option<String>,
    /// When it was enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_at: Option<Timestamp>,
    /// When the node was first seen Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Timestamp>,
    /// When trust in it was withdrawn; nothing it says counts from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

impl Record for NodeRecord {
    const PREFIX: &'static str = "node#";

    fn id(&self) -> String {
        self.instance.to_string()
    }
}

/// A decision with everything it was drawn from, so that anybody can ask why later.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Its id; ids sort by time.
    pub id: DecisionId,
    /// When it was taken.
    pub time: Timestamp,
    /// The last time the very same decision was taken again.
    pub last_time: Timestamp,
    /// How often it was taken in a row.
    pub repeats: u32,
    /// `act` or `observe`.
    pub mode: String,
    /// The term.
    pub epoch: Epoch,
    /// The plan, with its rules, reasons and blockers.
    pub plan: Plan,
    /// What it costs (positive) or saves (negative), in USD per hour.
    pub cost_change_per_hour: f64,
    /// Operations that came of it.
    pub operations: Vec<OperationId>,
    /// Sources with the age of what they had said, in seconds; `None`: nothing yet.
    pub sources: Vec<(String, Option<f64>)>,
}

impl Record for DecisionRecord {
    const PREFIX: &'static str = "decision#";

    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// An offering that was refused lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferingRecord {
    /// What is not tried, and until when.
    #[serde(flatten)]
    pub backoff: Backoff,
    /// Refusals in a row.
    #[serde(default)]
    pub failures: u32,
}

impl Record for OfferingRecord {
    const PREFIX: &'static str = "offering#";

    fn id(&self) -> String {
        let Backoff {
            instance_type,
            zone,
            market,
            ..
        } = &self.backoff;
        format!("{instance_type}#{zone}#{market}")
    }
}

/// A pool of which launches failed lately for a reason of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// The pool.
    pub pool: PoolName,
    /// Launches in a row of which no machine became a Ready node.
    #[serde(default)]
    pub failed_joins: u32,
    /// Nothing of it is launched for a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<StoppedPool>,
}

impl Record for PoolRecord {
    const PREFIX: &'static str = "pool#";

    fn id(&self) -> String {
        self.pool.to_string()
    }
}

/// A pause that a person ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When it ends; absent: when somebody resumes.
    pub until: Option<Timestamp>,
    /// Who ordered it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it was ordered.
    pub since: Timestamp,
}

impl Record for Pause {
    const PREFIX: &'static str = "setting#pause";

    fn id(&self) -> String {
        String::new()
    }
}

/// A floor that a person set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// The fewest nodes.
    pub nodes: u32,
    /// When it lapses.
    pub until: Timestamp,
    /// Who set it.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Record for Floor {
    const PREFIX: &'static str = "setting#floor";

    fn id(&self) -> String {
        String::new()
    }
}

/// A call of a person, for the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its id; ids sort by time.
    pub id: String,
    /// When.
    pub time: Timestamp,
    /// The caller's identity, or its address where it has none.
    pub who: String,
    /// The method.
    pub call: String,
    /// Its arguments, as text.
    pub arguments: String,
    /// `ok`, or the gRPC code with which it was refused.
    pub outcome: String,
}

impl Record for AuditRecord {
    const PREFIX: &'static str = "audit#";

    fn id(&self) -> String {
        self.id.clone()
    }
}
