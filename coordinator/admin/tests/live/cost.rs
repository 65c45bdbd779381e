//! `smartscale cost`: what leaders accounted, through a follower, in three forms and another currency.

use smartscale_coordinator::state::{
    cost::{CostHour, CostRow, Peak, hour_of},
    records::Record as _,
};
use smartscale_planner::model::Market;

use super::*;

/// An hour of two machines, the first of a month that is over.
async fn record(cluster: &Cluster) {
    let begins = hour_of("2026-02-01T00:30:00Z".parse().unwrap());
    let hour = CostHour {
        seconds: 3600.0,
        peak: Some(Peak {
            at: begins,
            nodes: 2,
            usd_per_hour: 2.0,
        }),
        rows: vec![CostRow {
            node_seconds: 7200.0,
            empty_seconds: 600.0,
            usd: 0.5,
            on_demand_usd: 2.0,
            empty_usd: 0.05,
            ..CostRow::new("workers".into(), Market::Spot, "t3.small".into())
        }],
        ..CostHour::new(begins)
    };
    let write = Write::Put {
        key: hour.key(),
        body: hour.body().unwrap(),
        expires_at: None,
        condition: Condition::Always,
    };
    cluster.store.append(&write).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cost_of_a_month_is_shown_in_the_currency_that_is_asked_for() {
    let cluster = Cluster::new().await;
    record(&cluster).await;
    let month = ["cost", "--month", "2026-02"];
    let shown = cluster.run(Role::Viewer, &month).await;
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
    let table = text(&shown.stdout);
    for line in [
        "demo, 2026-02 (UTC) up to 2026-03-01 00:00",
        "paid           0.5000 USD",
        "saved          75.0 %, 1.5000 USD",
        "spot saved     1.5000 USD",
        "wasted         10 empty node-minutes, 0.0500 USD",
        "accounted      1.0 h of 672.0; not accounted, and in no figure:",
        "671.0 h from 2026-02-01 01:00 to 2026-03-01 00:00",
    ] {
        assert!(table.contains(line), "{line}\n{table}");
    }
    let in_taka = [&month[..], &["--currency", "BDT", "--rate", "121.5"]].concat();
    let table = text(&cluster.run(Role::Viewer, &in_taka).await.stdout);
    assert!(table.contains("paid           60.75 BDT"), "{table}");
    let json = [&in_taka[..], &["-o", "json"]].concat();
    let json = cluster.run(Role::Viewer, &json).await;
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["total"]["usd"], 0.5);
    assert_eq!(
        (value["currency"].as_str(), value["currency_per_usd"].as_f64()),
        (Some("BDT"), Some(121.5))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_is_none_and_a_currency_without_a_rate_are_bad_input() {
    let cluster = Cluster::new().await;
    for wrong in [
        &["cost", "--month", "soon"][..],
        &["cost", "--currency", "BDT"],
        &["cost", "--rate", "2"],
        &["cost", "--currency", "taka", "--rate", "2"],
        &["cost", "--currency", "BDT", "--rate", "0"],
    ] {
        let refused = cluster.run(Role::Viewer, wrong).await;
        assert_eq!(
            refused.status.code(),
            Some(2),
            "{wrong:?}: {}",
            text(&refused.stderr)
        );
    }
}
