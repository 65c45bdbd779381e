//! The workload's own autoscaler, by the rule of Kubernetes' HorizontalPodAutoscaler: replicas in proportion to the use of
//! CPU, nothing within the tolerance, downwards only as far as the highest of the last while
//! (<https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#algorithm-details>). The real one
//! wants a metrics API; its periods are shortened here as all others are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Use of its request that a pod should have.
const TARGET: f64 = 0.7;
/// A ratio this near 1 changes nothing.
const TOLERANCE: f64 = 0.1;
/// How long a higher wish is remembered.
const STABILISATION: Duration = Duration::from_secs(20);
/// Replicas at most.
const MOST: u32 = 40;

/// The rule and what it remembers.
#[derive(Debug)]
pub(super) struct Rule {
    fewest: u32,
    wishes: VecDeque<(Instant, u32)>,
}

impl Rule {
    /// For a workload of so many pods at least.
    pub(super) fn new(fewest: u32) -> Self {
        Self {
            fewest,
            wishes: VecDeque::new(),
        }
    }

    /// The replicas that there should be, of so many that there are; `used` is the use of those that are known, of their
    /// requests.
    pub(super) fn wanted(&mut self, replicas: u32, used: &[f64], now: Instant) -> u32 {
        let wish = wish(replicas, used).clamp(self.fewest, MOST);
        self.wishes.push_back((now, wish));
        self.wishes
            .retain(|(at, _)| now.saturating_duration_since(*at) <= STABILISATION);
        if wish >= replicas {
            return wish;
        }
        let highest = self.wishes.iter().map(|(_, wish)| *wish).max();
        highest.map_or(replicas, |highest| highest.min(replicas))
    }
}

fn wish(replicas: u32, used: &[f64]) -> u32 {
    if used.is_empty() {
        return replicas;
    }
    #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
    let known = used.len() as f64;
    let sum: f64 = used.iter().sum();
    let ratio = sum / known / TARGET;
    if (ratio - 1.0).abs() <= TOLERANCE {
        return replicas;
    }
    // Those that are not known: idle if more are wanted, as busy as they should be if fewer are.
    let missing = (f64::from(replicas) - known).max(0.0);
    let with_missing = if ratio > 1.0 { sum } else { sum + missing * TARGET };
    let cautious = with_missing / (known + missing) / TARGET;
    if (cautious - 1.0).abs() <= TOLERANCE || (cautious > 1.0) != (ratio > 1.0) {
        return replicas;
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of pods"
    )]
    let wish = (cautious * (known + missing)).ceil() as u32;
    wish
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_follow_the_use_and_stay_within_the_tolerance() {
        assert_eq!(wish(4, &[1.0; 4]), 6);
        assert_eq!(wish(4, &[0.35; 4]), 2);
        assert_eq!(wish(4, &[0.75; 4]), 4);
        assert_eq!(wish(4, &[]), 4);
    }

    #[test]
    fn pods_that_are_not_there_yet_hold_it_back() {
        assert_eq!(wish(8, &[1.0; 4]), 8, "four more are on their way");
        assert_eq!(
            wish(8, &[0.0; 4]),
            4,
            "four that nobody knows are as they should be"
        );
    }

    #[test]
    fn it_goes_down_only_as_far_as_the_highest_of_the_last_while() {
        let now = Instant::now();
        let mut rule = Rule::new(2);
        assert_eq!(rule.wanted(4, &[1.0; 4], now), 6);
        let later = now + Duration::from_secs(10);
        assert_eq!(rule.wanted(6, &[0.1; 6], later), 6);
        let latest = now + STABILISATION + Duration::from_secs(1);
        assert_eq!(rule.wanted(6, &[0.1; 6], latest), 2, "never below the fewest");
    }
}
