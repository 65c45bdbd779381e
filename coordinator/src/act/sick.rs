//! Sick machines: the agent is silent *and* the kubelet is not Ready, or the Node is gone though the machine runs. One such
//! machine is replaced; where many are, something else is wrong, and nothing is done to any of them.

use std::{collections::BTreeMap, sync::PoisonError, time::Duration};

use smartscale_planner::model::NodeName;
use smartscale_proto::time::age;

use super::{
    begin::planned,
    executor::Executor,
    operation::{Kind, Removal},
};
use crate::{
    ids::InstanceId,
    state::records::NodeRecord,
    tell::{ErrorType, Severity},
};

/// The cluster must have been seen so lately, or nothing is said of its nodes.
const FRESH: Duration = Duration::from_secs(60);
/// Of ten machines so many may be sick before that is a matter for people; one always may.
const MOST_OF_TEN: usize = 3;

impl Executor {
    /// Replaces machines that have been sick for [`sick`](super::Settings::sick). `records` are those of machines that
    /// are there and that no operation concerns.
    pub(super) async fn replace_sick(&self, records: &[&NodeRecord]) {
        let latest = self.parts.cluster.latest();
        let is_fresh = latest
            .at
            .is_some_and(|at| age(at, self.parts.clock.now()) <= FRESH);
        if !is_fresh {
            return;
        }
        let joined: Vec<&InstanceId> = records
            .iter()
            .filter(|record| record.ready_at.is_some())
            .map(|record| &record.instance)
            .collect();
        let now = self.parts.clock.elapsed();
        let (sick, overdue) = {
            let mut since = self.sick.lock().unwrap_or_else(PoisonError::into_inner);
            let known: BTreeMap<InstanceId, Duration> = std::mem::take(&mut *since);
            let sick = joined.iter().filter(|instance| self.is_sick(instance));
            *since = sick
                .map(|instance| ((*instance).clone(), known.get(*instance).copied().unwrap_or(now)))
                .collect();
            let is_overdue = |since: Duration| now.saturating_sub(since) >= self.parts.settings.sick;
            let overdue: Vec<InstanceId> = since
                .iter()
                .filter(|(_, since)| is_overdue(**since))
                .map(|(instance, _)| instance.clone())
                .collect();
            (since.len(), overdue)
        };
        let many = sick > 1 && sick * 10 > joined.len() * MOST_OF_TEN;
        self.tell_of_many(many && !overdue.is_empty(), sick, joined.len());
        if many {
            return;
        }
        for instance in overdue {
            let what = Kind::Remove(Removal {
                lost: true,
                ..Removal::of(NodeName::from(instance.as_str()), Duration::ZERO)
            });
            let minutes = self.parts.settings.sick.as_secs() / 60;
            let reason =
                format!("{instance} is sick: no word from its agent and not Ready for {minutes} min");
            let id = self.parts.ids.operation(self.parts.clock.now());
            let operation = planned(
                id,
                what,
                Vec::new(),
                None,
                reason.clone(),
                None,
                self.parts.clock.now(),
            );
            match self.order(vec![operation]).await {
                Ok(()) => self.trouble(Severity::Warning, reason, ErrorType::NodeSick),
                Err(error) => {
                    tracing::warn!(%instance, %error, "a sick machine's removal was not journaled yet");
                }
            }
        }
    }

    fn is_sick(&self, instance: &InstanceId) -> bool {
        match self.seen(instance.as_str()) {
            // A kubelet registers when it starts, never again: without its Node it does nothing for anybody.
            None => true,
            Some(seen) => !seen.ready && !self.parts.agents.is_connected(instance),
        }
    }

    /// Says once that many machines are sick, and that this is over.
    fn tell_of_many(&self, many: bool, sick: usize, all: usize) {
        let before = std::mem::replace(
            &mut *self.many_sick.lock().unwrap_or_else(PoisonError::into_inner),
            many,
        );
        if many && !before {
            let message = format!(
                "{sick} of {all} machines are silent and not Ready: hands off, since no machine is likely to be the cause"
            );
            self.trouble(Severity::Failure, message, ErrorType::ManySick);
        } else if before && !many {
            self.trouble(
                Severity::Info,
                "no longer are many machines sick".to_owned(),
                ErrorType::ManySick,
            );
        }
    }
}
