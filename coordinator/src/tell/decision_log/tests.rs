//! The way to a log that answers as it is told to, on a clock that stands still unless it is waited on.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use std::{collections::VecDeque, sync::Mutex};

use jiff::Timestamp;
use smartscale_planner::Plan;
use tokio::{sync::Notify, time::Instant};

use super::*;
use crate::ids::Epoch;

struct Paused(Instant);

#[async_trait]
impl smartscale_proto::time::Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A log with the answers that it gives, in order; then it takes everything.
#[derive(Default)]
struct Log {
    answers: Mutex<VecDeque<Result<usize, NotifyError>>>,
    calls: Mutex<Vec<usize>>,
    hangs: bool,
    called: Notify,
}

#[async_trait]
impl LogStream for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    async fn append(&self, batch: &Batch) -> Result<usize, NotifyError> {
        self.calls.lock().unwrap().push(batch.lines().len());
        self.called.notify_one();
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.answers.lock().unwrap().pop_front().unwrap_or(Ok(0))
    }
}

struct World {
    log: Arc<Log>,
    metrics: Metrics,
    feed: Arc<Feed>,
    carrier: Carrier,
    began: Instant,
}

fn world(log: Log) -> World {
    let log = Arc::new(log);
    let metrics = Metrics::new("test");
    let began = Instant::now();
    let (feed, carrier) = to(
        Arc::clone(&log) as _,
        "demo".to_owned(),
        "coordinator-a".parse().unwrap(),
        metrics.clone(),
        Arc::new(Paused(began)),
    );
    World {
        log,
        metrics,
        feed,
        carrier,
        began,
    }
}

fn answering(answers: impl IntoIterator<Item = Result<usize, NotifyError>>) -> World {
    world(Log {
        answers: Mutex::new(answers.into_iter().collect()),
        ..Log::default()
    })
}

fn record(summary: String) -> DecisionRecord {
    DecisionRecord {
        id: "d-1".parse().unwrap(),
        time: Timestamp::UNIX_EPOCH,
        last_time: Timestamp::UNIX_EPOCH,
        repeats: 1,
        mode: "act".to_owned(),
        epoch: Epoch(1),
        cost_change_per_hour: 0.0,
        operations: Vec::new(),
        sources: Vec::new(),
        plan: Plan {
            summary,
            ..Plan::default()
        },
    }
}

impl World {
    fn note(&self, times: usize) {
        for _ in 0..times {
            self.feed.note(&record(String::new()));
        }
    }

    fn says(&self, line: &str) {
        let text = self.metrics.encode();
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}

/// Carries all there is.
async fn carry(carrier: Carrier) {
    let stop = CancellationToken::new();
    stop.cancel();
    carrier.run(stop).await;
}

#[tokio::test(start_paused = true)]
async fn what_came_together_is_told_together() {
    let world = answering([]);
    world.note(3);
    world.says(r#"smartscale_notifications_total{sink="log",outcome="delivered"} 0"#);
    world.says(r#"smartscale_happenings_dropped_total{sink="log"} 0"#);
    let World { carrier, .. } = world;
    carry(carrier).await;
    assert_eq!(*world.log.calls.lock().unwrap(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_carried_as_soon_as_it_comes() {
    let world = answering([]);
    let (log, feed) = (Arc::clone(&world.log), Arc::clone(&world.feed));
    let stop = CancellationToken::new();
    let carrying = tokio::spawn(world.carrier.run(stop.clone()));
    for _ in 0..2 {
        feed.note(&record(String::new()));
        log.called.notified().await;
    }
    assert_eq!(*log.calls.lock().unwrap(), [1, 1]);
    assert_eq!(world.began.elapsed(), Duration::ZERO);
    stop.cancel();
    carrying.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_answer_is_asked_again_at_growing_distances_until_it_does() {
    let failing = std::iter::repeat_n(Err(NotifyError::Passing("no answer".into())), 8);
    let world = answering(failing);
    world.note(2);
    let (log, metrics) = (Arc::clone(&world.log), world.metrics.clone());
    let stop = CancellationToken::new();
    let carrying = tokio::spawn(world.carrier.run(stop.clone()));
    while log.calls.lock().unwrap().len() < 9 {
        log.called.notified().await;
    }
    // Half to all of 0.5, 1, 2, 4, 8, 16, 30, 30 seconds.
    let took = world.began.elapsed().as_secs_f64();
    assert!((45.7..91.5).contains(&took), "{took}");
    stop.cancel();
    carrying.await.unwrap();
    assert_eq!(*log.calls.lock().unwrap(), [2; 9]);
    let text = metrics.encode();
    assert!(
        text.contains(r#"smartscale_notifications_total{sink="log",outcome="delivered"} 2"#),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_log_refuses_is_counted_and_does_not_hold_up_the_rest() {
    let world = answering([Err(NotifyError::Refused("no such parameter".into())), Ok(2)]);
    // Two batches: a line of each fills more than half of one.
    let long = "x".repeat(600_000);
    world.feed.note(&record(long.clone()));
    world.feed.note(&record(long));
    world.note(2);
    let World {
        carrier,
        log,
        metrics,
        ..
    } = world;
    carry(carrier).await;
    assert_eq!(*log.calls.lock().unwrap(), [1, 3]);
    let text = metrics.encode();
    for line in [
        r#"smartscale_notifications_total{sink="log",outcome="failed"} 3"#,
        r#"smartscale_notifications_total{sink="log",outcome="delivered"} 1"#,
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn noting_never_waits_and_the_oldest_that_have_no_room_are_counted() {
    let world = answering([]);
    let long = "x".repeat(900_000);
    for _ in 0..20 {
        world.feed.note(&record(long.clone()));
    }
    // 18 of them fit into 16 MiB.
    world.says(r#"smartscale_happenings_dropped_total{sink="log"} 2"#);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_never_answers_does_not_hold_the_end_up() {
    let world = world(Log {
        hangs: true,
        ..Log::default()
    });
    world.note(1);
    let began = world.began;
    carry(world.carrier).await;
    assert_eq!(began.elapsed(), LAST_WORDS);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_there_is_one_more_attempt_at_once() {
    let failing = std::iter::repeat_n(Err(NotifyError::Busy(Duration::from_secs(3600))), 1);
    let world = answering(failing);
    world.note(1);
    let log = Arc::clone(&world.log);
    let stop = CancellationToken::new();
    let carrying = tokio::spawn(world.carrier.run(stop.clone()));
    log.called.notified().await;
    stop.cancel();
    carrying.await.unwrap();
    assert_eq!(*log.calls.lock().unwrap(), [1, 1]);
    assert_eq!(world.began.elapsed(), Duration::ZERO);
}
