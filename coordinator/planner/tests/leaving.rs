//! Pods that are on their way from a node that goes keep the places that they will need.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use std::sync::Arc;

use smartscale_planner::{
    BlockerCode, Plan, Snapshot,
    fixtures::{self, NodeFixture, PodFixture},
    model::Market,
    plan,
};

fn on(node: &str) -> PodFixture {
    fixtures::pod(&format!("default/on-{node}")).cpu("800m").on(node)
}

/// A cluster with little to do, which may go at once.
fn idle(
    nodes: impl IntoIterator<Item = NodeFixture>,
    pods: impl IntoIterator<Item = PodFixture>,
) -> Snapshot {
    let mut snapshot = fixtures::snapshot(nodes, pods);
    let little = || fixtures::reading("2026-01-02T03:04:00Z", 10.0, 10.0);
    snapshot.metrics.cluster = vec![little()];
    let nodes = snapshot.cluster.nodes.iter();
    snapshot.metrics.nodes = nodes.map(|node| (node.name.clone(), little())).collect();
    snapshot
}

fn decide(snapshot: &Snapshot) -> Plan {
    let rules = "[scale_down]\nwhen = \"fits\"\nsustained = \"0s\"\nmin_age = \"0s\"\nunneeded_when_requests_below_percent = 100\n";
    let mut policy = fixtures::policy(rules);
    // Nothing cheaper takes a node's place.
    policy.pools[0].markets = vec![Market::OnDemand];
    policy.pools[0]
        .types
        .retain(|spec| spec.name.as_str() == "t3.medium");
    plan(snapshot, &policy, fixtures::now())
}

fn removed(plan: &Plan) -> Vec<&str> {
    plan.remove.iter().map(|removal| removal.node.as_str()).collect()
}

#[test]
fn room_that_the_pods_of_a_leaving_node_need_is_given_to_nobody_else() {
    let nodes = || ["a", "b", "c"].map(fixtures::node);
    let pods = || ["a", "b", "c"].map(on);
    let free = decide(&idle(nodes().into_iter().skip(1), pods().into_iter().skip(1)));
    assert_eq!(removed(&free).len(), 1, "{free:#?}");
    let [leaving, b, c] = nodes();
    let plan = decide(&idle([leaving.being_deleted(), b, c], pods()));
    assert_eq!(removed(&plan), [] as [&str; 0], "{plan:#?}");
    let kept = plan.nodes.iter().filter(|verdict| {
        let mut codes = verdict.blockers.iter().map(|blocker| blocker.code);
        codes.any(|code| code == BlockerCode::Budget)
    });
    assert_eq!(kept.count(), 1, "{plan:#?}");
    assert!(plan.launch.is_empty());
}

#[test]
fn a_pod_that_was_told_to_go_needs_room_until_its_controller_has_made_another() {
    let nodes = || {
        let [leaving, b, c] = ["a", "b", "c"].map(fixtures::node);
        [leaving.being_deleted(), b, c]
    };
    let told = |since: &str| on("a").told_to_go(since);
    let decided = |pods: Vec<PodFixture>, newest: Option<&str>| {
        let mut snapshot = idle(nodes(), pods);
        if let (Some(pod), Some(created)) = (snapshot.cluster.pods.last_mut(), newest) {
            Arc::make_mut(pod).created = Some(fixtures::time(created));
        }
        removed(&decide(&snapshot)).len()
    };
    let all = |since: &str| vec![told(since), on("b"), on("c")];
    assert_eq!(decided(all("2026-01-02T03:03:50Z"), None), 0);
    // No other will come any more.
    assert_eq!(decided(all("2026-01-02T03:03:20Z"), None), 1);
    // It is there already: the two that are left fit on one node.
    assert_eq!(
        decided(all("2026-01-02T03:03:50Z"), Some("2026-01-02T03:03:55Z")),
        1
    );
}

#[test]
fn what_is_left_beside_that_room_still_goes() {
    let [leaving, b, c, d] = ["a", "b", "c", "d"].map(fixtures::node);
    let pods = ["a", "b", "c"].map(on);
    let plan = decide(&idle([leaving.being_deleted(), b, c, d], pods));
    assert_eq!(removed(&plan).len(), 1, "{plan:#?}");
}

#[test]
fn nothing_is_launched_for_pods_that_do_not_wait_yet() {
    let [leaving, full] = ["a", "b"].map(fixtures::node);
    let plan = decide(&idle(
        [leaving.being_deleted(), full],
        [
            on("a"),
            on("b"),
            fixtures::pod("default/more-b").cpu("800m").on("b"),
        ],
    ));
    assert!(plan.launch.is_empty() && plan.remove.is_empty(), "{plan:#?}");
}
