#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
//! The chain as it is written: over restarts and outages of the store, and by two processes of one name.

use std::{
    sync::atomic::{AtomicBool, AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use smartscale_proto::{
    audit::{
        Entry, Head,
        verify::{Checker, Finding},
    },
    time::SystemClock,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    ids::Epoch,
    serve::testing::{names, store, until},
    state::{Attributes, Item, LeaseRow, StateStore, StoreError, Write, records::Record as _},
};

/// A store that may be down, and whose answers may be lost.
struct Flaky {
    inner: SharedStore,
    down: AtomicBool,
    /// So many appends from now on take place and are not answered.
    unanswered: AtomicU64,
    /// So many appends from now on come too late: somebody else's stood there first.
    overtaken: AtomicU64,
}

impl Flaky {
    fn up(&self) -> Result<(), StoreError> {
        match self.down.load(Ordering::Relaxed) {
            true => Err(StoreError::Unavailable("it is down".to_owned())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl StateStore for Flaky {
    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        self.inner.lease().await
    }
    async fn replace_lease(&self, expected: Option<&str>, next: &LeaseRow) -> Result<bool, StoreError> {
        self.inner.replace_lease(expected, next).await
    }
    async fn commit(
        &self,
        epoch: Epoch,
        writes: &[Write],
        attributes: &Attributes,
    ) -> Result<(), StoreError> {
        self.inner.commit(epoch, writes, attributes).await
    }
    async fn append(&self, write: &Write) -> Result<(), StoreError> {
        self.up()?;
        let lose = |left: u64| left.checked_sub(1);
        let late = self
            .overtaken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, lose);
        if late.is_ok() {
            return Err(StoreError::Conflict("of somebody else".to_owned()));
        }
        let done = self.inner.append(write).await;
        match self
            .unanswered
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, lose)
        {
            Ok(_) => Err(StoreError::Unknown("no answer".to_owned())),
            Err(_) => done,
        }
    }
    async fn get(&self, key: &str) -> Result<Option<Item>, StoreError> {
        self.up()?;
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &str, newest_first: bool, limit: usize) -> Result<Vec<Item>, StoreError> {
        self.inner.list(prefix, newest_first, limit).await
    }
    async fn attributes(&self) -> Result<Attributes, StoreError> {
        self.inner.attributes().await
    }
}

struct World {
    store: Arc<Flaky>,
    authority: Arc<Authority>,
}

struct Running {
    audit: Arc<Audit>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl World {
    async fn new() -> Self {
        let inner = store(Arc::new(SystemClock)).await;
        Self {
            store: Arc::new(Flaky {
                inner,
                down: AtomicBool::new(false),
                unanswered: AtomicU64::new(0),
                overtaken: AtomicU64::new(0),
            }),
            authority: Arc::new(Authority::create(names("demo")).unwrap().0),
        }
    }

    fn start(&self) -> Running {
        let name = "a".parse().unwrap();
        let (audit, writer) = Audit::new(
            &name,
            self.store.clone(),
            Arc::new(SystemClock),
            Arc::clone(&self.authority),
        );
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(writer.run(shutdown.clone()));
        Running {
            audit,
            shutdown,
            task,
        }
    }

    async fn entries(&self) -> Vec<Entry> {
        let items = self.store.inner.list(Entry::PREFIX, false, 10_000).await.unwrap();
        items.iter().map(|item| Entry::from_item(item).unwrap()).collect()
    }

    async fn head(&self) -> Option<Head> {
        let item = self.store.inner.get(&Head::empty("a").key()).await.unwrap()?;
        Some(Head::from_item(&item).unwrap())
    }

    async fn findings(&self) -> Vec<Finding> {
        let head = self.head().await;
        let anchors = self.authority.anchors();
        let sealed = head
            .as_ref()
            .is_some_and(|head| head.is_sealed_by(anchors.iter().map(|anchor| &**anchor)));
        let now = Timestamp::now() + SignedDuration::from_hours(1);
        let mut checker = Checker::new("a", now, KEPT.unsigned_abs(), head, None);
        for entry in self.entries().await {
            checker.entry(entry.sequence, &entry);
        }
        checker.finish(sealed).findings
    }
}

impl Running {
    fn act(&self, count: usize) {
        for n in 0..count {
            let who = "spiffe://smartscale/cluster/demo/admin/viewer/jo";
            self.audit
                .record(who, "/smartscale.v1.Admin/Status", &format!("n={n}"), Code::Ok);
        }
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn calls(entries: &[Entry]) -> Vec<&str> {
    entries
        .iter()
        .map(|entry| entry.call.rsplit('/').next().unwrap())
        .collect()
}

#[tokio::test]
async fn a_restart_goes_on_with_the_chain() {
    let world = World::new().await;
    for _ in 0..3 {
        let running = world.start();
        running.act(70);
        running.end().await;
    }
    assert_eq!(world.findings().await, []);
    let entries = world.entries().await;
    assert_eq!(entries.len(), 3 * 72);
    assert_eq!(calls(&entries[..2]), ["start", "Status"]);
    assert_eq!(calls(&entries[71..73]), ["stop", "start"]);
}

#[tokio::test]
async fn a_process_that_dies_between_record_and_head_is_gone_on_from() {
    let world = World::new().await;
    let running = world.start();
    running.act(3);
    running.end().await;
    let before = world.head().await.unwrap();
    // What a process writes that is killed before its head.
    let deed = Deed {
        time: Timestamp::now(),
        who: "x".to_owned(),
        call: "last".to_owned(),
        arguments: String::new(),
        outcome: "ok".to_owned(),
    };
    let entry = Entry::after(&before, deed);
    let write = Write::Put {
        key: entry.key(),
        body: entry.body().unwrap(),
        expires_at: None,
        condition: crate::state::Condition::Absent,
    };
    world.store.append(&write).await.unwrap();
    assert_eq!(world.findings().await, [Finding::Unsealed(6, 6)]);
    let running = world.start();
    running.end().await;
    assert_eq!(world.findings().await, []);
    assert_eq!(calls(&world.entries().await)[5..], ["last", "start", "stop"]);
}

#[tokio::test]
async fn two_processes_of_one_name_write_one_chain() {
    let world = World::new().await;
    let (one, other) = (world.start(), world.start());
    for _ in 0..20 {
        one.act(5);
        other.act(5);
        tokio::task::yield_now().await;
    }
    one.end().await;
    other.end().await;
    assert_eq!(world.findings().await, []);
    assert_eq!(world.entries().await.len(), 2 * 102);
}

#[tokio::test]
async fn a_process_that_is_overtaken_at_its_end_still_leaves_its_records() {
    let world = World::new().await;
    let running = world.start();
    until(async || (world.entries().await.len() == 1).then_some(())).await;
    world.store.overtaken.store(20, Ordering::Relaxed);
    running.act(3);
    running.end().await;
    assert_eq!(
        calls(&world.entries().await),
        ["start", "Status", "Status", "Status", "stop"]
    );
    assert_eq!(world.findings().await, []);
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_no_record_twice() {
    let world = World::new().await;
    world.store.unanswered.store(5, Ordering::Relaxed);
    let running = world.start();
    running.act(10);
    until(async || (world.entries().await.len() >= 11).then_some(())).await;
    running.end().await;
    assert_eq!(world.findings().await, []);
    assert_eq!(world.entries().await.len(), 12);
}

#[tokio::test]
async fn what_the_store_did_not_take_is_said_in_the_chain() {
    let world = World::new().await;
    let running = world.start();
    until(async || world.head().await).await;
    world.store.down.store(true, Ordering::Relaxed);
    running.act(1);
    until(async || running.audit.trouble()).await;
    running.act(QUEUE + 500);
    let trouble = running.audit.trouble().unwrap();
    assert!(trouble.contains("in the log only"), "{trouble}");
    world.store.down.store(false, Ordering::Relaxed);
    until(async || {
        let entries = world.entries().await;
        let said = entries.iter().find(|entry| entry.outcome == "lost")?;
        let lost: usize = said.arguments.split(' ').next()?.parse().ok()?;
        let written = entries
            .iter()
            .filter(|entry| entry.call.ends_with("Status"))
            .count();
        // Every call is in the chain or counted by it.
        (written + lost == QUEUE + 501).then_some(())
    })
    .await;
    until(async || running.audit.trouble().is_none().then_some(())).await;
    running.end().await;
    assert_eq!(world.findings().await, []);
}

#[tokio::test]
async fn strangers_do_not_fill_the_chain_and_are_counted() {
    let world = World::new().await;
    let running = world.start();
    for n in 0..5_000 {
        running.audit.record(
            &format!("192.0.2.7:{n}"),
            "handshake",
            "no",
            Code::Unauthenticated,
        );
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    running.end().await;
    let entries = world.entries().await;
    assert!(entries.len() < 1_000, "{}", entries.len());
    let counted: u64 = entries
        .iter()
        .filter_map(|entry| {
            entry
                .arguments
                .split_once(" refusals, of callers")?
                .0
                .parse::<u64>()
                .ok()
        })
        .sum();
    let single = entries.iter().filter(|entry| entry.arguments == "no").count() as u64;
    assert_eq!(single + counted, 5_000);
    assert_eq!(world.findings().await, []);
}

#[tokio::test]
async fn a_store_that_is_down_at_the_end_holds_nothing_up() {
    let world = World::new().await;
    let running = world.start();
    until(async || world.head().await).await;
    world.store.down.store(true, Ordering::Relaxed);
    running.act(3);
    tokio::time::timeout(Duration::from_secs(30), running.end())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_head_that_was_taken_away_is_made_again_from_the_newest_record() {
    let world = World::new().await;
    let running = world.start();
    running.act(3);
    running.end().await;
    let key = Head::empty("a").key();
    world.store.append(&Write::Delete { key }).await.unwrap();
    assert_eq!(world.findings().await, [Finding::NoHead]);
    let running = world.start();
    running.end().await;
    assert_eq!(world.findings().await, []);
    assert_eq!(world.entries().await.len(), 7);
}
