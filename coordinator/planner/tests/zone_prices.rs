//! Spot prices that differ by zone: the cheaper zone is taken, zones that cost nearly the same are used evenly, and what is
//! said is the zone's own price.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use std::collections::BTreeMap;

use smartscale_planner::{
    Launch, Plan, Policy, PriceSource, Snapshot,
    fixtures::{now, pod, policy_of, snapshot},
    model::{InstanceType, Zone},
    policy::{Offers, Price},
};

const POLICY: &str = r#"
[cluster]
id = "demo"
[limits]
min_nodes = 0
max_nodes = 40
[[pool]]
name = "workers"
instance_types = ["m5.large", "m5.xlarge"]
zones = ["us-east-1a", "us-east-1b", "us-east-1c"]
markets = ["spot"]
"#;

/// What types cost against an m5.large.
const FACTORS: [(&str, f64); 6] = [
    ("c5.large", 0.89),
    ("c5.xlarge", 1.78),
    ("m5.large", 1.0),
    ("m5.xlarge", 2.0),
    ("r5.large", 1.31),
    ("r5.xlarge", 2.62),
];

/// Prices of m5.large by zone; all others follow.
fn at(prices: [f64; 3]) -> Policy {
    of_text(POLICY, prices)
}

fn of_text(text: &str, prices: [f64; 3]) -> Policy {
    let zones = ["us-east-1a", "us-east-1b", "us-east-1c"].map(Zone::from);
    let of = |factor: f64| -> BTreeMap<Zone, Price> {
        let quoted = |price: f64| Price {
            per_hour: price * factor,
            source: PriceSource::SpotPriceHistory,
            at: Some(now() - jiff::SignedDuration::from_secs(90)),
        };
        zones.iter().cloned().zip(prices.map(quoted)).collect()
    };
    let spot: BTreeMap<InstanceType, BTreeMap<Zone, Price>> =
        FACTORS.map(|(name, factor)| (name.into(), of(factor))).into();
    let offers = Offers {
        spot,
        ..Offers::default()
    };
    let (policy, warnings) = policy_of(text).with_offers(&offers);
    assert!(warnings.is_empty());
    policy
}

/// So many pods, each of which fills an m5.large.
fn waiting(pods: usize) -> Snapshot {
    let large = |index: usize| pod(&format!("default/web-{index:02}")).cpu("1500m").memory("4Gi");
    snapshot(
        Vec::<smartscale_planner::model::Node>::new(),
        (0..pods).map(large),
    )
}

fn plan(pods: usize, policy: &Policy) -> Plan {
    smartscale_planner::plan(&waiting(pods), policy, now())
}

fn by_zone(plan: &Plan) -> BTreeMap<&str, usize> {
    let mut zones = BTreeMap::new();
    for Launch { zone, .. } in &plan.launch {
        *zones.entry(zone.as_str()).or_default() += 1;
    }
    zones
}

#[test]
fn nodes_are_launched_in_the_cheapest_zone() {
    for pods in [1, 2, 12] {
        let plan = plan(pods, &at([0.04, 0.03, 0.05]));
        assert_eq!(plan.pods.placed, pods);
        assert_eq!(
            by_zone(&plan).into_keys().collect::<Vec<_>>(),
            ["us-east-1b"],
            "{pods} pods"
        );
    }
}

#[test]
fn a_batch_is_packed_as_well_as_if_there_were_the_cheapest_zone_alone() {
    let sized = |index: usize| {
        let cpu = 150 + 170 * (index % 9);
        let memory = 300 + 410 * (index % 7);
        pod(&format!("default/mix-{index:02}"))
            .cpu(&format!("{cpu}m"))
            .memory(&format!("{memory}Mi"))
    };
    let none = Vec::<smartscale_planner::model::Node>::new();
    let snapshot = snapshot(none, (0..200).map(sized));
    let cost = |policy: &Policy| {
        let plan = smartscale_planner::plan(&snapshot, policy, now());
        assert_eq!(plan.pods.placed, 200);
        plan.launch
            .iter()
            .map(|launch| launch.price_per_hour)
            .sum::<f64>()
    };
    let prices = [0.034, 0.031, 0.033];
    let families = POLICY
        .replace(
            r#""m5.large","#,
            r#""c5.large", "c5.xlarge", "r5.large", "r5.xlarge", "m5.large","#,
        )
        .replace("max_nodes = 40", "max_nodes = 400");
    let alone = families.replace(
        r#"["us-east-1a", "us-east-1b", "us-east-1c"]"#,
        r#"["us-east-1b"]"#,
    );
    let (all, alone) = (cost(&of_text(&families, prices)), cost(&of_text(&alone, prices)));
    assert!(all <= alone + 1e-9, "{all} with three zones, {alone} with one");
}

#[test]
fn zones_that_cost_nearly_the_same_are_used_evenly_each_at_its_own_price() {
    let plan = plan(12, &at([0.0300, 0.0309, 0.05]));
    let zones = by_zone(&plan);
    assert_eq!(
        zones.keys().copied().collect::<Vec<_>>(),
        ["us-east-1a", "us-east-1b"]
    );
    assert!(
        zones["us-east-1a"].abs_diff(zones["us-east-1b"]) <= 1,
        "{zones:?}"
    );
    for launch in &plan.launch {
        let factor = if launch.instance_types[0].as_str() == "m5.large" {
            1.0
        } else {
            2.0
        };
        let own = if launch.zone.as_str() == "us-east-1a" {
            0.0300
        } else {
            0.0309
        };
        assert!((launch.price_per_hour - own * factor).abs() < 1e-12, "{launch:?}");
        assert_eq!(launch.price_source, Some(PriceSource::SpotPriceHistory));
        assert_eq!(launch.price_age_seconds, Some(90));
    }
    assert!(plan.assumptions.iter().all(|one| !one.contains("spot prices")));
}

#[test]
fn the_types_of_a_launch_are_in_the_order_of_what_they_cost_in_its_zone() {
    let quoted = |per_hour| Price {
        per_hour,
        source: PriceSource::SpotPriceHistory,
        at: Some(now()),
    };
    // In zone a the larger one is the cheaper; but it counts as much as it costs in zone b.
    let prices = [("m5.large", 0.0312, 0.0312), ("m5.xlarge", 0.0309, 0.0320)];
    let of = |(name, a, b): (&str, f64, f64)| {
        let zones = [("us-east-1a".into(), quoted(a)), ("us-east-1b".into(), quoted(b))];
        (InstanceType::from(name), zones.into())
    };
    let offers = Offers {
        spot: prices.map(of).into(),
        ..Offers::default()
    };
    let (policy, _) = policy_of(POLICY).with_offers(&offers);
    let plan = plan(1, &policy);
    let launch = &plan.launch[0];
    assert_eq!(launch.zone.as_str(), "us-east-1a");
    assert_eq!(
        launch.instance_types,
        ["m5.xlarge", "m5.large"].map(InstanceType::from)
    );
    assert!((launch.price_per_hour - 0.0309).abs() < 1e-12);
}

#[test]
fn zones_that_all_cost_the_same_are_used_as_if_there_were_one_price() {
    let everywhere = POLICY.to_owned()
        + "[[instance_type]]\nname = \"m5.large\"\ncpu = 2\nmemory = \"7945689497\"\non_demand_price = 0.096\nspot_price = 0.03\n\
           [[instance_type]]\nname = \"m5.xlarge\"\ncpu = 4\nmemory = \"15891378995\"\non_demand_price = 0.192\nspot_price = 0.06\n";
    let one = plan(13, &policy_of(&everywhere));
    let each = plan(13, &at([0.03, 0.03, 0.03]));
    let shape = |plan: &Plan| -> Vec<_> {
        let launches = plan.launch.iter();
        launches
            .map(|launch| {
                (
                    launch.zone.clone(),
                    launch.instance_types.clone(),
                    launch.pods.clone(),
                )
            })
            .collect()
    };
    assert_eq!(shape(&one), shape(&each));
    assert_eq!(one.placements, each.placements);
}
