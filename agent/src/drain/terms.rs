//! The terms of a drain that nobody commands: from the configuration, until a coordinator has said better.
//!
//! What a coordinator says comes with every session and is kept on disk, so that a spot interruption is met on the cluster's
//! terms while no coordinator is in reach. A term that makes no sense leaves the one that stands.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use smartscale_proto::{time::duration_from_wire, v1};
use tokio::sync::watch;

use super::OnTimeout;
use crate::state::{StateFolder, read_json, write_json};

/// The file of the coordinator's terms.
const FILE: &str = "drain-policy.json";
/// Longest drain that anybody may ask for.
pub const LONGEST: Duration = Duration::from_secs(7 * 86_400);
/// From EC2's warning to the end of the machine.
pub const SPOT_WARNING: Duration = Duration::from_secs(120);

/// What a drain does with pods whose data lies on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalStorage {
    /// They leave like all others.
    #[default]
    Evict,
    /// A drain that can be given up is given up for their sake; one that ends by force evicts them all the same, since the
    /// data goes with the machine in any case.
    Keep,
}

impl From<v1::LocalStorage> for LocalStorage {
    fn from(wire: v1::LocalStorage) -> Self {
        match wire {
            v1::LocalStorage::Keep => Self::Keep,
            v1::LocalStorage::Evict | v1::LocalStorage::Unspecified => Self::Evict,
        }
    }
}

/// The terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Time for a whole drain.
    pub timeout: Duration,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// Most time for the evictions of a spot interruption.
    pub spot_deadline: Duration,
    /// What happens then.
    pub spot_on_timeout: OnTimeout,
    /// Time that is kept before the machine is taken: for forced ends, and for stopping the kubelet.
    pub spot_reserve: Duration,
    /// What happens to pods that lose data with the node.
    pub local_storage: LocalStorage,
}

impl Terms {
    /// These terms, but for what a coordinator says.
    #[must_use]
    fn amended(self, wire: &v1::DrainPolicy) -> Self {
        let time = |wire: &Option<_>, most: Duration| {
            let read = duration_from_wire(wire.as_ref()?).ok()?;
            (Duration::from_secs(1)..=most).contains(&read).then_some(read)
        };
        let on_timeout = |wire: v1::OnTimeout, present| match wire {
            v1::OnTimeout::Unspecified => present,
            said => said.into(),
        };
        Self {
            timeout: time(&wire.timeout, LONGEST).unwrap_or(self.timeout),
            on_timeout: on_timeout(wire.on_timeout(), self.on_timeout),
            spot_deadline: time(&wire.spot_timeout, SPOT_WARNING).unwrap_or(self.spot_deadline),
            spot_on_timeout: on_timeout(wire.spot_on_timeout(), self.spot_on_timeout),
            spot_reserve: time(&wire.spot_reserve, SPOT_WARNING).unwrap_or(self.spot_reserve),
            local_storage: match wire.local_storage() {
                v1::LocalStorage::Unspecified => self.local_storage,
                said => said.into(),
            },
        }
    }
}

/// The terms that are kept from a coordinator, or else `configured`.
#[must_use]
pub fn kept(folder: &dyn StateFolder, configured: Terms) -> Terms {
    read_json(folder, FILE).unwrap_or(configured)
}

/// Keeps the terms that stand. Clones are the same.
#[derive(Clone)]
pub struct TermsKeeper {
    configured: Terms,
    folder: Arc<dyn StateFolder>,
    present: watch::Sender<Terms>,
}

impl TermsKeeper {
    /// Begins with what an earlier run kept, or with what is configured.
    #[must_use]
    pub fn new(folder: Arc<dyn StateFolder>, configured: Terms) -> Self {
        let present = watch::Sender::new(kept(&*folder, configured));
        Self {
            configured,
            folder,
            present,
        }
    }

    /// The terms at this moment.
    #[must_use]
    pub fn present(&self) -> Terms {
        *self.present.borrow()
    }

    /// Takes a coordinator's terms over; what it does not say is as configured.
    pub fn take(&self, wire: &v1::DrainPolicy) {
        let terms = self.configured.amended(wire);
        if !self
            .present
            .send_if_modified(|present| std::mem::replace(present, terms) != terms)
            && read_json(&*self.folder, FILE) == Some(terms)
        {
            return;
        }
        tracing::info!(?terms, "the coordinator says how to drain without it");
        if let Err(error) = write_json(&*self.folder, FILE, &terms) {
            tracing::error!(%error, "the terms of a drain cannot be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use smartscale_proto::time::duration_to_wire;

    use super::*;
    use crate::embedded::MemoryFolder;

    fn configured() -> Terms {
        Terms {
            timeout: Duration::from_secs(300),
            on_timeout: OnTimeout::Abort,
            spot_deadline: Duration::from_secs(90),
            spot_on_timeout: OnTimeout::Force,
            spot_reserve: Duration::from_secs(25),
            local_storage: LocalStorage::Evict,
        }
    }

    #[test]
    fn a_coordinators_terms_survive_the_agent_and_stand_while_it_is_away() {
        let folder = Arc::new(MemoryFolder::default());
        let keeper = TermsKeeper::new(Arc::<MemoryFolder>::clone(&folder), configured());
        keeper.take(&v1::DrainPolicy {
            timeout: Some(duration_to_wire(Duration::from_secs(600))),
            spot_timeout: Some(duration_to_wire(Duration::from_secs(60))),
            local_storage: v1::LocalStorage::Keep.into(),
            ..Default::default()
        });
        let expected = Terms {
            timeout: Duration::from_secs(600),
            spot_deadline: Duration::from_secs(60),
            local_storage: LocalStorage::Keep,
            ..configured()
        };
        assert_eq!(keeper.present(), expected);
        assert_eq!(TermsKeeper::new(folder, configured()).present(), expected);
    }

    #[test]
    fn terms_that_make_no_sense_leave_those_that_stand() {
        let keeper = TermsKeeper::new(Arc::new(MemoryFolder::default()), configured());
        keeper.take(&v1::DrainPolicy {
            timeout: Some(duration_to_wire(Duration::from_secs(40 * 86_400))),
            spot_timeout: Some(duration_to_wire(Duration::from_secs(900))),
            spot_reserve: Some(duration_to_wire(Duration::ZERO)),
            on_timeout: 77,
            ..Default::default()
        });
        assert_eq!(keeper.present(), configured());
    }
}
