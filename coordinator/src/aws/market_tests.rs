#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use aws_sdk_ec2::{primitives::DateTime, types::GpuDeviceInfo};
use serde_json::{Value, json};

use super::*;

fn info(name: &str, mebibytes: i64) -> aws_sdk_ec2::types::builders::InstanceTypeInfoBuilder {
    let processor = ProcessorInfo::builder()
        .supported_architectures(ArchitectureType::I386)
        .supported_architectures(ArchitectureType::X8664);
    InstanceTypeInfo::builder()
        .instance_type(name.into())
        .v_cpu_info(VCpuInfo::builder().default_v_cpus(4).build())
        .memory_info(MemoryInfo::builder().size_in_mib(mebibytes).build())
        .processor_info(processor.build())
        .supported_usage_classes(UsageClassType::OnDemand)
}

#[test]
fn a_type_is_read_with_its_accelerators_by_maker() {
    let gpu = |maker: &str, count| GpuDeviceInfo::builder().manufacturer(maker).count(count).build();
    let gpus = GpuInfo::builder()
        .gpus(gpu("NVIDIA", 4))
        .gpus(gpu("Habana", 8))
        .build();
    let (name, nominal) = super::nominal(&info("g.large", 16_384).gpu_info(gpus).build()).unwrap();
    assert_eq!((name.as_str(), &*nominal.arch), ("g.large", "amd64"));
    assert_eq!((nominal.cpu, nominal.memory), (MilliCpu(4000), Bytes(16 << 30)));
    assert_eq!(nominal.extended, [("nvidia.com/gpu".into(), 4)].into());
    assert!(!nominal.spot);
}

#[test]
fn a_type_that_lacks_something_is_said() {
    let bare = InstanceTypeInfo::builder()
        .instance_type("x.large".into())
        .build();
    assert_eq!(super::nominal(&bare).unwrap_err(), "x.large without CPUs");
    let endless = info("x.large", i64::MAX).build();
    assert_eq!(super::nominal(&endless).unwrap_err(), "x.large without memory");
}

#[test]
fn spot_prices_of_other_systems_are_passed_over_and_nonsense_is_said() {
    let price = |price: &str, product: &str| {
        SpotPrice::builder()
            .instance_type("m5.large".into())
            .availability_zone("us-east-1a")
            .product_description(RiProductDescription::from(product))
            .timestamp(DateTime::from_secs(60))
            .spot_price(price)
            .build()
    };
    assert_eq!(super::spot(&price("0.1", "Windows")), None);
    let quote = super::spot(&price("0.0312", "Linux/UNIX")).unwrap().unwrap();
    assert_eq!((quote.per_hour, quote.since.as_second()), (0.0312, 60));
    assert_eq!(
        super::spot(&price("cheap", "Linux/UNIX")).unwrap().unwrap_err(),
        "m5.large in us-east-1a at `cheap`"
    );
    assert!(super::spot(&SpotPrice::builder().build()).unwrap().is_err());
}

fn product(dimensions: &Value) -> String {
    json!({
        "product": { "productFamily": "Compute Instance", "attributes": { "instanceType": "m5.large", "vcpu": "2" } },
        "serviceCode": "AmazonEC2",
        "terms": { "OnDemand": { "A.JRTCKXETXF": { "priceDimensions": dimensions, "sku": "A" } }, "Reserved": {} }
    })
    .to_string()
}

#[test]
fn the_price_list_is_read_for_its_one_price_per_hour() {
    let hourly = |usd: &str| json!({ "unit": "Hrs", "pricePerUnit": { "USD": usd } });
    let one = product(&json!({ "A.6YS6EN2CT7": hourly("0.0960000000") }));
    assert_eq!(super::on_demand(&one), Ok(("m5.large".into(), 0.096)));
    for (json, problem) in [
        (
            product(&json!({ "a": hourly("0.1"), "b": hourly("0.2") })),
            "more than one price",
        ),
        (product(&json!({ "a": hourly("much") })), "no number"),
        (
            product(&json!({ "a": { "unit": "Quantity", "pricePerUnit": { "USD": "1" } } })),
            "without a price",
        ),
        (
            product(&json!({ "a": { "unit": "Hrs", "pricePerUnit": { "CNY": "1" } } })),
            "without a price",
        ),
        ("{}".to_owned(), "cannot be read"),
    ] {
        let said = super::on_demand(&json).unwrap_err();
        assert!(said.contains(problem), "{said}");
    }
}

mod fuzz {
    use smartscale_fuzz::{Target, fuzz};

    use super::*;

    #[test]
    fn products_of_the_price_list() {
        let product = json!({
            "product": { "attributes": { "instanceType": "m5.large" } },
            "terms": { "OnDemand": { "A.B": { "priceDimensions": {
                "A.B.C": { "unit": "Hrs", "pricePerUnit": { "USD": "0.0960000000" } } } } } }
        })
        .to_string();
        let target = Target {
            name: "coordinator/prices",
            seeds: &[product.as_bytes()],
            words: &[
                "\"USD\":", "\"Hrs\"", "\"NaN\"", "\"-1\"", "{", "}", ",", "\"inf\"",
            ],
            kept: None,
        };
        fuzz(target, |input| match on_demand(&String::from_utf8_lossy(input)) {
            Ok(_) => "taken".to_owned(),
            Err(error) => error,
        });
    }
}
