//! Both opinions of one case: what the planner planned, asked of kube-scheduler's filters, and where they differ.
//!
//! Codes and the plugins that they stand for, in the order of FORMATS:
//!
//! | code | plugin |
//! | --- | --- |
//! | `NodeSelector` | `NodeAffinity`, `NodeName` |
//! | `Taints` | `TaintToleration`, `NodeUnschedulable` |
//! | `Volume` | `VolumeBinding`, `VolumeZone`, `VolumeRestrictions`, `NodeVolumeLimits` |
//! | `NoInstanceTypeFits` | `NodeResourcesFit` |
//! | `HostPort` | `NodePorts` |
//! | `PodAffinity` | `InterPodAffinity`, where it speaks of pod affinity |
//! | `PodAntiAffinity` | `InterPodAffinity` otherwise |
//! | `TopologySpread` | `PodTopologySpread` |
//!
//! The code of a pending pod is the filter that stops it on the new node where it gets furthest. So for each offering the
//! first of these plugins that refuses is taken, and the last of those must be the code. For the codes after them some
//! new node must be fine for all plugins.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use smartscale_manifests::{Objects, read};
use smartscale_planner::{
    Destination, Launch, PendingCode, Plan, Policy, RemovalReason, Snapshot,
    model::{InstanceType, PodKey, keys},
    snapshot::{Launching, Metrics, State},
};

use crate::{
    cluster::{Case, now},
    judge::{Job, Judge, Refusal, Step, StepAnswer},
    launched::new_node,
    names::NAMESPACES,
    objects::{attach_limits, seen_by_scheduler},
};

/// What an answer is about, beside its step.
enum Asked {
    Change,
    Placement {
        pod: String,
        to: String,
    },
    New {
        pod: String,
        code: PendingCode,
    },
    There {
        pod: String,
        code: PendingCode,
        nodes: Vec<String>,
    },
}

/// How many questions of each kind were asked, so that a test that asks nothing is noticed.
#[derive(Default)]
pub(crate) struct Asks {
    pub(crate) placements: usize,
    pub(crate) moves: usize,
    pub(crate) pending: BTreeMap<String, usize>,
}

impl Asks {
    pub(crate) fn add(&mut self, other: Self) {
        self.placements += other.placements;
        self.moves += other.moves;
        for (code, times) in other.pending {
            *self.pending.entry(code).or_default() += times;
        }
    }
}

impl std::fmt::Display for Asks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} placements, {} moves, pending:",
            self.placements, self.moves
        )?;
        self.pending
            .iter()
            .try_for_each(|(code, times)| write!(f, " {code} {times}"))
    }
}

/// The planner's opinion, made exactly as `smartscale plan` makes it.
pub(crate) fn planned(case: &Case) -> (Policy, Snapshot, Plan) {
    let (policy, _) =
        Policy::from_toml(&case.policy).unwrap_or_else(|error| panic!("seed {}: {error}", case.seed));
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": case.objects }).to_string();
    let mut objects = Objects::default();
    for object in
        read::objects(&list, read::Format::Json).unwrap_or_else(|error| panic!("seed {}: {error}", case.seed))
    {
        objects.apply(object);
    }
    let (cluster, bad) = objects.to_cluster(now());
    assert!(bad.is_empty(), "seed {}: {bad:?}", case.seed);
    let snapshot = Snapshot {
        cluster,
        metrics: Metrics::from_json(&case.metrics.to_string()).expect("metrics"),
        state: State::from_json(&case.state.to_string(), &policy.cluster_id).expect("state"),
    };
    let plan = smartscale_planner::plan(&snapshot, &policy, now());
    (policy, snapshot, plan)
}

/// Every point on which the two opinions differ.
pub(crate) fn differences(case: &Case, judge: &mut Judge, asks: &mut Asks) -> Vec<String> {
    let (policy, snapshot, plan) = planned(case);
    let mut steps: Vec<(Step, Asked)> = Vec::new();
    for (index, entry) in launching(&snapshot.state).into_iter().enumerate() {
        // Of an unknown pool or type nobody knows what it will be.
        if let (Some(pool), Some(spec)) = (
            policy.pool(entry.pool.as_str()),
            policy.types.get(&entry.instance_type),
        ) {
            let node = new_node(
                &format!("launching-{index}"),
                pool,
                spec,
                &entry.zone,
                entry.market,
            );
            steps.push((Step::Add(node), Asked::Change));
        }
    }
    let mut removals = plan.remove.iter();
    let mut moves = 0;
    let mut nodes = launched(case, &policy, &plan).into_iter();
    let mut joined = 0;
    for (index, placement) in plan.placements.iter().enumerate() {
        if index >= plan.pods.placed {
            asks.moves += 1;
            while moves == 0 {
                let Some(removal) = removals.next() else { break };
                steps.push((Step::Remove(removal.node.to_string()), Asked::Change));
                moves = removal.moves.len();
                // Several that one node replaces go at once, and their pods come to it in an order of their own.
                if removal.reason == RemovalReason::Replaced {
                    for removal in removals.by_ref() {
                        steps.push((Step::Remove(removal.node.to_string()), Asked::Change));
                        moves += removal.moves.len();
                    }
                }
            }
            moves = moves.saturating_sub(1);
        } else {
            asks.placements += 1;
        }
        // Each node joins before the first pod that needs it, as the plan has it.
        if let Destination::Launch(needed) = placement.to {
            while joined <= needed {
                steps.extend(nodes.next());
                joined += 1;
            }
        }
        let to = match &placement.to {
            Destination::Node(name) => name.to_string(),
            Destination::Launching(index) => format!("launching-{index}"),
            Destination::Launch(index) => format!("launch-{index}"),
        };
        let pod = placement.pod.to_string();
        steps.push((
            Step::Place {
                pod: pod.clone(),
                node: to.clone(),
            },
            Asked::Placement { pod, to },
        ));
    }
    steps.extend(nodes);
    if plan.remove.is_empty() {
        ask_for_pending(case, &policy, &snapshot, &plan, &mut steps, asks);
    }
    let mut objects: Vec<Value> = case
        .objects
        .iter()
        .filter_map(|object| seen_by_scheduler(object, &policy))
        .collect();
    // In a cluster every namespace has an object, in files it may be missing.
    let is_there = |name: &str| {
        objects
            .iter()
            .any(|o| o["kind"] == "Namespace" && o["metadata"]["name"] == name)
    };
    let missing: Vec<_> = NAMESPACES.iter().filter(|name| !is_there(name)).collect();
    objects.extend(missing.into_iter().map(|name| {
        json!({ "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } } })
    }));
    let coming = steps.iter().flat_map(|(step, _)| match step {
        Step::Add(node) => std::slice::from_ref(node),
        Step::Ask { nodes, .. } => nodes,
        _ => &[],
    });
    objects.extend(attach_limits(&case.objects, coming));
    let job = Job {
        id: case.seed,
        objects,
        steps: steps.iter().map(|(step, _)| step.clone()).collect(),
    };
    match judge.answer(&job) {
        Ok(answers) => steps
            .iter()
            .zip(&answers)
            .filter_map(|((_, asked), answer)| difference(asked, answer))
            .collect(),
        Err(error) => vec![format!("the judge could not answer: {error}")],
    }
}

/// Whether EC2 gives the first type of every launch. Then no launched node is larger than the plan took it for, and
/// nothing may fit there that is called pending.
fn given_cheapest(case: &Case) -> bool {
    case.seed.is_multiple_of(2)
}

/// The launched nodes; EC2 may give any of their types.
fn launched(case: &Case, policy: &Policy, plan: &Plan) -> Vec<(Step, Asked)> {
    let node = |(index, launch): (usize, &Launch)| {
        let pick = if given_cheapest(case) {
            0
        } else {
            usize::try_from(case.seed).ok()?.wrapping_add(index)
        };
        let pick = pick % launch.instance_types.len().max(1);
        let pool = policy.pool(launch.pool.as_str())?;
        let spec = policy.types.get(launch.instance_types.get(pick)?)?;
        let node = new_node(
            &format!("launch-{index}"),
            pool,
            spec,
            &launch.zone,
            launch.market,
        );
        Some((Step::Add(node), Asked::Change))
    };
    plan.launch.iter().enumerate().filter_map(node).collect()
}

/// Asks for every pending pod with a filter's code, or one after them.
fn ask_for_pending(
    case: &Case,
    policy: &Policy,
    snapshot: &Snapshot,
    plan: &Plan,
    steps: &mut Vec<(Step, Asked)>,
    asks: &mut Asks,
) {
    let mut offered = Vec::new();
    for pool in &policy.pools {
        for zone in &pool.zones {
            for market in &pool.markets {
                for spec in pool
                    .types
                    .iter()
                    .filter(|spec| pool.price(spec, zone, *market).is_some())
                {
                    offered.push(new_node(
                        &format!("offered-{}", offered.len()),
                        pool,
                        spec,
                        zone,
                        *market,
                    ));
                }
            }
        }
    }
    // What pools can launch opens domains, whether or not a node is there.
    for node in &offered {
        let mut bare = node.clone();
        let name = format!("{}-domain", node["metadata"]["name"].as_str().unwrap_or_default());
        bare["metadata"]["name"] = name.as_str().into();
        bare["metadata"]["labels"]["kubernetes.io/hostname"] = name.into();
        steps.push((Step::Bare(bare), Asked::Change));
    }
    let mut there: Vec<String> = snapshot
        .cluster
        .nodes
        .iter()
        .filter(|node| {
            let young = node
                .created
                .is_some_and(|created| now().duration_since(created).as_secs() < 300);
            !node.unschedulable && !node.being_deleted && (node.ready || young)
        })
        .map(|node| node.name.to_string())
        .collect();
    // Where types of several architectures would do, what EC2 gives may count elsewhere in spread domains and be free for
    // other pods than the plan can rely on.
    let arch = |name: &InstanceType| policy.types.get(name).map(|spec| spec.arch.clone());
    let mixed = |launch: &Launch| {
        launch
            .instance_types
            .iter()
            .any(|name| arch(name) != arch(&launch.instance_types[0]))
    };
    if given_cheapest(case) {
        there.extend((0..plan.launch.len()).map(|index| format!("launch-{index}")));
    } else if plan.launch.iter().any(mixed) {
        return;
    }
    for pending in &plan.pods.pending {
        let (pod, code) = (pending.pod.to_string(), pending.code);
        // Of a pod that would have had a node, were anything launched now, nothing can be asked: its companions have none.
        let held = snapshot.state.paused && code == PendingCode::Held;
        // Nor do gates, resource claims and a cutoff name a filter.
        if held || code < PendingCode::NodeSelector {
            continue;
        }
        // Nor do pools open domains of keys that their nodes in a zone need not share, as the nodes do that stand for them here.
        if spreads_by(
            snapshot,
            &pending.pod,
            &[keys::INSTANCE_TYPE, keys::ARCH, keys::MARKET],
        ) {
            continue;
        }
        *asks.pending.entry(code.to_string()).or_default() += 1;
        steps.push((
            Step::Ask {
                pod: pod.clone(),
                nodes: offered.clone(),
            },
            Asked::New {
                pod: pod.clone(),
                code,
            },
        ));
        // On hostnames the plan knows no minimum (FORMATS §2), where the scheduler may see one.
        if spreads_by(snapshot, &pending.pod, &[keys::HOSTNAME]) {
            continue;
        }
        steps.push((
            Step::AskThere {
                pod: pod.clone(),
                nodes: there.clone(),
            },
            Asked::There {
                pod,
                code,
                nodes: there.clone(),
            },
        ));
    }
}

fn spreads_by(snapshot: &Snapshot, pod: &PodKey, keys: &[&str]) -> bool {
    let pod = snapshot.cluster.pods.iter().find(|other| other.key == *pod);
    pod.is_some_and(|pod| {
        let mut constraints = pod.spread.iter();
        constraints.any(|spread| keys.contains(&&*spread.topology_key))
    })
}

fn difference(asked: &Asked, answer: &StepAnswer) -> Option<String> {
    let refusals = |index: usize| answer.nodes.get(index).cloned().flatten().unwrap_or_default();
    match asked {
        Asked::Change => None,
        Asked::Placement { pod, to } => {
            let refused = refusals(0);
            (!refused.is_empty()).then(|| {
                format!(
                    "the plan puts {pod} onto {to}; the scheduler refuses: {}",
                    said(&refused)
                )
            })
        }
        Asked::New { pod, code } => {
            let all: Vec<_> = (0..answer.nodes.len()).map(refusals).collect();
            let found = if all.iter().any(Vec::is_empty) {
                None
            } else {
                // Without any offering nothing has what the pod selects.
                Some(
                    all.iter()
                        .filter_map(|refused| first(refused))
                        .max()
                        .unwrap_or(PendingCode::NodeSelector),
                )
            };
            let expected = (*code < PendingCode::BackedOff).then_some(*code);
            (found != expected).then(|| {
                let each: Vec<_> = all
                    .iter()
                    .enumerate()
                    .map(|(i, refused)| format!("\n      offered-{i}: {}", said(refused)))
                    .collect();
                format!(
                    "the plan says {code} of {pod}; the scheduler says {found:?}{}",
                    each.concat()
                )
            })
        }
        Asked::There { pod, code, nodes } => {
            let accepts: Vec<_> = nodes
                .iter()
                .enumerate()
                .filter(|(i, _)| refusals(*i).is_empty())
                .map(|(_, n)| n.as_str())
                .collect();
            (!accepts.is_empty()).then(|| {
                format!(
                    "the plan leaves {pod} pending ({code}); the scheduler would put it onto {}",
                    accepts.join(", ")
                )
            })
        }
    }
}

/// The first filter that refuses, by the order of the codes; `None`: every filter accepts.
fn first(refusals: &[Refusal]) -> Option<PendingCode> {
    refusals.iter().map(code_of).min()
}

fn code_of(refusal: &Refusal) -> PendingCode {
    match refusal.plugin.as_str() {
        "NodeAffinity" | "NodeName" => PendingCode::NodeSelector,
        "TaintToleration" | "NodeUnschedulable" => PendingCode::Taints,
        "VolumeBinding" | "VolumeZone" | "VolumeRestrictions" | "NodeVolumeLimits" => PendingCode::Volume,
        "NodeResourcesFit" => PendingCode::NoInstanceTypeFits,
        "NodePorts" => PendingCode::HostPort,
        "InterPodAffinity" if refusal.reasons.iter().any(|r| r.contains("pod affinity rules")) => {
            PendingCode::PodAffinity
        }
        "InterPodAffinity" => PendingCode::PodAntiAffinity,
        "PodTopologySpread" => PendingCode::TopologySpread,
        other => panic!("{other} has no code"),
    }
}

fn said(refusals: &[Refusal]) -> String {
    if refusals.is_empty() {
        return "nothing refuses".to_owned();
    }
    let each: Vec<_> = refusals
        .iter()
        .map(|r| format!("{}: {}", r.plugin, r.reasons.join(", ")))
        .collect();
    each.join("; ")
}

/// The launching entries that have not lapsed, in the plan's order.
fn launching(state: &State) -> Vec<&Launching> {
    let mut entries: Vec<_> = state
        .launching
        .iter()
        .filter(|e| now().duration_since(e.since).as_secs() < 300)
        .collect();
    entries.sort_by_key(|e| {
        (
            e.pool.clone(),
            e.zone.clone(),
            e.instance_type.clone(),
            e.market,
            e.since,
        )
    });
    entries
}
