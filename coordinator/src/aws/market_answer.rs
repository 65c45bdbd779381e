//! What AWS answers, in the market's terms. What is missing or cannot be read is said, entry by entry.

use std::{collections::BTreeMap, sync::Arc};

use aws_sdk_ec2::types::{
    ArchitectureType, GpuInfo, InstanceTypeInfo, InstanceTypeOffering, MemoryInfo, ProcessorInfo,
    RiProductDescription, SpotPrice, UsageClassType, VCpuInfo,
};
use jiff::Timestamp;
use serde::Deserialize;
use smartscale_planner::{
    model::{Bytes, InstanceType, MilliCpu, Zone},
    policy::Nominal,
};

use super::PRODUCTS;
use crate::observe::market::SpotQuote;

/// What a type has.
pub(super) fn nominal(info: &InstanceTypeInfo) -> Result<(InstanceType, Nominal), String> {
    let name = info.instance_type().ok_or("a type without a name")?.as_str();
    let lacks = |what: &str| format!("{name} without {what}");
    let cpus = info.v_cpu_info().and_then(VCpuInfo::default_v_cpus);
    let memory = info.memory_info().and_then(MemoryInfo::size_in_mib);
    let architectures = info
        .processor_info()
        .map(ProcessorInfo::supported_architectures)
        .unwrap_or_default();
    let arch = architectures.iter().find_map(|arch| match arch {
        ArchitectureType::X8664 => Some("amd64"),
        ArchitectureType::Arm64 => Some("arm64"),
        _ => None,
    });
    let nominal = Nominal {
        cpu: MilliCpu(i64::from(cpus.ok_or_else(|| lacks("CPUs"))?) * 1000),
        memory: memory
            .and_then(|mebibytes| mebibytes.checked_mul(1 << 20))
            .map(Bytes)
            .ok_or_else(|| lacks("memory"))?,
        arch: arch.ok_or_else(|| lacks("an architecture of ours"))?.into(),
        extended: accelerators(info),
        spot: info.supported_usage_classes().contains(&UsageClassType::Spot),
    };
    Ok((name.into(), nominal))
}

/// Accelerators under the names that their makers' device plugins give them. Those of other makers are not counted.
fn accelerators(info: &InstanceTypeInfo) -> BTreeMap<Arc<str>, i64> {
    let mut extended = BTreeMap::new();
    let gpus = info.gpu_info().map(GpuInfo::gpus).unwrap_or_default();
    for gpu in gpus {
        let name = match gpu.manufacturer() {
            Some(maker) if maker.eq_ignore_ascii_case("NVIDIA") => "nvidia.com/gpu",
            Some(maker) if maker.eq_ignore_ascii_case("AMD") => "amd.com/gpu",
            _ => continue,
        };
        // A share of a GPU is one to its device plugin.
        let count = gpu.logical_gpu_count().or(gpu.count());
        if let Some(count) = count.filter(|count| *count != 0) {
            *extended.entry(Arc::from(name)).or_insert(0) += i64::from(count);
        }
    }
    extended
}

/// Where a type is offered.
pub(super) fn offered(offering: &InstanceTypeOffering) -> Result<(InstanceType, Zone), String> {
    let name = offering
        .instance_type()
        .ok_or("an offering without a type")?
        .as_str();
    let zone = offering.location();
    let zone = zone.ok_or_else(|| format!("{name} in a zone without a name"))?;
    Ok((name.into(), zone.into()))
}

/// What a Linux machine costs as spot; `None` is the price of something else.
pub(super) fn spot(price: &SpotPrice) -> Option<Result<SpotQuote, String>> {
    let product = price.product_description().map(RiProductDescription::as_str);
    if product.is_some_and(|product| !PRODUCTS.contains(&product)) {
        return None;
    }
    let name = price
        .instance_type()
        .map_or("a type without a name", |name| name.as_str());
    let zone = price.availability_zone().unwrap_or("a zone without a name");
    let quote = || {
        let since = price.timestamp()?;
        let since = Timestamp::new(since.secs(), i32::try_from(since.subsec_nanos()).ok()?).ok()?;
        Some(SpotQuote {
            instance_type: price.instance_type()?.as_str().into(),
            zone: price.availability_zone()?.into(),
            per_hour: price.spot_price()?.parse().ok()?,
            since,
        })
    };
    Some(quote().ok_or_else(|| {
        let said = price.spot_price().unwrap_or("nothing");
        format!("{name} in {zone} at `{said}`")
    }))
}

/// A product of the price list, as far as it is read:
/// <https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/reading-service-price-list-file-for-services.html>.
#[derive(Deserialize)]
struct Product {
    product: ProductOfList,
    terms: Terms,
}

#[derive(Deserialize)]
struct ProductOfList {
    attributes: Attributes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attributes {
    instance_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Terms {
    #[serde(default)]
    on_demand: BTreeMap<String, Term>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Term {
    price_dimensions: BTreeMap<String, Dimension>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dimension {
    unit: String,
    price_per_unit: BTreeMap<String, String>,
}

/// What a product of the price list costs on demand, in USD per hour.
pub(super) fn on_demand(json: &str) -> Result<(InstanceType, f64), String> {
    let product: Product =
        serde_json::from_str(json).map_err(|error| format!("a product that cannot be read: {error}"))?;
    let name = product.product.attributes.instance_type;
    let dimensions = product.terms.on_demand.values();
    let mut prices = dimensions
        .flat_map(|term| term.price_dimensions.values())
        .filter(|dimension| dimension.unit == "Hrs")
        .filter_map(|dimension| dimension.price_per_unit.get("USD"));
    let (price, another) = (prices.next(), prices.next());
    match price.map(|price| price.parse::<f64>()) {
        Some(Ok(price)) if another.is_none() => Ok((name.into(), price)),
        Some(_) if another.is_some() => Err(format!("{name} at more than one price")),
        Some(_) => Err(format!("{name} at a price that is no number")),
        None => Err(format!("{name} without a price in USD per hour")),
    }
}

#[cfg(test)]
#[path = "market_tests.rs"]
mod tests;
