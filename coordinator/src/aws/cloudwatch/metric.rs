//! The metrics that CloudWatch is sent. `docs/reference/metrics-cloudwatch.md` is made from this list.

use aws_sdk_cloudwatch::types::StandardUnit;

/// A metric. The words of its variants are its published names, so that they can be read in the reference as here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Metric {
    /// Decisions taken.
    AutoscalerInvocations,
    /// Average of the CPU in use, as the leader knows it.
    ClusterCPUUtilization,
    /// Average of the memory in use, as the leader knows it.
    ClusterMemoryUtilization,
    /// Nodes of our pools, as the leader knows them.
    CurrentNodeCount,
    /// Time to observe, plan and record one decision.
    ExecutionTime,
    /// From the launch call to a Ready node; with `Step` one step of the machine's boot, from its own beginning.
    NodeJoinLatency,
    /// Removals that ended well.
    ScaleDownEvents,
    /// Launches that ended well; with `Reason` those that this rule asked for.
    ScaleUpEvents,
    /// Operations that failed, and troubles that somebody must act on; with `ErrorType` those of this class.
    ScalingFailures,
}

impl Metric {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::AutoscalerInvocations => "AutoscalerInvocations",
            Self::ClusterCPUUtilization => "ClusterCPUUtilization",
            Self::ClusterMemoryUtilization => "ClusterMemoryUtilization",
            Self::CurrentNodeCount => "CurrentNodeCount",
            Self::ExecutionTime => "ExecutionTime",
            Self::NodeJoinLatency => "NodeJoinLatency",
            Self::ScaleDownEvents => "ScaleDownEvents",
            Self::ScaleUpEvents => "ScaleUpEvents",
            Self::ScalingFailures => "ScalingFailures",
        }
    }

    pub(super) const fn unit(self) -> StandardUnit {
        match self {
            Self::AutoscalerInvocations
            | Self::CurrentNodeCount
            | Self::ScaleDownEvents
            | Self::ScaleUpEvents
            | Self::ScalingFailures => StandardUnit::Count,
            Self::ClusterCPUUtilization | Self::ClusterMemoryUtilization => StandardUnit::Percent,
            Self::ExecutionTime | Self::NodeJoinLatency => StandardUnit::Seconds,
        }
    }

    /// The dimension by which it is sent beside `ClusterId`, as well as without it.
    pub(super) const fn second(self) -> Option<&'static str> {
        match self {
            Self::NodeJoinLatency => Some("Step"),
            Self::ScaleUpEvents => Some("Reason"),
            Self::ScalingFailures => Some("ErrorType"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "writing to a string cannot fail")]

    use std::fmt::Write as _;

    use smartscale_reference::{Source, agree, meanings};

    use super::*;

    const ABOUT: &str = "\
# Metrics in CloudWatch

What a coordinator with `[cloudwatch] enabled` sends to the namespace `cloudwatch.namespace`, each with the dimension `ClusterId`. One
with a second dimension is sent without it as well, since CloudWatch adds nothing up over dimensions. What they cost is in
[cloudwatch](../cloudwatch.md), what an `ErrorType` means in [errors](errors.md). Made from the coordinator (`make reference`).

| metric | unit | also by | is |
| --- | --- | --- | --- |
";

    const ALL: [Metric; 9] = [
        Metric::AutoscalerInvocations,
        Metric::ClusterCPUUtilization,
        Metric::ClusterMemoryUtilization,
        Metric::CurrentNodeCount,
        Metric::ExecutionTime,
        Metric::NodeJoinLatency,
        Metric::ScaleDownEvents,
        Metric::ScaleUpEvents,
        Metric::ScalingFailures,
    ];

    #[test]
    fn the_reference_of_cloudwatchs_metrics_is_what_is_sent() {
        let source = Source::new(&[include_str!("metric.rs")], &[]);
        let mut page = ABOUT.to_owned();
        let words = meanings(&source, "Metric");
        assert_eq!(words.len(), ALL.len());
        for (metric, (name, meaning)) in ALL.into_iter().zip(words) {
            assert_eq!(name, metric.name());
            let second = metric
                .second()
                .map_or_else(|| "–".to_owned(), |name| format!("`{name}`"));
            let (unit, meaning) = (metric.unit(), meaning.trim_end_matches('.'));
            writeln!(
                page,
                "| `{}` | {} | {second} | {meaning} |",
                metric.name(),
                unit.as_str()
            )
            .unwrap();
        }
        agree("metrics-cloudwatch.md", &page);
    }
}
