//! An API server that dies and comes back, in a cluster of its own.

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use smartscale_coordinator::act::nodes::{Nodes as _, NodesError};
use smartscale_coordinator::kubernetes::nodes::KubeNodes;
use smartscale_coordinator::observe::ClusterView as _;
use smartscale_planner::model::NodeName;
use smartscale_tests::rig::kubernetes::node;
use smartscale_tests::rig::{Folder, Kubernetes, wait};

use super::{DEADLINE, Watching, api, coordinator, create};

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_keeps_what_it_saw_while_the_api_server_is_dead_and_goes_on_when_it_is_back() {
    let folder = Folder::new("kubernetes-watch-outage").unwrap();
    let mut cluster = Kubernetes::start(&folder).await.unwrap();
    let kubeconfig = cluster.coordinator_kubeconfig().await.unwrap();
    let nodes = Api::<Node>::all(cluster.client());
    create(&nodes, &node("before").build()).await;
    let watching = Watching::start(coordinator(&kubeconfig).await);
    watching
        .until("the node", |objects| objects.node("before").is_some())
        .await;
    let acting = KubeNodes::new(api(coordinator(&kubeconfig).await));

    cluster.api_server().kill();
    let latest = wait::until("the watch to notice", DEADLINE, || async {
        let latest = watching.watch.latest();
        Ok(latest.error.is_some().then_some(latest))
    })
    .await
    .unwrap();
    assert!(
        latest
            .value
            .is_some_and(|objects| objects.node("before").is_some())
    );
    let name = NodeName::new("before");
    let unavailable = acting.cordon(&name, None).await;
    assert!(
        matches!(unavailable, Err(NodesError::Unavailable(_))),
        "{unavailable:?}"
    );

    cluster.api_server().start().unwrap();
    cluster.serving().await.unwrap();
    create(&nodes, &node("after").build()).await;
    let seen = watching
        .until("the new node", |objects| objects.node("after").is_some())
        .await;
    assert!(seen.node("before").is_some());
    wait::until("the watch to be in step again", DEADLINE, || async {
        let now = watching.watch.latest();
        match now.error {
            Some(error) => anyhow::bail!("{error}"),
            None => Ok((now.at > latest.at).then_some(())),
        }
    })
    .await
    .unwrap();
    assert_eq!(acting.cordon(&name, None).await, Ok(false));
}
