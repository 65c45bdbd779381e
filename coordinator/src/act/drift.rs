//! Machines that are not what a launch of their pool would be now. What is done about them the pool says (`drift`) and the
//! planner decides; here they are only looked for, and shown.

use std::{sync::PoisonError, time::Duration};

use smartscale_planner::{model::NodeName, snapshot::Drifted};

use super::{executor::Executor, fleet::Drift};
use crate::tell::{ErrorType, Severity};

/// Templates change rarely.
const LOOKED_FOR_EVERY: Duration = Duration::from_secs(300);

/// What was found last.
#[derive(Debug, Default)]
pub(super) struct Found {
    at: Option<Duration>,
    drift: Drift,
}

impl Executor {
    /// Asks the cloud, if it is time. While it does not answer, what it said last stands.
    pub(super) async fn look_for_drift(&self) {
        let now = self.parts.clock.elapsed();
        let asked = self.found().at;
        if asked.is_some_and(|asked| now.saturating_sub(asked) < LOOKED_FOR_EVERY) {
            return;
        }
        self.found().at = Some(now);
        match self.parts.fleet.drift().await {
            Ok(drift) => {
                let known = std::mem::replace(&mut self.found().drift, drift.clone());
                for fault in drift
                    .unsound
                    .iter()
                    .filter(|fault| !known.unsound.contains(fault))
                {
                    self.trouble(Severity::Warning, fault.clone(), ErrorType::LaunchTemplate);
                }
            }
            Err(error) => tracing::warn!(%error, "the fleet could not be asked for drift"),
        }
    }

    /// Nodes that have drifted.
    pub(super) fn drifted(&self) -> Vec<Drifted> {
        let found = self.found();
        let machines = found.drift.machines.iter();
        machines
            .map(|(id, how)| Drifted {
                node: NodeName::from(id.as_str()),
                how: how.clone(),
            })
            .collect()
    }

    /// What there is to say of launch templates, as sentences: what is wrong with those of pools, and which nothing uses.
    #[must_use]
    pub fn of_templates(&self) -> Vec<String> {
        let drift = &self.found().drift;
        let unused = drift.unused.iter();
        let unused =
            unused.map(|template| format!("launch template {template}: no pool and no node uses it"));
        drift.unsound.iter().cloned().chain(unused).collect()
    }

    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        self.drift.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
