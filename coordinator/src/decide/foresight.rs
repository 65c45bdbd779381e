//! The forecast in the running coordinator: learns from every snapshot, remembers by the hour, and says what room there should
//! be beyond what pods ask for.
//!
//! ```text
//! snapshot ─▶ demand ─▶ forecaster ─▶ expected room ─▶ planner
//! nodes that joined ─▶ boot times ─┘      │
//!                hours in the store ◀─────┘ (leader; a new leader begins from them)
//! ```

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use smartscale_planner::{
    Policy, Snapshot,
    forecast::{Accuracy, BootTimes, Demand, Expectation, Forecaster, Terms},
    model::Resources,
};

use super::settings;
use crate::{
    ids::Epoch,
    state::{
        Condition, SharedStore, StoreError, Write,
        records::{Each, ForecastHour, NodeRecord, Record as _},
    },
};

/// Eight weeks of hours.
const KEPT_HOURS: usize = 8 * 7 * 24;
/// A little longer than they are looked at.
const LIFE: SignedDuration = SignedDuration::from_hours(24 * 57);
/// Hours that are written at one decision, when the store was away for long.
const AT_ONCE: u64 = 24;
/// A clock that is set back by less than this has only been put right.
const SET_BACK: SignedDuration = SignedDuration::from_mins(10);

/// What was expected at a decision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Foreseen {
    /// The room that it wants, and where it expects demand, in mCPU.
    pub expectation: Expectation,
    /// How good it has been.
    pub accuracy: Accuracy,
    /// The quantile of the policy.
    pub quantile: f64,
}

/// What is learnt, and what of it is in the store.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    forecaster: Forecaster,
    boots: BootTimes,
    /// What a pod requests on average, as it was when there were pods last.
    each: Option<Resources>,
    /// When it looked last.
    looked: Option<Timestamp>,
    /// When the last node whose boot was timed was Ready.
    timed_until: Option<Timestamp>,
    /// The term for which the stored hours are taken in.
    loaded_for: Option<Epoch>,
    /// The hour that runs; those before it are in the store, as far as this leader saw them.
    hour: Option<u64>,
    /// When it was stored last, in tens of minutes.
    stored: Option<u64>,
    /// It raises nothing, because it was worse than none.
    off: bool,
}

/// The forecast has begun or ceased to raise the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// It was worse than none for a day.
    Off,
    /// It would have been better again.
    On,
}

impl Foresight {
    /// Looks at what there is to learn from. `None` where pods request no CPU.
    pub(super) fn look(&mut self, snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> Option<Demand> {
        let back = self.looked.map(|looked| looked.duration_since(now));
        if back.is_some_and(|back| back > SET_BACK) {
            // What it remembers came in an order that was none; with it everything would be late until time catches up.
            tracing::warn!("the clock was far ahead: the forecast begins anew with what is stored");
            *self = Self {
                each: self.each.take(),
                off: self.off,
                ..Self::default()
            };
        }
        self.looked = self.looked.max(Some(now));
        let (demand, each) = Demand::of(snapshot, policy, now)?;
        self.each = each.or_else(|| self.each.take());
        Some(demand)
    }

    fn terms(&self, policy: &Policy) -> Option<Terms> {
        Terms::of(policy, self.each.as_ref()?, self.boots.most())
    }

    /// Learns from it, whether or not the policy wants a forecast: for the day that it does, and for those who ask what a policy
    /// would have cost. Where it does, puts what is expected into the snapshot. `None` too where nobody has ever seen a pod.
    pub(super) fn see(
        &mut self,
        demand: &Demand,
        snapshot: &mut Snapshot,
        policy: &Policy,
        now: Timestamp,
    ) -> Option<(Foreseen, Option<Turned>)> {
        let terms = self.terms(policy)?;
        self.forecaster.observe(now, demand, &terms);
        if !policy.forecast.enabled {
            self.off = false;
            return None;
        }
        let expectation = self.forecaster.expect(&terms);
        snapshot.state.expected = expectation.room(self.each.as_ref()?, &terms);
        let accuracy = self.forecaster.accuracy();
        let turned =
            (self.off == accuracy.helps).then_some(if accuracy.helps { Turned::On } else { Turned::Off });
        self.off = !accuracy.helps;
        let foreseen = Foreseen {
            expectation,
            accuracy,
            quantile: terms.quantile,
        };
        Some((foreseen, turned))
    }

    /// Takes in what earlier leaders stored, once a term. For the leader, before it sees: nodes that only its predecessor's
    /// forecast kept would go at its first decision.
    ///
    /// # Errors
    /// The store's. It is tried again.
    pub(super) async fn remember(
        &mut self,
        policy: &Policy,
        store: &SharedStore,
        term: Epoch,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if self.loaded_for == Some(term) {
            return Ok(());
        }
        self.time_boots(store).await?;
        let mut unreadable = Vec::new();
        let hours: Vec<ForecastHour> = settings::newest(store, KEPT_HOURS, &mut unreadable).await?;
        for warning in unreadable {
            tracing::warn!(warning, "an hour of the forecast's history is passed over");
        }
        if self.each.is_none() {
            let each = hours.iter().find_map(|hour| hour.each);
            self.each = each.map(Resources::from);
        }
        // What it has seen itself while it did not lead is not in the store.
        let own = self.forecaster.hours();
        self.hour = (!own.is_empty()).then_some(own.start);
        if let Some(terms) = self.terms(policy) {
            let hours = hours.into_iter().map(|hour| hour.hour);
            self.forecaster = self.forecaster.with_hours(hours, now, &terms);
        }
        self.loaded_for = Some(term);
        Ok(())
    }

    /// Stores the hours that are over, and every ten minutes the one that runs: a coordinator that has none beside it forgets no
    /// more than that when it dies. For the leader, after it has seen: the last minute of an hour is over with the first of the
    /// next. Nothing while what is stored could not be taken in: an hour is stored anew with all that is known of it.
    ///
    /// # Errors
    /// The store's. What was not stored is tried again.
    pub(super) async fn write_down(
        &mut self,
        store: &SharedStore,
        term: Epoch,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let second = u64::try_from(now.as_second()).unwrap_or(0);
        let (hour, tens) = (second / 3600, second / 600);
        let last = *self.stored.get_or_insert(tens);
        if self.loaded_for != Some(term) || last == tens {
            return Ok(());
        }
        let next = *self.hour.get_or_insert(hour);
        for number in next.max(hour.saturating_sub(AT_ONCE))..=hour {
            if let Some(hour) = self.forecaster.hour(number) {
                let each = self.each.as_ref().map(Each::from);
                store.append(&stored(ForecastHour { hour, each })?).await?;
            }
            self.hour = Some(number);
        }
        self.stored = Some(tens);
        self.time_boots(store).await
    }

    /// Learns how long machines took from their launch to Ready.
    async fn time_boots(&mut self, store: &SharedStore) -> Result<(), StoreError> {
        let mut unreadable = Vec::new();
        let mut nodes: Vec<NodeRecord> = settings::all(store, &mut unreadable).await?;
        nodes.sort_by_key(|node| node.ready_at);
        for node in nodes {
            let Some(ready) = node
                .ready_at
                .filter(|ready| self.timed_until.is_none_or(|until| *ready > until))
            else {
                continue;
            };
            if let Ok(boot) = Duration::try_from(ready.duration_since(node.launched_at)) {
                self.boots.add(boot);
            }
            self.timed_until = Some(ready);
        }
        Ok(())
    }
}

fn stored(record: ForecastHour) -> Result<Write, StoreError> {
    let begins = i64::try_from(record.hour.hour.saturating_mul(3600)).unwrap_or(i64::MAX);
    let begins = Timestamp::from_second(begins).unwrap_or(Timestamp::MAX);
    Ok(Write::Put {
        key: record.key(),
        body: record.body()?,
        expires_at: begins.checked_add(LIFE).ok(),
        condition: Condition::Always,
    })
}

#[cfg(test)]
mod tests {
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
}
