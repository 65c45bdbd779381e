//! The loop that reads the queue of EventBridge's events.
//!
//! Only the leader reads: it alone acts, and what a standby received would first have to reach it through the store. While
//! nobody leads the queue keeps what comes. A message is deleted once what it says is stored, or once it is clear that it
//! says nothing to this cluster; whatever goes wrong before that, it is visible again after [`VISIBILITY`], for this leader
//! or the next.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use smartscale_proto::{backoff::Backoff, time::SharedClock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    board::NoticeBoard,
    envelope::{self, Message},
};
use crate::{
    ids::InstanceId,
    state::{
        SharedStore, StoreError,
        lease::Leadership,
        records::{NodeRecord, Record as _},
    },
    tell::{Event, Happening, Metrics, Severity, SharedTell},
};

/// A message that was received and not deleted is visible again after so long. An interruption leaves two minutes.
pub const VISIBILITY: Duration = Duration::from_secs(30);
/// A read waits so long for a message, the longest that SQS takes.
pub const WAIT: Duration = Duration::from_secs(20);
/// Failed reads in a row before people are told.
const FAILURES: u32 = 3;

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What it says.
    pub body: String,
    /// What it is deleted by.
    pub receipt: String,
}

/// A call to the queue that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the queue of notices: {0}")]
pub struct QueueError(pub String);

/// A queue that EventBridge feeds. The real one is SQS (`aws/queue`).
#[async_trait]
pub trait NoticeQueue: Send + Sync {
    /// Waits up to [`WAIT`] for messages, which are hidden for [`VISIBILITY`] then; none is no error. May be dropped.
    async fn receive(&self) -> Result<Vec<Received>, QueueError>;
    /// Deletes messages. Those that it fails for come again.
    async fn delete(&self, receipts: Vec<String>) -> Result<(), QueueError>;
}

/// What the loop works with.
pub struct Parts {
    /// Where messages come from.
    pub queue: Arc<dyn NoticeQueue>,
    /// Where notices go.
    pub board: Arc<NoticeBoard>,
    /// Where the cluster's machines are known.
    pub store: SharedStore,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// Has notices acted on and the machines looked at, now.
    pub wake: Box<dyn Fn() + Send + Sync>,
    /// Who is told.
    pub tell: SharedTell,
    /// Counts messages.
    pub counts: Metrics,
    /// The clock.
    pub clock: SharedClock,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It was taken in.
    Taken,
    /// It says that one of our machines goes.
    Looked,
    /// It is about machines that are not ours.
    Foreign,
    /// It says nothing that is acted on.
    Ignored,
    /// It is not understood.
    Unreadable,
    /// It could not be taken in, and stays in the queue.
    Kept,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Looked => "state_change",
            Self::Foreign => "foreign",
            Self::Ignored => "ignored",
            Self::Unreadable => "unreadable",
            Self::Kept => "kept",
        }
    }
}

/// Reads the queue until `stop`.
pub async fn run(parts: Parts, stop: CancellationToken) {
    let mut leadership = parts.leadership.clone();
    let mut failures: u32 = 0;
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            received = parts.receive(&mut leadership) => received,
        };
        match received {
            Ok(messages) => {
                parts.answers_again(failures);
                failures = 0;
                parts.take_all(messages).await;
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                parts.does_not_answer(failures, &error);
                // Without jitter: nobody else reads.
                let delay = Backoff::DEFAULT.bound(failures);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = parts.clock.sleep(delay) => {}
                }
            }
        }
    }
}

impl Parts {
    /// Receives while this coordinator leads. A renewal of the lease ends no read, its loss does.
    async fn receive(
        &self,
        leadership: &mut watch::Receiver<Leadership>,
    ) -> Result<Vec<Received>, QueueError> {
        let leads = |leadership: &Leadership| leadership.may_act(&*self.clock).is_some();
        loop {
            if self.leadership.borrow().may_act(&*self.clock).is_none() {
                // Who does not read says nothing of the queue.
                self.board.set_queue_error(None);
            }
            // Where nobody follows the lease any more the program ends, and with it this.
            let mut is_over = leadership.wait_for(leads).await.is_err();
            if !is_over {
                tokio::select! {
                    biased;
                    received = self.queue.receive() => return received,
                    lost = async { leadership.wait_for(|now| !leads(now)).await.is_err() } => is_over = lost,
                }
            }
            if is_over {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn take_all(&self, messages: Vec<Received>) {
        let mut done = Vec::new();
        let mut wakes = false;
        for message in messages {
            // Another leader takes what is left: it is visible again soon.
            if self.leadership.borrow().may_act(&*self.clock).is_none() {
                break;
            }
            let outcome = self.take(&message.body).await;
            self.counts.count_queue_message(outcome.as_str());
            wakes |= matches!(outcome, Outcome::Taken | Outcome::Looked);
            if outcome != Outcome::Kept {
                done.push(message.receipt);
            }
        }
        if wakes {
            (self.wake)();
        }
        if !done.is_empty()
            && let Err(error) = self.queue.delete(done).await
        {
            // They come again, and change nothing then.
            tracing::warn!(%error, "messages that were taken in are not deleted yet");
        }
    }

    async fn take(&self, body: &str) -> Outcome {
        let message = match envelope::parse(body, self.clock.now()) {
            Ok(message) => message,
            Err(error) => {
                let start: String = body.chars().take(200).collect();
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    body = start,
                    "a message of the queue is not understood, and deleted"
                );
                return Outcome::Unreadable;
            }
        };
        let taken = match message {
            Message::Ignored(why) => {
                tracing::debug!(why, "a message of the queue is passed over");
                return Outcome::Ignored;
            }
            Message::Stopping(instance) => self
                .is_ours(&instance)
                .await
                .map(|ours| if ours { Outcome::Looked } else { Outcome::Foreign }),
            Message::Notices(said) => {
                let mut outcome = Ok(Outcome::Foreign);
                for one in said {
                    match self.take_in(one).await {
                        Ok(true) => outcome = Ok(Outcome::Taken),
                        Ok(false) => {}
                        Err(error) => {
                            outcome = Err(error);
                            break;
                        }
                    }
                }
                outcome
            }
        };
        taken.unwrap_or_else(|error| {
            tracing::warn!(%error, "a message of the queue was not taken in, and comes again");
            Outcome::Kept
        })
    }

    /// Takes in what is said of a machine, if it is one of ours.
    async fn take_in(&self, said: super::Said) -> Result<bool, StoreError> {
        if !self.is_ours(&said.instance).await? {
            tracing::debug!(instance = %said.instance, "a notice about a machine that is not ours");
            return Ok(false);
        }
        self.board.take(said).await?;
        Ok(true)
    }

    /// Whether this cluster launched the machine and has not forgotten it.
    async fn is_ours(&self, instance: &InstanceId) -> Result<bool, StoreError> {
        let record = self
            .store
            .get(&format!("{}{instance}", NodeRecord::PREFIX))
            .await?;
        Ok(record.is_some())
    }

    fn does_not_answer(&self, failures: u32, error: &QueueError) {
        tracing::warn!(%error, failures, "the queue does not answer");
        if failures >= FAILURES {
            self.board.set_queue_error(Some(error.to_string()));
        }
        if failures == FAILURES {
            self.say(Severity::Warning, error.to_string(), false);
        }
    }

    fn answers_again(&self, failures: u32) {
        self.board.set_queue_error(None);
        if failures >= FAILURES {
            self.say(
                Severity::Info,
                "the queue of notices answers again".to_owned(),
                true,
            );
        }
    }

    fn say(&self, severity: Severity, message: String, fresh: bool) {
        self.tell.tell(Happening {
            time: self.clock.now(),
            severity,
            message,
            event: Event::Source {
                source: "notices".to_owned(),
                fresh,
            },
        });
    }
}

#[cfg(test)]
mod tests;
