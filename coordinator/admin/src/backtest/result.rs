//! The result as it is printed: a contract, see `docs/backtest.md`.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;
use smartscale_backtest::{Outcome, Rival, Totals};

use super::{files::Files, tried::Name};

/// What a backtest prints. What was not asked for is absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Results {
    #[serde(flatten)]
    pub(crate) of: Of,
    /// Minutes of the history, gaps included.
    pub(crate) minutes: u32,
    /// How long it took.
    pub(crate) wall_seconds: f64,
}

/// One policy that was named without more, or several.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Of {
    One(Compared),
    Several { policies: Vec<Tried> },
}

/// A policy beside what it is compared with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Compared {
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
}

impl Compared {
    pub(super) fn new(outcome: &Outcome) -> Self {
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
        }
    }
}

/// One of several policies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Tried {
    pub(crate) file: String,
    /// The swept keys and the values they had.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) set: BTreeMap<String, serde_json::Value>,
    /// The same as they were given.
    #[serde(skip)]
    pub(crate) swept: Vec<(String, String)>,
    /// Where its run stands minute by minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) series: Option<String>,
    /// Where it is drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plot: Option<String>,
    #[serde(flatten)]
    pub(crate) compared: Compared,
}

impl Tried {
    pub(super) fn new(name: &Name<'_>, outcome: &Outcome, files: &Files) -> Self {
        let shown = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let set = name.set.iter();
        Self {
            file: name.file.display().to_string(),
            set: set
                .clone()
                .map(|(key, value)| (key.to_string(), value.json()))
                .collect(),
            swept: set
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            series: shown(&files.series),
            plot: shown(&files.plot),
            compared: Compared::new(outcome),
        }
    }
}
