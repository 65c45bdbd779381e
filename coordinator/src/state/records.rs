//! Records that are kept in the store, each with its key.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use smartscale_planner::{
    Plan,
    forecast::Hour,
    model::{Bytes, InstanceType, Market, MilliCpu, PoolName, Resources, Zone},
    snapshot::{Backoff, StoppedPool},
};

use smartscale_proto::{
    audit::{Entry, Head},
    identity::{Role, Segment},
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
    /// SHA-256 of the enrolled public key (SubjectPublicKeyInfo, DER), in hexadecimal: its first, unless the machine has
    /// proven itself anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_key: Option<String>,
    /// When it was enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_at: Option<Timestamp>,
    /// From what the nonces are made that bind its Node to it ([`crate::act::binding`]): 32 random bytes, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding_secret: Option<String>,
    /// The certificate that its agent has; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certified: Option<Certified>,
    /// When the node was first seen Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Timestamp>,
    /// When trust in it was withdrawn; nothing it says counts from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// The steps of its first boot, in order, as its agent had reported them when the node was Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot: Vec<BootTime>,
}

/// An hour of demand that the forecast learns from. Keys sort by time until the year 3110.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForecastHour {
    /// Its minutes.
    #[serde(flatten)]
    pub hour: Hour,
    /// What a pod requested on average: a leader that begins while there is none cannot know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<Each>,
}

impl Record for ForecastHour {
    const PREFIX: &'static str = "forecast#";

    fn id(&self) -> String {
        format!("{:07}", self.hour.hour)
    }
}

/// CPU and memory of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Each {
    /// What it requests.
    pub cpu_millis: MilliCpu,
    /// What it requests.
    pub memory_bytes: Bytes,
}

impl From<&Resources> for Each {
    fn from(resources: &Resources) -> Self {
        Self {
            cpu_millis: resources.cpu,
            memory_bytes: resources.memory,
        }
    }
}

impl From<Each> for Resources {
    fn from(each: Each) -> Self {
        Self {
            cpu: each.cpu_millis,
            memory: each.memory_bytes,
            pods: 1,
            ..Self::default()
        }
    }
}

/// How long a step of a boot took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BootTime {
    /// `identity`, `secrets`, `enrolment`, `kubelet` or `ready`.
    pub step: String,
    /// Seconds, by the machine's clock.
    pub seconds: f64,
    /// Attempts, from 1.
    pub attempts: u32,
    /// What the last attempt that failed said; empty if none did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl Record for NodeRecord {
    const PREFIX: &'static str = "node#";

    fn id(&self) -> String {
        self.instance.to_string()
    }
}

/// What was signed for a machine last. Times are of the authority's clock, as in the certificates themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    /// SHA-256 of the public key, in hexadecimal.
    pub key: String,
    /// That of the key before: its holder may never have received the newer certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_key: Option<String>,
    /// When the first certificate of this enrolment was signed: older ones are of a holder that is trusted no more.
    pub since: Timestamp,
    /// When the last one was signed.
    pub issued_at: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// SHA-256 of the authorities that its holder was told to trust, in hexadecimal, the one that signed first.
    pub anchors: Vec<String>,
}

impl NodeRecord {
    /// Whether the key with this fingerprint was signed for the machine and not replaced since by more than one other.
    #[must_use]
    pub fn holds(&self, key: &str) -> bool {
        match &self.certified {
            Some(certified) => certified.key == key || certified.former_key.as_deref() == Some(key),
            None => self.enrolled_key.as_deref() == Some(key),
        }
    }

    /// Notes that `key` was signed: `signed` says how.
    pub fn certify(&mut self, key: &str, signed: Signed) {
        let (present, former_key, since) = match self.certified.take() {
            None => {
                let former = self.enrolled_key.clone().filter(|enrolled| enrolled != key);
                (key.to_owned(), former, signed.issued_at)
            }
            Some(old) if old.key == key || old.former_key.as_deref() == Some(key) => {
                (old.key, old.former_key, old.since)
            }
            Some(old) => (key.to_owned(), Some(old.key), old.since),
        };
        self.certified = Some(Certified {
            key: present,
            former_key,
            since,
            issued_at: signed.issued_at,
            not_after: signed.not_after,
            anchors: signed.anchors,
        });
    }

    /// A machine that proves itself anew is another one for us: nothing that was signed for it before counts.
    pub fn enrol(&mut self, key: &str, at: Timestamp) {
        self.enrolled_key = Some(key.to_owned());
        self.enrolled_at = Some(at);
        self.secret_hash = None;
        self.secret_expires_at = None;
        self.certified = None;
    }
}

/// How a certificate was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// When.
    pub issued_at: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// See [`Certified::anchors`].
    pub anchors: Vec<String>,
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
    /// What it costs (positive) or saves (negative), in USD per hour.
    pub cost_change_per_hour: f64,
    /// Operations that came of it.
    pub operations: Vec<OperationId>,
    /// Sources with the age of what they had said, in seconds; `None`: nothing yet.
    pub sources: Vec<(String, Option<f64>)>,
    /// The plan, with its rules, reasons and blockers. The last, as it is the longest: logs show the first fields.
    pub plan: Plan,
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

/// A person has lifted the policy's brakes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrakesLifted {
    /// Until when.
    pub until: Timestamp,
    /// Who did.
    pub by: String,
    /// When.
    pub since: Timestamp,
}

impl Record for BrakesLifted {
    const PREFIX: &'static str = "setting#brakes";

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

/// Key of the record with this number in the audit's chain of a coordinator. Numbers sort as their texts do.
#[must_use]
pub fn audit_key(coordinator: &str, sequence: u64) -> String {
    format!("{}{coordinator}#{sequence:020}", Entry::PREFIX)
}

impl Record for Entry {
    const PREFIX: &'static str = "audit#";

    fn id(&self) -> String {
        format!("{}#{:020}", self.coordinator, self.sequence)
    }
}

impl Record for Head {
    const PREFIX: &'static str = "audit-head#";

    fn id(&self) -> String {
        self.coordinator.clone()
    }
}

/// A certificate of a person, as it was handed out or first seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRecord {
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Who it is.
    pub name: Segment,
    /// What it may do.
    pub role: Role,
    /// When it was handed out.
    pub issued_at: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// Who handed it out.
    pub issued_by: String,
    /// That it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revoked>,
}

impl Record for IdentityRecord {
    const PREFIX: &'static str = "identity#";

    fn id(&self) -> String {
        self.serial.clone()
    }
}

/// A refusal of certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Since when.
    pub at: Timestamp,
    /// Who said so.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Every certificate of a person that was handed out until then is refused, also those that nobody here knows of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedPerson {
    /// Who.
    pub name: Segment,
    /// That, and until when.
    pub revoked: Revoked,
}

impl Record for RevokedPerson {
    const PREFIX: &'static str = "revoked-person#";

    fn id(&self) -> String {
        self.name.to_string()
    }
}
