//! What the coordinator does to nodes and pods.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use smartscale_coordinator::act::binding::{Binding, Verified};
use smartscale_coordinator::act::nodes::{Eviction, Nodes as _, NodesError, PodOnNode};
use smartscale_coordinator::ids::OperationId;
use smartscale_coordinator::kubernetes::nodes::KubeNodes;
use smartscale_planner::model::{NodeName, keys};
use smartscale_tests::rig::kubernetes::{node, pod};
use smartscale_tests::rig::wait;

use super::{DEADLINE, World, api, create, overtaken, shared};

fn operation(name: &str) -> OperationId {
    name.parse().unwrap()
}

/// Whether a node is cordoned, and whose mark it bears.
async fn cordon_of(world: &World, name: &str) -> (bool, Option<String>) {
    let node = world.read_node(name).await;
    let cordoned = node.spec.and_then(|spec| spec.unschedulable) == Some(true);
    let annotations = node.metadata.annotations.unwrap_or_default();
    (cordoned, annotations.get(keys::DRAINING).cloned())
}

fn taints_of(node: &Node) -> Vec<&str> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.into_iter().flatten().map(|taint| &*taint.key).collect()
}

/// The only pod of that name on a node, as a drain reads it.
async fn read(nodes: &KubeNodes, node: &str, name: &str) -> PodOnNode {
    let pods = nodes.pods(&node.into()).await.unwrap();
    pods.into_iter().find(|pod| &*pod.key.name == name).unwrap()
}

/// Asks again until the answer is this one.
async fn until_evict(nodes: &KubeNodes, pod: &PodOnNode, expected: Eviction) {
    wait::until(&format!("{expected:?}"), DEADLINE, || async {
        let answer = nodes.evict(pod).await?;
        anyhow::ensure!(answer == expected, "{answer:?}");
        Ok(Some(()))
    })
    .await
    .unwrap();
}

#[test]
fn a_cordon_bears_its_operations_name_and_no_other_operation_lifts_it() {
    shared(async |world| {
        world.node(node("cordon")).await;
        let nodes = world.nodes().await;
        let name = NodeName::new("cordon");
        let (ours, other) = (operation("op-1"), operation("op-2"));
        for _ in 0..2 {
            assert_eq!(nodes.cordon(&name, Some(&ours)).await, Ok(false));
            assert_eq!(cordon_of(&world, "cordon").await, (true, Some("op-1".to_owned())));
        }
        nodes.uncordon(&name, Some(&other)).await.unwrap();
        assert_eq!(cordon_of(&world, "cordon").await, (true, Some("op-1".to_owned())));
        nodes.uncordon(&name, Some(&ours)).await.unwrap();
        assert_eq!(cordon_of(&world, "cordon").await, (false, None));
    });
}

#[test]
fn a_persons_cordon_stays_a_persons_whatever_drains_the_node() {
    shared(async |world| {
        world.node(node("cordon-person")).await;
        let nodes = world.nodes().await;
        let name = NodeName::new("cordon-person");
        let ours = operation("op-1");
        assert_eq!(nodes.cordon(&name, None).await, Ok(false));
        assert_eq!(
            nodes.cordon(&name, Some(&ours)).await,
            Ok(true),
            "cordoned before"
        );
        nodes.uncordon(&name, Some(&ours)).await.unwrap();
        assert_eq!(cordon_of(&world, "cordon-person").await, (true, None));
        nodes.uncordon(&name, None).await.unwrap();
        assert_eq!(cordon_of(&world, "cordon-person").await, (false, None));
        let nobody = NodeName::new("cordon-nobody");
        assert_eq!(nodes.cordon(&nobody, None).await, Err(NodesError::NoNode(nobody)));
    });
}

#[test]
fn a_budget_refuses_an_eviction_until_it_has_room_and_two_budgets_for_ever() {
    shared(async |world| {
        world.node(node("budget")).await;
        let place = world.place("budget").await;
        for name in ["web-1", "web-2"] {
            place.ready_pod(pod(name).label("app", "web").on("budget")).await;
        }
        place.budget("web", "web", 1, 1).await;
        let nodes = world.nodes().await;
        let (first, second) = (
            read(&nodes, "budget", "web-1").await,
            read(&nodes, "budget", "web-2").await,
        );
        assert!(first.must_leave && !first.terminating);
        assert_eq!(nodes.evict(&first).await, Ok(Eviction::Accepted));
        assert_eq!(nodes.evict(&second).await, Ok(Eviction::Budget));
        until_evict(&nodes, &first, Eviction::Gone).await;
        assert_eq!(nodes.evict(&second).await, Ok(Eviction::Budget));
        place
            .ready_pod(pod("web-3").label("app", "web").on("budget"))
            .await;
        place.until_allowed("web", 1).await;
        until_evict(&nodes, &second, Eviction::Accepted).await;

        place
            .ready_pod(pod("twice").label("app", "twice").on("budget"))
            .await;
        place.budget("twice-a", "twice", 0, 1).await;
        place.budget("twice-b", "twice", 0, 1).await;
        let twice = read(&nodes, "budget", "twice").await;
        assert_eq!(nodes.evict(&twice).await, Ok(Eviction::MultipleBudgets));
    });
}

#[test]
fn a_pod_that_came_again_under_its_name_is_never_evicted_in_place_of_the_one_that_was_read() {
    shared(async |world| {
        world.node(node("uid")).await;
        let place = world.place("uid").await;
        place.ready_pod(pod("db-0").on("uid")).await;
        let nodes = world.nodes().await;
        let read_first = read(&nodes, "uid", "db-0").await;
        place.remove_pod("db-0").await;
        assert_eq!(nodes.evict(&read_first).await, Ok(Eviction::Gone));
        let second = place.ready_pod(pod("db-0").on("uid")).await;
        assert_eq!(nodes.evict(&read_first).await, Ok(Eviction::Gone));
        nodes.delete_pod(&read_first, 0).await.unwrap();
        assert_eq!(place.living("db-0").await, Some(second));

        // Replaced between the coordinator's look and its eviction: only the precondition is left to notice.
        let read_second = read(&nodes, "uid", "db-0").await;
        let swap = place.clone();
        let client = overtaken(world.coordinator().await, move || {
            let place = swap.clone();
            async move {
                place.remove_pod("db-0").await;
                place.pod(pod("db-0").on("uid")).await;
            }
        });
        assert_eq!(
            KubeNodes::new(api(client)).evict(&read_second).await,
            Ok(Eviction::Gone)
        );
        assert!(
            place
                .living("db-0")
                .await
                .is_some_and(|uid| uid != read_second.uid)
        );
        let evictions = world.cluster.evictions().unwrap();
        let codes: Vec<u16> = evictions
            .iter()
            .filter(|eviction| eviction.pod == "db-0")
            .map(|eviction| eviction.code)
            .collect();
        assert_eq!(codes, [409], "one was asked for, and refused");
    });
}

#[test]
fn a_pod_of_a_namespace_that_is_being_deleted_is_said_to_go_with_it() {
    shared(async |world| {
        world.node(node("ending")).await;
        let place = world.place("ending").await;
        place.ready_pod(pod("web").on("ending")).await;
        let nodes = world.nodes().await;
        let web = read(&nodes, "ending", "web").await;
        let admin = Arc::clone(&world);
        let client = overtaken(world.coordinator().await, move || {
            let admin = Arc::clone(&admin);
            async move {
                let namespaces = admin.admin::<Namespace>();
                namespaces
                    .delete("ending", &DeleteParams::default())
                    .await
                    .unwrap();
            }
        });
        let answer = KubeNodes::new(api(client)).evict(&web).await;
        assert_eq!(answer, Ok(Eviction::NamespaceTerminating));
        until_evict(&nodes, &web, Eviction::Gone).await;
    });
}

pub(super) async fn annotate(world: &World, node: &str, nonce: &str) {
    let patch = serde_json::json!({ "metadata": { "annotations": { keys::NONCE: nonce } } });
    world
        .admin::<Node>()
        .patch(node, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

#[test]
fn a_verified_node_loses_its_startup_taint_and_no_other_and_a_deleted_one_is_gone() {
    shared(async |world| {
        let unverified = node("verify")
            .taint("first", None, "NoSchedule")
            .taint(keys::UNVERIFIED, None, "NoSchedule")
            .taint("last", Some("x"), "NoExecute");
        world.node(unverified).await;
        let nodes = world.nodes().await;
        let name = NodeName::new("verify");
        let uid = world.read_node("verify").await.metadata.uid.unwrap();
        let binding = Binding::new(&"verify".parse().unwrap(), &Binding::mint()).unwrap();
        let look = || nodes.verify(&name, &binding);
        assert_eq!(look().await, Ok(Verified::Unproven { uid: uid.clone() }));
        annotate(&world, "verify", &binding.nonce("another")).await;
        assert_eq!(look().await, Ok(Verified::Unproven { uid: uid.clone() }));
        assert_eq!(taints_of(&world.read_node("verify").await).len(), 3);
        annotate(&world, "verify", &binding.nonce(&uid)).await;
        for _ in 0..2 {
            assert_eq!(look().await, Ok(Verified::Lifted));
            let read = world.read_node("verify").await;
            assert_eq!(taints_of(&read), ["first", "last"]);
        }
        for _ in 0..2 {
            nodes.delete(&name).await.unwrap();
        }
        assert!(world.admin::<Node>().get_opt("verify").await.unwrap().is_none());
        assert_eq!(nodes.verify(&name, &binding).await, Err(NodesError::NoNode(name)));
    });
}

#[test]
fn a_node_leaves_load_balancers_for_its_operation_alone_and_a_persons_uncordon_brings_it_back() {
    shared(async |world| {
        world.node(node("balanced")).await;
        let nodes = world.nodes().await;
        let name = NodeName::new("balanced");
        let (ours, other) = (operation("op-1"), operation("op-2"));
        let label = async || {
            let labels = world.read_node("balanced").await.metadata.labels;
            labels.and_then(|labels| labels.get(keys::NO_BALANCERS).cloned())
        };
        for by in [&ours, &other] {
            nodes.leave_balancers(&name, by).await.unwrap();
            assert_eq!(label().await.as_deref(), Some("op-1"));
        }
        nodes.rejoin_balancers(&name, &other).await.unwrap();
        assert_eq!(label().await.as_deref(), Some("op-1"));
        nodes.rejoin_balancers(&name, &ours).await.unwrap();
        assert_eq!(label().await, None);
        nodes.leave_balancers(&name, &ours).await.unwrap();
        nodes.uncordon(&name, None).await.unwrap();
        assert_eq!(label().await, None);
    });
}

#[test]
fn volumes_that_only_pods_which_stay_use_are_not_waited_for() {
    shared(async |world| {
        let place = world.place("attached").await;
        world.node(node("attached")).await;
        for (volume, claim) in [("attached-data", "data"), ("attached-logs", "logs-pod-scratch")] {
            let volume_object = json!({
                "metadata": { "name": volume },
                "spec": {
                    "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "x",
                    "claimRef": { "namespace": "attached", "name": claim },
                    "csi": { "driver": "ebs.csi.aws.com", "volumeHandle": volume },
                },
            });
            create(
                &world.admin::<PersistentVolume>(),
                &serde_json::from_value(volume_object).unwrap(),
            )
            .await;
            let attachment = json!({
                "metadata": { "name": volume },
                "spec": {
                    "attacher": "ebs.csi.aws.com", "nodeName": "attached",
                    "source": { "persistentVolumeName": volume },
                },
            });
            create(
                &world.admin::<VolumeAttachment>(),
                &serde_json::from_value(attachment).unwrap(),
            )
            .await;
        }
        let stays = json!({
            "metadata": { "name": "logs-pod", "namespace": "attached" },
            "spec": {
                "nodeName": "attached",
                "containers": [{ "name": "c", "image": "i" }],
                "volumes": [{ "name": "scratch", "ephemeral": { "volumeClaimTemplate": { "spec": {
                    "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } } } }],
            },
        });
        create(&place.all::<Pod>(), &serde_json::from_value(stays).unwrap()).await;
        let nodes = world.nodes().await;
        assert_eq!(
            nodes.attached(&"attached".into()).await.unwrap(),
            ["attached-data"]
        );
        assert_eq!(
            nodes.attached(&"other".into()).await.unwrap(),
            Vec::<String>::new()
        );
    });
}

#[test]
fn a_node_that_is_down_for_good_is_tainted_once_beside_its_other_taints() {
    shared(async |world| {
        world.node(node("down").taint("first", None, "NoSchedule")).await;
        world.node(node("bare")).await;
        let nodes = world.nodes().await;
        for name in ["down", "bare"] {
            for _ in 0..2 {
                nodes.out_of_service(&name.into()).await.unwrap();
            }
        }
        assert_eq!(
            taints_of(&world.read_node("down").await),
            ["first", keys::OUT_OF_SERVICE]
        );
        assert_eq!(taints_of(&world.read_node("bare").await), [keys::OUT_OF_SERVICE]);
    });
}
