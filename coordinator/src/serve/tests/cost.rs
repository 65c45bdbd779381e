//! What a month cost, as people get it.

use jiff::Timestamp;
use smartscale_planner::model::Market;
use smartscale_proto::{
    identity::Role,
    v1::{self, GetCostResponse},
};
use tonic::{Code, Status};

use crate::{
    serve::testing::World,
    state::{
        Condition, Write,
        cost::{CostHour, CostRow, hour_of},
        lease::Leadership,
        records::Record as _,
    },
};

async fn asked(world: &World, month: &str) -> Result<GetCostResponse, Status> {
    let request = v1::GetCostRequest {
        month: month.to_owned(),
    };
    let mut client = world.people(Role::Viewer).await;
    client.get_cost(request).await.map(tonic::Response::into_inner)
}

async fn append(world: &World, key: String, body: serde_json::Value) {
    let write = Write::Put {
        key,
        body,
        expires_at: None,
        condition: Condition::Always,
    };
    world.store.append(&write).await.unwrap();
}

/// The hour that runs, with one machine in it.
async fn record(world: &World) -> String {
    let hour = CostHour {
        seconds: 60.0,
        rows: vec![CostRow {
            node_seconds: 60.0,
            usd: 1.0,
            on_demand_usd: 2.0,
            ..CostRow::new("workers".into(), Market::Spot, "t3.small".into())
        }],
        ..CostHour::new(hour_of(Timestamp::now()))
    };
    append(world, hour.key(), hour.body().unwrap()).await;
    hour.begins.strftime("%Y-%m").to_string()
}

#[tokio::test]
async fn a_month_is_told_with_what_of_it_cannot_be_read_and_audited() {
    let world = World::new().await;
    let month = record(&world).await;
    append(&world, format!("cost#{month}-99T00"), serde_json::json!({})).await;
    let cost = asked(&world, "").await.unwrap();
    assert_eq!((cost.month.as_str(), cost.rows.len()), (month.as_str(), 1));
    assert!((cost.spot_saved_usd - 1.0).abs() < 1e-9, "{cost:?}");
    assert_eq!((cost.currency.as_str(), cost.peak), ("USD", None));
    assert!(
        cost.notes.len() == 1 && cost.notes[0].contains("-99T00"),
        "{:?}",
        cost.notes
    );
    let before = asked(&world, "2020-02").await.unwrap();
    assert_eq!((before.rows.len(), before.gaps.len()), (0, 1));
    assert_eq!(before.gaps[0].missing_hours, 29.0 * 24.0);
    world.audited("Admin/GetCost", "ok").await;
    assert_eq!(
        asked(&world, "soon").await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_coordinator_that_does_not_lead_tells_the_cost_as_well() {
    let world = World::new().await;
    record(&world).await;
    let leader = Some("b".parse().unwrap());
    world.leadership.send_replace(Leadership::Follower { leader });
    assert_eq!(asked(&world, "").await.unwrap().rows.len(), 1);
}
