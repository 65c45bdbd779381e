//! The rules on cluster averages: what counts as a reading, what is sustained, what has fired.
//!
//! A reading counts while it is at most 3 minutes old, and an earlier one while its neighbour is at most 3 minutes
//! away; the chain ends at the first gap. CPU and memory are judged apart: where one is unknown, the other still counts.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{
    Hold, Policy, Rule, RuleName,
    model::Percent,
    snapshot::{Metrics, Reading, Source},
};

/// A cluster reading counts for so long, and so far may neighbours be apart.
const CLUSTER_FRESH: SignedDuration = SignedDuration::from_mins(3);
/// A node reading counts for so long.
const NODE_FRESH: SignedDuration = SignedDuration::from_mins(1);

/// The rules on averages, evaluated.
#[derive(Clone, Debug)]
pub(crate) struct Averages {
    pub(crate) cpu_above: Rule,
    pub(crate) memory_above: Rule,
    pub(crate) cpu_below: Rule,
    pub(crate) memory_below: Rule,
    /// The newest figures, if both are known.
    pub(crate) newest: Option<Usage>,
    /// A threshold is passed, but not for long enough.
    up_unsustained: bool,
    down_unsustained: bool,
}

/// CPU and memory in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu: f64,
    pub(crate) memory: f64,
}

/// One figure with its time and source.
struct Figure {
    time: Timestamp,
    value: f64,
    source: Source,
}

impl Averages {
    pub(super) fn of(metrics: &Metrics, policy: &Policy, now: Timestamp) -> Self {
        let cpu = chain(metrics, |reading| reading.cpu_percent, now);
        let memory = chain(metrics, |reading| reading.memory_percent, now);
        let (up, down) = (&policy.scale_up, &policy.scale_down);
        let above = |chain: &[Figure], name, threshold: Percent| {
            let is_above = |figure: &&Figure| figure.value > threshold.0;
            let fired = chain.iter().take_while(is_above).count() >= up.sustained_readings as usize;
            (
                rule(name, chain, threshold, fired, metrics.source, now),
                chain.first().is_some_and(|f| is_above(&f)),
            )
        };
        let below = |chain: &[Figure], name, threshold: Percent| {
            let is_below = |figure: &&Figure| figure.value < threshold.0;
            let fired = reaches_back(chain.iter().take_while(is_below), down.sustained, now);
            (
                rule(name, chain, threshold, fired, metrics.source, now),
                chain.first().is_some_and(|f| is_below(&f)),
            )
        };
        let (cpu_above, cpu_is_above) = above(&cpu, RuleName::CpuAbove, up.cpu_percent);
        let (memory_above, memory_is_above) = above(&memory, RuleName::MemoryAbove, up.memory_percent);
        let (cpu_below, cpu_is_below) = below(&cpu, RuleName::CpuBelow, down.cpu_percent);
        let (memory_below, memory_is_below) = below(&memory, RuleName::MemoryBelow, down.memory_percent);
        let newest = match (cpu.first(), memory.first()) {
            (Some(cpu), Some(memory)) => Some(Usage {
                cpu: cpu.value,
                memory: memory.value,
            }),
            _ => None,
        };
        Self {
            up_unsustained: (cpu_is_above && !cpu_above.fired) || (memory_is_above && !memory_above.fired),
            down_unsustained: cpu_is_below && memory_is_below && !(cpu_below.fired && memory_below.fired),
            cpu_above,
            memory_above,
            cpu_below,
            memory_below,
            newest,
        }
    }

    /// Whether metrics ask for more nodes.
    pub(super) fn up(&self) -> bool {
        self.cpu_above.fired || self.memory_above.fired
    }

    /// Whether metrics allow fewer.
    pub(crate) fn down(&self) -> bool {
        self.cpu_below.fired && self.memory_below.fired
    }

    /// What the figures themselves hold back. A cluster that may shrink by `fits` waits for no average.
    pub(super) fn holds(&self, asks_averages_below: bool) -> Vec<Hold> {
        let mut holds = Vec::new();
        if self.newest.is_none() {
            holds.push(Hold::MetricsUnknown);
        }
        let up = self.up_unsustained && !self.up();
        if up || (asks_averages_below && self.down_unsustained) {
            holds.push(Hold::NotSustained);
        }
        holds
    }
}

/// Readings of one figure that count, the newest first.
fn chain(metrics: &Metrics, figure: fn(&Reading) -> Option<f64>, now: Timestamp) -> Vec<Figure> {
    let mut all: Vec<Figure> = metrics
        .cluster
        .iter()
        .filter(|reading| reading.time <= now)
        .filter_map(|reading| {
            let value = figure(reading).filter(|value| value.is_finite() && *value >= 0.0)?;
            Some(Figure {
                time: reading.time,
                value,
                source: reading.source,
            })
        })
        .collect();
    // Of two readings of one moment the higher one counts: it is the careful choice for the veto.
    all.sort_by(|a, b| {
        b.time
            .cmp(&a.time)
            .then(b.value.total_cmp(&a.value))
            .then(a.source.cmp(&b.source))
    });
    all.dedup_by(|later, kept| later.time == kept.time);
    let mut previous = now;
    let connected = all
        .iter()
        .take_while(|figure| {
            let gap = previous.duration_since(figure.time);
            previous = figure.time;
            gap <= CLUSTER_FRESH
        })
        .count();
    all.truncate(connected);
    all
}

/// Whether the last of these readings is at least `sustained` old.
fn reaches_back<'f>(chain: impl Iterator<Item = &'f Figure>, sustained: Duration, now: Timestamp) -> bool {
    let needed = SignedDuration::try_from(sustained).unwrap_or(SignedDuration::MAX);
    chain
        .last()
        .is_some_and(|oldest| now.duration_since(oldest.time) >= needed)
}

fn rule(
    rule: RuleName,
    chain: &[Figure],
    threshold: Percent,
    fired: bool,
    source: Source,
    now: Timestamp,
) -> Rule {
    let newest = chain.first();
    Rule {
        rule,
        value: newest.map(|figure| figure.value),
        threshold: threshold.0,
        fired,
        source: newest.map_or(source, |figure| figure.source),
        age_seconds: newest.map(|figure| now.duration_since(figure.time).as_secs()),
    }
}

/// A node's own usage, if it is fresh and both figures are known.
pub(crate) fn node_usage(metrics: &Metrics, node: &str, now: Timestamp) -> Option<Usage> {
    let reading = metrics.nodes.get(node)?;
    let age = now.duration_since(reading.time);
    if age < SignedDuration::ZERO || age > NODE_FRESH {
        return None;
    }
    let known = |figure: Option<f64>| figure.filter(|value| value.is_finite() && *value >= 0.0);
    Some(Usage {
        cpu: known(reading.cpu_percent)?,
        memory: known(reading.memory_percent)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{now, policy, reading};

    fn averages(readings: &[(&str, f64, f64)]) -> Averages {
        let cluster = readings
            .iter()
            .map(|(at, cpu, memory)| reading(at, *cpu, *memory))
            .collect();
        Averages::of(
            &Metrics {
                cluster,
                ..Metrics::default()
            },
            &policy(""),
            now(),
        )
    }

    #[test]
    fn exactly_the_threshold_is_not_above() {
        assert!(
            !averages(&[
                ("2026-01-02T03:03:00Z", 70.0, 0.0),
                ("2026-01-02T03:04:00Z", 70.0, 0.0)
            ])
            .up()
        );
        assert!(
            averages(&[
                ("2026-01-02T03:03:00Z", 70.1, 0.0),
                ("2026-01-02T03:04:00Z", 70.1, 0.0)
            ])
            .up()
        );
    }

    #[test]
    fn one_reading_above_is_not_sustained() {
        let one = averages(&[
            ("2026-01-02T03:03:00Z", 60.0, 0.0),
            ("2026-01-02T03:04:00Z", 90.0, 0.0),
        ]);
        assert!(!one.up());
        assert_eq!(one.holds(true), [Hold::NotSustained]);
    }

    #[test]
    fn a_gap_of_more_than_three_minutes_breaks_the_chain() {
        assert!(
            !averages(&[
                ("2026-01-02T03:00:59Z", 90.0, 0.0),
                ("2026-01-02T03:04:00Z", 90.0, 0.0)
            ])
            .up()
        );
        assert!(
            averages(&[
                ("2026-01-02T03:01:00Z", 90.0, 0.0),
                ("2026-01-02T03:04:00Z", 90.0, 0.0)
            ])
            .up()
        );
    }

    #[test]
    fn readings_that_are_old_or_of_the_future_are_unknown() {
        let old = averages(&[
            ("2026-01-02T03:01:04Z", 90.0, 90.0),
            ("2026-01-02T03:05:00Z", 90.0, 90.0),
        ]);
        assert_eq!((old.cpu_above.value, old.newest), (None, None));
        assert_eq!(old.holds(false), [Hold::MetricsUnknown]);
        assert!(averages(&[("2026-01-02T03:01:05Z", 90.0, 90.0)]).newest.is_some());
    }

    #[test]
    fn below_must_reach_back_for_the_whole_time() {
        let minutes = |from: u32| -> Vec<(String, f64, f64)> {
            (from..64)
                .map(|m| {
                    (
                        format!("2026-01-02T{:02}:{:02}:05Z", 2 + m / 60, m % 60),
                        10.0,
                        10.0,
                    )
                })
                .collect()
        };
        let run = |list: &[(String, f64, f64)]| {
            averages(
                &list
                    .iter()
                    .map(|(at, cpu, memory)| (at.as_str(), *cpu, *memory))
                    .collect::<Vec<_>>(),
            )
        };
        assert!(run(&minutes(53)).down());
        assert!(!run(&minutes(55)).down());
        let mut once_hot = minutes(53);
        once_hot[5].1 = 30.0;
        assert!(!run(&once_hot).down(), "exactly the threshold is not below");
    }
}
