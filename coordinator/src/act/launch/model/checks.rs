//! What is checked, how far, and that a mistake would be noticed.

use stateright::{Checker, HasDiscoveries, Model as _};

use super::{Setting, Wrong};

fn setting() -> Setting {
    Setting {
        terms: 2,
        refusals: 1,
        faults: 2,
        wrong: Wrong::Nothing,
    }
}

/// Every reachable state is looked at.
fn holds(setting: Setting) {
    let checker = setting.checker().threads(2).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    let setting = checker.model();
    println!("{states} states, {depth} deep: {setting:?}");
    for (name, path) in checker.discoveries() {
        if setting.property(name).expectation.discovery_is_failure() {
            println!("{name}: {:#?}", path.into_actions());
        }
    }
    checker.assert_properties();
}

/// Breadth first: the shortest way to what must not be.
fn is_noticed(claim: &'static str, wrong: Wrong) {
    let refuted = HasDiscoveries::AnyOf([claim].into());
    let setting = Setting { wrong, ..setting() };
    let checker = setting.checker().finish_when(refuted).spawn_bfs().join();
    let path = checker.assert_any_discovery(claim).into_actions();
    println!("{claim}: refuted after {} steps: {path:?}", path.len());
}

#[test]
fn a_launch_that_is_taken_over_has_one_machine_and_right_books_whatever_is_lost_or_late() {
    holds(setting());
}

#[test]
#[ignore = "wants an optimised build: make model"]
fn a_launch_that_is_taken_over_twice_has_one_machine_and_right_books() {
    holds(Setting {
        terms: 3,
        ..setting()
    });
}

#[test]
#[ignore = "wants an optimised build: make model"]
fn a_launch_of_three_attempts_has_right_books() {
    holds(Setting {
        refusals: 2,
        ..setting()
    });
}

#[test]
fn a_token_for_each_call_is_noticed() {
    is_noticed("one machine for an attempt", Wrong::TokenPerCall);
}

#[test]
fn a_store_that_does_not_fence_is_noticed() {
    is_noticed("what has ended stays so", Wrong::NoFence);
}

#[test]
fn a_termination_that_is_not_journaled_is_noticed() {
    is_noticed("a launch that is done keeps its machines", Wrong::TerminatedFirst);
}

#[test]
fn a_call_before_its_entry_is_noticed() {
    is_noticed("no call without a journal entry before it", Wrong::CalledFirst);
}

#[test]
fn a_leader_that_never_reads_again_is_noticed() {
    is_noticed(
        "it ends once nothing fails, and the books are right",
        Wrong::NeverReadsAgain,
    );
}

#[test]
fn a_store_that_does_not_compare_versions_is_noticed() {
    is_noticed("what has ended stays so", Wrong::NoVersions);
}
