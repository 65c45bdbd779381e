//! Replays a history of requests through the very planner and policy that run the cluster, on a clock of its own: what that
//! would have cost, and who would have waited.
//!
//! ```text
//!   trace.csv ─▶ arrivals ─▶ world (pods, nodes, bills) ─▶ totals, series
//!   workload.toml ─────────▶   ▲ │
//!   policy.toml ─▶ kinds ──────┘ ▼
//!                  decide: the policy · thresholds · fixed          oracle: by the whole history
//! ```
//! The model is a contract (`docs/backtest.md`): anyone who recomputes it gets these figures. Whoever decides is handed a
//! `World`, which has no future.

#![warn(missing_docs)]

mod chance;
mod cheapest;
mod decide;
mod kinds;
mod oracle;
mod progress;
mod replay;
mod series;
mod synthetic;
mod tick;
mod together;
mod trace;
mod workload;
mod world;

use std::collections::BTreeSet;

use smartscale_planner::{
    Policy,
    model::{Market, Resources},
};

use crate::{
    chance::Chance,
    cheapest::Cheapest,
    decide::{fixed::Fixed, policy::ByPolicy, thresholds::Thresholds},
    series::Recorder,
    world::Scenery,
};
pub use crate::{
    progress::Progress,
    replay::Totals,
    series::{Forecast, Minute, Series},
    synthetic::Shape,
    tick::PER_MINUTE as TICKS_PER_MINUTE,
    together::Backtests,
    trace::{Trace, TraceError},
    workload::{Cloud, Stockout, Workload, WorkloadError},
};

/// What a policy is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rival {
    /// The nodes for the peak, all the time.
    Fixed,
    /// What people write by hand.
    Thresholds,
    /// The cheapest nodes at every moment, chosen by somebody who knows what comes.
    Oracle,
}

impl Rival {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fixed, Self::Thresholds, Self::Oracle];

    /// Its name in results and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Thresholds => "thresholds",
            Self::Oracle => "oracle",
        }
    }
}

/// What is replayed: one policy. [`Backtests`] are several.
#[derive(Debug, Clone, Copy)]
pub struct Backtest<'a> {
    /// The history.
    pub trace: &'a Trace,
    /// The policy.
    pub policy: &'a Policy,
    /// What serves the requests, and where.
    pub workload: &'a Workload,
    /// What chance is derived from.
    pub seed: u64,
}

/// The history wants more pods, on more nodes, than can be compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the history wants up to {pods} pods, on more nodes than can be compared: expected a larger requests_per_pod, or a smaller \
     max_pods or limits.max_nodes"
)]
pub struct TooLarge {
    /// Pods wanted at its peak.
    pub pods: u32,
}

/// How it went.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// By the policy.
    pub policy: Totals,
    /// By the others that were asked for.
    pub rivals: Vec<(Rival, Totals)>,
    /// The policy's run, minute by minute.
    pub series: Series,
}

impl Outcome {
    /// What one of the others came to.
    #[must_use]
    pub fn rival(&self, rival: Rival) -> Option<&Totals> {
        self.rivals
            .iter()
            .find(|(own, _)| *own == rival)
            .map(|(_, totals)| totals)
    }

    /// What the policy saves of what `rival` costs, in percent.
    #[must_use]
    pub fn saving_percent(&self, rival: Rival) -> Option<f64> {
        let cost = self.rival(rival)?.cost_usd;
        Some(percent(cost - self.policy.cost_usd, cost))
    }

    /// What it costs more than the oracle, in percent.
    #[must_use]
    pub fn over_oracle_percent(&self) -> Option<f64> {
        let cost = self.rival(Rival::Oracle)?.cost_usd;
        Some(percent(self.policy.cost_usd - cost, cost))
    }
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole * 100.0 } else { 0.0 }
}

impl Backtest<'_> {
    /// Replays the history by the policy and by those it is compared with.
    ///
    /// # Errors
    /// [`TooLarge`] when the fleet is.
    pub fn run(&self, rivals: &BTreeSet<Rival>) -> Result<Outcome, TooLarge> {
        let backtests = Backtests {
            trace: self.trace,
            policies: std::slice::from_ref(self.policy),
            workload: self.workload,
            seed: self.seed,
            keep_series: true,
        };
        // One policy has one outcome.
        backtests.run(rivals, &backtests.progress()).remove(0)
    }
}

/// What all runs on one history have in common.
struct Rehearsal<'a> {
    trace: &'a Trace,
    scenery: Scenery<'a>,
    cheapest: Cheapest,
    /// The most pods that are wanted at any time. None of those who decide is told.
    most: u32,
}

impl<'a> Rehearsal<'a> {
    fn new(
        trace: &'a Trace,
        policy: &'a Policy,
        workload: &'a Workload,
        seed: u64,
    ) -> Result<Self, TooLarge> {
        let kinds = kinds::all(policy, workload);
        let most = oracle::pods_wanted(trace, workload).max().unwrap_or(0);
        let cheapest = Cheapest::new(policy, &kinds, most);
        Ok(Self {
            trace,
            cheapest: cheapest.map_err(|cheapest::TooMany| TooLarge { pods: most })?,
            scenery: Scenery {
                policy,
                workload,
                kinds,
                start: trace.start(),
                chance: Chance(seed),
            },
            most,
        })
    }

    /// The nodes for the first tick's pods.
    fn begin(&self) -> Vec<(usize, Market)> {
        let first = oracle::pods_wanted(self.trace, self.scenery.workload).next();
        self.cheapest.nodes(self.cheapest.of(first.unwrap_or(0)))
    }

    /// What a pod requests.
    fn requests(&self) -> Resources {
        let workload = self.scenery.workload;
        Resources {
            cpu: workload.cpu,
            memory: workload.memory,
            pods: 1,
            ..Resources::default()
        }
    }

    /// The scenery of another policy with the same pools and limits.
    fn scenery_of<'p>(&'p self, policy: &'p Policy) -> Scenery<'p> {
        Scenery {
            policy,
            workload: self.scenery.workload,
            kinds: self.scenery.kinds.clone(),
            start: self.scenery.start,
            chance: self.scenery.chance,
        }
    }

    /// A run by a policy with the same pools and limits.
    fn policy(&self, policy: &Policy, recorder: &mut impl Recorder) -> Totals {
        let scenery = self.scenery_of(policy);
        let mut decider = ByPolicy::new(policy, self.requests());
        let begin = self.begin();
        replay::run(&scenery, self.trace, &begin, &mut decider, |_| {}, recorder)
    }

    fn fixed(&self, recorder: &mut impl Recorder) -> Totals {
        let nodes = self.cheapest.nodes(self.cheapest.of(self.most));
        let spare = |world: &mut world::World<'_>| world.spare();
        replay::run(&self.scenery, self.trace, &nodes, &mut Fixed, spare, recorder)
    }

    fn thresholds(&self, recorder: &mut impl Recorder) -> Totals {
        let mut decider = Thresholds::default();
        let begin = self.begin();
        replay::run(&self.scenery, self.trace, &begin, &mut decider, |_| {}, recorder)
    }

    fn oracle(&self, fixed: &Totals) -> Totals {
        oracle::totals(self.trace, self.scenery.workload, &self.cheapest, fixed)
    }
}

#[cfg(test)]
mod tests;
