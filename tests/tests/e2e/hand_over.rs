//! Before a drain, what takes the pods' places is there: the real controllers of Deployments and ReplicaSets do it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, Site, node_of, policy};

/// Follows a Deployment for ever, and keeps the fewest pods that were available.
async fn follow(deployments: Api<Deployment>, fewest: Arc<AtomicI32>) {
    let named = WatchParams::default().fields("metadata.name=web");
    let mut version = "0".to_owned();
    loop {
        let Ok(changes) = deployments.watch(&named, &version).await else {
            continue;
        };
        let mut changes = std::pin::pin!(changes);
        while let Some(Ok(change)) = changes.next().await {
            if let WatchEvent::Added(web) | WatchEvent::Modified(web) = change {
                let available = web.status.and_then(|status| status.available_replicas);
                fewest.fetch_min(available.unwrap_or(0), Ordering::Relaxed);
                version = web.metadata.resource_version.unwrap_or_default();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_deployment_with_surge_are_handed_over_and_none_is_missing_for_a_moment() {
    let limits = "[limits]\nmin_nodes = 2\nmax_nodes = 2\n";
    let mut site = Site::new("hand-over", &policy(limits)).await.unwrap();
    site.stack
        .cluster
        .apply_packaged("hand-over/rbac.yaml")
        .await
        .unwrap();
    let silent = "agent_silent = \"6s\"";
    site.configure(0, silent, &format!("{silent}\nhand_over = \"120s\""))
        .unwrap();
    site.start_coordinator(0).unwrap();
    site.leader().await.unwrap();
    site.ready_nodes(2).await.unwrap();
    let web = pod("web").requests("200m", "64Mi");
    site.create(&deployment("web", 4, web)).await.unwrap();
    let before = site.running("web", 4).await.unwrap();
    let deployments: Api<Deployment> = Api::default_namespaced(site.stack.cluster.client());
    wait::until_true("all to be available", DEADLINE, || async {
        let status = deployments.get("web").await?.status.unwrap_or_default();
        Ok(status.available_replicas == Some(4))
    })
    .await
    .unwrap();
    let fewest = Arc::new(AtomicI32::new(i32::MAX));
    let following = tokio::spawn(follow(deployments.clone(), Arc::clone(&fewest)));

    let node = node_of(&before[0]).unwrap().to_owned();
    // People may order what the last decision has seen.
    site.decisions(2).await.unwrap();
    site.order(&["drain", &node]).await.unwrap();
    let drain = site
        .operation("the drain's end", |operation| {
            operation["kind"] == "drain" && operation["ended"] == true
        })
        .await
        .unwrap();
    assert_eq!(drain["phase"], "done", "{drain:#}");
    let after = site.running("web", 4).await.unwrap();
    assert!(after.iter().all(|pod| node_of(pod) != Some(&*node)));
    following.abort();
    assert_eq!(fewest.load(Ordering::Relaxed), 4);
    // Nobody was evicted, and the Deployment is as its users want it.
    assert_eq!(site.stack.cluster.evictions().unwrap(), []);
    let web = deployments.get("web").await.unwrap();
    assert_eq!(web.spec.unwrap().replicas, Some(4));
    let labels = web.metadata.labels.unwrap_or_default();
    assert!(
        !labels.keys().any(|key| key.starts_with("smartscale.io/")),
        "{labels:?}"
    );
}
