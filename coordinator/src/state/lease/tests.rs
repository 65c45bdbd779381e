#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
//! Several contenders on one store that fails, with time that stands still but for the sleepers.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use jiff::Timestamp;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use super::*;
use crate::{
    state::{Attributes, Item, StateStore, Write, sqlite::SqliteStore},
    tell::Tell,
};

/// Tokio's paused clock.
#[derive(Debug)]
pub(crate) struct PausedClock(tokio::time::Instant);

impl PausedClock {
    pub(crate) fn shared() -> SharedClock {
        Arc::new(Self(tokio::time::Instant::now()))
    }
}

#[async_trait]
impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        "2026-01-02T03:00:00Z".parse::<Timestamp>().unwrap() + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Before,
    After,
    Delay(Duration),
    HangAfter,
}

/// A store whose calls fail before or after they took effect, hang, or come late.
struct Faulty {
    inner: SqliteStore,
    clock: SharedClock,
    random: Mutex<SmallRng>,
    /// Of a hundred calls so many fail.
    rate: AtomicU64,
    /// Every call fails before it takes effect.
    cut: AtomicU64,
}

impl Faulty {
    fn fault(&self) -> Fault {
        if self.cut.load(Ordering::SeqCst) == 1 {
            return Fault::Before;
        }
        let mut random = self.random.lock().unwrap();
        if random.random_range(0..100) >= self.rate.load(Ordering::SeqCst) {
            return Fault::None;
        }
        match random.random_range(0..4) {
            0 => Fault::Before,
            1 => Fault::After,
            2 => Fault::Delay(Duration::from_millis(random.random_range(1..9_000))),
            _ => Fault::HangAfter,
        }
    }

    /// A delayed call takes effect late even when its caller has given it up.
    async fn call<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.fault() {
            Fault::None => call.await,
            Fault::Before => Err(StoreError::Unavailable("cut".into())),
            Fault::After => {
                call.await?;
                Err(StoreError::Unknown("reply lost".into()))
            }
            Fault::Delay(delay) => {
                let clock = Arc::clone(&self.clock);
                let task = tokio::spawn(async move {
                    clock.sleep(delay).await;
                    call.await
                });
                task.await.unwrap()
            }
            Fault::HangAfter => {
                call.await?;
                std::future::pending().await
            }
        }
    }
}

#[async_trait]
impl StateStore for Faulty {
    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        let inner = self.inner.clone();
        self.call(async move { inner.lease().await }).await
    }
    async fn replace_lease(&self, expected: Option<&str>, next: &LeaseRow) -> Result<bool, StoreError> {
        let (inner, expected, next) = (self.inner.clone(), expected.map(str::to_owned), next.clone());
        self.call(async move { inner.replace_lease(expected.as_deref(), &next).await })
            .await
    }
    async fn commit(&self, _: Epoch, _: &[Write], _: &Attributes) -> Result<(), StoreError> {
        unreachable!()
    }
    async fn append(&self, _: &Write) -> Result<(), StoreError> {
        unreachable!()
    }
    async fn get(&self, _: &str) -> Result<Option<Item>, StoreError> {
        unreachable!()
    }
    async fn list(&self, _: &str, _: bool, _: usize) -> Result<Vec<Item>, StoreError> {
        unreachable!()
    }
    async fn attributes(&self) -> Result<Attributes, StoreError> {
        unreachable!()
    }
}

#[derive(Default)]
struct Silent;

impl Tell for Silent {
    fn tell(&self, _: Happening) {}
}

struct World {
    clock: SharedClock,
    store: SqliteStore,
}

struct Coordinator {
    leadership: watch::Receiver<Leadership>,
    store: Arc<Faulty>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl World {
    fn new() -> Self {
        let clock = PausedClock::shared();
        let store = SqliteStore::in_memory("c".into(), Arc::clone(&clock)).unwrap();
        Self { clock, store }
    }

    fn start(&self, name: &str, seed: u64, rate: u64) -> Coordinator {
        let store = Arc::new(Faulty {
            inner: self.store.clone(),
            clock: Arc::clone(&self.clock),
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            rate: AtomicU64::new(rate),
            cut: AtomicU64::new(0),
        });
        let count = AtomicU64::new(0);
        let prefix = format!("{name}-{seed}");
        let rvn: RvnSource = Arc::new(move || format!("{prefix}-{}", count.fetch_add(1, Ordering::SeqCst)));
        let (lease, leadership) = Lease::new(
            name.parse().unwrap(),
            Settings::default(),
            Arc::clone(&store) as SharedStore,
            Arc::clone(&self.clock),
            Arc::new(Silent),
            rvn,
        );
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(lease.run(shutdown.clone()));
        Coordinator {
            leadership,
            store,
            shutdown,
            task,
        }
    }

    fn acting(&self, coordinators: &[Coordinator]) -> Vec<Epoch> {
        coordinators
            .iter()
            .filter_map(|c| c.leadership.borrow().may_act(&*self.clock))
            .collect()
    }

    async fn wait(&self, seconds: u64) {
        self.clock.sleep(Duration::from_secs(seconds)).await;
    }

    async fn leader(&self, coordinator: &mut Coordinator, within_seconds: u64) -> Epoch {
        let clock = Arc::clone(&self.clock);
        let wait = coordinator
            .leadership
            .wait_for(|leadership| leadership.may_act(&*clock).is_some());
        let found = within(&*self.clock, Duration::from_secs(within_seconds), wait).await;
        let leadership = found.expect("became the leader in time").unwrap().clone();
        leadership.may_act(&*self.clock).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_contender_leads_at_once_and_keeps_leading() {
    let world = World::new();
    let mut a = world.start("a", 1, 0);
    assert_eq!(world.leader(&mut a, 1).await, Epoch(1));
    let mut b = world.start("b", 2, 0);
    for _ in 0..100 {
        world.wait(1).await;
        assert!(a.leadership.borrow().may_act(&*world.clock).is_some());
    }
    let leader = Leadership::Follower {
        leader: Some("a".parse().unwrap()),
    };
    assert_eq!(*b.leadership.borrow_and_update(), leader);
    assert_eq!(world.store.lease().await.unwrap().unwrap().epoch, Epoch(1));
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_succeeded_within_a_lease_and_a_look() {
    let world = World::new();
    let mut a = world.start("a", 1, 0);
    world.leader(&mut a, 1).await;
    let mut b = world.start("b", 2, 0);
    world.wait(33).await;
    a.task.abort();
    assert_eq!(world.leader(&mut b, 17).await, Epoch(2));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_shuts_down_hands_over_at_once() {
    let world = World::new();
    let mut a = world.start("a", 1, 0);
    world.leader(&mut a, 1).await;
    let mut b = world.start("b", 2, 0);
    world.wait(10).await;
    a.shutdown.cancel();
    a.task.await.unwrap();
    assert!(a.leadership.borrow().may_act(&*world.clock).is_none());
    assert_eq!(world.leader(&mut b, 3).await, Epoch(2));
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_from_the_store_stops_before_another_begins() {
    let world = World::new();
    let mut a = world.start("a", 1, 0);
    world.leader(&mut a, 1).await;
    let mut b = world.start("b", 2, 0);
    world.wait(11).await;
    a.store.cut.store(1, Ordering::SeqCst);
    let mut coordinators = [a, b];
    for _ in 0..300 {
        world.clock.sleep(Duration::from_millis(100)).await;
        assert!(world.acting(&coordinators).len() <= 1);
    }
    b = {
        let [_, b] = coordinators;
        b
    };
    assert_eq!(world.leader(&mut b, 1).await, Epoch(2));
    coordinators = [world.start("a", 3, 0), b];
    world.wait(60).await;
    assert_eq!(world.acting(&coordinators), [Epoch(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_was_lost_is_read_again_and_keeps_the_term() {
    let world = World::new();
    let mut a = world.start("a", 7, 0);
    world.leader(&mut a, 1).await;
    a.store.rate.store(40, Ordering::SeqCst);
    for _ in 0..600 {
        world.wait(1).await;
    }
    a.store.rate.store(0, Ordering::SeqCst);
    assert_eq!(
        world.leader(&mut a, 20).await,
        Epoch(1),
        "nobody else was there to take it"
    );
}

#[tokio::test(start_paused = true)]
async fn with_faults_everywhere_at_most_one_acts_and_no_term_is_anothers() {
    for seed in 0..10 {
        let world = World::new();
        let coordinators: Vec<_> = (0..3)
            .map(|n| world.start(&format!("c{n}"), seed * 3 + n, 30))
            .collect();
        let mut terms = std::collections::BTreeMap::<Epoch, usize>::new();
        for _ in 0..600 {
            world.clock.sleep(Duration::from_millis(250)).await;
            let acting: Vec<_> = coordinators
                .iter()
                .enumerate()
                .filter_map(|(n, c)| Some((c.leadership.borrow().may_act(&*world.clock)?, n)))
                .collect();
            assert!(acting.len() <= 1, "seed {seed}: {acting:?}");
            for (epoch, n) in acting {
                assert_eq!(
                    *terms.entry(epoch).or_insert(n),
                    n,
                    "seed {seed}: term {epoch} had two holders"
                );
            }
        }
        assert!(!terms.is_empty(), "seed {seed}: somebody led");
    }
}

#[test]
fn times_that_leave_no_room_are_refused() {
    let settings = Settings {
        renew: Duration::from_secs(12),
        ..Settings::default()
    };
    assert!(matches!(settings.check(), Err(BadSettings::TooShort { .. })));
    let settings = Settings {
        watch: Duration::ZERO,
        ..Settings::default()
    };
    assert_eq!(settings.check(), Err(BadSettings::Zero("watch")));
    assert!(Settings::default().check().is_ok());
}
