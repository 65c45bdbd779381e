//! Freezes, and the most that is launched and spent in an hour.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use smartscale_planner::{
    Action, Hold, PendingCode, Plan, Policy, Snapshot,
    fixtures::{NOW, node, now, pod, policy_of, reading, snapshot, time},
    model::Pod,
    plan,
    snapshot::{Launched, State},
};

/// One type of 2 CPUs at 0.1 USD an hour; further keys of `[limits]`, and further tables.
fn policy(limits: &str, more: &str) -> Policy {
    policy_of(&format!(
        r#"
[cluster]
id = "test"
[limits]
min_nodes = 0
max_nodes = 100
{limits}
[scale_down]
when = "fits"
sustained = "0s"
[[pool]]
name = "workers"
instance_types = ["t3.medium"]
zones = ["us-east-1a"]
[[instance_type]]
name = "t3.medium"
cpu = "2"
memory = "4Gi"
on_demand_price = 0.1
{more}"#
    ))
}

/// Pods of which a node holds one.
fn pods(number: usize) -> Vec<Pod> {
    (0..number)
        .map(|index| pod(&format!("web-{index}")).cpu("1500m").build())
        .collect()
}

fn waiting(number: usize, state: State) -> Snapshot {
    let none: [smartscale_planner::model::Node; 0] = [];
    Snapshot {
        state,
        ..snapshot(none, pods(number))
    }
}

/// Two nodes with nothing on them, measured.
fn idle() -> Snapshot {
    let mut idle = snapshot([node("a"), node("b")], Vec::<Pod>::new());
    idle.metrics.cluster = vec![reading(NOW, 5.0, 5.0)];
    idle.metrics.nodes = ["a", "b"]
        .map(|name| (name.into(), reading(NOW, 5.0, 5.0)))
        .into();
    idle
}

/// Those of the holds that are brakes.
fn brakes(plan: &Plan) -> Vec<Hold> {
    let is_brake = |hold: &Hold| matches!(hold, Hold::Freeze | Hold::LaunchRate | Hold::Spending);
    plan.held_by.iter().copied().filter(is_brake).collect()
}

fn codes(plan: &Plan) -> Vec<PendingCode> {
    plan.pods.pending.iter().map(|pod| pod.code).collect()
}

/// A freeze that holds at [`now`], a Friday, until 06:00.
fn freeze(stops: &str) -> String {
    format!("[[freeze]]\ncron = \"0 0 * * FRI\"\nduration = \"6h\"\nstops = {stops}\n")
}

fn launched(at: &str, nodes: u32) -> Launched {
    Launched {
        time: time(at),
        nodes,
    }
}

#[test]
fn no_more_is_launched_within_an_hour_than_the_policy_allows() {
    let policy = policy("max_launches_per_hour = 5", "");
    let state = State {
        // The first is an hour old, and counts no more.
        launched: vec![
            launched("2026-01-02T02:04:05Z", 4),
            launched("2026-01-02T02:04:06Z", 2),
            launched("2026-01-02T03:00:00Z", 1),
        ],
        ..State::default()
    };
    let plan = plan(&waiting(4, state), &policy, now());
    assert_eq!(plan.launch.len(), 2);
    assert_eq!(codes(&plan), [PendingCode::MaxStep; 2]);
    assert_eq!(
        plan.pods.pending[0].reason,
        "limits.max_launches_per_hour = 5, and within the last hour 3 were launched"
    );
    assert_eq!(brakes(&plan), [Hold::LaunchRate]);
    assert!(
        plan.summary.contains("held by the most launches of an hour"),
        "{}",
        plan.summary
    );
}

#[test]
fn launches_that_stay_within_the_bound_are_held_by_nothing() {
    let policy = policy("max_launches_per_hour = 4\nmax_usd_per_hour = 0.4", "");
    let plan = plan(&waiting(4, State::default()), &policy, now());
    assert_eq!(plan.launch.len(), 4);
    assert_eq!(brakes(&plan), []);
}

#[test]
fn a_minimum_is_not_filled_beyond_the_launches_of_an_hour() {
    let text = "max_launches_per_hour = 2";
    let mut policy = policy(text, "");
    policy.limits.min_nodes = 3;
    let plan = plan(&waiting(0, State::default()), &policy, now());
    assert_eq!(plan.launch.len(), 2);
    assert_eq!(brakes(&plan), [Hold::LaunchRate]);
}

#[test]
fn nodes_do_not_cost_more_together_than_the_policy_allows() {
    let policy = policy("max_usd_per_hour = 0.35", "");
    // Full, so that none of the pods fits.
    let full = pod("full").cpu("2").on("a").build();
    let plan = plan(
        &snapshot([node("a")], pods(4).into_iter().chain([full])),
        &policy,
        now(),
    );
    assert_eq!(plan.launch.len(), 2);
    assert_eq!(codes(&plan), [PendingCode::Held; 2]);
    assert_eq!(
        plan.pods.pending[0].reason,
        "a node would be launched for it, but limits.max_usd_per_hour = 0.35 is used up"
    );
    assert_eq!(brakes(&plan), [Hold::Spending]);
}

#[test]
fn a_minimum_and_headroom_are_not_filled_beyond_what_nodes_may_cost() {
    let mut policy = policy("max_usd_per_hour = 0.25", "");
    policy.limits.min_nodes = 3;
    let plan = plan(&waiting(0, State::default()), &policy, now());
    assert_eq!((plan.launch.len(), brakes(&plan)), (2, vec![Hold::Spending]));
}

#[test]
fn a_freeze_of_scale_up_launches_nothing_and_says_until_when() {
    let policy = policy("", &freeze(r#"["scale_up"]"#));
    let plan = plan(&waiting(1, State::default()), &policy, now());
    assert_eq!(plan.action, Action::None);
    assert_eq!(codes(&plan), [PendingCode::Held]);
    assert_eq!(
        plan.pods.pending[0].reason,
        "a node would be launched for it, but a freeze holds until 2026-01-02T06:00:00Z"
    );
    assert_eq!(brakes(&plan), [Hold::Freeze]);
}

#[test]
fn a_freeze_stops_removals_only_where_it_says_so() {
    for (stops, action) in [
        (r#"["scale_down"]"#, Action::None),
        (r#"["scale_up", "replace"]"#, Action::ScaleDown),
    ] {
        let plan = plan(&idle(), &policy("", &freeze(stops)), now());
        assert_eq!(plan.action, action, "{stops}");
        assert_eq!(brakes(&plan), [Hold::Freeze]);
        // They are candidates all the same.
        assert!(plan.nodes.iter().any(|node| node.candidate));
    }
}

#[test]
fn a_freeze_by_itself_lets_pods_have_their_nodes() {
    let text = freeze("[]").replace("stops = []\n", "");
    let policy = policy("", &text);
    assert_eq!(
        plan(&waiting(1, State::default()), &policy, now()).launch.len(),
        1
    );
    assert_eq!(plan(&idle(), &policy, now()).action, Action::None);
}

#[test]
fn a_person_lifts_every_brake_until_a_time() {
    let limits = "max_launches_per_hour = 1\nmax_usd_per_hour = 0.1";
    let policy = policy(limits, &freeze(r#"["scale_up"]"#));
    let lifted = |until: &str| State {
        brakes_lifted_until: Some(time(until)),
        ..State::default()
    };
    let free = plan(&waiting(3, lifted("2026-01-02T03:04:06Z")), &policy, now());
    assert_eq!((free.launch.len(), brakes(&free)), (3, vec![]));
    assert_eq!(
        plan(&waiting(3, lifted(NOW)), &policy, now()).launch,
        [],
        "it has lapsed"
    );
}
