//! What is checked, how far, and that a mistake would be noticed.

use stateright::{Checker, HasDiscoveries, Model as _};

use super::{Setting, Wrong};

const ORDER: &str = "drained, terminated, forgotten: in that order";

fn setting() -> Setting {
    Setting {
        terms: 3,
        faults: 2,
        wrong: Wrong::Nothing,
    }
}

fn is_noticed(claim: &'static str, wrong: Wrong) {
    let refuted = HasDiscoveries::AnyOf([claim].into());
    let setting = Setting { wrong, ..setting() };
    let checker = setting.checker().finish_when(refuted).spawn_bfs().join();
    let path = checker.assert_any_discovery(claim).into_actions();
    println!("{claim}: refuted after {} steps: {path:?}", path.len());
}

#[test]
fn a_removal_goes_its_way_in_order_whoever_leads_and_whatever_is_lost_or_late() {
    let checker = setting().checker().threads(2).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{states} states, {depth} deep: {:?}", checker.model());
    checker.assert_properties();
}

#[test]
fn an_order_that_counts_as_the_machines_end_is_noticed() {
    is_noticed(ORDER, Wrong::OrderedIsGone);
}

#[test]
fn a_drain_that_is_not_over_is_noticed() {
    is_noticed(ORDER, Wrong::DrainedTooSoon);
}

#[test]
fn a_store_that_does_not_fence_is_noticed() {
    is_noticed(ORDER, Wrong::NoFence);
}

#[test]
fn a_store_that_does_not_compare_versions_is_noticed() {
    is_noticed(ORDER, Wrong::NoVersions);
}
