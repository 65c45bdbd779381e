//! Random pod templates: every feature that placement depends on, in any mixture.

use serde_json::{Value, json};

use crate::{
    dice::Dice,
    names::{CLAIMS, LEVELS, NAMESPACES, ZONES},
};

/// What the pods of a workload have alike.
pub(crate) struct Template {
    pub(crate) labels: Value,
    pub(crate) spec: Value,
}

const ZONE: &str = "topology.kubernetes.io/zone";
const HOSTNAME: &str = "kubernetes.io/hostname";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(crate) fn of(dice: &mut Dice, namespace: &str, app: &str) -> Template {
    let mut labels = json!({ "app": app, "pod-template-hash": dice.one_of(&["h1", "h2"]) });
    if dice.chance(40) {
        labels["track"] = (dice.one_of(&["canary", "stable"])).into();
    }
    let mut spec = json!({ "containers": [container(dice, "main")] });
    if dice.chance(30) {
        spec["containers"] = json!([container(dice, "main"), container(dice, "second")]);
    }
    if dice.chance(25) {
        spec["initContainers"] = init_containers(dice);
    }
    whole_pod(dice, &mut spec);
    if dice.chance(15) {
        spec["nodeSelector"] = node_selector(dice);
    }
    let mut affinity = json!({});
    if dice.chance(25) {
        affinity["nodeAffinity"] = node_affinity(dice);
    }
    if dice.chance(15) {
        affinity["podAffinity"] = pod_affinity(dice, app, namespace);
    }
    if dice.chance(20) {
        affinity["podAntiAffinity"] = pod_affinity(dice, app, namespace);
    }
    spec["affinity"] = affinity;
    if dice.chance(35) {
        spec["tolerations"] = tolerations(dice);
    }
    if dice.chance(25) {
        spec["topologySpreadConstraints"] = spread(dice, app);
    }
    if dice.chance(20) {
        spec["volumes"] = volumes_of(dice);
    }
    Template { labels, spec }
}

/// What is said of the pod as a whole.
fn whole_pod(dice: &mut Dice, spec: &mut Value) {
    if dice.chance(8) {
        // At least what its containers request together, or the API server refuses it.
        spec["containers"] = json!([{ "name": "main", "image": "i", "resources": { "requests": { "cpu": "100m" } } },
                                    { "name": "second", "image": "i" }]);
        spec["initContainers"] =
            json!([{ "name": "init", "image": "i", "resources": { "limits": { "memory": "1Gi" } } }]);
        spec["resources"] = dice
            .one_of(&[
                r#"{ "requests": { "cpu": "1500m", "memory": "3Gi" } }"#,
                r#"{ "limits": { "cpu": "1500m", "memory": "3Gi" } }"#,
                r#"{ "requests": { "cpu": "700m" }, "limits": { "cpu": "1", "memory": "2Gi" } }"#,
            ])
            .parse()
            .expect("JSON");
    }
    if dice.chance(8) {
        spec["overhead"] = json!({ "cpu": "250m", "memory": "120Mi" });
        spec["runtimeClassName"] = "vm".into();
    }
    if dice.chance(6) {
        spec["hostNetwork"] = true.into();
    }
    if dice.chance(3) {
        spec["schedulingGates"] = json!([{ "name": "example.com/quota" }]);
    }
    if dice.chance(3) {
        spec["schedulerName"] = "another-scheduler".into();
    }
    if dice.chance(2) {
        spec["resourceClaims"] = json!([{ "name": "gpu", "resourceClaimName": "gpu" }]);
    }
    if dice.chance(20) {
        spec["priority"] = (dice.one_of(&[-5, 10, 1000])).into();
    }
}

fn container(dice: &mut Dice, name: &str) -> Value {
    let mut requests = json!({});
    if dice.chance(85) {
        requests["cpu"] = (dice.one_of(&["100m", "250m", "0.5", "500m", "1", "1500m", "2", "0.1234"])).into();
    }
    if dice.chance(85) {
        requests["memory"] =
            (dice.one_of(&["64Mi", "256M", "512Mi", "1Gi", "1.5Gi", "2e9", "4Gi", "123456789"])).into();
    }
    if dice.chance(10) {
        requests["ephemeral-storage"] = (dice.one_of(&["1Gi", "6Gi"])).into();
    }
    let mut resources = json!({ "requests": requests });
    if dice.chance(8) {
        // Without requests the limits are requested.
        resources = json!({ "limits": { "cpu": "750m", "memory": "768Mi" } });
    }
    if dice.chance(5) {
        resources["limits"]["example.com/gpu"] = "1".into();
        if dice.chance(50) {
            resources["requests"]["example.com/gpu"] = "1".into();
        }
    }
    if dice.chance(2) {
        resources = json!({ "requests": { "cpu": "100m", "hugepages-2Mi": "32Mi" }, "limits": { "hugepages-2Mi": "32Mi" } });
    }
    let mut container = json!({ "name": name, "image": "i", "resources": resources });
    if dice.chance(12) {
        // No port twice in a pod.
        let number = match name {
            "main" => dice.one_of(&[8080, 9090]),
            other => 8080 + other.len() as u64,
        };
        let mut port = json!({ "containerPort": number, "hostPort": number });
        if dice.chance(40) {
            port["protocol"] = (dice.one_of(&["TCP", "UDP", "SCTP"])).into();
        }
        if dice.chance(40) {
            port["hostIP"] = (dice.one_of(&["127.0.0.1", "10.0.0.1", "0.0.0.0", "::", "::1"])).into();
        }
        container["ports"] = json!([port]);
    }
    container
}

fn init_containers(dice: &mut Dice) -> Value {
    let mut all = Vec::new();
    for index in 0..dice.number(1, 3) {
        let mut one = container(dice, &format!("init{}", "x".repeat(index)));
        if dice.chance(45) {
            one["restartPolicy"] = "Always".into();
        }
        all.push(one);
    }
    all.into()
}

fn node_selector(dice: &mut Dice) -> Value {
    match dice.number(0, 5) {
        0 => json!({ ZONE: dice.one_of(&ZONES) }),
        1 => json!({ "kubernetes.io/arch": dice.one_of(&["amd64", "arm64"]) }),
        2 => json!({ "smartscale.io/market": dice.one_of(&["spot", "on-demand"]) }),
        3 => json!({ "node.kubernetes.io/instance-type": dice.one_of(&["t.small", "t.large", "a.large"]) }),
        4 => json!({ "tier": dice.one_of(&["workers", "special", "web"]), "kubernetes.io/os": "linux" }),
        _ => json!({ HOSTNAME: dice.one_of(&["node-0", "node-1"]) }),
    }
}

fn node_affinity(dice: &mut Dice) -> Value {
    let mut affinity = json!({});
    if dice.chance(80) {
        let terms: Vec<_> = (0..dice.number(1, 2)).map(|_| node_term(dice)).collect();
        affinity[REQUIRED] = json!({ "nodeSelectorTerms": terms });
    }
    if dice.chance(50) {
        affinity[PREFERRED] =
            json!([{ "weight": dice.one_of(&[1, 10, 100]), "preference": node_term(dice) }]);
    }
    affinity
}

fn node_term(dice: &mut Dice) -> Value {
    if dice.chance(4) {
        return json!({});
    }
    let mut term = json!({});
    if dice.chance(85) {
        let requirements: Vec<_> = (0..dice.number(1, 2)).map(|_| requirement(dice)).collect();
        term["matchExpressions"] = requirements.into();
    }
    if dice.chance(15) {
        let operator = dice.one_of(&["In", "NotIn"]);
        term["matchFields"] = json!([{ "key": "metadata.name", "operator": operator, "values": [dice.one_of(&["node-0", "node-1", "node-2"])] }]);
    }
    term
}

fn requirement(dice: &mut Dice) -> Value {
    match dice.number(0, 5) {
        0 => {
            json!({ "key": ZONE, "operator": dice.one_of(&["In", "NotIn"]), "values": dice.some_of(&ZONES, 1) })
        }
        1 => {
            json!({ "key": "level", "operator": dice.one_of(&["Gt", "Lt"]), "values": [dice.one_of(&LEVELS[..3])] })
        }
        2 => {
            json!({ "key": dice.one_of(&["tier", "level", ZONE]), "operator": dice.one_of(&["Exists", "DoesNotExist"]) })
        }
        3 => {
            json!({ "key": "tier", "operator": dice.one_of(&["In", "NotIn"]), "values": dice.some_of(&["workers", "special", "web"], 1) })
        }
        4 => {
            json!({ "key": "kubernetes.io/arch", "operator": "In", "values": dice.some_of(&["amd64", "arm64"], 1) })
        }
        _ => {
            json!({ "key": "smartscale.io/pool", "operator": dice.one_of(&["In", "NotIn"]), "values": [dice.one_of(&["workers", "special"])] })
        }
    }
}

fn selector(dice: &mut Dice, app: &str) -> Value {
    let other = format!("app-{}", dice.number(0, 5));
    match dice.number(0, 9) {
        0..=4 => json!({ "matchLabels": { "app": app } }),
        5 => json!({ "matchLabels": { "app": other } }),
        6 => {
            json!({ "matchExpressions": [{ "key": "app", "operator": dice.one_of(&["In", "NotIn"]), "values": [app, other] }] })
        }
        7 => {
            json!({ "matchExpressions": [{ "key": "track", "operator": dice.one_of(&["Exists", "DoesNotExist"]) }] })
        }
        8 => {
            json!({ "matchLabels": { "app": app }, "matchExpressions": [{ "key": "track", "operator": "NotIn", "values": ["canary"] }] })
        }
        _ => json!({}),
    }
}

fn topology_key(dice: &mut Dice) -> &'static str {
    match dice.number(0, 19) {
        0..=6 => ZONE,
        7..=13 => HOSTNAME,
        14..=15 => "tier",
        16 => "topology.kubernetes.io/region",
        17 => "smartscale.io/pool",
        18 => "smartscale.io/market",
        _ => dice.one_of(&["node.kubernetes.io/instance-type", "kubernetes.io/arch"]),
    }
}

fn pod_affinity(dice: &mut Dice, app: &str, namespace: &str) -> Value {
    let mut affinity = json!({});
    if dice.chance(85) {
        let terms: Vec<_> = (0..dice.number(1, 5).saturating_sub(3).max(1))
            .map(|_| pod_term(dice, app, namespace))
            .collect();
        affinity[REQUIRED] = terms.into();
    }
    if dice.chance(50) {
        affinity[PREFERRED] = json!([{ "weight": dice.one_of(&[1, 5, 100]), "podAffinityTerm": pod_term(dice, app, namespace) }]);
    }
    affinity
}

fn pod_term(dice: &mut Dice, app: &str, namespace: &str) -> Value {
    let mut term = json!({ "topologyKey": topology_key(dice) });
    if dice.chance(95) {
        term["labelSelector"] = selector(dice, app);
        if dice.chance(15) {
            term["matchLabelKeys"] = json!(["pod-template-hash"]);
        } else if dice.chance(10) {
            term["mismatchLabelKeys"] = json!(["pod-template-hash"]);
        }
    }
    match dice.number(0, 9) {
        0 => term["namespaces"] = json!(dice.some_of(&NAMESPACES, 1)),
        1 => term["namespaceSelector"] = json!({}),
        2 => term["namespaceSelector"] = json!({ "matchLabels": { "team": dice.one_of(&["a", "b"]) } }),
        3 => {
            term["namespaceSelector"] =
                json!({ "matchExpressions": [{ "key": "env", "operator": "DoesNotExist" }] });
            term["namespaces"] = json!([namespace]);
        }
        4 => {
            term["namespaceSelector"] =
                json!({ "matchLabels": { "kubernetes.io/metadata.name": dice.one_of(&NAMESPACES) } });
        }
        _ => {}
    }
    term
}

fn tolerations(dice: &mut Dice) -> Value {
    let one = |dice: &mut Dice| match dice.number(0, 6) {
        0 => json!({ "operator": "Exists" }),
        1 => json!({ "key": "dedicated", "operator": "Exists" }),
        2 => {
            json!({ "key": "dedicated", "operator": "Equal", "value": dice.one_of(&["batch", "web"]), "effect": "NoSchedule" })
        }
        3 => json!({ "key": "dedicated", "value": "batch" }),
        4 => {
            json!({ "key": "dedicated", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60 })
        }
        5 => json!({ "operator": "Exists", "effect": "NoSchedule" }),
        _ => json!({ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule" }),
    };
    (0..dice.number(1, 2))
        .map(|_| one(dice))
        .collect::<Vec<_>>()
        .into()
}

fn spread(dice: &mut Dice, app: &str) -> Value {
    let mut all = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..dice.number(1, 2) {
        let key = topology_key(dice);
        let hard = dice.chance(65);
        // The API server refuses two constraints of the same key and action.
        if seen.contains(&(key, hard)) {
            continue;
        }
        seen.push((key, hard));
        let mut constraint = json!({
            "maxSkew": dice.number(1, 2), "topologyKey": key,
            "whenUnsatisfiable": if hard { "DoNotSchedule" } else { "ScheduleAnyway" },
        });
        if dice.chance(95) {
            constraint["labelSelector"] = selector(dice, app);
            if dice.chance(25) {
                constraint["matchLabelKeys"] = json!(["pod-template-hash"]);
            }
        }
        if hard && dice.chance(25) {
            constraint["minDomains"] = dice.number(1, 4).into();
        }
        if dice.chance(25) {
            constraint["nodeAffinityPolicy"] = (dice.one_of(&["Honor", "Ignore"])).into();
        }
        if dice.chance(30) {
            constraint["nodeTaintsPolicy"] = (dice.one_of(&["Honor", "Ignore"])).into();
        }
        all.push(constraint);
    }
    all.into()
}

fn volumes_of(dice: &mut Dice) -> Value {
    let mut all = Vec::new();
    for index in 0..dice.number(1, 2) {
        let name = format!("v{index}");
        all.push(match dice.number(0, 7) {
            0 => json!({ "name": name, "emptyDir": {} }),
            1 => json!({ "name": name, "configMap": { "name": "settings" } }),
            2 => json!({ "name": name, "ephemeral": { "volumeClaimTemplate": { "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": dice.one_of(&["late", "late-here"]),
                "resources": { "requests": { "storage": "1Gi" } } } } } }),
            _ => {
                // Replicas share their claims, as those of a Deployment do.
                let claim = format!("claim-{}", dice.number(0, CLAIMS - 1));
                json!({ "name": name, "persistentVolumeClaim": { "claimName": claim } })
            }
        });
    }
    all.into()
}
