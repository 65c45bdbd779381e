//! How good expectations were, once their time has come: which source to believe, and whether to believe any.

use super::{Open, seasons::Source};

/// How much of a new score is taken over: a day's memory.
const DAY: f64 = 1.0 / 1440.0;
/// A season must have been better than the last days by so much.
const BETTER: f64 = 0.75;
/// So much less than none's the loss of a forecast must be that was passed over, before it is heard again.
const BACK: f64 = 0.95;
/// Minutes before anything is judged.
const FEWEST: u32 = 1440;
/// Minutes that a season must have been scored.
const FEWEST_OF_SEASON: u32 = 360;

/// How good the forecast has been over about a day. Losses are pinball losses (Koenker and Bassett, 1978) at the policy's
/// quantile, in mCPU: too little costs `quantile`, too much `1 − quantile` of the distance.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Accuracy {
    /// Of the floor.
    pub loss: f64,
    /// Of having no forecast: what pods ask for already.
    pub reactive_loss: f64,
    /// The share of minutes in which demand stayed below the floor.
    pub coverage: f64,
    /// Whether the forecast raises the floor: it does until it has been worse than none for a day.
    pub helps: bool,
    /// What is learnt from at present.
    pub source: Source,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    value: f64,
    count: u32,
}

impl Mean {
    /// A mean of all at first, of about a day later.
    fn add(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        let share = DAY.max(1.0 / f64::from(self.count));
        self.value += share * (value - self.value);
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scores {
    sources: [Mean; Source::ALL.len()],
    /// What the last days said at the minutes at which each season said something.
    beside: [Mean; Source::ALL.len()],
    floor: Mean,
    reactive: Mean,
    covered: Mean,
    /// It has been worse than none for a day.
    off: bool,
}

impl Scores {
    /// Holds an expectation against what came.
    pub(super) fn add(&mut self, open: &Open, quantile: f64) {
        let loss = |said: f64| {
            let distance = open.requested - said.max(open.then);
            if distance > 0.0 {
                quantile * distance
            } else {
                (quantile - 1.0) * distance
            }
        };
        let Some(lately) = open.said[Source::Lately as usize] else {
            return;
        };
        for source in Source::ALL {
            if let Some(said) = open.said[source as usize] {
                self.sources[source as usize].add(loss(said));
                self.beside[source as usize].add(loss(lately));
            }
        }
        let chosen = open.said[open.chosen as usize].unwrap_or(lately);
        self.floor.add(loss(chosen));
        self.reactive.add(loss(open.then));
        self.covered.add(if open.requested <= chosen.max(open.then) {
            1.0
        } else {
            0.0
        });
        let bound = if self.off {
            BACK * self.reactive.value
        } else {
            self.reactive.value
        };
        self.off = self.floor.count >= FEWEST && self.floor.value > bound;
    }

    /// The source that was best, the last days unless a season was clearly better.
    pub(super) fn best(&self) -> Source {
        let ratio = |source: Source| {
            let (own, other) = (self.sources[source as usize], self.beside[source as usize]);
            if own.count < FEWEST_OF_SEASON || other.value <= 0.0 {
                return f64::INFINITY;
            }
            own.value / other.value
        };
        let seasons = [Source::Hour, Source::Day, Source::Week];
        let best = seasons.into_iter().min_by(|a, b| ratio(*a).total_cmp(&ratio(*b)));
        best.filter(|source| ratio(*source) < BETTER)
            .unwrap_or(Source::Lately)
    }

    /// Whether the floor has been better than none.
    pub(super) fn helps(&self) -> bool {
        !self.off
    }

    pub(super) fn accuracy(&self) -> Accuracy {
        Accuracy {
            loss: self.floor.value,
            reactive_loss: self.reactive.value,
            coverage: self.covered.value,
            helps: self.helps(),
            source: self.best(),
        }
    }
}
