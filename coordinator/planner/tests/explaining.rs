//! Explanations say what the plan says: the same codes, the same places, and always a figure or a name.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use smartscale_planner::{
    Destination, PendingCode, Plan, Policy, Snapshot,
    explain::{Answers, Cause, Fate, PodAnswer, Questions, Reason, Standing, Tried, Unknown, explain},
    fixtures::{budget, daemon_set, node, now, pod, policy, policy_of, reading, snapshot},
    model::{AttachLimits, Claim, Node, Pod, StorageClass, TaintEffect, VolumeSource, keys},
    plan,
    snapshot::{Backoff, Metrics},
};

fn everything(snapshot: &Snapshot) -> Questions {
    Questions {
        pods: snapshot.cluster.pods.iter().map(|pod| pod.key.clone()).collect(),
        nodes: snapshot
            .cluster
            .nodes
            .iter()
            .map(|node| node.name.clone())
            .collect(),
    }
}

/// Asks about everything and holds the answers against the plan.
fn check(case: &str, snapshot: &Snapshot, policy: &Policy) -> Answers {
    let decided = plan(snapshot, policy, now());
    let (explained, answers) = explain(snapshot, policy, now(), &everything(snapshot)).unwrap();
    assert_eq!(explained, decided, "{case}: asking has changed the plan");
    for answer in &answers.pods {
        check_pod(case, &decided, answer);
    }
    for answer in &answers.nodes {
        let verdict = decided.nodes.iter().find(|v| v.node == answer.node).unwrap();
        let codes: Vec<_> = answer.blockers.iter().map(|b| (b.code, b.pod.clone())).collect();
        let planned: Vec<_> = verdict.blockers.iter().map(|b| (b.code, b.pod.clone())).collect();
        assert_eq!(codes, planned, "{case}: {}", answer.node);
        for blocker in &answer.blockers {
            assert!(!blocker.detail.is_empty(), "{case}: {}: {blocker:?}", answer.node);
        }
        let goes = decided.remove.iter().find(|removal| removal.node == answer.node);
        assert_eq!(
            answer.fate == Fate::Goes,
            goes.is_some(),
            "{case}: {}",
            answer.node
        );
        assert!(
            answer.fate != Fate::CouldGo || verdict.candidate,
            "{case}: {}",
            answer.node
        );
        if let Some(removal) = goes {
            assert_eq!(answer.would_be, Some(removal.reason), "{case}: {}", answer.node);
            for planned in &removal.moves {
                let shown = answer.pods.iter().find(|shown| shown.pod == planned.pod).unwrap();
                assert_eq!(shown.to.as_ref(), Some(&planned.to), "{case}: {}", planned.pod);
            }
        } else if answer.fate == Fate::CouldGo {
            assert!(
                !answer.held.is_empty(),
                "{case}: {} could go, and nothing is said to hold it",
                answer.node
            );
        }
    }
    answers
}

fn check_pod(case: &str, plan: &Plan, answer: &PodAnswer) {
    let pod = &answer.pod;
    let pending = plan.pods.pending.iter().find(|pending| pending.pod == *pod);
    assert_eq!(answer.code, pending.map(|pending| pending.code), "{case}: {pod}");
    assert_eq!(
        answer.standing == Standing::Pending,
        pending.is_some(),
        "{case}: {pod}"
    );
    let nodes = [&answer.existing, &answer.launching, &answer.planned];
    nodes
        .into_iter()
        .flatten()
        .for_each(|tried| check_tried(case, pod, tried));
    if let Some(tried) = &answer.offerings {
        check_tried(case, pod, tried);
    }
    if let Some(pending) = pending {
        assert_eq!(answer.answer, pending.reason, "{case}: {pod}");
        let offerings = answer.offerings.as_ref();
        let furthest = offerings.and_then(|tried| Some(tried.refused.first()?.code));
        match pending.code {
            PendingCode::ResourceClaim => assert_eq!(furthest, None),
            // These are not told by what an offering says.
            PendingCode::SchedulingGated | PendingCode::PriorityCutoff | PendingCode::Held => {}
            code => {
                assert!(
                    offerings.unwrap().accept.is_empty(),
                    "{case}: {pod} could be launched for"
                );
                let nothing_to_buy = offerings.unwrap().asked == 0 && code == PendingCode::NodeSelector;
                assert!(
                    furthest == Some(Reason::Filter(code)) || nothing_to_buy,
                    "{case}: {pod} is {code} in the plan and {furthest:?} in its explanation"
                );
                let room = answer.existing.as_ref().unwrap();
                assert!(
                    room.accept.is_empty(),
                    "{case}: {pod} waits though {:?} would take it",
                    room.accept
                );
            }
        }
    }
    // Where the scheduler makes room by preemption there is none yet.
    let preempts = answer.answer.contains("preemption");
    if answer.standing == Standing::Placed && !preempts {
        let (tried, name) = match answer.place.as_ref().unwrap() {
            Destination::Node(node) => (&answer.existing, node.to_string()),
            to @ Destination::Launching(_) => (&answer.launching, to.to_string()),
            to @ Destination::Launch(_) => (&answer.planned, to.to_string()),
        };
        let tried = tried.as_ref().unwrap();
        assert!(
            tried.accept.contains(&name),
            "{case}: {pod} is placed on {name}, which refuses: {tried:?}"
        );
    }
}

fn check_tried<T: std::fmt::Debug>(case: &str, pod: &smartscale_planner::model::PodKey, tried: &Tried<T>) {
    let refused: usize = tried.refused.iter().map(|group| group.attempts.len()).sum();
    assert_eq!(tried.asked, tried.accept.len() + refused, "{case}: {pod}");
    assert!(
        tried
            .refused
            .iter()
            .filter(|group| group.code != Reason::Filter(PendingCode::PriorityCutoff))
            .is_sorted_by(|a, b| a.code > b.code),
        "{case}: {pod}"
    );
    for group in &tried.refused {
        let filters = matches!(group.code, Reason::Filter(code) if (PendingCode::NodeSelector..=PendingCode::TopologySpread).contains(&code));
        for attempt in group.attempts.iter().filter(|_| filters) {
            assert!(
                !attempt.causes.is_empty(),
                "{case}: {pod}: {:?} {attempt:?}",
                group.code
            );
        }
    }
}

#[test]
fn every_case_of_the_catalogue_is_explained_as_it_was_decided() {
    for folder in support::cases() {
        let (snapshot, policy) = support::case(&folder);
        check(&folder.file_name().unwrap().to_string_lossy(), &snapshot, &policy);
    }
}

#[test]
fn the_nearest_node_is_named_with_what_it_lacks() {
    let nodes = [node("a").cpu("2"), node("b").cpu("1"), node("c").cordoned()];
    let big = pod("big").cpu("2250m");
    let snapshot = snapshot(nodes, [big]);
    let answers = check("nearest", &snapshot, &policy(""));
    let existing = answers.pods[0].existing.as_ref().unwrap();
    let (code, nearest) = existing.nearest().unwrap();
    assert_eq!(code, Reason::Filter(PendingCode::NoInstanceTypeFits));
    assert_eq!(nearest.by, "a");
    assert_eq!(nearest.detail, "cpu: 250m short (asks for 2250m, 2 of 2 free)");
    assert_eq!(existing.refused[1].attempts[0].by, "c");
}

#[test]
fn constraints_name_the_pods_and_counts_that_refuse() {
    let nodes = [node("a"), node("b").zone("us-east-1b")];
    let web = |name: &str| pod(name).label("app", "web");
    let pods: Vec<Pod> = vec![
        web("web-1").host_port(80).on("a").build(),
        web("web-2").host_port(80).on("b").build(),
        pod("lone-1").apart_from("web", keys::ZONE).build(),
        web("web-3").host_port(80).build(),
    ];
    let mut policy = policy("");
    policy.limits.max_nodes = 2;
    let answers = check("names", &snapshot(nodes, pods), &policy);
    let detail = |index: usize| {
        answers.pods[index]
            .existing
            .as_ref()
            .unwrap()
            .nearest()
            .unwrap()
            .1
    };
    assert_eq!(
        detail(2).detail,
        "default/web-1 is in zone us-east-1a, and it keeps away from app=web"
    );
    assert_eq!(detail(3).detail, "host port 80/TCP is taken by default/web-1");
    assert!(matches!(detail(3).causes[0], Cause::HostPort { .. }));
}

#[test]
fn what_the_cluster_does_not_have_is_refused_by_name() {
    let snapshot = snapshot([node("a")], [pod("web-1").on("a")]);
    let ask = |questions: Questions| explain(&snapshot, &policy(""), now(), &questions).unwrap_err();
    let pods = vec!["default/web-2".parse().unwrap()];
    let unknown = ask(Questions {
        pods: pods.clone(),
        ..Questions::default()
    });
    assert_eq!(unknown, Unknown::Pod(pods[0].clone()));
    let nodes = vec!["b".into()];
    assert_eq!(
        ask(Questions {
            nodes,
            ..Questions::default()
        }),
        Unknown::Node("b".into())
    );
}

#[test]
fn a_pod_that_only_an_older_node_can_take_goes_there_once_its_friends_are_placed() {
    let policy = narrow(2, 0, "thresholds");
    let pods = [
        pod("db-1").node_selector("tier", "gpu").tolerates("gpu"),
        pod("db-2").node_selector("tier", "gpu").tolerates("gpu"),
        pod("friend-1").near("db", keys::ZONE),
        pod("large-1").cpu("1500m"),
        pod("web-1").cpu("1").on("a"),
    ];
    let snapshot = snapshot([node("a")], pods);
    let answers = check("friend", &snapshot, &policy);
    assert_eq!(answers.pods[2].place, Some(Destination::Node("a".into())));
}

/// A pod by small numbers: CPU in tenths of a core, where it is bound, which constraints it has.
type Shape = (u8, Option<u8>, u16);

fn crowd(shapes: &[Shape], nodes: &[Node]) -> Vec<Pod> {
    let mut used = vec![0_i64; nodes.len()];
    let one = |(index, (tenths, on, extra)): (usize, &Shape)| {
        let tenths = tenths % 25 + 1;
        let app = ["web", "db", "job"][index % 3];
        let mut pod = pod(&format!("default/{app}-{index}")).cpu(&format!("{}m", u32::from(tenths) * 100));
        pod = match extra % 11 {
            0 => pod.spread(keys::ZONE, 1),
            1 => pod.apart_from(app, keys::HOSTNAME),
            2 => pod.host_port(8080),
            3 => pod.near("db", keys::ZONE),
            4 => pod.apart_from("job", keys::ZONE),
            5 => pod.node_selector(keys::ZONE, "us-east-1c"),
            6 => pod.node_selector("tier", "gpu").tolerates("gpu"),
            7 => pod.volume("data", VolumeSource::Claim("shared".into())),
            8 => pod.volume("data", VolumeSource::Claim("nowhere".into())),
            _ => pod,
        };
        if extra % 5 == 0 {
            pod = pod.tolerates("dedicated");
        }
        if extra % 17 == 0 {
            pod = pod.priority(-10);
        }
        if extra % 19 == 0 {
            pod = pod.gated();
        }
        // Bound only where it fits.
        let host = on
            .filter(|_| !nodes.is_empty())
            .map(|on| usize::from(on) % nodes.len());
        match host {
            Some(host) if used[host] + i64::from(tenths) <= 20 => {
                used[host] += i64::from(tenths);
                pod.on(nodes[host].name.as_str()).build()
            }
            _ => pod.build(),
        }
    };
    shapes.iter().enumerate().map(one).collect()
}

fn town(count: u8, shapes: &[Shape], cpu: f64, odd: u8) -> Snapshot {
    let nodes: Vec<Node> = (0..count)
        .map(|i| {
            let mut node = node(&format!("n{i}")).zone(if i % 2 == 0 { "us-east-1a" } else { "us-east-1b" });
            node = match (i + odd) % 7 {
                0 => node.taint("dedicated", TaintEffect::NoSchedule),
                1 => node.cordoned(),
                2 => node.not_ready(),
                _ => node,
            };
            node.build()
        })
        .collect();
    let pods = crowd(shapes, &nodes);
    let mut snapshot = snapshot(nodes, pods);
    let cluster = &mut snapshot.cluster;
    cluster.disruption_budgets = vec![budget("web", 1), budget("db", 0)];
    cluster.claims = vec![Claim {
        namespace: "default".into(),
        name: "shared".into(),
        uid: "".into(),
        volume: None,
        phase: smartscale_planner::model::ClaimPhase::Pending,
        storage_class: Some("late".into()),
        wants: smartscale_planner::model::VolumeTraits::default(),
        selector: None,
        selected_node: (odd.is_multiple_of(2)).then(|| Arc::from("n0")),
        being_deleted: false,
        owner: None,
    }];
    cluster.storage_classes = vec![StorageClass {
        name: "late".into(),
        provisioner: "ebs.csi.aws.com".into(),
        binding: smartscale_planner::model::BindingMode::WaitForFirstConsumer,
        ..StorageClass::default()
    }];
    cluster.attach_limits = (0..count)
        .map(|i| AttachLimits {
            node: format!("n{i}").into(),
            volumes: [("ebs.csi.aws.com".into(), i64::from(i % 2))].into(),
        })
        .collect();
    cluster.daemon_sets = vec![daemon_set("proxy", pod("kube-system/proxy").host_port(9100))];
    snapshot.metrics = Metrics {
        cluster: vec![
            reading("2026-01-02T03:03:30Z", cpu, cpu / 2.0),
            reading("2026-01-02T03:04:00Z", cpu, cpu / 2.0),
        ],
        nodes: (0..count)
            .map(|i| {
                (
                    format!("n{i}").into(),
                    reading("2026-01-02T03:04:00Z", cpu, cpu / 2.0),
                )
            })
            .collect(),
        ..Metrics::default()
    };
    let state = &mut snapshot.state;
    state.paused = odd % 11 == 10;
    if odd.is_multiple_of(3) {
        state.backoff = vec![Backoff {
            instance_type: "t3.small".into(),
            zone: "us-east-1a".into(),
            market: smartscale_planner::model::Market::Spot,
            until: "2026-01-02T03:10:00Z".parse().unwrap(),
        }];
    }
    snapshot
}

fn narrow(max: u32, step: u32, when: &str) -> Policy {
    policy_of(&format!(
        r#"
[cluster]
id = "test"
[limits]
min_nodes = 1
max_nodes = {max}
[scale_up]
max_step = {step}
priority_cutoff = -5
[scale_down]
when = "{when}"
sustained = "0s"
max_parallel_drains = 2
[[pool]]
name = "workers"
instance_types = ["t3.small", "t3.medium"]
zones = ["us-east-1a", "us-east-1b"]
markets = ["spot", "on-demand"]
on_demand_base = 1
[[pool]]
name = "gpu"
instance_types = ["m5.large"]
zones = ["us-east-1a"]
labels = {{ tier = "gpu" }}
taints = [{{ key = "gpu", value = "yes", effect = "NoSchedule" }}]
max_nodes = 1
"#
    ))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_cluster_is_its_explanations_agree_with_its_plan(
        nodes in 0_u8..7,
        shapes in prop::collection::vec((any::<u8>(), prop::option::of(any::<u8>()), any::<u16>()), 0..24),
        cpu in 0.0_f64..100.0,
        max in 2_u32..10,
        step in 0_u32..3,
        fits in any::<bool>(),
        odd in 0_u8..100,
    ) {
        let policy = narrow(max, step, if fits { "fits" } else { "thresholds" });
        check("random", &town(nodes, &shapes, cpu, odd), &policy);
    }
}
