//! Times of the executor, with their defaults.

use std::time::Duration;

/// Times of the executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Open operations are looked at so often.
    pub period: Duration,
    /// Records, nodes and instances are compared so often.
    pub reconcile: Duration,
    /// A launched machine that is not a Ready node by then is terminated.
    pub ready: Duration,
    /// A drain whose agent is silent for so long goes on through the API.
    pub agent_silent: Duration,
    /// An instance with our tag that nobody knows is terminated after this.
    pub orphan_grace: Duration,
    /// Life of a launch secret.
    pub secret_life: Duration,
    /// The kubelet has so long to stop; the machine is terminated anyhow then.
    pub stop: Duration,
    /// Volumes have so long to be detached from a node; its machine is terminated anyhow then.
    pub detach: Duration,
    /// Before a drain pods are handed over for so long at most; `None`: not at all.
    pub hand_over: Option<Duration>,
    /// A machine whose agent is silent and whose kubelet is not Ready for so long is replaced.
    pub sick: Duration,
    /// A launch that was refused waits so long for the plan of its next attempt.
    pub replan: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(1),
            reconcile: Duration::from_secs(30),
            ready: Duration::from_secs(300),
            agent_silent: Duration::from_secs(60),
            orphan_grace: Duration::from_secs(600),
            secret_life: Duration::from_secs(900),
            stop: Duration::from_secs(20),
            detach: Duration::from_secs(120),
            hand_over: None,
            sick: Duration::from_secs(300),
            replan: Duration::from_secs(60),
        }
    }
}
