//! Nodes that are due to go although they are needed: what goes, when, and what protects the work on it all the same.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use jiff::SignedDuration;
use smartscale_planner::{
    Action, BlockerCode, Destination, Due, Hold, Plan, Policy, RemovalReason, Snapshot,
    fixtures::{self, NodeFixture, PodFixture},
    plan,
    policy::{OnDrift, OnNotice},
    snapshot::{Announced, Drifted, Forewarning, GivenUp, Launched, State, Throttled},
};

fn announced(node: &str, notice: Forewarning, at: Option<&str>) -> Announced {
    Announced {
        node: node.into(),
        notice,
        at: at.map(fixtures::time),
    }
}

fn recommended(node: &str) -> Announced {
    announced(node, Forewarning::Rebalance, None)
}

/// A cluster in steady use whose last action is only just over, so that nothing goes by itself.
fn cluster(
    nodes: impl IntoIterator<Item = NodeFixture>,
    pods: impl IntoIterator<Item = PodFixture>,
    announced: impl IntoIterator<Item = Announced>,
) -> Snapshot {
    let mut snapshot = fixtures::snapshot(nodes, pods);
    snapshot.metrics.cluster = vec![fixtures::reading("2026-01-02T03:04:00Z", 40.0, 40.0)];
    snapshot.state.last_scale_action = Some(Action::ScaleUp);
    snapshot.state.last_scale_time = Some(fixtures::now());
    snapshot.state.announced = announced.into_iter().collect();
    snapshot
}

fn busy(name: &str) -> PodFixture {
    fixtures::pod(&format!("default/on-{name}")).cpu("1500m").on(name)
}

/// A policy that follows both.
fn following() -> Policy {
    let mut policy = fixtures::policy("");
    policy.pools[0].rebalance = OnNotice::Drain;
    policy
}

fn decide(snapshot: &Snapshot, policy: &Policy) -> Plan {
    plan(snapshot, policy, fixtures::now())
}

fn removed(plan: &Plan) -> Vec<&str> {
    plan.remove.iter().map(|removal| removal.node.as_str()).collect()
}

fn blockers(plan: &Plan, node: &str) -> Vec<BlockerCode> {
    let verdict = plan.nodes.iter().find(|verdict| verdict.node.as_str() == node);
    verdict
        .unwrap()
        .blockers
        .iter()
        .map(|blocker| blocker.code)
        .collect()
}

#[test]
fn a_recommendation_to_rebalance_is_only_shown_unless_the_pool_wants_it_followed() {
    let snapshot = cluster([fixtures::node("a")], [busy("a")], [recommended("a")]);
    assert_eq!(decide(&snapshot, &fixtures::policy("")).action, Action::None);
    let plan = decide(&snapshot, &following());
    assert_eq!((plan.action, removed(&plan)), (Action::Replace, vec!["a"]));
    assert_eq!(plan.remove[0].reason, RemovalReason::Replaced);
    assert_eq!(plan.remove[0].due, Some(Due::Rebalance));
    assert_eq!(plan.remove[0].moves[0].to, Destination::Launch(0));
    assert!(
        plan.summary
            .contains("in the place of one that EC2 recommends to rebalance"),
        "{}",
        plan.summary
    );
}

#[test]
fn maintenance_is_provided_for_from_a_day_before_it_begins_and_not_sooner() {
    let at = |at| {
        cluster(
            [fixtures::node("a")],
            [busy("a")],
            [announced("a", Forewarning::Maintenance, Some(at))],
        )
    };
    let policy = fixtures::policy("");
    assert_eq!(removed(&decide(&at("2026-01-03T03:04:05Z"), &policy)), ["a"]);
    assert_eq!(decide(&at("2026-01-03T03:04:06Z"), &policy).action, Action::None);
    let mut ignoring = policy.clone();
    ignoring.pools[0].maintenance = OnNotice::Ignore;
    assert_eq!(
        decide(&at("2026-01-02T03:04:05Z"), &ignoring).action,
        Action::None
    );
}

#[test]
fn a_node_whose_pods_have_a_place_needs_no_other_in_its_stead() {
    let small = fixtures::pod("default/small").cpu("100m").on("a");
    let snapshot = cluster(
        [fixtures::node("a"), fixtures::node("b"), fixtures::node("c")],
        [small],
        [recommended("a")],
    );
    let mut policy = following();
    let plan = decide(&snapshot, &policy);
    assert_eq!((plan.action, removed(&plan)), (Action::ScaleDown, vec!["a"]));
    assert_eq!(plan.remove[0].due, Some(Due::Rebalance));

    // But where the minimum needs it.
    policy.limits.min_nodes = 3;
    let plan = decide(&snapshot, &policy);
    assert_eq!((plan.action, removed(&plan)), (Action::Replace, vec!["a"]));
}

#[test]
fn what_measured_load_needs_is_replaced_by_as_much() {
    let small = fixtures::pod("default/small").cpu("100m").on("a");
    let mut snapshot = cluster(
        [fixtures::node("a"), fixtures::node("b")],
        [small],
        [recommended("a")],
    );
    snapshot.metrics.cluster = vec![fixtures::reading("2026-01-02T03:04:00Z", 60.0, 20.0)];
    let plan = decide(&snapshot, &following());
    assert_eq!((plan.action, removed(&plan)), (Action::Replace, vec!["a"]));
}

#[test]
fn one_drain_at_a_time_those_under_way_included() {
    let snapshot = |third: NodeFixture| {
        cluster(
            [fixtures::node("a"), fixtures::node("b"), third],
            [busy("a"), busy("b")],
            [recommended("a"), recommended("b")],
        )
    };
    let plan = decide(&snapshot(fixtures::node("c")), &following());
    assert_eq!(removed(&plan).len(), 1);
    let plan = decide(&snapshot(fixtures::node("c").being_deleted()), &following());
    assert_eq!(plan.action, Action::None);
    assert_eq!(blockers(&plan, "a"), [BlockerCode::Budget]);
}

#[test]
fn what_protects_a_pod_protects_it_from_a_forewarned_drain_too() {
    let kept = busy("a").annotation("karpenter.sh/do-not-disrupt", "true");
    let snapshot = cluster([fixtures::node("a")], [kept], [recommended("a")]);
    let plan = decide(&snapshot, &following());
    assert_eq!(plan.action, Action::None);
    assert!(blockers(&plan, "a").contains(&BlockerCode::DoNotDisrupt));
}

#[test]
fn nothing_goes_while_somebody_paused_or_pods_wait() {
    let mut snapshot = cluster([fixtures::node("a")], [busy("a")], [recommended("a")]);
    snapshot.state.paused = true;
    assert_eq!(decide(&snapshot, &following()).action, Action::None);

    let waiting = fixtures::pod("default/waits").cpu("1");
    let snapshot = cluster([fixtures::node("a")], [busy("a"), waiting], [recommended("a")]);
    let plan = decide(&snapshot, &following());
    assert_eq!((plan.action, removed(&plan)), (Action::ScaleUp, vec![]));
    assert!(plan.held_by.contains(&Hold::PendingPods));
}

#[test]
fn no_pod_is_moved_to_a_node_that_is_to_go_itself() {
    let small = |on: &str| fixtures::pod(&format!("default/on-{on}")).cpu("900m").on(on);
    let snapshot = cluster(
        [fixtures::node("a"), fixtures::node("b")],
        [small("a"), small("b")],
        [recommended("a"), recommended("b")],
    );
    let plan = decide(&snapshot, &following());
    assert_eq!(plan.remove[0].moves[0].to, Destination::Launch(0));
}

fn drifted(node: &str) -> Drifted {
    Drifted {
        node: node.into(),
        how: "template version 3, and launches use 4".into(),
    }
}

#[test]
fn a_node_out_of_credits_is_replaced_only_where_the_pool_wants_it_and_only_once_that_lasts() {
    let throttled = |minutes| Throttled {
        node: "a".into(),
        since: fixtures::now() - SignedDuration::from_mins(minutes),
    };
    let nodes = ["a", "b", "c"].map(fixtures::node);
    let mut snapshot = cluster(nodes, [busy("a")], []);
    let mut policy = fixtures::policy("");
    snapshot.state.throttled = vec![throttled(60)];
    assert_eq!(decide(&snapshot, &policy).action, Action::None);
    policy.pools[0].throttled = OnDrift::Replace;
    let plan = decide(&snapshot, &policy);
    assert_eq!(removed(&plan), ["a"]);
    assert_eq!(plan.remove[0].due, Some(Due::Throttled));
    snapshot.state.throttled = vec![throttled(5)];
    assert_eq!(decide(&snapshot, &policy).action, Action::None);
}

#[test]
fn a_node_that_has_drifted_is_only_shown_unless_the_pool_wants_it_replaced() {
    let nodes = ["a", "b", "c"].map(fixtures::node);
    let mut snapshot = cluster(nodes, [busy("a")], []);
    snapshot.state.drifted = vec![drifted("a")];
    let mut policy = fixtures::policy("");
    assert_eq!(decide(&snapshot, &policy).action, Action::None);
    policy.pools[0].drift = OnDrift::Replace;
    // Its pod fits on another, which is kept: nothing need be launched.
    let plan = decide(&snapshot, &policy);
    assert_eq!((plan.action, removed(&plan)), (Action::ScaleDown, vec!["a"]));
    assert_eq!(plan.remove[0].due, Some(Due::Drift));
    snapshot.state.drifted.push(drifted("b"));
    let plan = decide(&snapshot, &policy);
    assert_eq!(plan.remove[0].due, Some(Due::Drift));
    assert!(
        plan.remove[0]
            .moves
            .iter()
            .all(|one| one.to == Destination::Launch(0))
    );
}

#[test]
fn a_node_goes_when_it_reaches_the_age_that_its_pool_allows() {
    // Nodes of these tests are an hour, two minutes and a few seconds old.
    let old = || fixtures::node("a").created("2026-01-02T01:04:05Z");
    let snapshot = cluster([old()], [busy("a")], []);
    let mut policy = fixtures::policy("");
    policy.pools[0].max_age = Some(std::time::Duration::from_secs(7201));
    assert_eq!(decide(&snapshot, &policy).action, Action::None);
    policy.pools[0].max_age = Some(std::time::Duration::from_secs(7200));
    let plan = decide(&snapshot, &policy);
    assert_eq!((plan.action, removed(&plan)), (Action::Replace, vec!["a"]));
    assert_eq!(plan.remove[0].due, Some(Due::Age));
}

#[test]
fn a_freeze_keeps_what_is_due_but_not_from_maintenance() {
    let frozen = "[[freeze]]\ncron = \"0 0 * * *\"\nduration = \"6h\"\n";
    let mut policy = fixtures::policy(frozen);
    policy.pools[0].rebalance = OnNotice::Drain;
    let of = |notice| cluster([fixtures::node("a")], [busy("a")], [announced("a", notice, None)]);
    assert_eq!(decide(&of(Forewarning::Rebalance), &policy).action, Action::None);
    assert_eq!(
        decide(&of(Forewarning::Maintenance), &policy).action,
        Action::Replace
    );
}

#[test]
fn a_removal_that_was_given_up_is_not_begun_again_within_the_cooldown() {
    let mut snapshot = cluster([fixtures::node("a")], [busy("a")], [recommended("a")]);
    // `scale_down.cooldown` is 10 minutes.
    for (at, action) in [
        ("2026-01-02T02:54:06Z", Action::None),
        ("2026-01-02T02:54:05Z", Action::Replace),
    ] {
        snapshot.state.given_up = vec![GivenUp {
            node: "a".into(),
            at: fixtures::time(at),
        }];
        assert_eq!(decide(&snapshot, &following()).action, action, "{at}");
    }
}

#[test]
fn a_replacement_that_the_launches_of_an_hour_leave_no_room_for_waits_and_is_said_to() {
    let mut snapshot = cluster([fixtures::node("a")], [busy("a")], [recommended("a")]);
    snapshot.state.launched = vec![Launched {
        time: fixtures::now(),
        nodes: 1,
    }];
    let mut policy = following();
    policy.limits.max_launches_per_hour = 1;
    let plan = decide(&snapshot, &policy);
    assert_eq!(plan.action, Action::None);
    assert!(plan.held_by.contains(&Hold::LaunchRate), "{:?}", plan.held_by);
    policy.limits.max_launches_per_hour = 2;
    let plan = decide(&snapshot, &policy);
    assert_eq!(plan.action, Action::Replace);
    assert!(!plan.held_by.contains(&Hold::LaunchRate));
}

#[test]
fn what_was_announced_survives_the_state_file() {
    let snapshot = cluster(
        [fixtures::node("a")],
        [busy("a")],
        [announced("a", Forewarning::Maintenance, Some(fixtures::NOW))],
    );
    let text = serde_json::to_string(&snapshot.state).unwrap();
    assert_eq!(
        State::from_json(&text, &"test".into()).unwrap().announced,
        snapshot.state.announced
    );
    let error = State::from_json(
        r#"{ "announced": [{ "node": "a", "notice": "flood" }] }"#,
        &"test".into(),
    );
    assert_eq!(error.unwrap_err().path, "announced[0].notice");
}
