//! A price with who said it and when, so that a decision can be judged by what it was made of.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::Zone;

/// Who said a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PriceSource {
    /// An `[[instance_type]]` of the policy.
    Policy,
    /// AWS's list of on-demand prices.
    AwsPricing,
    /// EC2's history of spot prices.
    SpotPriceHistory,
    /// The built-in catalogue; of spot, an assumption.
    Catalogue,
}

impl fmt::Display for PriceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Policy => "policy",
            Self::AwsPricing => "aws-pricing",
            Self::SpotPriceHistory => "spot-price-history",
            Self::Catalogue => "catalogue",
        })
    }
}

/// What something costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// USD per hour.
    pub per_hour: f64,
    /// Who said so.
    pub source: PriceSource,
    /// When it was true; `None` for the policy's own, which hold until the policy is another.
    pub at: Option<Timestamp>,
}

impl Price {
    /// How old it is at `now`, in seconds; one that claims to lie ahead is new.
    pub fn age_seconds(&self, now: Timestamp) -> Option<i64> {
        self.at.map(|at| now.duration_since(at).as_secs().max(0))
    }
}

/// What a type costs on the spot market.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SpotPrice {
    /// It is not offered there.
    #[default]
    None,
    /// The same in every zone.
    Everywhere(Price),
    /// Zone by zone; in others it is not offered there.
    ByZone(BTreeMap<Zone, Price>),
}

impl SpotPrice {
    /// The price in a zone.
    pub fn in_zone(&self, zone: &Zone) -> Option<&Price> {
        match self {
            Self::None => None,
            Self::Everywhere(price) => Some(price),
            Self::ByZone(prices) => prices.get(zone),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    #[test]
    fn a_source_is_printed_as_it_is_serialized() {
        for source in [
            PriceSource::Policy,
            PriceSource::AwsPricing,
            PriceSource::SpotPriceHistory,
            PriceSource::Catalogue,
        ] {
            assert_eq!(serde_json::to_value(source).unwrap(), source.to_string());
        }
    }

    #[test]
    fn a_price_from_the_future_is_new_and_the_policys_own_has_no_age() {
        let price = |at| Price {
            per_hour: 1.0,
            source: PriceSource::Catalogue,
            at,
        };
        let second = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(price(Some(second(40))).age_seconds(second(100)), Some(60));
        assert_eq!(price(Some(second(200))).age_seconds(second(100)), Some(0));
        assert_eq!(price(None).age_seconds(second(100)), None);
    }
}
