//! Writes the chain of one coordinator: each record where none stands yet, then the head.
//!
//! ```text
//!   head as stored ─▶ records after it (a crash between record and head) are taken in ─▶ `start`
//!        ▲                                                                                  │
//!        └── head, sealed ◀── records, each only where there is none ◀── queue ◀────────────┘ … `stop`
//! ```
//! A record is tried until the store takes it. Where a record stands already that is not ours, another process of this
//! coordinator's name goes on with the chain (an old one that ends late, or a mistake): the chain is read again and ours
//! follows it. Each time that one of them loses a place another has got on, so that this ends; it is no sign that the
//! store takes nothing, also not at the end of the process.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use smartscale_proto::{
    audit::{Deed, Entry, Head},
    backoff::Backoff,
    time::within,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Audit, KEPT};
use crate::{
    ids::CoordinatorName,
    serve::authority::Authority,
    state::{Condition, SharedStore, StoreError, Write, records::Record as _},
};

/// Records that are written before the head is written again.
const BATCH: usize = 64;
/// Between two looks at what is only counted.
const LOOK: Duration = Duration::from_secs(10);
/// The longest pause between attempts.
const PAUSE: Duration = Duration::from_secs(5);
/// Failures of the store that a record or head outlasts once the end of the process has begun.
const LAST_ATTEMPTS: u32 = 2;
/// Places lost to another process of this name before even the end of this one goes without its records.
const LAST_PLACES: u32 = 10_000;

/// Writes records to the store.
pub struct Writer {
    queue: mpsc::Receiver<Deed>,
    store: SharedStore,
    audit: Arc<Audit>,
    authority: Arc<Authority>,
    /// The end of the chain, with the version of the stored head; `None`: not read yet.
    end: Option<(Head, Condition)>,
    name: String,
}

/// The process ends and the store does not answer.
struct GivenUp;

/// What kept one record, or a head, from being written so far.
#[derive(Default)]
struct Tries {
    /// The store took nothing.
    failed: u32,
    /// Another process of this name was faster.
    overtaken: u32,
}

impl Writer {
    pub(super) fn new(
        name: &CoordinatorName,
        queue: mpsc::Receiver<Deed>,
        store: SharedStore,
        audit: Arc<Audit>,
        authority: Arc<Authority>,
    ) -> Self {
        Self {
            queue,
            store,
            audit,
            authority,
            end: None,
            name: name.to_string(),
        }
    }

    /// Writes records until `shutdown`, then those that wait.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let begun = self.of_process(
            "start",
            "this process begins; what a former one had not written is in its log",
        );
        let mut batch = vec![begun];
        loop {
            if self.write(&batch, &shutdown).await.is_err() {
                return self.count_what_is_left(batch.len());
            }
            batch.clear();
            tokio::select! {
                biased;
                count = self.queue.recv_many(&mut batch, BATCH) => if count == 0 { break },
                () = shutdown.cancelled() => break,
                () = self.audit.clock.sleep(LOOK) => {}
            }
            batch.extend(self.audit.left_out());
        }
        // The last words, and that there are none after them.
        self.queue.close();
        let mut batch = Vec::new();
        while let Ok(deed) = self.queue.try_recv() {
            batch.push(deed);
        }
        batch.extend(self.audit.left_out());
        batch.push(self.of_process("stop", "this process ends; every record of it is in the chain"));
        if self.write(&batch, &shutdown).await.is_err() {
            self.count_what_is_left(batch.len());
        }
    }

    fn of_process(&self, call: &str, text: &str) -> Deed {
        self.audit.deed("coordinator", call, text, "ok")
    }

    fn count_what_is_left(&mut self, batch: usize) {
        let waiting = batch + self.queue.len();
        tracing::error!(
            waiting,
            "the state store took the last audit records no more: they are in the log only"
        );
    }

    /// Writes all of `deeds`, then the head.
    async fn write(&mut self, deeds: &[Deed], shutdown: &CancellationToken) -> Result<(), GivenUp> {
        for deed in deeds {
            let mut tries = Tries::default();
            while let Err(error) = self.add(deed).await {
                self.wait(&mut tries, &error, shutdown).await?;
            }
        }
        if !deeds.is_empty() {
            let mut tries = Tries::default();
            while let Err(error) = self.seal().await {
                self.wait(&mut tries, &error, shutdown).await?;
            }
            self.audit.stuck.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Says that the store takes nothing, once, and waits for another attempt.
    async fn wait(
        &mut self,
        tries: &mut Tries,
        error: &StoreError,
        shutdown: &CancellationToken,
    ) -> Result<(), GivenUp> {
        // What was known of the chain may be wrong.
        self.end = None;
        let (count, last) = match error {
            StoreError::Conflict(_) => (&mut tries.overtaken, LAST_PLACES),
            _ => (&mut tries.failed, LAST_ATTEMPTS),
        };
        *count += 1;
        let count = *count;
        if tries.failed == 2 && !self.audit.stuck.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "the state store takes no audit records: they wait, and are in the log");
        }
        if shutdown.is_cancelled() && count >= last {
            return Err(GivenUp);
        }
        let delay = Backoff::DEFAULT.bound(count).min(PAUSE);
        let clock = Arc::clone(&self.audit.clock);
        // The end of the process is not waited for in full.
        let _ = within(&*clock, delay, shutdown.cancelled()).await;
        Ok(())
    }

    /// Adds one record to the chain.
    async fn add(&mut self, deed: &Deed) -> Result<(), StoreError> {
        let (last, condition) = self.known_end().await?;
        let entry = Entry::after(&last, deed.clone());
        let write = Write::Put {
            key: entry.key(),
            body: entry.body()?,
            expires_at: entry.time.checked_add(KEPT).ok(),
            condition: Condition::Absent,
        };
        match self.store.append(&write).await {
            Ok(()) => {}
            // Ours, of an attempt whose answer was lost; or another's, which the next look takes in.
            Err(error @ (StoreError::Conflict(_) | StoreError::Unknown(_))) => {
                let stored = self.store.get(&entry.key()).await?;
                let ours = stored.is_some_and(|item| Entry::from_item(&item).is_ok_and(|it| it == entry));
                if !ours {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        self.end = Some((Head::at(&entry), condition));
        Ok(())
    }

    /// Writes where the chain ends, sealed; and into the log, which whoever writes to the store does not have.
    async fn seal(&mut self) -> Result<(), StoreError> {
        let (mut head, condition) = self.known_end().await?;
        let seal = self.authority.seal(&head.signed());
        head.seal = hex::encode(seal.map_err(|error| StoreError::Unavailable(error.to_string()))?);
        let write = Write::Put {
            key: head.key(),
            body: head.body()?,
            expires_at: None,
            condition,
        };
        self.store.append(&write).await?;
        tracing::info!(target: "audit", sequence = head.sequence, hash = %head.hash, "the chain ends here");
        let next = match condition {
            Condition::Version(version) => Condition::Version(version + 1),
            _ => Condition::Version(1),
        };
        self.end = Some((head, next));
        Ok(())
    }

    /// The end of the chain: as known, or as stored.
    async fn known_end(&mut self) -> Result<(Head, Condition), StoreError> {
        if let Some(end) = &self.end {
            return Ok(end.clone());
        }
        let empty = Head::empty(&self.name);
        let stored = self.store.get(&empty.key()).await?;
        let (mut head, condition) = match &stored {
            None => (empty, Condition::Absent),
            Some(item) => match Head::from_item(item) {
                Ok(head) if head.coordinator == self.name => (head, Condition::Version(item.version)),
                Ok(_) | Err(_) => {
                    tracing::error!(
                        key = item.key,
                        "the head of the audit's chain cannot be read: the chain is followed to its end"
                    );
                    (empty, Condition::Version(item.version))
                }
            },
        };
        // Records after the head: a process that ended between record and head, or goes on beside us. Where the head is
        // lost the newest record says where the chain goes on.
        if head.sequence == 0 {
            let prefix = format!("{}{}#", Entry::PREFIX, self.name);
            let newest = self.store.list(&prefix, true, 1).await?;
            if let Some(entry) = newest.first().and_then(|item| Entry::from_item(item).ok()) {
                head = Head::at(&entry);
            }
        }
        loop {
            let key = crate::state::records::audit_key(&self.name, head.sequence + 1);
            let Some(item) = self.store.get(&key).await? else {
                break;
            };
            let entry = Entry::from_item(&item).unwrap_or_else(|error| {
                // What cannot be read stays, and is named by whoever checks; the chain goes on after its place.
                tracing::error!(%error, "a record of the audit cannot be read");
                let unread = self.audit.deed("", "", "", "");
                Entry::after(&head, unread)
            });
            head = Head {
                sequence: head.sequence + 1,
                ..Head::at(&entry)
            };
        }
        self.end = Some((head.clone(), condition));
        Ok((head, condition))
    }
}
