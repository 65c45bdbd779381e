//! The market: which types a cloud has, in which zones, and what they cost now.
//!
//! ```text
//!  policy ─▶ what the file does not describe ─▶ types · zones · on-demand prices (a day) ─┐
//!                                             └▶ spot prices (minutes) ───────────────────┼─▶ Offers ─▶ policy in force
//!                              check: entry by entry, what nobody can mean is refused ────┘
//! ```
//!
//! [`Keeper`] asks and remembers; [`MarketView`] says how old what it remembers is. What is not known (yet) stays as the
//! built-in catalogue has it, and what the policy's file says is never touched.

mod check;
mod keeper;

use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;
use smartscale_planner::{
    model::{InstanceType, Zone},
    policy::{Nominal, Undescribed},
};

pub use self::keeper::{Keeper, MarketView, Settings};

/// Entries of an answer, and what was wrong with those that are not among them, a sentence each.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// What could be read.
    pub entries: Vec<T>,
    /// What could not.
    pub problems: Vec<String>,
}

impl<T> Default for Answer<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            problems: Vec::new(),
        }
    }
}

impl<T> Answer<T> {
    /// Takes an entry up, or says what is wrong with it.
    pub fn take<E: fmt::Display>(&mut self, entry: Result<T, E>) {
        match entry {
            Ok(entry) => self.entries.push(entry),
            Err(problem) => self.problems.push(problem.to_string()),
        }
    }
}

/// A price of the spot market.
#[derive(Debug, Clone, PartialEq)]
pub struct SpotQuote {
    /// The type.
    pub instance_type: InstanceType,
    /// The zone.
    pub zone: Zone,
    /// USD per hour.
    pub per_hour: f64,
    /// Since when it holds: of several for a zone, the newest counts.
    pub since: Timestamp,
}

/// A cloud that did not answer, or not in a way that could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MarketError(pub String);

/// Where types and prices are asked for. The real one is AWS (`aws/market`). Answers are not believed: they may name
/// anything, also what was not asked for.
#[async_trait]
pub trait MarketSource: Send + Sync {
    /// What the types have.
    async fn types(&self, wanted: &Undescribed) -> Result<Answer<(InstanceType, Nominal)>, MarketError>;
    /// In which zones they are offered.
    async fn zones(&self, wanted: &Undescribed) -> Result<Answer<(InstanceType, Zone)>, MarketError>;
    /// What they cost on demand, in USD per hour.
    async fn on_demand_prices(
        &self,
        wanted: &Undescribed,
    ) -> Result<Answer<(InstanceType, f64)>, MarketError>;
    /// What they cost as spot now.
    async fn spot_prices(&self, wanted: &Undescribed) -> Result<Answer<SpotQuote>, MarketError>;
}

#[cfg(test)]
mod tests;
