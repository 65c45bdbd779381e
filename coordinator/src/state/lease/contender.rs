//! The rule of the lease, without a store and without a clock: what a coordinator does next, given what it saw
//! and when. Model checking and the running program share this file.
//!
//! ```text
//!                 read                    same rvn for one lease,
//!  ┌────────┐ ──────────▶ ┌──────────┐    or handed over, or none     ┌─────────┐ replaced  ┌─────────┐
//!  │ Blind  │             │ Watching │ ─────────────────────────────▶ │ writing │ ────────▶ │ Holding │
//!  └────────┘ ◀────────── └──────────┘ ◀───── somebody was faster ─── └─────────┘           └────┬────┘
//!      ▲        failure         ▲                                          ▲     every `renew`   │
//!      │                        │                                          └─────────────────────┘
//!      │                        └──── a read shows another's rvn ────────────────────────────────┘
//! ```
//!
//! - Times are of the own monotonic clock only. The row's `expires_at` is for people.
//! - A write whose outcome is unknown is remembered. A read that shows its `rvn` proves that it took place; the
//!   lease it gave counts from before that write.
//! - A holder may act until (start of its last proven write) + lease − margin. A contender that sees that write
//!   sees it after its start, and waits a whole lease from then: their times never meet, whatever the network does.
//! - A holder whose time is over may still renew under the same epoch: the conditional write succeeds only if
//!   nobody replaced it in between.

#[cfg(test)]
mod model;

use std::time::Duration;

use super::{Leadership, Settings};
use crate::{
    ids::{CoordinatorName, Epoch},
    state::LeaseRow,
};

/// A coordinator that wants the lease or has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Contender {
    name: CoordinatorName,
    times: Times,
    standing: Standing,
    /// Writes that may have taken place or may yet: an answer is missing, or said no although a retry below us may
    /// have succeeded before it.
    outstanding: Vec<Attempt>,
    /// Nothing is tried before.
    not_before: Duration,
    /// The next thing is a read, whatever the standing.
    must_read: bool,
    resigned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Times {
    lease: Duration,
    renew: Duration,
    margin: Duration,
    watch: Duration,
    retry: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Standing {
    /// Nothing is known: read.
    Blind,
    /// Somebody else's row, or none, seen since `since`; last looked at `looked`.
    Watching {
        row: Option<Seen>,
        since: Duration,
        looked: Duration,
    },
    /// Ours by a write that began at `started`.
    Holding {
        rvn: String,
        epoch: Epoch,
        started: Duration,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Seen {
    holder: Option<CoordinatorName>,
    rvn: String,
    epoch: Epoch,
    lease: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Attempt {
    rvn: String,
    epoch: Epoch,
    started: Duration,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing for so long.
    Sleep(Duration),
    /// Read the lease, then [`Contender::on_read`] or [`Contender::on_failure`].
    Read,
    /// [`Contender::on_write`], write conditionally, then [`Contender::on_written`].
    Replace {
        /// The `rvn` that must be there; `None`: no row.
        expected: Option<String>,
        /// The term to write.
        epoch: Epoch,
    },
}

/// How a conditional write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It took place.
    Replaced,
    /// The store had another `rvn`.
    NotReplaced,
    /// It certainly did not take place and never will.
    NotSent,
    /// Nobody knows.
    Unknown,
}

impl Contender {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(name: CoordinatorName, settings: Settings) -> Self {
        let Settings {
            lease,
            renew,
            margin,
            watch,
            ..
        } = settings;
        let retry = Duration::from_secs(1)
            .min(renew / 2)
            .max(Duration::from_millis(1));
        Self {
            name,
            times: Times {
                lease,
                renew,
                margin,
                watch,
                retry,
            },
            standing: Standing::Blind,
            outstanding: Vec::new(),
            not_before: Duration::ZERO,
            must_read: false,
            resigned: false,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &CoordinatorName {
        &self.name
    }

    /// What to do at `now`.
    #[must_use]
    pub fn next(&self, now: Duration) -> Step {
        let wake = |at: Duration| Step::Sleep(at.saturating_sub(now).max(Duration::from_millis(1)));
        if now < self.not_before {
            // A holder whose time runs out meanwhile must say so in time.
            let end = self
                .acts_until()
                .filter(|until| *until > now)
                .unwrap_or(self.not_before);
            return wake(self.not_before.min(end));
        }
        if self.must_read {
            return Step::Read;
        }
        match &self.standing {
            Standing::Blind => Step::Read,
            Standing::Watching { row, since, looked } => {
                let free_at = match row {
                    Some(Seen {
                        holder: Some(_),
                        lease,
                        ..
                    }) => since.saturating_add(*lease),
                    _ => now,
                };
                let look_at = looked.saturating_add(self.times.watch);
                if free_at <= now && !self.resigned {
                    let epoch = Epoch(row.as_ref().map_or(0, |row| row.epoch.0) + 1);
                    Step::Replace {
                        expected: row.as_ref().map(|row| row.rvn.clone()),
                        epoch,
                    }
                } else if look_at <= now {
                    Step::Read
                } else {
                    wake(look_at.min(free_at.max(now)))
                }
            }
            Standing::Holding { rvn, epoch, started } => {
                let renew_at = started.saturating_add(self.times.renew);
                if renew_at <= now && !self.resigned {
                    Step::Replace {
                        expected: Some(rvn.clone()),
                        epoch: *epoch,
                    }
                } else {
                    wake(renew_at)
                }
            }
        }
    }

    /// The lease was read; `now` is after the answer.
    pub fn on_read(&mut self, now: Duration, row: Option<LeaseRow>) {
        self.must_read = false;
        let rvn = row.as_ref().map(|row| row.rvn.as_str());
        if let Some(attempt) = self
            .outstanding
            .iter()
            .find(|attempt| Some(attempt.rvn.as_str()) == rvn)
            .cloned()
        {
            self.hold(attempt);
            return;
        }
        if let Standing::Holding { rvn: held, .. } = &self.standing
            && Some(held.as_str()) == rvn
        {
            return;
        }
        let seen = row.map(|row| Seen {
            holder: row.holder,
            rvn: row.rvn,
            epoch: row.epoch,
            lease: row.lease,
        });
        let since = match &self.standing {
            Standing::Watching { row, since, .. } if *row == seen => *since,
            _ => now,
        };
        // Every write of ours was conditional on a row before this one, and rvns never come back: none of them can
        // take place any more once the row has moved on to another's.
        if !matches!(&self.standing, Standing::Watching { row, .. } if *row == seen) {
            self.outstanding.clear();
        }
        self.standing = Standing::Watching {
            row: seen,
            since,
            looked: now,
        };
    }

    /// The store could not be asked.
    pub fn on_failure(&mut self, now: Duration) {
        self.not_before = now.saturating_add(self.times.retry);
    }

    /// A write begins at `started`.
    pub fn on_write(&mut self, started: Duration, row: &LeaseRow) {
        if row.holder.as_ref() == Some(&self.name) {
            self.outstanding.push(Attempt {
                rvn: row.rvn.clone(),
                epoch: row.epoch,
                started,
            });
        }
    }

    /// The write of `rvn` ended.
    pub fn on_written(&mut self, now: Duration, rvn: &str, outcome: Outcome) {
        let attempt = self
            .outstanding
            .iter()
            .find(|attempt| attempt.rvn == rvn)
            .cloned();
        match (outcome, attempt) {
            (Outcome::Replaced, Some(attempt)) => self.hold(attempt),
            (Outcome::Replaced, None) => {}
            (Outcome::NotSent, _) => {
                self.outstanding.retain(|attempt| attempt.rvn != rvn);
                self.on_failure(now);
            }
            // Read again, keeping what is held meanwhile: its time runs out by itself.
            (Outcome::NotReplaced, _) => self.must_read = true,
            (Outcome::Unknown, _) => {
                self.must_read = true;
                self.on_failure(now);
            }
        }
    }

    /// Wants the lease no more.
    pub fn resign(&mut self) {
        self.resigned = true;
        self.standing = Standing::Blind;
    }

    /// The row that is ours, if one is, whether or not its time is over.
    #[must_use]
    pub fn held(&self) -> Option<(String, Epoch)> {
        match &self.standing {
            Standing::Holding { rvn, epoch, .. } => Some((rvn.clone(), *epoch)),
            _ => None,
        }
    }

    /// Who leads, at `now`.
    #[must_use]
    pub fn leadership(&self, now: Duration) -> Leadership {
        match (&self.standing, self.acts_until()) {
            (Standing::Holding { epoch, .. }, Some(until)) if now < until => {
                Leadership::Leader { epoch: *epoch, until }
            }
            (Standing::Watching { row: Some(row), .. }, _) => Leadership::Follower {
                leader: row.holder.clone(),
            },
            _ => Leadership::Follower { leader: None },
        }
    }

    fn acts_until(&self) -> Option<Duration> {
        match &self.standing {
            Standing::Holding { started, .. } => {
                Some(started.saturating_add(self.times.lease.saturating_sub(self.times.margin)))
            }
            _ => None,
        }
    }

    fn hold(&mut self, attempt: Attempt) {
        // The row has this rvn now, and every other attempt was for a row before it.
        self.outstanding.clear();
        self.not_before = Duration::ZERO;
        self.must_read = false;
        self.standing = Standing::Holding {
            rvn: attempt.rvn,
            epoch: attempt.epoch,
            started: attempt.started,
        };
    }
}
