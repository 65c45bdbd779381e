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
                store.append(&stored(&ForecastHour { hour, each })?).await?;
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
            // One that was there before its record was has no boot that anybody timed.
            let boot = Duration::try_from(ready.duration_since(node.launched_at));
            if let Ok(boot) = boot
                && !boot.is_zero()
            {
                self.boots.add(boot);
            }
            self.timed_until = Some(ready);
        }
        Ok(())
    }
}

fn stored(record: &ForecastHour) -> Result<Write, StoreError> {
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
mod tests;
