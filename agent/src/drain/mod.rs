//! Empties the node: on command, or by itself when EC2 takes the machine.
//!
//! ```text
//!   Order ─▶ cordoning ─▶ evicting ─▶ drained
//!               │            │ deadline, or given up
//!               │            ├─▶ aborting ─▶ aborted      (uncordoned, if the cordon was ours)
//!               └─▶ failed   └─▶ forcing  ─▶ drained      (deleted with what is left of their grace)
//! ```
//! Every stage is on disk before its first effect, so that an agent that is killed goes on where it was, towards the same
//! deadline. There is one drain at a time; a further order joins it.
//!
//! - [`state`]: what is on disk
//! - [`mod@engine`]: the loop that carries a drain out
//! - `start`: which calls are due
//! - `attempt`: the eviction of one pod
//! - `apply`: what each answer means
//! - [`terms`]: the terms of a drain that nobody commands

mod apply;
mod attempt;
pub mod engine;
mod start;
pub mod state;
pub mod terms;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smartscale_proto::{time::SharedClock, v1};
use tokio::sync::{mpsc, watch};

pub use engine::Engine;
pub use state::{DrainState, Stage};
pub use terms::{LocalStorage, Terms, TermsKeeper};

use crate::{kubelet::KubeletApi, outbox::Outbox, state::StateFolder};

/// What happens at the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// Uncordon and leave the remaining pods alone.
    Abort,
    /// Delete the remaining pods with what is left of their grace.
    Force,
}

impl From<v1::OnTimeout> for OnTimeout {
    fn from(wire: v1::OnTimeout) -> Self {
        match wire {
            v1::OnTimeout::Force => Self::Force,
            v1::OnTimeout::Abort | v1::OnTimeout::Unspecified => Self::Abort,
        }
    }
}

/// An order to drain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The operation it belongs to; the same order again is the same drain.
    pub operation: String,
    /// The node.
    pub node: String,
    /// Time for the whole drain from now.
    pub timeout: Duration,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// Why, for people.
    pub reason: String,
    /// When the machine is taken, if it is.
    pub taken_at: Option<Timestamp>,
    /// What happens to pods that lose data with the node.
    pub local_storage: LocalStorage,
}

/// What the engine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Drain(Order),
    Abort(String),
}

/// Delays and bounds of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How often the node's pods are listed while they leave.
    pub poll: Duration,
    /// Delay after an eviction that a disruption budget refused.
    pub budget_retry: Duration,
    /// Delay after a refusal that time alone hardly mends (two budgets, 403).
    pub slow_retry: Duration,
    /// Time for one call of the API.
    pub call_time: Duration,
    /// Longest grace that a pod is given when it is deleted at the deadline.
    pub force_grace: Duration,
    /// Time that is kept before the machine is taken, when every pod has ended: for stopping the kubelet, and a margin.
    pub stop_reserve: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            budget_retry: Duration::from_secs(5),
            slow_retry: Duration::from_secs(30),
            call_time: Duration::from_secs(10),
            force_grace: Duration::from_secs(30),
            stop_reserve: Duration::from_secs(5),
        }
    }
}

/// Gives orders to the [`Engine`] and sees how they stand.
#[derive(Clone)]
pub struct Drainer {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<Option<Arc<DrainState>>>,
}

impl Drainer {
    /// Orders a drain. Nothing happens when the engine is gone, which only is so at the agent's end.
    pub async fn order(&self, order: Order) {
        let _ = self.commands.send(Command::Drain(order)).await;
    }

    /// Gives the drain of `operation` up.
    pub async fn abort(&self, operation: String) {
        let _ = self.commands.send(Command::Abort(operation)).await;
    }

    /// The latest drain, finished or not.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Option<Arc<DrainState>>> {
        self.state.clone()
    }

    /// The operation of the drain under way.
    #[must_use]
    pub fn draining(&self) -> Option<String> {
        let state = self.state.borrow();
        let drain = state.as_ref().filter(|drain| !drain.stage.is_finished())?;
        drain.operations.first().cloned()
    }
}

/// What a drain works with.
#[derive(Clone)]
pub struct Tools {
    /// The Kubernetes API.
    pub api: Arc<dyn KubeletApi>,
    /// Where the state is kept.
    pub folder: Arc<dyn StateFolder>,
    /// The clock.
    pub clock: SharedClock,
    /// Where reports go.
    pub outbox: Outbox,
    /// The kernel's boot id: tells whether the clock's elapsed time of an earlier run still counts.
    pub boot_id: String,
    /// Delays and bounds.
    pub settings: Settings,
}

/// An engine and the handle to it.
#[must_use]
pub fn engine(tools: Tools) -> (Drainer, Engine) {
    let (commands, orders) = mpsc::channel(32);
    let engine = Engine::new(tools, orders);
    (
        Drainer {
            commands,
            state: engine.watch(),
        },
        engine,
    )
}
