//! An instance type as the planner sees it.

use std::{collections::BTreeMap, sync::Arc};

use super::{Price, SpotPrice};
use crate::model::{Bytes, InstanceType, Market, MilliCpu, Percent, Zone};

/// An instance type: what it has and what it costs.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeSpec {
    /// Its name.
    pub name: InstanceType,
    /// What such a node reports as capacity.
    pub cpu: MilliCpu,
    /// What such a node reports as capacity.
    pub memory: Bytes,
    /// Its own bound on pods.
    pub max_pods: Option<u32>,
    /// `amd64` or `arm64`.
    pub arch: Arc<str>,
    /// Disk; `None` is not checked.
    pub ephemeral_storage: Option<Bytes>,
    /// Extended resources.
    pub extended: BTreeMap<Arc<str>, i64>,
    /// What it costs on demand, in every zone.
    pub on_demand: Price,
    /// What it costs as spot.
    pub spot: SpotPrice,
    /// Where it is offered; `None` is everywhere.
    pub zones: Option<Vec<Zone>>,
    /// What a burstable type may use of its CPU for ever; 100 elsewhere.
    pub baseline_percent: Percent,
    /// The policy does not describe it: its memory is an estimate.
    pub built_in: bool,
}

impl TypeSpec {
    /// Its price in a market of a zone; `None` where it is not offered.
    pub fn price(&self, zone: &Zone, market: Market) -> Option<&Price> {
        match market {
            Market::OnDemand => Some(&self.on_demand),
            Market::Spot => self.spot.in_zone(zone),
        }
    }

    /// Whether each zone has a price of its own in a market.
    pub(crate) fn differs_by_zone(&self, market: Market) -> bool {
        market == Market::Spot && matches!(self.spot, SpotPrice::ByZone(_))
    }

    /// The order of types in a pool: cheapest on demand first, then by name.
    pub(crate) fn by_price(&self, other: &Self) -> std::cmp::Ordering {
        let price = self.on_demand.per_hour.total_cmp(&other.on_demand.per_hour);
        price.then_with(|| self.name.cmp(&other.name))
    }

    /// Whether its CPU cannot be used in full for ever.
    pub fn is_burstable(&self) -> bool {
        self.baseline_percent.0 < 100.0
    }

    /// Whether it can be bought in this zone at all.
    pub fn is_offered_in(&self, zone: &Zone) -> bool {
        self.zones.as_ref().is_none_or(|zones| zones.contains(zone))
    }
}
