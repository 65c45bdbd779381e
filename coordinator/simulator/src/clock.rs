//! Virtual time: real time, faster.
//!
//! ```text
//!  drive() ──every tick──▶ advance by tick × speed, but one sleeper's deadline at a time:
//!      set the time to the deadline ─▶ wake the sleeper ─▶ let every task that is ready run ─▶ next
//! ```
//!
//! Time moves only in [`ScaledClock::drive`], so that a stall of the machine slows the simulation down instead of making its
//! leases and deadlines lapse: a tick that comes late still counts as one tick, and none counts while somebody
//! [holds](ScaledClock::hold) the clock (a write to the disk takes no virtual time). On a runtime of one thread every task
//! has seen a moment before the next one comes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use smartscale_proto::time::Clock;
use tokio::sync::oneshot;

/// Real time between two advances.
const TICK: Duration = Duration::from_millis(2);
/// How often ready tasks are given a turn after a sleeper was woken, before time moves on. What one task passes on to
/// another (a channel, a socket on loopback) is seen within a few turns.
const TURNS: usize = 4;

/// A clock that runs `speed` times as fast as the machine's.
pub struct ScaledClock {
    start: Timestamp,
    holds: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    speed: f64,
    elapsed: Duration,
    sleepers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
    next: u64,
}

/// Keeps a [`ScaledClock`] from moving until it is dropped.
pub struct Hold(Arc<ScaledClock>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holds.fetch_sub(1, Ordering::Release);
    }
}

/// Whether a speed is one.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is no speed: a number above 0 and at most 10000 is")]
pub struct BadSpeed(pub f64);

impl ScaledClock {
    /// A clock that stands at `start` until it is driven.
    ///
    /// # Errors
    /// [`BadSpeed`] when the speed is no number above 0 and at most 10000.
    pub fn new(start: Timestamp, speed: f64) -> Result<Arc<Self>, BadSpeed> {
        let clock = Self {
            start,
            holds: AtomicUsize::new(0),
            state: Mutex::new(State {
                speed: 1.0,
                elapsed: Duration::ZERO,
                sleepers: BTreeMap::new(),
                next: 0,
            }),
        };
        clock.set_speed(speed)?;
        Ok(Arc::new(clock))
    }

    /// The moment at which the clock began.
    #[must_use]
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// How many times faster than the machine's clock this one runs.
    #[must_use]
    pub fn speed(&self) -> f64 {
        self.state().speed
    }

    /// Runs at another speed from now on.
    ///
    /// # Errors
    /// [`BadSpeed`] as at [`new`](Self::new).
    pub fn set_speed(&self, speed: f64) -> Result<(), BadSpeed> {
        if !(speed > 0.0 && speed <= 10_000.0) {
            return Err(BadSpeed(speed));
        }
        self.state().speed = speed;
        Ok(())
    }

    /// Keeps the time where it is for as long as the guard lives: for work that takes real time and no virtual time.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Hold {
        self.holds.fetch_add(1, Ordering::Acquire);
        Hold(Arc::clone(self))
    }

    /// Moves time until the future is dropped.
    pub async fn drive(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.holds.load(Ordering::Acquire) == 0 {
                let step = TICK.mul_f64(self.speed());
                self.advance(step).await;
            }
        }
    }

    /// Moves time by `step`, one sleeper after the other. A [`hold`](Self::hold) that begins meanwhile ends the step.
    pub async fn advance(&self, step: Duration) {
        let target = self.elapsed() + step;
        loop {
            let due = {
                let mut state = self.state();
                match state.sleepers.first_key_value() {
                    Some((&(deadline, _), _)) if deadline <= target => {
                        state.elapsed = state.elapsed.max(deadline);
                        state.sleepers.pop_first().map(|(_, sleeper)| sleeper)
                    }
                    _ => {
                        state.elapsed = state.elapsed.max(target);
                        None
                    }
                }
            };
            let Some(sleeper) = due else { return };
            if sleeper.send(()).is_ok() {
                for _ in 0..TURNS {
                    tokio::task::yield_now().await;
                }
            }
            if self.holds.load(Ordering::Acquire) > 0 {
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for ScaledClock {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.elapsed()).unwrap_or(SignedDuration::MAX);
        self.start.saturating_add(elapsed).unwrap_or(Timestamp::MAX)
    }

    fn elapsed(&self) -> Duration {
        self.state().elapsed
    }

    async fn sleep(&self, duration: Duration) {
        if duration.is_zero() {
            tokio::task::yield_now().await;
            return;
        }
        let (wake, woken) = oneshot::channel();
        {
            let mut state = self.state();
            let deadline = state.elapsed.saturating_add(duration);
            let number = state.next;
            state.next += 1;
            state.sleepers.insert((deadline, number), wake);
        }
        // An error says that the clock is gone; then nobody waits for the time any more either.
        let _ = woken.await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use std::sync::Mutex;

    use super::*;

    fn clock(speed: f64) -> Arc<ScaledClock> {
        ScaledClock::new("2026-01-05T09:00:00Z".parse().unwrap(), speed).unwrap()
    }

    #[tokio::test]
    async fn sleepers_wake_in_the_order_of_their_deadlines_and_see_their_own_moment() {
        let clock = clock(1.0);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for seconds in [5, 1, 3] {
            let (clock, seen) = (Arc::clone(&clock), Arc::clone(&seen));
            tasks.push(tokio::spawn(async move {
                clock.sleep(Duration::from_secs(seconds)).await;
                seen.lock().unwrap().push((seconds, clock.elapsed().as_secs()));
            }));
        }
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(10)).await;
        assert_eq!(*seen.lock().unwrap(), [(1, 1), (3, 3), (5, 5)]);
        assert_eq!(clock.now().to_string(), "2026-01-05T09:00:10Z");
    }

    #[tokio::test]
    async fn a_sleep_that_begins_within_a_step_ends_within_it_too() {
        let clock = clock(1.0);
        let task = tokio::spawn({
            let clock = Arc::clone(&clock);
            async move {
                for _ in 0..4 {
                    clock.sleep(Duration::from_millis(500)).await;
                }
                clock.elapsed()
            }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(60)).await;
        assert_eq!(task.await.unwrap(), Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_hold_stops_the_time() {
        let clock = clock(1000.0);
        let driver = tokio::spawn(Arc::clone(&clock).drive());
        clock.sleep(Duration::from_secs(1)).await;
        let hold = clock.hold();
        let before = clock.elapsed();
        tokio::time::sleep(TICK * 4).await;
        assert_eq!(clock.elapsed(), before);
        drop(hold);
        clock.sleep(Duration::from_secs(1)).await;
        driver.abort();
    }

    #[tokio::test]
    async fn a_sleep_that_was_given_up_is_no_obstacle() {
        let clock = clock(1.0);
        tokio::select! {
            () = clock.sleep(Duration::from_secs(1)) => unreachable!("nobody moves the time"),
            () = std::future::ready(()) => {}
        }
        clock.advance(Duration::from_secs(2)).await;
        assert_eq!(clock.elapsed(), Duration::from_secs(2));
    }

    #[test]
    fn a_speed_must_be_a_number_above_zero() {
        for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(ScaledClock::new(Timestamp::UNIX_EPOCH, speed).is_err(), "{speed}");
        }
    }
}
