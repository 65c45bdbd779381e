//! The grid of time on which everything happens: ticks of 15 s from the first row of the history.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The length of a tick.
pub(crate) const TICK: Duration = Duration::from_secs(15);
/// Ticks in a minute.
pub const PER_MINUTE: u32 = 4;
/// A tick's length in hours.
pub(crate) const HOURS: f64 = 15.0 / 3600.0;

/// A tick, counted from the first row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Tick(pub(crate) u32);

impl Tick {
    /// So many ticks later.
    pub(crate) fn after(self, ticks: u32) -> Self {
        Self(self.0.saturating_add(ticks))
    }

    /// Ticks since an earlier one.
    pub(crate) fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }

    /// Its beginning, in a history that begins at `start`.
    pub(crate) fn time(self, start: Timestamp) -> Timestamp {
        let passed = SignedDuration::from_secs(15 * i64::from(self.0));
        // A history of ten years at most, within the years that there are.
        start.checked_add(passed).unwrap_or(Timestamp::MAX)
    }
}

/// A duration in whole ticks, rounded up.
pub(crate) fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_up_to_whole_ticks() {
        for (seconds, expected) in [(0, 0), (1, 1), (15, 1), (16, 2), (90, 6)] {
            assert_eq!(ticks(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(ticks(Duration::from_nanos(1)), 1);
        assert_eq!(ticks(Duration::MAX), u32::MAX);
    }
}
