//! A run minute by minute: what `--series` writes and plots are drawn from.

use std::io::Write;

use jiff::{Timestamp, tz::Offset};

use crate::{
    tick::{PER_MINUTE, Tick},
    trace::Trace,
    world::Measured,
};

/// Looks on while a history is replayed.
pub(crate) trait Recorder {
    /// A tick is over, at which this was expected.
    fn record(&mut self, now: Tick, measured: &Measured, forecast: Option<Forecast>);
    /// The history is over.
    fn finish(&mut self);
}

impl Recorder for () {
    fn record(&mut self, _: Tick, _: &Measured, _: Option<Forecast>) {}
    fn finish(&mut self) {}
}

/// One minute: four ticks from the first row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Minute {
    /// When it begins.
    pub time: Timestamp,
    /// All of them.
    pub requests: f64,
    /// The most.
    pub pods_wanted: u32,
    /// The fewest.
    pub pods_serving: u32,
    /// The most.
    pub pods_pending: u32,
    /// At its last tick.
    pub nodes_ready: u32,
    /// The mean.
    pub nodes_billed: f64,
    /// The mean, USD.
    pub cost_per_hour: f64,
    /// Some tick was short.
    pub short: bool,
    /// At its last tick, which has seen the whole minute. Plots show it; the columns of the CSV are a contract without it.
    pub forecast: Option<Forecast>,
}

/// How many pods there will be at most within the time that a node takes to boot, as a forecast has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// Half of the time there are fewer, in pods.
    pub median: f64,
    /// So often, as the policy's quantile says, there are fewer, in pods.
    pub high: f64,
}

/// A run, minute by minute.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The offset in which times are written.
    pub offset: Offset,
    /// Its minutes.
    pub minutes: Vec<Minute>,
}

impl Series {
    /// Writes CSV with a header.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_csv(&self, mut out: impl Write) -> std::io::Result<()> {
        writeln!(
            out,
            "time,requests,pods_wanted,pods_serving,pods_pending,nodes_ready,nodes_billed,cost_per_hour"
        )?;
        for minute in &self.minutes {
            writeln!(
                out,
                "{},{},{},{},{},{},{},{}",
                minute.time.display_with_offset(self.offset),
                minute.requests,
                minute.pods_wanted,
                minute.pods_serving,
                minute.pods_pending,
                minute.nodes_ready,
                minute.nodes_billed,
                rounded(minute.cost_per_hour),
            )?;
        }
        out.flush()
    }
}

/// Without the last digits of a sum of prices.
fn rounded(usd: f64) -> f64 {
    (usd * 1e9).round() / 1e9
}

/// Collects minutes.
pub(crate) struct Minutes {
    start: Timestamp,
    ticks: u32,
    open: Option<Minute>,
    pub(crate) series: Series,
}

impl Minutes {
    pub(crate) fn new(trace: &Trace) -> Self {
        Self {
            start: trace.start(),
            ticks: 0,
            open: None,
            series: Series {
                offset: trace.offset(),
                minutes: Vec::new(),
            },
        }
    }

    fn close(&mut self) {
        if let Some(mut minute) = self.open.take() {
            let ticks = f64::from(self.ticks.max(1));
            minute.nodes_billed /= ticks;
            minute.cost_per_hour /= ticks;
            self.series.minutes.push(minute);
        }
        self.ticks = 0;
    }
}

impl Recorder for Minutes {
    fn record(&mut self, now: Tick, measured: &Measured, forecast: Option<Forecast>) {
        if now.0.is_multiple_of(PER_MINUTE) {
            self.close();
        }
        let minute = self.open.get_or_insert(Minute {
            time: now.time(self.start),
            requests: 0.0,
            pods_wanted: 0,
            pods_serving: u32::MAX,
            pods_pending: 0,
            nodes_ready: 0,
            nodes_billed: 0.0,
            cost_per_hour: 0.0,
            short: false,
            forecast: None,
        });
        minute.requests += measured.requests;
        minute.pods_wanted = minute.pods_wanted.max(measured.wanted);
        minute.pods_serving = minute.pods_serving.min(measured.serving);
        minute.pods_pending = minute.pods_pending.max(measured.pending);
        minute.nodes_ready = measured.ready;
        minute.nodes_billed += f64::from(measured.billed);
        minute.cost_per_hour += measured.cost;
        minute.short |= measured.short;
        minute.forecast = forecast;
        self.ticks += 1;
    }

    fn finish(&mut self) {
        self.close();
    }
}
