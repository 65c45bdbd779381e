//! What of an answer is believed: entries that were asked for and that somebody can mean. The others are refused one by
//! one, so that a single absurd figure spoils nothing else.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use smartscale_planner::{
    PriceSource,
    model::{Bytes, InstanceType, MilliCpu, Zone},
    policy::{Nominal, Price, Undescribed},
};

use super::{Answer, MarketError, SpotQuote};

/// No type costs more, by far: USD per hour.
const MOST_PRICE: f64 = 5_000.0;
/// No type has more CPUs.
const MOST_CPU: MilliCpu = MilliCpu(10_000_000);
/// No type has more memory: 256 TiB.
const MOST_MEMORY: Bytes = Bytes(256 << 40);
/// No type has more accelerators of a kind.
const MOST_ACCELERATORS: i64 = 1_000;
/// How far two clocks may disagree.
const SKEW: SignedDuration = SignedDuration::from_hours(1);

/// What was believed, and what is wrong with the rest.
pub(super) type Checked<T> = Result<(T, Vec<String>), MarketError>;

pub(super) fn types(
    answer: Answer<(InstanceType, Nominal)>,
    wanted: &Undescribed,
) -> Checked<BTreeMap<InstanceType, Option<Nominal>>> {
    let mut problems = answer.problems;
    let mut types: BTreeMap<InstanceType, Option<Nominal>> = BTreeMap::new();
    for (name, nominal) in answer.entries {
        if !wanted.types.contains(&name) {
            continue;
        }
        let amounts = nominal.extended.values();
        if nominal.cpu <= MilliCpu::ZERO || nominal.cpu > MOST_CPU {
            problems.push(format!("{name} with {} CPUs", nominal.cpu));
        } else if nominal.memory <= Bytes::ZERO || nominal.memory > MOST_MEMORY {
            problems.push(format!("{name} with {} bytes of memory", nominal.memory.0));
        } else if amounts
            .clone()
            .any(|amount| !(1..=MOST_ACCELERATORS).contains(amount))
        {
            problems.push(format!("{name} with an absurd number of accelerators"));
        } else {
            types.insert(name, Some(nominal));
        }
    }
    whole(types, wanted, problems)
}

pub(super) fn zones(
    answer: Answer<(InstanceType, Zone)>,
    wanted: &Undescribed,
) -> Checked<BTreeMap<InstanceType, BTreeSet<Zone>>> {
    let mut zones: BTreeMap<_, BTreeSet<Zone>> = BTreeMap::new();
    for (name, zone) in answer.entries {
        if wanted.types.contains(&name) && wanted.zones.contains(&zone) {
            zones.entry(name).or_default().insert(zone);
        }
    }
    whole(zones, wanted, answer.problems)
}

pub(super) fn on_demand(
    answer: Answer<(InstanceType, f64)>,
    wanted: &Undescribed,
    at: Timestamp,
) -> Checked<BTreeMap<InstanceType, Price>> {
    let mut problems = answer.problems;
    let mut prices = BTreeMap::new();
    for (name, per_hour) in answer.entries {
        if !wanted.types.contains(&name) {
            continue;
        }
        match price(per_hour, PriceSource::AwsPricing, at) {
            Some(price) => {
                prices.insert(name, price);
            }
            None => problems.push(format!("{name} at {per_hour} USD/h")),
        }
    }
    some(&prices, &problems)?;
    Ok((prices, problems))
}

pub(super) fn spot(
    answer: Answer<SpotQuote>,
    wanted: &Undescribed,
    at: Timestamp,
) -> Checked<BTreeMap<InstanceType, BTreeMap<Zone, Price>>> {
    let mut problems = answer.problems;
    let mut newest: BTreeMap<InstanceType, BTreeMap<Zone, (Timestamp, Price)>> = BTreeMap::new();
    for quote in answer.entries {
        let SpotQuote {
            instance_type,
            zone,
            per_hour,
            since,
        } = quote;
        if !wanted.types.contains(&instance_type) || !wanted.zones.contains(&zone) {
            continue;
        }
        let Some(price) = price(per_hour, PriceSource::SpotPriceHistory, at) else {
            problems.push(format!("{instance_type} in {zone} at {per_hour} USD/h"));
            continue;
        };
        if since.duration_since(at) > SKEW {
            problems.push(format!("{instance_type} in {zone}: a price of {since}"));
            continue;
        }
        let of_type = newest.entry(instance_type).or_default();
        if of_type.get(&zone).is_none_or(|(known, _)| *known <= since) {
            of_type.insert(zone, (since, price));
        }
    }
    let priced = |zones: BTreeMap<Zone, (Timestamp, Price)>| {
        let zones = zones.into_iter();
        zones.map(|(zone, (_, price))| (zone, price)).collect()
    };
    let prices = newest.into_iter().map(|(name, zones)| (name, priced(zones)));
    whole(prices.collect(), wanted, problems)
}

/// A price that somebody can mean. Nothing is for nothing.
fn price(per_hour: f64, source: PriceSource, at: Timestamp) -> Option<Price> {
    (per_hour > 0.0 && per_hour <= MOST_PRICE).then_some(Price {
        per_hour,
        source,
        at: Some(at),
    })
}

/// An answer that also says of which types there is nothing: all that were asked for and are not in it.
fn whole<T: Default>(
    mut believed: BTreeMap<InstanceType, T>,
    wanted: &Undescribed,
    problems: Vec<String>,
) -> Checked<BTreeMap<InstanceType, T>> {
    some(&believed, &problems)?;
    for name in &wanted.types {
        believed.entry(name.clone()).or_default();
    }
    Ok((believed, problems))
}

/// An answer in which nothing can be believed says nothing, and takes nothing away that was known.
fn some<K, V>(believed: &BTreeMap<K, V>, problems: &[String]) -> Result<(), MarketError> {
    if believed.is_empty() {
        let why = problems.first().map(|one| format!(": {one}")).unwrap_or_default();
        return Err(MarketError(format!(
            "the answer has nothing that was asked for{why}"
        )));
    }
    Ok(())
}
