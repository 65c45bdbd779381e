//! The audit: every refusal, every enrolment and every call of a person, in the log and in the state store.
//!
//! ```text
//!   authorise, enrolment, people ──record──▶ queue (bounded) ──Writer──▶ chain in the store (audit#NAME#…, audit-head#NAME)
//!                                    └──▶ log                   └──▶ log: where the chain ends
//! ```
//! Nobody waits for the store: a call must not fail because its audit cannot be written at this moment. What does not
//! fit the queue is in the log alone, and the chain says how many those were and when. Refusals of
//! callers without an identity, or beyond their rate, cost an attacker nothing: they are recorded at a bounded rate, the rest
//! of them is counted.
//!
//! - [`writer`]: the chain
//! - [`desk`]: who reads it

pub mod desk;
pub mod writer;

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::{SignedDuration, Timestamp};
use smartscale_proto::{audit::Deed, identity::Identity, time::SharedClock};
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status};

pub use self::writer::Writer;
use super::{authorise::Caller, authority::Authority};
use crate::{ids::CoordinatorName, state::SharedStore};

/// Records that may wait for the store.
const QUEUE: usize = 1024;
/// How long a record is kept: 90 days.
pub const KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Characters of arguments that are kept.
const LONGEST: usize = 2048;
/// Refusals of callers without identity, or beyond their rate, that are recorded one by one: so many at once, and so many
/// in a second.
const STRANGERS: (f64, f64) = (200.0, 20.0);

/// Takes records.
pub struct Audit {
    queue: mpsc::Sender<Deed>,
    clock: SharedClock,
    books: Mutex<Books>,
    /// Whether the store takes no records at this moment.
    stuck: AtomicBool,
}

/// What is not in the queue.
#[derive(Debug, Default)]
struct Books {
    /// What did not fit.
    lost: Option<Lost>,
    /// Refusals of strangers that were not recorded one by one.
    hushed: Option<Hushed>,
    strangers: Option<(f64, std::time::Duration)>,
}

#[derive(Debug, Clone, Copy)]
struct Lost {
    count: u64,
    from: Timestamp,
    to: Timestamp,
}

#[derive(Debug, Clone)]
struct Hushed {
    count: u64,
    last: Deed,
}

impl Audit {
    /// The audit of the coordinator `name` and its writer, which has to be run. `authority` seals the chain.
    #[must_use]
    pub fn new(
        name: &CoordinatorName,
        store: SharedStore,
        clock: SharedClock,
        authority: Arc<Authority>,
    ) -> (Arc<Self>, Writer) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let audit = Arc::new(Self {
            queue: sender,
            clock,
            books: Mutex::default(),
            stuck: AtomicBool::new(false),
        });
        let writer = Writer::new(name, receiver, store, Arc::clone(&audit), authority);
        (audit, writer)
    }

    /// Records a call: who made it, with which arguments, and how it ended.
    pub fn record(&self, who: &str, call: &str, arguments: &str, outcome: Code) {
        let outcome = name(outcome);
        if outcome == "ok" {
            tracing::info!(target: "audit", who, call, arguments, outcome);
        } else {
            tracing::warn!(target: "audit", who, call, arguments, outcome);
        }
        let deed = self.deed(who, call, arguments, outcome);
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let cheap = outcome == "resource_exhausted" || outcome != "ok" && who.parse::<Identity>().is_err();
        if cheap && !books.hears(self.clock.elapsed()) {
            let hushed = books.hushed.get_or_insert_with(|| Hushed {
                count: 0,
                last: deed.clone(),
            });
            hushed.count += 1;
            hushed.last = deed;
            return;
        }
        if let Err(refused) = self.queue.try_send(deed) {
            let time = refused.into_inner().time;
            let lost = books.lost.get_or_insert(Lost {
                count: 0,
                from: time,
                to: time,
            });
            lost.count += 1;
            lost.to = lost.to.max(time);
        }
    }

    /// What a person should know who asks how things stand; `None` when every record is in the chain or about to be.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let lost = self.books.lock().unwrap_or_else(PoisonError::into_inner).lost;
        let waiting = QUEUE.saturating_sub(self.queue.capacity());
        if lost.is_none() && !self.stuck.load(Ordering::Relaxed) {
            return None;
        }
        Some(format!(
            "the audit waits for the state store: {waiting} records wait, {} more are in the log only",
            lost.map_or(0, |lost| lost.count)
        ))
    }

    fn deed(&self, who: &str, call: &str, arguments: &str, outcome: &str) -> Deed {
        Deed {
            time: self.clock.now(),
            who: who.to_owned(),
            call: call.to_owned(),
            arguments: arguments.chars().take(LONGEST).collect(),
            outcome: outcome.to_owned(),
        }
    }

    /// What the chain has to say about records that are not in it.
    fn left_out(&self) -> Vec<Deed> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let (lost, hushed) = (books.lost.take(), books.hushed.take());
        drop(books);
        let mut deeds = Vec::new();
        if let Some(Hushed { count, last }) = hushed {
            deeds.push(self.deed(
                &last.who,
                &last.call,
                &format!(
                    "{count} refusals, of callers without identity or beyond their rate, are in the log only; the last: {}",
                    last.arguments
                ),
                &last.outcome,
            ));
        }
        if let Some(Lost { count, from, to }) = lost {
            deeds.push(self.deed(
                "coordinator",
                "audit",
                &format!("{count} records from {from} to {to} are in the log only"),
                "lost",
            ));
        }
        deeds
    }
}

impl Books {
    /// Whether one more refusal of a stranger is recorded by itself.
    fn hears(&mut self, now: std::time::Duration) -> bool {
        let (most, per_second) = STRANGERS;
        let (tokens, filled) = self.strangers.unwrap_or((most, now));
        let tokens = (tokens + now.saturating_sub(filled).as_secs_f64() * per_second).min(most);
        let heard = tokens >= 1.0;
        self.strangers = Some((if heard { tokens - 1.0 } else { tokens }, now));
        heard
    }
}

/// Runs a call and audits it with its arguments and outcome.
pub(super) async fn audited<T, R, F>(
    audit: &Audit,
    call: &str,
    request: Request<T>,
    arguments: impl FnOnce(&T) -> String + Send,
    work: impl FnOnce(Caller, T) -> F + Send,
) -> Result<Response<R>, Status>
where
    T: Send,
    F: Future<Output = Result<R, Status>> + Send,
{
    let caller = Caller::of(&request)?;
    let who = caller.who();
    let request = request.into_inner();
    let arguments = arguments(&request);
    let outcome = work(caller, request).await;
    let code = outcome.as_ref().err().map_or(Code::Ok, Status::code);
    audit.record(&who, call, &arguments, code);
    outcome.map(Response::new)
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

#[cfg(test)]
mod tests;
