//! How high demand goes within so many minutes, learnt from how high it went after each minute so far.

use std::collections::VecDeque;

use super::{regression::Regression, spread::Spread, trend::Trend};

/// What was learnt.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach {
    /// How high the minutes after a trend go …
    regression: Regression,
    /// … and how far from that they went, in units of the scatter at that time.
    surprises: Spread,
    /// Minutes of which it is not known yet, the oldest first.
    open: VecDeque<Open>,
}

#[derive(Debug, Clone)]
struct Open {
    /// The last minute that it is about.
    until: u64,
    trend: Trend,
    /// What the root of the highest demand was expected to be.
    root: f64,
    /// Highest demand since.
    most: f64,
}

impl Reach {
    /// How often it was seen what came.
    pub(super) fn len(&self) -> usize {
        self.surprises.len()
    }

    /// A minute was not seen: nobody knows what came.
    pub(super) fn forget_open(&mut self) {
        self.open.clear();
    }

    /// A minute is over, in which there was this demand.
    pub(super) fn came(&mut self, number: u64, signal: f64) {
        for open in &mut self.open {
            open.most = open.most.max(signal);
        }
        while let Some(open) = self.open.pop_front_if(|open| open.until <= number) {
            let root = open.most.max(0.0).sqrt();
            self.surprises.add((root - open.root) / open.trend.scatter());
            self.regression
                .learn(&open.trend.features(), root / open.trend.size());
        }
    }

    /// What comes until the minute `until` is to be learnt from.
    pub(super) fn await_until(&mut self, until: u64, trend: Trend) {
        let root = self.root(&trend);
        self.open.push_back(Open {
            until,
            trend,
            root,
            most: 0.0,
        });
    }

    /// The root that the highest demand after a trend is expected to have.
    fn root(&self, trend: &Trend) -> f64 {
        self.regression.of(&trend.features()) * trend.size()
    }

    /// How high demand may go after a trend: every height with its weight, the lowest first.
    pub(super) fn heights(&self, trend: &Trend) -> impl Iterator<Item = (f64, f64)> {
        let (root, scatter) = (self.root(trend), trend.scatter());
        let height = move |distance: f64| (root + scatter * distance).max(0.0).powi(2);
        self.surprises
            .weights()
            .map(move |(distance, weight)| (height(distance), weight))
    }

    /// The height below which it stays that often.
    pub(super) fn quantile(&self, trend: &Trend, quantile: f64) -> Option<f64> {
        let distance = self.surprises.quantile(quantile)?;
        Some((self.root(trend) + trend.scatter() * distance).max(0.0).powi(2))
    }
}
