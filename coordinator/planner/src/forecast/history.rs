//! Demand minute by minute, eight weeks of it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Level;

/// Eight weeks of minutes.
pub(super) const LONGEST: usize = 8 * 7 * 24 * 60;

/// Minutes in a row, with the level that each was seen from afterwards. `NaN` where nothing was observed.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    /// The first minute's number.
    first: u64,
    minutes: VecDeque<Past>,
}

#[derive(Debug, Clone, Copy)]
struct Past {
    signal: f32,
    level: f32,
    unit: f32,
}

impl Past {
    const UNKNOWN: Self = Self {
        signal: f32::NAN,
        level: f32::NAN,
        unit: f32::NAN,
    };
}

impl History {
    /// One more minute; those between the last and this one are unknown.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "seven digits of a demand are enough"
    )]
    pub(super) fn push(&mut self, number: u64, signal: f64, level: Level) {
        let next = self.first + self.minutes.len() as u64;
        let gap = number.saturating_sub(next);
        if self.minutes.is_empty() || gap > LONGEST as u64 {
            self.minutes.clear();
            self.first = number;
        } else {
            self.minutes.extend((0..gap).map(|_| Past::UNKNOWN));
        }
        self.minutes.push_back(Past {
            signal: signal as f32,
            level: level.value.unwrap_or(0.0) as f32,
            unit: level.unit() as f32,
        });
        while self.minutes.len() > LONGEST {
            self.minutes.pop_front();
            self.first += 1;
        }
    }

    /// A minute's demand, if it was observed.
    pub(super) fn signal(&self, number: u64) -> Option<f64> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let signal = self.minutes.get(at)?.signal;
        (!signal.is_nan()).then(|| f64::from(signal))
    }

    /// The minutes of an hour since 1970, if one of them was observed.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a demand in mCPU; the cast saturates"
    )]
    pub(super) fn hour(&self, number: u64) -> Option<Vec<Option<u32>>> {
        let first = number.checked_mul(60)?;
        let of = |minute: u64| self.signal(minute).map(|signal| signal.round() as u32);
        let minutes: Vec<Option<u32>> = (first..first + 60).map(of).collect();
        minutes.iter().any(Option::is_some).then_some(minutes)
    }

    /// The first minute's hour and that after the last's.
    pub(super) fn hours(&self) -> std::ops::Range<u64> {
        if self.minutes.is_empty() {
            return 0..0;
        }
        self.first / 60..(self.first + self.minutes.len() as u64).div_ceil(60)
    }

    /// The newest minute's level is another.
    #[allow(clippy::cast_possible_truncation, reason = "as above")]
    pub(super) fn relevel(&mut self, level: Level) {
        if let Some(past) = self.minutes.back_mut() {
            past.level = level.value.unwrap_or(0.0) as f32;
            past.unit = level.unit() as f32;
        }
    }

    /// Where demand is now, if all of the last minutes lie on one side of the level and far from it: it has made a step.
    pub(super) fn left(&self, minutes: usize, share: f64) -> Option<f64> {
        let last = || self.minutes.iter().rev().take(minutes);
        let level = f64::from(self.minutes.back()?.level);
        let distance = |past: &Past| f64::from(past.signal) - level;
        let far = share * level;
        let all = last().count() == minutes;
        if all && (last().all(|past| distance(past) > far) || last().all(|past| distance(past) < -far)) {
            #[allow(clippy::cast_precision_loss, reason = "a few minutes")]
            return Some(last().map(|past| f64::from(past.signal)).sum::<f64>() / minutes as f64);
        }
        None
    }

    /// How far above the level of that minute the highest of the `horizon` minutes after it was, in the level's units.
    /// `None`: one of them was not observed.
    pub(super) fn rise(&self, number: u64, horizon: u64) -> Option<f64> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let past = self.minutes.get(at)?;
        let horizon = usize::try_from(horizon).ok()?;
        let mut most = f32::MIN;
        for later in at + 1..=at + horizon {
            let signal = self.minutes.get(later)?.signal;
            if signal.is_nan() {
                return None;
            }
            most = most.max(signal);
        }
        let rise = (most - past.level) / past.unit;
        rise.is_finite().then(|| f64::from(rise))
    }
}

/// An hour of demand, as it is kept: eight weeks of them are less than a megabyte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hour {
    /// Hours since 1970.
    pub hour: u64,
    /// What share of their requests pods use when more of them are made, as learnt by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// The highest demand of each minute, in mCPU; null where it was not observed.
    pub minutes: Vec<Option<u32>>,
}

impl Hour {
    /// Takes from another what it lacks.
    pub(super) fn fill(&mut self, other: Self) {
        self.minutes.resize(60, None);
        for (own, other) in self.minutes.iter_mut().zip(other.minutes) {
            *own = own.or(other);
        }
    }
}
