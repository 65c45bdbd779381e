//! One look at the fleet for all that ask within a moment: fifty removals that wait for their machines' ends are one call,
//! and not fifty, of a cloud that counts them.

use std::{sync::Arc, time::Duration};

use super::{executor::Executor, fleet::Instance};
use crate::ids::InstanceId;

/// What the fleet says there is; `None` where it does not answer.
type Listed = Option<Arc<[Instance]>>;

/// What it said last, and when by the clock.
#[derive(Debug, Default)]
pub(super) struct Listing(tokio::sync::Mutex<Option<(Duration, Listed)>>);

impl Executor {
    /// The instances as they were at most one period of the executor ago.
    async fn listed(&self) -> Listed {
        // Held during the call: who asks meanwhile has its answer.
        let mut latest = self.listing.0.lock().await;
        let age = |at: Duration| self.parts.clock.elapsed().saturating_sub(at);
        if let Some((at, instances)) = &*latest
            && age(*at) < self.parts.settings.period
        {
            return instances.clone();
        }
        let instances = match self.parts.fleet.list().await {
            Ok(instances) => Some(instances.into()),
            Err(error) => {
                tracing::warn!(%error, "the fleet could not be asked");
                None
            }
        };
        *latest = Some((self.parts.clock.elapsed(), instances.clone()));
        instances
    }

    /// Whether the cloud says that a machine that was there is on its way out or gone. What it said a moment ago is good
    /// enough: no machine comes back. One that the list lacks is asked for by itself.
    pub(super) async fn machine_gone(&self, instance: &InstanceId) -> bool {
        let Some(listed) = self.listed().await else {
            return false;
        };
        match listed.iter().find(|known| known.id == *instance) {
            Some(known) => !known.state.is_alive(),
            None => self.is_gone(instance).await,
        }
    }

    /// The same of a machine that the list lacks.
    pub(super) async fn is_gone(&self, instance: &InstanceId) -> bool {
        match self.parts.fleet.look(instance).await {
            Ok(known) => known.is_none_or(|known| !known.state.is_alive()),
            Err(error) => {
                tracing::warn!(%instance, %error, "the fleet could not be asked");
                false
            }
        }
    }
}
