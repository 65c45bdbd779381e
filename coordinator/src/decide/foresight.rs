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
    forecast::{Accuracy, BootTimes, Demand, Expectation, Forecaster, Hour, Terms},
    model::Resources,
};

use super::settings;
use crate::{
    ids::Epoch,
    state::{
        Condition, SharedStore, StoreError, Write,
        records::{ForecastHour, NodeRecord, Record as _},
    },
};

/// Eight weeks of hours.
const KEPT_HOURS: usize = 8 * 7 * 24;
/// A little longer than they are looked at.
const LIFE: SignedDuration = SignedDuration::from_hours(24 * 57);
/// Hours that are written at one decision, when the store was away for long.
const AT_ONCE: u64 = 24;

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
    /// When the last node whose boot was timed was Ready.
    timed_until: Option<Timestamp>,
    /// The term for which the stored hours are taken in.
    loaded_for: Option<Epoch>,
    /// The hour that runs; those before it are in the store, as far as this leader saw them.
    hour: Option<u64>,
    /// It raises nothing, because it was worse than none.
    off: bool,
}

/// What a snapshot shows of what is to be learnt.
#[derive(Debug)]
pub(super) struct Sight {
    demand: Demand,
    /// What a pod requests on average.
    each: Resources,
    terms: Terms,
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
    /// Looks at what there is to learn from. `None` where the policy wants no forecast, or nothing asks for CPU.
    pub(super) fn look(&mut self, snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> Option<Sight> {
        if !policy.forecast.enabled {
            *self = Self::default();
            return None;
        }
        let (demand, each) = Demand::of(snapshot, policy, now)?;
        let terms = Terms::of(policy, &each, self.boots.most())?;
        Some(Sight { demand, each, terms })
    }

    /// Learns from it, and puts what is expected into the snapshot.
    pub(super) fn see(
        &mut self,
        sight: &Sight,
        snapshot: &mut Snapshot,
        now: Timestamp,
    ) -> (Foreseen, Option<Turned>) {
        let Sight { demand, each, terms } = sight;
        let terms = Terms {
            boot: self.boots.most(),
            ..*terms
        };
        self.forecaster.observe(now, demand, &terms);
        let expectation = self.forecaster.expect(&terms);
        snapshot.state.expected = expectation.room(each);
        let accuracy = self.forecaster.accuracy();
        let turned =
            (self.off == accuracy.helps).then_some(if accuracy.helps { Turned::On } else { Turned::Off });
        self.off = !accuracy.helps;
        let foreseen = Foreseen {
            expectation,
            accuracy,
            quantile: terms.quantile,
        };
        (foreseen, turned)
    }

    /// Takes in what earlier leaders stored, once a term, and stores the hours that are over. For the leader, before it sees:
    /// nodes that only its predecessor's forecast kept would go at its first decision.
    ///
    /// # Errors
    /// The store's. What was not taken in or stored is tried again.
    pub(super) async fn remember(
        &mut self,
        sight: &Sight,
        store: &SharedStore,
        term: Epoch,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let hour = u64::try_from(now.as_second()).unwrap_or(0) / 3600;
        if self.loaded_for != Some(term) {
            self.time_boots(store).await?;
            let terms = Terms {
                boot: self.boots.most(),
                ..sight.terms
            };
            let mut unreadable = Vec::new();
            let hours: Vec<ForecastHour> = settings::newest(store, KEPT_HOURS, &mut unreadable).await?;
            for warning in unreadable {
                tracing::warn!(warning, "an hour of the forecast's history is passed over");
            }
            // What it has seen itself while it did not lead is not in the store.
            let own = self.forecaster.hours();
            self.hour = Some(if own.is_empty() { hour } else { own.start });
            let hours = hours.into_iter().map(|hour| hour.0);
            self.forecaster = self.forecaster.with_hours(hours, now, &terms);
            self.loaded_for = Some(term);
        }
        let next = *self.hour.get_or_insert(hour);
        if next >= hour {
            return Ok(());
        }
        for number in next.max(hour.saturating_sub(AT_ONCE))..hour {
            if let Some(kept) = self.forecaster.hour(number) {
                store.append(&stored(kept)?).await?;
            }
            self.hour = Some(number + 1);
        }
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

fn stored(hour: Hour) -> Result<Write, StoreError> {
    let begins = i64::try_from(hour.hour.saturating_mul(3600)).unwrap_or(i64::MAX);
    let begins = Timestamp::from_second(begins).unwrap_or(Timestamp::MAX);
    let record = ForecastHour(hour);
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
        let sight = foresight.look(snapshot, &policy(), now).unwrap();
        foresight.see(&sight, snapshot, now).0
    }

    /// As a leader does.
    async fn led(
        foresight: &mut Foresight,
        store: &SharedStore,
        term: u64,
        pods: u32,
        now: Timestamp,
    ) -> Snapshot {
        let mut snapshot = snapshot(pods, now);
        let sight = foresight.look(&snapshot, &policy(), now).unwrap();
        foresight.remember(&sight, store, Epoch(term), now).await.unwrap();
        foresight.see(&sight, &mut snapshot, now);
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
        let without = snapshot(12, at(301));
        assert!(foresight.look(&without, &fixtures::policy(""), at(301)).is_none());
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
