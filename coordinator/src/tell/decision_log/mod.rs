//! Decision records, carried to a log beside the state store: kept for as long as somebody wants to look back, and
//! found with the tools that other logs are found with.
//!
//! ```text
//!  decision ──▶ feed ──▶ queue (bounded in bytes, the oldest go) ──▶ carrier ──▶ batch ──▶ log stream
//! ```
//! Deciding never waits for any of it. A batch that is not taken is tried again for as long as the program runs;
//! what a queue that is full had no room for, and what the log refused, is counted.

pub mod batch;
mod line;
mod queue;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use smartscale_proto::{backoff::Backoff, time::SharedClock};
use tokio_util::sync::CancellationToken;

pub use self::line::Line;
use self::{batch::Batch, queue::Queue};
use super::{Metrics, NotifyError};
use crate::{ids::CoordinatorName, state::records::DecisionRecord};

/// So much waits while the log does not answer: about half a day of records of 3 KB, one in ten seconds.
const MOST_WAITING: usize = 16 * 1024 * 1024;
/// What still waits at the end has so long to be delivered.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Keeps decisions where people look for them.
pub trait DecisionLog: Send + Sync {
    /// Takes note of a decision that differs from the one before, or that something came of. Never waits.
    fn note(&self, record: &DecisionRecord);
}

/// A log that takes lines in batches. It is told the same batch again when nobody knows what became of it.
#[async_trait]
pub trait LogStream: Send + Sync {
    /// Its name, in logs and metrics.
    fn name(&self) -> &'static str;
    /// Appends a batch, and says how many of its lines were refused for their time.
    async fn append(&self, batch: &Batch) -> Result<usize, NotifyError>;
}

/// Takes decisions in.
pub struct Feed {
    cluster: String,
    coordinator: CoordinatorName,
    sink: &'static str,
    queue: Arc<Queue>,
    metrics: Metrics,
}

impl DecisionLog for Feed {
    fn note(&self, record: &DecisionRecord) {
        let line = Line::of(&self.cluster, &self.coordinator, record);
        let dropped = self.queue.put(line);
        self.metrics.count_dropped(self.sink, dropped);
    }
}

/// Carries them to the log.
pub struct Carrier {
    stream: Arc<dyn LogStream>,
    queue: Arc<Queue>,
    metrics: Metrics,
    clock: SharedClock,
    backoff: Backoff,
}

/// A log of the decisions of `coordinator`, and who carries them there: whoever builds the program runs it.
#[must_use]
pub fn to(
    stream: Arc<dyn LogStream>,
    cluster: String,
    coordinator: CoordinatorName,
    metrics: Metrics,
    clock: SharedClock,
) -> (Arc<Feed>, Carrier) {
    let sink = stream.name();
    metrics.begin_sink(sink);
    let queue = Arc::new(Queue::new(MOST_WAITING));
    let feed = Feed {
        cluster,
        coordinator,
        sink,
        queue: Arc::clone(&queue),
        metrics: metrics.clone(),
    };
    let carrier = Carrier {
        stream,
        queue,
        metrics,
        clock,
        backoff: Backoff::DEFAULT,
    };
    (Arc::new(feed), carrier)
}

impl Carrier {
    /// Carries until `stop`, and then what still waits for a last moment.
    pub async fn run(self, stop: CancellationToken) {
        let enough = async {
            stop.cancelled().await;
            self.clock.sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = self.carry(&stop) => {}
            () = enough => tracing::warn!(sink = self.stream.name(), "stopped with decisions undelivered"),
        }
    }

    async fn carry(&self, stop: &CancellationToken) {
        loop {
            if let Some(batch) = self.queue.take() {
                self.deliver(&batch, stop).await;
            } else if stop.is_cancelled() {
                return;
            } else {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.queue.filled() => {}
                }
            }
        }
    }

    /// Tries until the batch is taken or refused for good.
    async fn deliver(&self, batch: &Batch, stop: &CancellationToken) {
        let sink = self.stream.name();
        let lines = batch.lines().len();
        for attempt in 1_u32.. {
            let error = match self.stream.append(batch).await {
                Ok(refused) => {
                    if refused > 0 {
                        tracing::warn!(sink, refused, "decisions are too old or too new for the log");
                    } else if attempt > 1 {
                        tracing::info!(sink, attempt, "the log takes decisions again");
                    }
                    self.metrics
                        .count_notified(sink, true, lines.saturating_sub(refused));
                    self.metrics.count_notified(sink, false, refused.min(lines));
                    return;
                }
                Err(error) => error,
            };
            if let NotifyError::Refused(_) = error {
                tracing::warn!(sink, lines, %error, "decisions are not in the log");
                self.metrics.count_notified(sink, false, lines);
                return;
            }
            // What persists is said once.
            if attempt == 1 {
                tracing::warn!(sink, %error, "the log takes no decisions; they wait");
            } else {
                tracing::debug!(sink, attempt, %error, "the log takes no decisions");
            }
            let mut delay = self.backoff.delay(attempt, &mut rand::rng());
            if let NotifyError::Busy(wanted) = error {
                delay = delay.max(wanted);
            }
            // At the end there is one attempt at once.
            tokio::select! {
                () = stop.cancelled(), if !stop.is_cancelled() => {}
                () = self.clock.sleep(delay) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
