//! The catalogue of decisions: a folder a case below `tests/cases`, named after what it shows.
//!
//! `cluster.yaml`, `policy.toml` and, where they matter, `metrics.json` and `state.json` are what `smartscale plan` reads;
//! `plan.json` is what it answers at 2026-01-02T03:04:05Z. After a wanted change: `UPDATE_GOLDEN=1 cargo test -p
//! smartscale-planner --test golden`, then read the difference.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

#[path = "../support/mod.rs"]
mod support;
mod words;

use std::{collections::BTreeSet, fs};

use serde::Serialize;
use smartscale_planner::{Action, BlockerCode, Hold, PendingCode, Plan, RemovalReason, RuleName, fixtures};

#[test]
fn every_case_is_decided_as_written_down() {
    let cases = support::cases();
    let mut wrong = Vec::new();
    for case in &cases {
        let (mut snapshot, policy) = support::case(case);
        let plan = smartscale_planner::plan(&snapshot, &policy, fixtures::now());
        let json = serde_json::to_string_pretty(&plan).unwrap() + "\n";

        // Order of the input is of no importance.
        let cluster = &mut snapshot.cluster;
        cluster.nodes.reverse();
        cluster.pods.reverse();
        cluster.daemon_sets.reverse();
        cluster.disruption_budgets.reverse();
        snapshot.metrics.cluster.reverse();
        snapshot.state.launching.reverse();
        assert_eq!(
            smartscale_planner::plan(&snapshot, &policy, fixtures::now()),
            plan,
            "{}",
            case.display()
        );

        let golden = case.join("plan.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &json).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if expected != json {
            wrong.push(format!("{}:\n{json}", case.display()));
        } else {
            let read: Plan = serde_json::from_str(&expected).unwrap();
            assert_eq!(serde_json::to_string_pretty(&read).unwrap() + "\n", expected);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_word_that_a_plan_can_say_has_a_case() {
    let plans: Vec<Plan> = support::cases()
        .iter()
        .map(|case| serde_json::from_str(&fs::read_to_string(case.join("plan.json")).unwrap()).unwrap())
        .collect();
    fn said<T: Serialize>(words: impl Iterator<Item = T>) -> BTreeSet<String> {
        let word = |word: T| serde_json::to_value(word).unwrap().as_str().unwrap().to_owned();
        words.map(word).collect()
    }
    let pending = plans.iter().flat_map(|plan| &plan.pods.pending);
    let blockers = plans
        .iter()
        .flat_map(|plan| &plan.nodes)
        .flat_map(|node| &node.blockers);
    let removals = plans.iter().flat_map(|plan| &plan.remove);
    let rules = plans.iter().flat_map(|plan| &plan.rules);
    let all = [
        (words::of::<Action>(), said(plans.iter().map(|plan| plan.action))),
        (words::of::<PendingCode>(), said(pending.map(|pod| pod.code))),
        (
            words::of::<BlockerCode>(),
            said(blockers.map(|blocker| blocker.code)),
        ),
        (
            words::of::<RemovalReason>(),
            said(removals.map(|removal| removal.reason)),
        ),
        (
            words::of::<Hold>(),
            said(plans.iter().flat_map(|plan| &plan.held_by)),
        ),
        (
            words::of::<RuleName>(),
            said(rules.filter(|rule| rule.fired).map(|rule| rule.rule)),
        ),
    ];
    for (words, said) in all {
        let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
        assert!(missing.is_empty(), "no case says {missing:?}");
    }
}
