//! The desk at which messages to people wait: in order, no faster than the channel takes them, and at hours when people
//! want to hear of them.
//!
//! ```text
//!  happening ─▶ dedupe ─▶ Tray ─▶ Messenger     SNS, Slack, webhook
//!                          ├ quiet hours: information waits for their end, and is then told in one message
//!                          └ too much: what had to wait is told in one message; failures pass by themselves
//! ```
//! Taking in never waits for sending, so that a channel that hangs loses nothing but time.

mod tray;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{FutureExt as _, future::BoxFuture};
use jiff::{SignedDuration, Timestamp};
use smartscale_planner::policy::Window;
use smartscale_proto::{backoff::Backoff, time::SharedClock};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::tray::{Next, Tray};
use super::{Happening, Message, Metrics, NotifyError, Severity, notifier::Dedupe};

/// A channel that asks to be left alone is left alone for so long at most.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// The wall clock is looked at so often: it may be put forward.
const LOOK: Duration = Duration::from_secs(60);

/// Who carries messages to people.
#[async_trait]
pub trait Messenger: Send + Sync {
    /// Its name, in logs and metrics.
    fn name(&self) -> &'static str;
    /// Delivers.
    async fn send(&self, message: &Message) -> Result<(), NotifyError>;
}

/// How people want to be told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manners {
    /// The cluster that they are told of.
    pub cluster: String,
    /// The least time between two messages.
    pub every: Duration,
    /// Beyond so many in a minute what is no failure waits, and is told in one message; `None`: all are told.
    pub most_per_minute: Option<usize>,
    /// When information waits.
    pub quiet: Vec<Window>,
}

impl Manners {
    /// Until when it is quiet, if it is at `now`.
    #[must_use]
    fn quiet_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.quiet.iter().filter_map(|window| window.until(now)).max()
    }
}

/// Attempts and distances of what does not arrive at once. A failure is tried until it arrives or is refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
}

/// Carries messages by one messenger.
pub(super) struct Desk {
    messenger: Arc<dyn Messenger>,
    dedupe: Option<Dedupe>,
    patience: Patience,
    metrics: Metrics,
    clock: SharedClock,
    tray: Tray,
}

type Sending = BoxFuture<'static, (Message, Result<(), NotifyError>)>;

impl Desk {
    pub(super) fn new(
        messenger: Arc<dyn Messenger>,
        manners: Manners,
        dedupe: Option<Dedupe>,
        patience: Patience,
        metrics: Metrics,
        clock: SharedClock,
    ) -> Self {
        Self {
            messenger,
            dedupe,
            patience,
            metrics,
            clock,
            tray: Tray::new(manners),
        }
    }

    /// Carries until `stop`, and then what is left. It ends by itself only when that has been delivered.
    pub(super) async fn run(
        mut self,
        mut receiver: mpsc::Receiver<Arc<Happening>>,
        stop: &CancellationToken,
    ) {
        let clock = Arc::clone(&self.clock);
        let mut sending: Option<Sending> = None;
        let mut attempt = 0;
        let mut closing = false;
        loop {
            let mut wake = LOOK;
            if sending.is_none() {
                match self.tray.next(clock.elapsed(), clock.now()) {
                    Next::Send(message) => {
                        attempt += 1;
                        sending = Some(self.send(*message));
                    }
                    Next::After(wait) => wake = wake.min(wait),
                    Next::Nothing if closing => return,
                    Next::Nothing => {}
                }
            }
            let sent = async {
                match &mut sending {
                    Some(sending) => sending.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Taking in is quick, and what is taken in before the next is sent may change what that is.
                biased;
                () = stop.cancelled(), if !closing => closing = self.close(&mut receiver),
                happening = receiver.recv(), if !closing => match happening {
                    Some(happening) => self.take(&happening),
                    None => closing = self.close(&mut receiver),
                },
                (message, outcome) = sent => {
                    sending = None;
                    if self.settle(message, outcome, attempt) {
                        attempt = 0;
                    }
                }
                () = clock.sleep(wake) => {}
            }
        }
    }

    fn take(&mut self, happening: &Happening) {
        let now = self.clock.elapsed();
        if self
            .dedupe
            .as_mut()
            .is_none_or(|dedupe| dedupe.is_news(happening, now))
        {
            self.tray.take(happening, self.clock.now());
        }
    }

    /// Takes in what has been told, and sends what waits as well as it can be. `true`.
    fn close(&mut self, receiver: &mut mpsc::Receiver<Arc<Happening>>) -> bool {
        receiver.close();
        while let Ok(happening) = receiver.try_recv() {
            self.take(&happening);
        }
        let name = self.messenger.name();
        let unsaid = self.tray.close(self.clock.now());
        if unsaid > 0 {
            // Nobody is woken for it, and the log has it.
            tracing::info!(
                sink = name,
                unsaid,
                "information of quiet hours is not told: the program ends"
            );
            for _ in 0..unsaid {
                self.metrics.count_dropped(name, 1);
            }
        }
        true
    }

    fn send(&self, message: Message) -> Sending {
        let messenger = Arc::clone(&self.messenger);
        async move {
            let outcome = messenger.send(&message).await;
            (message, outcome)
        }
        .boxed()
    }

    /// What becomes of a message that was sent, for the `attempt`-th time. Whether it is done with.
    fn settle(&mut self, message: Message, outcome: Result<(), NotifyError>, attempt: u32) -> bool {
        let (name, now) = (self.messenger.name(), self.clock.elapsed());
        let error = match outcome {
            Ok(()) => {
                self.metrics.count_notified(name, true, 1);
                return true;
            }
            Err(error) => error,
        };
        tracing::warn!(sink = name, attempt, %error, kind = message.kind, "not told");
        let wait = match error {
            NotifyError::Busy(wait) => {
                self.tray.crowd();
                Some(wait.min(LONGEST_WAIT))
            }
            NotifyError::Passing(_)
                if attempt < self.patience.attempts || message.severity == Severity::Failure =>
            {
                Some(self.patience.backoff.delay(attempt, &mut rand::rng()))
            }
            NotifyError::Passing(_) | NotifyError::Refused(_) => None,
        };
        match wait {
            Some(wait) => self.tray.put_back(message, now + wait),
            None => self.metrics.count_notified(name, false, 1),
        }
        wait.is_none()
    }
}

/// The time from `now` to `then`; zero where that is past.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now).max(SignedDuration::ZERO)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
