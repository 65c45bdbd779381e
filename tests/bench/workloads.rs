//! Seeded workloads in the shapes that other autoscalers publish, as the very files that `smartscale plan` reads.
//!
//! Included by the planner's benchmark (`coordinator/planner/benches/batches.rs`), which writes them below the target folder.
//! The same shape and seed give the same bytes on every machine.

use std::fmt::Write as _;

/// The files of one workload.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    /// Its name in the table.
    pub(crate) name: String,
    /// `cluster.json`: a `List` of nodes, pods and disruption budgets.
    pub(crate) cluster: String,
    /// `policy.toml`.
    pub(crate) policy: String,
    /// `metrics.json`, where removals are asked for.
    pub(crate) metrics: Option<String>,
}

/// The moment at which all of them are decided.
pub(crate) const NOW: &str = "2026-01-02T03:04:05Z";

const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

/// Splitmix64: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }

    fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[self.below(of.len())]
    }
}

/// What a pod asks for beside its requests, as JSON members of its spec.
#[derive(Clone, Default)]
struct Extra {
    spread: Option<(&'static str, String)>,
    near: Option<(&'static str, String)>,
    apart: Option<(&'static str, String)>,
    selector: Option<(&'static str, String)>,
    host_port: Option<u16>,
    /// Even over zones and apart by hostname, if possible.
    prefers: bool,
}

struct PodOf<'a> {
    name: String,
    owner: &'a str,
    label: (&'a str, &'a str),
    cpu: u32,
    memory: u32,
    node: Option<&'a str>,
    extra: &'a Extra,
}

/// A pod as `kubectl get -o json` prints it, with what no decision reads as well.
fn pod(out: &mut String, pod: &PodOf<'_>) {
    let (key, value) = pod.label;
    let (cpu, memory) = (pod.cpu, pod.memory);
    let name = &pod.name;
    let owner = pod.owner;
    let _ = write!(
        out,
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","generateName":"{owner}-","namespace":"default","uid":"{name}-uid","resourceVersion":"4711","creationTimestamp":"2026-01-02T02:00:00Z","labels":{{"{key}":"{value}","pod-template-hash":"{owner}"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"{owner}","uid":"{owner}-uid","controller":true,"blockOwnerDeletion":true}}]}},"spec":{{"#
    );
    if let Some(node) = pod.node {
        let _ = write!(out, r#""nodeName":"{node}","#);
    }
    let term = |key: &str, label: &str, value: &str| {
        format!(r#"{{"topologyKey":"{key}","labelSelector":{{"matchLabels":{{"{label}":"{value}"}}}}}}"#)
    };
    let extra = pod.extra;
    if let Some((topology, value)) = &extra.spread {
        let _ = write!(
            out,
            r#""topologySpreadConstraints":[{{"maxSkew":1,"topologyKey":"{topology}","whenUnsatisfiable":"DoNotSchedule","labelSelector":{{"matchLabels":{{"{key}":"{value}"}}}}}}],"#
        );
    }
    if extra.prefers {
        let _ = write!(
            out,
            r#""topologySpreadConstraints":[{{"maxSkew":1,"topologyKey":"{ZONE}","whenUnsatisfiable":"ScheduleAnyway","labelSelector":{{"matchLabels":{{"{key}":"{value}"}}}}}}],"affinity":{{"podAntiAffinity":{{"preferredDuringSchedulingIgnoredDuringExecution":[{{"weight":100,"podAffinityTerm":{}}}]}}}},"#,
            term(HOSTNAME, key, value)
        );
    }
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    if let Some((topology, value)) = &extra.near {
        let _ = write!(
            out,
            r#""affinity":{{"podAffinity":{{"{required}":[{}]}}}},"#,
            term(topology, key, value)
        );
    }
    if let Some((topology, value)) = &extra.apart {
        let _ = write!(
            out,
            r#""affinity":{{"podAntiAffinity":{{"{required}":[{}]}}}},"#,
            term(topology, key, value)
        );
    }
    if let Some((label, value)) = &extra.selector {
        let _ = write!(out, r#""nodeSelector":{{"{label}":"{value}"}},"#);
    }
    let ports = extra.host_port.map_or_else(String::new, |port| {
        format!(r#","ports":[{{"containerPort":{port},"hostPort":{port},"protocol":"TCP"}}]"#)
    });
    let (phase, ready) = if pod.node.is_some() {
        ("Running", "True")
    } else {
        ("Pending", "False")
    };
    let _ = write!(
        out,
        r#""containers":[{{"name":"main","image":"registry.example/{owner}:1.2.3","imagePullPolicy":"IfNotPresent","resources":{{"requests":{{"cpu":"{cpu}m","memory":"{memory}Mi"}},"limits":{{"memory":"{memory}Mi"}}}},"env":[{{"name":"POD_NAME","valueFrom":{{"fieldRef":{{"apiVersion":"v1","fieldPath":"metadata.name"}}}}}},{{"name":"LOG_LEVEL","value":"info"}}],"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","volumeMounts":[{{"name":"token","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount","readOnly":true}}]{ports}}}],"volumes":[{{"name":"token","projected":{{"defaultMode":420,"sources":[{{"serviceAccountToken":{{"expirationSeconds":3607,"path":"token"}}}}]}}}}],"dnsPolicy":"ClusterFirst","enableServiceLinks":true,"priority":0,"preemptionPolicy":"PreemptLowerPriority","restartPolicy":"Always","schedulerName":"default-scheduler","serviceAccountName":"default","terminationGracePeriodSeconds":30,"tolerations":[{{"effect":"NoExecute","key":"node.kubernetes.io/not-ready","operator":"Exists","tolerationSeconds":300}},{{"effect":"NoExecute","key":"node.kubernetes.io/unreachable","operator":"Exists","tolerationSeconds":300}}]}},"status":{{"phase":"{phase}","qosClass":"Burstable","startTime":"2026-01-02T02:00:01Z","conditions":[{{"type":"Ready","status":"{ready}","lastProbeTime":null,"lastTransitionTime":"2026-01-02T02:00:02Z"}}]}}}}"#
    );
}

struct NodeOf<'a> {
    name: &'a str,
    instance_type: &'a str,
    zone: &'a str,
    cpu: u32,
    memory: u32,
    pods: u32,
}

fn node(out: &mut String, node: &NodeOf<'_>) {
    let NodeOf {
        name,
        instance_type,
        zone,
        cpu,
        memory,
        pods,
    } = node;
    let _ = write!(
        out,
        r#"{{"apiVersion":"v1","kind":"Node","metadata":{{"name":"{name}","uid":"{name}-uid","creationTimestamp":"2026-01-01T00:00:00Z","labels":{{"smartscale.io/pool":"workers","smartscale.io/market":"on-demand","node.kubernetes.io/instance-type":"{instance_type}","topology.kubernetes.io/zone":"{zone}","topology.kubernetes.io/region":"us-east-1","kubernetes.io/hostname":"{name}","kubernetes.io/arch":"amd64","kubernetes.io/os":"linux"}}}},"spec":{{"providerID":"aws:///{zone}/{name}"}},"status":{{"capacity":{{"cpu":"{cpu}m","memory":"{memory}Mi","pods":"{pods}"}},"allocatable":{{"cpu":"{cpu}m","memory":"{memory}Mi","pods":"{pods}"}},"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
    );
}

/// A `List` that grows.
struct List(String);

impl List {
    fn new() -> Self {
        Self(r#"{"apiVersion":"v1","kind":"List","items":["#.to_owned())
    }

    fn item(&mut self, write: impl FnOnce(&mut String)) {
        if !self.0.ends_with('[') {
            self.0.push_str(",\n");
        }
        write(&mut self.0);
    }

    fn finish(mut self) -> String {
        self.0.push_str("]}\n");
        self.0
    }
}

/// Four hundred types of 1–400 cores with 2 GiB and 10 pods a core, at a price that follows both.
fn linear_types() -> String {
    let mut types = String::new();
    for size in 1..=400_u32 {
        let memory = f64::from(size) * 2.0 * 1.073_741_824;
        let price = 0.1 * f64::from(size) + 0.1 * memory;
        let _ = write!(
            types,
            "\n[[instance_type]]\nname = \"linear-{size}\"\ncpu = \"{size}\"\nmemory = \"{}Gi\"\nmax_pods = {}\non_demand_price = {price:.4}\n",
            size * 2,
            size * 10,
        );
    }
    types
}

fn policy(types: &[String], more: &str, pool: &str, catalogue: &str) -> String {
    let names: Vec<String> = types.iter().map(|name| format!("\"{name}\"")).collect();
    let zones: Vec<String> = ZONES.iter().map(|zone| format!("\"{zone}\"")).collect();
    format!(
        "[cluster]\nid = \"bench\"\n\n[limits]\nmin_nodes = 0\nmax_nodes = 100000\n{more}\n[[pool]]\nname = \"workers\"\nzones = [{}]\ninstance_types = [{}]\n{pool}\n{catalogue}",
        zones.join(", "),
        names.join(", "),
    )
}

fn linear_policy() -> String {
    let names: Vec<String> = (1..=400).map(|size| format!("linear-{size}")).collect();
    policy(
        &names,
        "",
        "max_pods = 4000\nreserved = { cpu = \"100m\", memory = \"10Mi\" }",
        &linear_types(),
    )
}

/// Sixty types of EC2: ten families of six sizes, prices and sizes as published.
fn web_types() -> Vec<String> {
    let families = ["c5", "m5", "r5", "c5a", "m5a", "r5a", "c6i", "m6i", "r6i", "m6a"];
    let sizes = ["large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "16xlarge"];
    let sizes_of_5 = ["large", "xlarge", "2xlarge", "4xlarge", "9xlarge", "12xlarge"];
    families
        .iter()
        .flat_map(|family| {
            let sizes = if *family == "c5" { sizes_of_5 } else { sizes };
            sizes.map(|size| format!("{family}.{size}"))
        })
        .collect()
}

const SIZES_CPU: [u32; 5] = [100, 250, 500, 1000, 1500];
const SIZES_MEMORY: [u32; 6] = [100, 256, 512, 1024, 2048, 4096];
const LETTERS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Fifths of generic pods, zonal spread, hostname spread, zonal self-affinity and hostname anti-affinity; no nodes.
pub(crate) fn mix(count: usize, seed: u64) -> Workload {
    let mut random = Random(seed);
    let mut list = List::new();
    for index in 0..count {
        let letter = *random.pick(&LETTERS);
        let other = (*random.pick(&LETTERS)).to_owned();
        let (kind, label, extra) = match index * 5 / count.max(1) {
            0 => ("generic", ("my-label", letter), Extra::default()),
            1 => (
                "zonal",
                ("my-label", letter),
                Extra {
                    spread: Some((ZONE, other)),
                    ..Extra::default()
                },
            ),
            2 => (
                "spread",
                ("my-label", letter),
                Extra {
                    spread: Some((HOSTNAME, other)),
                    ..Extra::default()
                },
            ),
            3 => (
                "near",
                ("my-affinity", letter),
                Extra {
                    near: Some((ZONE, letter.to_owned())),
                    ..Extra::default()
                },
            ),
            _ => (
                "apart",
                ("app", "nginx"),
                Extra {
                    apart: Some((HOSTNAME, "nginx".to_owned())),
                    ..Extra::default()
                },
            ),
        };
        let (cpu, memory) = (*random.pick(&SIZES_CPU), *random.pick(&SIZES_MEMORY));
        list.item(|out| {
            pod(
                out,
                &PodOf {
                    name: format!("{kind}-{index}"),
                    owner: kind,
                    label,
                    cpu,
                    memory,
                    node: None,
                    extra: &extra,
                },
            );
        });
    }
    Workload {
        name: format!("mix {count}"),
        cluster: list.finish(),
        policy: linear_policy(),
        metrics: None,
    }
}

/// The requests of a Deployment: CPU in thousandths, memory in MiB.
fn sizes(random: &mut Random) -> (u32, u32) {
    let cpu = *random.pick(&[50, 100, 200, 250, 400, 500, 750, 1000, 2000]);
    let memory = cpu * *random.pick(&[1_u32, 2, 2, 3, 4, 6]) + *random.pick(&[32_u32, 64, 128]);
    (cpu, memory)
}

/// Plain pods of 50 Deployments, 60 types of EC2, 3 zones; no nodes.
pub(crate) fn web(count: usize, seed: u64) -> Workload {
    let mut random = Random(seed);
    let deployments: Vec<(String, (u32, u32), usize)> = (0..50)
        .map(|index| (format!("web-{index}"), sizes(&mut random), 1 + random.below(9)))
        .collect();
    let tickets: usize = deployments.iter().map(|(_, _, weight)| weight).sum();
    let mut list = List::new();
    for index in 0..count {
        let mut ticket = random.below(tickets);
        let chosen = deployments.iter().find(|(_, _, weight)| {
            let found = ticket < *weight;
            ticket = ticket.saturating_sub(*weight);
            found
        });
        let Some((owner, (cpu, memory), _)) = chosen else {
            continue;
        };
        list.item(|out| {
            pod(
                out,
                &PodOf {
                    name: format!("{owner}-{index}"),
                    owner,
                    label: ("app", owner),
                    cpu: *cpu,
                    memory: *memory,
                    node: None,
                    extra: &Extra::default(),
                },
            );
        });
    }
    Workload {
        name: format!("web {count}"),
        cluster: list.finish(),
        policy: policy(
            &web_types(),
            "",
            "reserved = { cpu = \"100m\", memory = \"256Mi\" }",
            "",
        ),
        metrics: None,
    }
}

/// 100 Deployments, of which 20 % are spread over zones, 10 % kept apart by hostname, 10 % choose a zone, 5 % take a
/// host port; before them `nodes` half-full nodes.
pub(crate) fn mixed(count: usize, nodes: usize, seed: u64) -> Workload {
    let mut random = Random(seed);
    let mut list = List::new();
    let plain = Extra::default();
    for index in 0..nodes {
        let name = format!("node-{index}");
        list.item(|out| {
            node(
                out,
                &NodeOf {
                    name: &name,
                    instance_type: "m5.2xlarge",
                    zone: ZONES[index % 3],
                    cpu: 7900,
                    memory: 29_000,
                    pods: 110,
                },
            );
        });
        for part in 0..4 {
            list.item(|out| {
                pod(
                    out,
                    &PodOf {
                        name: format!("old-{index}-{part}"),
                        owner: "old",
                        label: ("app", "old"),
                        cpu: 1000,
                        memory: 3500,
                        node: Some(&name),
                        extra: &plain,
                    },
                );
            });
        }
    }
    let deployments = 100;
    let shapes: Vec<(String, (u32, u32), Extra)> = (0..deployments)
        .map(|index| {
            let name = format!("app-{index}");
            let extra = match index % 20 {
                0..4 => Extra {
                    spread: Some((ZONE, name.clone())),
                    ..plain.clone()
                },
                4..6 => Extra {
                    apart: Some((HOSTNAME, name.clone())),
                    ..plain.clone()
                },
                6..8 => Extra {
                    selector: Some((ZONE, (*random.pick(&ZONES)).to_owned())),
                    ..plain.clone()
                },
                8 => Extra {
                    host_port: Some(8000 + u16::try_from(index).unwrap_or(0)),
                    ..plain.clone()
                },
                _ => plain.clone(),
            };
            (name, sizes(&mut random), extra)
        })
        .collect();
    for index in 0..count {
        let (owner, (cpu, memory), extra) = &shapes[index % deployments];
        list.item(|out| {
            pod(
                out,
                &PodOf {
                    name: format!("{owner}-{index}"),
                    owner,
                    label: ("app", owner),
                    cpu: *cpu,
                    memory: *memory,
                    node: None,
                    extra,
                },
            );
        });
    }
    Workload {
        name: format!("mixed {count} + {nodes} nodes"),
        cluster: list.finish(),
        policy: policy(
            &web_types(),
            "",
            "reserved = { cpu = \"100m\", memory = \"256Mi\" }",
            "",
        ),
        metrics: None,
    }
}

/// Pods that fill as many empty nodes of one type exactly.
pub(crate) fn full(count: usize, nodes: usize) -> Workload {
    let mut list = List::new();
    for index in 0..nodes {
        let name = format!("node-{index}");
        list.item(|out| {
            node(
                out,
                &NodeOf {
                    name: &name,
                    instance_type: "m5.4xlarge",
                    zone: ZONES[index % 3],
                    cpu: 15_900,
                    memory: 59_000,
                    pods: 110,
                },
            );
        });
    }
    for index in 0..count {
        let owner = format!("web-{}", index % 10);
        list.item(|out| {
            pod(
                out,
                &PodOf {
                    name: format!("{owner}-{index}"),
                    owner: &owner,
                    label: ("app", &owner),
                    cpu: 300,
                    memory: 1000,
                    node: None,
                    extra: &Extra::default(),
                },
            );
        });
    }
    Workload {
        name: format!("full {count} on {nodes}"),
        cluster: list.finish(),
        policy: policy(&["m5.4xlarge".to_owned()], "", "", ""),
        metrics: None,
    }
}

/// Deployments of 100 pods that would like to be spread, about half of them beside room that is there.
pub(crate) fn preferring(count: usize, nodes: usize) -> Workload {
    let workload = full(0, nodes);
    let mut list = List(workload.cluster.trim_end().trim_end_matches("]}").to_owned());
    for index in 0..count {
        let owner = format!("rather-{}", index % count.div_ceil(100));
        let extra = Extra {
            prefers: true,
            ..Extra::default()
        };
        list.item(|out| {
            pod(
                out,
                &PodOf {
                    name: format!("{owner}-{index}"),
                    owner: &owner,
                    label: ("app", &owner),
                    cpu: 300,
                    memory: 1000,
                    node: None,
                    extra: &extra,
                },
            );
        });
    }
    Workload {
        name: format!("preferring {count} on {nodes}"),
        cluster: list.finish(),
        ..workload
    }
}

/// Deployments of 50 pods that keep apart by hostname, on nodes that have room.
pub(crate) fn affinity_surge(count: usize, nodes: usize) -> Workload {
    let mut workload = full(0, nodes);
    let mut list = List(workload.cluster.trim_end().trim_end_matches("]}").to_owned());
    for index in 0..count {
        let owner = format!("apart-{}", index / 50);
        let extra = Extra {
            apart: Some((HOSTNAME, owner.clone())),
            ..Extra::default()
        };
        list.item(|out| {
            pod(
                out,
                &PodOf {
                    name: format!("{owner}-{index}"),
                    owner: &owner,
                    label: ("app", &owner),
                    cpu: 500,
                    memory: 1000,
                    node: None,
                    extra: &extra,
                },
            );
        });
    }
    workload.cluster = list.finish();
    workload.name = format!("affinity surge {count} on {nodes}");
    workload
}

/// Nodes at about 40 % of their requests; with `constrained`, a third of the Deployments is spread over zones and all
/// have disruption budgets.
pub(crate) fn shrink(nodes: usize, constrained: bool, seed: u64) -> Workload {
    let mut random = Random(seed);
    let mut list = List::new();
    let names: Vec<String> = (0..nodes).map(|index| format!("node-{index}")).collect();
    let deployments = 100;
    let mut pods = 0;
    // Pods of each Deployment in each zone, so that those that are spread begin well spread.
    let mut spread = vec![[0_usize; 3]; deployments];
    for (index, name) in names.iter().enumerate() {
        list.item(|out| {
            node(
                out,
                &NodeOf {
                    name,
                    instance_type: "m5.xlarge",
                    zone: ZONES[index % 3],
                    cpu: 3900,
                    memory: 14_500,
                    pods: 110,
                },
            );
        });
        let mut used = 0;
        while used < 1400 {
            let deployment = random.below(deployments);
            let owner = format!("app-{deployment}");
            let is_spread = constrained && deployment.is_multiple_of(3);
            let least = spread[deployment].into_iter().min().unwrap_or(0);
            if is_spread && spread[deployment][index % 3] > least {
                continue;
            }
            spread[deployment][index % 3] += 1;
            let cpu = [100, 200, 300, 400, 500][deployment % 5];
            used += cpu;
            let extra = Extra {
                spread: is_spread.then(|| (ZONE, owner.clone())),
                ..Extra::default()
            };
            list.item(|out| {
                pod(
                    out,
                    &PodOf {
                        name: format!("{owner}-{pods}"),
                        owner: &owner,
                        label: ("app", &owner),
                        cpu,
                        memory: cpu * 3,
                        node: Some(name),
                        extra: &extra,
                    },
                );
            });
            pods += 1;
        }
    }
    if constrained {
        for deployment in 0..deployments {
            list.item(|out| {
                let _ = write!(
                    out,
                    r#"{{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{{"name":"app-{deployment}","namespace":"default","generation":1}},"spec":{{"maxUnavailable":"20%","selector":{{"matchLabels":{{"app":"app-{deployment}"}}}}}},"status":{{"observedGeneration":1,"disruptionsAllowed":12,"currentHealthy":50,"desiredHealthy":40,"expectedPods":50}}}}"#
                );
            });
        }
    }
    let mut metrics = r#"{"cluster":{"readings":[{"time":"2026-01-02T03:04:00Z","cpu_percent":15.0,"memory_percent":15.0}]},"nodes":{"#.to_owned();
    for (index, name) in names.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(
            metrics,
            r#"{comma}"{name}":{{"time":"2026-01-02T03:04:00Z","cpu_percent":15.0,"memory_percent":15.0}}"#
        );
    }
    metrics.push_str("}}");
    Workload {
        name: format!("shrink {nodes}{}", if constrained { " constrained" } else { "" }),
        cluster: list.finish(),
        policy: policy(
            &[
                "m5.large".to_owned(),
                "m5.xlarge".to_owned(),
                "m5.2xlarge".to_owned(),
            ],
            "[scale_down]\nwhen = \"fits\"\nsustained = \"0s\"\ncooldown = \"0s\"\nmax_parallel_drains = 100\n",
            "",
            "",
        ),
        metrics: Some(metrics),
    }
}

/// Nodes that are as full as they should be, and one pod that has just come.
pub(crate) fn steady(count: usize, nodes: usize) -> Workload {
    let mut workload = full(0, nodes);
    let mut list = List(workload.cluster.trim_end().trim_end_matches("]}").to_owned());
    let names: Vec<String> = (0..nodes).map(|index| format!("node-{index}")).collect();
    for index in 0..=count {
        let owner = format!("web-{}", index % 100);
        let extra = Extra {
            spread: index.is_multiple_of(5).then(|| (ZONE, owner.clone())),
            apart: (index % 100 == 1).then(|| (HOSTNAME, owner.clone())),
            ..Extra::default()
        };
        list.item(|out| {
            pod(
                out,
                &PodOf {
                    name: format!("{owner}-{index}"),
                    owner: &owner,
                    label: ("app", &owner),
                    cpu: 700,
                    memory: 2500,
                    node: (index < count).then(|| names[index * 7 % nodes].as_str()),
                    extra: &extra,
                },
            );
        });
    }
    workload.cluster = list.finish();
    workload.name = format!("steady {count} on {nodes}, one more");
    workload
}

/// A pod that comes to [`steady`] when it is there already.
pub(crate) fn late_comer(round: usize) -> String {
    let owner = format!("web-{}", round % 100);
    let mut text = String::new();
    let late = PodOf {
        name: format!("late-{round}"),
        owner: &owner,
        label: ("app", &owner),
        cpu: 700,
        memory: 2500,
        node: None,
        extra: &Extra::default(),
    };
    pod(&mut text, &late);
    text
}
