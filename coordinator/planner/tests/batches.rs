//! Batches in the shapes of the benchmark, small: everything is placed, in any order of the input alike, and the price is
//! near the least possible.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

#[path = "../../../tests/bench/workloads.rs"]
#[allow(dead_code, reason = "the benchmark uses all of it")]
mod workloads;

use std::collections::BTreeSet;

use smartscale_manifests::{Objects, read};
use smartscale_planner::{Policy, Snapshot, fixtures::now, least_cost, plan};
use workloads::Workload;

fn snapshot(workload: &Workload) -> (Snapshot, Policy) {
    let (policy, _) = Policy::from_toml(&workload.policy).unwrap();
    let mut objects = Objects::default();
    for object in read::objects(&workload.cluster, read::Format::Json).unwrap() {
        objects.apply(object);
    }
    let (cluster, bad) = objects.to_cluster(now());
    assert!(bad.is_empty(), "{bad:?}");
    let snapshot = Snapshot {
        cluster,
        ..Snapshot::default()
    };
    (snapshot, policy)
}

/// Plans it and checks what holds for all; returns the cost against the bound.
fn ratio(workload: &Workload) -> f64 {
    let (snapshot, policy) = snapshot(workload);
    let decided = plan(&snapshot, &policy, now());
    assert_eq!(decided.pods.pending, [], "{}", workload.name);
    let placed: BTreeSet<_> = decided
        .placements
        .iter()
        .map(|placement| &placement.pod)
        .collect();
    assert_eq!(placed.len(), decided.pods.placed, "{}", workload.name);
    let mut shuffled = snapshot.clone();
    shuffled.cluster.pods.reverse();
    let middle = shuffled.cluster.pods.len() / 3;
    shuffled.cluster.pods.rotate_left(middle);
    assert!(
        plan(&shuffled, &policy, now()) == decided,
        "{}: another order gives another plan",
        workload.name
    );
    let cost: f64 = decided.launch.iter().map(|launch| launch.price_per_hour).sum();
    cost / least_cost(&snapshot, &policy, now())
}

#[test]
fn thinking_makes_batches_cheaper() {
    let shapes: [&dyn Fn(u64) -> Workload; 3] = [
        &|seed| workloads::mix(100, seed),
        &|seed| workloads::web(500, seed),
        &|seed| workloads::mixed(800, 20, seed),
    ];
    for shape in shapes {
        let cost = |millis: u64| {
            let of_seed = |seed| {
                let (snapshot, mut policy) = snapshot(&shape(seed));
                policy.scale_up.think = std::time::Duration::from_millis(millis);
                let decided = plan(&snapshot, &policy, now());
                assert_eq!(decided.pods.pending, []);
                decided
                    .launch
                    .iter()
                    .map(|launch| launch.price_per_hour)
                    .sum::<f64>()
            };
            (1..4).map(of_seed).sum::<f64>()
        };
        let (at_once, thought) = (cost(0), cost(200));
        assert!(thought < at_once * 0.995, "{thought} after {at_once}");
    }
}

#[test]
fn a_mix_of_constraints_costs_little_more_than_the_bound() {
    for seed in 1..4 {
        let ratio = ratio(&workloads::mix(300, seed));
        assert!((0.999..1.27).contains(&ratio), "{ratio}");
    }
}

#[test]
fn plain_pods_cost_little_more_than_the_bound() {
    for seed in 1..4 {
        let ratio = ratio(&workloads::web(600, seed));
        assert!((0.999..1.15).contains(&ratio), "{ratio}");
    }
}

#[test]
fn pods_beside_nodes_that_are_half_full_cost_little_more_than_the_bound() {
    let ratio = ratio(&workloads::mixed(800, 20, 1));
    assert!((0.999..1.27).contains(&ratio), "{ratio}");
}
