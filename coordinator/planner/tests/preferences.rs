//! Preferences are honoured while that costs nothing.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use smartscale_planner::{
    Plan, Policy, Snapshot,
    fixtures::{PodFixture, node, now, pod, policy_of, snapshot},
    model::{Pod, TaintEffect, keys},
    plan,
};

/// Three zones, one type of 2 CPUs and one of 4 at twice the price; `dear` is dearer than they.
fn policy() -> Policy {
    policy_of(
        r#"
[cluster]
id = "test"
[limits]
min_nodes = 0
max_nodes = 100
[[pool]]
name = "workers"
instance_types = ["small", "other"]
zones = ["us-east-1a", "us-east-1b", "us-east-1c"]
[[pool]]
name = "twin"
instance_types = ["small"]
zones = ["us-east-1a", "us-east-1b", "us-east-1c"]
labels = { tier = "web" }
[[pool]]
name = "dear"
instance_types = ["dear"]
zones = ["us-east-1d"]
[[instance_type]]
name = "small"
cpu = "2"
memory = "8Gi"
on_demand_price = 0.1
[[instance_type]]
name = "other"
cpu = "2"
memory = "8Gi"
on_demand_price = 0.1
[[instance_type]]
name = "dear"
cpu = "2"
memory = "8Gi"
on_demand_price = 0.11
"#,
    )
}

fn pods(app: &str, number: usize, cpu: &str, change: impl Fn(PodFixture) -> PodFixture) -> Vec<Pod> {
    (0..number)
        .map(|index| change(pod(&format!("{app}-{index}")).cpu(cpu)).build())
        .collect()
}

fn decide(pods: Vec<Pod>) -> Plan {
    let none: [smartscale_planner::model::Node; 0] = [];
    let plan = plan(&snapshot(none, pods), &policy(), now());
    assert_eq!(plan.pods.pending, []);
    plan
}

fn cost(plan: &Plan) -> f64 {
    plan.launch.iter().map(|launch| launch.price_per_hour).sum()
}

/// How many pods of an app each zone gets.
fn zones(plan: &Plan, app: &str) -> Vec<usize> {
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    for launch in &plan.launch {
        let of_app = launch.pods.iter().filter(|key| key.name.starts_with(app));
        *zones.entry(launch.zone.as_str()).or_default() += of_app.count();
    }
    zones.into_values().filter(|number| *number > 0).collect()
}

/// Where a pod is put, of two nodes `a` and `b`.
fn chosen(a: smartscale_planner::model::Node, b: smartscale_planner::model::Node, pod: PodFixture) -> String {
    let plan = plan(&snapshot([a, b], [pod]), &policy(), now());
    plan.placements[0].to.to_string()
}

#[test]
fn an_existing_node_that_is_preferred_is_taken_though_another_is_fuller() {
    let plain = || (node("a").build(), node("b").label("disk", "ssd").build());
    let (a, b) = plain();
    assert_eq!(chosen(a, b, pod("x-1")), "a");
    let (a, b) = plain();
    assert_eq!(chosen(a, b, pod("x-1").likes_nodes("disk", "ssd", 1)), "b");
}

#[test]
fn of_two_preferences_the_weightier_wins() {
    let a = node("a").label("disk", "ssd").build();
    let b = node("b").label("cpu", "new").build();
    let both = |ssd, new| {
        pod("x-1")
            .likes_nodes("disk", "ssd", ssd)
            .likes_nodes("cpu", "new", new)
    };
    assert_eq!(chosen(a.clone(), b.clone(), both(10, 20)), "b");
    assert_eq!(chosen(a, b, both(20, 10)), "a");
}

#[test]
fn a_taint_that_only_discourages_is_avoided_while_there_is_room_elsewhere() {
    let a = || node("a").taint("old", TaintEffect::PreferNoSchedule);
    assert_eq!(chosen(a().build(), node("b").build(), pod("x-1")), "b");
    assert_eq!(
        chosen(a().build(), node("b").build(), pod("x-1").tolerates("old")),
        "a"
    );
    assert_eq!(chosen(a().build(), node("b").cpu("50m").build(), pod("x-1")), "a");
}

#[test]
fn pods_that_would_like_to_keep_apart_do_so_on_existing_nodes() {
    let all = pods("web", 4, "100m", |p| p.likes_pods("web", keys::HOSTNAME, -10));
    let plan = plan(&snapshot([node("a"), node("b")], all), &policy(), now());
    let on_a = plan.placements.iter().filter(|p| p.to.to_string() == "a").count();
    assert_eq!((on_a, plan.placements.len()), (2, 4));
}

#[test]
fn a_spread_that_need_not_hold_is_even_over_the_zones_of_new_nodes() {
    let plan = decide(pods("web", 6, "1", |p| p.spread_if_possible(keys::ZONE, 1)));
    assert_eq!(plan.launch.len(), 3);
    assert_eq!(zones(&plan, "web"), [2, 2, 2]);
}

#[test]
fn a_spread_counts_what_is_there_already() {
    // Two nodes of a and b are full of web: the balance of zones would say c, and the spread says the same twice.
    let full = ["a", "b"].map(|name| node(name).zone(&format!("us-east-1{name}")).cpu("2"));
    let mut all = pods("web", 2, "2", |p| p.spread_if_possible(keys::ZONE, 1));
    for (index, name) in ["a", "b"].iter().enumerate() {
        all.push(pod(&format!("web-1{index}")).cpu("2").on(name).build());
    }
    let plan = plan(&snapshot(full, all), &policy(), now());
    assert_eq!(plan.launch[0].zone.as_str(), "us-east-1c");
}

#[test]
fn a_preferred_zone_is_taken_at_the_same_price_only() {
    let prefers = |zone: &str| decide(pods("web", 3, "2", |p| p.likes_nodes(keys::ZONE, zone, 1)));
    let plan = prefers("us-east-1b");
    assert!(plan.launch.iter().all(|l| l.zone.as_str() == "us-east-1b"));
    let plan = prefers("us-east-1d");
    assert!(plan.launch.iter().all(|l| l.zone.as_str() != "us-east-1d"));
}

#[test]
fn a_preferred_pool_or_type_is_taken_at_the_same_price() {
    let plan = decide(pods("web", 3, "2", |p| p.likes_nodes("tier", "web", 5)));
    assert!(plan.launch.iter().all(|l| l.pool.as_str() == "twin"));
    let plan = decide(pods("web", 3, "2", |p| {
        p.likes_nodes(keys::INSTANCE_TYPE, "other", 5)
    }));
    assert!(
        plan.launch
            .iter()
            .all(|l| l.instance_types[0].as_str() == "other")
    );
    let plan = decide(pods("web", 3, "2", |p| {
        p.likes_nodes(keys::INSTANCE_TYPE, "small", 5)
    }));
    assert!(
        plan.launch
            .iter()
            .all(|l| l.instance_types[0].as_str() == "small")
    );
}

#[test]
fn of_pods_that_prefer_the_same_room_those_of_more_weight_get_it() {
    // One node has room for one pod more, and that is where both would like to be.
    let a = node("a").label("disk", "ssd").cpu("1").build();
    let b = node("b").cpu("1").build();
    let eager = pod("x-2").cpu("1").likes_nodes("disk", "ssd", 50);
    let mild = pod("x-1").cpu("1").likes_nodes("disk", "ssd", 10);
    let plan = plan(&snapshot([a, b], [eager, mild]), &policy(), now());
    let of = |name: &str| {
        plan.placements
            .iter()
            .find(|p| p.pod.name == name.into())
            .unwrap()
    };
    assert_eq!(
        (of("x-2").to.to_string(), of("x-1").to.to_string()),
        ("a".into(), "b".into())
    );
}

#[test]
fn pods_that_would_like_to_keep_apart_do_so_on_nodes_that_are_launched_anyway() {
    let mut all = pods("web", 4, "500m", |p| p.likes_pods("web", keys::HOSTNAME, -10));
    all.extend(pods("other", 4, "500m", |p| p));
    let plan = decide(all);
    assert_eq!(plan.launch.len(), 2);
    for launch in &plan.launch {
        let web = launch.pods.iter().filter(|key| key.name.starts_with("web"));
        assert_eq!(web.count(), 2);
    }
}

#[test]
fn no_node_is_launched_because_pods_would_like_to_keep_apart() {
    let plan = decide(pods("web", 4, "500m", |p| {
        p.likes_pods("web", keys::HOSTNAME, -100)
    }));
    assert_eq!(plan.launch.len(), 1);
}

/// A pod with a constraint and a preference, by small numbers.
type Shape = (u8, u8, u8, u8);

fn random(nodes: u8, shapes: &[Shape], preferring: bool) -> Snapshot {
    let all: Vec<_> = (0..nodes)
        .map(|i| {
            let zone = ["us-east-1a", "us-east-1b", "us-east-1c"][usize::from(i % 3)];
            let one = node(&format!("n{i}"))
                .zone(zone)
                .label("disk", ["ssd", "hdd"][usize::from(i % 2)]);
            // Without preferences a taint that only discourages says nothing.
            if i % 4 == 3 {
                one.taint("old", TaintEffect::PreferNoSchedule)
            } else {
                one
            }
            .build()
        })
        .collect();
    let pods = shapes.iter().enumerate().map(|(i, (tenths, app, hard, soft))| {
        let app = ["web", "api", "job"][usize::from(app % 3)];
        let mut one = pod(&format!("{app}-{i}")).cpu(&format!("{}m", u32::from(tenths % 15 + 1) * 100));
        one = match hard % 8 {
            0 => one.spread(keys::ZONE, 1),
            1 => one.apart_from(app, keys::HOSTNAME),
            2 => one.near(app, keys::ZONE),
            3 => one.host_port(8080),
            4 => one.spread(keys::HOSTNAME, 2),
            _ => one,
        };
        let other = ["web", "api", "job"][usize::from(soft / 8 % 3)];
        let weight = i32::from(soft / 4 % 5) * 20 + 1;
        match soft % 8 {
            _ if !preferring => one.tolerates("old"),
            0 => one.spread_if_possible(keys::ZONE, 1),
            1 => one.spread_if_possible(keys::HOSTNAME, 1),
            2 => one.likes_pods(other, keys::HOSTNAME, -weight),
            3 => one.likes_pods(other, keys::ZONE, weight),
            4 => one.likes_nodes(keys::ZONE, "us-east-1c", weight),
            5 => one
                .likes_nodes("disk", "ssd", weight)
                .likes_nodes("tier", "web", weight),
            6 => one.likes_nodes(keys::ZONE, "us-east-1d", 100),
            _ => one,
        }
        .build()
    });
    let pods: Vec<Pod> = pods.collect();
    snapshot(all, pods)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_preference_costs_nothing_and_displaces_nobody(
        nodes in 0_u8..6,
        shapes in prop::collection::vec(any::<Shape>(), 0..40),
        headroom in any::<bool>(),
        max in 0_u32..8,
    ) {
        let mut policy = policy();
        policy.limits.max_nodes = u32::from(nodes) + max;
        if headroom {
            policy.pools[0].headroom.pods = 3;
            policy.pools[0].headroom.cpu = smartscale_planner::policy::Kept::Amount(1500);
        }
        let without = plan(&random(nodes, &shapes, false), &policy, now());
        let snapshot = random(nodes, &shapes, true);
        let with = plan(&snapshot, &policy, now());
        prop_assert!(with.pods.placed >= without.pods.placed);
        prop_assert_eq!(with.launch.len(), without.launch.len());
        prop_assert!((cost(&with) - cost(&without)).abs() < 1e-9, "{} for {}", cost(&with), cost(&without));
        let pending = |plan: &Plan| plan.pods.pending.iter().map(|p| p.pod.clone()).collect::<BTreeSet<_>>();
        prop_assert!(pending(&with).is_subset(&pending(&without)));
        for launch in &with.launch {
            let headroom_or_pods = headroom || !launch.pods.is_empty();
            prop_assert!(headroom_or_pods, "a node for nobody");
        }
        let mut shuffled = snapshot.clone();
        shuffled.cluster.pods.reverse();
        shuffled.cluster.nodes.rotate_left(usize::from(nodes / 2));
        prop_assert_eq!(plan(&shuffled, &policy, now()), with);
    }
}
