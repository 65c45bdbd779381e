//! The recorded demand, as people get it.

use jiff::Timestamp;
use smartscale_planner::forecast::Hour;
use smartscale_proto::{
    identity::Role,
    v1::{self, ListDemandResponse},
};
use tonic::{Code, Status};

use crate::{
    serve::testing::World,
    state::{
        Condition, Write,
        lease::Leadership,
        records::{ForecastHour, Record as _},
    },
};

/// The hour that runs.
fn present() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap() / 3600
}

async fn record(world: &World, hour: u64, minutes: Vec<Option<u32>>) {
    let record = ForecastHour {
        hour: Hour {
            hour,
            share: Some(0.7),
            minutes,
        },
        each: None,
    };
    append(world, record.key(), record.body().unwrap()).await;
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

async fn asked(world: &World, days: u32) -> Result<ListDemandResponse, Status> {
    let request = v1::ListDemandRequest { days };
    let mut client = world.people(Role::Viewer).await;
    client.list_demand(request).await.map(tonic::Response::into_inner)
}

/// Where each stretch begins, in minutes since 1970, and what it holds.
fn stretches(demand: &ListDemandResponse) -> Vec<(u64, Vec<u32>)> {
    let found = demand.stretches.iter().map(|stretch| {
        let begins = u64::try_from(stretch.begins.unwrap().seconds).unwrap();
        assert_eq!((begins % 60, stretch.used_share), (0, Some(0.7)));
        (begins / 60, stretch.cpu_millis.clone())
    });
    found.collect()
}

#[tokio::test]
async fn recorded_demand_is_told_by_time_with_its_gaps_and_audited() {
    let world = World::new().await;
    let last = present() - 1;
    let mut with_a_gap = vec![Some(300); 60];
    with_a_gap[10] = None;
    record(&world, last, vec![Some(700); 60]).await;
    record(&world, last - 30, with_a_gap).await;
    // Of a clock that ran ahead.
    record(&world, last + 100, vec![Some(1); 60]).await;
    append(
        &world,
        format!("{}0", ForecastHour::PREFIX),
        serde_json::json!({}),
    )
    .await;

    let demand = asked(&world, 0).await.unwrap();
    let first = (last - 30) * 60;
    assert_eq!(
        stretches(&demand),
        [
            (first, vec![300; 10]),
            (first + 11, vec![300; 49]),
            (last * 60, vec![700; 60])
        ]
    );
    assert!(
        demand.notes.len() == 1 && demand.notes[0].contains("forecast#0"),
        "{:?}",
        demand.notes
    );
    let day = asked(&world, 1).await.unwrap();
    assert_eq!(stretches(&day), [(last * 60, vec![700; 60])]);
    let audited = world.audited("Admin/ListDemand", "ok").await;
    assert!(audited.arguments.contains("days: "), "{audited:?}");
    assert_eq!(asked(&world, 57).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_coordinator_that_does_not_lead_tells_the_demand_as_well() {
    let world = World::new().await;
    record(&world, present() - 1, vec![Some(5); 60]).await;
    let leader = Some("b".parse().unwrap());
    world.leadership.send_replace(Leadership::Follower { leader });
    assert_eq!(asked(&world, 1).await.unwrap().stretches.len(), 1);
}

#[tokio::test]
async fn eight_weeks_of_demand_are_told_in_one_answer() {
    let world = World::new().await;
    let last = present() - 1;
    for hour in last - 56 * 24 + 1..=last {
        // As scattered, and as large, as it can be.
        let minutes = (0..60).map(|minute| (minute % 2 == 0).then_some(u32::MAX));
        record(&world, hour, minutes.collect()).await;
    }
    let demand = asked(&world, 56).await.unwrap();
    assert_eq!(demand.stretches.len(), 56 * 24 * 30);
}
