//! From what is written to what is meant: bounds, names, quantities and types, each error with its key's path.

mod windows;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    Budget, BurstableCpu, Cost, Currency, Drain, Forecast, Headroom, Kept, Limits, OnNotice, OnTimeout,
    Policy, PolicyError, Pool, Price, PriceSource, Reserved, ScaleDown, ScaleDownWhen, ScaleUp, SpotPrice,
    TypeSpec, Warning, catalogue,
    raw::{self, Scalar},
};
use crate::{
    drainability::Strictness,
    duration,
    model::{Bytes, ClusterId, InstanceType, Market, MilliCpu, Percent, Taint, Zone, keys},
    quantity,
};

type Result<T> = std::result::Result<T, PolicyError>;

fn error<T>(path: impl Into<String>, message: impl Into<String>) -> Result<T> {
    Err(PolicyError {
        path: path.into(),
        message: message.into(),
    })
}

/// The whole file.
pub(super) fn policy(raw: raw::Policy) -> Result<(Policy, Vec<Warning>)> {
    let mut warnings = Vec::new();
    if raw.cluster.id.trim().is_empty() {
        return error("cluster.id", "is empty: expected the cluster's name");
    }
    let limits = limits(&raw.limits)?;
    let scale_up = scale_up(&raw.scale_up)?;
    let scale_down = scale_down(&raw.scale_down, &scale_up)?;
    let drain = Drain {
        timeout: positive_duration("drain.timeout", &raw.drain.timeout)?,
        on_timeout: match raw.drain.on_timeout {
            raw::OnTimeout::Abort => OnTimeout::Abort,
            raw::OnTimeout::Force => OnTimeout::Force,
        },
    };
    let forecast = forecast(&raw.forecast)?;
    let (cost, currency) = (cost(&raw.cost)?, currency(&raw.cost)?);
    let freezes = raw.freeze.into_iter().enumerate();
    let freezes = freezes.map(|(index, raw)| windows::freeze(&format!("freeze[{index}]"), raw));
    let freezes = freezes.collect::<Result<Vec<_>>>()?;
    let described = described_types(raw.instance_type)?;
    if raw.pool.is_empty() {
        return error(
            "pool",
            "is missing: expected at least one [[pool]] with name, zones and instance_types or requirements",
        );
    }
    let mut pools: Vec<Pool> = Vec::with_capacity(raw.pool.len());
    let mut types = described.clone();
    for (index, pool) in raw.pool.into_iter().enumerate() {
        let path = format!("pool[{index}]");
        let pool = self::pool(&path, pool, &limits, &described)?;
        if pools.iter().any(|other| other.name == pool.name) {
            return error(
                format!("{path}.name"),
                format!("`{}` is given twice: pools need names of their own", pool.name),
            );
        }
        types.extend(
            pool.types
                .iter()
                .map(|spec| (spec.name.clone(), Arc::clone(spec))),
        );
        warnings.extend(nothing_to_buy(&path, &pool));
        pools.push(pool);
    }
    let minimums: u64 = pools.iter().map(|pool| u64::from(pool.min_nodes)).sum();
    if minimums > u64::from(limits.max_nodes) {
        return error(
            "pool",
            format!(
                "the pools' min_nodes add up to {minimums}, above limits.max_nodes = {}",
                limits.max_nodes
            ),
        );
    }
    let maximums: u64 = pools.iter().map(|pool| u64::from(pool.max_nodes)).sum();
    if maximums < u64::from(limits.min_nodes) {
        warnings.push(Warning {
            path: "limits.min_nodes".into(),
            message: format!(
                "{} cannot be reached: the pools' max_nodes add up to {maximums}",
                limits.min_nodes
            ),
        });
    }
    let schedules = raw.schedule.into_iter().enumerate();
    let schedules = schedules
        .map(|(index, raw)| windows::schedule(&format!("schedule[{index}]"), raw, &limits, &pools))
        .collect::<Result<Vec<_>>>()?;
    warnings.extend(windows::out_of_reach(&schedules, &limits, &pools));
    let cluster_id = ClusterId::from(raw.cluster.id);
    Ok((
        Policy {
            cluster_id,
            limits,
            scale_up,
            scale_down,
            drain,
            forecast,
            cost,
            currency,
            freezes,
            schedules,
            pools,
            types,
        },
        warnings,
    ))
}

/// More nodes than these to be there at any time are a slip of the pen: Kubernetes is made for half as many.
const MOST_MINIMUM: u32 = 10_000;
/// The same for pods that room is kept free for: 20 for each node.
const MOST_HEADROOM: u32 = 200_000;

fn at_most(path: impl Into<String>, value: u32, most: u32) -> Result<u32> {
    if value > most {
        return error(
            path,
            format!("{value} is more than can be meant: expected at most {most}"),
        );
    }
    Ok(value)
}

fn limits(raw: &raw::Limits) -> Result<Limits> {
    if raw.min_nodes > raw.max_nodes {
        return error(
            "limits.min_nodes",
            format!("{} is above limits.max_nodes = {}", raw.min_nodes, raw.max_nodes),
        );
    }
    Ok(Limits {
        min_nodes: at_most("limits.min_nodes", raw.min_nodes, MOST_MINIMUM)?,
        max_nodes: raw.max_nodes,
        max_launches_per_hour: raw.max_launches_per_hour,
        max_usd_per_hour: usd("limits.max_usd_per_hour", raw.max_usd_per_hour)?,
    })
}

fn scale_up(raw: &raw::ScaleUp) -> Result<ScaleUp> {
    if raw.sustained_readings == 0 {
        return error("scale_up.sustained_readings", "is 0: expected 1 or more");
    }
    Ok(ScaleUp {
        cpu_percent: percent("scale_up.cpu_percent", raw.cpu_percent)?,
        memory_percent: percent("scale_up.memory_percent", raw.memory_percent)?,
        sustained_readings: raw.sustained_readings,
        reading_interval: positive_duration("scale_up.reading_interval", &raw.reading_interval)?,
        cooldown: duration("scale_up.cooldown", &raw.cooldown)?,
        think: duration("scale_up.think", &raw.think)?,
        max_step: raw.max_step,
        priority_cutoff: raw.priority_cutoff.unwrap_or(i32::MIN),
    })
}

fn scale_down(raw: &raw::ScaleDown, up: &ScaleUp) -> Result<ScaleDown> {
    let cpu_percent = below(
        "scale_down.cpu_percent",
        raw.cpu_percent,
        "scale_up.cpu_percent",
        up.cpu_percent,
    )?;
    let memory_percent = below(
        "scale_down.memory_percent",
        raw.memory_percent,
        "scale_up.memory_percent",
        up.memory_percent,
    )?;
    let blocks = |choice| choice == raw::BlockOrMove::Block;
    Ok(ScaleDown {
        when: match raw.when {
            raw::When::Thresholds => ScaleDownWhen::Thresholds,
            raw::When::Fits => ScaleDownWhen::Fits,
        },
        cpu_percent,
        memory_percent,
        steer: raw.steer,
        sustained: duration("scale_down.sustained", &raw.sustained)?,
        cooldown: duration("scale_down.cooldown", &raw.cooldown)?,
        min_age: duration("scale_down.min_age", &raw.min_age)?,
        strictness: Strictness {
            kube_system_blocks: blocks(raw.kube_system),
            local_storage_blocks: blocks(raw.local_storage),
        },
        max_parallel_drains: raw.max_parallel_drains,
        max_parallel_empty: raw.max_parallel_empty,
        budget: budget("scale_down.budget", &raw.budget)?,
        min_saving_percent: percent("scale_down.min_saving_percent", raw.min_saving_percent)?,
        guard_percent: guard("scale_down.guard_percent", raw.guard_percent)?,
        unneeded_when_requests_below_percent: percent(
            "scale_down.unneeded_when_requests_below_percent",
            raw.unneeded_when_requests_below_percent,
        )?,
    })
}

/// A guard that asks for more would keep every node: pods that serve ten times what is asked of them are spare ones.
const MOST_GUARD: f64 = 1000.0;

fn guard(path: &str, value: f64) -> Result<Percent> {
    if !(0.0..=MOST_GUARD).contains(&value) {
        return error(
            path,
            format!("{value} is outside 0–{MOST_GUARD} %: expected 0, or for example 110"),
        );
    }
    Ok(Percent(value))
}

fn cost(raw: &raw::Cost) -> Result<Cost> {
    if !raw.eviction_usd.is_finite() || raw.eviction_usd < 0.0 {
        return error(
            "cost.eviction_usd",
            format!("{} is no amount: expected USD, 0 or more", raw.eviction_usd),
        );
    }
    let interruptions = raw.spot_interruptions_per_node_day;
    if !interruptions.is_finite() || interruptions < 0.0 {
        return error(
            "cost.spot_interruptions_per_node_day",
            format!("{interruptions} is no rate: expected interruptions of a node a day, for example 0.01"),
        );
    }
    Ok(Cost {
        eviction_usd: raw.eviction_usd,
        spot_interruptions_per_node_day: interruptions,
        payback: positive_duration("cost.payback", &raw.payback)?,
    })
}

fn currency(raw: &raw::Cost) -> Result<Currency> {
    let code = raw.currency.as_str();
    if code.len() != 3 || !code.bytes().all(|letter| letter.is_ascii_uppercase()) {
        return error(
            "cost.currency",
            format!(
                "`{code}` is no currency: expected three capital letters as in ISO 4217, for example BDT"
            ),
        );
    }
    let per_usd = match (code, raw.per_usd) {
        ("USD", None) => 1.0,
        (_, Some(per_usd)) if per_usd.is_finite() && per_usd > 0.0 => per_usd,
        (_, Some(per_usd)) => {
            return error(
                "cost.per_usd",
                format!("{per_usd} is no rate: expected a number above 0"),
            );
        }
        (code, None) => {
            return error(
                "cost.per_usd",
                format!("missing: expected how many {code} a USD is, for example 121.5"),
            );
        }
    };
    #[allow(clippy::float_cmp, reason = "nothing but 1 is 1")]
    if code == "USD" && per_usd != 1.0 {
        return error(
            "cost.per_usd",
            format!("{per_usd} with USD: expected another cost.currency, or none of it"),
        );
    }
    Ok(Currency {
        code: code.into(),
        per_usd,
    })
}

fn forecast(raw: &raw::Forecast) -> Result<Forecast> {
    if !(raw.quantile > 0.0 && raw.quantile < 1.0) {
        return error("forecast.quantile", format!("{} is outside (0, 1)", raw.quantile));
    }
    if !raw.max_extra_percent.is_finite() || raw.max_extra_percent < 0.0 {
        return error(
            "forecast.max_extra_percent",
            format!("{} is no percentage of 0 or more", raw.max_extra_percent),
        );
    }
    Ok(Forecast {
        enabled: raw.enabled,
        quantile: raw.quantile,
        max_extra_percent: percent("forecast.max_extra_percent", raw.max_extra_percent)?,
    })
}

fn described_types(raw: Vec<raw::InstanceType>) -> Result<BTreeMap<InstanceType, Arc<TypeSpec>>> {
    let mut types = BTreeMap::new();
    for (index, spec) in raw.into_iter().enumerate() {
        let path = format!("instance_type[{index}]");
        let spec = instance_type(&path, spec)?;
        if types.contains_key(&spec.name) {
            return error(format!("{path}.name"), format!("`{}` is given twice", spec.name));
        }
        types.insert(spec.name.clone(), Arc::new(spec));
    }
    Ok(types)
}

fn instance_type(path: &str, raw: raw::InstanceType) -> Result<TypeSpec> {
    let at = |key: &str| format!("{path}.{key}");
    if raw.name.trim().is_empty() {
        return error(at("name"), "is empty: expected a type such as t3.small");
    }
    let cpu = MilliCpu(milli(&at("cpu"), &raw.cpu)?);
    let memory = Bytes(units(&at("memory"), &raw.memory)?);
    if cpu == MilliCpu::ZERO {
        return error(at("cpu"), "is 0: expected the type's cores");
    }
    if memory == Bytes::ZERO {
        return error(at("memory"), "is 0: expected the type's memory");
    }
    let mut extended = BTreeMap::new();
    for (name, amount) in &raw.resources {
        extended.insert(
            Arc::from(name.as_str()),
            units(&at(&format!("resources.{name}")), amount)?,
        );
    }
    // What AWS says of its burstable types holds whoever states the price.
    let baseline_percent = catalogue::find(&raw.name).map_or(Percent(100.0), |spec| spec.baseline_percent);
    Ok(TypeSpec {
        cpu,
        memory,
        max_pods: raw.max_pods,
        arch: raw.arch.as_deref().unwrap_or("amd64").into(),
        ephemeral_storage: match &raw.ephemeral_storage {
            Some(disk) => Some(Bytes(units(&at("ephemeral_storage"), disk)?)),
            None => None,
        },
        extended,
        on_demand: price(&at("on_demand_price"), raw.on_demand_price)?,
        spot: match raw.spot_price {
            Some(spot) => SpotPrice::Everywhere(price(&at("spot_price"), spot)?),
            None => SpotPrice::None,
        },
        zones: match raw.zones {
            Some(zones) => Some(self::zones(&at("zones"), zones)?),
            None => None,
        },
        baseline_percent,
        built_in: false,
        name: raw.name.into(),
    })
}

fn pool(
    path: &str,
    raw: raw::Pool,
    limits: &Limits,
    described: &BTreeMap<InstanceType, Arc<TypeSpec>>,
) -> Result<Pool> {
    let at = |key: &str| format!("{path}.{key}");
    if raw.name.trim().is_empty() {
        return error(at("name"), "is empty: expected the pool's name");
    }
    let max_nodes = raw.max_nodes.unwrap_or(limits.max_nodes);
    if raw.min_nodes > max_nodes {
        return error(
            at("min_nodes"),
            format!("{} is above the pool's max_nodes = {max_nodes}", raw.min_nodes),
        );
    }
    let min_nodes = at_most(at("min_nodes"), raw.min_nodes, MOST_MINIMUM)?;
    let markets: BTreeSet<Market> = match &raw.markets {
        None => [Market::OnDemand].into(),
        Some(list) if list.is_empty() => {
            return error(
                at("markets"),
                "is empty: expected \"on-demand\", \"spot\" or both",
            );
        }
        Some(list) => list
            .iter()
            .map(|market| match market {
                raw::Market::Spot => Market::Spot,
                raw::Market::OnDemand => Market::OnDemand,
            })
            .collect(),
    };
    if raw
        .markets
        .as_ref()
        .is_some_and(|list| list.len() > markets.len())
    {
        return error(at("markets"), "names a market twice");
    }
    let spot_share = match raw.spot_share_percent {
        Some(share) => percent(&at("spot_share_percent"), share)?,
        None => Percent(0.0),
    };
    let mut types = match (raw.instance_types, raw.requirements) {
        (Some(_), Some(_)) => {
            return error(
                at("requirements"),
                "stands beside instance_types: expected one of the two",
            );
        }
        (None, None) => {
            return error(
                at("instance_types"),
                "is missing: expected instance_types or requirements",
            );
        }
        (Some(names), None) => named_types(&at("instance_types"), &names, described)?,
        (None, Some(requirements)) => required_types(&at("requirements"), &requirements, described)?,
    };
    types.sort_by(|a, b| a.by_price(b));
    let taints = raw
        .taints
        .into_iter()
        .enumerate()
        .map(|(index, taint)| {
            if taint.key.is_empty() {
                return error(at(&format!("taints[{index}].key")), "is empty");
            }
            Ok(Taint {
                key: taint.key.into(),
                value: taint.value.into(),
                effect: taint.effect,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Pool {
        name: raw.name.into(),
        min_nodes,
        max_nodes,
        types,
        zones: zones(&at("zones"), raw.zones)?,
        markets: markets.into_iter().collect(),
        on_demand_base: raw.on_demand_base,
        spot_share,
        startup_taints: raw
            .startup_taints
            .unwrap_or_else(|| vec![keys::UNVERIFIED.to_owned()])
            .into_iter()
            .map(Arc::from)
            .collect(),
        labels: raw
            .labels
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect(),
        taints,
        reserved: Reserved {
            cpu: MilliCpu(milli(&at("reserved.cpu"), &raw.reserved.cpu)?),
            memory: Bytes(units(&at("reserved.memory"), &raw.reserved.memory)?),
        },
        max_pods: raw.max_pods,
        burstable_cpu: match raw.burstable_cpu {
            raw::BurstableCpu::Nominal => BurstableCpu::Nominal,
            raw::BurstableCpu::Baseline => BurstableCpu::Baseline,
        },
        headroom: Headroom {
            cpu: kept(&at("headroom.cpu"), &raw.headroom.cpu, milli)?,
            memory: kept(&at("headroom.memory"), &raw.headroom.memory, units)?,
            pods: at_most(at("headroom.pods"), raw.headroom.pods, MOST_HEADROOM)?,
        },
        rebalance: on_notice(raw.rebalance),
        maintenance: on_notice(raw.maintenance),
        maintenance_lead: duration(&at("maintenance_lead"), &raw.maintenance_lead)?,
        drift: raw.drift,
        throttled: raw.throttled,
        max_age: match &raw.max_age {
            Some(most) => Some(max_age(&at("max_age"), most)?),
            None => None,
        },
    })
}

/// Nodes that have to go sooner than this would be replaced all the time.
const LEAST_MAX_AGE: Duration = Duration::from_secs(3600);

fn max_age(path: &str, text: &str) -> Result<Duration> {
    let most = duration(path, text)?;
    if most < LEAST_MAX_AGE {
        return error(path, format!("{text} is too short: expected at least 1h"));
    }
    Ok(most)
}

fn on_notice(raw: raw::OnNotice) -> OnNotice {
    match raw {
        raw::OnNotice::Ignore => OnNotice::Ignore,
        raw::OnNotice::Drain => OnNotice::Drain,
    }
}

/// Types by name: the file's own first, then the built-in catalogue's.
fn named_types(
    path: &str,
    names: &[String],
    described: &BTreeMap<InstanceType, Arc<TypeSpec>>,
) -> Result<Vec<Arc<TypeSpec>>> {
    if names.is_empty() {
        return error(path, "is empty: expected at least one type");
    }
    let mut seen = BTreeSet::new();
    let mut types = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        if !seen.insert(name) {
            return error(format!("{path}[{index}]"), format!("`{name}` is given twice"));
        }
        let Some(spec) = described.get(name.as_str()).or_else(|| catalogue::find(name)) else {
            return error(
                format!("{path}[{index}]"),
                format!(
                    "`{name}` is neither a type that EC2 is known to have nor described by an [[instance_type]]"
                ),
            );
        };
        types.push(Arc::clone(spec));
    }
    Ok(types)
}

/// Types by what they have: among those that the file describes, or, if it describes none, the built-in ones. Without
/// `arch` only amd64: an image built for it would not start elsewhere.
fn required_types(
    path: &str,
    requirements: &raw::Requirements,
    described: &BTreeMap<InstanceType, Arc<TypeSpec>>,
) -> Result<Vec<Arc<TypeSpec>>> {
    let cpu = match &requirements.cpu {
        Some(range) => self::range(&format!("{path}.cpu"), range, quantity::parse_milli)?,
        None => (0, i64::MAX),
    };
    let memory = match &requirements.memory {
        Some(range) => self::range(&format!("{path}.memory"), range, quantity::parse_units)?,
        None => (0, i64::MAX),
    };
    let arch: Vec<&str> = match &requirements.arch {
        Some(list) if list.is_empty() => {
            return error(
                format!("{path}.arch"),
                "is empty: expected \"amd64\", \"arm64\" or both",
            );
        }
        Some(list) => list.iter().map(String::as_str).collect(),
        None => vec!["amd64"],
    };
    let wanted = |spec: &&Arc<TypeSpec>| {
        // The built-in memory is an estimate below the nominal; a requirement speaks of the nominal.
        let nominal = if spec.built_in {
            spec.memory.as_f64() / catalogue::MEMORY_FACTOR
        } else {
            spec.memory.as_f64()
        };
        (cpu.0..=cpu.1).contains(&spec.cpu.0)
            && nominal + 1.0 >= Bytes(memory.0).as_f64()
            && nominal - 1.0 <= Bytes(memory.1).as_f64()
            && arch.contains(&&*spec.arch)
    };
    let types: Vec<_> = if described.is_empty() {
        catalogue::types().values().filter(wanted).cloned().collect()
    } else {
        described.values().filter(wanted).cloned().collect()
    };
    if types.is_empty() {
        return error(path, "no known instance type satisfies them");
    }
    Ok(types)
}

/// `a..b`, `a..`, `..b` or `a`, both ends included.
fn range(
    path: &str,
    range: &Scalar,
    parse: fn(&str) -> std::result::Result<i64, quantity::QuantityError>,
) -> Result<(i64, i64)> {
    let bound = |text: &str, open: i64| {
        if text.is_empty() {
            return Ok(open);
        }
        parse(text).or_else(|e| {
            error(
                path,
                format!("{e}; expected a range such as \"2..8\", \"4Gi..\" or \"..16\""),
            )
        })
    };
    let (low, high) = match range.0.split_once("..") {
        Some((low, high)) => (bound(low.trim(), 0)?, bound(high.trim(), i64::MAX)?),
        None => {
            let only = bound(range.0.trim(), 0)?;
            (only, only)
        }
    };
    if low > high {
        return error(
            path,
            format!("`{}` is empty: its lower bound is above its upper", range.0),
        );
    }
    Ok((low, high))
}

fn zones(path: &str, raw: Vec<String>) -> Result<Vec<Zone>> {
    if raw.is_empty() {
        return error(path, "is empty: expected at least one zone");
    }
    let count = raw.len();
    let zones: BTreeSet<Zone> = raw.into_iter().map(Zone::from).collect();
    if zones.iter().any(|zone| zone.as_str().trim().is_empty()) {
        return error(path, "has an empty name: expected zones such as us-east-1a");
    }
    if zones.len() < count {
        return error(path, "names a zone twice");
    }
    Ok(zones.into_iter().collect())
}

/// The warning where nothing of the pool at `path` can be bought.
pub(super) fn nothing_to_buy(path: &str, pool: &Pool) -> Option<Warning> {
    let can_be_bought = pool.types.iter().any(|spec| {
        pool.zones.iter().any(|zone| {
            pool.markets
                .iter()
                .any(|market| pool.price(spec, zone, *market).is_some())
        })
    });
    (!can_be_bought).then(|| Warning {
        path: path.to_owned(),
        message: format!(
            "no type of pool `{}` can be bought in its zones and markets",
            pool.name
        ),
    })
}

fn percent(path: &str, value: f64) -> Result<Percent> {
    if !(0.0..=100.0).contains(&value) {
        return error(path, format!("{value} is outside 0–100 %"));
    }
    Ok(Percent(value))
}

fn below(path: &str, value: f64, up_path: &str, up: Percent) -> Result<Percent> {
    let value = percent(path, value)?;
    if value >= up {
        return error(
            path,
            format!(
                "{} is not below {up_path} = {}: nodes would be added and removed in turns",
                value.0, up.0
            ),
        );
    }
    Ok(value)
}

fn price(path: &str, value: f64) -> Result<Price> {
    Ok(Price {
        per_hour: usd(path, value)?,
        source: PriceSource::Policy,
        at: None,
    })
}

fn usd(path: &str, value: f64) -> Result<f64> {
    if !value.is_finite() || value < 0.0 {
        return error(
            path,
            format!("{value} is no price: expected USD per hour, 0 or more"),
        );
    }
    Ok(value)
}

fn duration(path: &str, text: &str) -> Result<Duration> {
    duration::parse(text).or_else(|e| error(path, e.to_string()))
}

fn positive_duration(path: &str, text: &str) -> Result<Duration> {
    let value = duration(path, text)?;
    if value.is_zero() {
        return error(path, "is 0: expected a duration above 0");
    }
    Ok(value)
}

fn milli(path: &str, text: &Scalar) -> Result<i64> {
    quantity::parse_milli(&text.0).or_else(|e| error(path, e.to_string()))
}

fn units(path: &str, text: &Scalar) -> Result<i64> {
    quantity::parse_units(&text.0).or_else(|e| error(path, e.to_string()))
}

/// An amount, or a percentage: all of it can never be free where a pod runs.
fn kept(path: &str, text: &Scalar, amount: fn(&str, &Scalar) -> Result<i64>) -> Result<Kept> {
    let Some(share) = text.0.trim().strip_suffix('%') else {
        return amount(path, text).map(Kept::Amount);
    };
    match share.trim().parse::<f64>() {
        Ok(share) if (0.0..100.0).contains(&share) => Ok(Kept::Share(Percent(share))),
        _ => error(
            path,
            format!(
                "`{}` is no percentage of 0 or more and below 100: expected for example \"10%\"",
                text.0
            ),
        ),
    }
}

fn budget(path: &str, text: &Scalar) -> Result<Budget> {
    let wrong = || {
        error(
            path,
            format!(
                "`{}` is neither a count nor a percentage of 0–100: expected for example 2 or \"20%\"",
                text.0
            ),
        )
    };
    match text.0.trim().strip_suffix('%') {
        Some(share) => match share.trim().parse::<f64>() {
            Ok(share) if (0.0..=100.0).contains(&share) => Ok(Budget::Share(Percent(share))),
            _ => wrong(),
        },
        None => text
            .0
            .trim()
            .parse()
            .map_or_else(|_| wrong(), |count| Ok(Budget::Count(count))),
    }
}
