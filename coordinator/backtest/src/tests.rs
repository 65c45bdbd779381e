#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
//! The model against miniature histories that were computed by hand: a test for every rule of it.
//!
//! Unless a test says otherwise a node holds two pods and costs 240 USD an hour, which is 1 USD a tick; a pod serves 10 requests
//! a minute and is meant to serve all of them; nodes boot for 30 s (2 ticks) and drain for 30 s; pods start in one tick.

use std::collections::BTreeSet;

use super::*;
use crate::{
    decide::Decider,
    tick::Tick,
    world::{Measured, NodeId, World},
};
use smartscale_planner::model::Market;

const POLICY: &str = "[cluster]\nid = \"c\"\n[limits]\nmin_nodes = 1\nmax_nodes = 10\n
[[pool]]\nname = \"w\"\nzones = [\"us-east-1a\", \"us-east-1b\"]\ninstance_types = [\"m\"]\n
[[instance_type]]\nname = \"m\"\ncpu = \"1\"\nmemory = \"4Gi\"\non_demand_price = 240.0\nspot_price = 120.0\n";

const WORKLOAD: &str = "[workload]\nrequests_per_pod = 10.0\ntarget_utilization = 1.0\nmin_pods = 1\ncpu = \"500m\"\nmemory = \"1Gi\"\n
[cloud]\nboot = \"30s\"\n";

/// A history of rows of 15 s, each with the demand of a minute.
fn trace(demands: &[u32]) -> Trace {
    let mut text = "time,requests\n".to_owned();
    let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    for (index, demand) in demands.iter().enumerate() {
        let time = Tick(u32::try_from(index).unwrap()).time(start);
        text += &format!("{time},{}\n", f64::from(*demand) / 4.0);
    }
    Trace::from_csv(text.as_bytes()).unwrap()
}

fn policy(text: &str) -> Policy {
    Policy::from_toml(text).unwrap().0
}

/// What somebody does at a tick.
enum Do {
    Launch,
    /// The n-th node, in the order of launches.
    Remove(u32),
    /// Scale-ins empty it first.
    Mark(u32),
}

/// Does what it is told, and notes what was measured.
struct Script(Vec<(u32, Do)>);

impl Decider for Script {
    fn decide(&mut self, world: &mut World<'_>) -> bool {
        let mut acted = false;
        for (at, what) in &self.0 {
            if *at != world.now().0 {
                continue;
            }
            match what {
                Do::Launch => {
                    let zone = "us-east-1a".into();
                    acted |= world.launch(0, &zone, Market::OnDemand).is_ok();
                }
                Do::Remove(node) => {
                    world.remove(NodeId(*node));
                    acted = true;
                }
                Do::Mark(node) => world.mark(vec![NodeId(*node)]),
            }
        }
        acted
    }
}

#[derive(Default)]
struct Ticks(Vec<Measured>);

impl series::Recorder for Ticks {
    fn record(&mut self, _: Tick, measured: &Measured, _: Option<Forecast>) {
        self.0.push(*measured);
    }
    fn finish(&mut self) {}
}

/// What every tick of a scripted run was like, and what it came to.
fn scripted(
    demands: &[u32],
    workload: &str,
    nodes: usize,
    script: Vec<(u32, Do)>,
) -> (Vec<Measured>, Totals) {
    let (policy, workload, trace) = (
        policy(POLICY),
        Workload::from_toml(workload).unwrap(),
        trace(demands),
    );
    let scenery = Scenery {
        policy: &policy,
        workload: &workload,
        kinds: kinds::all(&policy, &workload),
        start: trace.start(),
        chance: Chance(1),
    };
    let nodes = vec![(0, Market::OnDemand); nodes];
    let mut ticks = Ticks::default();
    let totals = replay::run(&scenery, &trace, &nodes, &mut Script(script), |_| {}, &mut ticks);
    (ticks.0, totals)
}

fn each<T>(ticks: &[Measured], of: impl Fn(&Measured) -> T) -> Vec<T> {
    ticks.iter().map(of).collect()
}

#[test]
fn what_was_wanted_is_wanted_for_twenty_ticks() {
    let mut demands = vec![10; 30];
    demands[2] = 40;
    let (ticks, _) = scripted(&demands, WORKLOAD, 2, Vec::new());
    let wanted = each(&ticks, |tick| tick.wanted);
    assert_eq!(wanted[..2], [1, 1]);
    assert_eq!(wanted[2..22], [4; 20]);
    assert_eq!(wanted[22..], [1; 8]);
}

#[test]
fn at_the_first_tick_nodes_are_ready_and_their_pods_serve() {
    let (ticks, totals) = scripted(&[40, 40], WORKLOAD, 2, Vec::new());
    assert_eq!(
        each(&ticks, |tick| (tick.serving, tick.pending, tick.ready)),
        [(4, 0, 2); 2]
    );
    assert_eq!(
        (totals.launches, totals.decisions, totals.terminations),
        (0, 0, 0)
    );
}

#[test]
fn a_pod_serves_once_it_has_started_and_a_node_takes_pods_once_it_has_booted() {
    // At tick 1 two pods more are wanted; the node that is launched then is Ready at tick 3, its pods serve at tick 4.
    let (ticks, totals) = scripted(&[20, 40, 40, 40, 40, 40], WORKLOAD, 1, vec![(1, Do::Launch)]);
    assert_eq!(each(&ticks, |tick| tick.pending), [0, 2, 2, 0, 0, 0]);
    assert_eq!(each(&ticks, |tick| tick.serving), [2, 2, 2, 2, 4, 4]);
    assert_eq!(each(&ticks, |tick| tick.ready), [1, 1, 1, 2, 2, 2]);
    assert_eq!(each(&ticks, |tick| tick.billed), [1, 2, 2, 2, 2, 2]);
    assert_eq!(totals.pending_pod_seconds, 60.0);
    assert_eq!((totals.launches, totals.decisions, totals.peak_nodes), (1, 1, 2));
    assert_eq!(totals.cost_usd, 11.0);
    // Ticks 1 to 3 are short by 20 a minute: three quarters of a minute of it, all in one minute but the last.
    assert_eq!((totals.shortfall_minutes, totals.unserved_requests), (1, 15.0));
}

#[test]
fn pods_that_start_at_once_serve_in_the_tick_they_are_bound_in() {
    let workload = WORKLOAD.replace("[cloud]", "pod_start = \"0s\"\n[cloud]");
    let (ticks, totals) = scripted(&[10, 20, 20], &workload, 1, Vec::new());
    assert_eq!(each(&ticks, |tick| tick.serving), [1, 2, 2]);
    assert_eq!(totals.shortfall_minutes, 0);
}

#[test]
fn an_empty_node_ends_at_once_and_is_billed_for_a_minute_at_least() {
    // Launched at tick 1 and removed at tick 2, while it boots: billed until tick 5.
    let (ticks, totals) = scripted(&[10; 8], WORKLOAD, 1, vec![(1, Do::Launch), (2, Do::Remove(1))]);
    assert_eq!(each(&ticks, |tick| tick.billed), [1, 2, 2, 2, 2, 1, 1, 1]);
    assert_eq!(
        (totals.terminations, totals.evictions, totals.cost_usd),
        (1, 0, 12.0)
    );
    // An old one is billed to the tick before its end.
    let (ticks, totals) = scripted(&[10; 8], WORKLOAD, 2, vec![(6, Do::Remove(1))]);
    assert_eq!(each(&ticks, |tick| tick.billed), [2, 2, 2, 2, 2, 2, 1, 1]);
    assert_eq!(totals.cost_usd, 14.0);
}

#[test]
fn a_bill_stops_with_the_history() {
    let (_, totals) = scripted(&[10; 3], WORKLOAD, 1, vec![(2, Do::Launch)]);
    assert_eq!((totals.cost_usd, totals.terminations), (4.0, 0));
    let (_, totals) = scripted(&[10; 3], WORKLOAD, 1, vec![(1, Do::Launch), (2, Do::Remove(1))]);
    assert_eq!((totals.cost_usd, totals.terminations), (5.0, 1));
}

#[test]
fn a_node_with_pods_is_billed_while_it_drains_and_its_pods_wait_in_the_same_tick() {
    // Four pods on two nodes; node 1 goes at tick 5 and is billed at ticks 5 and 6.
    let (ticks, totals) = scripted(&[40; 9], WORKLOAD, 2, vec![(5, Do::Remove(1))]);
    assert_eq!(each(&ticks, |tick| tick.billed), [2, 2, 2, 2, 2, 2, 2, 1, 1]);
    assert_eq!(each(&ticks, |tick| tick.ready), [2, 2, 2, 2, 2, 1, 1, 1, 1]);
    assert_eq!(each(&ticks, |tick| tick.pending), [0, 0, 0, 0, 0, 2, 2, 2, 2]);
    assert_eq!(each(&ticks, |tick| tick.serving), [4, 4, 4, 4, 4, 2, 2, 2, 2]);
    assert_eq!((totals.evictions, totals.terminations), (2, 1));
}

#[test]
fn pods_of_a_removed_node_take_room_elsewhere_in_the_same_tick() {
    let (ticks, totals) = scripted(&[20; 8], WORKLOAD, 2, vec![(5, Do::Remove(0))]);
    // Both were on the older node; they serve again a tick after they were bound.
    assert_eq!(
        each(&ticks, |tick| (tick.pending, tick.serving))[4..],
        [(0, 2), (0, 0), (0, 2), (0, 2)]
    );
    assert_eq!(totals.evictions, 2);
}

#[test]
fn pods_fill_the_fullest_node_and_among_equals_the_oldest() {
    // Two pods on three nodes: both are on the first.
    let remove = |node| {
        scripted(&[20; 3], WORKLOAD, 3, vec![(1, Do::Remove(node))])
            .1
            .evictions
    };
    assert_eq!([remove(0), remove(1), remove(2)], [2, 0, 0]);
    // A third one is on the second.
    let remove = |node| {
        scripted(&[30; 3], WORKLOAD, 3, vec![(1, Do::Remove(node))])
            .1
            .evictions
    };
    assert_eq!([remove(0), remove(1), remove(2)], [2, 1, 0]);
}

#[test]
fn surplus_leaves_what_waits_first_then_the_fullest_and_youngest_node() {
    let mut demands = vec![50; 2];
    demands.extend([10; 22]);
    // Five pods, room for four: one waits. From tick 21 on one is wanted: the one that waits goes; then the youngest of the two
    // full nodes, then the older one that is fuller now, then the younger one again.
    let at = |ticks: u32| {
        let remove = |node| {
            scripted(&demands, WORKLOAD, 2, vec![(ticks, Do::Remove(node))])
                .1
                .evictions
        };
        [remove(0), remove(1)]
    };
    assert_eq!(at(20), [2, 2]);
    assert_eq!(at(21), [1, 0]);
}

#[test]
fn surplus_leaves_the_marked_node_first() {
    let mut demands = vec![40; 2];
    demands.extend([20; 22]);
    let evicted = |script: Vec<(u32, Do)>| scripted(&demands, WORKLOAD, 2, script).1.evictions;
    // Unmarked, both nodes keep one.
    assert_eq!(evicted(vec![(22, Do::Remove(0))]), 1);
    assert_eq!(evicted(vec![(3, Do::Mark(0)), (22, Do::Remove(0))]), 0);
    assert_eq!(evicted(vec![(3, Do::Mark(0)), (22, Do::Remove(1))]), 2);
}

#[test]
fn a_stock_out_costs_nothing_and_is_no_launch() {
    let out = WORKLOAD.to_owned()
        + "stockouts = [{ zone = \"us-east-1a\", from = \"2026-01-01T00:00:15Z\", until = \"2026-01-01T00:00:30Z\" }]\n";
    let (ticks, totals) = scripted(&[10; 4], &out, 1, vec![(1, Do::Launch), (2, Do::Launch)]);
    assert_eq!(each(&ticks, |tick| tick.billed), [1, 1, 2, 2]);
    assert_eq!((totals.launches, totals.decisions), (1, 1));
}

#[test]
fn an_interruption_is_a_removal_that_nobody_chose() {
    let spot = POLICY.replace("[[instance_type]]", "markets = [\"spot\"]\n[[instance_type]]");
    let often = WORKLOAD.to_owned() + "spot_interruptions_per_node_day = 2000.0\n";
    let (policy, workload, trace) = (
        policy(&spot),
        Workload::from_toml(&often).unwrap(),
        trace(&[40; 400]),
    );
    let run = |seed| {
        let backtest = Backtest {
            trace: &trace,
            policy: &policy,
            workload: &workload,
            seed,
        };
        backtest.run(&Rival::ALL.into()).unwrap()
    };
    let outcome = run(1);
    assert!(outcome.policy.evictions > 0 && outcome.policy.terminations > 0);
    // Its nodes came back each time: a removal by nobody is no decision, a launch for those who wait is.
    assert!(outcome.policy.launches >= outcome.policy.terminations);
    let fixed = outcome.rival(Rival::Fixed).unwrap();
    assert_eq!((fixed.terminations, fixed.evictions), (0, 0), "spared by luck");
    assert_eq!(run(1), outcome);
    assert_ne!(run(2), outcome);
}

/// The history and workload that the repository carries.
fn nasa(file: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    std::fs::read_to_string(folder.join(file)).unwrap()
}

#[test]
fn on_a_real_month_thresholds_cost_two_fifths_more_than_the_oracle() {
    let (policy, workload) = (
        policy(&nasa("policy-thresholds.toml")),
        Workload::from_toml(&nasa("workload-nasa.toml")).unwrap(),
    );
    let trace = Trace::from_csv(nasa("nasa-http-1995-07.csv").as_bytes()).unwrap();
    let rehearsal = Rehearsal::new(&trace, &policy, &workload, 1).unwrap();
    let fixed = rehearsal.fixed(&mut ());
    let oracle = rehearsal.oracle(&fixed);
    let thresholds = rehearsal.thresholds(&mut ());
    assert_eq!((fixed.shortfall_minutes, fixed.peak_nodes), (763, 42));
    assert_eq!((thresholds.shortfall_minutes, thresholds.evictions), (772, 651));
    let cents = |totals: &Totals| (totals.cost_usd * 100.0).round();
    assert_eq!(
        [&fixed, &oracle, &thresholds].map(cents),
        [113_219.0, 19_715.0, 27_625.0]
    );
}

fn backtest(policy_text: &str, demands: &[u32]) -> Outcome {
    let (policy, workload, trace) = (
        policy(policy_text),
        Workload::from_toml(WORKLOAD).unwrap(),
        trace(demands),
    );
    let backtest = Backtest {
        trace: &trace,
        policy: &policy,
        workload: &workload,
        seed: 1,
    };
    backtest.run(&Rival::ALL.into()).unwrap()
}

#[test]
fn the_fixed_fleet_has_the_nodes_of_the_peak_all_the_time_and_is_short_while_pods_start() {
    let fixed = *backtest(POLICY, &[10, 10, 60, 60]).rival(Rival::Fixed).unwrap();
    assert_eq!((fixed.cost_usd, fixed.peak_nodes), (12.0, 3));
    assert_eq!((fixed.shortfall_minutes, fixed.unserved_requests), (1, 12.5));
    assert_eq!(fixed.pending_pod_seconds, 0.0);
}

#[test]
fn the_oracle_has_what_is_wanted_until_a_launch_would_be_ready() {
    // Wanted: 1 1 1 1 6 6. From tick 2 on the six of tick 4 are in reach.
    let oracle = *backtest(POLICY, &[10, 10, 10, 10, 60, 60])
        .rival(Rival::Oracle)
        .unwrap();
    assert_eq!((oracle.cost_usd, oracle.peak_nodes), (2.0 + 4.0 * 3.0, 3));
    assert_eq!(
        (oracle.launches, oracle.evictions, oracle.pending_pod_seconds),
        (0, 0, 0.0)
    );
}

#[test]
fn thresholds_decide_every_two_minutes_by_that_tick() {
    // Six pods are wanted and two have room: +2 at the first decision, tick 8, Ready at tick 10.
    let mut demands = vec![20];
    demands.extend([60; 20]);
    let thresholds = *backtest(POLICY, &demands).rival(Rival::Thresholds).unwrap();
    assert_eq!((thresholds.launches, thresholds.decisions), (2, 1));
    assert_eq!(thresholds.cost_usd, 21.0 + 2.0 * 13.0);
    assert_eq!(thresholds.pending_pod_seconds, 4.0 * 15.0 * 9.0);
}

#[test]
fn thresholds_take_the_emptiest_node_after_ten_minutes_below() {
    // Three full nodes for five minutes: above at ticks 8 and 16, +1. Then hardly anything: below from tick 24 on; ten minutes
    // later, at tick 64, one node goes, and one more at tick 104.
    let mut demands = vec![60; 21];
    demands.extend([1; 100]);
    let thresholds = *backtest(POLICY, &demands).rival(Rival::Thresholds).unwrap();
    assert_eq!(
        (thresholds.launches, thresholds.terminations, thresholds.decisions),
        (1, 2, 3)
    );
    assert_eq!(thresholds.cost_usd, 121.0 * 3.0 + (64.0 - 16.0) - (121.0 - 104.0));
}

#[test]
fn pods_that_wait_are_given_a_node_at_once_by_the_policy() {
    let mut demands = vec![20];
    demands.extend([40; 10]);
    let outcome = backtest(POLICY, &demands);
    // Launched at tick 1, Ready at tick 3.
    assert_eq!((outcome.policy.launches, outcome.policy.decisions), (1, 1));
    assert_eq!(outcome.policy.pending_pod_seconds, 2.0 * 2.0 * 15.0);
    assert_eq!(outcome.policy.cost_usd, 21.0);
}

#[test]
fn the_policy_removes_what_has_been_unneeded_for_as_long_as_it_says() {
    let fits = POLICY.replace(
        "[[pool]]",
        "[scale_down]\nwhen = \"fits\"\nsustained = \"2m\"\ncooldown = \"0s\"\nmin_age = \"0s\"\n[[pool]]",
    );
    let mut demands = vec![40; 4];
    demands.extend([10; 60]);
    let outcome = backtest(&fits, &demands);
    // Wanted falls to one at tick 23, which empties the younger node; it has been unneeded for 8 ticks at tick 31.
    assert_eq!((outcome.policy.terminations, outcome.policy.evictions), (1, 0));
    assert_eq!(outcome.policy.cost_usd, 64.0 + 31.0);
}

#[test]
fn nodes_of_a_schedule_are_there_when_its_window_begins() {
    // Two nodes more are wanted from 00:05 on, tick 20. They boot for two ticks.
    let schedule = "[[schedule]]\ncron = \"5 0 * * *\"\nduration = \"10m\"\nlead = \"30s\"\nmin_nodes = 3\n";
    let demands: Vec<u32> = [20; 20].into_iter().chain([60; 20]).collect();
    let policy = POLICY.replace("[[pool]]", "[scale_up]\ncpu_percent = 100\n[[pool]]");
    let known = backtest(&(policy.clone() + schedule), &demands).policy;
    assert_eq!((known.launches, known.pending_pod_seconds), (2, 0.0));
    assert_eq!(known.cost_usd, 18.0 + 22.0 * 3.0);
    let unknown = backtest(&policy, &demands).policy;
    assert_eq!(
        (unknown.launches, unknown.pending_pod_seconds),
        (2, 2.0 * 4.0 * 15.0)
    );
}

#[test]
fn a_guarded_drain_leaves_enough_pods_that_serve() {
    let run = |guard: u32| {
        let down = format!(
            "[scale_up]\ncpu_percent = 100\n[scale_down]\nwhen = \"fits\"\nsustained = \"1m\"\ncooldown = \"0s\"\n\
             min_age = \"0s\"\nguard_percent = {guard}\n[[pool]]"
        );
        let (policy, workload) = (
            policy(&POLICY.replace("[[pool]]", &down)),
            Workload::from_toml(&WORKLOAD.replace("min_pods = 1", "min_pods = 3")).unwrap(),
        );
        // Six pods on three nodes, then three, one on each: at 30 all of them are needed, at 18 two would do.
        let demands: Vec<u32> = [[60; 40], [30; 40], [18; 40]].concat();
        let trace = trace(&demands);
        let backtest = Backtest {
            trace: &trace,
            policy: &policy,
            workload: &workload,
            seed: 1,
        };
        backtest.run(&BTreeSet::new()).unwrap().policy
    };
    let (hasty, guarded) = (run(0), run(110));
    assert_eq!((hasty.evictions, hasty.shortfall_minutes), (1, 1));
    assert_eq!((guarded.evictions, guarded.shortfall_minutes), (1, 0));
    assert!(guarded.cost_usd > hasty.cost_usd, "it goes later");
}

#[test]
fn a_run_on_a_prefix_is_the_prefix_of_the_run_on_the_whole() {
    // Jagged, with a peak at its end that nobody may foresee.
    let demands: Vec<u32> = (0..400)
        .map(|tick| 10 + (tick * 37 % 91) + if tick > 300 { 100 } else { 0 })
        .collect();
    let fits = POLICY.replace(
        "[[pool]]",
        "[scale_down]\nwhen = \"fits\"\nsustained = \"1m\"\ncooldown = \"1m\"\nmin_age = \"0s\"\n[[pool]]",
    );
    for text in [POLICY, &fits] {
        let (policy, workload, whole) = (
            policy(text),
            Workload::from_toml(WORKLOAD).unwrap(),
            trace(&demands),
        );
        let run = |trace: &Trace| {
            let backtest = Backtest {
                trace,
                policy: &policy,
                workload: &workload,
                seed: 1,
            };
            backtest.run(&BTreeSet::new()).unwrap().series.minutes
        };
        let all = run(&whole);
        for rows in [8, 100, 240, 300] {
            let minutes = run(&whole.prefix(rows));
            assert_eq!(minutes, all[..rows / 4], "{rows} rows");
        }
    }
}

#[test]
fn cost_and_shortfall_come_out_of_the_series() {
    let demands: Vec<u32> = (0..800).map(|tick| 10 + tick * 53 % 171).collect();
    let outcome = backtest(POLICY, &demands);
    let minutes = &outcome.series.minutes;
    let cost: f64 = minutes.iter().map(|minute| minute.cost_per_hour / 60.0).sum();
    assert!((cost / outcome.policy.cost_usd - 1.0).abs() < 1e-9);
    let short = minutes.iter().filter(|minute| minute.short).count();
    assert_eq!(short as u64, outcome.policy.shortfall_minutes);
    let hours: f64 = minutes.iter().map(|minute| minute.nodes_billed / 60.0).sum();
    assert!((hours / outcome.policy.node_hours - 1.0).abs() < 1e-9);
}

/// Four pods wanted for so many minutes, and a peak of eight every ten.
fn peaks(minutes: u32) -> Vec<u32> {
    let ticks = 0..minutes * 4;
    ticks.map(|tick| if tick % 40 == 0 { 80 } else { 40 }).collect()
}

#[test]
fn the_series_has_what_was_forecast_in_pods_once_enough_was_seen() {
    let text = POLICY.replace("[[pool]]", "[forecast]\nenabled = true\n[[pool]]");
    let minutes = backtest(&text, &peaks(120)).series.minutes;
    assert!(minutes[..30].iter().all(|minute| minute.forecast.is_none()));
    for minute in &minutes[60..] {
        let Forecast { median, high } = minute.forecast.unwrap();
        assert!(
            (3.0..=10.0).contains(&median) && median <= high && high <= 12.0,
            "{minute:?}"
        );
    }
}

#[test]
fn without_a_forecast_the_series_has_none() {
    let minutes = backtest(POLICY, &peaks(120)).series.minutes;
    assert!(minutes.iter().all(|minute| minute.forecast.is_none()));
}

#[test]
fn a_run_with_a_forecast_comes_to_the_same_whether_somebody_looks_on_or_not() {
    let text = POLICY.replace("[[pool]]", "[forecast]\nenabled = true\n[[pool]]");
    let (policy, workload, trace) = (
        policy(&text),
        Workload::from_toml(WORKLOAD).unwrap(),
        trace(&peaks(120)),
    );
    let run = |keep_series| {
        let backtests = Backtests {
            trace: &trace,
            policies: std::slice::from_ref(&policy),
            workload: &workload,
            seed: 1,
            keep_series,
        };
        let outcome = backtests.run(&BTreeSet::new(), &backtests.progress()).remove(0);
        let Outcome { policy, series, .. } = outcome.unwrap();
        (policy, series.minutes.len())
    };
    let (kept, none) = (run(true), run(false));
    assert_eq!((kept.0, kept.1, none.1), (none.0, 120, 0));
}

#[test]
fn the_series_has_a_row_a_minute_in_the_offset_of_the_first_row() {
    let text = "time,requests\n2026-01-01T00:00:30+02:00,20\n2026-01-01T00:01:30+02:00,40\n2026-01-01T00:04:30+02:00,60\n";
    let trace = Trace::from_csv(text.as_bytes()).unwrap();
    let (policy, workload) = (policy(POLICY), Workload::from_toml(WORKLOAD).unwrap());
    let backtest = Backtest {
        trace: &trace,
        policy: &policy,
        workload: &workload,
        seed: 1,
    };
    let mut csv = Vec::new();
    backtest
        .run(&BTreeSet::new())
        .unwrap()
        .series
        .write_csv(&mut csv)
        .unwrap();
    let csv = String::from_utf8(csv).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(
        lines[0],
        "time,requests,pods_wanted,pods_serving,pods_pending,nodes_ready,nodes_billed,cost_per_hour"
    );
    assert_eq!(lines[1], "2026-01-01T00:00:30+02:00,20,2,2,0,1,1,240");
    assert_eq!(lines[2], "2026-01-01T00:01:30+02:00,40,4,2,2,2,2,480");
    // Minutes 3 and 4 are a gap: nobody asks for anything, and what was wanted is wanted for five minutes.
    assert_eq!(lines[3], "2026-01-01T00:02:30+02:00,0,4,4,0,2,2,480");
    assert_eq!(lines.len(), 6);
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(40))]
    #[test]
    fn no_bytes_break_a_reader(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        cells in proptest::collection::vec("[-0-9TZ:.,e+\"\\n ]{0,30}", 0..12),
    ) {
        let _ = Trace::from_csv(&*bytes);
        let _ = Workload::from_toml(&String::from_utf8_lossy(&bytes));
        let text = "time,requests\n".to_owned() + &cells.join(",");
        let _ = Trace::from_csv(text.as_bytes());
    }

    /// What is not planned anew would have been planned alike.
    #[test]
    fn plans_that_are_left_out_would_have_done_nothing(
        demands in proptest::collection::vec(0_u32..120, 60..300),
        calm in 1_usize..12,
        fits in proptest::bool::ANY,
        steer in proptest::bool::ANY,
        sustained in 0_u32..5,
        cooldown in 0_u32..4,
        min_age in 0_u32..4,
        up in 30_u32..90,
        guarded in proptest::bool::ANY,
        spot in proptest::bool::ANY,
    ) {
        let when = if fits { "fits" } else { "thresholds" };
        let markets = if spot { "markets = [\"spot\", \"on-demand\"]\nspot_share_percent = 50\n" } else { "" };
        let text = POLICY
            .replace(
                "[[pool]]",
                &format!(
                    "[scale_up]\ncpu_percent = {up}\ncooldown = \"{cooldown}m\"\n[scale_down]\nwhen = \"{when}\"\nsteer = {steer}\n\
                     cpu_percent = 25\nmemory_percent = 60\nsustained = \"{}s\"\ncooldown = \"{cooldown}m\"\nmin_age = \"{min_age}m\"\n\
                     guard_percent = {}\n[[pool]]",
                    sustained * 35,
                    u32::from(guarded) * 110
                ),
            )
            .replace("[[instance_type]]", &format!("{markets}[[instance_type]]"));
        let cloud = "stockouts = [{ market = \"spot\", from = \"2026-01-01T00:05:00Z\", until = \"2026-01-01T00:20:00Z\" }]\n\
                     spot_interruptions_per_node_day = 40.0\nboot_jitter = \"20s\"\n";
        let (policy, workload) = (policy(&text), Workload::from_toml(&(WORKLOAD.to_owned() + cloud)).unwrap());
        // The same demand for a while, so that there is something to leave out.
        let demands: Vec<u32> = demands.iter().flat_map(|demand| std::iter::repeat_n(*demand, calm)).collect();
        let trace = trace(&demands);
        let rehearsal = Rehearsal::new(&trace, &policy, &workload, 1).unwrap();
        let run = |mut decider: ByPolicy<'_>| {
            let mut ticks = Ticks::default();
            let begin = rehearsal.begin();
            let totals = replay::run(&rehearsal.scenery, &trace, &begin, &mut decider, |_| {}, &mut ticks);
            (totals, ticks.0)
        };
        let decider = || ByPolicy::new(&policy, rehearsal.requests());
        proptest::prop_assert_eq!(run(decider()), run(decider().tireless()));
    }
}
