//! The catalogue of decisions below `tests/cases`, read as `smartscale plan` reads it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use smartscale_manifests::{Objects, read};
use smartscale_planner::{
    Policy, Snapshot, fixtures,
    snapshot::{Metrics, State},
};

/// The folders of all cases, by name.
pub(crate) fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

/// What one of them shows the planner.
pub(crate) fn case(folder: &Path) -> (Snapshot, Policy) {
    let text = fs::read_to_string(folder.join("policy.toml")).unwrap();
    let (policy, _) =
        Policy::from_toml(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut objects = Objects::default();
    let text = fs::read_to_string(folder.join("cluster.yaml")).unwrap();
    for object in read::objects(&text, read::Format::Yaml).unwrap() {
        objects.apply(object);
    }
    let (cluster, bad) = objects.to_cluster(fixtures::now());
    assert!(bad.is_empty(), "{}: {bad:?}", folder.display());
    let optional = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let snapshot = Snapshot {
        cluster,
        metrics: optional("metrics.json")
            .map(|text| Metrics::from_json(&text).unwrap())
            .unwrap_or_default(),
        state: optional("state.json")
            .map(|text| State::from_json(&text, &policy.cluster_id).unwrap())
            .unwrap_or_default(),
    };
    (snapshot, policy)
}
