//! How long nodes take to boot.

use std::{collections::VecDeque, time::Duration};

/// Boots that are remembered.
const REMEMBERED: usize = 64;
/// What a boot is taken to last before one was seen.
const UNSEEN: Duration = Duration::from_secs(120);
/// The share of boots that are to be over in time.
const IN_TIME: f64 = 0.9;

/// The last boots, from the launch call to the node's being Ready.
#[derive(Debug, Clone, Default)]
pub struct BootTimes(VecDeque<Duration>);

impl BootTimes {
    /// One more.
    pub fn add(&mut self, boot: Duration) {
        self.0.push_back(boot);
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }

    /// What most boots do not exceed.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into a few boots"
    )]
    pub fn most(&self) -> Duration {
        let mut sorted: Vec<Duration> = self.0.iter().copied().collect();
        sorted.sort();
        let index = (sorted.len() as f64 * IN_TIME).ceil() as usize;
        sorted.get(index.saturating_sub(1)).copied().unwrap_or(UNSEEN)
    }
}
