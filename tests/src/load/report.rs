//! What came of a load: figures, a table, and a picture.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use plotters::prelude::*;

use super::Plan;
use super::record::Sight;

/// Latencies are drawn for so many seconds each.
const WINDOW_S: u64 = 5;

/// What came of a load.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    sights: Vec<Sight>,
    /// Latencies in milliseconds, sorted, by the second of the run.
    latencies: BTreeMap<u64, Vec<f64>>,
    answered: usize,
    failed: usize,
    launches: usize,
}

impl Report {
    /// Of what k6 measured (its CSV) and what was seen meanwhile.
    pub(super) fn new(plan: &Plan, csv: &Path, sights: Vec<Sight>, launches: usize) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(csv).with_context(|| format!("read {}", csv.display()))?;
        let measured = Measured::parse(&text).with_context(|| format!("in {}", csv.display()))?;
        if sights.is_empty() {
            bail!("nothing was seen");
        }
        Ok(Self {
            plan: plan.clone(),
            sights,
            answered: measured.latencies.values().map(Vec::len).sum(),
            latencies: measured.latencies,
            failed: measured.failed,
            launches,
        })
    }

    /// Requests that were answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answered
    }

    /// Machines that were launched.
    #[must_use]
    pub fn launched(&self) -> usize {
        self.launches
    }

    fn most(&self, of: impl Fn(&Sight) -> u32) -> u32 {
        self.sights.iter().map(of).max().unwrap_or_default()
    }

    /// USD, as the machines were billed from the first sight to the last.
    fn usd(&self) -> f64 {
        let pairs = self.sights.windows(2);
        pairs
            .map(|pair| pair[0].usd_per_hour * (pair[1].at - pair[0].at).as_secs_f64() / 3600.0)
            .sum()
    }

    /// USD for the dearest moment's machines all the time.
    fn usd_fixed(&self) -> f64 {
        let dearest = self
            .sights
            .iter()
            .map(|sight| sight.usd_per_hour)
            .fold(0.0, f64::max);
        dearest * self.length().as_secs_f64() / 3600.0
    }

    fn length(&self) -> Duration {
        match (self.sights.first(), self.sights.last()) {
            (Some(first), Some(last)) => last.at - first.at,
            _ => Duration::ZERO,
        }
    }

    /// Seconds in which at least one pod was without a node.
    fn pending_s(&self) -> f64 {
        let pairs = self.sights.windows(2).filter(|pair| pair[0].pending > 0);
        pairs.map(|pair| (pair[1].at - pair[0].at).as_secs_f64()).sum()
    }

    /// Draws latency, requests, pods, nodes and cost over time, as SVG.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn draw(&self, path: &Path) -> anyhow::Result<()> {
        let area = SVGBackend::new(path, (900, 860)).into_drawing_area();
        area.fill(&WHITE)?;
        let panels = area.split_evenly((5, 1));
        let requests = self.rates();
        let end = self.length().as_secs_f64().max(1.0);
        let of = |of: fn(&Sight) -> f64| -> Vec<(f64, f64)> {
            let sights = self.sights.iter();
            sights.map(|sight| (sight.at.as_secs_f64(), of(sight))).collect()
        };
        let quantiles = |quantile: f64| -> Vec<(f64, f64)> { self.quantiles(quantile) };
        let all: [(&str, Vec<Line>); 5] = [
            (
                "latency of answered requests, ms: median (blue), 95th (orange), 99th (red) percentile",
                vec![
                    (BLUE, quantiles(0.5)),
                    (ORANGE, quantiles(0.95)),
                    (RED, quantiles(0.99)),
                ],
            ),
            ("requests a second", vec![(BLUE, requests)]),
            (
                "pods: serving (blue), without a node (red)",
                vec![
                    (BLUE, of(|sight| f64::from(sight.serving))),
                    (RED, of(|sight| f64::from(sight.pending))),
                ],
            ),
            (
                "nodes that are Ready",
                vec![(GREEN, of(|sight| f64::from(sight.nodes)))],
            ),
            ("USD an hour", vec![(PURPLE, of(|sight| sight.usd_per_hour))]),
        ];
        for (panel, (title, lines)) in panels.iter().zip(&all) {
            let values = lines.iter().flat_map(|(_, points)| points);
            let top = values.map(|(_, value)| *value).fold(0.0, f64::max).max(0.01) * 1.05;
            let mut chart = ChartBuilder::on(panel)
                .margin(8)
                .caption(title, ("sans-serif", 14))
                .x_label_area_size(22)
                .y_label_area_size(56)
                .build_cartesian_2d(0.0..end, 0.0..top)?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .light_line_style(WHITE)
                .y_labels(4)
                .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
                .draw()?;
            for (colour, points) in lines {
                chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(1)))?;
            }
        }
        area.present()?;
        Ok(())
    }

    /// Requests a second, of each window.
    fn rates(&self) -> Vec<(f64, f64)> {
        let windows = self.windows();
        #[allow(clippy::cast_precision_loss, reason = "seconds and requests of a run")]
        let rates = windows
            .into_iter()
            .map(|(at, all)| (at as f64, all.len() as f64 / WINDOW_S as f64));
        rates.collect()
    }

    fn quantiles(&self, quantile: f64) -> Vec<(f64, f64)> {
        let windows = self.windows();
        #[allow(clippy::cast_precision_loss, reason = "seconds of a run")]
        let quantiles = windows
            .into_iter()
            .filter_map(|(at, all)| Some((at as f64, quantile_of(&all, quantile)?)));
        quantiles.collect()
    }

    fn windows(&self) -> BTreeMap<u64, Vec<f64>> {
        let mut windows = BTreeMap::<u64, Vec<f64>>::new();
        for (second, all) in &self.latencies {
            windows
                .entry(second / WINDOW_S * WINDOW_S)
                .or_default()
                .extend(all);
        }
        for all in windows.values_mut() {
            all.sort_by(f64::total_cmp);
        }
        windows
    }
}

/// A colour and its points.
type Line = (RGBColor, Vec<(f64, f64)>);

const BLUE: RGBColor = RGBColor(43, 108, 176);
const ORANGE: RGBColor = RGBColor(192, 86, 33);
const RED: RGBColor = RGBColor(197, 48, 48);
const GREEN: RGBColor = RGBColor(47, 133, 90);
const PURPLE: RGBColor = RGBColor(107, 70, 193);

/// The table of the documentation.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<f64> = self.latencies.values().flatten().copied().collect();
        all.sort_by(f64::total_cmp);
        let quantile = |quantile| quantile_of(&all, quantile).unwrap_or(f64::NAN);
        let (usd, fixed) = (self.usd(), self.usd_fixed());
        #[allow(clippy::cast_precision_loss, reason = "requests of a run")]
        let failed = 100.0 * self.failed as f64 / (self.answered + self.failed).max(1) as f64;
        let rows = [
            (
                "profile",
                format!(
                    "{}, {} s, {} requests/s at the highest",
                    self.plan.profile,
                    self.plan.length.as_secs(),
                    self.plan.peak
                ),
            ),
            ("requests answered", self.answered.to_string()),
            (
                "turned away or too late",
                format!("{} ({failed:.2} %)", self.failed),
            ),
            (
                "latency: median, 95 %, 99 %",
                format!(
                    "{:.0} ms, {:.0} ms, {:.0} ms",
                    quantile(0.5),
                    quantile(0.95),
                    quantile(0.99)
                ),
            ),
            ("pods at the most", self.most(|sight| sight.serving).to_string()),
            (
                "time with a pod without a node",
                format!("{:.0} s", self.pending_s()),
            ),
            (
                "nodes: most, at the end, launched",
                format!(
                    "{}, {}, {}",
                    self.most(|sight| sight.nodes),
                    self.sights.last().map_or(0, |sight| sight.nodes),
                    self.launches
                ),
            ),
            (
                "cost, and of the dearest moment's nodes all the time",
                format!(
                    "{usd:.4} USD, {fixed:.4} USD ({:+.0} %)",
                    100.0 * (usd / fixed - 1.0)
                ),
            ),
        ];
        for (name, value) in rows {
            writeln!(f, "| {name} | {value} |")?;
        }
        Ok(())
    }
}

/// Of sorted values, the one that this part of them does not exceed; none of none.
fn quantile_of(sorted: &[f64], quantile: f64) -> Option<f64> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let rank = (sorted.len() as f64 * quantile).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// What k6 says of its requests.
#[derive(Debug, Default)]
struct Measured {
    latencies: BTreeMap<u64, Vec<f64>>,
    failed: usize,
}

impl Measured {
    /// Reads `metric_name,timestamp,metric_value,…,status,…`: the columns' names are in the first line, timestamps are
    /// seconds. Seconds are counted from the first.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next().context("it is empty")?.split(',').collect();
        let column = |name: &str| {
            let found = head.iter().position(|column| *column == name);
            found.with_context(|| format!("no column {name}"))
        };
        let (name, time, value, status) = (
            column("metric_name")?,
            column("timestamp")?,
            column("metric_value")?,
            column("status")?,
        );
        let mut measured = Self::default();
        let mut first = None;
        for (number, line) in lines.enumerate() {
            let fields: Vec<&str> = line.split(',').collect();
            if fields.get(name) != Some(&"http_req_duration") {
                continue;
            }
            let read = || -> Option<(u64, f64, &str)> {
                let time = fields.get(time)?.parse().ok()?;
                Some((time, fields.get(value)?.parse().ok()?, *fields.get(status)?))
            };
            let (time, value, status) = read().with_context(|| format!("line {}: {line}", number + 2))?;
            let first = *first.get_or_insert(time);
            if status == "200" {
                let second = time.saturating_sub(first);
                measured.latencies.entry(second).or_default().push(value);
            } else {
                measured.failed += 1;
            }
        }
        for all in measured.latencies.values_mut() {
            all.sort_by(f64::total_cmp);
        }
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test that cannot read its own text has failed"
    )]

    use super::*;

    #[test]
    fn answered_requests_are_kept_by_the_second_and_others_are_counted() {
        let text = "metric_name,timestamp,metric_value,check,status,extra_tags\n\
                    http_reqs,100,1.0,,200,\n\
                    http_req_duration,100,30.5,,200,\n\
                    http_req_duration,102,20.5,,200,\n\
                    http_req_duration,102,10.5,,200,\n\
                    http_req_duration,103,1.0,,503,\n\
                    http_req_duration,103,0.0,,0,\n";
        let measured = Measured::parse(text).unwrap();
        let expected = BTreeMap::from([(0, vec![30.5]), (2, vec![10.5, 20.5])]);
        assert_eq!((measured.latencies, measured.failed), (expected, 2));
    }

    #[test]
    fn what_is_not_a_measurement_is_refused_with_its_line() {
        let text = "metric_name,timestamp,metric_value,status\nhttp_req_duration,now,1,200\n";
        let error = Measured::parse(text).unwrap_err();
        assert!(error.to_string().starts_with("line 2:"), "{error}");
        assert_eq!(
            Measured::parse("a,b\n").unwrap_err().to_string(),
            "no column metric_name"
        );
    }

    #[test]
    fn a_quantile_is_the_smallest_value_that_so_many_do_not_exceed() {
        let values = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(quantile_of(&values, 0.5), Some(2.0));
        assert_eq!(quantile_of(&values, 0.99), Some(4.0));
        assert_eq!(quantile_of(&[], 0.5), None);
    }
}
