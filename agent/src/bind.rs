//! Proves whose Node it is: a nonce that came over the session is written to the Node with the kubelet's own credential.
//!
//! ```text
//!   coordinator ─session─▶ Binder ─▶ Binding ─kubelet's credential─▶ annotation smartscale.io/nonce ─▶ coordinator: taint lifted
//! ```
//! The coordinator asks again as long as the Node does not carry it, so that nothing is kept on disk.

use std::{sync::Arc, time::Duration};

use rand::{SeedableRng as _, rngs::SmallRng};
use smartscale_proto::{backoff::Backoff, time::SharedClock, v1};
use tokio::sync::mpsc;

use crate::{
    kubelet::{KubeletApi, Refusal},
    outbox::Outbox,
};

/// Attempts at writing; then the coordinator asks again.
const ATTEMPTS: u32 = 5;
/// Delays between them.
const DELAYS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Digits of a nonce.
const NONCE: usize = 64;
/// Characters of a UID, at most.
const LONGEST_UID: usize = 128;

struct Order {
    node: String,
    uid: String,
    nonce: String,
}

/// Gives orders to the [`Binding`].
#[derive(Clone)]
pub struct Binder(mpsc::Sender<Order>);

impl Binder {
    /// Binds `node`. An order that comes while another is carried out is left to the next asking.
    pub fn bind(&self, node: &str, command: v1::BindNodeCommand) {
        let v1::BindNodeCommand { node_uid: uid, nonce } = command;
        let sound =
            !uid.is_empty() && uid.len() <= LONGEST_UID && uid.bytes().all(|byte| byte.is_ascii_graphic());
        if !sound || nonce.len() != NONCE || !nonce.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            tracing::error!(node, "an order to bind the node makes no sense");
            return;
        }
        let node = node.to_owned();
        let _ = self.0.try_send(Order { node, uid, nonce });
    }
}

/// Writes nonces when it is ordered to.
pub struct Binding {
    kubelet: Arc<dyn KubeletApi>,
    outbox: Outbox,
    clock: SharedClock,
    orders: mpsc::Receiver<Order>,
    random: SmallRng,
}

/// The binding of this node and the handle to it.
#[must_use]
pub fn binding(kubelet: Arc<dyn KubeletApi>, outbox: Outbox, clock: SharedClock) -> (Binder, Binding) {
    let (sender, orders) = mpsc::channel(1);
    let binding = Binding {
        kubelet,
        outbox,
        clock,
        orders,
        random: SmallRng::seed_from_u64(rand::random()),
    };
    (Binder(sender), binding)
}

impl Binding {
    /// The same with delays that follow from `seed`, for runs that have to be repeated exactly.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.random = SmallRng::seed_from_u64(seed);
        self
    }

    /// Carries orders out until nobody can give any.
    pub async fn run(mut self) {
        while let Some(order) = self.orders.recv().await {
            match self.prove(&order).await {
                Ok(()) => {
                    tracing::info!(
                        node = order.node,
                        uid = order.uid,
                        "the node is bound to this machine"
                    );
                    self.outbox
                        .result(&order.uid, "bind_node", v1::Outcome::Done, String::new());
                }
                Err(refusal) => {
                    tracing::warn!(node = order.node, uid = order.uid, %refusal, "the node could not be bound to this machine");
                }
            }
        }
    }

    async fn prove(&mut self, order: &Order) -> Result<(), Refusal> {
        let backoff = Backoff::new(DELAYS.0, DELAYS.1).unwrap_or(Backoff::DEFAULT);
        let mut attempt = 1;
        loop {
            match self.kubelet.prove(&order.node, &order.uid, &order.nonce).await {
                Ok(()) => return Ok(()),
                // Another Node by now, or another machine's: the coordinator sees which.
                Err(refusal @ (Refusal::OtherUid | Refusal::Refused(_))) => return Err(refusal),
                Err(refusal) if attempt >= ATTEMPTS => return Err(refusal),
                Err(_) => {
                    self.clock.sleep(backoff.delay(attempt, &mut self.random)).await;
                    attempt += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use smartscale_proto::time::SystemClock;

    use super::*;
    use crate::embedded::{Call, EmbeddedKubelet, MemoryFolder, Verb};

    /// Carries out what was ordered, and no more.
    async fn bound(kubelet: &Arc<EmbeddedKubelet>, uid: &str, nonce: &str) -> Vec<Call> {
        let clock: SharedClock = Arc::new(SystemClock);
        let outbox = Outbox::new(Arc::new(MemoryFolder::default()), Arc::clone(&clock));
        let (binder, binding) = binding(Arc::<EmbeddedKubelet>::clone(kubelet), outbox, clock);
        let (node_uid, nonce) = (uid.to_owned(), nonce.to_owned());
        binder.bind("n", v1::BindNodeCommand { node_uid, nonce });
        drop(binder);
        binding.run().await;
        kubelet.calls()
    }

    fn kubelet() -> Arc<EmbeddedKubelet> {
        Arc::new(EmbeddedKubelet::new(Arc::new(SystemClock)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_nonce_is_written_also_when_the_api_server_is_away_for_a_moment() {
        let (kubelet, nonce) = (kubelet(), "ab".repeat(32));
        kubelet.fail(Verb::Prove, None, Refusal::Unavailable("away".to_owned()), 2);
        let calls = bound(&kubelet, "u1", &nonce).await;
        assert_eq!(calls, [Call::Prove("u1".to_owned(), nonce)]);
    }

    #[tokio::test(start_paused = true)]
    async fn another_node_by_this_name_is_left_alone() {
        let kubelet = kubelet();
        kubelet.fail(Verb::Prove, None, Refusal::OtherUid, 1);
        assert_eq!(bound(&kubelet, "u1", &"ab".repeat(32)).await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_nonce_is_not_written() {
        let good = "ab".repeat(32);
        for (uid, nonce) in [
            ("", good.as_str()),
            ("u 1", &good),
            ("u1", ""),
            ("u1", &good[1..]),
            ("u1", &"xy".repeat(32)),
        ] {
            assert_eq!(bound(&kubelet(), uid, nonce).await, [], "{uid:?} {nonce:?}");
        }
    }
}
