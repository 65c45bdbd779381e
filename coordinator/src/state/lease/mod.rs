//! The lease: of the coordinators that share a store, one leads. [`contender`] is the rule as a pure function of
//! what was seen and when by the own monotonic clock; this file gives it a store, a clock and a voice.
//!
//! A term of leadership is an [`Epoch`]. What is written under an older one is refused by the store itself; what is
//! done elsewhere is preceded by [`Leadership::may_act`].

pub mod contender;
#[cfg(test)]
pub(crate) mod tests;

use std::{sync::Arc, time::Duration};

use smartscale_proto::time::{Clock, SharedClock, within};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::contender::{Contender, Outcome, Step};
use super::{LeaseRow, SharedStore, StoreError};
use crate::{
    ids::{CoordinatorName, Epoch},
    tell::{Event, Happening, Severity, SharedTell},
};

/// Times of the lease. [`Default`]: 15 s lease, renewed every 5 s, margin 3 s, watched every 2 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a lease lasts from the write that renews it.
    pub lease: Duration,
    /// How often the holder renews.
    pub renew: Duration,
    /// The holder stops acting so long before the lease is over.
    pub margin: Duration,
    /// How often a contender looks.
    pub watch: Duration,
    /// How long a call to the store may take before its outcome counts as unknown.
    pub call: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew: Duration::from_secs(5),
            margin: Duration::from_secs(3),
            watch: Duration::from_secs(2),
            call: Duration::from_secs(4),
        }
    }
}

/// Why times of a lease are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// No time would be left to act in.
    #[error("renew ({renew:?}) plus margin ({margin:?}) must be below the lease ({lease:?})")]
    TooShort {
        /// The renewal's interval.
        renew: Duration,
        /// The margin.
        margin: Duration,
        /// The lease.
        lease: Duration,
    },
    /// A loop would spin.
    #[error("{0} must be above zero")]
    Zero(&'static str),
}

impl Settings {
    /// Checks that a holder can renew in time.
    ///
    /// # Errors
    /// [`BadSettings`] says which bound does not hold.
    pub fn check(self) -> Result<Self, BadSettings> {
        let Self {
            lease,
            renew,
            margin,
            watch,
            call,
        } = self;
        for (name, value) in [
            ("renew", renew),
            ("margin", margin),
            ("watch", watch),
            ("call", call),
        ] {
            if value.is_zero() {
                return Err(BadSettings::Zero(name));
            }
        }
        if renew.saturating_add(margin) >= lease {
            return Err(BadSettings::TooShort { renew, margin, lease });
        }
        Ok(self)
    }
}

/// Who leads, as this coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// Somebody else, or nobody known.
    Follower {
        /// Who held the lease when it was last seen.
        leader: Option<CoordinatorName>,
    },
    /// This coordinator.
    Leader {
        /// The term.
        epoch: Epoch,
        /// Until when it may act, as [`Clock::elapsed`].
        until: Duration,
    },
}

impl Leadership {
    /// The term under which this coordinator may act at this moment. To be asked before each side effect; a
    /// `Leader` whose time is over may not.
    #[must_use]
    pub fn may_act(&self, clock: &dyn Clock) -> Option<Epoch> {
        match self {
            Self::Leader { epoch, until } if clock.elapsed() < *until => Some(*epoch),
            _ => None,
        }
    }
}

/// Makes the random text of each renewal.
pub type RvnSource = Arc<dyn Fn() -> String + Send + Sync>;

/// Random texts: 122 bits each.
#[must_use]
pub fn random_rvn() -> RvnSource {
    Arc::new(|| uuid::Uuid::new_v4().simple().to_string())
}

/// The task that acquires, renews and hands over the lease.
pub struct Lease {
    store: SharedStore,
    clock: SharedClock,
    tell: SharedTell,
    rvn: RvnSource,
    settings: Settings,
    contender: Contender,
    publish: watch::Sender<Leadership>,
    leading: Option<Epoch>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("contender", &self.contender)
            .finish_non_exhaustive()
    }
}

impl Lease {
    /// A contender named `name`, with where it publishes who leads. Nothing happens before [`run`](Self::run).
    #[must_use]
    pub fn new(
        name: CoordinatorName,
        settings: Settings,
        store: SharedStore,
        clock: SharedClock,
        tell: SharedTell,
        rvn: RvnSource,
    ) -> (Self, watch::Receiver<Leadership>) {
        let (publish, leadership) = watch::channel(Leadership::Follower { leader: None });
        let contender = Contender::new(name, settings);
        (
            Self {
                store,
                clock,
                tell,
                rvn,
                settings,
                contender,
                publish,
                leading: None,
            },
            leadership,
        )
    }

    /// Contends until `shutdown`, then hands the lease over if it holds it. The loops that act must have ended by
    /// then.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            self.publish();
            match self.contender.next(self.clock.elapsed()) {
                Step::Sleep(duration) => {
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => break,
                        () = self.clock.sleep(duration) => {}
                    }
                }
                Step::Read => self.read().await,
                Step::Replace { expected, epoch } => {
                    let me = Some(self.contender.name().clone());
                    self.replace(expected.as_deref(), me, epoch).await;
                }
            }
        }
        self.hand_over().await;
    }

    async fn read(&mut self) {
        match within(&*self.clock, self.settings.call, self.store.lease()).await {
            Some(Ok(row)) => self.contender.on_read(self.clock.elapsed(), row),
            Some(Err(error)) => {
                tracing::warn!(%error, "the lease could not be read");
                self.contender.on_failure(self.clock.elapsed());
            }
            None => {
                tracing::warn!("the store did not answer");
                self.contender.on_failure(self.clock.elapsed());
            }
        }
    }

    async fn replace(&mut self, expected: Option<&str>, holder: Option<CoordinatorName>, epoch: Epoch) {
        // Before the write, not after: the lease of whoever sees the write may begin at any moment from here on.
        let started = self.clock.elapsed();
        let row = LeaseRow {
            holder,
            rvn: (self.rvn)(),
            epoch,
            lease: self.settings.lease,
            expires_at: self.clock.now() + self.settings.lease,
        };
        self.contender.on_write(started, &row);
        let call = self.store.replace_lease(expected, &row);
        let outcome = match within(&*self.clock, self.settings.call, call).await {
            Some(Ok(true)) => Outcome::Replaced,
            Some(Ok(false)) => Outcome::NotReplaced,
            Some(Err(error @ StoreError::Unavailable(_))) => {
                tracing::warn!(%error, "the lease could not be written");
                Outcome::NotSent
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "nobody knows whether the lease was written");
                Outcome::Unknown
            }
            None => {
                tracing::warn!(
                    "the store did not answer in time: nobody knows whether the lease was written"
                );
                Outcome::Unknown
            }
        };
        self.contender.on_written(self.clock.elapsed(), &row.rvn, outcome);
    }

    async fn hand_over(&mut self) {
        let held = self.contender.held();
        self.contender.resign();
        self.publish();
        if let Some((rvn, epoch)) = held {
            tracing::info!(%epoch, "handing the lease over");
            self.replace(Some(&rvn), None, epoch).await;
        }
    }

    fn publish(&mut self) {
        let leadership = self.contender.leadership(self.clock.elapsed());
        let leading = match &leadership {
            Leadership::Leader { epoch, .. } => Some(*epoch),
            Leadership::Follower { .. } => None,
        };
        self.publish.send_if_modified(|published| {
            let modified = *published != leadership;
            *published = leadership;
            modified
        });
        if leading == self.leading {
            return;
        }
        if let Some(epoch) = self.leading {
            self.say(
                Severity::Info,
                format!("no longer the leader (term {epoch})"),
                Event::LeaseLost { epoch },
            );
        }
        if let Some(epoch) = leading {
            self.say(
                Severity::Info,
                format!("leader, term {epoch}"),
                Event::LeaseAcquired { epoch },
            );
        }
        self.leading = leading;
    }

    fn say(&self, severity: Severity, message: String, event: Event) {
        self.tell.tell(Happening {
            time: self.clock.now(),
            severity,
            message,
            event,
        });
    }
}
