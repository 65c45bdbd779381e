#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
use std::sync::Mutex;

use smartscale_proto::time::Clock;
use tokio::{task::JoinHandle, time::Instant};

use super::*;
use crate::tell::{Event, Hub, Sink, Tell as _, message::tests::launch};

/// Tokio's paused time as a clock that began at some date.
struct Paused(Timestamp, Instant);

#[async_trait]
impl Clock for Paused {
    fn now(&self) -> Timestamp {
        self.0 + self.1.elapsed()
    }

    fn elapsed(&self) -> Duration {
        self.1.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Remembers what it was sent, and when.
struct Recorder {
    clock: SharedClock,
    fails: Mutex<Vec<NotifyError>>,
    sent: Mutex<Vec<(Timestamp, Message)>>,
}

#[async_trait]
impl Messenger for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    async fn send(&self, message: &Message) -> Result<(), NotifyError> {
        if let Some(error) = self.fails.lock().unwrap().pop() {
            return Err(error);
        }
        self.sent
            .lock()
            .unwrap()
            .push((self.clock.now(), message.clone()));
        Ok(())
    }
}

struct World {
    clock: SharedClock,
    hub: Arc<Hub>,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl World {
    fn new(began: &str, manners: Manners) -> Self {
        let clock: SharedClock = Arc::new(Paused(began.parse().unwrap(), Instant::now()));
        let recorder = Arc::new(Recorder {
            clock: Arc::clone(&clock),
            fails: Mutex::default(),
            sent: Mutex::default(),
        });
        let sink = Sink::for_messages(Arc::clone(&recorder) as _, manners, Severity::Info);
        let (hub, mut couriers) = Hub::new(Metrics::new("test"), &clock, vec![sink]);
        let stop = CancellationToken::new();
        let running = tokio::spawn(couriers.pop().unwrap().run(stop.clone()));
        Self {
            clock,
            hub,
            recorder,
            stop,
            running,
        }
    }

    fn tell(&self, severity: Severity, text: &str) {
        self.hub.tell(Happening {
            time: self.clock.now(),
            severity,
            message: text.into(),
            event: Event::Trouble {
                error_type: text.into(),
            },
        });
    }

    async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Seconds from the beginning, and titles.
    fn sent(&self, began: &str) -> Vec<(u64, String)> {
        let began: Timestamp = began.parse().unwrap();
        let sent = self.recorder.sent.lock().unwrap();
        sent.iter()
            .map(|(at, message)| (until(began, *at).as_secs(), message.title.clone()))
            .collect()
    }

    fn last(&self) -> Message {
        self.recorder.sent.lock().unwrap().last().unwrap().1.clone()
    }

    async fn end(self) -> String {
        self.stop.cancel();
        self.running.await.unwrap();
        self.hub.metrics().encode()
    }
}

fn manners() -> Manners {
    Manners {
        cluster: "demo".into(),
        every: Duration::from_secs(1),
        most_per_minute: Some(3),
        quiet: Vec::new(),
    }
}

fn quiet(cron: &str, hours: i64) -> Manners {
    let window = Window::new(
        cron,
        "Europe/Berlin",
        SignedDuration::from_hours(hours),
        SignedDuration::ZERO,
    );
    Manners {
        quiet: vec![window.unwrap()],
        ..manners()
    }
}

const BEGAN: &str = "2026-01-02T12:00:00Z";

fn titles(sent: &[(u64, String)]) -> Vec<(u64, &str)> {
    sent.iter().map(|(at, title)| (*at, title.as_str())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_spread_then_told_together_and_failures_pass_by_themselves() {
    let world = World::new(BEGAN, manners());
    for n in 0..10 {
        world.tell(Severity::Info, &format!("i{n}"));
    }
    world.tell(Severity::Failure, "broken");
    world.pass(90).await;
    let sent = world.sent(BEGAN);
    assert_eq!(
        titles(&sent),
        [
            (0, "Trouble: i0"),
            (1, "Trouble: i1"),
            (2, "Trouble: i2"),
            (3, "Trouble: broken"),
            (60, "and 7 more…"),
        ]
    );
    assert_eq!(
        world.last().why,
        (3..10).map(|n| format!("Trouble: i{n}")).collect::<Vec<_>>()
    );
    let metrics = world.end().await;
    assert!(
        metrics.contains(r#"smartscale_notifications_total{sink="recorder",outcome="delivered"} 5"#)
            || metrics.contains("outcome=\"delivered\",sink=\"recorder\"} 5"),
        "{metrics}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_asks_for_peace_gets_it_and_then_one_message() {
    let world = World::new(BEGAN, manners());
    *world.recorder.fails.lock().unwrap() = vec![NotifyError::Busy(Duration::from_secs(30))];
    for text in ["a", "b"] {
        world.tell(Severity::Info, text);
    }
    world.tell(Severity::Failure, "broken");
    world.pass(40).await;
    let sent = world.sent(BEGAN);
    assert_eq!(titles(&sent), [(30, "and 2 more…"), (31, "Trouble: broken")]);
    drop(world.end().await);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_until_it_arrives_and_information_only_so_often() {
    let world = World::new(BEGAN, manners());
    let fails = || vec![NotifyError::Passing("no answer".into()); 7];
    *world.recorder.fails.lock().unwrap() = fails();
    world.tell(Severity::Failure, "broken");
    world.pass(300).await;
    assert_eq!(world.sent(BEGAN).len(), 1);
    *world.recorder.fails.lock().unwrap() = fails();
    world.tell(Severity::Info, "by the way");
    world.pass(300).await;
    assert_eq!(world.recorder.fails.lock().unwrap().len(), 2);
    assert_eq!(world.sent(BEGAN).len(), 1);
    let metrics = world.end().await;
    assert!(metrics.contains("outcome=\"failed\""), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_holds_up_nothing() {
    let world = World::new(BEGAN, manners());
    *world.recorder.fails.lock().unwrap() = vec![NotifyError::Refused("no such channel".into())];
    world.tell(Severity::Failure, "lost");
    world.tell(Severity::Info, "next");
    world.pass(5).await;
    assert_eq!(titles(&world.sent(BEGAN)), [(1, "Trouble: next")]);
    drop(world.end().await);
}

#[tokio::test(start_paused = true)]
async fn thousands_that_cannot_be_sent_are_counted_and_no_failure_among_them_is_lost() {
    let world = World::new(BEGAN, manners());
    *world.recorder.fails.lock().unwrap() = vec![NotifyError::Busy(Duration::from_secs(600))];
    for n in 0..3000 {
        world.tell(Severity::Info, &n.to_string());
        // The queue before the desk is emptied in time.
        tokio::task::yield_now().await;
        if n % 100 == 0 {
            world.tell(Severity::Failure, &format!("f{n}"));
        }
    }
    world.pass(700).await;
    let sent = world.sent(BEGAN);
    assert_eq!(sent[0], (600, "and 3000 more…".to_owned()));
    assert_eq!(sent.len(), 31);
    assert_eq!(world.last().title, "Trouble: f2900");
    let why = &world.recorder.sent.lock().unwrap()[0].1.why.clone();
    assert_eq!(why.len(), 21);
    drop(world.end().await);
}

#[tokio::test(start_paused = true)]
async fn in_quiet_hours_information_waits_for_their_end_and_warnings_pass() {
    // 22:00 in Berlin, for nine hours.
    let world = World::new("2026-01-02T20:59:50Z", quiet("0 22 * * *", 9));
    world.tell(Severity::Info, "before");
    world.pass(20).await;
    world.tell(Severity::Info, "within");
    world.tell(Severity::Warning, "look");
    world.tell(Severity::Failure, "broken");
    world.pass(9 * 3600).await;
    world.tell(Severity::Info, "after");
    world.pass(10).await;
    let sent = world.sent("2026-01-02T20:59:50Z");
    let end = 10 + 9 * 3600;
    assert_eq!(
        titles(&sent),
        [
            (0, "Trouble: before"),
            (20, "Trouble: look"),
            (21, "Trouble: broken"),
            (end, "1 message in quiet hours"),
            (end + 10, "Trouble: after"),
        ]
    );
    drop(world.end().await);
}

#[tokio::test(start_paused = true)]
async fn quiet_hours_begin_by_the_clock_on_the_wall_also_in_the_nights_when_it_is_changed() {
    // Clocks go forward on 29 March at 02:00 (01:00Z), and back on 25 October at 03:00 (01:00Z). Quiet hours that begin
    // at 01:30 last two hours both times.
    for (began, from, end) in [
        ("2026-03-29T00:00:00Z", 1800, 1800 + 7200),
        ("2026-10-24T23:00:00Z", 1800, 1800 + 7200),
    ] {
        let world = World::new(began, quiet("30 1 * * *", 2));
        world.tell(Severity::Info, "before");
        world.pass(from).await;
        world.tell(Severity::Info, "within");
        world.pass(7199).await;
        assert_eq!(world.sent(began).len(), 1, "{began}");
        world.pass(2).await;
        let expected = [(0, "Trouble: before"), (end, "1 message in quiet hours")];
        assert_eq!(titles(&world.sent(began)), expected, "{began}");
        drop(world.end().await);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_word_on_each_operation_stands_in_what_is_told_together() {
    let began = "2026-01-02T21:00:00Z";
    let world = World::new(began, quiet("0 22 * * *", 1));
    for phase in ["planned", "joining", "done"] {
        let mut event = launch(&["i-1"]);
        if let Event::Operation { phase: reached, .. } = &mut event {
            *reached = phase.into();
        }
        world.hub.tell(Happening {
            time: world.clock.now(),
            severity: Severity::Info,
            message: phase.into(),
            event,
        });
    }
    world.pass(3601).await;
    assert_eq!(world.last().title, "3 messages in quiet hours");
    assert_eq!(world.last().why, ["Launch of i-1: done"]);
    drop(world.end().await);
}

#[tokio::test(start_paused = true)]
async fn what_persists_is_told_once() {
    let world = World::new(BEGAN, manners());
    for _ in 0..3 {
        world.tell(Severity::Warning, "the same");
    }
    world.pass(10).await;
    assert_eq!(world.sent(BEGAN).len(), 1);
    drop(world.end().await);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_waits_goes_together_and_what_waited_for_quiet_hours_is_counted() {
    let world = World::new("2026-01-02T21:30:00Z", quiet("0 22 * * *", 9));
    world.tell(Severity::Info, "quiet");
    for n in 0..5 {
        world.tell(Severity::Warning, &format!("w{n}"));
    }
    let recorder = Arc::clone(&world.recorder);
    let metrics = world.end().await;
    let sent = recorder.sent.lock().unwrap();
    assert_eq!(
        sent.iter()
            .map(|(_, message)| message.title.as_str())
            .collect::<Vec<_>>(),
        ["and 5 more…"]
    );
    assert!(
        metrics.contains(r#"smartscale_happenings_dropped_total{sink="recorder"} 1"#),
        "{metrics}"
    );
}
