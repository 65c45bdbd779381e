#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use smartscale_planner::snapshot::Forewarning;
use smartscale_proto::time::Clock;

use super::*;
use crate::{
    observe::notices::{NoticeSource, tests::said},
    state::sqlite::SqliteStore,
    tell::Tell,
};

/// A clock that is moved by hand.
#[derive(Default)]
struct Hand(Mutex<Duration>);

#[async_trait]
impl Clock for Hand {
    fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        start + SignedDuration::try_from(self.elapsed()).unwrap()
    }
    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }
    async fn sleep(&self, _: Duration) {
        std::future::pending::<()>().await;
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<Happening>>);

impl Tell for Told {
    fn tell(&self, happening: Happening) {
        self.0.lock().unwrap().push(happening);
    }
}

impl Told {
    fn lines(&self) -> Vec<(Severity, String)> {
        let told = self.0.lock().unwrap();
        told.iter()
            .map(|one| (one.severity, one.message.clone()))
            .collect()
    }
}

struct Stage {
    hand: Arc<Hand>,
    store: SharedStore,
    told: Arc<Told>,
}

impl Stage {
    fn new() -> Self {
        let hand = Arc::new(Hand::default());
        let clock: SharedClock = hand.clone();
        Self {
            store: Arc::new(SqliteStore::in_memory("demo".into(), clock).unwrap()),
            hand,
            told: Arc::default(),
        }
    }

    fn board(&self) -> Arc<NoticeBoard> {
        NoticeBoard::new(Arc::clone(&self.store), self.told.clone(), self.hand.clone())
    }
}

fn interruption(source: NoticeSource) -> Said {
    said(
        NoticeKind::SpotInterruption,
        source,
        source.as_str(),
        Some("2026-01-02T03:06:00Z"),
    )
}

fn machine() -> InstanceId {
    "i-1".parse().unwrap()
}

#[tokio::test]
async fn the_same_notice_by_both_paths_is_one_that_people_hear_of_once() {
    let stage = Stage::new();
    let board = stage.board();
    assert!(board.take(interruption(NoticeSource::Queue)).await.unwrap());
    assert_eq!(board.own_drain(&machine()), None);
    for _ in 0..3 {
        assert!(!board.take(interruption(NoticeSource::Agent)).await.unwrap());
        assert!(!board.take(interruption(NoticeSource::Queue)).await.unwrap());
    }
    assert_eq!(board.interruptions().len(), 1);
    assert_eq!(board.own_drain(&machine()).as_deref(), Some("notice/agent"));
    let words = "i-1: EC2 takes the machine back (terminate) at 2026-01-02T03:06:00Z, by";
    assert_eq!(
        stage.told.lines(),
        [
            (Severity::Warning, format!("{words} queue")),
            (Severity::Detail, format!("{words} queue, agent")),
        ]
    );
}

#[tokio::test]
async fn both_paths_at_once_make_one_notice() {
    let stage = Stage::new();
    let board = stage.board();
    let (one, other) = tokio::join!(
        board.take(interruption(NoticeSource::Queue)),
        board.take(interruption(NoticeSource::Agent))
    );
    assert_eq!([one.unwrap(), other.unwrap()], [true, false]);
    assert_eq!(board.of(&machine())[0].sources(), "queue, agent");
}

#[tokio::test]
async fn the_next_leader_knows_what_was_taken_in_and_tells_nobody_again() {
    let stage = Stage::new();
    stage
        .board()
        .take(interruption(NoticeSource::Queue))
        .await
        .unwrap();
    let next = stage.board();
    next.load().await.unwrap();
    assert_eq!(next.interruptions()[0].detail, "terminate");
    assert!(!next.take(interruption(NoticeSource::Queue)).await.unwrap());
    assert_eq!(stage.told.lines().len(), 1);
}

#[tokio::test]
async fn kinds_are_told_apart_and_only_what_leaves_time_is_a_matter_of_planning() {
    let stage = Stage::new();
    let board = stage.board();
    let maintenance = said(
        NoticeKind::Maintenance,
        NoticeSource::Agent,
        "m",
        Some("2026-01-05T00:00:00Z"),
    );
    let rebalance = said(NoticeKind::Rebalance, NoticeSource::Agent, "r", None);
    for one in [interruption(NoticeSource::Agent), maintenance, rebalance] {
        assert!(board.take(one).await.unwrap());
    }
    let announced: Vec<_> = board.announced().into_iter().map(|one| one.notice).collect();
    assert_eq!(announced, [Forewarning::Rebalance, Forewarning::Maintenance]);
    assert_eq!(board.of(&machine()).len(), 3);
}

#[tokio::test]
async fn maintenance_that_is_over_does_not_stand_any_more_and_may_be_announced_anew() {
    let stage = Stage::new();
    let board = stage.board();
    let maintenance = |id, at| said(NoticeKind::Maintenance, NoticeSource::Queue, id, Some(at));
    board
        .take(maintenance("a", "2026-01-02T04:00:00Z"))
        .await
        .unwrap();
    *stage.hand.0.lock().unwrap() = Duration::from_secs(3 * 3600);
    assert!(board.all().is_empty());
    assert!(
        board
            .take(maintenance("b", "2026-02-02T04:00:00Z"))
            .await
            .unwrap()
    );
    assert_eq!(board.all()[0].sightings.len(), 1);
}

#[tokio::test]
async fn a_machine_is_forgotten_with_all_that_was_announced_of_it() {
    let stage = Stage::new();
    let board = stage.board();
    board.take(interruption(NoticeSource::Queue)).await.unwrap();
    for write in board.forgetting(&machine()) {
        stage.store.append(&write).await.unwrap();
    }
    board.forget(&machine());
    assert!(board.all().is_empty());
    let next = stage.board();
    next.load().await.unwrap();
    assert!(next.all().is_empty());
}
