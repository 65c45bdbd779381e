//! Random pods: the replicas of a few workloads, bound and waiting, in every stage of life.

use serde_json::{Value, json};

use crate::{cluster::ago, dice::Dice, template};

/// Makes up workloads with their pods.
pub(crate) fn add(dice: &mut Dice, quiet: bool, nodes: &[String], objects: &mut Vec<Value>) {
    let mut left = if quiet {
        dice.number(3, 20)
    } else {
        dice.number(5, 40)
    };
    let mut workload = 0;
    while left > 0 {
        let replicas = dice.number(1, 7).min(left);
        left -= replicas;
        let namespace = dice.one_of(&["default", "default", "prod", "test"]);
        let app = format!("app-{}", workload % 6);
        let template = template::of(dice, namespace, &app);
        let bound = quiet || dice.chance(50);
        for replica in 0..replicas {
            let name = format!("{app}-{workload}-{replica}");
            let mut pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": name, "namespace": namespace, "uid": format!("{namespace}-{name}"),
                              "labels": template.labels, "creationTimestamp": ago(600) },
                "spec": template.spec, "status": { "phase": "Pending" },
            });
            let mut owner = dice.one_of(&[
                "ReplicaSet",
                "ReplicaSet",
                "ReplicaSet",
                "StatefulSet",
                "DaemonSet",
                "",
            ]);
            if quiet && dice.chance(80) {
                // Others keep their node.
                owner = "ReplicaSet";
            }
            // Pods of a DaemonSet are neither placed nor pending; not too many of them.
            if !owner.is_empty() && (owner != "DaemonSet" || dice.chance(30)) {
                pod["metadata"]["ownerReferences"] = json!([{ "apiVersion": "apps/v1", "kind": owner, "name": app,
                                                              "uid": app, "controller": true }]);
            }
            if bound && !nodes.is_empty() && (quiet || dice.chance(70)) {
                bind(dice, nodes, &mut pod);
            }
            own_claims(dice, &pod, objects);
            objects.push(pod);
        }
        workload += 1;
    }
}

fn bind(dice: &mut Dice, nodes: &[String], pod: &mut Value) {
    pod["spec"]["nodeName"] = dice.name(nodes).into();
    if let Some(spec) = pod["spec"].as_object_mut() {
        spec.remove("schedulingGates");
    }
    let phase = dice.one_of(&[
        "Running",
        "Running",
        "Running",
        "Running",
        "Running",
        "Succeeded",
        "Failed",
        "Pending",
    ]);
    pod["status"] = json!({ "phase": phase });
    if dice.chance(10) {
        // Some are gone by now: the end of their grace is more than 30 s ago.
        pod["metadata"]["deletionTimestamp"] = ago(dice.one_of(&[-20, 10, 100])).into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    }
}

/// The claims of a pod's ephemeral volumes, most of them made already.
fn own_claims(dice: &mut Dice, pod: &Value, objects: &mut Vec<Value>) {
    let meta = &pod["metadata"];
    for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
        let Some(template) = volume.get("ephemeral").map(|e| &e["volumeClaimTemplate"]["spec"]) else {
            continue;
        };
        if dice.chance(10) {
            continue;
        }
        let name = format!(
            "{}-{}",
            meta["name"].as_str().unwrap_or_default(),
            volume["name"].as_str().unwrap_or_default()
        );
        // A claim of that name may be somebody else's.
        let uid = if pod["spec"].get("nodeName").is_some() || dice.chance(90) {
            meta["uid"].clone()
        } else {
            "another".into()
        };
        objects.push(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": name, "namespace": meta["namespace"],
                          "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": uid, "controller": true }] },
            "spec": template, "status": { "phase": "Pending" },
        }));
    }
}
