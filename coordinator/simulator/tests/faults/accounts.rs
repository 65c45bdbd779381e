//! What leaders account, held against the bill of the cloud itself. Hours pass as fast as they are computed.

use std::{sync::Arc, time::Duration};

use smartscale_coordinator::state::cost::{CostHour, CostRow};
use smartscale_planner::model::Market;
use smartscale_simulator::cloud::Bill;

use crate::{
    ahead::{FEW, MANY, rehearse},
    town::POLICY,
    world::World,
};

/// Two hours and a half with a peak in each half hour. At `killed` (a minute) the coordinator dies with all that it
/// remembers, and is away for `down`.
async fn peaks(world: Arc<World>, killed: u64, down: Duration) -> (Vec<CostHour>, Bill) {
    for half in 0..5 {
        for (minute, pods) in [(5, MANY), (20, FEW)] {
            let minute = half * 30 + minute;
            world.until(minute).await;
            world.want(pods);
            if (minute..minute + 15).contains(&killed) {
                world.until(killed).await;
                world.gone_for(0, down);
            }
        }
    }
    world.until(150).await;
    let hours = world.town.records::<CostHour>();
    let accounted: f64 = hours.iter().map(|hour| hour.seconds).sum();
    let until = hours.last().unwrap().until;
    let from = until - Duration::from_secs_f64(accounted);
    (hours, world.town.cloud.bill_of(from, until))
}

fn sum(hours: &[CostHour], of: impl Fn(&CostRow) -> f64) -> f64 {
    hours.iter().flat_map(|hour| &hour.rows).map(of).sum()
}

#[test]
fn the_account_agrees_with_the_clouds_bill_also_where_the_leader_dies_within_it() {
    // A minute into a scale-up: machines boot that its successor has not launched.
    let (hours, bill) = rehearse(POLICY, |world| peaks(world, 66, Duration::from_secs(20)));
    let (node_hours, usd) = (
        sum(&hours, |row| row.node_seconds) / 3600.0,
        sum(&hours, |row| row.usd),
    );
    println!("accounted {node_hours:.4} h and {usd:.6} USD; billed {bill:?}");
    assert_eq!(hours.len(), 3, "{hours:?}");
    // What was accounted goes from the beginning to the end without a hole.
    let accounted: f64 = hours.iter().map(|hour| hour.seconds).sum();
    assert!(accounted > 149.0 * 60.0, "{accounted}");
    assert!(bill.launches > 4, "{bill:?}");
    assert!(
        (node_hours - bill.node_hours).abs() < 1e-6,
        "{node_hours} {bill:?}"
    );
    assert!((usd - bill.cost_usd).abs() < 1e-6, "{usd} {bill:?}");
    // All but the two machines on demand were spot, and cheaper.
    let spot = |row: &CostRow| {
        if row.market == Market::Spot {
            row.on_demand_usd - row.usd
        } else {
            0.0
        }
    };
    assert!(sum(&hours, spot) > 0.0);
    assert!(
        sum(&hours, |row| row.empty_seconds) > 0.0,
        "nodes were empty before they went"
    );
    assert!(sum(&hours, |row| row.unpriced_seconds).abs() < 1e-9);
    let peak = hours
        .iter()
        .filter_map(|hour| hour.peak)
        .map(|peak| peak.nodes)
        .max();
    assert!(peak.is_some_and(|nodes| nodes >= 6), "{peak:?}");
}

#[test]
fn a_time_without_a_leader_is_in_neither_hours_nor_amounts() {
    let away = Duration::from_secs(40 * 60);
    let (hours, bill) = rehearse(POLICY, |world| peaks(world, 66, away));
    let accounted: f64 = hours.iter().map(|hour| hour.seconds).sum();
    assert!(
        (149.0 - 41.5..149.0 - 39.0).contains(&(accounted / 60.0)),
        "{accounted}"
    );
    let node_hours = sum(&hours, |row| row.node_seconds) / 3600.0;
    // As many machines as there are always, at least: the rest was not guessed.
    assert!(
        node_hours > 2.0 * accounted / 3600.0 - 0.01,
        "{node_hours} {bill:?}"
    );
}
