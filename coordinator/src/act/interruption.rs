//! Machines that EC2 takes back: their removal is journaled at the notice, whoever brought it.
//!
//! An agent that saw the notice drains by itself, and is only watched. One that did not is ordered to. One that is silent is
//! not waited for: the drain goes on through the API. What runs on the machine is planned for as if it waited
//! ([`doomed`](Executor::doomed)) from this moment on.

use std::time::Duration;

use jiff::Timestamp;
use smartscale_planner::model::NodeName;
use smartscale_proto::time::age;

use super::{
    begin::planned,
    executor::Executor,
    operation::{Kind, Operation, Phase, Removal},
};
use crate::{ids::Epoch, observe::notices::Notice, state::Attributes};

/// From the warning to the interruption, where the notice has no time.
const WARNING: Duration = Duration::from_secs(120);
/// So much of it is left for pods that are deleted, for the kubelet and for volumes.
const RESERVE: Duration = Duration::from_secs(20);
/// A drain has so much time at least.
const LEAST: Duration = Duration::from_secs(10);
/// An agent that is silent for so long is not waited for.
pub(super) const SILENT: Duration = Duration::from_secs(10);

/// Time for the drain of a machine that is taken at `at`.
fn time_for_drain(at: Option<Timestamp>, now: Timestamp) -> Duration {
    let left = at.map_or(WARNING, |at| age(now, at).min(WARNING));
    left.saturating_sub(RESERVE).max(LEAST)
}

impl Executor {
    /// Journals a removal for each machine that EC2 takes back; one that is on its way is hastened.
    pub(super) async fn adopt_interruptions(&self, epoch: Epoch) {
        for notice in self.parts.notices.interruptions() {
            let node = NodeName::from(notice.instance.as_str());
            let of_node =
                |operation: &Operation| operation.removal().is_some_and(|removal| removal.node == node);
            match self.open().into_iter().find(of_node) {
                Some(operation) => self.hasten(operation, &notice, epoch).await,
                None => self.adopt(&notice, node, epoch).await,
            }
        }
    }

    async fn adopt(&self, notice: &Notice, node: NodeName, epoch: Epoch) {
        match self.read_record(&notice.instance).await {
            Ok(Some(_)) => {}
            // Its removal is over.
            Ok(None) => {
                self.parts.notices.forget(&notice.instance);
                return;
            }
            Err(_) => return,
        }
        if self.term() != Some(epoch) {
            return;
        }
        let now = self.parts.clock.now();
        let what = Kind::Remove(Removal {
            force: true,
            interrupted: true,
            ..Removal::of(node, time_for_drain(notice.at, now))
        });
        let reason = format!("spot interruption of {}: {}", notice.instance, notice.words());
        let id = self.parts.ids.operation(now);
        let operation = planned(id, what, Vec::new(), None, reason, None, now);
        match self.order(vec![operation]).await {
            Ok(()) => self.ask_for_a_plan(),
            Err(error) => {
                tracing::warn!(instance = %notice.instance, %error, "an interruption was not journaled yet");
            }
        }
    }

    /// A removal that had time has none any more: it waits for no replacement, and is forced at its end. A person's drain
    /// becomes a removal, since the machine goes.
    async fn hasten(&self, mut operation: Operation, notice: &Notice, epoch: Epoch) {
        if !matches!(operation.phase, Phase::Planned | Phase::Draining) {
            return;
        }
        if let Kind::Drain(drain) = &operation.what {
            operation.what = Kind::Remove(drain.clone());
        }
        let now = self.parts.clock.now();
        let Some(removal) = operation.removal_mut() else {
            return;
        };
        if removal.interrupted || removal.lost {
            return;
        }
        let drained_for = removal
            .draining_since
            .map_or(Duration::ZERO, |since| age(since, now));
        removal.interrupted = true;
        removal.force = true;
        removal.after.clear();
        removal.timeout = drained_for + time_for_drain(notice.at, now);
        operation.note(now, format!("hastened: {}", notice.words()));
        if self
            .write(epoch, &mut operation, Vec::new(), Attributes::new())
            .await
        {
            self.ask_for_a_plan();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use super::*;

    #[test]
    fn a_drain_ends_before_the_machine_is_taken_and_has_a_little_time_in_any_case() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let time = |at: &str| time_for_drain(Some(at.parse().unwrap()), now).as_secs();
        assert_eq!(time_for_drain(None, now).as_secs(), 100);
        assert_eq!(time("2026-01-02T03:06:05Z"), 100);
        assert_eq!(time("2026-01-02T03:05:05Z"), 40);
        assert_eq!(time("2026-01-02T03:04:10Z"), 10);
        assert_eq!(time("2026-01-02T03:00:00Z"), 10);
        assert_eq!(time("2027-01-02T03:00:00Z"), 100);
    }
}
