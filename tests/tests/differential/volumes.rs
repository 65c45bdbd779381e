//! Random storage: claims that are bound, wait for a consumer, can never be bound, or are not there.

use serde_json::{Value, json};

use crate::{
    cluster::ago,
    dice::Dice,
    names::{CLAIMS, NAMESPACES, ZONES},
};

const CLASSES: [&str; 5] = ["late", "late-here", "at-once", "by-hand", "missing"];

pub(crate) fn add(dice: &mut Dice, nodes: &[String], objects: &mut Vec<Value>) {
    classes(dice, objects);
    for index in 0..dice.number(0, 3) {
        volume(dice, nodes, &format!("free-{index}"), Some("by-hand"), objects);
        // All of different sizes: among equal ones the scheduler takes any.
        let size = format!("{}Gi", dice.one_of(&[2, 10]) + index);
        if let Some(volume) = objects.last_mut() {
            volume["spec"]["capacity"]["storage"] = size.into();
        }
    }
    for node in nodes {
        if dice.chance(40) {
            continue;
        }
        objects.push(json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": { "name": node },
            "spec": { "drivers": [{ "name": "ebs.csi.aws.com", "nodeID": node, "topologyKeys": [],
                                    "allocatable": { "count": dice.number(1, 3) } }] },
        }));
    }
    for namespace in NAMESPACES {
        for index in 0..CLAIMS - 1 {
            claim(dice, nodes, namespace, &format!("claim-{index}"), objects);
        }
    }
}

fn classes(dice: &mut Dice, objects: &mut Vec<Value>) {
    let class = |name: &str, provisioner: &str, mode: &str| {
        json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
                "metadata": { "name": name, "creationTimestamp": ago(9000) },
                "provisioner": provisioner, "volumeBindingMode": mode })
    };
    let mut late = class("late", "ebs.csi.aws.com", "WaitForFirstConsumer");
    if dice.chance(50) {
        late["metadata"]["annotations"] = json!({ "storageclass.kubernetes.io/is-default-class": "true" });
    }
    objects.push(late);
    let mut here = class("late-here", "ebs.csi.aws.com", "WaitForFirstConsumer");
    let zones = dice.some_of(&ZONES, 1);
    here["allowedTopologies"] = json!([{ "matchLabelExpressions": [
        { "key": "topology.kubernetes.io/zone", "values": zones }] }]);
    if dice.chance(20) {
        here["allowedTopologies"] = json!([
            { "matchLabelExpressions": [{ "key": "topology.kubernetes.io/zone", "values": [ZONES[0]] },
                                        { "key": "kubernetes.io/arch", "values": ["amd64"] }] },
            { "matchLabelExpressions": [{ "key": "tier", "values": ["web", "special"] }] }]);
    }
    objects.push(here);
    objects.push(class("at-once", "ebs.csi.aws.com", "Immediate"));
    objects.push(class(
        "by-hand",
        "kubernetes.io/no-provisioner",
        "WaitForFirstConsumer",
    ));
}

fn claim(dice: &mut Dice, nodes: &[String], namespace: &str, name: &str, objects: &mut Vec<Value>) {
    let mode = dice.one_of(&[
        "ReadWriteOnce",
        "ReadWriteOnce",
        "ReadWriteMany",
        "ReadWriteOncePod",
    ]);
    let mut claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name, "namespace": namespace },
        "spec": { "accessModes": [mode], "resources": { "requests": { "storage": dice.one_of(&["1Gi", "5Gi"]) } } },
        "status": { "phase": "Pending" },
    });
    let class = dice.one_of(&CLASSES);
    if !dice.chance(10) {
        claim["spec"]["storageClassName"] = class.into();
    }
    if dice.chance(50) {
        let of = format!("{namespace}-{name}");
        claim["spec"]["volumeName"] = of.as_str().into();
        claim["spec"]["storageClassName"] = "late".into();
        if !dice.chance(4) {
            volume(dice, nodes, &of, Some("late"), objects);
        }
        if dice.chance(95) {
            claim["status"]["phase"] = "Bound".into();
            claim["metadata"]["annotations"] = json!({ "pv.kubernetes.io/bind-completed": "yes" });
        } else if dice.chance(40) {
            claim["status"]["phase"] = "Lost".into();
        }
    }
    if dice.chance(3) {
        claim["metadata"]["deletionTimestamp"] = ago(10).into();
        claim["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
    }
    objects.push(claim);
}

fn volume(dice: &mut Dice, nodes: &[String], name: &str, class: Option<&str>, objects: &mut Vec<Value>) {
    let mut labels = json!({});
    if dice.chance(15) {
        labels["topology.kubernetes.io/zone"] =
            (dice.one_of(&["us-east-1a", "us-east-1b", "us-east-1a__us-east-1c"])).into();
    }
    let mut spec = json!({
        "capacity": { "storage": dice.one_of(&["2Gi", "10Gi"]) },
        "accessModes": ["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"],
        "csi": { "driver": "ebs.csi.aws.com", "volumeHandle": name },
    });
    if let Some(class) = class {
        spec["storageClassName"] = class.into();
    }
    let requirement = match dice.number(0, 9) {
        0..=4 => Some(
            json!({ "key": "topology.kubernetes.io/zone", "operator": "In", "values": dice.some_of(&ZONES, 1) }),
        ),
        5 if !nodes.is_empty() => {
            Some(json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [dice.name(nodes)] }))
        }
        6 => Some(json!({ "key": "tier", "operator": "NotIn", "values": ["workers"] })),
        _ => None,
    };
    if let Some(requirement) = requirement {
        spec["nodeAffinity"] =
            json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [requirement] }] } });
    }
    objects.push(json!({ "apiVersion": "v1", "kind": "PersistentVolume",
                         "metadata": { "name": name, "labels": labels }, "spec": spec,
                         "status": { "phase": if name.starts_with("free") { "Available" } else { "Bound" } } }));
}
