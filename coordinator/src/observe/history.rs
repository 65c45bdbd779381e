//! Readings of the cluster averages over time, kept at the policy's interval.
//!
//! The planner asks how long a threshold has been crossed by counting readings, so two readings of the same moment
//! must never stand side by side: a new leader who knows both its own and its predecessor's keeps the
//! predecessor's and drops its own that fall in between.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize as _;
use smartscale_planner::snapshot::Reading;
use smartscale_proto::time::age;

use crate::state::{Condition, Item, Write};

/// Beginning of the keys of stored readings.
pub const PREFIX: &str = "sample#";

/// How often a reading is taken, and how long readings are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    /// Between readings (`scale_up.reading_interval`).
    pub interval: Duration,
    /// The longest `sustained` of the policy, and some more.
    pub kept: Duration,
}

impl Default for Cadence {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            kept: Duration::from_secs(20 * 60),
        }
    }
}

/// Readings in the order of their time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct History {
    readings: Vec<Reading>,
}

impl History {
    pub(crate) fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// How long until the next reading is due; zero when it is.
    pub(crate) fn due_in(&self, cadence: Cadence, now: Timestamp) -> Duration {
        self.readings.last().map_or(Duration::ZERO, |last| {
            cadence.interval.saturating_sub(age(last.time, now))
        })
    }

    /// Takes a reading up and forgets those that are too old. A reading of no later time than the last is none.
    pub(crate) fn push(&mut self, reading: Reading, cadence: Cadence, now: Timestamp) -> bool {
        if self.readings.last().is_some_and(|last| last.time >= reading.time) {
            return false;
        }
        self.readings.push(reading);
        self.readings
            .retain(|reading| age(reading.time, now) <= cadence.kept);
        true
    }

    /// Takes up what a predecessor stored; ours that stand within half an interval of one of its are dropped.
    pub(crate) fn merge(&mut self, stored: Vec<Reading>, cadence: Cadence, now: Timestamp) {
        let near = |a: Timestamp, b: Timestamp| age(a, b).max(age(b, a)) < cadence.interval / 2;
        self.readings
            .retain(|ours| !stored.iter().any(|theirs| near(ours.time, theirs.time)));
        self.readings.extend(stored);
        self.readings.sort_by_key(|reading| reading.time);
        self.readings.dedup_by_key(|reading| reading.time);
        self.readings
            .retain(|reading| reading.time <= now && age(reading.time, now) <= cadence.kept);
    }
}

/// The write that stores a reading. Its key sorts by time.
pub(crate) fn stored(reading: &Reading, cadence: Cadence) -> Option<Write> {
    let kept = jiff::SignedDuration::try_from(cadence.kept).ok()?;
    Some(Write::Put {
        key: format!("{PREFIX}{}", reading.time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")),
        body: serde_json::to_value(reading).ok()?,
        expires_at: reading.time.checked_add(kept).ok(),
        condition: Condition::Always,
    })
}

/// The readings of stored items; those that are no reading are passed over.
pub(crate) fn read(items: &[Item]) -> Vec<Reading> {
    let sound = |item: &Item| {
        let reading = Reading::deserialize(&item.body).ok()?;
        reading.check(&item.key).ok()?;
        Some(reading)
    };
    items.iter().filter_map(sound).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use jiff::SignedDuration;
    use smartscale_planner::snapshot::Source;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }

    fn reading(second: i64) -> Reading {
        Reading {
            time: at(second),
            cpu_percent: Some(80.0),
            memory_percent: None,
            source: Source::Prometheus,
        }
    }

    fn history(seconds: &[i64]) -> History {
        History {
            readings: seconds.iter().copied().map(reading).collect(),
        }
    }

    fn times(history: &History) -> Vec<i64> {
        history
            .readings()
            .iter()
            .map(|reading| reading.time.as_second())
            .collect()
    }

    #[test]
    fn a_takeover_does_not_count_the_same_heat_twice() {
        // Ours as a standby, 20 s beside the leader's: merged naively, 2 readings would be "sustained" in 20 s.
        let mut history = history(&[20, 80, 140, 200]);
        history.merge([0, 60, 120].map(reading).into(), Cadence::default(), at(210));
        assert_eq!(times(&history), [0, 60, 120, 200]);
    }

    #[test]
    fn a_new_leader_goes_on_at_its_predecessors_pace() {
        let mut history = History::default();
        assert_eq!(history.due_in(Cadence::default(), at(0)), Duration::ZERO);
        history.merge(vec![reading(100)], Cadence::default(), at(130));
        assert_eq!(
            history.due_in(Cadence::default(), at(130)),
            Duration::from_secs(30)
        );
    }

    #[test]
    fn old_readings_and_repetitions_are_dropped() {
        let cadence = Cadence {
            interval: Duration::from_secs(60),
            kept: Duration::from_secs(120),
        };
        let mut history = history(&[0, 60]);
        assert!(!history.push(reading(60), cadence, at(150)));
        assert!(history.push(reading(150), cadence, at(150)));
        assert_eq!(times(&history), [60, 150]);
    }

    #[test]
    fn a_reading_survives_the_store_and_its_key_sorts_by_time() {
        let Some(Write::Put {
            key,
            body,
            expires_at,
            ..
        }) = stored(&reading(7), Cadence::default())
        else {
            panic!("a put was expected")
        };
        assert_eq!(key, "sample#1970-01-01T00:00:07.000Z");
        assert_eq!(expires_at, Some(at(7 + 20 * 60)));
        let item = Item {
            key,
            body,
            version: 1,
            expires_at,
        };
        let broken = Item {
            key: "sample#x".into(),
            body: serde_json::json!({"time": 7}),
            version: 1,
            expires_at,
        };
        assert_eq!(read(&[item, broken]), [reading(7)]);
    }
}
