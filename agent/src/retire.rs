//! The end of a node: the kubelet is stopped and stays stopped.
//!
//! A K3s agent that is started again registers its node anew, uncordoned, which would undo a scale-in. So the order is on
//! disk before it is carried out, and the boot does not start K3s while it stands, whether the agent or the whole machine came
//! back in between.

use std::{sync::Arc, time::Duration};

use rand::{SeedableRng as _, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use smartscale_proto::{backoff::Backoff, time::SharedClock, v1::Outcome};
use tokio::sync::mpsc;

use crate::{
    error::Failure,
    outbox::Outbox,
    state::{StateFolder, read_json, write_json},
    units::Units,
};

const FILE: &str = "retired.json";
/// Attempts at stopping the unit before the coordinator is told that it does not stop.
const ATTEMPTS: u32 = 4;
/// Delays between them.
const DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

#[derive(Serialize, Deserialize)]
struct Retired {
    operation: String,
}

enum Command {
    Stop(String),
    Revoke(String),
}

/// The operation that retired this node, if one did.
#[must_use]
pub fn retired_by(folder: &dyn StateFolder) -> Option<String> {
    read_json::<Retired>(folder, FILE).map(|retired| retired.operation)
}

/// Gives orders to the [`Retirement`].
#[derive(Clone)]
pub struct Retirer(mpsc::Sender<Command>);

impl Retirer {
    /// Stops the kubelet for good.
    pub async fn stop(&self, operation: String) {
        let _ = self.0.send(Command::Stop(operation)).await;
    }

    /// Takes the order of `operation` back; nothing if another one stands, or none.
    pub async fn revoke(&self, operation: String) {
        let _ = self.0.send(Command::Revoke(operation)).await;
    }
}

/// Stops the kubelet when it is ordered to.
pub struct Retirement {
    folder: Arc<dyn StateFolder>,
    units: Arc<dyn Units>,
    outbox: Outbox,
    clock: SharedClock,
    unit: String,
    orders: mpsc::Receiver<Command>,
}

/// The retirement of this node and the handle to it.
#[must_use]
pub fn retirement(
    folder: Arc<dyn StateFolder>,
    units: Arc<dyn Units>,
    outbox: Outbox,
    clock: SharedClock,
    unit: String,
) -> (Retirer, Retirement) {
    let (sender, orders) = mpsc::channel(8);
    (
        Retirer(sender),
        Retirement {
            folder,
            units,
            outbox,
            clock,
            unit,
            orders,
        },
    )
}

impl Retirement {
    /// Carries orders out until nobody can give any.
    pub async fn run(mut self) {
        while let Some(command) = self.orders.recv().await {
            match command {
                Command::Stop(operation) => {
                    let (outcome, error) = match self.stop(&operation).await {
                        Ok(()) => (Outcome::Done, String::new()),
                        Err(failure) => (Outcome::Failed, failure.to_string()),
                    };
                    tracing::info!(op = operation, ?outcome, error, "the kubelet was ordered to stop");
                    self.outbox.result(&operation, "stop_kubelet", outcome, error);
                }
                Command::Revoke(operation) => self.revoke(&operation).await,
            }
        }
    }

    async fn stop(&self, operation: &str) -> Result<(), Failure> {
        write_json(
            &*self.folder,
            FILE,
            &Retired {
                operation: operation.to_owned(),
            },
        )?;
        let backoff = Backoff::new(DELAYS.0, DELAYS.1).unwrap_or(Backoff::DEFAULT);
        let mut random = SmallRng::seed_from_u64(rand::random());
        let mut attempt = 1;
        loop {
            match self.units.stop(&self.unit).await {
                Err(failure) if attempt == ATTEMPTS => return Err(failure),
                Err(failure) => tracing::warn!(unit = self.unit, error = %failure, "the unit does not stop"),
                Ok(()) => return Ok(()),
            }
            self.clock.sleep(backoff.delay(attempt, &mut random)).await;
            attempt += 1;
        }
    }

    async fn revoke(&self, operation: &str) {
        if retired_by(&*self.folder).is_none_or(|standing| standing != operation) {
            return;
        }
        let started = match self.folder.remove(FILE) {
            Ok(()) => self.units.start(&self.unit).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = started {
            tracing::error!(op = operation, %error, "the kubelet could not be started again");
        }
    }
}

#[cfg(test)]
mod tests {
    use smartscale_proto::{time::SystemClock, v1::session_request::Report};

    use super::*;
    use crate::embedded::{EmbeddedUnits, MemoryFolder};

    #[tokio::test]
    async fn a_retired_node_stays_retired_until_its_operation_is_given_up() {
        let folder = Arc::new(MemoryFolder::default());
        let units = Arc::new(EmbeddedUnits::default());
        let clock: SharedClock = Arc::new(SystemClock);
        let outbox = Outbox::new(Arc::<MemoryFolder>::clone(&folder), Arc::clone(&clock));
        let (retirer, retirement) = retirement(
            Arc::<MemoryFolder>::clone(&folder),
            Arc::<EmbeddedUnits>::clone(&units),
            outbox.clone(),
            clock,
            "k3s-agent.service".into(),
        );
        let orders = async {
            retirer.stop("op-1".into()).await;
            retirer.revoke("op-2".into()).await;
            drop(retirer);
        };
        tokio::join!(retirement.run(), orders);
        assert_eq!(retired_by(&*folder).as_deref(), Some("op-1"));
        assert_eq!(units.calls(), ["stop k3s-agent.service"]);
        let report = outbox.next().and_then(|request| request.report);
        assert!(
            matches!(&report, Some(Report::Result(result)) if result.operation_id == "op-1" && result.outcome() == Outcome::Done)
        );
    }
}
