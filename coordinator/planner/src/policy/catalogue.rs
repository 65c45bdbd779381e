//! The built-in catalogue of EC2 types: what `policy.toml` need not describe.
//!
//! Carried as the CSV file of AWS's published figures (`data/README.md`). Two of its figures are assumptions that the
//! output names: memory is 7.5 % below the nominal (hypervisor and kernel keep some), and spot costs 35 % of on demand.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;

use super::{Price, PriceSource, SpotPrice, TypeSpec};
use crate::model::{Bytes, MilliCpu, Percent};

/// Of the nominal memory, a node reports this much as capacity.
pub(super) const MEMORY_FACTOR: f64 = 0.925;
/// Spot is assumed to cost this much of on demand.
const SPOT_FACTOR: f64 = 0.35;
/// When its prices were true: 2026-07-20 (`data/README.md`).
const AS_OF: Timestamp = Timestamp::constant(1_784_505_600, 0);

static TYPES: OnceLock<BTreeMap<&'static str, Arc<TypeSpec>>> = OnceLock::new();

/// The type of this name.
pub(super) fn find(name: &str) -> Option<&'static Arc<TypeSpec>> {
    types().get(name)
}

/// All types, by name.
pub(super) fn types() -> &'static BTreeMap<&'static str, Arc<TypeSpec>> {
    TYPES.get_or_init(|| {
        include_str!("../../data/ec2-us-east-1.csv")
            .lines()
            .skip(1)
            .filter_map(|line| {
                parse(line).map(|spec| (line.split(',').next().unwrap_or_default(), Arc::new(spec)))
            })
            .collect()
    })
}

/// What a node reports as capacity of such a nominal memory.
pub(super) fn capacity(nominal: Bytes) -> Bytes {
    #[allow(clippy::cast_possible_truncation, reason = "the memory of a machine")]
    let bytes = (nominal.as_f64() * MEMORY_FACTOR).floor() as i64;
    Bytes(bytes)
}

/// One row. Columns: name, vcpus, memory_mib, arch, gpus, gpu_name, local_storage_gb, current_generation, burstable,
/// bare_metal, spot_supported, max_enis, ipv4_per_eni, on_demand_usd_per_hour, baseline_percent.
fn parse(line: &str) -> Option<TypeSpec> {
    let fields: Vec<&str> = line.split(',').collect();
    let [
        name,
        vcpus,
        memory,
        arch,
        gpus,
        gpu_name,
        ..,
        spot,
        _,
        _,
        price,
        baseline,
    ] = fields.as_slice()
    else {
        return None;
    };
    let gpus: i64 = gpus.parse().ok()?;
    let price_of = |per_hour| Price {
        per_hour,
        source: PriceSource::Catalogue,
        at: Some(AS_OF),
    };
    let on_demand: f64 = price.parse().ok()?;
    let nominal = Bytes(memory.parse::<i64>().ok()?.checked_mul(1 << 20)?);
    Some(TypeSpec {
        name: (*name).into(),
        cpu: MilliCpu(vcpus.parse::<i64>().ok()? * 1000),
        memory: capacity(nominal),
        max_pods: None,
        arch: (*arch).into(),
        ephemeral_storage: None,
        extended: if gpus > 0 && !gpu_name.is_empty() {
            [("nvidia.com/gpu".into(), gpus)].into()
        } else {
            BTreeMap::new()
        },
        on_demand: price_of(on_demand),
        spot: if *spot == "true" {
            SpotPrice::Everywhere(price_of((on_demand * SPOT_FACTOR * 1e6).round() / 1e6))
        } else {
            SpotPrice::None
        },
        zones: None,
        baseline_percent: Percent(baseline.parse().ok()?),
        built_in: true,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    #[test]
    fn every_row_of_the_file_is_a_type() {
        assert_eq!(
            types().len(),
            include_str!("../../data/ec2-us-east-1.csv").lines().count() - 1
        );
    }

    #[test]
    fn a_small_burstable_type_is_as_published() {
        let spec = find("t3.small").unwrap();
        assert_eq!(
            (spec.cpu, spec.on_demand.per_hour, spec.baseline_percent),
            (MilliCpu(2000), 0.0208, Percent(20.0))
        );
        assert_eq!(spec.memory, Bytes(1_986_422_374));
        assert!(matches!(spec.spot, SpotPrice::Everywhere(price) if price.per_hour == 0.00728));
        assert_eq!(find("t2.nano").unwrap().spot, SpotPrice::None);
    }

    #[test]
    fn its_prices_are_of_the_day_that_the_files_description_names() {
        let day = AS_OF.to_string();
        let day = day.split('T').next().unwrap();
        assert!(include_str!("../../data/README.md").contains(day), "{day}");
    }
}
