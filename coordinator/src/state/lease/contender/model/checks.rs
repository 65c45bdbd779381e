//! What is checked, how far, and that a mistake would be noticed.
//!
//! The ignored ones look further and want an optimised build: `make model`.

use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model as _};

use super::{Setting, Settings, TICK, Wrong};

const ONE_LEADER: &str = "one leader at most";
const ONE_A_TERM: &str = "one leader a term, and terms rise";

/// Two contenders, two terms, and nothing that fails but calls that are refused and answers that are lost. The
/// lease lasts three ticks, the margin is one; whoever may look or renew may do so at any moment.
fn two() -> Setting {
    Setting {
        contenders: 2,
        times: Settings {
            lease: TICK * 3,
            renew: Duration::ZERO,
            margin: TICK,
            watch: Duration::ZERO,
            call: TICK,
        },
        terms: 2,
        late: 0,
        ends: 0,
        missed_ticks: 0,
        settles: false,
        wrong: Wrong::Nothing,
    }
}

/// Three of them, with as short a lease as they can have.
fn three() -> Setting {
    let mut setting = two();
    setting.contenders = 3;
    setting.times.lease = TICK * 2;
    setting
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
fn is_noticed(claim: &'static str, setting: Setting) {
    let refuted = HasDiscoveries::AnyOf([claim].into());
    let checker = setting.checker().finish_when(refuted).spawn_bfs().join();
    let path = checker.assert_any_discovery(claim).into_actions();
    println!("{claim}: refuted after {} steps: {path:?}", path.len());
}

#[test]
fn two_contenders_lead_one_at_a_time_whatever_is_late_lost_or_forgotten() {
    holds(Setting {
        late: 1,
        ends: 1,
        ..two()
    });
}

#[test]
fn the_margin_covers_a_clock_that_goes_slower() {
    holds(Setting {
        missed_ticks: 1,
        ..two()
    });
}

#[test]
fn from_wherever_it_is_somebody_comes_to_lead_once_nothing_fails() {
    holds(Setting {
        late: 1,
        settles: true,
        ..two()
    });
}

#[test]
fn three_contenders_lead_one_at_a_time() {
    holds(Setting { terms: 1, ..three() });
}

#[test]
#[ignore = "wants an optimised build: make model"]
fn two_contenders_lead_one_at_a_time_through_three_terms() {
    holds(Setting {
        terms: 3,
        late: 1,
        ends: 1,
        ..two()
    });
}

#[test]
#[ignore = "wants an optimised build: make model"]
fn two_contenders_lead_one_at_a_time_with_everything_that_can_fail() {
    let mut setting = Setting {
        late: 1,
        ends: 1,
        missed_ticks: 1,
        settles: true,
        ..two()
    };
    setting.times.lease = TICK * 4;
    holds(setting);
}

#[test]
#[ignore = "wants an optimised build: make model"]
fn three_contenders_lead_one_at_a_time_through_two_terms() {
    holds(Setting { terms: 2, ..three() });
}

#[test]
fn two_missed_ticks_are_more_than_the_margin_covers() {
    let missed_ticks = 2;
    is_noticed(
        ONE_LEADER,
        Setting {
            missed_ticks,
            ..two()
        },
    );
}

#[test]
fn a_lease_that_counts_from_the_answer_is_noticed() {
    let wrong = Wrong::CountedFromTheAnswer;
    is_noticed(ONE_LEADER, Setting { wrong, ..two() });
}

#[test]
fn a_store_that_expects_nothing_is_noticed() {
    let wrong = Wrong::NothingExpected;
    is_noticed(ONE_A_TERM, Setting { wrong, ..two() });
}

#[test]
fn renewals_that_look_alike_are_noticed() {
    let wrong = Wrong::RvnsRepeat;
    is_noticed(ONE_LEADER, Setting { wrong, ..two() });
}

#[test]
fn a_row_that_says_less_than_its_holder_takes_is_noticed() {
    let wrong = Wrong::RowSaysLess;
    is_noticed(ONE_LEADER, Setting { wrong, ..two() });
}

#[test]
fn a_restarted_contender_that_trusts_its_name_is_noticed() {
    let wrong = Wrong::NameIsEnough;
    let ends = 1;
    is_noticed(ONE_A_TERM, Setting { ends, wrong, ..two() });
}
