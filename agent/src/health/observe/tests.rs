#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
//! How soon a change is told, and how little a quiet machine says, on tokio's paused time.

use async_trait::async_trait;
use smartscale_planner::fixtures;
use smartscale_proto::time::Clock;
use tokio::time::Instant;

use super::*;
use crate::embedded::{EmbeddedKubelet, EmbeddedUnits};

struct Paused(Instant);

#[async_trait]
impl Clock for Paused {
    fn now(&self) -> Timestamp {
        fixtures::now() + SignedDuration::try_from(self.0.elapsed()).unwrap()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Vital signs that are set, the kubelet's answer too.
#[derive(Default)]
struct Set(Mutex<(Reading, bool)>);

#[async_trait]
impl Vitals for Set {
    async fn read(&self) -> Reading {
        self.0.lock().unwrap().0.clone()
    }

    async fn kubelet_healthy(&self) -> Option<bool> {
        Some(self.0.lock().unwrap().1)
    }

    async fn runtime_healthy(&self) -> Option<bool> {
        Some(true)
    }
}

struct World {
    clock: SharedClock,
    vitals: Arc<Set>,
    skew: watch::Sender<Option<Skew>>,
    reports: watch::Receiver<Sample>,
    observer: Observer,
}

fn world() -> World {
    let clock: SharedClock = Arc::new(Paused(Instant::now()));
    let vitals = Arc::new(Set::default());
    vitals.0.lock().unwrap().1 = true;
    let seconds = Duration::from_secs;
    let settings = config::Health {
        changing: seconds(1),
        quiet: seconds(5),
        services: seconds(10),
        pods: seconds(10),
    };
    let intervals = watch::Sender::new(Intervals {
        changing: seconds(1),
        quiet: seconds(5),
    });
    let (skew, latest) = (watch::Sender::new(None), watch::Sender::new(None));
    let node = watch::Sender::new(Some("i-1".to_owned()));
    let observer = Observer {
        vitals: Arc::<Set>::clone(&vitals),
        units: Arc::new(EmbeddedUnits::default()),
        kubelet: Arc::new(EmbeddedKubelet::new(Arc::clone(&clock))),
        clock: Arc::clone(&clock),
        unit: "k3s-agent.service".into(),
        settings,
        intervals: intervals.subscribe(),
        skew: skew.subscribe(),
        node: node.subscribe(),
        latest: latest.clone(),
    };
    World {
        clock,
        vitals,
        skew,
        reports: latest.subscribe(),
        observer,
    }
}

/// Runs the observer beside `look`.
async fn beside<T>(observer: Observer, look: impl Future<Output = T>) -> T {
    tokio::select! {
        () = observer.run() => panic!("the observer ended"),
        seen = look => seen,
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_machine_reports_once_in_a_quiet_interval() {
    let World {
        mut reports,
        observer,
        ..
    } = world();
    let count = beside(observer, async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        reports.mark_unchanged();
        let mut count = 0;
        let until = Instant::now() + Duration::from_secs(60);
        while tokio::time::timeout_at(until, reports.changed()).await.is_ok() {
            count += 1;
        }
        count
    })
    .await;
    assert!((11..=13).contains(&count), "{count}");
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_falls_silent_is_told_within_a_second() {
    let World {
        clock,
        vitals,
        mut reports,
        observer,
        ..
    } = world();
    let took = beside(observer, async {
        tokio::time::sleep(Duration::from_millis(20_300)).await;
        vitals.0.lock().unwrap().1 = false;
        let began = clock.elapsed();
        let told = |sample: &Sample| {
            sample
                .as_ref()
                .is_some_and(|(_, health)| health.kubelet_healthy == Some(false))
        };
        reports.wait_for(told).await.unwrap();
        clock.elapsed() - began
    })
    .await;
    assert!(took <= Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_figure_that_jumps_is_told_within_a_second() {
    let World {
        clock,
        vitals,
        mut reports,
        observer,
        ..
    } = world();
    let took = beside(observer, async {
        tokio::time::sleep(Duration::from_millis(20_300)).await;
        vitals.0.lock().unwrap().0.cpu_percent = Some(90.0);
        let began = clock.elapsed();
        let told = |sample: &Sample| {
            sample
                .as_ref()
                .is_some_and(|(_, health)| health.cpu_percent == Some(90.0))
        };
        reports.wait_for(told).await.unwrap();
        clock.elapsed() - began
    })
    .await;
    assert!(took <= Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_wrong_against_the_coordinators_is_a_condition() {
    let World {
        clock,
        skew,
        mut reports,
        observer,
        ..
    } = world();
    skew.send_replace(Some(Skew {
        wall: clock.now(),
        elapsed: clock.elapsed(),
        ahead: SignedDuration::from_secs(61),
    }));
    beside(observer, async {
        let told = |sample: &Sample| {
            sample.as_ref().is_some_and(|(_, health)| {
                health.clock_skew_ms == Some(61_000)
                    && health
                        .conditions
                        .iter()
                        .any(|condition| condition.kind() == v1::HealthConditionKind::ClockSkew)
            })
        };
        tokio::time::timeout(Duration::from_secs(5), reports.wait_for(told))
            .await
            .expect("nothing was told")
            .unwrap();
    })
    .await;
}
