//! The rights that are handed out with the packages are those that the adapters use.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use smartscale_coordinator::act::binding::{Binding, Verified};
use smartscale_coordinator::act::nodes::{Eviction, Nodes as _};
use smartscale_coordinator::kubernetes::events::Events;
use smartscale_coordinator::tell::Notifier as _;
use smartscale_planner::model::{NodeName, keys};
use smartscale_tests::rig::kubernetes::{node, pod};
use smartscale_tests::rig::wait;

use super::events::launch;
use super::nodes::annotate;
use super::{DEADLINE, shared};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    kind: String,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
}

/// Group, resource and verb of each right of the manifest.
fn granted() -> BTreeSet<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/kubernetes/rbac.yaml");
    let manifests: Vec<Manifest> =
        serde_saphyr::from_multiple(&std::fs::read_to_string(file).unwrap()).unwrap();
    let mut rights = BTreeSet::new();
    for rule in manifests
        .iter()
        .filter(|manifest| manifest.kind == "ClusterRole")
        .flat_map(|role| &role.rules)
    {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                for verb in &rule.verbs {
                    let right = format!("{verb} {group}/{resource}");
                    assert!(rights.insert(right.clone()), "{right} is given twice");
                }
            }
        }
    }
    rights
}

#[test]
fn every_right_of_the_manifest_is_used_and_no_other_is_needed() {
    shared(async |world| {
        let place = world.place("rights").await;
        world
            .node(node("rights").taint(keys::UNVERIFIED, None, "NoSchedule"))
            .await;
        for name in ["evicted", "deleted"] {
            place.ready_pod(pod(name).on("rights")).await;
        }
        let watching = world.watch().await;
        watching
            .until("the node", |objects| objects.node("rights").is_some())
            .await;
        let events = Events::new(world.coordinator().await, "coordinator-a");
        for time in ["2026-01-02T03:04:05Z", "2026-01-02T03:14:05Z"] {
            events.notify(&launch("rights", &[], time)).await.unwrap();
        }
        let nodes = world.nodes().await;
        let name = NodeName::new("rights");
        let uid = world.read_node("rights").await.metadata.uid.unwrap();
        let binding = Binding::new(&"rights".parse().unwrap(), &Binding::mint()).unwrap();
        annotate(&world, "rights", &binding.nonce(&uid)).await;
        assert_eq!(nodes.verify(&name, &binding).await, Ok(Verified::Lifted));
        nodes.cordon(&name, Some(&"op-1".parse().unwrap())).await.unwrap();
        for pod in nodes.pods(&name).await.unwrap() {
            match &*pod.key.name {
                "evicted" => assert_eq!(nodes.evict(&pod).await, Ok(Eviction::Accepted)),
                _ => nodes.delete_pod(&pod, 0).await.unwrap(),
            }
        }
        nodes.attached(&name).await.unwrap();
        nodes.uncordon(&name, None).await.unwrap();
        nodes.delete(&name).await.unwrap();

        // A watch is logged when its first byte goes out, which may be a moment after it was asked for.
        wait::until("every right to be used", DEADLINE, || async {
            let calls = world.cluster.coordinators_calls()?;
            let asked = |call: &smartscale_tests::rig::kubernetes::Call| {
                format!("{} {}/{}", call.verb, call.group, call.resource)
            };
            let refused: Vec<_> = calls.iter().filter(|call| !call.allowed).map(asked).collect();
            assert!(refused.is_empty(), "rights are missing: {refused:?}");
            let used: BTreeSet<_> = calls.iter().map(asked).collect();
            let unused: Vec<_> = granted().difference(&used).cloned().collect();
            anyhow::ensure!(unused.is_empty(), "rights that nothing uses: {unused:?}");
            Ok(Some(()))
        })
        .await
        .unwrap();
    });
}
