//! Deletion costs of pods, and what the real controller of ReplicaSets makes of them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use smartscale_coordinator::act::nodes::{Nodes as _, Priced};
use smartscale_coordinator::kubernetes::nodes::KubeNodes;
use smartscale_planner::model::{PodKey, keys};
use smartscale_tests::rig::kubernetes::{deployment, node, pod};
use smartscale_tests::rig::wait;

use super::{DEADLINE, Place, World, api, create, overtaken, shared};

/// The coordinator's hand, once it has the right that steering takes.
async fn steers(world: &World) -> KubeNodes {
    world.cluster.apply_packaged("steer/rbac.yaml").await.unwrap();
    let review: SubjectAccessReview = serde_json::from_value(json!({
        "metadata": {},
        "spec": {
            "user": "system:serviceaccount:kube-system:smartscale-coordinator",
            "resourceAttributes": { "verb": "patch", "resource": "pods" },
        },
    }))
    .unwrap();
    let reviews = world.admin::<SubjectAccessReview>();
    wait::until_true("the right to patch pods", DEADLINE, || async {
        let judged = reviews.create(&PostParams::default(), &review).await?;
        Ok(judged.status.is_some_and(|status| status.allowed))
    })
    .await
    .unwrap();
    world.nodes().await
}

/// What a pod says of its deletion: the cost, and our mark.
async fn said(place: &Place, name: &str) -> (Option<String>, Option<String>) {
    let meta = place.all::<Pod>().get(name).await.unwrap().metadata;
    let annotations = meta.annotations.unwrap_or_default();
    let said = |key| annotations.get(key).cloned();
    (said(keys::DELETION_COST), said(keys::STEERED))
}

async fn annotate(pods: &Api<Pod>, name: &str, annotations: &Value) {
    let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    pods.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

fn both(cost: &str) -> (Option<String>, Option<String>) {
    (Some(cost.to_owned()), Some(cost.to_owned()))
}

#[test]
fn a_cost_is_written_with_its_mark_and_both_are_taken_back_and_a_foreign_one_survives() {
    shared(async |world| {
        world.node(node("priced")).await;
        let place = world.place("priced").await;
        let uid = place.ready_pod(pod("ours").on("priced")).await;
        let theirs = pod("theirs").annotation(keys::DELETION_COST, "7").on("priced");
        let uid_of_theirs = place.ready_pod(theirs).await;
        let nodes = steers(&world).await;
        let key = PodKey::new("priced", "ours");
        let price = async |cost| nodes.price(&key, &uid, cost).await.unwrap();

        assert_eq!(price(Some(-90)).await, Priced::Written);
        assert_eq!(said(&place, "ours").await, both("-90"));
        assert_eq!(price(Some(-90)).await, Priced::Left);
        assert_eq!(price(Some(-85)).await, Priced::Written);
        assert_eq!(said(&place, "ours").await, both("-85"));
        assert_eq!(price(None).await, Priced::Written);
        assert_eq!(said(&place, "ours").await, (None, None));
        assert_eq!(price(None).await, Priced::Left);

        // A person has another opinion: it stays, whatever is wished, and our mark goes in the end.
        assert_eq!(price(Some(-90)).await, Priced::Written);
        annotate(&place.all(), "ours", &json!({ keys::DELETION_COST: "100" })).await;
        assert_eq!(price(Some(-90)).await, Priced::Left);
        assert_eq!(price(None).await, Priced::Written);
        assert_eq!(said(&place, "ours").await, (Some("100".to_owned()), None));

        let theirs = PodKey::new("priced", "theirs");
        for cost in [Some(-90), None] {
            assert_eq!(nodes.price(&theirs, &uid_of_theirs, cost).await, Ok(Priced::Left));
        }
        assert_eq!(said(&place, "theirs").await, (Some("7".to_owned()), None));
    });
}

#[test]
fn a_cost_that_somebody_writes_at_the_same_moment_stays_and_a_pod_that_is_gone_is_no_failure() {
    shared(async |world| {
        world.node(node("price-race")).await;
        let place = world.place("price-race").await;
        let uid = place.ready_pod(pod("web").on("price-race")).await;
        let nodes = steers(&world).await;
        let key = PodKey::new("price-race", "web");
        let meanwhile = place.clone();
        let client = overtaken(world.coordinator().await, move || {
            let pods = meanwhile.all::<Pod>();
            async move { annotate(&pods, "web", &json!({ keys::DELETION_COST: "3" })).await }
        });
        let late = KubeNodes::new(api(client));
        assert_eq!(late.price(&key, &uid, Some(-90)).await, Ok(Priced::Overtaken));
        assert_eq!(said(&place, "web").await, (Some("3".to_owned()), None));

        place.remove_pod("web").await;
        assert_eq!(nodes.price(&key, &uid, Some(-90)).await, Ok(Priced::Gone));
        place.ready_pod(pod("web").on("price-race")).await;
        assert_eq!(nodes.price(&key, &uid, Some(-90)).await, Ok(Priced::Gone));
        assert_eq!(said(&place, "web").await, (None, None), "it is another pod");
        let removed = place.clone();
        let client = overtaken(world.coordinator().await, move || {
            let place = removed.clone();
            async move { place.remove_pod("web").await }
        });
        let late = KubeNodes::new(api(client));
        let second = place.living("web").await.unwrap();
        assert_eq!(late.price(&key, &second, Some(-90)).await, Ok(Priced::Gone));
    });
}

/// How many pods that are not about to end are on each node.
async fn living_on(place: &Place) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut living = BTreeMap::new();
    let pods = place.all::<Pod>().list(&ListParams::default()).await?;
    for pod in pods
        .items
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
    {
        let is_ready = pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let home = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        *living
            .entry(home.filter(|_| is_ready).unwrap_or_default())
            .or_default() += 1;
    }
    Ok(living)
}

async fn until_living(place: &Place, expected: [(&str, usize); 3]) {
    let expected: BTreeMap<String, usize> = expected
        .into_iter()
        .filter(|(_, pods)| *pods > 0)
        .map(|(node, pods)| (node.to_owned(), pods))
        .collect();
    wait::until(&format!("pods on {expected:?}"), DEADLINE, || async {
        let living = living_on(place).await?;
        anyhow::ensure!(living == expected, "{living:?}");
        Ok(Some(()))
    })
    .await
    .unwrap();
}

#[test]
fn a_scale_in_of_a_deployment_empties_the_marked_node_first_though_others_have_more_of_its_pods() {
    shared(async |world| {
        let place = world.place("steered").await;
        for (name, cpu) in [("steered-a", "2"), ("steered-b", "3"), ("steered-c", "3")] {
            world
                .node(node(name).allocatable(cpu, "8Gi").label("steered", "yes"))
                .await;
        }
        let template = pod("web").requests("1", "64Mi").node_selector("steered", "yes");
        let mut web = deployment("web", 8, template);
        web.metadata.namespace = Some("steered".to_owned());
        let deployments = place.all::<Deployment>();
        create(&deployments, &web).await;
        until_living(&place, [("steered-a", 2), ("steered-b", 3), ("steered-c", 3)]).await;

        let nodes = steers(&world).await;
        for pod in nodes.pods(&"steered-a".into()).await.unwrap() {
            let priced = nodes.price(&pod.key, &pod.uid, Some(-90)).await;
            assert_eq!(priced, Ok(Priced::Written));
        }
        let fewer = Patch::Merge(json!({ "spec": { "replicas": 6 } }));
        deployments
            .patch("web", &PatchParams::default(), &fewer)
            .await
            .unwrap();
        until_living(&place, [("steered-a", 0), ("steered-b", 3), ("steered-c", 3)]).await;
    });
}
