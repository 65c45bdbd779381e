//! The result as it is printed: a contract, see `docs/backtest.md`.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use smartscale_backtest::{Outcome, Rival, Totals, Trace};

/// What a backtest prints. What was not asked for is absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Results {
    /// By the policy.
    pub(crate) policy: Totals,
    /// By the others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) compare: BTreeMap<&'static str, Totals>,
    /// What the policy saves of their cost.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) saving_percent: BTreeMap<&'static str, f64>,
    /// What it costs more than the oracle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) over_oracle_percent: Option<f64>,
    /// Minutes of the history, gaps included.
    pub(crate) minutes: u32,
    /// How long it took.
    pub(crate) wall_seconds: f64,
}

impl Results {
    pub(super) fn new(outcome: &Outcome, trace: &Trace, wall: Duration) -> Self {
        let savings = [Rival::Fixed, Rival::Thresholds].into_iter();
        Self {
            policy: outcome.policy,
            compare: outcome
                .rivals
                .iter()
                .map(|(rival, totals)| (rival.as_str(), *totals))
                .collect(),
            saving_percent: savings
                .filter_map(|rival| Some((rival.as_str(), outcome.saving_percent(rival)?)))
                .collect(),
            over_oracle_percent: outcome.over_oracle_percent(),
            minutes: trace.ticks().div_ceil(smartscale_backtest::TICKS_PER_MINUTE),
            wall_seconds: wall.as_secs_f64(),
        }
    }
}
