//! One step of the boot: attempted until it succeeds, with back-off, and reported as it goes.

use std::{fmt, time::Duration};

use rand::{SeedableRng as _, rngs::SmallRng};
use smartscale_proto::{
    backoff::Backoff,
    time::{duration_to_wire, to_wire, within},
    v1::{BootReport, BootStep, Outcome, session_request::Report},
};

use super::Boot;
use crate::error::{Failure, Known};

/// Time for one attempt.
const ATTEMPT_TIME: Duration = Duration::from_secs(150);

/// A step under way, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Its name.
    pub step: &'static str,
    /// Attempts so far.
    pub attempts: u32,
    /// The last error.
    pub error: String,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.step)?;
        if !self.error.is_empty() {
            write!(f, ", attempt {}: {}", self.attempts, self.error)?;
        }
        Ok(())
    }
}

/// What was said last. A failure that is known is the same whatever its details are: a text of AWS bears another request's
/// id each time.
#[derive(Default)]
struct Said(Option<(String, Option<Known>)>);

impl Said {
    fn is_news(&mut self, text: &str, known: Option<Known>) -> bool {
        let same = self.0.as_ref().is_some_and(|(before, was)| {
            if known.is_some() {
                *was == known
            } else {
                before == text
            }
        });
        if !same {
            self.0 = Some((text.to_owned(), known));
        }
        !same
    }
}

fn name(step: BootStep) -> &'static str {
    match step {
        BootStep::Unspecified => "boot",
        BootStep::Identity => "learning which machine this is",
        BootStep::Secrets => "fetching the secrets of the join",
        BootStep::Enrolment => "enrolling with the coordinator",
        BootStep::Kubelet => "starting K3s",
        BootStep::Ready => "waiting for the node to be Ready",
    }
}

/// Delays: what depends on the machine alone is looked at often, what others have to answer less so.
fn schedule(step: BootStep) -> Backoff {
    let longest = if step == BootStep::Ready {
        Duration::from_secs(5)
    } else {
        Duration::from_secs(30)
    };
    Backoff::new(Duration::from_millis(500), longest).unwrap_or(Backoff::DEFAULT)
}

impl Boot {
    /// Attempts `step` until it succeeds.
    pub(super) async fn attempt<T, F>(&self, step: BootStep, mut attempt: impl FnMut() -> F) -> T
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let (began, started_at) = (self.clock.elapsed(), self.clock.now());
        let mut random = SmallRng::seed_from_u64(rand::random());
        let report = |outcome: Outcome, attempts, error: &str, known: Option<Known>| {
            self.outbox.put(Report::Boot(BootReport {
                step: step.into(),
                outcome: outcome.into(),
                started_at: Some(to_wire(started_at)),
                took: Some(duration_to_wire(self.clock.elapsed().saturating_sub(began))),
                attempts,
                error: error.to_owned(),
                failure: known.map(Known::to_wire).unwrap_or_default().into(),
                remedy: known.map(Known::remedy).unwrap_or_default().to_owned(),
            }));
            let progress = Progress {
                step: name(step),
                attempts,
                error: error.to_owned(),
            };
            self.step.send_replace(Some(progress));
        };
        let mut said = Said::default();
        let mut attempts = 1_u32;
        report(Outcome::Running, attempts, "", None);
        loop {
            let outcome = within(&*self.clock, ATTEMPT_TIME, attempt()).await;
            match outcome.unwrap_or_else(|| Err(Failure::because("it takes too long"))) {
                Ok(done) => {
                    let took = self.clock.elapsed().saturating_sub(began);
                    tracing::info!(step = name(step), ?took, attempts, "boot step done");
                    report(Outcome::Done, attempts, "", None);
                    return done;
                }
                Err(failure) => {
                    let (text, known) = (failure.to_string(), failure.known());
                    // For ever, but each distinct failure is told and logged once.
                    if said.is_news(&text, known) {
                        let remedy = known.map(Known::remedy).unwrap_or_default();
                        tracing::warn!(
                            step = name(step),
                            attempts,
                            error = text,
                            remedy,
                            "boot step failed, trying again"
                        );
                        report(Outcome::Retrying, attempts, &text, known);
                    } else {
                        tracing::debug!(
                            step = name(step),
                            attempts,
                            error = text,
                            "boot step failed again"
                        );
                    }
                }
            }
            self.clock
                .sleep(schedule(step).delay(attempts, &mut random))
                .await;
            attempts = attempts.saturating_add(1);
        }
    }
}
