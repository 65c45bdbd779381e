//! Challenges: 32 random bytes each, for one use within a minute. Their number is bounded, in all and for each
//! address, so that nobody can fill the memory or take them all.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use smartscale_proto::time::SharedClock;

/// How long a challenge may be used.
pub const LIFE: Duration = Duration::from_secs(60);
/// Challenges that may be open.
const MOST: usize = 16_384;
/// Challenges that one address may have open.
const MOST_OF_ADDRESS: usize = 2_048;

/// A challenge.
pub type Challenge = [u8; 32];

/// The open challenges.
pub struct Challenges {
    clock: SharedClock,
    open: Mutex<HashMap<Challenge, Open>>,
}

struct Open {
    /// By [`Clock::elapsed`](smartscale_proto::time::Clock::elapsed).
    ends: Duration,
    address: Option<IpAddr>,
}

/// Too many challenges are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many enrolments are under way: try again in a minute")]
pub struct TooMany;

impl Challenges {
    /// None are open.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            open: Mutex::default(),
        }
    }

    /// Opens one for a caller at `address`.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn issue(&self, address: Option<IpAddr>) -> Result<Challenge, TooMany> {
        let now = self.clock.elapsed();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = |open: &HashMap<_, Open>| open.values().filter(|one| one.address == address).count();
        if open.len() >= MOST || (open.len() >= MOST_OF_ADDRESS && of_address(&open) >= MOST_OF_ADDRESS) {
            open.retain(|_, one| one.ends > now);
            if open.len() >= MOST || of_address(&open) >= MOST_OF_ADDRESS {
                return Err(TooMany);
            }
        }
        let challenge = rand::random::<Challenge>();
        open.insert(
            challenge,
            Open {
                ends: now + LIFE,
                address,
            },
        );
        Ok(challenge)
    }

    /// Uses one up; `None` when it was never issued, was used before or has lapsed.
    pub fn take(&self, bytes: &[u8]) -> Option<Challenge> {
        let challenge = Challenge::try_from(bytes).ok()?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let one = open.remove(&challenge)?;
        (one.ends > self.clock.elapsed()).then_some(challenge)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use std::sync::Arc;

    use super::super::testing::Hand;
    use super::*;

    #[test]
    fn a_challenge_is_good_once_and_for_a_minute() {
        let clock = Arc::new(Hand::default());
        let challenges = Challenges::new(clock.clone());
        let challenge = challenges.issue(None).unwrap();
        assert_eq!(challenges.take(&challenge), Some(challenge));
        assert_eq!(challenges.take(&challenge), None);
        let late = challenges.issue(None).unwrap();
        clock.advance(LIFE);
        assert_eq!(challenges.take(&late), None);
        assert_eq!(challenges.take(b"short"), None);
    }

    #[test]
    fn one_address_cannot_take_all_and_gets_its_share_back() {
        let clock = Arc::new(Hand::default());
        let challenges = Challenges::new(clock.clone());
        let (greedy, other) = (
            Some("10.0.0.1".parse().unwrap()),
            Some("10.0.0.2".parse().unwrap()),
        );
        for _ in 0..MOST_OF_ADDRESS {
            challenges.issue(greedy).unwrap();
        }
        assert_eq!(challenges.issue(greedy), Err(TooMany));
        assert!(challenges.issue(other).is_ok());
        clock.advance(LIFE);
        assert!(challenges.issue(greedy).is_ok());
    }
}
