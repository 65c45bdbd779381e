#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::{sync::Arc, time::Duration};

use smartscale_coordinator::act::fleet::{
    Fleet as _, FleetError, InstanceState, LaunchRequest, RefusalCause,
};
use smartscale_planner::{fixtures, model::Market};
use tokio::sync::mpsc;

use super::{Cloud, Machine, Refusal, Times};
use crate::{clock::ScaledClock, log::Log, seed::Seed};

fn cloud() -> (Arc<ScaledClock>, Cloud, mpsc::UnboundedReceiver<Machine>) {
    let clock = ScaledClock::new("2026-01-05T09:00:00Z".parse().unwrap(), 1.0).unwrap();
    let log = Log::new(clock.clone());
    let policy = Arc::new(fixtures::policy(""));
    let (cloud, machines) = Cloud::new(clock.clone(), log, Seed(1), Times::default(), policy);
    (clock, cloud, machines)
}

fn request(attempt: u32, count: u32) -> LaunchRequest {
    LaunchRequest {
        operation: "op-1".parse().unwrap(),
        attempt,
        pool: "workers".into(),
        zone: "us-east-1a".into(),
        market: Market::OnDemand,
        instance_types: vec!["t3.small".into(), "t3.medium".into()],
        count,
        enrolment_secret: Some("secret".to_owned()),
    }
}

#[tokio::test]
async fn the_same_request_again_gives_the_same_machines() {
    let (_, cloud, _machines) = cloud();
    let first = cloud.launch(&request(1, 2)).await.unwrap();
    let mut again = request(1, 2);
    again.enrolment_secret = None;
    assert_eq!(cloud.launch(&again).await.unwrap(), first);
    assert_eq!((first.instances.len(), cloud.billed()), (2, 2));
    let next = cloud.launch(&request(2, 1)).await.unwrap();
    assert_eq!(cloud.billed(), 3);
    assert_ne!(next.instances[0].id, first.instances[0].id);
}

#[tokio::test]
async fn a_client_token_is_refused_for_another_request() {
    let (_, cloud, _machines) = cloud();
    cloud.launch(&request(1, 1)).await.unwrap();
    assert!(matches!(
        cloud.launch(&request(1, 2)).await,
        Err(FleetError::Refused(_))
    ));
    assert_eq!(cloud.billed(), 1);
}

#[tokio::test]
async fn a_refused_type_is_told_and_the_next_one_taken() {
    let (_, cloud, _machines) = cloud();
    let refusal = |name: Option<&str>| Refusal {
        instance_type: name.map(Into::into),
        zone: None,
        market: None,
        cause: RefusalCause::Capacity,
    };
    cloud.refuse(vec![refusal(Some("t3.small"))]);
    let launched = cloud.launch(&request(1, 1)).await.unwrap();
    assert_eq!(launched.instances[0].instance_type.as_str(), "t3.medium");
    assert_eq!(
        launched.refused[0].instance_type.as_ref().unwrap().as_str(),
        "t3.small"
    );
    cloud.refuse(vec![refusal(None)]);
    let launched = cloud.launch(&request(2, 1)).await.unwrap();
    assert_eq!((launched.instances.len(), launched.refused.len()), (0, 2));
}

#[tokio::test]
async fn a_machine_boots_is_billed_and_ends() {
    let (clock, cloud, mut machines) = cloud();
    let from = clock.start();
    let id = cloud.launch(&request(1, 1)).await.unwrap().instances[0]
        .id
        .clone();
    cloud.step();
    assert!(machines.try_recv().is_err());
    clock.advance(Duration::from_secs(60)).await;
    cloud.step();
    let Machine::Up(booted) = machines.try_recv().unwrap() else {
        unreachable!("it boots first")
    };
    assert_eq!(
        (&booted.instance.id, booted.secret.as_deref()),
        (&id, Some("secret"))
    );
    clock.advance(Duration::from_secs(3540)).await;
    cloud.terminate(std::slice::from_ref(&id)).await.unwrap();
    cloud.terminate(std::slice::from_ref(&id)).await.unwrap();
    cloud.step();
    assert!(matches!(machines.try_recv().unwrap(), Machine::Off(off) if off == id));
    clock.advance(Duration::from_secs(600)).await;
    cloud.step();
    let gone = cloud.look(&id).await.unwrap().unwrap();
    assert_eq!(gone.state, InstanceState::Terminated);
    assert_eq!(cloud.list().await.unwrap(), [gone]);
    let bill = cloud.bill(from);
    assert!((bill.node_hours - 1.0).abs() < 1e-9, "{bill:?}");
    assert!((bill.cost_usd - 0.0208).abs() < 1e-9, "{bill:?}");
}

#[tokio::test]
async fn an_interruption_is_announced_two_minutes_before_it_takes_the_machine() {
    let (clock, cloud, mut machines) = cloud();
    let id = cloud.launch(&request(1, 1)).await.unwrap().instances[0]
        .id
        .clone();
    clock.advance(Duration::from_secs(60)).await;
    cloud.step();
    machines.try_recv().unwrap();
    assert_eq!(cloud.interruption(&id), None);
    assert!(cloud.interrupt(&id));
    let at = cloud.interruption(&id).unwrap().at;
    clock.advance(Duration::from_secs(119)).await;
    cloud.step();
    assert!(machines.try_recv().is_err());
    clock.advance(Duration::from_secs(2)).await;
    cloud.step();
    assert!(matches!(machines.try_recv().unwrap(), Machine::Off(_)));
    assert_eq!(at, clock.start() + jiff::SignedDuration::from_secs(180));
    assert!(!cloud.interrupt(&"i-unknown".parse().unwrap()));
}

#[tokio::test]
async fn ids_do_not_depend_on_which_zone_is_asked_first() {
    let ids = |zones: [&'static str; 2]| async move {
        let (_, cloud, _machines) = cloud();
        let mut ids = Vec::new();
        for (attempt, zone) in (1..).zip(zones) {
            let request = LaunchRequest {
                zone: zone.into(),
                ..request(attempt, 1)
            };
            ids.push(cloud.launch(&request).await.unwrap().instances[0].id.clone());
        }
        ids.sort();
        ids
    };
    assert_eq!(
        ids(["us-east-1a", "us-east-1b"]).await,
        ids(["us-east-1b", "us-east-1a"]).await
    );
}
