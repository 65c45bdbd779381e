//! Minimums that are higher for a while.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use proptest::prelude::*;
use smartscale_planner::{
    Action, BlockerCode, Hold, Plan, Policy, Snapshot,
    explain::{Questions, explain},
    fixtures::{NOW, node, now, policy_of, reading, snapshot},
    model::Pod,
    plan,
};

/// Two pools, each of one type, the first one cheaper; further tables.
fn policy(more: &str) -> Policy {
    policy_of(&text(more))
}

fn text(more: &str) -> String {
    format!(
        r#"
[cluster]
id = "test"
[limits]
min_nodes = 1
max_nodes = 8
[scale_down]
when = "fits"
sustained = "0s"
[[pool]]
name = "workers"
instance_types = ["t3.medium"]
zones = ["us-east-1a"]
max_nodes = 6
[[pool]]
name = "web"
instance_types = ["t3.large"]
zones = ["us-east-1a"]
max_nodes = 5
{more}"#
    )
}

/// A schedule whose window begins every day at `hour` by UTC and lasts for an hour. It is 03:04 there on a Friday.
fn schedule(hour: u8, min_nodes: u32, more: &str) -> String {
    format!("[[schedule]]\ncron = \"0 {hour} * * *\"\nduration = \"1h\"\nmin_nodes = {min_nodes}\n{more}\n")
}

/// So many nodes with nothing on them, measured.
fn idle(number: usize) -> Snapshot {
    let names: Vec<String> = (0..number).map(|index| format!("n{index}")).collect();
    let mut idle = snapshot(names.iter().map(|name| node(name)), Vec::<Pod>::new());
    idle.metrics.cluster = vec![reading(NOW, 5.0, 5.0)];
    let readings = names
        .iter()
        .map(|name| (name.as_str().into(), reading(NOW, 5.0, 5.0)));
    idle.metrics.nodes = readings.collect();
    idle
}

fn pools(plan: &Plan) -> Vec<&str> {
    plan.launch.iter().map(|launch| launch.pool.as_str()).collect()
}

/// What the plan says of schedules.
fn said(plan: &Plan) -> Vec<&String> {
    let of_schedule = |note: &&String| note.starts_with("schedule ");
    plan.assumptions.iter().filter(of_schedule).collect()
}

#[test]
fn nodes_are_launched_at_once_for_a_schedule_that_holds_and_for_no_other() {
    let policy = policy(&(schedule(3, 4, "name = \"night shift\"") + &schedule(4, 7, "")));
    let plan = plan(&idle(1), &policy, now());
    assert_eq!(plan.action, Action::ScaleUp);
    assert_eq!(pools(&plan), ["workers"; 3]);
    assert!(plan.launch.iter().all(|launch| launch.pods.is_empty()));
    assert!(plan.summary.contains("to reach a minimum"), "{}", plan.summary);
    assert_eq!(
        said(&plan),
        ["schedule night shift: at least 4 nodes until 2026-01-02T04:00:00Z"]
    );
}

#[test]
fn the_highest_of_several_counts_and_the_policys_own_minimum_stays() {
    let several = schedule(3, 3, "") + &schedule(3, 5, "") + &schedule(3, 2, "");
    assert_eq!(plan(&idle(1), &policy(&several), now()).launch.len(), 4);
    let lower = plan(&idle(1), &policy(&schedule(3, 0, "")), now());
    assert_eq!((lower.action, said(&lower).len()), (Action::None, 0));
    let removes = plan(&idle(3), &policy(&schedule(3, 0, "")), now());
    assert_eq!(removes.remove.len(), 2, "the policy's own minimum is one");
}

#[test]
fn a_schedule_of_a_pool_fills_that_pool() {
    let policy = policy(&schedule(3, 2, "pool = \"web\""));
    let plan = plan(&idle(1), &policy, now());
    assert_eq!(pools(&plan), ["web"; 2]);
    assert_eq!(said(&plan).len(), 1);
    assert!(said(&plan)[0].contains("2 nodes of pool web"), "{plan:?}");
}

#[test]
fn what_a_schedule_keeps_says_so_until_it_ends() {
    let policy = policy(&schedule(3, 3, "name = \"night shift\""));
    let cluster = idle(3);
    let held = plan(&cluster, &policy, now());
    assert!(held.remove.is_empty());
    assert_eq!(held.held_by, [Hold::AtMin]);
    for verdict in &held.nodes {
        assert_eq!(verdict.blockers[0].code, BlockerCode::AtMinNodes);
    }
    let asked = Questions {
        nodes: vec!["n1".into()],
        ..Questions::default()
    };
    let (_, answers) = explain(&cluster, &policy, now(), &asked).unwrap();
    assert_eq!(
        answers.nodes[0].blockers[0].detail,
        "3 nodes left, 3 until 2026-01-02T04:00:00Z by schedule night shift"
    );
    // An hour later nothing asks for them any more.
    let later = "2026-01-02T04:00:00Z";
    let mut cluster = cluster;
    cluster.metrics.cluster = vec![reading(later, 5.0, 5.0)];
    for of_node in cluster.metrics.nodes.values_mut() {
        *of_node = reading(later, 5.0, 5.0);
    }
    assert_eq!(plan(&cluster, &policy, later.parse().unwrap()).remove.len(), 2);
}

#[test]
fn a_lead_brings_nodes_before_the_window_begins() {
    assert!(
        plan(&idle(1), &policy(&schedule(4, 3, "lead = \"55m\"")), now())
            .launch
            .is_empty()
    );
    let soon = policy(&schedule(4, 3, "lead = \"56m\""));
    assert_eq!(plan(&idle(1), &soon, now()).launch.len(), 2);
}

#[test]
fn the_hour_is_that_of_the_time_zone() {
    let berlin = schedule(4, 3, "time_zone = \"Europe/Berlin\"");
    assert_eq!(plan(&idle(1), &policy(&berlin), now()).launch.len(), 2);
    assert!(
        plan(
            &idle(1),
            &policy(&berlin),
            "2026-07-02T03:04:05Z".parse().unwrap()
        )
        .launch
        .is_empty()
    );
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_key() {
    let ok = schedule(3, 3, "");
    let cases = [
        (
            ok.replace("min_nodes = 3", "min_nodes = 9"),
            "schedule[0].min_nodes",
        ),
        (schedule(3, 6, "pool = \"web\""), "schedule[0].min_nodes"),
        (ok.replace("min_nodes = 3", ""), "schedule[0].min_nodes"),
        (schedule(3, 3, "pool = \"wep\""), "schedule[0].pool"),
        (schedule(3, 3, "name = \" \""), "schedule[0].name"),
        (schedule(3, 3, "zone = \"UTC\""), "schedule[0].zone"),
        (
            schedule(3, 3, "time_zone = \"Mars/Olympus\""),
            "schedule[0].time_zone",
        ),
        (schedule(3, 3, "lead = \"soon\""), "schedule[0].lead"),
        (schedule(3, 3, "lead = \"9000h\""), "schedule[0].lead"),
        (ok.replace("0 3 * * *", "0 24 * * *"), "schedule[0].cron"),
        (ok.replace("0 3 * * *", "@daily"), "schedule[0].cron"),
        (ok.replace("0 3 * * *", "0 0 31 2 *"), "schedule[0].cron"),
        (ok.replace("\"1h\"", "\"0s\""), "schedule[0].duration"),
        (ok.replace("duration = \"1h\"\n", ""), "schedule[0].duration"),
        (format!("{ok}{}", ok.replace('3', "9")), "schedule[1].min_nodes"),
    ];
    for (more, path) in cases {
        let error = Policy::from_toml(&text(&more)).unwrap_err();
        assert_eq!(error.path, path, "{more}: {error}");
    }
}

#[test]
fn minimums_that_the_pools_cannot_have_together_are_warned_of() {
    let together = schedule(3, 5, "pool = \"web\"") + &schedule(9, 6, "pool = \"workers\"");
    let (_, warnings) = Policy::from_toml(&text(&together)).unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].path, "schedule");
    let small = text(&schedule(3, 8, ""))
        .replace("max_nodes = 6", "max_nodes = 2")
        .replace("max_nodes = 5", "max_nodes = 2");
    let (_, warnings) = Policy::from_toml(&small).unwrap();
    assert_eq!(warnings[0].path, "schedule[0].min_nodes");
}

proptest! {
    /// Never above a maximum for the sake of a schedule, and never below it by a removal.
    #[test]
    fn a_schedule_keeps_within_the_maximums(nodes in 0_usize..8, asks in 0_u32..9, of_web in 0_u32..6) {
        let policy = policy(&(schedule(3, asks, "") + &schedule(3, of_web, "pool = \"web\"")));
        let plan = plan(&idle(nodes), &policy, now());
        let then = nodes + plan.launch.len() - plan.remove.len();
        prop_assert!(then <= nodes.max(8));
        let of_web = of_web as usize;
        let web = pools(&plan).iter().filter(|pool| **pool == "web").count();
        prop_assert!(web >= of_web.min(8 - nodes) && web <= 5, "{web} of web");
        prop_assert!(then >= (asks as usize).clamp(1, 8));
    }
}
