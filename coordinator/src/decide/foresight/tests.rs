//! What is learnt, remembered and expected, snapshot by snapshot.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::sync::Arc;

use async_trait::async_trait;
use smartscale_planner::fixtures;
use smartscale_proto::time::Clock;

use super::*;
use crate::state::sqlite::SqliteStore;

/// A clock that stands: hours lapse by the store's clock.
struct Still;

#[async_trait]
impl Clock for Still {
    fn now(&self) -> Timestamp {
        at(0)
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    async fn sleep(&self, _: Duration) {}
}

fn store() -> SharedStore {
    let cluster = fixtures::policy("").cluster_id;
    Arc::new(SqliteStore::in_memory(cluster, Arc::new(Still)).unwrap())
}

fn policy() -> Policy {
    fixtures::policy("[forecast]\nenabled = true")
}

/// So many pods on one node, which uses 70 % of what they request.
fn snapshot(pods: u32, now: Timestamp) -> Snapshot {
    let all = (0..pods).map(|index| fixtures::pod(&format!("default/web-{index}")).cpu("100m").on("a"));
    let mut snapshot = fixtures::snapshot([fixtures::node("a").cpu("10")], all);
    let percent = f64::from(pods) * 0.7;
    snapshot
        .metrics
        .nodes
        .insert("a".into(), fixtures::reading(&now.to_string(), percent, 10.0));
    snapshot
}

/// Demand that goes up and down by itself.
fn pods(minute: i64) -> u32 {
    10 + u32::try_from((minute * 7919) % 31).unwrap()
}

fn after(minutes: i64) -> Foresight {
    let mut foresight = Foresight::default();
    for minute in 0..minutes {
        let now = at(minute);
        saw(&mut foresight, &mut snapshot(pods(minute), now), now);
    }
    foresight
}

fn saw(foresight: &mut Foresight, snapshot: &mut Snapshot, now: Timestamp) -> Foreseen {
    let demand = foresight.look(snapshot, &policy(), now).unwrap();
    foresight.see(&demand, snapshot, &policy(), now).unwrap().0
}

/// As a leader does.
async fn led(
    foresight: &mut Foresight,
    store: &SharedStore,
    term: u64,
    pods: u32,
    now: Timestamp,
) -> Snapshot {
    led_by(&policy(), foresight, store, term, pods, now).await
}

async fn led_by(
    policy: &Policy,
    foresight: &mut Foresight,
    store: &SharedStore,
    term: u64,
    pods: u32,
    now: Timestamp,
) -> Snapshot {
    let mut snapshot = snapshot(pods, now);
    let demand = foresight.look(&snapshot, policy, now).unwrap();
    foresight.remember(policy, store, Epoch(term), now).await.unwrap();
    foresight.see(&demand, &mut snapshot, policy, now);
    foresight.write_down(store, Epoch(term), now).await.unwrap();
    snapshot
}

fn at(minute: i64) -> Timestamp {
    fixtures::time("2026-01-05T00:00:00Z") + SignedDuration::from_mins(minute)
}

#[test]
fn room_is_expected_where_the_policy_wants_it_and_nowhere_else() {
    let mut foresight = after(300);
    let mut seen = snapshot(12, at(300));
    let foreseen = saw(&mut foresight, &mut seen, at(300));
    let expected = seen.state.expected.unwrap();
    assert!(
        expected.pods > 0 && foreseen.expectation.extra > 0.0,
        "{foreseen:?}"
    );
    assert_eq!(expected.cpu_millis.0, 100);
    let mut without = snapshot(12, at(301));
    let none = fixtures::policy("");
    let demand = foresight.look(&without, &none, at(301)).unwrap();
    assert_eq!(foresight.see(&demand, &mut without, &none, at(301)), None);
    assert_eq!(without.state.expected, None);
}

#[tokio::test]
async fn demand_is_recorded_also_where_no_forecast_is_wanted_and_at_hand_once_it_is() {
    let store: SharedStore = store();
    let mut foresight = Foresight::default();
    let none = fixtures::policy("");
    for minute in 0..190 {
        let led = led_by(&none, &mut foresight, &store, 1, pods(minute), at(minute)).await;
        assert_eq!(led.state.expected, None);
    }
    let hours = store.list(ForecastHour::PREFIX, false, 100).await.unwrap();
    assert_eq!(hours.len(), 3);
    let snapshot = led(&mut foresight, &store, 1, 12, at(191)).await;
    assert!(snapshot.state.expected.is_some(), "at its first decision");
}

#[tokio::test]
async fn a_night_without_a_pod_is_seen_and_its_end_is_foreseen_after_a_restart_too() {
    let store: SharedStore = store();
    let mut foresight = Foresight::default();
    // Nothing in the first half of every hour, then forty pods.
    let of = |minute: i64| if minute % 60 < 30 { 0 } else { 40 };
    for minute in 0..=20 * 60 {
        led(&mut foresight, &store, 1, of(minute), at(minute)).await;
    }
    let hours = store.list(ForecastHour::PREFIX, true, 2).await.unwrap();
    let last = ForecastHour::from_item(hours.last().unwrap()).unwrap();
    assert!(last.hour.minutes.iter().all(Option::is_some), "{last:?}");
    // The next begins where nobody asks for anything, and has never seen a pod.
    let mut next = Foresight::default();
    let mut expected = None;
    for minute in 20 * 60..20 * 60 + 30 {
        let snapshot = led(&mut next, &store, 2, 0, at(minute)).await;
        expected = snapshot.state.expected;
        if (15..25).contains(&(minute % 60)) {
            assert_eq!(expected, None, "{minute}");
        }
    }
    assert!(
        expected.is_some_and(|expected| expected.pods >= 40),
        "{expected:?}"
    );
}

#[tokio::test]
async fn a_clock_that_was_far_ahead_makes_nobody_deaf() {
    let store: SharedStore = store();
    let mut foresight = Foresight::default();
    for minute in 0..190 {
        led(&mut foresight, &store, 1, pods(minute), at(minute)).await;
    }
    led(&mut foresight, &store, 1, 12, at(100_000)).await;
    led(&mut foresight, &store, 1, 12, at(100_061)).await;
    let back = led(&mut foresight, &store, 1, 12, at(191)).await;
    assert!(back.state.expected.is_some(), "at the first decision");
    for minute in 192..310 {
        led(&mut foresight, &store, 1, pods(minute), at(minute)).await;
    }
    // The hours that it had, and those since; of the fourth it lost what it had not stored.
    let began = u64::try_from(at(0).as_second()).unwrap() / 3600;
    for (hour, minutes) in [(0, 60), (1, 60), (2, 60), (3, 49), (4, 60)] {
        let key = format!("{}{:07}", ForecastHour::PREFIX, began + hour);
        let item = store.get(&key).await.unwrap().unwrap();
        let record = ForecastHour::from_item(&item).unwrap();
        assert_eq!(record.hour.minutes.iter().flatten().count(), minutes, "{hour}");
    }
}

#[tokio::test]
async fn a_new_leader_goes_on_from_the_hours_of_the_one_before() {
    let store: SharedStore = store();
    let mut first = after(10);
    for minute in 10..190 {
        led(&mut first, &store, 1, pods(minute), at(minute)).await;
    }
    assert_eq!(
        store.list(ForecastHour::PREFIX, false, 100).await.unwrap().len(),
        3
    );
    let mut second = Foresight::default();
    let snapshot = led(&mut second, &store, 2, 12, at(191)).await;
    assert!(snapshot.state.expected.is_some(), "at its first decision");
}

#[tokio::test]
async fn the_hour_that_runs_is_stored_every_ten_minutes() {
    let store: SharedStore = store();
    let mut foresight = Foresight::default();
    for minute in 0..36 {
        led(&mut foresight, &store, 1, pods(minute), at(minute)).await;
    }
    let items = store.list(ForecastHour::PREFIX, false, 100).await.unwrap();
    assert_eq!(items.len(), 1);
    // The minute of the write has only begun.
    assert_eq!(items[0].version, 3);
    let record = ForecastHour::from_item(&items[0]).unwrap();
    assert_eq!(record.hour.minutes.iter().flatten().count(), 30);
}

#[tokio::test]
async fn an_hour_that_cannot_be_read_is_passed_over() {
    let store: SharedStore = store();
    let broken = Write::Put {
        key: format!("{}1", ForecastHour::PREFIX),
        body: serde_json::json!({ "hour": "never" }),
        expires_at: None,
        condition: Condition::Always,
    };
    store.append(&broken).await.unwrap();
    led(&mut after(5), &store, 1, 12, at(5)).await;
}
