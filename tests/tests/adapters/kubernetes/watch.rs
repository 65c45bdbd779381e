//! What the watch sees and keeps.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use kube::api::{Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use smartscale_manifests::{Objects, read};
use smartscale_planner::drainability::SCALE_DOWN_DISABLED;
use smartscale_planner::model::Cluster;
use smartscale_tests::rig::kubernetes::{node, pod};

use super::{Place, create, exported, shared};

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn cluster(objects: &Objects) -> Cluster {
    objects.to_cluster(Timestamp::now()).0
}

/// Whether a pod of the namespace is seen, and on which node.
fn seen_pod(objects: &Objects, place: &Place, name: &str) -> Option<Option<String>> {
    let cluster = cluster(objects);
    let mut pods = cluster.pods.into_iter();
    let pod = pods.find(|pod| pod.key.namespace.as_str() == place.name && &*pod.key.name == name)?;
    Some(pod.node.as_ref().map(ToString::to_string))
}

#[test]
fn the_watch_sees_every_kind_that_a_decision_reads_and_follows_their_changes() {
    shared(async |world| {
        let watching = world.watch().await;
        watching.until("anything", |_| true).await;
        let place = world.place("kinds").await;
        world.node(node("kinds")).await;
        place.pod(pod("bound").on("kinds")).await;
        place
            .pod(pod("pending").node_selector("rig.invalid/none", "x"))
            .await;
        let labels = json!({ "app": "kinds" });
        let template = json!({
            "metadata": { "labels": labels },
            "spec": { "nodeSelector": { "rig.invalid/none": "x" }, "containers": [ { "name": "main", "image": "rig.invalid/none" } ] },
        });
        let set = json!({
            "metadata": { "name": "kinds" },
            "spec": { "selector": { "matchLabels": labels }, "template": template },
        });
        create(&place.all::<DaemonSet>(), &object(set)).await;
        let class = json!({
            "metadata": { "name": "kinds" }, "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        });
        create(&world.admin::<StorageClass>(), &object(class)).await;
        let drivers = json!([ { "name": "ebs.csi.aws.com", "nodeID": "i-1", "topologyKeys": null, "allocatable": { "count": 25 } } ]);
        let limits = json!({ "metadata": { "name": "kinds" }, "spec": { "drivers": drivers } });
        create(&world.admin::<CSINode>(), &object(limits)).await;
        let volume = json!({
            "metadata": { "name": "kinds" },
            "spec": {
                "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "kinds",
                "hostPath": { "path": "/nowhere" },
            },
        });
        create(&world.admin::<PersistentVolume>(), &object(volume)).await;
        let claim = json!({
            "metadata": { "name": "kinds" },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "kinds",
                "resources": { "requests": { "storage": "1Gi" } },
            },
        });
        create(&place.all::<PersistentVolumeClaim>(), &object(claim)).await;
        let priority = json!({ "metadata": { "name": "kinds" }, "value": 7 });
        create(&world.admin::<PriorityClass>(), &object(priority)).await;
        place.budget("kinds", "kinds", 0, 0).await;

        let all = [
            "Node kinds",
            "Pod kinds/bound",
            "Pod kinds/pending",
            "PodDisruptionBudget kinds/kinds",
            "DaemonSet kinds/kinds",
            "PersistentVolume kinds",
            "PersistentVolumeClaim kinds/kinds",
            "StorageClass kinds",
            "CSINode kinds",
            "Namespace kinds",
            "PriorityClass kinds",
        ];
        let seen = watching.until("every kind", |objects| {
            let exported = exported(objects);
            all.iter().all(|name| exported.iter().any(|seen| seen == name))
        });
        let seen = seen.await;
        assert_eq!(seen_pod(&seen, &place, "bound"), Some(Some("kinds".to_owned())));
        assert_eq!(seen_pod(&seen, &place, "pending"), Some(None));

        let merge = |patch: Value| Patch::Merge(patch);
        let params = PatchParams::default();
        let cordon = merge(json!({ "spec": { "unschedulable": true } }));
        world
            .admin::<Node>()
            .patch("kinds", &params, &cordon)
            .await
            .unwrap();
        watching
            .until("the cordon", |objects| {
                objects.node("kinds").is_some_and(|node| node.unschedulable)
            })
            .await;
        // Who has ended counts no more, and neither does who is gone.
        let ended = merge(json!({ "status": { "phase": "Succeeded" } }));
        place
            .all::<Pod>()
            .patch_status("pending", &params, &ended)
            .await
            .unwrap();
        place.remove_pod("bound").await;
        watching
            .until("the end of both pods", |objects| {
                ["bound", "pending"]
                    .iter()
                    .all(|name| seen_pod(objects, &place, name).is_none())
            })
            .await;
    });
}

#[test]
fn what_the_watch_keeps_is_what_an_offline_plan_reads_and_no_more() {
    shared(async |world| {
        let place = world.place("export").await;
        world
            .node(node("export").label("topology.kubernetes.io/zone", "eu-west-1a"))
            .await;
        let secretive = json!({
            "metadata": {
                "name": "web", "labels": { "app": "web" },
                "annotations": { "cluster-autoscaler.kubernetes.io/safe-to-evict": "true", "note": "hunter2" },
            },
            "spec": {
                "nodeName": "export",
                "containers": [ {
                    "name": "main", "image": "rig.invalid/hunter2", "command": ["hunter2"],
                    "env": [ { "name": "PASSWORD", "value": "hunter2" } ],
                    "resources": { "requests": { "cpu": "250m", "memory": "64Mi" } },
                } ],
            },
        });
        create(&place.all::<Pod>(), &object(secretive)).await;
        let watching = world.watch().await;
        let seen = watching
            .until("the pod", |objects| seen_pod(objects, &place, "web").is_some())
            .await;
        let text = seen.to_list_json().unwrap();
        for unread in ["hunter2", "managedFields", "\"image\""] {
            assert!(!text.contains(unread), "{unread}");
        }
        assert!(text.contains("safe-to-evict"));
        let mut again = Objects::default();
        for object in read::objects(&text, read::Format::Json).unwrap() {
            again.apply(object);
        }
        let now = Timestamp::now();
        assert_eq!(again.to_cluster(now), seen.to_cluster(now));
    });
}

#[test]
fn a_node_without_labels_and_one_of_more_cpu_than_can_be_counted_stop_nothing_and_are_not_lost() {
    shared(async |world| {
        let watching = world.watch().await;
        let nodes = world.admin::<Node>();
        create(&nodes, &object(json!({ "metadata": { "name": "bare" } }))).await;
        // 9 E of CPUs: the API server takes it, and thousandths of it are beyond 64 bits.
        create(&nodes, &node("vast").allocatable("9E", "1Gi").build()).await;
        world.node(node("plain")).await;
        let seen = watching
            .until("all three", |objects| {
                ["bare", "vast", "plain"]
                    .iter()
                    .all(|name| objects.node(name).is_some())
            })
            .await;
        assert!(seen.node("bare").unwrap().pool().is_none());
        let bad: Vec<_> = seen.bad().map(ToString::to_string).collect();
        let named =
            |text: &String| text.starts_with("Node vast: status.") && text.contains("`9E` is too large");
        assert!(bad.len() == 1 && named(&bad[0]), "{bad:?}");
        let held = seen.node("vast").unwrap();
        assert!(held.unschedulable && held.annotations.contains_key(SCALE_DOWN_DISABLED));

        let small = json!({ "status": { "capacity": { "cpu": "2" }, "allocatable": { "cpu": "2" } } });
        nodes
            .patch_status("vast", &PatchParams::default(), &Patch::Merge(small))
            .await
            .unwrap();
        watching
            .until("it to be understood", |objects| {
                objects.bad().next().is_none()
                    && objects
                        .node("vast")
                        .is_some_and(|node| node.allocatable.cpu.0 == 2000)
            })
            .await;
    });
}
