//! The machine's own end: a shutdown or a reboot waits until the node is drained.
//!
//! ```text
//!   delay lock ─▶ "prepare for shutdown" ─▶ drain (forced at the end) ─▶ lock dropped ─▶ systemd stops K3s, then us
//!                                     └─ called off ─▶ the drain is given up
//!   next boot ─▶ the cordon of that drain is taken away
//! ```
//! The lock is logind's ([`logind`]); it holds a shutdown up for `InhibitDelayMaxSec` at most, which the package raises. K3s
//! and the network run for as long as the lock is held, because systemd stops no unit before. A kubelet with
//! `shutdownGracePeriod` set hears the same word at the same moment and ends all pods at once, past their budgets; K3s leaves
//! that off, and a node that drains with this agent has to.
//!
//! - [`bus`]: as much of D-Bus as that needs

pub mod bus;
pub mod logind;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use smartscale_proto::{
    backoff::Backoff,
    time::{SharedClock, within},
};
use tokio::sync::watch;

use crate::{
    drain::{Drainer, OnTimeout, Order, Stage, TermsKeeper},
    error::Failure,
    retire::retired_by,
    state::StateFolder,
};

/// Kept of the longest delay: for the last answers, and so that the lock is given back before it is taken.
const MARGIN: Duration = Duration::from_secs(5);
/// A drain has so much time at least.
const LEAST: Duration = Duration::from_secs(5);
/// An API server that does not even let the node be cordoned for so long is on its way down itself.
const UNANSWERED: Duration = Duration::from_secs(30);
/// Delays between attempts at a lock.
const DELAYS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// What holds a shutdown up. Dropping it lets the shutdown go on.
pub struct Delay {
    /// How long at most.
    pub most: Duration,
    /// Says when the shutdown is called off. Its other end must live as long as it does.
    pub called_off: tokio::sync::oneshot::Receiver<()>,
    /// The lock itself.
    pub lock: Box<dyn Send>,
}

/// Knows when the machine shuts down, and can hold that up.
#[async_trait]
pub trait Shutdowns: Send + Sync {
    /// Holds a lock and waits, usually for ever, for a shutdown to be announced.
    ///
    /// # Errors
    /// [`Failure`] when no lock can be had, or it is lost; asked again later.
    async fn announced(&self) -> Result<Delay, Failure>;
}

/// A machine whose shutdown nobody announces.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoShutdowns;

#[async_trait]
impl Shutdowns for NoShutdowns {
    async fn announced(&self) -> Result<Delay, Failure> {
        std::future::pending().await
    }
}

/// Drains the node when the machine shuts down.
pub struct Farewell {
    /// Who announces it.
    pub source: Arc<dyn Shutdowns>,
    /// Who drains.
    pub drainer: Drainer,
    /// The terms of that drain.
    pub terms: TermsKeeper,
    /// Longest grace of a forced end.
    pub force_grace: Duration,
    /// Says whether this node is retired.
    pub folder: Arc<dyn StateFolder>,
    /// The clock.
    pub clock: SharedClock,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The node's name, once it is known.
    pub node: watch::Receiver<Option<String>>,
}

/// What begins the operation of a shutdown's drain; the boot that ends follows.
const OPERATION: &str = "shutdown/";

impl Farewell {
    /// Waits for shutdowns for ever.
    pub async fn run(self) {
        self.welcome_back().await;
        let backoff = Backoff::new(DELAYS.0, DELAYS.1).unwrap_or(Backoff::DEFAULT);
        let mut random = <rand::rngs::SmallRng as rand::SeedableRng>::seed_from_u64(rand::random());
        let (mut failures, mut said) = (0_u32, String::new());
        loop {
            match self.source.announced().await {
                Ok(delay) => {
                    failures = 0;
                    said.clear();
                    self.leave(delay).await;
                }
                Err(error) => {
                    let text = error.to_string();
                    if text != said {
                        tracing::warn!(
                            error = text,
                            "no lock on the machine's shutdown: it will not wait for a drain"
                        );
                    }
                    said = text;
                    failures = failures.saturating_add(1);
                }
            }
            self.clock
                .sleep(backoff.delay(failures.max(1), &mut random))
                .await;
        }
    }

    /// After a reboot the node takes pods again, unless somebody else wants it empty too.
    async fn welcome_back(&self) {
        let ended: Vec<String> = {
            let state = self.drainer.state();
            let state = state.borrow();
            let drain = state.iter().filter(|drain| drain.stage != Stage::Aborted);
            let operations = drain.flat_map(|drain| drain.operations.iter());
            operations
                .filter(|operation| {
                    operation
                        .strip_prefix(OPERATION)
                        .is_some_and(|boot| boot != self.boot_id)
                })
                .cloned()
                .collect()
        };
        for operation in ended {
            tracing::info!(op = operation, "the machine is back: its node takes pods again");
            self.drainer.abort(operation).await;
        }
    }

    async fn leave(&self, delay: Delay) {
        let Delay {
            most,
            called_off,
            lock,
        } = delay;
        let node = self.node.borrow().clone();
        let Some(node) = node.filter(|_| retired_by(&*self.folder).is_none()) else {
            tracing::info!("the machine shuts down; there is no node to drain");
            return;
        };
        let operation = format!("{OPERATION}{}", self.boot_id);
        let terms = self.terms.present();
        let order = Order {
            operation: operation.clone(),
            node,
            timeout: terms
                .timeout
                .min(most.saturating_sub(self.force_grace + MARGIN))
                .max(LEAST),
            // The pods end with the machine in any case: better told than cut off.
            on_timeout: OnTimeout::Force,
            reason: "the machine shuts down".to_owned(),
            taken_at: None,
            local_storage: terms.local_storage,
        };
        tracing::warn!(timeout = ?order.timeout, ?most, "the machine shuts down: the node is drained first");
        self.drainer.order(order).await;
        let patience = most.saturating_sub(MARGIN).max(LEAST);
        tokio::select! {
            biased;
            _ = called_off => {
                tracing::warn!("the shutdown was called off");
                self.drainer.abort(operation).await;
            }
            _ = within(&*self.clock, patience, self.done(&operation)) => {
                tracing::info!("the machine may shut down");
            }
        }
        drop(lock);
    }

    /// Waits for the drain's end, or for the certainty that none comes.
    async fn done(&self, operation: &str) {
        let mut state = self.drainer.state();
        let ours = |drain: &Option<Arc<crate::drain::DrainState>>, stage: fn(Stage) -> bool| {
            drain.as_ref().is_some_and(|drain| {
                drain.operations.iter().any(|own| own == operation) && stage(drain.stage)
            })
        };
        let begun = state.wait_for(|state| ours(state, |stage| stage != Stage::Cordoning));
        if !matches!(within(&*self.clock, UNANSWERED, begun).await, Some(Ok(_))) {
            tracing::error!("the node cannot be cordoned, so that the shutdown is not held up for it");
            return;
        }
        let _ = state.wait_for(|state| ours(state, Stage::is_finished)).await;
    }
}

#[cfg(test)]
mod tests;
