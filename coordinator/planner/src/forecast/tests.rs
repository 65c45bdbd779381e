#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{BootTimes, Demand, Expectation, Forecaster, Source, Terms, room_of_a_node};
use crate::{
    Snapshot, fixtures,
    model::{Bytes, MilliCpu, Resources, keys},
};

/// Nodes hold ten pods of a CPU; they boot in 90 s.
const TERMS: Terms = Terms {
    quantile: 0.9,
    max_extra: 0.5,
    boot: Duration::from_secs(90),
    node: 10_000.0,
    least: 0,
};

fn minute(number: i64) -> Timestamp {
    "2026-01-05T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_mins(number)
}

/// Of workloads without an autoscaler's delay: what they use is 70 % of what they request.
fn demand(pods: f64) -> Demand {
    Demand {
        requested: pods * 1000.0,
        waiting: 0.0,
        used: Some(pods * 700.0),
    }
}

fn after(minutes: impl IntoIterator<Item = f64>) -> Forecaster {
    let mut forecaster = Forecaster::default();
    for (number, pods) in (0..).zip(minutes) {
        forecaster.observe(minute(number), &demand(pods), &TERMS);
    }
    forecaster
}

/// A number that looks random, the same each time, in [0, 1).
fn scatter(number: i64) -> f64 {
    let mixed = (number.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 11;
    let mixed = (mixed ^ (mixed >> 21)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33;
    f64::from(u32::try_from(mixed % 10_000).unwrap()) / 10_000.0
}

#[test]
fn without_history_nothing_is_expected() {
    assert_eq!(Forecaster::default().expect(&TERMS).extra, 0.0);
    let scattered = |minutes| {
        (0..minutes)
            .map(|number| 10.0 + 30.0 * scatter(number))
            .chain([18.0])
    };
    assert_eq!(after(scattered(25)).expect(&TERMS).extra, 0.0);
    assert!(after(scattered(60)).expect(&TERMS).extra > 0.0);
}

#[test]
fn steady_demand_needs_no_more_than_it_asks_for() {
    let forecaster = after((0..600).map(|_| 15.0));
    assert_eq!(forecaster.expect(&TERMS).extra, 0.0);
}

#[test]
fn demand_that_scatters_is_given_room_for_where_it_often_goes() {
    // Between 10 and 40; at 18 now, two nodes' worth.
    let scattered = (0..1000)
        .map(|number| 10.0 + 30.0 * scatter(number))
        .chain([18.0]);
    let expected = after(scattered).expect(&TERMS);
    // Three nodes at least, four at most.
    assert!(
        expected.extra >= 12_000.0 && expected.extra <= 22_000.0,
        "{expected:?}"
    );
    assert!(expected.band.high > expected.band.median, "{expected:?}");
}

#[test]
fn the_floor_is_bounded_by_what_the_last_hour_asked_for() {
    // Every third minute ten times as much, until the last hour.
    let bursts = (0..3000).map(|number| if number % 3 == 0 { 200.0 } else { 20.0 });
    let mut forecaster = after(bursts);
    for number in 3000..3061 {
        forecaster.observe(minute(number), &demand(20.0), &TERMS);
    }
    let expected = forecaster.expect(&TERMS);
    // Two nodes for 20 pods, and one more.
    assert!(expected.extra <= 10_000.0, "{expected:?}");
}

#[test]
fn jumps_at_the_same_minute_of_every_hour_are_learnt() {
    let jumps = (0..2 * 24 * 60 + 59).map(|number: i64| {
        let mean = if number % 60 < 5 { 60.0 } else { 20.0 };
        mean + scatter(number)
    });
    let forecaster = after(jumps);
    // At 23:58, two minutes before the next.
    let expected = forecaster.expect(&TERMS);
    assert_eq!(expected.source, Source::Hour);
    assert!(expected.extra >= 10_000.0, "{expected:?}");
    assert!(expected.band.median > 50_000.0, "{expected:?}");
    assert!(forecaster.accuracy().helps);
}

#[test]
fn half_an_hour_after_a_step_down_nothing_is_expected_from_before_it() {
    let minutes = (0..2000).map(|number| if number < 1970 { 80.0 } else { 20.0 } + scatter(number));
    let expected = after(minutes).expect(&TERMS);
    assert!(expected.band.median < 25_000.0, "{expected:?}");
    assert_eq!(expected.extra, 0.0);
}

#[test]
fn a_forecast_that_was_worse_than_none_for_a_day_raises_nothing() {
    // Use wanders while requests stay as they are: what is expected of use never comes.
    let mut forecaster = Forecaster::default();
    for number in 0..5 {
        forecaster.observe(
            minute(number),
            &demand(15.0 + 5.0 * f64::from(i32::try_from(number).unwrap())),
            &TERMS,
        );
    }
    for number in 5..4000 {
        let wandering = Demand {
            requested: 31_000.0,
            waiting: 0.0,
            used: Some(16_000.0 + 25_000.0 * scatter(number)),
        };
        forecaster.observe(minute(number), &wandering, &TERMS);
    }
    let accuracy = forecaster.accuracy();
    assert!(accuracy.loss > accuracy.reactive_loss, "{accuracy:?}");
    assert!(!accuracy.helps);
    assert_eq!(forecaster.expect(&TERMS).extra, 0.0);
}

#[test]
fn a_fall_is_seen_in_what_is_used_before_requests_follow() {
    let mut forecaster = after((0..600).map(|number| 15.0 + 15.0 * scatter(number)));
    // The autoscaler holds 30 pods, but a third of them would do.
    for number in 600..640 {
        let held = Demand {
            requested: 30_000.0,
            waiting: 0.0,
            used: Some(7_000.0),
        };
        forecaster.observe(minute(number), &held, &TERMS);
    }
    let median = forecaster.expect(&TERMS).band.median;
    assert!(median < 20_000.0, "{median}");
}

#[test]
fn times_that_go_backwards_and_figures_that_are_none_change_nothing() {
    let mut forecaster = after((0..100).map(|number| 15.0 + 15.0 * scatter(number)));
    let before = forecaster.expect(&TERMS);
    forecaster.observe(minute(50), &demand(1000.0), &TERMS);
    let broken = Demand {
        requested: f64::NAN,
        ..demand(10.0)
    };
    forecaster.observe(minute(101), &broken, &TERMS);
    let infinite = Demand {
        used: Some(f64::INFINITY),
        ..demand(10.0)
    };
    forecaster.observe(minute(101), &infinite, &TERMS);
    assert_eq!(forecaster.expect(&TERMS), before);
}

#[test]
fn most_boots_are_over_within_the_time_that_is_reckoned_with() {
    let mut boots = BootTimes::default();
    assert_eq!(boots.most(), Duration::from_secs(120));
    for seconds in 1..=100 {
        boots.add(Duration::from_secs(seconds));
    }
    // Of the last 64: 37 to 100.
    assert_eq!(boots.most(), Duration::from_secs(94));
}

#[test]
fn a_node_has_room_for_as_many_pods_as_the_cheapest_for_each_holds() {
    let policy = fixtures::policy("");
    let pod = |cpu: i64, memory: i64| Resources {
        cpu: MilliCpu(cpu),
        memory: Bytes(memory << 20),
        pods: 1,
        ..Resources::default()
    };
    let room = room_of_a_node(&policy, &pod(250, 256)).unwrap();
    assert_eq!(room, 2000.0);
    assert_eq!(room_of_a_node(&policy, &pod(0, 256)), None);
    assert_eq!(room_of_a_node(&policy, &pod(1_000_000, 256)), None);
}

proptest! {
    #[test]
    fn whatever_was_observed_the_floor_is_finite_and_within_its_bound(
        minutes in prop::collection::vec((0.0_f64..1e6, 0.0_f64..2.0, 0.0_f64..1.0, 1_i64..90), 0..300),
        quantile in 0.5_f64..0.99,
    ) {
        let terms = Terms { quantile, ..TERMS };
        let mut forecaster = Forecaster::default();
        let mut at = 0;
        let mut lately: Vec<(i64, f64)> = Vec::new();
        for (requested, use_of_it, waits, gap) in minutes {
            at += gap;
            forecaster.observe(minute(at), &Demand {
                requested,
                waiting: requested * waits,
                used: Some(requested * use_of_it),
            }, &terms);
            lately.push((at, requested));
            let expected = forecaster.expect(&terms);
            prop_assert!(expected.extra.is_finite() && expected.extra >= 0.0);
            prop_assert!(expected.band.median <= expected.band.high);
            let last_hour = lately.iter().filter(|(seen, _)| *seen + 60 >= at);
            let most = last_hour.map(|(_, requested)| *requested).fold(0.0, f64::max);
            let nodes = (most / terms.node).ceil();
            prop_assert!(requested + expected.extra <= (nodes + (nodes * 0.5).floor().max(1.0)) * terms.node + 1e-6);
        }
    }
}

#[test]
fn what_was_kept_by_the_hour_is_known_again() {
    let minutes = |from: i64, until: i64| (from..until).map(|number| 10.0 + 30.0 * scatter(number));
    let whole = after(minutes(0, 3000));
    let first = minute(0).as_second().cast_unsigned() / 3600;
    let hours: Vec<_> = (first..first + 45).filter_map(|hour| whole.hour(hour)).collect();
    assert_eq!(hours.len(), 45);
    // A new leader has seen the last hours itself.
    let mut successor = Forecaster::default();
    for (number, pods) in (2600..).zip(minutes(2600, 3000)) {
        successor.observe(minute(number), &demand(pods), &TERMS);
    }
    let restored = successor.with_hours(hours, minute(3000), &TERMS).expect(&TERMS);
    let expected = whole.expect(&TERMS);
    assert!(
        (restored.band.median / expected.band.median - 1.0).abs() < 0.02,
        "{restored:?} {expected:?}"
    );
    assert!(
        (restored.band.high / expected.band.high - 1.0).abs() < 0.02,
        "{restored:?} {expected:?}"
    );
}

#[test]
fn hours_that_cannot_be_are_taken_without_harm() {
    let hour = |hour: u64, minutes: Vec<Option<u32>>| super::Hour {
        hour,
        share: Some(f64::NAN),
        minutes,
    };
    let odd = [
        hour(u64::MAX, vec![Some(u32::MAX); 3]),
        hour(0, vec![None; 500]),
        hour(5, vec![Some(1); 500]),
    ];
    let own = after((0..600).map(|number| 10.0 + 30.0 * scatter(number)));
    let expected = own.expect(&TERMS);
    let with_odd = own.with_hours(odd, minute(600), &TERMS).expect(&TERMS);
    assert!(
        (with_odd.band.median / expected.band.median - 1.0).abs() < 0.02,
        "{with_odd:?} {expected:?}"
    );
    assert!(
        (with_odd.band.high / expected.band.high - 1.0).abs() < 0.02,
        "{with_odd:?} {expected:?}"
    );
    assert!(
        (with_odd.extra - expected.extra).abs() <= 10_000.0,
        "{with_odd:?} {expected:?}"
    );
}

#[test]
fn demand_is_that_of_workloads_on_our_nodes_and_of_those_that_wait() {
    let nodes = [
        fixtures::node("a").cpu("4"),
        fixtures::node("server").cpu("4").without_label(keys::POOL),
    ];
    let pods = [
        fixtures::pod("default/web-1").cpu("500m").memory("256Mi").on("a"),
        fixtures::pod("default/web-2").cpu("1500m").memory("768Mi"),
        fixtures::pod("kube-system/agent")
            .cpu("300m")
            .owned_by("DaemonSet", "agent")
            .on("a"),
        fixtures::pod("default/elsewhere").cpu("2").on("server"),
    ];
    let mut snapshot = fixtures::snapshot(nodes, pods);
    let policy = fixtures::policy("");
    let now = fixtures::now();
    let (unknown, each) = Demand::of(&snapshot, &policy, now).unwrap();
    let each = each.unwrap();
    assert_eq!(
        (unknown.requested, unknown.waiting, unknown.used),
        (2000.0, 1500.0, None)
    );
    assert_eq!((each.cpu, each.memory), (MilliCpu(1000), Bytes(512 << 20)));
    let reading = fixtures::reading(&now.to_string(), 25.0, 10.0);
    snapshot.metrics.nodes.insert("a".into(), reading);
    let used = |snapshot: &Snapshot| Demand::of(snapshot, &policy, now).unwrap().0.used;
    // A quarter of the node, less what its DaemonSet's pod requests.
    assert_eq!(used(&snapshot), Some(700.0));
    // A node that has just joined says nothing yet.
    let joined = fixtures::node("b").cpu("4").build();
    snapshot.cluster.nodes.push(joined);
    assert_eq!(used(&snapshot), Some(1400.0));
    snapshot.cluster.nodes.pop();
    // What is kept from pods the system uses.
    snapshot.cluster.nodes[0].allocatable.cpu = MilliCpu(3800);
    assert_eq!(used(&snapshot), Some(500.0));
    snapshot.cluster.nodes[0].allocatable.cpu = MilliCpu(3000);
    assert_eq!(used(&snapshot), Some(0.0));
}

#[test]
fn workloads_that_are_scaled_to_none_ask_for_nothing_and_an_empty_cluster_says_nothing() {
    let agent = fixtures::pod("kube-system/agent")
        .cpu("300m")
        .owned_by("DaemonSet", "agent")
        .on("a");
    let mut snapshot = fixtures::snapshot([fixtures::node("a")], [agent]);
    let policy = fixtures::policy("");
    let of = |snapshot: &Snapshot| Demand::of(snapshot, &policy, fixtures::now());
    let nothing = Demand {
        used: Some(0.0),
        ..Demand::default()
    };
    assert_eq!(of(&snapshot), Some((nothing, None)));
    snapshot.cluster.nodes.clear();
    snapshot.cluster.pods.clear();
    assert_eq!(of(&snapshot), None);
    // Pods that request no CPU may be as many as they like.
    let idle = fixtures::pod("default/idle").cpu("0").on("a");
    assert_eq!(of(&fixtures::snapshot([fixtures::node("a")], [idle])), None);
}

#[test]
fn what_the_first_pods_use_is_not_what_pods_are_made_for() {
    let mut forecaster = Forecaster::default();
    let at = |pods: f64, used: f64| Demand {
        requested: pods * 1000.0,
        waiting: 0.0,
        used: Some(used),
    };
    for (number, demand) in [at(0.0, 0.0), at(10.0, 100.0), at(10.0, 100.0)]
        .iter()
        .enumerate()
    {
        forecaster.observe(minute(i64::try_from(number).unwrap()), demand, &TERMS);
    }
    let hour = u64::try_from(minute(0).as_second()).unwrap() / 3600;
    assert_eq!(forecaster.hour(hour).unwrap().share, None);
}

#[test]
fn what_comes_every_hour_after_nothing_is_learnt_too() {
    // Nothing in the first half of every hour, then twenty pods.
    let of = |number: i64| if number % 60 < 30 { 0.0 } else { 20.0 };
    let terms = Terms {
        max_extra: 1.0,
        ..TERMS
    };
    let mut forecaster = Forecaster::default();
    for number in 0..23 * 60 {
        forecaster.observe(minute(number), &demand(of(number)), &terms);
        let extra = forecaster.expect(&terms).extra;
        let of_hour = number % 60;
        if number >= 12 * 60 && (15..27).contains(&of_hour) {
            assert_eq!(extra, 0.0, "{number}");
        }
        if number >= 12 * 60 && (28..30).contains(&of_hour) {
            assert_eq!(extra, 20_000.0, "{number}");
        }
    }
}

#[test]
fn room_for_very_many_pods_is_told_as_fewer_that_fit_on_nodes() {
    let each = |cpu: i64| Resources {
        cpu: MilliCpu(cpu),
        memory: Bytes(1000),
        pods: 1,
        ..Resources::default()
    };
    let room = |extra: f64, cpu: i64| {
        let expectation = Expectation {
            extra,
            ..Forecaster::default().expect(&TERMS)
        };
        expectation.room(&each(cpu), &TERMS)
    };
    let told = |extra, cpu| room(extra, cpu).map(|room| (room.pods, room.cpu_millis.0, room.memory_bytes.0));
    assert_eq!(told(900_000.0, 1000), Some((900, 1000, 1000)));
    assert_eq!(told(20_000.0, 1), Some((1000, 20, 20_000)));
    // Four fit on a node, however many there are.
    assert_eq!(told(5_000_000.0, 10), Some((2000, 2500, 250_000)));
    assert_eq!(told(0.5, 1), None);
}

#[test]
fn what_nobody_saw_is_not_learnt_from() {
    let steady = (0..200).map(|_| 20.0);
    let mut forecaster = after(steady);
    let before = forecaster.expect(&TERMS);
    // An hour without a word, then twice as much: that may have come slowly.
    for number in 260..264 {
        forecaster.observe(minute(number), &demand(40.0), &TERMS);
    }
    let high = forecaster.expect(&TERMS).band.high;
    assert!(high < 40_000.0 && high >= before.band.high, "{high}");
}
