//! What machines cost, hour by hour, as leaders accounted it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use smartscale_planner::model::{InstanceType, Market, PoolName};

use super::records::Record;

/// A little more than a year, so that a month can be compared with the same one of the year before.
pub const KEPT: SignedDuration = SignedDuration::from_hours(24 * 400);

/// An hour of UTC. Keys sort by time and begin with the month.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostHour {
    /// When it begins.
    pub begins: Timestamp,
    /// What comes before this has been accounted, or never will be.
    pub until: Timestamp,
    /// So many seconds of it are accounted.
    pub seconds: f64,
    /// When the nodes at work cost most on demand; absent where they were never seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<Peak>,
    /// By pool, market and type.
    pub rows: Vec<CostRow>,
}

/// The nodes that were at work at a moment: Ready and not on their way out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// When.
    pub at: Timestamp,
    /// How many.
    pub nodes: u32,
    /// What they would all cost on demand, in USD an hour.
    pub usd_per_hour: f64,
}

/// What machines of one kind cost within an hour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostRow {
    /// Their pool; empty where their tag names none.
    pub pool: PoolName,
    /// How they were bought.
    pub market: Market,
    /// Their type.
    pub instance_type: InstanceType,
    /// How long they were billed, together.
    pub node_seconds: f64,
    /// For so long nobody knew a price: none of it is in the amounts.
    #[serde(default)]
    pub unpriced_seconds: f64,
    /// For so long the price was that of the built-in catalogue, an assumption.
    #[serde(default)]
    pub assumed_seconds: f64,
    /// For so long a Ready node had no pods but those of DaemonSets, mirror pods and finished ones.
    #[serde(default)]
    pub empty_seconds: f64,
    /// For so long nobody knew which pods were on them.
    #[serde(default)]
    pub unseen_seconds: f64,
    /// What they cost, in USD.
    pub usd: f64,
    /// What they would have cost on demand, in USD.
    pub on_demand_usd: f64,
    /// What they cost while they were empty, in USD.
    #[serde(default)]
    pub empty_usd: f64,
}

impl CostRow {
    /// A row of one kind of machines, without any.
    #[must_use]
    pub fn new(pool: PoolName, market: Market, instance_type: InstanceType) -> Self {
        Self {
            pool,
            market,
            instance_type,
            node_seconds: 0.0,
            unpriced_seconds: 0.0,
            assumed_seconds: 0.0,
            empty_seconds: 0.0,
            unseen_seconds: 0.0,
            usd: 0.0,
            on_demand_usd: 0.0,
            empty_usd: 0.0,
        }
    }

    /// Whether it is of these machines.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        (&self.pool, self.market, &self.instance_type) == (&other.pool, other.market, &other.instance_type)
    }

    /// Adds what another row of the same machines has.
    pub fn add(&mut self, other: &Self) {
        self.node_seconds += other.node_seconds;
        self.unpriced_seconds += other.unpriced_seconds;
        self.assumed_seconds += other.assumed_seconds;
        self.empty_seconds += other.empty_seconds;
        self.unseen_seconds += other.unseen_seconds;
        self.usd += other.usd;
        self.on_demand_usd += other.on_demand_usd;
        self.empty_usd += other.empty_usd;
    }
}

/// Adds a row to those that there are.
pub fn add_to(rows: &mut Vec<CostRow>, row: &CostRow) {
    match rows.iter_mut().find(|one| one.is_of(row)) {
        Some(one) => one.add(row),
        None => rows.push(row.clone()),
    }
}

impl CostHour {
    /// An hour of which nothing is accounted yet.
    #[must_use]
    pub fn new(begins: Timestamp) -> Self {
        Self {
            begins,
            until: begins,
            seconds: 0.0,
            peak: None,
            rows: Vec::new(),
        }
    }

    /// When it is over.
    #[must_use]
    pub fn ends(&self) -> Timestamp {
        self.begins.checked_add(HOUR).unwrap_or(Timestamp::MAX)
    }
}

/// An hour.
pub const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// The hour of UTC in which a moment is.
#[must_use]
pub fn hour_of(at: Timestamp) -> Timestamp {
    let second = at.as_second();
    Timestamp::from_second(second - second.rem_euclid(3600)).unwrap_or(at)
}

impl Record for CostHour {
    const PREFIX: &'static str = "cost#";

    fn id(&self) -> String {
        self.begins.strftime("%Y-%m-%dT%H").to_string()
    }
}
