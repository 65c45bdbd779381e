#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::json;
use smartscale_planner::model::Market;
use tokio::sync::Notify;

use super::*;
use crate::{
    ids::Epoch,
    observe::notices::NoticeKind,
    state::{
        Attributes, Condition, Item, LeaseRow, StateStore, Write, lease::tests::PausedClock,
        sqlite::SqliteStore,
    },
    tell::Tell,
};

/// A queue in memory: what was received and not deleted is visible again when it is asked for.
#[derive(Default)]
struct Memory {
    visible: Mutex<VecDeque<Received>>,
    hidden: Mutex<Vec<Received>>,
    reads: AtomicUsize,
    fails: AtomicUsize,
    arrived: Notify,
}

impl Memory {
    fn send(&self, body: &str) {
        let receipt = format!("r{}", rand::random::<u64>());
        self.visible.lock().unwrap().push_back(Received {
            body: body.to_owned(),
            receipt,
        });
        self.arrived.notify_one();
    }

    fn reappear(&self) {
        let hidden = std::mem::take(&mut *self.hidden.lock().unwrap());
        self.visible.lock().unwrap().extend(hidden);
        self.arrived.notify_one();
    }

    fn left(&self) -> usize {
        self.visible.lock().unwrap().len() + self.hidden.lock().unwrap().len()
    }
}

#[async_trait]
impl NoticeQueue for Memory {
    async fn receive(&self) -> Result<Vec<Received>, QueueError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) > 0 {
            self.fails.fetch_sub(1, Ordering::Relaxed);
            return Err(QueueError("no such queue".into()));
        }
        loop {
            let received: Vec<_> = self.visible.lock().unwrap().drain(..).collect();
            if !received.is_empty() {
                self.hidden.lock().unwrap().extend(received.clone());
                return Ok(received);
            }
            self.arrived.notified().await;
        }
    }

    async fn delete(&self, receipts: Vec<String>) -> Result<(), QueueError> {
        self.hidden
            .lock()
            .unwrap()
            .retain(|one| !receipts.contains(&one.receipt));
        Ok(())
    }
}

/// A store that does not take anything for a time.
struct Closing(SqliteStore, AtomicUsize);

#[async_trait]
impl StateStore for Closing {
    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        self.0.lease().await
    }
    async fn replace_lease(&self, expected: Option<&str>, next: &LeaseRow) -> Result<bool, StoreError> {
        self.0.replace_lease(expected, next).await
    }
    async fn commit(&self, epoch: Epoch, writes: &[Write], with: &Attributes) -> Result<(), StoreError> {
        self.0.commit(epoch, writes, with).await
    }
    async fn append(&self, write: &Write) -> Result<(), StoreError> {
        if self.1.load(Ordering::Relaxed) > 0 {
            self.1.fetch_sub(1, Ordering::Relaxed);
            return Err(StoreError::Unavailable("closed".into()));
        }
        self.0.append(write).await
    }
    async fn get(&self, key: &str) -> Result<Option<Item>, StoreError> {
        self.0.get(key).await
    }
    async fn list(&self, prefix: &str, newest: bool, limit: usize) -> Result<Vec<Item>, StoreError> {
        self.0.list(prefix, newest, limit).await
    }
    async fn attributes(&self) -> Result<Attributes, StoreError> {
        self.0.attributes().await
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Tell for Told {
    fn tell(&self, happening: Happening) {
        if happening.severity > Severity::Detail {
            self.0.lock().unwrap().push(happening.message);
        }
    }
}

struct Stage {
    queue: Arc<Memory>,
    store: Arc<Closing>,
    board: Arc<NoticeBoard>,
    told: Arc<Told>,
    leadership: watch::Sender<Leadership>,
    wakes: Arc<AtomicUsize>,
    counts: Metrics,
    clock: SharedClock,
    stop: CancellationToken,
}

fn leading() -> Leadership {
    Leadership::Leader {
        epoch: Epoch(1),
        until: Duration::MAX,
    }
}

impl Stage {
    /// One of our machines is `i-ours`.
    async fn new(leadership: Leadership) -> Self {
        let clock = PausedClock::shared();
        let store = SqliteStore::in_memory("demo".into(), Arc::clone(&clock)).unwrap();
        let record = NodeRecord {
            instance: "i-ours".parse().unwrap(),
            pool: "workers".into(),
            instance_type: "t3.small".into(),
            zone: "us-east-1a".into(),
            market: Market::Spot,
            operation: "op-1".parse().unwrap(),
            launched_at: clock.now(),
            secret_hash: None,
            secret_expires_at: None,
            enrolled_key: None,
            enrolled_at: None,
            ready_at: None,
            binding_secret: None,
            certified: None,
            revoked_at: None,
            boot: Vec::new(),
        };
        let put = Write::Put {
            key: record.key(),
            body: record.body().unwrap(),
            expires_at: None,
            condition: Condition::Always,
        };
        store.append(&put).await.unwrap();
        let store = Arc::new(Closing(store, AtomicUsize::new(0)));
        let told: Arc<Told> = Arc::default();
        let board = NoticeBoard::new(store.clone(), told.clone(), Arc::clone(&clock));
        Self {
            queue: Arc::default(),
            store,
            board,
            told,
            leadership: watch::Sender::new(leadership),
            wakes: Arc::default(),
            counts: Metrics::new("0"),
            clock,
            stop: CancellationToken::new(),
        }
    }

    fn listen(&self) {
        let wakes = Arc::clone(&self.wakes);
        let parts = Parts {
            queue: self.queue.clone(),
            board: Arc::clone(&self.board),
            store: self.store.clone(),
            leadership: self.leadership.subscribe(),
            wake: Box::new(move || {
                wakes.fetch_add(1, Ordering::Relaxed);
            }),
            tell: self.told.clone(),
            counts: self.counts.clone(),
            clock: Arc::clone(&self.clock),
        };
        tokio::spawn(run(parts, self.stop.clone()));
    }

    /// An event about a machine, of this moment.
    fn event(&self, detail_type: &str, instance: &str, state: &str) -> String {
        json!({
            "id": "e-1", "detail-type": detail_type, "source": "aws.ec2", "time": self.clock.now().to_string(),
            "detail": { "instance-id": instance, "instance-action": "terminate", "state": state }
        })
        .to_string()
    }

    fn interruption(&self, instance: &str) -> String {
        self.event("EC2 Spot Instance Interruption Warning", instance, "")
    }

    fn wakes(&self) -> usize {
        self.wakes.load(Ordering::Relaxed)
    }

    fn has_counted(&self, outcome: &str, times: usize) -> bool {
        let line = format!("smartscale_queue_messages_total{{outcome=\"{outcome}\"}} {times}\n");
        self.counts.encode().contains(&line)
    }
}

/// Lets the loop do all it can do at this moment: time is paused and goes on only while nothing else can.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_notice_is_deleted_once_it_is_stored_and_acted_on_at_once() {
    let stage = Stage::new(leading()).await;
    stage.listen();
    stage.queue.send(&stage.interruption("i-ours"));
    settle().await;
    assert_eq!(stage.board.interruptions().len(), 1);
    assert_eq!((stage.queue.left(), stage.wakes()), (0, 1));
    let stored = stage.store.get("notice#i-ours#spot_interruption").await.unwrap();
    assert!(stored.is_some());
    assert!(stage.has_counted("taken", 1));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_stays_in_the_queue_and_is_taken_in_when_it_comes_again() {
    let stage = Stage::new(leading()).await;
    stage.store.1.store(1, Ordering::Relaxed);
    stage.listen();
    stage.queue.send(&stage.interruption("i-ours"));
    settle().await;
    assert!(stage.board.all().is_empty());
    assert_eq!((stage.queue.left(), stage.wakes()), (1, 0));
    stage.queue.reappear();
    settle().await;
    assert_eq!(stage.board.all().len(), 1);
    assert_eq!(stage.queue.left(), 0);
}

#[tokio::test(start_paused = true)]
async fn poison_and_what_is_about_others_blocks_nothing_and_is_counted() {
    let stage = Stage::new(leading()).await;
    stage.queue.send("{ poison");
    stage.queue.send(&stage.interruption("i-theirs"));
    stage.queue.send(&stage.event("EC2 Something Else", "i-ours", ""));
    stage.queue.send(&stage.interruption("i-ours"));
    stage.listen();
    settle().await;
    assert_eq!(stage.queue.left(), 0);
    let all = stage.board.all();
    assert_eq!((all.len(), all[0].kind), (1, NoticeKind::SpotInterruption));
    for outcome in ["unreadable", "foreign", "ignored", "taken"] {
        assert!(
            stage.has_counted(outcome, 1),
            "{outcome}: {}",
            stage.counts.encode()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_stops_is_looked_at_and_believed_nothing() {
    let stage = Stage::new(leading()).await;
    stage.listen();
    let changed = |instance, state| stage.event("EC2 Instance State-change Notification", instance, state);
    stage.queue.send(&changed("i-ours", "shutting-down"));
    settle().await;
    assert_eq!((stage.wakes(), stage.board.all().len()), (1, 0));
    for (instance, state) in [("i-theirs", "terminated"), ("i-ours", "running")] {
        stage.queue.send(&changed(instance, state));
        settle().await;
    }
    assert_eq!((stage.wakes(), stage.queue.left()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_reads_and_a_renewal_ends_no_read() {
    let stage = Stage::new(Leadership::Follower { leader: None }).await;
    stage.listen();
    stage.queue.send(&stage.interruption("i-ours"));
    settle().await;
    assert_eq!(
        (stage.queue.reads.load(Ordering::Relaxed), stage.queue.left()),
        (0, 1)
    );

    stage.leadership.send_replace(leading());
    settle().await;
    assert_eq!(stage.board.all().len(), 1);
    let reads = stage.queue.reads.load(Ordering::Relaxed);
    for _ in 0..5 {
        stage.leadership.send_replace(leading());
        settle().await;
    }
    assert_eq!(stage.queue.reads.load(Ordering::Relaxed), reads);

    stage
        .leadership
        .send_replace(Leadership::Follower { leader: None });
    settle().await;
    stage.queue.send(&stage.interruption("i-ours"));
    settle().await;
    assert_eq!(stage.queue.left(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_does_not_answer_is_asked_ever_more_rarely_and_said_once() {
    let stage = Stage::new(leading()).await;
    stage.queue.fails.store(8, Ordering::Relaxed);
    stage.listen();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let reads = stage.queue.reads.load(Ordering::Relaxed);
    assert!((3..=7).contains(&reads), "{reads}");
    let error = "the queue of notices: no such queue";
    assert_eq!(stage.board.queue_error().as_deref(), Some(error));
    stage.queue.send(&stage.interruption("i-theirs"));
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!((stage.queue.left(), stage.board.queue_error()), (0, None));
    assert_eq!(
        *stage.told.0.lock().unwrap(),
        [error, "the queue of notices answers again"]
    );
}

#[tokio::test(start_paused = true)]
async fn the_loop_ends_when_it_is_told_to() {
    let stage = Stage::new(leading()).await;
    stage.listen();
    settle().await;
    stage.stop.cancel();
    settle().await;
    stage.queue.send(&stage.interruption("i-ours"));
    settle().await;
    assert_eq!(stage.queue.left(), 1);
}
