//! The policy as a ConfigMap: a coordinator waits for it, follows it, and goes on with the last good one.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, Site, policy};

const NAME: &str = "smartscale-policy";

async fn write(maps: &Api<ConfigMap>, text: &str) {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": NAME }, "data": { "policy.toml": text },
    });
    maps.patch(NAME, &PatchParams::apply("test").force(), &Patch::Apply(&map))
        .await
        .unwrap();
}

async fn logged(site: &Site, words: &[&str]) {
    wait::until_true(&format!("{words:?} in the log"), DEADLINE, || async {
        site.logged(0, words)
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_waits_for_its_policy_follows_it_and_goes_on_with_the_last_good_one() {
    let mut site = Site::new("policy-map", &policy("")).await.unwrap();
    let map = format!("policy = {{ config_map = \"kube-system/{NAME}\" }}");
    site.configure(0, "policy = \"policy.toml\"", &map).unwrap();
    site.start_coordinator(0).unwrap();
    // Without the right, then without the ConfigMap, then without one that holds.
    logged(&site, &["waits for one", "forbidden"]).await;
    site.stack
        .cluster
        .apply_packaged("policy/rbac.yaml")
        .await
        .unwrap();
    logged(&site, &["waits for one", "there is no ConfigMap"]).await;
    let maps: Api<ConfigMap> = Api::namespaced(site.stack.cluster.client(), "kube-system");
    write(&maps, "[cluster]\n").await;
    logged(&site, &["waits for one", "cluster"]).await;

    write(&maps, &policy("[limits]\nmin_nodes = 1\n")).await;
    site.leader().await.unwrap();
    site.ready_nodes(1).await.unwrap();
    write(&maps, &policy("[limits]\nmin_nodes = 2\n")).await;
    site.ready_nodes(2).await.unwrap();

    write(&maps, &policy("[limits]\nmin_nodes = 5\nmax_nodes = 2\n")).await;
    logged(&site, &["the last good one goes on", "limits.min_nodes"]).await;
    maps.delete(NAME, &DeleteParams::default()).await.unwrap();
    logged(&site, &["the last good one goes on", "there is no ConfigMap"]).await;
    site.decisions(2).await.unwrap();
    let status = site.ask(&["status"]).await.unwrap();
    assert_eq!(status["min_nodes"], 2);
}
