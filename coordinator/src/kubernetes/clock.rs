//! The wall clock of the cluster: that of its API server.
//!
//! The age of a node, since when a pod waits, when a kubelet was last heard: the API server wrote these times. A
//! coordinator whose own clock is ten minutes off would take a node that is joining for an old one that is broken,
//! and launch another. So the `Date` of every answer (RFC 9110 §6.6.1) tells how far the two clocks are apart, and what
//! the coordinator calls *now* is the server's time. Two coordinators then also write the same times into the state.
//!
//! An answer can only be late, never early: of the last answers the one that came soonest counts.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::{HeaderMap, header};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimeParser};
use smartscale_proto::time::{Clock, SharedClock};

/// So many answers are remembered.
const ANSWERS: usize = 8;
/// Clocks this close are taken for the same: `Date` has whole seconds, and an answer takes its time.
const ALIKE: SignedDuration = SignedDuration::from_secs(5);

/// A clock that follows the API server's.
pub struct ClusterClock {
    own: SharedClock,
    /// How far our clock is ahead of the server's, answer by answer.
    ahead: Mutex<VecDeque<SignedDuration>>,
    /// What is taken off our clock, in milliseconds.
    correction: AtomicI64,
}

impl ClusterClock {
    /// A clock that says what `own` says until a server has answered.
    #[must_use]
    pub fn new(own: SharedClock) -> Self {
        Self {
            own,
            ahead: Mutex::default(),
            correction: AtomicI64::new(0),
        }
    }

    /// Takes notice of an answer of the server. One without a `Date` that can be read tells nothing.
    pub fn hear(&self, headers: &HeaderMap) {
        let Some(date) = headers.get(header::DATE).and_then(|date| date.to_str().ok()) else {
            return;
        };
        let Ok(date) = DateTimeParser::new().parse_timestamp(date) else {
            return;
        };
        let mut answers = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() == ANSWERS {
            answers.pop_front();
        }
        answers.push_back(self.own.now().duration_since(date));
        let least = answers.iter().min().copied().unwrap_or_default();
        let before = self.ahead();
        if (least - before).abs() <= ALIKE {
            return;
        }
        let ahead = if least.abs() <= ALIKE {
            SignedDuration::ZERO
        } else {
            least
        };
        let millis = i64::try_from(ahead.as_millis()).unwrap_or(0);
        self.correction.store(millis, Ordering::Relaxed);
        tracing::warn!(
            ahead_seconds = ahead.as_secs(),
            "this machine's clock is not that of the API server, whose time counts: look at its NTP"
        );
    }

    /// How far this machine's clock is ahead of the server's; a few seconds are none.
    pub fn ahead(&self) -> SignedDuration {
        SignedDuration::from_millis(self.correction.load(Ordering::Relaxed))
    }
}

#[async_trait]
impl Clock for ClusterClock {
    fn now(&self) -> Timestamp {
        let own = self.own.now();
        own.checked_sub(self.ahead()).unwrap_or(own)
    }

    fn elapsed(&self) -> Duration {
        self.own.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        self.own.sleep(duration).await;
    }
}

impl std::fmt::Debug for ClusterClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterClock")
            .field("ahead", &self.ahead())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use std::sync::Arc;

    use http::HeaderValue;

    use super::*;

    /// 1994-11-15 08:12:31 UTC, and how far it is.
    struct Off(SignedDuration);

    fn server() -> Timestamp {
        "1994-11-15T08:12:31Z".parse().unwrap()
    }

    #[async_trait]
    impl Clock for Off {
        fn now(&self) -> Timestamp {
            server() + self.0
        }
        fn elapsed(&self) -> Duration {
            Duration::ZERO
        }
        async fn sleep(&self, _: Duration) {}
    }

    fn clock(off: i64) -> ClusterClock {
        ClusterClock::new(Arc::new(Off(SignedDuration::from_secs(off))))
    }

    fn dated(date: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::DATE, HeaderValue::from_static(date))])
    }

    #[test]
    fn a_clock_that_is_off_either_way_says_the_servers_time_once_it_has_answered() {
        for off in [-600, 600, 86_400 * 400] {
            let clock = clock(off);
            assert_eq!(clock.now(), server() + SignedDuration::from_secs(off));
            clock.hear(&dated("Tue, 15 Nov 1994 08:12:31 GMT"));
            assert_eq!(clock.now(), server(), "{off}");
        }
    }

    #[test]
    fn an_answer_that_comes_late_moves_nothing() {
        let clock = clock(600);
        clock.hear(&dated("Tue, 15 Nov 1994 08:12:31 GMT"));
        clock.hear(&dated("Tue, 15 Nov 1994 08:11:31 GMT"));
        assert_eq!(clock.now(), server());
    }

    #[test]
    fn clocks_that_are_set_right_again_are_followed() {
        let clock = clock(0);
        clock.hear(&dated("Tue, 15 Nov 1994 08:02:31 GMT"));
        assert_eq!(clock.now(), server() - SignedDuration::from_secs(600));
        clock.hear(&dated("Tue, 15 Nov 1994 08:12:31 GMT"));
        assert_eq!(clock.now(), server());
    }

    #[test]
    fn clocks_a_few_seconds_apart_and_dates_that_are_none_change_nothing() {
        let clock = clock(4);
        let own = clock.now();
        clock.hear(&dated("Tue, 15 Nov 1994 08:12:31 GMT"));
        clock.hear(&dated("yesterday"));
        clock.hear(&HeaderMap::new());
        assert_eq!(clock.now(), own);
    }
}
