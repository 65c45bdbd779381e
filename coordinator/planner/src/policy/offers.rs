//! What a cloud says of the types that a policy uses: it takes the place of the built-in catalogue.
//!
//! ```text
//! policy.toml ──▶ Policy ──▶ undescribed() ──▶ who asks the cloud ──▶ Offers ──▶ Policy::with_offers ──▶ Policy
//! ```
//!
//! What the file itself says of a type is never changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Policy, Price, SpotPrice, TypeSpec, Warning, catalogue, validate};
use crate::model::{Bytes, InstanceType, Market, MilliCpu, Zone};

/// What a cloud says. Of a type that is not in a map nothing was said (yet): it stays as the catalogue has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offers {
    /// What types have; `None` is a type that the cloud does not have.
    pub types: BTreeMap<InstanceType, Option<Nominal>>,
    /// The zones in which each is offered.
    pub zones: BTreeMap<InstanceType, BTreeSet<Zone>>,
    /// Prices on demand.
    pub on_demand: BTreeMap<InstanceType, Price>,
    /// Spot prices in the zones in which each is offered as spot.
    pub spot: BTreeMap<InstanceType, BTreeMap<Zone, Price>>,
}

/// What a type has by its description.
#[derive(Clone, Debug, PartialEq)]
pub struct Nominal {
    /// All of its CPUs.
    pub cpu: MilliCpu,
    /// What is on its label; a node reports less.
    pub memory: Bytes,
    /// `amd64` or `arm64`.
    pub arch: Arc<str>,
    /// Accelerators, as the extended resources of their device plugins.
    pub extended: BTreeMap<Arc<str>, i64>,
    /// It can be bought as spot.
    pub spot: bool,
}

/// What of a policy a cloud is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undescribed {
    /// Types that pools may use and the file does not describe.
    pub types: BTreeSet<InstanceType>,
    /// The zones of these pools.
    pub zones: BTreeSet<Zone>,
    /// Whether any of these pools may buy spot.
    pub spot: bool,
}

impl Policy {
    /// What the file does not say of the types that its pools may use.
    pub fn undescribed(&self) -> Undescribed {
        let mut all = Undescribed::default();
        for pool in &self.pools {
            let types = pool.types.iter().filter(|spec| spec.built_in);
            all.types.extend(types.map(|spec| spec.name.clone()));
            if pool.types.iter().any(|spec| spec.built_in) {
                all.zones.extend(pool.zones.iter().cloned());
                all.spot |= pool.markets.contains(&Market::Spot);
            }
        }
        all
    }

    /// The policy with what a cloud says in place of the built-in catalogue, and what follows from it that is surely not
    /// meant.
    pub fn with_offers(&self, offers: &Offers) -> (Self, Vec<Warning>) {
        let mut policy = self.clone();
        for spec in policy.types.values_mut().filter(|spec| spec.built_in) {
            *spec = Arc::new(offers.apply(spec));
        }
        let mut warnings = Vec::new();
        for (index, pool) in policy.pools.iter_mut().enumerate() {
            for spec in &mut pool.types {
                if let Some(now) = policy.types.get(&spec.name) {
                    *spec = Arc::clone(now);
                }
            }
            pool.types.sort_by(|a, b| a.by_price(b));
            warnings.extend(validate::nothing_to_buy(&format!("pool[{index}]"), pool));
        }
        (policy, warnings)
    }
}

impl Offers {
    fn apply(&self, spec: &TypeSpec) -> TypeSpec {
        let mut spec = spec.clone();
        let mut spot = true;
        match self.types.get(&spec.name) {
            Some(Some(nominal)) => {
                spec.cpu = nominal.cpu;
                spec.memory = catalogue::capacity(nominal.memory);
                spec.arch = Arc::clone(&nominal.arch);
                spec.extended.clone_from(&nominal.extended);
                spot = nominal.spot;
            }
            Some(None) => spec.zones = Some(Vec::new()),
            None => {}
        }
        if let Some(zones) = self.zones.get(&spec.name) {
            let known = |zone: &&Zone| spec.is_offered_in(zone);
            spec.zones = Some(zones.iter().filter(known).cloned().collect());
        }
        if let Some(price) = self.on_demand.get(&spec.name) {
            spec.on_demand = *price;
        }
        match self.spot.get(&spec.name) {
            _ if !spot => spec.spot = SpotPrice::None,
            Some(prices) => spec.spot = SpotPrice::ByZone(prices.clone()),
            None => {}
        }
        spec
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use jiff::Timestamp;

    use super::*;
    use crate::policy::PriceSource;

    const POLICY: &str = r#"
[cluster]
id = "demo"
[[pool]]
name = "workers"
instance_types = ["m5.large", "t3.small", "own.large"]
zones = ["us-east-1a", "us-east-1b"]
markets = ["spot", "on-demand"]
[[instance_type]]
name = "own.large"
cpu = 2
memory = "8Gi"
on_demand_price = 0.1
spot_price = 0.03
"#;

    fn policy() -> Policy {
        Policy::from_toml(POLICY).unwrap().0
    }

    fn quoted(per_hour: f64, source: PriceSource) -> Price {
        Price {
            per_hour,
            source,
            at: Some(Timestamp::UNIX_EPOCH),
        }
    }

    fn spot(prices: &[(&str, &str, f64)]) -> Offers {
        let mut spot: BTreeMap<InstanceType, BTreeMap<Zone, Price>> = BTreeMap::new();
        for (name, zone, price) in prices {
            let price = quoted(*price, PriceSource::SpotPriceHistory);
            let of_type = spot.entry((*name).into()).or_default();
            of_type.insert((*zone).into(), price);
        }
        Offers {
            spot,
            ..Offers::default()
        }
    }

    fn price(policy: &Policy, name: &str, zone: &str, market: Market) -> Option<f64> {
        policy.pools[0].price(&policy.types[name], &zone.into(), market)
    }

    #[test]
    fn only_types_that_the_file_does_not_describe_are_asked_about() {
        let asked = policy().undescribed();
        let names: Vec<_> = asked.types.iter().map(InstanceType::as_str).collect();
        assert_eq!(names, ["m5.large", "t3.small"]);
        assert_eq!((asked.zones.len(), asked.spot), (2, true));
        let described = POLICY.replace(r#""m5.large", "t3.small", "#, "");
        let described = Policy::from_toml(&described).unwrap().0;
        assert_eq!(described.undescribed(), Undescribed::default());
    }

    #[test]
    fn nothing_said_changes_nothing() {
        let policy = policy();
        assert_eq!(policy.with_offers(&Offers::default()), (policy, Vec::new()));
    }

    #[test]
    fn spot_prices_are_those_of_their_zone_and_where_there_is_none_there_is_no_spot() {
        let (policy, _) = policy().with_offers(&spot(&[
            ("m5.large", "us-east-1a", 0.02),
            ("m5.large", "us-east-1b", 0.03),
            ("t3.small", "us-east-1b", 0.01),
            ("own.large", "us-east-1a", 0.001),
        ]));
        let of = |name, zone| price(&policy, name, zone, Market::Spot);
        assert_eq!(of("m5.large", "us-east-1a"), Some(0.02));
        assert_eq!(of("m5.large", "us-east-1b"), Some(0.03));
        assert_eq!(of("t3.small", "us-east-1a"), None);
        assert_eq!(of("own.large", "us-east-1a"), Some(0.03));
    }

    #[test]
    fn types_are_as_the_cloud_says_and_in_the_order_of_its_prices() {
        let nominal = Nominal {
            cpu: MilliCpu(4000),
            memory: Bytes(16 << 30),
            arch: "amd64".into(),
            extended: BTreeMap::new(),
            spot: false,
        };
        let offers = Offers {
            types: [("m5.large".into(), Some(nominal)), ("t3.small".into(), None)].into(),
            on_demand: [("m5.large".into(), quoted(0.01, PriceSource::AwsPricing))].into(),
            ..Offers::default()
        };
        let (policy, warnings) = policy().with_offers(&offers);
        let spec = &policy.pools[0].types[0];
        assert_eq!((spec.name.as_str(), spec.cpu), ("m5.large", MilliCpu(4000)));
        assert_eq!(spec.memory, Bytes(15_891_378_995));
        assert_eq!(
            price(&policy, "m5.large", "us-east-1a", Market::OnDemand),
            Some(0.01)
        );
        assert_eq!(price(&policy, "m5.large", "us-east-1a", Market::Spot), None);
        assert_eq!(
            price(&policy, "t3.small", "us-east-1a", Market::OnDemand),
            None,
            "a type that EC2 does not know"
        );
        assert!(warnings.is_empty());
    }

    #[test]
    fn a_pool_of_which_nothing_can_be_bought_any_more_is_warned_of() {
        let own = "[[instance_type]]\nname = \"own";
        let (pool, _) = POLICY.split_once(own).unwrap();
        let policy = Policy::from_toml(&pool.replace(r#", "own.large""#, ""))
            .unwrap()
            .0;
        let zones = |zone: &str| Offers {
            zones: [
                ("m5.large".into(), [zone.into()].into()),
                ("t3.small".into(), [].into()),
            ]
            .into(),
            ..Offers::default()
        };
        let (offered, warnings) = policy.with_offers(&zones("us-east-1b"));
        assert!(warnings.is_empty());
        assert_eq!(price(&offered, "m5.large", "us-east-1a", Market::OnDemand), None);
        assert!(price(&offered, "m5.large", "us-east-1b", Market::OnDemand).is_some());
        let (_, warnings) = policy.with_offers(&zones("us-east-1f"));
        assert_eq!(warnings[0].path, "pool[0]");
        assert!(warnings[0].message.contains("`workers`"), "{}", warnings[0]);
    }
}
