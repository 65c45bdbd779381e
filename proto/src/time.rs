//! Time, as every loop of SmartScale sees it.
//!
//! No loop reads the system's clock by itself: it asks a [`Clock`], so that a simulation can run hours in
//! seconds and a test can stop time. Durations that decide who may act (leases, deadlines) are measured with
//! [`Clock::elapsed`], never by comparing wall clocks of two machines.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

/// A source of time.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The wall clock: for records and for people.
    fn now(&self) -> Timestamp;
    /// Time since some fixed point: never goes back, and goes on while the machine is suspended.
    fn elapsed(&self) -> Duration;
    /// Ends after `duration` of this clock's time.
    async fn sleep(&self, duration: Duration);
}

/// A clock that is shared by the tasks of a program.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        // CLOCK_BOOTTIME includes suspend: a holder of a lease that slept must notice that its time is over.
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Duration::new(seconds, nanos)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Runs `future` for at most `limit` of `clock`'s time; `None` when that was not enough.
pub async fn within<T>(clock: &dyn Clock, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = clock.sleep(limit) => None,
    }
}

/// A time of the wire that is not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("time of {seconds} s and {nanos} ns is out of range")]
pub struct BadTime {
    seconds: i64,
    nanos: i32,
}

/// A time for the wire.
#[must_use]
pub fn to_wire(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

/// A time from the wire.
///
/// # Errors
/// [`BadTime`] when it lies outside the years −9999 to 9999.
pub fn from_wire(time: &prost_types::Timestamp) -> Result<Timestamp, BadTime> {
    Timestamp::new(time.seconds, time.nanos).map_err(|_| BadTime {
        seconds: time.seconds,
        nanos: time.nanos,
    })
}

/// A duration for the wire; what it cannot hold becomes its greatest.
#[must_use]
pub fn duration_to_wire(duration: Duration) -> prost_types::Duration {
    let nanos = i32::try_from(duration.subsec_nanos()).unwrap_or(0);
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos,
    }
}

/// A duration from the wire.
///
/// # Errors
/// [`BadTime`] when it is negative.
pub fn duration_from_wire(duration: &prost_types::Duration) -> Result<Duration, BadTime> {
    let bad = BadTime {
        seconds: duration.seconds,
        nanos: duration.nanos,
    };
    let seconds = u64::try_from(duration.seconds).map_err(|_| bad)?;
    let nanos = u32::try_from(duration.nanos).map_err(|_| bad)?;
    if nanos >= 1_000_000_000 {
        return Err(bad);
    }
    Ok(Duration::new(seconds, nanos))
}

/// Time from `earlier` to `later`; zero when it runs backwards (two machines' clocks may disagree).
#[must_use]
pub fn age(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier).max(SignedDuration::ZERO)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_the_wire() {
        let time: Timestamp = "2026-01-02T03:04:05.678Z".parse().expect("a time");
        assert_eq!(from_wire(&to_wire(time)), Ok(time));
    }

    #[test]
    fn a_time_out_of_range_is_refused() {
        let bad = prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        };
        assert!(from_wire(&bad).is_err());
    }

    #[test]
    fn a_negative_duration_is_refused() {
        assert!(
            duration_from_wire(&prost_types::Duration {
                seconds: -1,
                nanos: 0
            })
            .is_err()
        );
        assert!(
            duration_from_wire(&prost_types::Duration {
                seconds: 0,
                nanos: 1_000_000_000
            })
            .is_err()
        );
    }

    #[test]
    fn an_age_is_never_negative() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(age(now + SignedDuration::from_secs(5), now), Duration::ZERO);
        assert_eq!(
            age(now, now + SignedDuration::from_secs(5)),
            Duration::from_secs(5)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_that_takes_too_long_is_given_up() {
        let outcome = within(&SystemClock, Duration::from_secs(1), std::future::pending::<()>()).await;
        assert_eq!(outcome, None);
        assert_eq!(
            within(&SystemClock, Duration::from_secs(1), async { 7 }).await,
            Some(7)
        );
    }
}
