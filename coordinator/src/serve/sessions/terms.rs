//! The policy's terms for drains that nobody commands, as agents keep them: said at the beginning of each session, and again
//! when the policy changes.

use smartscale_planner::policy::OnTimeout;
use smartscale_proto::{time::duration_to_wire, v1};
use tokio::sync::watch;

use crate::decide::PolicyInForce;

/// The terms for one session.
pub(in crate::serve) struct Terms {
    policy: Option<watch::Receiver<PolicyInForce>>,
    said: Option<v1::DrainPolicy>,
}

impl Terms {
    pub(super) fn new(policy: Option<watch::Receiver<PolicyInForce>>) -> Self {
        Self { policy, said: None }
    }

    /// The terms at this moment; `None` on a coordinator that follows no policy.
    pub(in crate::serve) fn present(&mut self) -> Option<v1::DrainPolicy> {
        let policy = self.policy.as_mut()?;
        self.said = Some(terms(&policy.borrow_and_update()));
        self.said
    }

    /// Waits for terms that are others than those that were said.
    pub(in crate::serve) async fn changed(&mut self) -> v1::DrainPolicy {
        loop {
            let Some(policy) = self.policy.as_mut() else {
                return std::future::pending().await;
            };
            if policy.changed().await.is_err() {
                return std::future::pending().await;
            }
            let terms = terms(&policy.borrow_and_update());
            if self.said != Some(terms) {
                self.said = Some(terms);
                return terms;
            }
        }
    }
}

fn terms(in_force: &PolicyInForce) -> v1::DrainPolicy {
    let policy = &in_force.policy;
    let local_storage = if policy.scale_down.strictness.local_storage_blocks {
        v1::LocalStorage::Keep
    } else {
        v1::LocalStorage::Evict
    };
    let on_timeout = match policy.drain.on_timeout {
        OnTimeout::Abort => v1::OnTimeout::Abort,
        OnTimeout::Force => v1::OnTimeout::Force,
    };
    v1::DrainPolicy {
        timeout: Some(duration_to_wire(policy.drain.timeout)),
        on_timeout: on_timeout.into(),
        // What EC2 takes in two minutes is no matter of policy: the agent's own configuration says it.
        spot_timeout: None,
        spot_on_timeout: v1::OnTimeout::Unspecified.into(),
        spot_reserve: None,
        local_storage: local_storage.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use std::{sync::Arc, time::Duration};

    use smartscale_planner::fixtures;

    use super::*;

    fn in_force(policy: smartscale_planner::Policy) -> PolicyInForce {
        PolicyInForce {
            policy: Arc::new(policy),
            text: Arc::from(""),
            warnings: Arc::from([]),
        }
    }

    #[tokio::test]
    async fn terms_are_said_again_when_they_change_and_only_then() {
        let mut policy = fixtures::policy("");
        let sender = watch::Sender::new(in_force(policy.clone()));
        let mut terms = Terms::new(Some(sender.subscribe()));
        let first = terms.present().unwrap();
        assert_eq!(first.local_storage(), v1::LocalStorage::Keep);
        policy.limits.max_nodes += 1;
        sender.send_replace(in_force(policy.clone()));
        policy.drain.timeout = Duration::from_secs(77);
        let later = async {
            tokio::task::yield_now().await;
            sender.send_replace(in_force(policy));
        };
        let (second, ()) = tokio::join!(terms.changed(), later);
        assert_eq!(second.timeout.unwrap().seconds, 77);
    }
}
