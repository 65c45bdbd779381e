//! The policy that is in force, and where it comes from.
//!
//! ```text
//!  file, at SIGHUP ─┐
//!  ConfigMap        ┴─ offers ─▶ Keeper: sound, and of this cluster? ── yes ─▶ in force ─▶ decisions, sessions, market
//!                                  └── no: told; the last good one goes on
//! ```

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use smartscale_planner::{
    Policy,
    model::ClusterId,
    policy::{PolicyError, Warning},
};
use smartscale_proto::time::SharedClock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    decide::PolicyInForce,
    tell::{Event, Happening, Severity, SharedTell},
};

/// The key of a ConfigMap that has the policy.
pub const CONFIG_MAP_KEY: &str = "policy.toml";

/// A ConfigMap: `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct ConfigMapName {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

/// A text that names no ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the namespace and name of a ConfigMap, for example kube-system/smartscale-policy")]
pub struct BadConfigMapName(String);

impl FromStr for ConfigMapName {
    type Err = BadConfigMapName;

    fn from_str(text: &str) -> Result<Self, BadConfigMapName> {
        // https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let sound = |(namespace, name): &(&str, &str)| {
            is_label(namespace) && namespace.len() <= 63 && name.len() <= 253 && name.split('.').all(is_label)
        };
        let (namespace, name) = text
            .split_once('/')
            .filter(sound)
            .ok_or_else(|| BadConfigMapName(text.chars().take(80).collect()))?;
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for ConfigMapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl From<ConfigMapName> for String {
    fn from(name: ConfigMapName) -> Self {
        name.to_string()
    }
}

/// Where the policy comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file on this machine.
    File(PathBuf),
    /// A ConfigMap of the cluster.
    ConfigMap(ConfigMapName),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::ConfigMap(name) => write!(f, "ConfigMap {name}"),
        }
    }
}

/// What the origin has at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The policy's TOML, or why there is none.
    pub text: Result<String, String>,
    /// UID of the ConfigMap.
    pub uid: Option<String>,
}

/// A policy that holds, and what of it is probably not meant.
pub type Judged = (PolicyInForce, Vec<Warning>);

/// Why an offered policy does not come into force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none.
    #[error("{0}")]
    Missing(String),
    /// It does not hold.
    #[error("{}: {}", .0.path, .0.message)]
    Unsound(PolicyError),
    /// It is of another cluster.
    #[error(
        "cluster.id: it is the policy of cluster {offered}, and this is {ours}; a coordinator's cluster never changes"
    )]
    OtherCluster {
        /// Its cluster.
        offered: ClusterId,
        /// The coordinator's.
        ours: ClusterId,
    },
}

/// Where a policy lies.
#[async_trait]
pub trait Policies: Send + Sync {
    /// What is there now.
    ///
    /// # Errors
    /// A sentence: it could not be looked at.
    async fn look(&self) -> Result<Offer, String>;
}

/// A file with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile(pub PathBuf);

#[async_trait]
impl Policies for PolicyFile {
    async fn look(&self) -> Result<Offer, String> {
        let text = std::fs::read_to_string(&self.0);
        Ok(Offer {
            text: text.map_err(|error| format!("it cannot be read: {error}")),
            uid: None,
        })
    }
}

impl Offer {
    /// Whether it holds. `ours`: the cluster that it has to be of; at the start, any.
    ///
    /// # Errors
    /// [`Refusal`] says what is wrong with it.
    pub fn judge(&self, ours: Option<&ClusterId>) -> Result<Judged, Refusal> {
        let text = self
            .text
            .as_deref()
            .map_err(|why| Refusal::Missing(why.to_owned()))?;
        let (policy, warnings) = Policy::from_toml(text).map_err(Refusal::Unsound)?;
        if let Some(ours) = ours.filter(|ours| **ours != policy.cluster_id) {
            return Err(Refusal::OtherCluster {
                offered: policy.cluster_id,
                ours: ours.clone(),
            });
        }
        let in_force = PolicyInForce {
            policy: Arc::new(policy),
            text: text.into(),
            warnings: Arc::default(),
        };
        Ok((in_force, warnings))
    }
}

/// What is told of an offer: that it is in force, or why not and what goes on `meanwhile`.
#[must_use]
pub fn happening(
    origin: &Origin,
    uid: Option<String>,
    refused: Option<(&Refusal, &str)>,
    now: Timestamp,
) -> Happening {
    let (severity, state, message) = match refused {
        None => (
            Severity::Info,
            "in_force",
            format!("the policy of {origin} is in force"),
        ),
        Some((refusal, meanwhile)) => (
            Severity::Warning,
            "refused",
            format!("the policy of {origin} is refused, {meanwhile}: {refusal}"),
        ),
    };
    Happening {
        time: now,
        severity,
        message,
        event: Event::Policy {
            origin: origin.to_string(),
            state: state.to_owned(),
            config_map: match origin {
                Origin::File(_) => None,
                Origin::ConfigMap(name) => Some(name.clone()),
            },
            uid,
        },
    }
}

/// Takes offers over, or refuses them.
pub struct Keeper {
    /// Where they come from.
    pub origin: Origin,
    /// What it has; `None` until it was looked at.
    pub offers: watch::Receiver<Option<Offer>>,
    /// What is in force.
    pub publish: watch::Sender<PolicyInForce>,
    /// Who is told.
    pub tell: SharedTell,
    /// The clock.
    pub clock: SharedClock,
}

impl Keeper {
    /// Judges each offer until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut refused = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.offers.changed() => if changed.is_err() {
                    // Nothing will be offered any more; what is in force goes on.
                    return stop.cancelled().await;
                }
            }
            let Some(offer) = self.offers.borrow_and_update().clone() else {
                continue;
            };
            refused = self.take(offer, refused.as_ref());
        }
    }

    /// Takes an offer over; why not, if so. `before`: the same of the offer before.
    fn take(&self, offer: Offer, before: Option<&Refusal>) -> Option<Refusal> {
        let ours = self.publish.borrow().policy.cluster_id.clone();
        let refusal = match offer.judge(Some(&ours)) {
            Ok((policy, warnings)) => {
                for warning in warnings {
                    tracing::warn!(%warning, "policy");
                }
                let same = policy.text == self.publish.borrow().text;
                if same && before.is_none() {
                    return None;
                }
                if !same {
                    self.publish.send_replace(policy);
                }
                None
            }
            Err(refusal) if before == Some(&refusal) => return Some(refusal),
            Err(refusal) => Some(refusal),
        };
        let told = refusal
            .as_ref()
            .map(|refusal| (refusal, "the last good one goes on"));
        self.tell
            .tell(happening(&self.origin, offer.uid, told, self.clock.now()));
        refusal
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
