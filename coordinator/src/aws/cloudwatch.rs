//! Metrics for CloudWatch under their published names, summed up and sent when the sink flushes.
//!
//! Every metric carries the dimension `ClusterId`. Those with a second dimension (`ScaleUpEvents` by `Reason`,
//! `ScalingFailures` by `ErrorType`) are sent without it as well, since CloudWatch adds nothing up over dimensions
//! and an alarm wants the total; `NodeJoinLatency` is the whole of a join, and with `Step` one step of the boot. Figures
//! that could not be sent are kept for the next flush; levels (`CurrentNodeCount`, `ClusterCPUUtilization`,
//! `ClusterMemoryUtilization`) are read when it comes.

mod metric;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_cloudwatch::{
    Client,
    primitives::DateTime,
    types::{Dimension, MetricDatum},
};
use http::Uri;

use self::metric::Metric;
use super::failure::not_told;
use crate::tell::{Event, Happening, Metrics, Notifier, NotifyError, Severity};

/// The most data of one call: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html>.
const MOST_DATA: usize = 1000;
/// The most different values of one datum.
const MOST_VALUES: usize = 150;
/// The most samples of one metric that are kept while CloudWatch does not answer.
const MOST_SAMPLES: usize = 10_000;
/// The longest value of a dimension.
const LONGEST_DIMENSION: usize = 255;

/// A metric, and the value of its second dimension.
type Key = (Metric, Option<String>);

/// What stands at the moment of a flush; `None`: nobody knows, and nothing is sent.
#[derive(Debug, Clone, Copy, Default)]
struct Levels {
    nodes: Option<u32>,
    cpu_percent: Option<f64>,
    memory_percent: Option<f64>,
}

impl Levels {
    /// Of the leader alone: a standby would report the same nodes a second time.
    fn of(metrics: &Metrics) -> Self {
        if !metrics.is_leader() {
            return Self::default();
        }
        let (cpu_percent, memory_percent) = metrics.utilisation();
        Self {
            nodes: metrics.node_count(),
            cpu_percent,
            memory_percent,
        }
    }
}

/// What has been counted and measured since the last flush.
#[derive(Debug, Clone, Default, PartialEq)]
struct Figures {
    counts: BTreeMap<Key, f64>,
    /// In seconds.
    samples: BTreeMap<Key, Vec<f64>>,
}

impl Figures {
    fn count(&mut self, metric: Metric, second: Option<&str>) {
        *self.counts.entry((metric, None)).or_default() += 1.0;
        if let Some(value) = second {
            let key = (metric, Some(dimension_value(value)));
            *self.counts.entry(key).or_default() += 1.0;
        }
    }

    fn sample(&mut self, metric: Metric, second: Option<&str>, seconds: f64) {
        let samples = self.samples.entry((metric, second.map(dimension_value)));
        let samples = samples.or_default();
        if seconds.is_finite() && samples.len() < MOST_SAMPLES {
            samples.push(seconds);
        }
    }

    fn take_in(&mut self, happening: &Happening) {
        match &happening.event {
            Event::Decided { seconds, .. } => {
                self.count(Metric::AutoscalerInvocations, None);
                self.sample(Metric::ExecutionTime, None, *seconds);
            }
            Event::Operation {
                ended: true,
                succeeded,
                operation_kind,
                error_type,
                grounds,
                ..
            } => match (operation_kind.as_str(), *succeeded) {
                ("launch", true) => self.count(Metric::ScaleUpEvents, Some(&grounds.asked_by())),
                ("remove", true) => self.count(Metric::ScaleDownEvents, None),
                (_, true) => {}
                (_, false) => self.failure(error_type.as_deref()),
            },
            Event::Joined { seconds, .. } => self.sample(Metric::NodeJoinLatency, None, *seconds),
            Event::BootStep {
                step,
                outcome,
                seconds,
                ..
            } if outcome == "done" => {
                self.sample(Metric::NodeJoinLatency, Some(step), *seconds);
            }
            Event::Trouble { error_type } if happening.severity == Severity::Failure => {
                self.failure(Some(error_type));
            }
            _ => {}
        }
    }

    fn failure(&mut self, error_type: Option<&str>) {
        self.count(Metric::ScalingFailures, Some(error_type.unwrap_or("other")));
    }

    /// Takes back what could not be sent.
    fn add(&mut self, other: Self) {
        for (key, count) in other.counts {
            *self.counts.entry(key).or_default() += count;
        }
        for (metric, mut samples) in other.samples {
            let newer = self.samples.entry(metric).or_default();
            samples.append(newer);
            samples.truncate(MOST_SAMPLES);
            *newer = samples;
        }
    }

    fn data(&self, cluster_id: &str, levels: Levels, time: DateTime) -> Vec<MetricDatum> {
        let datum = |metric: Metric, second: Option<&str>| {
            let datum = MetricDatum::builder()
                .metric_name(metric.name())
                .dimensions(dimension("ClusterId", cluster_id))
                .timestamp(time)
                .unit(metric.unit());
            match metric.second().zip(second) {
                Some((name, value)) => datum.dimensions(dimension(name, value)),
                None => datum,
            }
        };
        let mut data = Vec::new();
        for ((metric, second), count) in &self.counts {
            data.push(datum(*metric, second.as_deref()).value(*count).build());
        }
        for ((metric, second), samples) in &self.samples {
            data.extend(samples.chunks(MOST_VALUES).map(|values| {
                datum(*metric, second.as_deref())
                    .set_values(Some(values.to_vec()))
                    .build()
            }));
        }
        let levels = [
            (Metric::CurrentNodeCount, levels.nodes.map(f64::from)),
            (Metric::ClusterCPUUtilization, levels.cpu_percent),
            (Metric::ClusterMemoryUtilization, levels.memory_percent),
        ];
        for (metric, level) in levels {
            if let Some(level) = level {
                data.push(datum(metric, None).value(level).build());
            }
        }
        data
    }
}

fn dimension(name: &str, value: &str) -> Dimension {
    Dimension::builder().name(name).value(value).build()
}

/// A value that CloudWatch takes: printable ASCII that does not begin with a colon.
fn dimension_value(text: &str) -> String {
    let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let value: String = text
        .trim()
        .trim_start_matches(':')
        .chars()
        .take(LONGEST_DIMENSION)
        .map(printable)
        .collect();
    if value.trim().is_empty() {
        "other".to_owned()
    } else {
        value
    }
}

/// A namespace of CloudWatch.
#[derive(Debug)]
pub struct CloudWatch {
    client: Client,
    namespace: String,
    cluster_id: String,
    metrics: Metrics,
    figures: Mutex<Figures>,
}

impl CloudWatch {
    /// Counts what happens in the cluster; the number of nodes and their utilisation are read from `metrics`, while this
    /// coordinator leads. Sends nothing yet.
    #[must_use]
    pub fn new(config: &SdkConfig, namespace: String, cluster_id: String, metrics: Metrics) -> Self {
        Self {
            client: Client::new(config),
            namespace,
            cluster_id,
            metrics,
            figures: Mutex::default(),
        }
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where it is.
///
/// # Errors
/// What is missing to know that.
pub fn endpoint(config: &SdkConfig) -> Result<Uri, String> {
    let own = std::env::var("AWS_ENDPOINT_URL_CLOUDWATCH").ok();
    let address = match (own.as_deref().or(config.endpoint_url()), config.region()) {
        (Some(url), _) => url.to_owned(),
        (None, Some(region)) => {
            let region: &str = region.as_ref();
            let suffix = if region.starts_with("cn-") {
                "amazonaws.com.cn"
            } else {
                "amazonaws.com"
            };
            format!("https://monitoring.{region}.{suffix}")
        }
        (None, None) => return Err("nobody says in which region: aws.region is missing".to_owned()),
    };
    address
        .parse()
        .map_err(|error| format!("{address} is no address: {error}"))
}

#[async_trait]
impl Notifier for CloudWatch {
    fn name(&self) -> &'static str {
        "cloudwatch"
    }

    async fn notify(&self, happening: &Happening) -> Result<(), NotifyError> {
        self.figures().take_in(happening);
        Ok(())
    }

    async fn flush(&self) -> Result<(), NotifyError> {
        let levels = Levels::of(&self.metrics);
        let figures = std::mem::take(&mut *self.figures());
        let data = figures.data(&self.cluster_id, levels, SystemTime::now().into());
        let mut sent = 0;
        for batch in data.chunks(MOST_DATA) {
            let put = self.client.put_metric_data().namespace(&self.namespace);
            let answer = put.set_metric_data(Some(batch.to_vec())).send().await;
            if let Err(error) = answer {
                let error = not_told(&error);
                // Nothing is sent twice, and nothing is kept that will be refused again.
                if sent == 0 && matches!(error, NotifyError::Passing(_)) {
                    self.figures().add(figures);
                }
                return Err(error);
            }
            sent += batch.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use jiff::Timestamp;
    use smartscale_planner::RuleName;

    use super::*;
    use crate::tell::Grounds;

    fn taken_in(events: impl IntoIterator<Item = Event>) -> Figures {
        let mut figures = Figures::default();
        for event in events {
            figures.take_in(&Happening {
                time: Timestamp::UNIX_EPOCH,
                severity: Severity::Info,
                message: String::new(),
                event,
            });
        }
        figures
    }

    fn operation(kind: &str, ended: bool, succeeded: bool, error_type: Option<&str>) -> Event {
        Event::Operation {
            operation: "op-1".parse().unwrap(),
            operation_kind: kind.into(),
            phase: "x".into(),
            ended,
            succeeded,
            reason: "launch 1 node for 3 pending pods (0.0208 USD an hour)".into(),
            nodes: Vec::new(),
            pods: Vec::new(),
            error_type: error_type.map(Into::into),
            decision: None,
            grounds: Grounds::of_rules([RuleName::PendingPods]),
        }
    }

    fn decided(seconds: f64) -> Event {
        Event::Decided {
            decision: "d-1".parse().unwrap(),
            action: "none".into(),
            reasons: Vec::new(),
            seconds,
            grounds: Grounds::default(),
            nodes: Vec::new(),
            operations: Vec::new(),
        }
    }

    /// `name{dimension=value,…} value|values unit`, sorted.
    fn lines(figures: &Figures, levels: Levels) -> Vec<String> {
        let data = figures.data("demo", levels, DateTime::from_secs(0));
        let mut lines: Vec<String> = data
            .iter()
            .map(|datum| {
                let dimensions = datum.dimensions().iter();
                let dimensions: Vec<String> = dimensions
                    .map(|d| format!("{}={}", d.name().unwrap(), d.value().unwrap()))
                    .collect();
                let value = datum
                    .value()
                    .map_or_else(|| format!("{:?}", datum.values()), |v| v.to_string());
                let unit = datum.unit().unwrap().as_str();
                format!(
                    "{}{{{}}} {value} {unit}",
                    datum.metric_name().unwrap(),
                    dimensions.join(",")
                )
            })
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn everything_goes_under_its_published_name() {
        let figures = taken_in([
            decided(0.5),
            decided(0.25),
            operation("launch", false, false, None),
            operation("launch", true, true, None),
            operation("remove", true, true, None),
            operation("drain", true, true, None),
            operation("launch", true, false, Some("capacity")),
            operation("remove", true, false, None),
            Event::Joined {
                instance: "i-1".parse().unwrap(),
                seconds: 42.0,
            },
        ]);
        let levels = Levels {
            nodes: Some(3),
            cpu_percent: Some(91.5),
            memory_percent: None,
        };
        assert_eq!(
            lines(&figures, levels),
            [
                "AutoscalerInvocations{ClusterId=demo} 2 Count",
                "ClusterCPUUtilization{ClusterId=demo} 91.5 Percent",
                "CurrentNodeCount{ClusterId=demo} 3 Count",
                "ExecutionTime{ClusterId=demo} [0.5, 0.25] Seconds",
                "NodeJoinLatency{ClusterId=demo} [42.0] Seconds",
                "ScaleDownEvents{ClusterId=demo} 1 Count",
                "ScaleUpEvents{ClusterId=demo,Reason=pending_pods} 1 Count",
                "ScaleUpEvents{ClusterId=demo} 1 Count",
                "ScalingFailures{ClusterId=demo,ErrorType=capacity} 1 Count",
                "ScalingFailures{ClusterId=demo,ErrorType=other} 1 Count",
                "ScalingFailures{ClusterId=demo} 2 Count",
            ]
        );
    }

    /// Which is what docs/cloudwatch.md reckons with: each name with its dimensions is paid for.
    #[test]
    fn while_nothing_happens_five_metrics_are_sent() {
        let levels = Levels {
            nodes: Some(3),
            cpu_percent: Some(41.0),
            memory_percent: Some(50.0),
        };
        let figures = taken_in(std::iter::repeat_n(decided(0.1), 6));
        assert_eq!(lines(&figures, levels).len(), 5);
    }

    #[test]
    fn what_nobody_knows_is_not_sent() {
        assert!(lines(&Figures::default(), Levels::default()).is_empty());
    }

    #[test]
    fn levels_are_those_that_the_leader_knows() {
        let metrics = Metrics::new("0");
        metrics.set_nodes(2, 2);
        metrics.set_utilisation(Some(95.0), None);
        let told = |metrics: &Metrics| lines(&Figures::default(), Levels::of(metrics));
        assert!(told(&metrics).is_empty());
        metrics.set_leader(true);
        assert_eq!(
            told(&metrics),
            [
                "ClusterCPUUtilization{ClusterId=demo} 95 Percent",
                "CurrentNodeCount{ClusterId=demo} 2 Count",
            ]
        );
    }

    #[test]
    fn what_could_not_be_sent_is_added_to_what_came_since() {
        let mut newer = taken_in([decided(2.0)]);
        newer.add(taken_in([decided(1.0)]));
        assert_eq!(newer, taken_in([decided(1.0), decided(2.0)]));
    }

    #[test]
    fn many_samples_are_spread_over_data() {
        let figures = taken_in((0..MOST_VALUES + 1).map(|_| decided(1.0)));
        let data = figures.data("demo", Levels::default(), DateTime::from_secs(0));
        let times = data
            .iter()
            .filter(|datum| datum.metric_name() == Some("ExecutionTime"));
        assert_eq!(
            times.map(|datum| datum.values().len()).collect::<Vec<_>>(),
            [MOST_VALUES, 1]
        );
    }

    #[test]
    fn a_dimension_keeps_to_what_cloudwatch_takes() {
        assert_eq!(dimension_value(" :aé"), "a?");
        assert_eq!(dimension_value(" "), "other");
        assert_eq!(dimension_value(&"x".repeat(300)).len(), LONGEST_DIMENSION);
    }
}
