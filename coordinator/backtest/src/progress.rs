//! How far runs have come, for whoever shows it meanwhile: a count of ticks for each, taken without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{
    series::{Forecast, Recorder},
    tick::Tick,
    world::Measured,
};

/// How far the runs of [`Backtests`](crate::Backtests) have come.
#[derive(Debug)]
pub struct Progress {
    /// Ticks of the history.
    ticks: u64,
    /// By policy: ticks that its run has behind it.
    policies: Vec<AtomicU64>,
    /// The same of those that they are compared with, added up.
    rivals: AtomicU64,
    /// Runs of those.
    rival_runs: AtomicU64,
}

impl Progress {
    /// Nothing has begun, of a history of so many ticks and so many policies.
    pub(crate) fn new(ticks: u32, policies: usize) -> Self {
        Self {
            ticks: u64::from(ticks.max(1)),
            policies: (0..policies).map(|_| AtomicU64::new(0)).collect(),
            rivals: AtomicU64::new(0),
            rival_runs: AtomicU64::new(0),
        }
    }

    /// The part that is done of all there is to do, from 0 to 1.
    #[must_use]
    pub fn part(&self) -> f64 {
        let policies: u64 = self.policies.iter().map(|done| done.load(Relaxed)).sum();
        let runs = self.policies.len() as u64 + self.rival_runs.load(Relaxed);
        #[allow(clippy::cast_precision_loss, reason = "numbers of ticks")]
        let part = (policies + self.rivals.load(Relaxed)) as f64 / (runs.max(1) * self.ticks) as f64;
        part.min(1.0)
    }

    /// The policies that are being replayed, by index.
    #[must_use]
    pub fn under_way(&self) -> Vec<usize> {
        let runs = self.policies.iter().enumerate();
        runs.filter(|(_, done)| (1..self.ticks).contains(&done.load(Relaxed)))
            .map(|(index, _)| index)
            .collect()
    }

    /// So many more runs of those that policies are compared with are to come.
    pub(crate) fn expect(&self, rival_runs: u64) {
        self.rival_runs.fetch_add(rival_runs, Relaxed);
    }

    /// Where the ticks of a policy's run are counted.
    pub(crate) fn of_policy(&self, index: usize) -> &AtomicU64 {
        // A policy more than was announced counts as a rival.
        self.policies.get(index).unwrap_or(&self.rivals)
    }

    /// Where those of the others are.
    pub(crate) fn of_rivals(&self) -> &AtomicU64 {
        &self.rivals
    }
}

/// Counts ticks on their way to another recorder.
pub(crate) struct Counted<'p, R> {
    pub(crate) count: &'p AtomicU64,
    pub(crate) inner: R,
}

impl<R: Recorder> Recorder for Counted<'_, R> {
    fn record(&mut self, now: Tick, measured: &Measured, forecast: Option<Forecast>) {
        self.count.fetch_add(1, Relaxed);
        self.inner.record(now, measured, forecast);
    }

    fn finish(&mut self) {
        self.inner.finish();
    }
}
