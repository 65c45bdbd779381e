//! Decision records: one for every decision that differs from the one before, also of "do nothing". The same
//! decision again only moves its record's `last_time` on.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use smartscale_planner::Plan;
use smartscale_proto::time::age;

use crate::{
    config::Mode,
    ids::{DecisionId, Epoch},
    observe::sources::SourceState,
    state::{
        Condition, SharedStore, StoreError, Write,
        records::{DecisionRecord, Record as _},
    },
};

/// Records are kept so long after their decision was last taken.
const KEPT: SignedDuration = SignedDuration::from_hours(14 * 24);
/// The record of a decision that is taken again and again is rewritten at most so often.
const REWRITE: Duration = Duration::from_secs(60);

/// The record that is being continued.
#[derive(Debug, Default)]
pub(super) struct Records {
    last: Option<(Value, DecisionRecord)>,
    written_at: Option<Timestamp>,
    shape: Option<Value>,
}

/// The record of the decision at hand.
pub(super) struct Entry {
    pub(super) record: DecisionRecord,
    /// It differs from the decision before.
    pub(super) fresh: bool,
    /// It should be written now even if nothing is done about it.
    pub(super) due: bool,
}

impl Entry {
    /// Whether a log should have it: once for each decision, and not each time that it is taken again.
    pub(super) fn is_news(&self) -> bool {
        self.fresh || !self.record.operations.is_empty()
    }
}

impl Records {
    /// The record for `plan`: the last one continued when it says the same, else a new one.
    pub(super) fn next(
        &mut self,
        plan: &Plan,
        now: Timestamp,
        epoch: Epoch,
        mode: Mode,
        sources: &[SourceState],
        id: impl FnOnce() -> DecisionId,
    ) -> Entry {
        let shape = shape(plan);
        let continued = self
            .last
            .as_ref()
            .filter(|(last, record)| *last == shape && record.epoch == epoch && record.operations.is_empty());
        let (id, time, repeats) = match continued {
            Some((_, record)) => (record.id.clone(), record.time, record.repeats.saturating_add(1)),
            None => (id(), now, 1),
        };
        let fresh = repeats == 1;
        let due = fresh || self.written_at.is_none_or(|written| age(written, now) >= REWRITE);
        if due {
            self.written_at = Some(now);
        }
        self.shape = Some(shape);
        let record = DecisionRecord {
            id,
            time,
            last_time: now,
            repeats,
            mode: mode.as_str().to_owned(),
            epoch,
            plan: plan.clone(),
            cost_change_per_hour: cost_change_per_hour(plan),
            operations: Vec::new(),
            sources: sources
                .iter()
                .map(|state| (state.source.to_string(), state.age.map(|age| age.as_secs_f64())))
                .collect(),
        };
        Entry { record, fresh, due }
    }

    /// Takes the record as it was written in the end.
    pub(super) fn keep(&mut self, record: DecisionRecord) {
        self.last = self.shape.take().map(|shape| (shape, record));
    }

    /// Begins anew: another coordinator decides.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Figures that always move: values of rules, prices, and the ages of both.
const MOVING: [(&str, &[&str]); 3] = [
    ("rules", &["value", "age_seconds"]),
    ("launch", &["price_per_hour", "price_age_seconds"]),
    ("remove", &["saves_per_hour", "saves_age_seconds"]),
];

/// What makes two decisions the same: everything but figures that always move.
fn shape(plan: &Plan) -> Value {
    let mut value = serde_json::to_value(plan).unwrap_or_default();
    for (list, figures) in MOVING {
        let list = value.get_mut(list).and_then(Value::as_array_mut);
        for one in list.into_iter().flatten().filter_map(Value::as_object_mut) {
            for figure in figures {
                one.remove(*figure);
            }
        }
    }
    if let Some(object) = value.as_object_mut() {
        // It says the rest once more, and may quote a figure.
        object.remove("summary");
    }
    value
}

/// What a plan costs (positive) or saves (negative), in USD per hour.
#[must_use]
pub fn cost_change_per_hour(plan: &Plan) -> f64 {
    let launched: f64 = plan.launch.iter().map(|launch| launch.price_per_hour).sum();
    let removed: f64 = plan.remove.iter().map(|removal| removal.saves_per_hour).sum();
    launched - removed
}

/// Writes a record, replacing an earlier form of it.
pub(super) async fn append(store: &SharedStore, record: &DecisionRecord) -> Result<(), StoreError> {
    let write = Write::Put {
        key: record.key(),
        body: record.body()?,
        expires_at: Some(record.last_time.saturating_add(KEPT).unwrap_or(Timestamp::MAX)),
        condition: Condition::Always,
    };
    store.append(&write).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

    use smartscale_planner::{Action, Launch, PriceSource, model::Market};

    use super::*;

    fn next(records: &mut Records, plan: &Plan, second: i64, id: &str) -> Entry {
        let now = Timestamp::from_second(second).unwrap();
        let entry = records.next(plan, now, Epoch(1), Mode::Act, &[], || id.parse().unwrap());
        records.keep(entry.record.clone());
        entry
    }

    #[test]
    fn the_same_decision_again_continues_its_record_and_is_rewritten_once_a_minute() {
        let mut records = Records::default();
        let plan = Plan {
            summary: "nothing to do, CPU at 41 %".to_owned(),
            ..Plan::default()
        };
        let again = Plan {
            summary: "nothing to do, CPU at 42 %".to_owned(),
            ..Plan::default()
        };
        assert!(next(&mut records, &plan, 0, "d-1").due);
        let second = next(&mut records, &again, 10, "d-2");
        assert_eq!(
            (second.record.id.as_str(), second.record.repeats, second.due),
            ("d-1", 2, false)
        );
        assert!(next(&mut records, &plan, 61, "d-3").due);
    }

    #[test]
    fn a_log_has_each_decision_once_and_again_when_something_came_of_it() {
        let mut records = Records::default();
        let plan = Plan::default();
        assert!(next(&mut records, &plan, 0, "d-1").is_news());
        // Also when the store has it anew.
        let again = next(&mut records, &plan, 61, "d-2");
        assert!(again.due && !again.is_news());
        let mut carried_out = next(&mut records, &plan, 70, "d-3");
        carried_out.record.operations.push("op-1".parse().unwrap());
        assert!(!carried_out.fresh && carried_out.is_news());
    }

    #[test]
    fn a_price_that_moved_makes_no_other_decision_but_who_said_it_does() {
        let mut records = Records::default();
        let mut plan = Plan {
            action: Action::ScaleUp,
            launch: vec![Launch {
                pool: "workers".into(),
                zone: "us-east-1a".into(),
                market: Market::Spot,
                instance_types: vec!["t3.small".into()],
                price_per_hour: 0.0062,
                price_source: Some(PriceSource::SpotPriceHistory),
                price_age_seconds: Some(3),
                pods: Vec::new(),
            }],
            ..Plan::default()
        };
        next(&mut records, &plan, 0, "d-1");
        plan.launch[0].price_per_hour = 0.0064;
        plan.launch[0].price_age_seconds = Some(13);
        let entry = next(&mut records, &plan, 10, "d-2");
        assert_eq!((entry.record.id.as_str(), entry.fresh), ("d-1", false));
        assert_eq!(entry.record.plan.launch[0].price_per_hour, 0.0064);
        plan.launch[0].price_source = Some(PriceSource::Catalogue);
        assert_eq!(next(&mut records, &plan, 20, "d-3").record.id.as_str(), "d-3");
    }

    #[test]
    fn a_decision_that_differs_begins_a_record() {
        let mut records = Records::default();
        next(&mut records, &Plan::default(), 0, "d-1");
        let other = Plan {
            action: Action::ScaleUp,
            ..Plan::default()
        };
        let entry = next(&mut records, &other, 10, "d-2");
        assert_eq!((entry.record.id.as_str(), entry.fresh), ("d-2", true));
    }

    #[test]
    fn a_decision_that_was_carried_out_is_not_continued() {
        let mut records = Records::default();
        let plan = Plan {
            action: Action::ScaleUp,
            ..Plan::default()
        };
        let mut entry = records.next(&plan, Timestamp::UNIX_EPOCH, Epoch(1), Mode::Act, &[], || {
            "d-1".parse().unwrap()
        });
        entry.record.operations.push("op-1".parse().unwrap());
        records.keep(entry.record);
        assert_eq!(next(&mut records, &plan, 10, "d-2").record.id.as_str(), "d-2");
    }
}
