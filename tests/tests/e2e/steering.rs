//! Scale-ins are led to the node that is to go next: it empties without an eviction, and is terminated.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use smartscale_planner::model::keys;
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, Site, node_of, policy};

/// A node with pods is drained after minutes, an empty one after less than two.
const PATIENT: &str = r#"
[limits]
min_nodes = 1
[scale_up]
reading_interval = "1s"
[scale_down]
when = "fits"
steer = true
sustained = "100s"
cooldown = "1s"
min_age = "1s"
"#;

/// What a pod says its deletion costs, if that is SmartScale's word.
fn steered(pod: &Pod) -> Option<i32> {
    let annotations = pod.metadata.annotations.as_ref()?;
    let said = annotations.get(keys::STEERED)?;
    (annotations.get(keys::DELETION_COST) == Some(said)).then(|| said.parse().unwrap())
}

fn by_node(pods: &[Pod]) -> BTreeMap<String, Vec<&Pod>> {
    let mut homes: BTreeMap<String, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        homes
            .entry(node_of(pod).unwrap().to_owned())
            .or_default()
            .push(pod);
    }
    homes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scale_in_empties_the_next_candidate_which_goes_without_an_eviction() {
    let mut site = Site::new("steering", &policy(PATIENT)).await.unwrap();
    site.stack
        .cluster
        .apply_packaged("steer/rbac.yaml")
        .await
        .unwrap();
    site.start_coordinator(0).unwrap();
    site.leader().await.unwrap();
    site.ask(&["scale", "--to", "3", "--for", "1h"]).await.unwrap();
    for node in site.ready_nodes(3).await.unwrap() {
        site.stack.prometheus.figures().node(&node, 0.10, 0.20);
    }
    let web = pod("web").requests("400m", "64Mi");
    site.create(&deployment("web", 8, web)).await.unwrap();
    let pods = site.running("web", 8).await.unwrap();
    let homes = by_node(&pods);
    let (smallest, _) = homes.iter().min_by_key(|(_, pods)| pods.len()).unwrap();
    let counts: Vec<usize> = homes.values().map(Vec::len).collect();
    assert_eq!(
        (homes.len(), homes[smallest].len()),
        (3, 2),
        "spread as {counts:?}"
    );
    // The floor goes: from now on the nodes are candidates.
    site.ask(&["scale", "--to", "0"]).await.unwrap();

    let all = site.pods();
    wait::until(
        "the smallest node's pods to be the cheapest",
        DEADLINE,
        || async {
            let pods = all.list(&ListParams::default().labels("app=web")).await?.items;
            let costs = pods
                .iter()
                .filter(|pod| node_of(pod) == Some(smallest))
                .map(steered);
            let others = pods
                .iter()
                .filter(|pod| node_of(pod) != Some(smallest))
                .filter_map(steered);
            let (lowest, first): (Option<i32>, Vec<Option<i32>>) = (others.min(), costs.collect());
            let is_first =
                |cost: &Option<i32>| cost.is_some_and(|cost| lowest.is_none_or(|lowest| cost < lowest));
            anyhow::ensure!(
                first.len() == 2 && first.iter().all(is_first),
                "{first:?}, others {lowest:?}"
            );
            Ok(Some(()))
        },
    )
    .await
    .unwrap();

    let deployments: Api<Deployment> = Api::default_namespaced(site.stack.cluster.client());
    let fewer = Patch::Merge(json!({ "spec": { "replicas": 6 } }));
    deployments
        .patch("web", &PatchParams::default(), &fewer)
        .await
        .unwrap();
    let removal = site
        .operation("a removal's end", |operation| {
            operation["kind"] == "remove" && operation["phase"] == "done"
        })
        .await
        .unwrap();
    assert_eq!(removal["nodes"][0].as_str(), Some(&**smallest), "{removal:#}");
    assert_eq!(site.stack.cluster.evictions().unwrap(), []);
    let left = site.running("web", 6).await.unwrap();
    for (node, pods) in by_node(&left) {
        assert_eq!(pods.len(), homes[&node].len(), "{node} was left alone");
    }
}
