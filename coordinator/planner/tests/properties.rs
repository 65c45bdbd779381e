//! What holds for every plan, whatever the cluster.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;
use smartscale_planner::{
    Action, Destination, Placement, Plan, Planner, Policy, RemovalReason, Snapshot,
    fixtures::{budget, node, now, pod, policy_of, reading, snapshot},
    model::{Node, NodeName, Phase, Pod, keys},
    plan,
    policy::OnNotice,
    snapshot::{Announced, Forewarning, Metrics},
};

/// A pod's shape by small numbers: CPU in tenths of a core, where it is bound, which extra it has.
type Shape = (u8, Option<u8>, u8);

fn policy(max: u32, step: u32, when: &str) -> Policy {
    policy_of(&format!(
        r#"
[cluster]
id = "test"
[limits]
min_nodes = 1
max_nodes = {max}
[scale_up]
max_step = {step}
[scale_down]
when = "{when}"
sustained = "0s"
max_parallel_drains = 3
[[pool]]
name = "workers"
instance_types = ["t3.small", "t3.medium", "m5.large"]
zones = ["us-east-1a", "us-east-1b"]
markets = ["spot", "on-demand"]
on_demand_base = 1
spot_share_percent = 50
"#
    ))
}

fn single_type() -> Policy {
    policy_of(
        r#"
[cluster]
id = "test"
[limits]
min_nodes = 0
max_nodes = 1000
[[pool]]
name = "workers"
instance_types = ["t3.medium"]
zones = ["us-east-1a"]
"#,
    )
}

fn world(nodes: u8, shapes: &[Shape], cpu: f64) -> Snapshot {
    let all: Vec<Node> = (0..nodes)
        .map(|i| {
            node(&format!("n{i}"))
                .zone(if i % 2 == 0 { "us-east-1a" } else { "us-east-1b" })
                .build()
        })
        .collect();
    let mut used = vec![0_i64; usize::from(nodes)];
    let pods = shapes.iter().enumerate().map(|(i, (tenths, on, extra))| {
        let tenths = tenths % 15 + 1;
        let mut pod = pod(&format!("default/web-{i}")).cpu(&format!("{}m", u32::from(tenths) * 100));
        pod = match extra % 6 {
            0 => pod.spread(keys::ZONE, 1),
            1 => pod.apart_from("web", keys::HOSTNAME),
            2 => pod.host_port(8080),
            _ => pod,
        };
        // Bound only where it fits.
        let host = on.filter(|_| nodes > 0).map(|on| usize::from(on % nodes));
        match host {
            Some(host) if used[host] + i64::from(tenths) <= 20 => {
                used[host] += i64::from(tenths);
                pod.on(&format!("n{host}")).build()
            }
            _ => pod.build(),
        }
    });
    let pods: Vec<Pod> = pods.collect();
    let mut snapshot = snapshot(all, pods);
    snapshot.cluster.disruption_budgets = vec![budget("web", 2)];
    snapshot.metrics = Metrics {
        cluster: vec![
            reading("2026-01-02T03:03:30Z", cpu, cpu / 2.0),
            reading("2026-01-02T03:04:00Z", cpu, cpu / 2.0),
        ],
        nodes: (0..nodes)
            .map(|i| {
                (
                    format!("n{i}").into(),
                    reading("2026-01-02T03:04:00Z", cpu, cpu / 2.0),
                )
            })
            .collect(),
        ..Metrics::default()
    };
    snapshot
}

fn check(snapshot: &Snapshot, policy: &Policy, plan: &Plan) {
    let nodes = snapshot.cluster.nodes.len();
    let max = policy.limits.max_nodes as usize;
    assert!(
        plan.launch.is_empty() || nodes + plan.launch.len() <= max,
        "above the maximum"
    );
    let left = nodes + plan.launch.len() - plan.remove.len();
    assert!(
        plan.remove.is_empty() || left >= policy.limits.min_nodes as usize,
        "below the minimum"
    );
    let step = policy.scale_up.max_step as usize;
    assert!(step == 0 || plan.launch.len() <= step, "more than one step");

    let waiting = snapshot
        .cluster
        .pods
        .iter()
        .filter(|pod| pod.wants_place())
        .count();
    assert_eq!(
        plan.pods.placed + plan.pods.pending.len(),
        waiting,
        "a pod is lost"
    );
    let launched: Vec<_> = plan.launch.iter().flat_map(|launch| &launch.pods).collect();
    assert_eq!(
        launched.len(),
        launched.iter().collect::<BTreeSet<_>>().len(),
        "a pod is in two launches"
    );
    assert!(plan.launch.iter().all(|launch| !launch.instance_types.is_empty()));
    let moves: usize = plan.remove.iter().map(|removal| removal.moves.len()).sum();
    assert_eq!(plan.placements.len(), plan.pods.placed + moves);
    for (index, launch) in plan.launch.iter().enumerate().filter(|_| moves == 0) {
        let there = |placement: &&Placement| placement.to == Destination::Launch(index);
        let mut placed: Vec<_> = plan
            .placements
            .iter()
            .filter(there)
            .map(|p| p.pod.clone())
            .collect();
        placed.sort();
        assert_eq!(placed, launch.pods);
    }

    let gone: BTreeSet<_> = plan.remove.iter().map(|removal| &removal.node).collect();
    for removal in &plan.remove {
        for to in removal.moves.iter().map(|m| &m.to) {
            match to {
                Destination::Node(name) => assert!(!gone.contains(name), "a chain of moves"),
                Destination::Launch(index) => assert!(*index < plan.launch.len(), "a move to nowhere"),
                Destination::Launching(_) => panic!("a move to a node that may never come"),
            }
        }
    }
    check_disruption(snapshot, policy, plan);
    for verdict in &plan.nodes {
        assert_eq!(verdict.candidate, verdict.blockers.is_empty());
        assert!(
            verdict.candidate || !gone.contains(&verdict.node),
            "a blocked node goes"
        );
    }
    let replaces = plan.action == Action::Replace;
    assert_eq!(replaces, !plan.launch.is_empty() && !plan.remove.is_empty());
    let costs: f64 = plan.launch.iter().map(|launch| launch.price_per_hour).sum();
    let saves: f64 = plan.remove.iter().map(|removal| removal.saves_per_hour).sum();
    let noticed = plan.remove.iter().any(|removal| removal.due.is_some());
    assert!(
        !replaces || noticed || saves > costs,
        "a replacement that saves nothing"
    );
}

/// Removals keep every limit on what goes at once.
fn check_disruption(snapshot: &Snapshot, policy: &Policy, plan: &Plan) {
    let down = &policy.scale_down;
    let (empty, drained): (Vec<_>, Vec<_>) =
        plan.remove.iter().partition(|r| r.reason == RemovalReason::Empty);
    assert!(
        drained.len() <= down.max_parallel_drains as usize,
        "too many drains"
    );
    assert!(
        empty.len() <= down.max_parallel_empty as usize,
        "too many empty nodes"
    );
    let cluster = &snapshot.cluster;
    for pool in &policy.pools {
        let of_pool = |node: &&Node| policy.pool_of(node).is_some_and(|p| p.name == pool.name);
        let members: Vec<&Node> = cluster.nodes.iter().filter(of_pool).collect();
        let gone = plan
            .remove
            .iter()
            .filter(|r| members.iter().any(|node| node.name == r.node))
            .count();
        assert!(
            gone <= down.budget.of(members.len()),
            "the pool's budget is overdrawn"
        );
    }
    for budget in &cluster.disruption_budgets {
        let mut left = budget.disruptions_allowed;
        for removal in &plan.remove {
            let evicted = cluster
                .pods
                .iter()
                .filter(|pod| pod.node.as_ref() == Some(&removal.node) && budget.covers(pod));
            let evicted = i32::try_from(evicted.count()).unwrap();
            assert!(
                evicted == 0 || left > 0,
                "a disruption budget that is spent is spent again"
            );
            left -= evicted;
        }
    }
}

/// The cluster once the plan was carried out: new nodes Ready, removed ones gone, their pods where they were moved to.
fn carried_out(snapshot: &Snapshot, policy: &Policy, plan: &Plan, round: usize) -> Snapshot {
    let mut next = snapshot.clone();
    let new = |index: usize| format!("r{round}-{index}");
    for (index, launch) in plan.launch.iter().enumerate() {
        let pool = policy.pool(launch.pool.as_str()).unwrap();
        let spec = &policy.types[&launch.instance_types[0]];
        let mut node = node(&new(index))
            .zone(launch.zone.as_str())
            .market(launch.market)
            .instance_type(spec.name.as_str())
            .build();
        node.allocatable = pool.allocatable(spec);
        next.metrics
            .nodes
            .insert(node.name.clone(), reading("2026-01-02T03:04:00Z", 5.0, 2.5));
        next.cluster.nodes.push(node);
    }
    // Pods that waited are bound.
    for placement in plan.placements.iter().take(plan.pods.placed) {
        let to = match &placement.to {
            Destination::Node(to) => to.clone(),
            Destination::Launch(index) => new(*index).into(),
            Destination::Launching(_) => continue,
        };
        let pods = next
            .cluster
            .pods
            .iter_mut()
            .filter(|pod| pod.key == placement.pod);
        pods.map(Arc::make_mut).for_each(|pod| {
            pod.node = Some(to.clone());
            pod.phase = Phase::Running;
        });
    }
    for removal in &plan.remove {
        next.cluster.nodes.retain(|node| node.name != removal.node);
        next.metrics.nodes.remove(&removal.node);
        for moved in &removal.moves {
            let to = match &moved.to {
                Destination::Node(to) => to.clone(),
                Destination::Launch(index) => new(*index).into(),
                Destination::Launching(_) => unreachable!("no move goes there"),
            };
            next.cluster
                .pods
                .iter_mut()
                .filter(|pod| pod.key == moved.pod)
                .for_each(|pod| Arc::make_mut(pod).node = Some(to.clone()));
        }
    }
    next
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_keeps_its_limits_and_is_the_same_in_any_order(
        nodes in 0_u8..6,
        shapes in prop::collection::vec((any::<u8>(), prop::option::of(any::<u8>()), any::<u8>()), 0..24),
        cpu in 0.0_f64..100.0,
        max in 6_u32..10,
        step in 0_u32..3,
        fits in any::<bool>(),
    ) {
        let policy = policy(max, step, if fits { "fits" } else { "thresholds" });
        let snapshot = world(nodes, &shapes, cpu);
        let first = plan(&snapshot, &policy, now());
        check(&snapshot, &policy, &first);
        let mut shuffled = snapshot.clone();
        shuffled.cluster.pods.reverse();
        shuffled.cluster.nodes.rotate_left(usize::from(nodes / 2));
        shuffled.metrics.cluster.reverse();
        prop_assert_eq!(plan(&shuffled, &policy, now()), first);
    }

    #[test]
    fn what_ec2_announces_breaks_no_limit_and_moves_nobody_to_another_node_that_goes(
        nodes in 0_u8..6,
        shapes in prop::collection::vec((any::<u8>(), prop::option::of(any::<u8>()), any::<u8>()), 0..24),
        announced in prop::collection::vec((any::<u8>(), any::<bool>()), 1..4),
        cpu in 0.0_f64..100.0,
        max in 6_u32..10,
    ) {
        let mut policy = policy(max, 0, "thresholds");
        policy.pools[0].rebalance = OnNotice::Drain;
        let mut snapshot = world(nodes, &shapes, cpu);
        snapshot.state.announced = announced
            .iter()
            .map(|(node, rebalance)| Announced {
                node: format!("n{}", node % nodes.max(1)).into(),
                notice: if *rebalance { Forewarning::Rebalance } else { Forewarning::Maintenance },
                at: None,
            })
            .collect();
        let first = plan(&snapshot, &policy, now());
        check(&snapshot, &policy, &first);
        let goes = |name: &NodeName| snapshot.state.announced.iter().any(|one| one.node == *name);
        for to in first.remove.iter().flat_map(|removal| &removal.moves).map(|step| &step.to) {
            prop_assert!(!matches!(to, Destination::Node(name) if goes(name)), "a pod is moved to {to}");
        }
        for removal in first.remove.iter().filter(|removal| removal.due.is_some()) {
            prop_assert!(goes(&removal.node));
        }
        let mut shuffled = snapshot.clone();
        shuffled.cluster.pods.reverse();
        shuffled.cluster.nodes.reverse();
        prop_assert_eq!(plan(&shuffled, &policy, now()), first);
    }

    #[test]
    fn thinking_longer_never_makes_a_plan_dearer(
        nodes in 0_u8..3,
        shapes in prop::collection::vec((any::<u8>(), Just(None), any::<u8>()), 1..120),
        think in 1_u64..400,
    ) {
        let mut policy = policy(1000, 0, "fits");
        let snapshot = world(nodes, &shapes, 50.0);
        let thought = |millis: u64, policy: &mut Policy| {
            policy.scale_up.think = std::time::Duration::from_millis(millis);
            let plan = plan(&snapshot, policy, now());
            let cost: f64 = plan.launch.iter().map(|launch| launch.price_per_hour).sum();
            (plan.pods.pending.len(), cost)
        };
        let (at_once, thought) = (thought(0, &mut policy), thought(think, &mut policy));
        prop_assert!(thought.0 <= at_once.0);
        prop_assert!(thought.0 < at_once.0 || thought.1 <= at_once.1 + 1e-9, "{thought:?} after {at_once:?}");
    }

    #[test]
    fn a_shrinking_cluster_comes_to_rest(
        nodes in 1_u8..6,
        shapes in prop::collection::vec((any::<u8>(), Just(Some(0_u8)), 3_u8..6), 0..8),
    ) {
        let policy = policy(10, 0, "fits");
        let mut current = world(nodes, &shapes, 5.0);
        current.cluster.pods.retain(|pod| pod.node.is_some());
        for round in 0..=4 * usize::from(nodes) {
            let next = plan(&current, &policy, now());
            check(&current, &policy, &next);
            if next.remove.is_empty() {
                prop_assert!(next.launch.is_empty());
                return Ok(());
            }
            current = carried_out(&current, &policy, &next, round);
        }
        prop_assert!(false, "it never came to rest");
    }

    #[test]
    fn more_pods_never_mean_fewer_pods_placed(
        nodes in 0_u8..4,
        shapes in prop::collection::vec((any::<u8>(), prop::option::of(any::<u8>()), 3_u8..6), 1..40),
        fewer in any::<prop::sample::Index>(),
    ) {
        let policy = policy(1000, 0, "thresholds");
        let snapshot = world(nodes, &shapes, 50.0);
        let mut less = snapshot.clone();
        less.cluster.pods.retain(|pod| pod.node.is_some());
        let waiting = snapshot.cluster.pods.iter().filter(|pod| pod.node.is_none());
        let waiting: Vec<Arc<Pod>> = waiting.cloned().collect();
        less.cluster.pods.extend_from_slice(&waiting[..fewer.index(waiting.len() + 1)]);
        let (less, more) = (plan(&less, &policy, now()), plan(&snapshot, &policy, now()));
        prop_assert!(less.pods.placed <= more.pods.placed);
    }

    #[test]
    fn more_pods_never_mean_fewer_nodes_of_a_single_type(
        nodes in 0_u8..4,
        shapes in prop::collection::vec((any::<u8>(), Just(None), 3_u8..6), 1..60),
        fewer in any::<prop::sample::Index>(),
    ) {
        let policy = single_type();
        let snapshot = world(nodes, &shapes, 50.0);
        let mut less = snapshot.clone();
        less.cluster.pods.truncate(fewer.index(shapes.len() + 1));
        let (less, more) = (plan(&less, &policy, now()), plan(&snapshot, &policy, now()));
        prop_assert!(less.launch.len() <= more.launch.len(), "{} {}", less.launch.len(), more.launch.len());
    }

    #[test]
    fn with_constant_load_plans_come_to_rest_and_never_add_what_they_removed(
        nodes in 0_u8..6,
        shapes in prop::collection::vec((any::<u8>(), prop::option::of(any::<u8>()), any::<u8>()), 0..16),
    ) {
        let policy = policy(30, 0, "fits");
        let mut current = world(nodes, &shapes, 5.0);
        let mut removed = false;
        for round in 0..60 {
            let next = plan(&current, &policy, now());
            check(&current, &policy, &next);
            if next.action == Action::None {
                return Ok(());
            }
            prop_assert!(next.action != Action::ScaleUp || !removed, "it adds again what it has removed");
            removed |= !next.remove.is_empty();
            current = carried_out(&current, &policy, &next, round);
        }
        prop_assert!(false, "it never came to rest");
    }

    #[test]
    fn a_planner_that_remembers_plans_as_one_that_does_not(
        nodes in 1_u8..6,
        shapes in prop::collection::vec((any::<u8>(), prop::option::of(any::<u8>()), any::<u8>()), 1..24),
        events in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let policy = policy(30, 0, "fits");
        let mut current = world(nodes, &shapes, 5.0);
        let mut planner = Planner::default();
        for (round, (pod, kind)) in events.into_iter().enumerate() {
            let pods = &mut current.cluster.pods;
            let index = pod.index(pods.len());
            match kind % 5 {
                0 if pods.len() > 1 => drop(pods.remove(index)),
                1 => Arc::make_mut(&mut pods[index]).labels = [("app".into(), format!("new-{round}").into())].into(),
                2 => {
                    let mut other = (*pods[index]).clone();
                    other.key.name = format!("new-{round}").into();
                    other.node = None;
                    pods.push(other.into());
                }
                // Labels that nobody asked for are asked for now, or no more.
                3 => Arc::make_mut(&mut pods[index]).pod_anti_affinity.clear(),
                _ => current = carried_out(&current, &policy, &plan(&current, &policy, now()), round),
            }
            prop_assert_eq!(planner.plan(&current, &policy, now()), plan(&current, &policy, now()));
        }
    }

    #[test]
    fn no_text_makes_the_readers_panic(text in ".{0,200}") {
        let _ = Policy::from_toml(&text);
        let _ = Metrics::from_json(&text);
        let _ = smartscale_planner::quantity::parse_units(&text);
        let _ = smartscale_planner::duration::parse(&text);
    }
}
