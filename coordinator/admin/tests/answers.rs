//! What `smartscale plan` says to people, for cases of the planner's catalogue: snapshots, so that the wording is reviewed.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
#![allow(
    dead_code,
    reason = "the module is part of the program; a test asks only some of it"
)]

#[path = "../src"]
mod program {
    pub(crate) mod input;
    pub(crate) mod plan;
}

use std::{
    fs,
    path::{Path, PathBuf},
};

use program::plan::{Output, PlanArgs, decide, show};
use smartscale_planner::Plan;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../planner/tests/cases")
}

fn args(case: &str) -> PlanArgs {
    let folder = cases().join(case);
    let optional = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
    PlanArgs {
        files: vec![folder.join("cluster.yaml")],
        policy: folder.join("policy.toml"),
        metrics: optional("metrics.json"),
        state: optional("state.json"),
        now: Some("2026-01-02T03:04:05Z".parse().unwrap()),
        why: Vec::new(),
        why_node: Vec::new(),
        against: None,
        output: Output::Table,
    }
}

fn printed(args: &PlanArgs) -> String {
    let decided = decide(args, &mut std::io::empty()).unwrap();
    let text = show(&decided, args.output).unwrap();
    if args.output == Output::Table {
        fits(&text);
    }
    text
}

/// No line is longer than a terminal is wide, none ends in spaces, and no two empty lines follow one another.
fn fits(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "too long: {line}");
        assert_eq!(line, line.trim_end());
    }
    assert!(!text.contains("\n\n\n") && !text.starts_with('\n'), "{text}");
    assert!(text.ends_with('\n'));
}

fn why(case: &str, pod: &str) -> String {
    let mut args = args(case);
    args.why = vec![pod.parse().unwrap()];
    printed(&args)
}

fn why_node(case: &str, node: &str) -> String {
    let mut args = args(case);
    args.why_node = vec![node.into()];
    printed(&args)
}

#[test]
fn every_case_fits_eighty_columns_whatever_is_asked() {
    for case in fs::read_dir(cases()).unwrap() {
        let case = case.unwrap().file_name().into_string().unwrap();
        let mut args = args(&case);
        printed(&args);
        args.output = Output::Json;
        let plan: Plan = serde_json::from_str(&printed(&args)).unwrap();
        args.output = Output::Table;
        args.why_node = plan.nodes.iter().map(|verdict| verdict.node.clone()).collect();
        args.why = plan
            .pods
            .pending
            .iter()
            .map(|pending| pending.pod.clone())
            .collect();
        args.why
            .extend(plan.launch.iter().flat_map(|launch| launch.pods.clone()));
        let moves = plan.remove.iter().flat_map(|removal| &removal.moves);
        args.why.extend(moves.map(|planned| planned.pod.clone()));
        if !args.why.is_empty() || !args.why_node.is_empty() {
            printed(&args);
        }
    }
}

#[test]
fn plans_read_like_a_good_colleagues_answer() {
    for case in [
        "a_cooldown_after_a_scale_up_holds_removals",
        "a_disruption_budget_is_spent_only_once",
        "a_hot_cluster_at_its_maximum",
        "a_hot_cluster_gets_the_fewest_nodes_that_cool_it",
        "a_node_is_replaced_by_a_cheaper_one",
        "a_node_that_ec2_takes_for_maintenance_is_replaced_first",
        "a_pending_pod_that_fits_holds_removals",
        "a_pod_that_must_be_near_a_pending_one_is_served_in_the_same_plan",
        "an_empty_node_goes",
        "every_blocker_of_a_node_is_reported",
        "hostname_anti_affinity_needs_a_node_each",
        "nodes_are_spread_over_zones",
        "nodes_that_are_not_ours_are_listed_but_stay",
        "nothing_is_launched_while_paused",
        "the_cluster_is_at_its_maximum",
        "the_node_that_saves_most_per_moved_pod_is_drained",
        "a_type_of_the_built_in_catalogue",
        "without_metrics_nothing_is_removed",
        "zone_anti_affinity_with_more_pods_than_zones",
    ] {
        insta::assert_snapshot!(format!("plan_{case}"), printed(&args(case)));
    }
}

#[test]
fn pods_are_explained_from_what_they_ask_for_to_what_comes_of_it() {
    for (case, pod) in [
        (
            "a_gated_pod_and_a_resource_claim_are_only_reported",
            "default/gated-1",
        ),
        ("a_launching_node_takes_the_pod", "default/web-1"),
        ("a_missing_claim_keeps_its_pod_pending", "default/db-1"),
        (
            "a_pending_pod_gets_the_cheapest_node_that_holds_it",
            "default/web-1",
        ),
        (
            "a_pod_below_the_priority_cutoff_takes_room_but_adds_no_node",
            "default/batch-1",
        ),
        ("a_pod_larger_than_every_type_stays_pending", "default/big-1"),
        ("a_pod_that_must_be_near_nobody", "default/cache-1"),
        ("a_preferred_zone_gives_way_to_the_price", "default/web-1"),
        ("a_preferred_zone_is_taken_at_the_same_price", "default/web-1"),
        ("a_selector_that_no_pool_has", "default/web-1"),
        ("a_spread_over_a_zone_without_capacity", "default/web-2"),
        ("an_intolerant_pod_does_not_go_to_a_tainted_pool", "default/web-1"),
        ("every_blocker_of_a_node_is_reported", "default/quorum-1"),
        ("everything_is_backed_off", "default/web-1"),
        ("nothing_is_launched_while_paused", "default/web-1"),
        ("one_decision_launches_no_more_than_max_step", "default/web-3"),
        ("pods_of_daemon_sets_fill_every_host_port", "default/web-1"),
        ("the_cluster_is_at_its_maximum", "default/web-3"),
        (
            "the_node_that_saves_most_per_moved_pod_is_drained",
            "default/web-3",
        ),
        ("zone_anti_affinity_with_more_pods_than_zones", "default/web-3"),
    ] {
        insta::assert_snapshot!(format!("why_{case}"), why(case, pod));
    }
}

#[test]
fn nodes_are_explained_with_every_blocker_in_figures() {
    for (case, node) in [
        ("a_cooldown_after_a_scale_up_holds_removals", "node-a"),
        ("a_node_is_replaced_by_a_cheaper_one", "node-a"),
        (
            "a_node_that_ec2_takes_for_maintenance_is_replaced_first",
            "node-a",
        ),
        ("a_node_that_is_unneeded_only_now_waits", "node-a"),
        ("every_blocker_of_a_node_is_reported", "node-a"),
        (
            "measured_usage_vetoes_a_removal_that_would_heat_the_rest",
            "node-a",
        ),
        ("nodes_that_are_not_ours_are_listed_but_stay", "stranger"),
        ("the_node_that_saves_most_per_moved_pod_is_drained", "node-a"),
    ] {
        insta::assert_snapshot!(format!("why_node_{case}"), why_node(case, node));
    }
}

/// The case's plan against that of another.
fn against(case: &str, other: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old.json");
    let mut before = args(other);
    before.output = Output::Json;
    fs::write(&old, printed(&before)).unwrap();
    let mut args = args(case);
    args.against = Some(old);
    printed(&args)
}

#[test]
fn two_plans_are_compared_piece_by_piece() {
    for (case, other) in [
        (
            "one_decision_launches_no_more_than_max_step",
            "the_cluster_is_at_its_maximum",
        ),
        (
            "every_blocker_of_a_node_is_reported",
            "a_disruption_budget_is_spent_only_once",
        ),
        (
            "a_hot_cluster_gets_the_fewest_nodes_that_cool_it",
            "exactly_the_threshold_adds_nothing",
        ),
        (
            "a_node_is_replaced_by_a_cheaper_one",
            "a_cooldown_after_a_scale_up_holds_removals",
        ),
    ] {
        insta::assert_snapshot!(format!("against_{case}"), against(case, other));
    }
    let same = against("an_empty_node_goes", "an_empty_node_goes");
    assert_eq!(same, "no difference: the plan is the same\n");
}

/// Blocks of `docs/reading-a-plan.md`: a comment names the case, the first line is the command, the rest what it prints.
/// `UPDATE_GOLDEN=1` writes them anew.
#[test]
fn the_documentation_shows_what_is_really_printed() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reading-a-plan.md");
    let text = fs::read_to_string(&page).unwrap();
    let mut updated = text.clone();
    let mut blocks = 0;
    for block in text.split("<!-- case: ").skip(1) {
        let (case, rest) = block.split_once(" -->").unwrap();
        let body = rest.split("```").nth(1).unwrap();
        let (command, shown) = body.trim_start_matches("console\n").split_once('\n').unwrap();
        let words: Vec<&str> = command.split(' ').collect();
        let option = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1).copied()
        };
        let mut args = args(case);
        args.why = option("--why")
            .map(|pod| pod.parse().unwrap())
            .into_iter()
            .collect();
        args.why_node = option("--why-node").map(Into::into).into_iter().collect();
        let said = match option("--against") {
            Some(_) => against(case, option("#").unwrap()),
            None => printed(&args),
        };
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            updated = updated.replace(block, &block.replacen(shown, &said, 1));
        } else {
            assert_eq!(shown, said, "{case}: `{command}`");
        }
        blocks += 1;
    }
    assert!(blocks > 3);
    if updated != text {
        fs::write(page, updated).unwrap();
    }
}
