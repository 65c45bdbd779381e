//! The control plane: scheduling, eviction under budgets, a kubelet's rights, outages.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, EvictParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use smartscale_tests::rig::kubernetes::{Identity, budget, deployment, node, pod};
use smartscale_tests::rig::{Folder, Kubernetes, Kwok, wait};

const DEADLINE: Duration = Duration::from_secs(60);

fn status_of<T: std::fmt::Debug>(result: kube::Result<T>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("no answer of the API server's: {other:?}"),
    }
}

/// The names of the running pods on each node.
async fn running(pods: &Api<Pod>, count: usize) -> Vec<Pod> {
    wait::until(&format!("{count} running pods"), DEADLINE, || async {
        let all = pods.list(&ListParams::default()).await?.items;
        let running: Vec<_> = all
            .into_iter()
            .filter(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running"))
            .collect();
        Ok((running.len() == count).then_some(running))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduler_binds_pods_and_a_budget_that_is_used_up_answers_429() {
    let folder = Folder::new("kubernetes-budget").unwrap();
    let cluster = Kubernetes::start(&folder).await.unwrap();
    let kwok = Kwok::start(&folder, &cluster).await.unwrap();
    kwok.create_nodes(["a", "b"].map(|name| node(name).allocatable("2", "4Gi")))
        .await
        .unwrap();
    let client = cluster.client();
    let web = deployment("web", 2, pod("web").requests("1500m", "1Gi"));
    Api::default_namespaced(client.clone())
        .create(&PostParams::default(), &web)
        .await
        .unwrap();
    let pods = Api::<Pod>::default_namespaced(client.clone());
    let bound = running(&pods, 2).await;
    let mut nodes: Vec<_> = bound
        .iter()
        .filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref())
        .collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["a", "b"], "1.5 CPU each of 2: one pod a node");

    // One may go; with one gone (and pending, as a node is cordoned), none may.
    let budgets = Api::<PodDisruptionBudget>::default_namespaced(client.clone());
    budgets
        .create(&PostParams::default(), &budget("web", 1))
        .await
        .unwrap();
    wait::until_true("the budget's count", DEADLINE, || async {
        let status = budgets.get("web").await?.status;
        Ok(status.is_some_and(|status| status.disruptions_allowed == Some(1)))
    })
    .await
    .unwrap();
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    Api::<Node>::all(client.clone())
        .patch("a", &PatchParams::default(), &cordon)
        .await
        .unwrap();
    let on = |node: &str| {
        let pod = bound
            .iter()
            .find(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some(node));
        pod.unwrap().metadata.name.clone().unwrap()
    };
    // kube's own client would try a 429 again by itself.
    let mut config = kube::Config::from_custom_kubeconfig(
        kube::config::Kubeconfig::read_from(cluster.admin_kubeconfig()).unwrap(),
        &kube::config::KubeConfigOptions::default(),
    )
    .await
    .unwrap();
    config.default_retry = false;
    let strict = Api::<Pod>::default_namespaced(kube::Client::try_from(config).unwrap());
    strict.evict(&on("a"), &EvictParams::default()).await.unwrap();
    assert_eq!(
        status_of(strict.evict(&on("b"), &EvictParams::default()).await),
        429
    );
    // The node is open again: the second pod runs, the budget too.
    let uncordon = Patch::Merge(json!({"spec": {"unschedulable": false}}));
    Api::<Node>::all(client.clone())
        .patch("a", &PatchParams::default(), &uncordon)
        .await
        .unwrap();
    running(&pods, 2).await;
    wait::until_true("the budget to open", DEADLINE, || async {
        Ok(strict.evict(&on("b"), &EvictParams::default()).await.is_ok())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_may_do_to_its_own_what_it_may_not_do_to_others() {
    let folder = Folder::new("kubernetes-kubelet").unwrap();
    let cluster = Kubernetes::start(&folder).await.unwrap();
    let kubelet = cluster.client_of(&Identity::kubelet("a")).await.unwrap();
    let nodes = Api::<Node>::all(kubelet.clone());
    nodes
        .create(&PostParams::default(), &node("a").build())
        .await
        .unwrap();
    let admin = Api::<Node>::all(cluster.client());
    admin
        .create(&PostParams::default(), &node("b").build())
        .await
        .unwrap();
    let all_pods = Api::<Pod>::default_namespaced(cluster.client());
    for (name, on) in [("mine", "a"), ("theirs", "b")] {
        all_pods
            .create(&PostParams::default(), &pod(name).on(on).build())
            .await
            .unwrap();
    }
    let merge = |value| Patch::Merge(value);
    let params = PatchParams::default();
    nodes
        .patch("a", &params, &merge(json!({"spec": {"unschedulable": true}})))
        .await
        .unwrap();
    let taint = json!({"spec": {"taints": [{"key": "x", "effect": "NoSchedule"}]}});
    assert_eq!(status_of(nodes.patch("a", &params, &merge(taint)).await), 403);
    let cordon = json!({"spec": {"unschedulable": true}});
    assert_eq!(status_of(nodes.patch("b", &params, &merge(cordon)).await), 403);
    assert_eq!(status_of(nodes.list(&ListParams::default()).await), 403);

    let pods = Api::<Pod>::all(kubelet.clone());
    let own = pods
        .list(&ListParams::default().fields("spec.nodeName=a"))
        .await
        .unwrap();
    assert_eq!(own.items.len(), 1);
    assert_eq!(status_of(pods.list(&ListParams::default()).await), 403);
    let pods = Api::<Pod>::default_namespaced(kubelet.clone());
    pods.evict("mine", &EvictParams::default()).await.unwrap();
    assert_eq!(
        status_of(pods.evict("theirs", &EvictParams::default()).await),
        403
    );
    let budgets = Api::<PodDisruptionBudget>::default_namespaced(kubelet);
    assert_eq!(status_of(budgets.list(&ListParams::default()).await), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_comes_back_after_an_outage_of_the_api_server() {
    let folder = Folder::new("kubernetes-outage").unwrap();
    let mut cluster = Kubernetes::start(&folder).await.unwrap();
    let nodes = Api::<Node>::all(cluster.client());
    nodes
        .create(&PostParams::default(), &node("a").build())
        .await
        .unwrap();
    cluster.api_server().kill();
    let answered = tokio::time::timeout(Duration::from_secs(5), nodes.get("a"))
        .await
        .is_ok_and(|got| got.is_ok());
    assert!(!answered);
    cluster.api_server().start().unwrap();
    cluster.serving().await.unwrap();
    nodes.get("a").await.unwrap();
}
