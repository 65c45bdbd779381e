//! The market on AWS: types, zones and prices are those that EC2 and the price list tell, whatever else they tell.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use smartscale_coordinator::aws::market::AwsMarket;
use smartscale_coordinator::observe::market::{Answer, MarketSource as _};
use smartscale_planner::model::{Bytes, InstanceType, MilliCpu};
use smartscale_planner::policy::Undescribed;
use smartscale_tests::rig::ec2::{Fault, SpotPrice};
use smartscale_tests::rig::{Ec2, Folder, aws};

async fn market(name: &str) -> (Folder, Ec2, AwsMarket) {
    let folder = Folder::new(name).unwrap();
    let ec2 = Ec2::start(&folder).await.unwrap();
    let config = aws::config(&ec2.url(), &aws::Key::root()).await;
    (folder, ec2, AwsMarket::new(&config))
}

fn wanted(types: &[&str]) -> Undescribed {
    Undescribed {
        types: types.iter().map(|name| (*name).into()).collect(),
        zones: ["us-east-1a", "us-east-1b"].map(Into::into).into(),
        spot: true,
    }
}

fn entries<T>(answer: Answer<T>) -> Vec<T> {
    assert_eq!(answer.problems, Vec::<String>::new());
    answer.entries
}

#[tokio::test(flavor = "multi_thread")]
async fn types_and_their_zones_are_told_and_a_type_that_ec2_does_not_know_is_left_out() {
    let (_folder, _ec2, market) = market("market-types").await;
    let wanted = wanted(&["t3.small", "m6g.large", "g4dn.xlarge", "m5.gigantic"]);
    let types: BTreeMap<_, _> = entries(market.types(&wanted).await.unwrap())
        .into_iter()
        .collect();
    let names: Vec<_> = types.keys().map(InstanceType::as_str).collect();
    assert_eq!(names, ["g4dn.xlarge", "m6g.large", "t3.small"]);
    let small = &types["t3.small"];
    assert_eq!(
        (small.cpu, small.memory, small.spot),
        (MilliCpu(2000), Bytes(2 << 30), true)
    );
    assert_eq!(&*types["m6g.large"].arch, "arm64");
    assert_eq!(
        types["g4dn.xlarge"].extended,
        [("nvidia.com/gpu".into(), 1)].into()
    );

    let zones: BTreeSet<_> = entries(market.zones(&wanted).await.unwrap())
        .into_iter()
        .collect();
    assert!(zones.contains(&("t3.small".into(), "us-east-1a".into())));
    assert!(
        zones
            .iter()
            .all(|(name, zone)| wanted.zones.contains(zone) && types.contains_key(name))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_more_types_than_one_call_takes_hears_of_all_of_them() {
    let (_folder, ec2, market) = market("market-many").await;
    let policy = r#"
[cluster]
id = "demo"
[[pool]]
name = "workers"
requirements = { cpu = "2..16" }
zones = ["us-east-1a"]
"#;
    let wanted = smartscale_planner::Policy::from_toml(policy)
        .unwrap()
        .0
        .undescribed();
    assert!(wanted.types.len() > 200, "{}", wanted.types.len());
    let types = entries(market.types(&wanted).await.unwrap());
    assert!(types.len() > 150, "{} of {}", types.len(), wanted.types.len());
    let calls = ec2.calls().await.unwrap();
    let calls = calls
        .iter()
        .filter(|call| call.action == "DescribeInstanceTypes")
        .count();
    assert!(calls >= wanted.types.len().div_ceil(100), "{calls} calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn spot_prices_come_from_all_pages_and_only_those_of_linux() {
    let (_folder, ec2, market) = market("market-spot").await;
    let price = |name: &str, zone: &str, price: &str, product: &str| SpotPrice {
        instance_type: name.into(),
        zone: zone.into(),
        price: price.into(),
        product: product.into(),
        at: Timestamp::from_second(1_790_000_000).unwrap(),
    };
    let linux = "Linux/UNIX";
    let prices = [
        price("t3.small", "us-east-1a", "0.0062", linux),
        price("t3.small", "us-east-1b", "0.0071", "Linux/UNIX (Amazon VPC)"),
        price("t3.small", "us-east-1c", "0.0001", linux),
        price("m5.large", "us-east-1a", "0.0310", linux),
        price("m5.large", "us-east-1a", "0.1310", "Windows"),
        price("m5.large", "us-east-1b", "for free", linux),
        price("c5.large", "us-east-1a", "0.0300", linux),
    ];
    ec2.set_prices(&prices, &BTreeMap::new()).await.unwrap();
    let answer = market
        .spot_prices(&wanted(&["t3.small", "m5.large"]))
        .await
        .unwrap();
    let told: Vec<_> = answer
        .entries
        .iter()
        .map(|quote| (quote.instance_type.as_str(), quote.zone.as_str(), quote.per_hour))
        .collect();
    assert_eq!(
        told,
        [
            ("t3.small", "us-east-1a", 0.0062),
            ("t3.small", "us-east-1b", 0.0071),
            ("m5.large", "us-east-1a", 0.031),
        ]
    );
    assert_eq!(answer.entries[0].since.as_second(), 1_790_000_000);
    assert_eq!(answer.problems, ["m5.large in us-east-1b at `for free`"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_demand_prices_come_from_the_price_list_for_few_types_and_for_many() {
    let (_folder, ec2, market) = market("market-list").await;
    let list = [
        ("t3.small", "0.0208000000"),
        ("m5.large", "0.0960000000"),
        ("m5.metal", "much"),
    ]
    .into();
    ec2.set_prices(&[], &list).await.unwrap();
    let few = market
        .on_demand_prices(&wanted(&["t3.small", "m5.large", "c5.large"]))
        .await
        .unwrap();
    assert_eq!(
        few.entries,
        [("m5.large".into(), 0.096), ("t3.small".into(), 0.0208)]
    );
    let many: Vec<String> = (0..30).map(|number| format!("x{number}.large")).collect();
    let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
    many.push("t3.small");
    let many = market.on_demand_prices(&wanted(&many)).await.unwrap();
    assert_eq!(many.entries, few.entries);
    assert_eq!(many.problems, ["m5.metal at a price that is no number"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_not_allowed_is_an_error_in_words() {
    let (_folder, ec2, market) = market("market-denied").await;
    let fault = Fault {
        action: "DescribeSpotPriceHistory".into(),
        code: Some("UnauthorizedOperation".into()),
        status: Some(403),
        ..Fault::default()
    };
    ec2.set_faults(&[fault]).await.unwrap();
    let error = market.spot_prices(&wanted(&["t3.small"])).await.unwrap_err();
    assert!(error.to_string().contains("UnauthorizedOperation"), "{error}");
}
