//! Delays between attempts: exponential, bounded, with jitter.
//!
//! "Full jitter" as in AWS' *Exponential Backoff And Jitter* spreads a crowd best, but may retry at once; here
//! the delay is drawn from the upper half, so that the least distance between attempts is known.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// A validated schedule of delays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

/// Why a schedule is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadBackoff {
    /// The first delay is zero: attempts would spin.
    #[error("the first delay must be above zero")]
    Zero,
    /// The longest delay is shorter than the first.
    #[error("the longest delay ({longest:?}) is shorter than the first ({first:?})")]
    Inverted {
        /// The first delay.
        first: Duration,
        /// The longest delay.
        longest: Duration,
    },
}

impl Backoff {
    /// For retries that people wait for: 500 ms, doubling to 30 s.
    pub const DEFAULT: Self = Self {
        first: Duration::from_millis(500),
        longest: Duration::from_secs(30),
    };

    /// A schedule that starts with `first` and doubles up to `longest`.
    ///
    /// # Errors
    /// [`BadBackoff`] when `first` is zero or above `longest`.
    pub fn new(first: Duration, longest: Duration) -> Result<Self, BadBackoff> {
        if first.is_zero() {
            return Err(BadBackoff::Zero);
        }
        if first > longest {
            return Err(BadBackoff::Inverted { first, longest });
        }
        Ok(Self { first, longest })
    }

    /// The bound of the delay after attempt number `attempt`, counted from 1.
    #[must_use]
    pub fn bound(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.first.saturating_mul(1_u32 << doublings).min(self.longest)
    }

    /// A delay after attempt number `attempt`: between half of [`bound`](Self::bound) and all of it.
    pub fn delay(&self, attempt: u32, random: &mut impl Rng) -> Duration {
        self.bound(attempt).mul_f64(random.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn a_schedule_that_would_spin_is_refused() {
        assert_eq!(
            Backoff::new(Duration::ZERO, Duration::from_secs(1)),
            Err(BadBackoff::Zero)
        );
        assert!(matches!(
            Backoff::new(Duration::from_secs(2), Duration::from_secs(1)),
            Err(BadBackoff::Inverted { .. })
        ));
    }

    proptest! {
        #[test]
        fn delays_stay_within_their_bounds(first in 1_u64..5_000, more in 0_u64..100_000, attempt in 0_u32..200, seed: u64) {
            let backoff = Backoff::new(Duration::from_millis(first), Duration::from_millis(first + more)).expect("valid");
            let delay = backoff.delay(attempt, &mut SmallRng::seed_from_u64(seed));
            prop_assert!(delay >= Duration::from_millis(first) / 2);
            prop_assert!(delay <= Duration::from_millis(first + more));
            prop_assert!(backoff.bound(attempt) <= backoff.bound(attempt + 1));
        }
    }
}
