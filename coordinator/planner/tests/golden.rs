//! The catalogue of decisions: a folder a case below `tests/cases`, named after what it shows.
//!
//! `cluster.yaml`, `policy.toml` and, where they matter, `metrics.json` and `state.json` are what `smartscale plan` reads;
//! `plan.json` is what it answers at 2026-01-02T03:04:05Z. After a wanted change: `UPDATE_GOLDEN=1 cargo test -p
//! smartscale-planner --test golden`, then read the difference.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use std::{fs, path::Path};

use smartscale_manifests::{Objects, read};
use smartscale_planner::{
    Plan, Policy, Snapshot, fixtures,
    snapshot::{Metrics, State},
};

fn snapshot(case: &Path, policy: &Policy) -> Snapshot {
    let mut objects = Objects::default();
    let text = fs::read_to_string(case.join("cluster.yaml")).unwrap();
    for object in read::objects(&text, read::Format::Yaml).unwrap() {
        objects.apply(object);
    }
    let (cluster, bad) = objects.to_cluster(fixtures::now());
    assert!(bad.is_empty(), "{}: {bad:?}", case.display());
    let optional = |name: &str| fs::read_to_string(case.join(name)).ok();
    Snapshot {
        cluster,
        metrics: optional("metrics.json")
            .map(|text| Metrics::from_json(&text).unwrap())
            .unwrap_or_default(),
        state: optional("state.json")
            .map(|text| State::from_json(&text, &policy.cluster_id).unwrap())
            .unwrap_or_default(),
    }
}

#[test]
fn every_case_is_decided_as_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in &cases {
        let text = fs::read_to_string(case.join("policy.toml")).unwrap();
        let (policy, _) =
            Policy::from_toml(&text).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        let mut snapshot = snapshot(case, &policy);
        let plan = smartscale_planner::plan(&snapshot, &policy, fixtures::now());
        let json = serde_json::to_string_pretty(&plan).unwrap() + "\n";

        // Order of the input is of no importance.
        let cluster = &mut snapshot.cluster;
        cluster.nodes.reverse();
        cluster.pods.reverse();
        cluster.daemon_sets.reverse();
        cluster.disruption_budgets.reverse();
        snapshot.metrics.cluster.reverse();
        snapshot.state.launching.reverse();
        assert_eq!(
            smartscale_planner::plan(&snapshot, &policy, fixtures::now()),
            plan,
            "{}",
            case.display()
        );

        let golden = case.join("plan.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &json).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if expected != json {
            wrong.push(format!("{}:\n{json}", case.display()));
        } else {
            let read: Plan = serde_json::from_str(&expected).unwrap();
            assert_eq!(serde_json::to_string_pretty(&read).unwrap() + "\n", expected);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
