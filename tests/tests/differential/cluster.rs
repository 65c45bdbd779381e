//! A random cluster with its policy and state: nodes of every kind, namespaces, DaemonSets, what can be bought.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    dice::Dice,
    names::{LEVELS, NAMESPACES, ZONES},
    pods, volumes,
};

/// Everything that one seed makes.
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) objects: Vec<Value>,
    pub(crate) policy: String,
    pub(crate) state: Value,
    pub(crate) metrics: Value,
}

/// The moment of the decision.
pub(crate) fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().expect("a time")
}

/// So long ago, as it is written in objects.
pub(crate) fn ago(seconds: i64) -> String {
    (now() - SignedDuration::from_secs(seconds)).to_string()
}

impl Case {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        // A quiet cluster in which everything runs, so that nodes can go and their pods are moved.
        let quiet = dice.chance(25);
        let mut objects = namespaces(&mut dice);
        let policy = policy(&mut dice, quiet);
        let names = nodes(&mut dice, quiet, &mut objects);
        volumes::add(&mut dice, &names, &mut objects);
        daemon_sets(&mut dice, &mut objects);
        pods::add(&mut dice, quiet, &names, &mut objects);
        let state = if quiet { json!({}) } else { state(&mut dice) };
        let metrics = metrics(&mut dice, quiet, &names);
        Self {
            seed,
            objects,
            policy,
            state,
            metrics,
        }
    }
}

impl Case {
    /// Everything, for a person who looks into a difference.
    pub(crate) fn told(&self) -> String {
        let objects: Vec<_> = self.objects.iter().map(|object| format!("{object}\n")).collect();
        format!(
            "{}{}\nstate {}\nmetrics {}",
            objects.concat(),
            self.policy,
            self.state,
            self.metrics
        )
    }
}

fn namespaces(dice: &mut Dice) -> Vec<Value> {
    let labels = [
        json!({ "kubernetes.io/metadata.name": "default" }),
        json!({ "kubernetes.io/metadata.name": "prod", "team": "a", "env": "prod" }),
        json!({ "kubernetes.io/metadata.name": "test", "team": "b" }),
    ];
    let mut objects = Vec::new();
    for (name, labels) in NAMESPACES.iter().zip(labels) {
        // Every namespace exists for the API server; without a label of its own nobody can tell from the pods alone.
        if *name != "default" || dice.chance(80) {
            objects.push(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } }));
        }
    }
    objects
}

const TYPES: [(&str, u32, u32, &str, &str, f64); 7] = [
    ("t.small", 2, 4, "amd64", "", 0.02),
    ("t.medium", 2, 8, "amd64", "", 0.03),
    ("t.large", 4, 16, "amd64", "", 0.08),
    ("a.large", 4, 8, "arm64", "", 0.05),
    (
        "g.xlarge",
        4,
        16,
        "amd64",
        "\"example.com/gpu\" = \"2\", \"hugepages-2Mi\" = \"64Mi\"",
        0.5,
    ),
    ("t.tiny", 1, 2, "amd64", "", 0.012),
    ("a.small", 2, 4, "arm64", "", 0.018),
];

fn policy(dice: &mut Dice, quiet: bool) -> String {
    let mut text = format!(
        "[cluster]\nid = \"k3s\"\n[limits]\nmin_nodes = {}\nmax_nodes = {}\n[scale_up]\nmax_step = {}\n",
        if quiet { 0 } else { dice.number(0, 2) },
        dice.number(4, 30),
        if dice.chance(10) { dice.number(1, 3) } else { 0 },
    );
    if dice.chance(10) {
        text += "priority_cutoff = 0\n";
    }
    text += &format!(
        "[scale_down]\nwhen = \"fits\"\nsustained = \"0s\"\nmin_age = \"0s\"\nmax_parallel_drains = {}\nlocal_storage = \"move\"\n",
        dice.number(1, 4)
    );
    for (index, name) in ["workers", "special"].iter().enumerate() {
        if index > 0 && dice.chance(40) {
            break;
        }
        let types: Vec<_> = dice
            .some_of(&TYPES, 1)
            .iter()
            .map(|t| format!("\"{}\"", t.0))
            .collect();
        let zones: Vec<_> = dice
            .some_of(&ZONES, 1)
            .iter()
            .map(|z| format!("\"{z}\""))
            .collect();
        let markets = dice.one_of(&["\"on-demand\"", "\"on-demand\", \"spot\"", "\"spot\""]);
        text += &format!(
            "[[pool]]\nname = \"{name}\"\ninstance_types = [{}]\nzones = [{}]\nmarkets = [{markets}]\n",
            types.join(", "),
            zones.join(", ")
        );
        if dice.chance(60) {
            let level = dice.one_of(&LEVELS);
            text += &format!("labels = {{ tier = \"{name}\", level = \"{level}\" }}\n");
        }
        if dice.chance(if index == 0 { 15 } else { 60 }) {
            let effect = dice.one_of(&["NoSchedule", "NoExecute", "PreferNoSchedule"]);
            text +=
                &format!("taints = [{{ key = \"dedicated\", value = \"batch\", effect = \"{effect}\" }}]\n");
        }
        if dice.chance(30) {
            text += "startup_taints = [\"example.com/starting\"]\n";
        }
        if dice.chance(30) {
            text += "reserved = { cpu = \"100m\", memory = \"256Mi\" }\n";
        }
        if dice.chance(20) {
            text += &format!("max_pods = {}\n", dice.number(3, 8));
        }
        if dice.chance(20) {
            text += &format!("max_nodes = {}\n", dice.number(2, 6));
        }
        if dice.chance(8) {
            text += "headroom = { cpu = \"500m\", memory = \"512Mi\", pods = 1 }\n";
        }
    }
    for (name, cpu, memory, arch, resources, price) in TYPES {
        text += &format!(
            "[[instance_type]]\nname = \"{name}\"\ncpu = \"{cpu}\"\nmemory = \"{memory}Gi\"\narch = \"{arch}\"\non_demand_price = {price}\nspot_price = {}\n",
            price * 0.4
        );
        if !resources.is_empty() {
            text += &format!("resources = {{ {resources} }}\n");
        }
        if dice.chance(30) {
            text += "ephemeral_storage = \"20Gi\"\n";
        }
    }
    text
}

fn nodes(dice: &mut Dice, quiet: bool, objects: &mut Vec<Value>) -> Vec<String> {
    let mut names = Vec::new();
    for index in 0..dice.number(if quiet { 3 } else { 0 }, 8) {
        let name = format!("node-{index}");
        let mut labels = json!({
            "kubernetes.io/hostname": name, "kubernetes.io/arch": dice.one_of(&["amd64", "amd64", "arm64"]),
            "kubernetes.io/os": "linux", "topology.kubernetes.io/region": "us-east-1",
            "node.kubernetes.io/instance-type": dice.one_of(&["t.small", "t.large", "z.unknown"]),
            "smartscale.io/market": dice.one_of(&["spot", "on-demand"]),
        });
        let mut label = |key: &str, value: &str| labels[key] = value.into();
        if dice.chance(90) {
            label("topology.kubernetes.io/zone", dice.one_of(&ZONES));
        }
        if quiet || dice.chance(70) {
            label(
                "smartscale.io/pool",
                dice.one_of(&["workers", "workers", "special", "gone"]),
            );
        }
        if dice.chance(50) {
            label("tier", dice.one_of(&["workers", "special", "web"]));
        }
        if dice.chance(50) {
            label("level", dice.one_of(&LEVELS));
        }
        let mut taints = Vec::new();
        if index == 0 && dice.chance(30) {
            label("node-role.kubernetes.io/control-plane", "true");
            taints.push(json!({ "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" }));
        }
        if dice.chance(25) {
            let effect = dice.one_of(&["NoSchedule", "NoExecute", "PreferNoSchedule"]);
            taints.push(
                json!({ "key": "dedicated", "value": dice.one_of(&["batch", "web"]), "effect": effect }),
            );
        }
        let young = !quiet && dice.chance(25);
        let ready = dice.chance(if young { 40 } else { 92 });
        if !ready || (young && dice.chance(20)) {
            taints.push(json!({ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }));
        }
        if young && dice.chance(40) {
            taints.push(json!({ "key": "example.com/starting", "effect": "NoSchedule" }));
        }
        let unschedulable = dice.chance(8);
        if unschedulable {
            taints.push(json!({ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }));
        }
        let mut room = json!({
            "cpu": dice.one_of(&["1", "2", "3500m", "4"]), "memory": dice.one_of(&["2Gi", "4Gi", "7900Mi", "16Gi"]),
            "pods": dice.number(4, 20).to_string(),
        });
        if dice.chance(50) {
            room["ephemeral-storage"] = "10Gi".into();
        }
        if dice.chance(15) {
            room["example.com/gpu"] = dice.number(1, 2).to_string().into();
            room["hugepages-2Mi"] = "64Mi".into();
        }
        objects.push(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "labels": labels, "creationTimestamp": ago(if young { 60 } else { 86_400 }) },
            "spec": { "unschedulable": unschedulable, "taints": taints },
            "status": { "allocatable": room, "capacity": room,
                        "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
        }));
        names.push(name);
    }
    names
}

fn daemon_sets(dice: &mut Dice, objects: &mut Vec<Value>) {
    for index in 0..dice.number(0, 2) {
        let name = format!("daemon-{index}");
        let mut container = json!({ "name": "c", "image": "i", "resources": { "requests": {
            "cpu": dice.one_of(&["50m", "300m"]), "memory": "64Mi" } } });
        if dice.chance(20) {
            container["ports"] = json!([{ "containerPort": 9090, "hostPort": 9090 }]);
        }
        let mut spec = json!({ "containers": [container] });
        if dice.chance(30) {
            spec["nodeSelector"] = json!({ "tier": "workers" });
        }
        if dice.chance(30) {
            spec["affinity"] = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{ "matchExpressions": [
                    { "key": "level", "operator": dice.one_of(&["Gt", "Lt"]), "values": ["4"] }] }] } } });
        }
        if dice.chance(40) {
            spec["tolerations"] = json!([{ "operator": "Exists" }]);
        }
        objects.push(json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": name, "namespace": "default" },
            "spec": { "selector": { "matchLabels": { "daemon": name } },
                      "template": { "metadata": { "labels": { "daemon": name, "app": dice.one_of(&["app-0", "system"]) } }, "spec": spec } },
        }));
    }
}

fn state(dice: &mut Dice) -> Value {
    let mut state = json!({});
    let offering = |dice: &mut Dice| {
        json!({ "pool": dice.one_of(&["workers", "special"]), "instance_type": dice.one_of(&TYPES).0,
                "zone": dice.one_of(&ZONES), "market": dice.one_of(&["spot", "on-demand"]) })
    };
    let mut launching = Vec::new();
    for _ in 0..dice.number(0, 4).saturating_sub(2) {
        let mut entry = offering(dice);
        entry["since"] = ago(if dice.chance(20) { 400 } else { 30 }).into();
        launching.push(entry);
    }
    state["launching"] = launching.into();
    let mut backoff = Vec::new();
    for _ in 0..dice.number(0, 4).saturating_sub(2) {
        let mut entry = offering(dice);
        entry["until"] = ago(-600).into();
        backoff.push(entry);
    }
    state["backoff"] = backoff.into();
    if dice.chance(3) {
        state["paused"] = true.into();
    }
    state
}

/// Little use in a quiet cluster and in some others; unknown in the rest.
fn metrics(dice: &mut Dice, quiet: bool, names: &[String]) -> Value {
    if !quiet && dice.chance(60) {
        return json!({});
    }
    let reading = json!({ "time": ago(5), "cpu_percent": 5.0, "memory_percent": 5.0 });
    let nodes: serde_json::Map<String, Value> =
        names.iter().map(|name| (name.clone(), reading.clone())).collect();
    json!({ "cluster": { "readings": [reading] }, "nodes": nodes })
}
