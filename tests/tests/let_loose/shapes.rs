//! The shapes of workloads, seeded: what there is to buy, what is there, and the pods that wait.

use serde_json::{Value, json};

use crate::{
    dice::Dice,
    names::{LEVELS, NAMESPACES, ZONES},
    template,
    world::WORKLOAD,
};

/// A cluster with its workload.
#[derive(Default)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) policy: String,
    pub(crate) nodes: Vec<Value>,
    pub(crate) daemon_sets: Vec<Value>,
    pub(crate) volumes: Vec<Value>,
    pub(crate) claims: Vec<Value>,
    pub(crate) pods: Vec<Value>,
}

pub(crate) fn all() -> Vec<Shape> {
    vec![web(), mix(), specials(), half_full(), random()]
}

const ZONE: &str = "topology.kubernetes.io/zone";
const HOSTNAME: &str = "kubernetes.io/hostname";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

const TYPES: &str = r#"
[[instance_type]]
name = "t.small"
cpu = "2"
memory = "4Gi"
on_demand_price = 0.04
spot_price = 0.015
[[instance_type]]
name = "t.large"
cpu = "4"
memory = "16Gi"
on_demand_price = 0.11
spot_price = 0.04
[[instance_type]]
name = "t.xlarge"
cpu = "8"
memory = "32Gi"
on_demand_price = 0.22
spot_price = 0.08
[[instance_type]]
name = "a.large"
cpu = "4"
memory = "8Gi"
arch = "arm64"
on_demand_price = 0.09
spot_price = 0.035
[[instance_type]]
name = "g.xlarge"
cpu = "4"
memory = "16Gi"
resources = { "example.com/gpu" = "2", "hugepages-2Mi" = "64Mi" }
on_demand_price = 0.5
spot_price = 0.2
"#;

fn policy(workers: &str, more: &str) -> String {
    format!(
        r#"
[cluster]
id = "k3s"
[limits]
min_nodes = 0
max_nodes = 200
[[pool]]
name = "workers"
zones = ["us-east-1a", "us-east-1b", "us-east-1c"]
{workers}
{more}
{TYPES}"#
    )
}

const X86: &str = r#"instance_types = ["t.small", "t.large", "t.xlarge"]"#;

/// A pod that waits, with requests in thousandths of a core and mebibytes.
fn pod(name: &str, app: &str, cpu: usize, memory: usize) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "default", "labels": { "app": app, WORKLOAD: "true" } },
        "spec": { "containers": [{ "name": "main", "image": "rig.invalid/none", "resources": {
            "requests": { "cpu": format!("{cpu}m"), "memory": format!("{memory}Mi") } } }] },
    })
}

/// Replicas of a few workloads, each of some size; `shape` adds what else a pod of a workload wants.
fn replicas(
    dice: &mut Dice,
    workloads: usize,
    replicas: usize,
    shape: impl Fn(usize, &str, &mut Value),
) -> Vec<Value> {
    let mut pods = Vec::new();
    for workload in 0..workloads {
        let app = format!("app-{workload}");
        let cpu = dice.one_of(&[100, 250, 500, 1000, 1500]);
        let memory = dice.one_of(&[128, 512, 1024, 3072]);
        for replica in 0..replicas {
            let mut pod = pod(&format!("{app}-{replica}"), &app, cpu, memory);
            shape(workload, &app, &mut pod);
            pods.push(pod);
        }
    }
    pods
}

/// Plain pods of some Deployments.
fn web() -> Shape {
    Shape {
        name: "web",
        policy: policy(
            &format!(
                "{X86}\nmarkets = [\"spot\", \"on-demand\"]\nspot_share_percent = 60\non_demand_base = 1"
            ),
            "",
        ),
        pods: replicas(&mut Dice::new(11), 10, 6, |_, _, _| {}),
        ..Shape::default()
    }
}

fn spread(app: &str, key: &str, action: &str) -> Value {
    json!([{ "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": action,
             "labelSelector": { "matchLabels": { "app": app } } }])
}

fn term(app: &str, key: &str) -> Value {
    json!({ "topologyKey": key, "labelSelector": { "matchLabels": { "app": app } } })
}

/// Fifths as the peers' benchmarks have them: generic, spread over zones, spread over hosts, near their own kind in a
/// zone, apart from their own kind.
fn mix() -> Shape {
    Shape {
        name: "mix",
        policy: policy(X86, ""),
        pods: replicas(&mut Dice::new(12), 10, 8, |workload, app, pod| {
            let spec = &mut pod["spec"];
            match workload % 5 {
                1 => spec["topologySpreadConstraints"] = spread(app, ZONE, "DoNotSchedule"),
                2 => spec["topologySpreadConstraints"] = spread(app, HOSTNAME, "DoNotSchedule"),
                3 => spec["affinity"] = json!({ "podAffinity": { REQUIRED: [term(app, ZONE)] } }),
                4 => spec["affinity"] = json!({ "podAntiAffinity": { REQUIRED: [term(app, HOSTNAME)] } }),
                _ => {}
            }
        }),
        ..Shape::default()
    }
}

/// Two pools, of which one is tainted, and pods that choose among them by everything a node can be chosen by.
fn specials() -> Shape {
    let special = r#"
[[pool]]
name = "special"
zones = ["us-east-1b", "us-east-1c"]
instance_types = ["t.large", "a.large", "g.xlarge"]
labels = { tier = "special", level = "10" }
taints = [{ key = "dedicated", value = "batch", effect = "NoSchedule" }]
reserved = { cpu = "100m", memory = "256Mi" }
max_pods = 12"#;
    let tolerates =
        json!([{ "key": "dedicated", "operator": "Equal", "value": "batch", "effect": "NoSchedule" }]);
    Shape {
        name: "specials",
        policy: policy(
            &format!("{X86}\nlabels = {{ tier = \"web\", level = \"1\" }}"),
            special,
        ),
        daemon_sets: vec![daemon_set("logs")],
        pods: replicas(&mut Dice::new(13), 9, 6, |workload, app, pod| {
            let spec = &mut pod["spec"];
            match workload {
                0 => {
                    spec["nodeSelector"] = json!({ "tier": "special" });
                    spec["tolerations"] = tolerates.clone();
                }
                1 => {
                    spec["nodeSelector"] = json!({ "kubernetes.io/arch": "arm64" });
                    spec["tolerations"] = json!([{ "operator": "Exists" }]);
                }
                2 => {
                    spec["containers"][0]["ports"] = json!([{ "containerPort": 80, "hostPort": 8080 }]);
                }
                3 => {
                    let level = json!([{ "key": "level", "operator": "Gt", "values": ["4"] }]);
                    spec["affinity"] = json!({ "nodeAffinity": { REQUIRED: { "nodeSelectorTerms": [{ "matchExpressions": level }] } } });
                    spec["tolerations"] = tolerates.clone();
                    spec["topologySpreadConstraints"] = spread(app, ZONE, "DoNotSchedule");
                    spec["topologySpreadConstraints"][0]["nodeTaintsPolicy"] = "Honor".into();
                }
                4 => {
                    spec["containers"][0]["resources"]["limits"] = json!({ "example.com/gpu": "1" });
                    spec["tolerations"] = tolerates.clone();
                }
                5 => {
                    spec["topologySpreadConstraints"] = spread(app, ZONE, "ScheduleAnyway");
                    spec["affinity"] = json!({ "podAntiAffinity": { PREFERRED: [
                        { "weight": 50, "podAffinityTerm": term(app, HOSTNAME) }] } });
                }
                6 => {
                    spec["nodeSelector"] = json!({ ZONE: ZONES[2] });
                    spec["initContainers"] = json!([
                        { "name": "sidecar", "image": "rig.invalid/none", "restartPolicy": "Always",
                          "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } } },
                        { "name": "init", "image": "rig.invalid/none",
                          "resources": { "requests": { "cpu": "1", "memory": "256Mi" } } }]);
                }
                7 => spec["affinity"] = json!({ "podAffinity": { REQUIRED: [term("app-6", ZONE)] } }),
                _ => spec["runtimeClassName"] = "vm".into(),
            }
        }),
        ..Shape::default()
    }
}

fn daemon_set(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "selector": { "matchLabels": { "daemon": name } }, "template": {
            "metadata": { "labels": { "daemon": name } },
            "spec": { "tolerations": [{ "operator": "Exists" }], "containers": [{ "name": "main", "image": "rig.invalid/none",
                "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } } }] } } },
    })
}

/// Nodes that are half full, of pods that keep others away, and volumes that tie pods to zones.
fn half_full() -> Shape {
    let mut dice = Dice::new(14);
    let (mut nodes, mut volumes, mut claims) = (Vec::new(), Vec::new(), Vec::new());
    let mut pods = replicas(&mut dice, 6, 8, |workload, app, pod| match workload {
        0 => pod["spec"]["topologySpreadConstraints"] = spread(app, ZONE, "DoNotSchedule"),
        1 => {
            pod["spec"]["affinity"] =
                json!({ "podAntiAffinity": { REQUIRED: [term("app-here", HOSTNAME)] } });
        }
        _ => {}
    });
    for index in 0..9 {
        let name = format!("here-{index}");
        nodes.push(json!({
            "metadata": { "name": name, "labels": {
                HOSTNAME: name, ZONE: ZONES[index % 3], "topology.kubernetes.io/region": "us-east-1",
                "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "smartscale.io/pool": "workers",
                "smartscale.io/market": "on-demand", "node.kubernetes.io/instance-type": "t.large" } },
            "status": { "allocatable": { "cpu": "4", "memory": "16Gi", "pods": "20" },
                        "capacity": { "cpu": "4", "memory": "16Gi", "pods": "20" } },
        }));
        let mut there = pod(&format!("app-here-{index}"), "app-here", 2000, 8192);
        there["spec"]["nodeName"] = name.as_str().into();
        if index % 4 == 0 {
            there["spec"]["affinity"] = json!({ "podAntiAffinity": { REQUIRED: [term("app-2", HOSTNAME)] } });
        }
        pods.push(there);
    }
    for index in 0..6 {
        let name = format!("data-{index}");
        let zone = dice.one_of(&ZONES);
        volumes.push(json!({ "metadata": { "name": name }, "spec": {
            "storageClassName": "by-hand", "capacity": { "storage": "5Gi" }, "accessModes": ["ReadWriteOnce"],
            "csi": { "driver": "ebs.csi.aws.com", "volumeHandle": name },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                { "key": ZONE, "operator": "In", "values": [zone] }] }] } } } }));
        claims.push(
            json!({ "metadata": { "name": name, "namespace": "default" }, "spec": {
            "storageClassName": "by-hand", "volumeName": name, "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "5Gi" } } } }),
        );
        let mut db = pod(&format!("db-{index}"), "db", 1500, 4096);
        db["spec"]["volumes"] = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": name } }]);
        pods.push(db);
    }
    Shape {
        name: "half-full nodes",
        policy: policy(X86, ""),
        nodes,
        daemon_sets: vec![daemon_set("metrics"), daemon_set("network")],
        volumes,
        claims,
        pods,
    }
}

/// Pods of random templates, as the differential test has them, without what no such cluster can serve (claims, gates,
/// other schedulers) and without what lets one workload shut another out, so that only who comes first decides.
fn random() -> Shape {
    let mut dice = Dice::new(15);
    let mut pods = Vec::new();
    for workload in 0..12 {
        let namespace = dice.one_of(&NAMESPACES);
        let app = format!("app-{}", workload % 6);
        let mut template = template::of(&mut dice, namespace, &app);
        template.labels[WORKLOAD] = "true".into();
        if let Some(spec) = template.spec.as_object_mut() {
            for field in [
                "volumes",
                "schedulingGates",
                "schedulerName",
                "resourceClaims",
                "priority",
            ] {
                spec.remove(field);
            }
        }
        if let Some(affinity) = template.spec["affinity"].as_object_mut() {
            affinity.remove("podAffinity");
            affinity.remove("podAntiAffinity");
        }
        for replica in 0..dice.number(1, 6) {
            pods.push(json!({
                "metadata": { "name": format!("{app}-{workload}-{replica}"), "namespace": namespace, "labels": template.labels },
                "spec": template.spec,
            }));
        }
    }
    let level = dice.one_of(&LEVELS);
    let special = format!(
        r#"
[[pool]]
name = "special"
zones = ["us-east-1a", "us-east-1b"]
instance_types = ["t.large", "a.large", "g.xlarge"]
labels = {{ tier = "special", level = "{level}" }}
taints = [{{ key = "dedicated", value = "batch", effect = "NoSchedule" }}]"#
    );
    let workers = format!(
        "{X86}\nmarkets = [\"on-demand\", \"spot\"]\nlabels = {{ tier = \"workers\", level = \"1\" }}"
    );
    Shape {
        name: "any features",
        policy: policy(&workers, &special),
        daemon_sets: vec![daemon_set("logs")],
        pods,
        ..Shape::default()
    }
}
