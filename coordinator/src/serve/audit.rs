//! The audit: every refusal, every enrolment and every call of a person, in the log and in the state store.
//!
//! ```text
//!   authorise, enrolment, admin ──record──▶ queue (bounded) ──Writer──▶ store (audit#…)
//!                                   └──▶ log
//! ```
//! Nobody waits for the store: a call must not fail because its audit cannot be written at this moment. What does not
//! fit the queue is in the log alone, and how many those were is recorded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::SignedDuration;
use smartscale_proto::{backoff::Backoff, time::SharedClock};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::state::{
    Condition, SharedStore, Write,
    records::{AuditRecord, Record as _},
};

/// Records that may wait for the store.
const QUEUE: usize = 1024;
/// How long a record is kept: 90 days.
const KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Attempts to write a record.
const ATTEMPTS: u32 = 4;
/// Characters of arguments that are kept.
const LONGEST: usize = 2048;

/// Takes records.
pub struct Audit {
    queue: mpsc::Sender<AuditRecord>,
    clock: SharedClock,
    sequence: AtomicU64,
    lost: AtomicU64,
}

/// Writes them to the store.
pub struct Writer {
    queue: mpsc::Receiver<AuditRecord>,
    store: SharedStore,
    audit: Arc<Audit>,
}

impl Audit {
    /// An audit and its writer, which has to be run.
    #[must_use]
    pub fn new(store: SharedStore, clock: SharedClock) -> (Arc<Self>, Writer) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let audit = Arc::new(Self {
            queue: sender,
            clock,
            sequence: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        (
            Arc::clone(&audit),
            Writer {
                queue: receiver,
                store,
                audit,
            },
        )
    }

    /// Records a call: who made it, with which arguments, and how it ended.
    pub fn record(&self, who: &str, call: &str, arguments: &str, outcome: Code) {
        let outcome = name(outcome);
        if outcome == "ok" {
            tracing::info!(target: "audit", who, call, arguments, outcome);
        } else {
            tracing::warn!(target: "audit", who, call, arguments, outcome);
        }
        if self
            .queue
            .try_send(self.make(who, call, arguments, outcome))
            .is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn make(&self, who: &str, call: &str, arguments: &str, outcome: &str) -> AuditRecord {
        let time = self.clock.now();
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) % 1_000_000;
        // Sorts by time; the random part keeps two coordinators apart.
        let id = format!(
            "{:014}-{sequence:06}-{:08x}",
            time.as_millisecond(),
            rand::random::<u32>()
        );
        AuditRecord {
            id,
            time,
            who: who.to_owned(),
            call: call.to_owned(),
            arguments: arguments.chars().take(LONGEST).collect(),
            outcome: outcome.to_owned(),
        }
    }
}

impl Writer {
    /// Writes records until `shutdown`, then those that wait.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let record = tokio::select! {
                biased;
                record = self.queue.recv() => record,
                () = shutdown.cancelled() => break,
            };
            let Some(record) = record else { return };
            self.write(&record, ATTEMPTS).await;
            let lost = self.audit.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                let gap = self.audit.make(
                    "coordinator",
                    "audit",
                    &format!("{lost} records are in the log only"),
                    "lost",
                );
                self.write(&gap, ATTEMPTS).await;
            }
        }
        // A last word must not hold up the end of the process: one attempt each.
        while let Ok(record) = self.queue.try_recv() {
            self.write(&record, 1).await;
        }
    }

    async fn write(&self, record: &AuditRecord, attempts: u32) {
        let Ok(body) = record.body() else { return };
        let expires_at = record.time.checked_add(KEPT).ok();
        let write = Write::Put {
            key: record.key(),
            body,
            expires_at,
            condition: Condition::Always,
        };
        for attempt in 1..=attempts {
            let Err(error) = self.store.append(&write).await else {
                return;
            };
            if attempt == attempts {
                tracing::error!(%error, id = record.id, "an audit record is in the log only");
            } else {
                let delay = Backoff::DEFAULT.bound(attempt).min(Duration::from_secs(5));
                self.audit.clock.sleep(delay).await;
            }
        }
    }
}

/// A code's name in records: `ok`, `permission_denied`, ….
#[must_use]
pub fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
