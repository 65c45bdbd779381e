//! Checking: everything that a coordinator depends on is tried, before it is installed or while it runs, and nothing is changed.
//!
//! ```text
//!   smartscale-coordinator check ─┐                          ┌─ policy · certificates · files
//!   smartscale check ──▶ serve ───┴─▶ Checks ─▶ each Check ──┼─ clock · rights · metrics        behind a narrow
//!                                               (all at once)└─ store · fleet · peers · channels   trait each
//! ```
//! A check is tried against what the running coordinator works with. What would be told to people or paid for is not tried, and
//! says so.

pub mod certificates;
pub mod channels;
pub mod clock;
pub mod files;
pub mod fleet;
pub mod metrics;
pub mod peers;
pub mod policy;
pub mod rights;
pub mod store;
#[cfg(test)]
mod testing;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::join_all;
use smartscale_proto::{
    check::{Finding, Report},
    time::{SharedClock, within},
};

use crate::ids::CoordinatorName;

/// Whoever has not answered by then is said to be silent. Longer than any single call of an adapter takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Something that a coordinator depends on.
#[async_trait]
pub trait Check: Send + Sync {
    /// What it is about, in a word.
    fn area(&self) -> &'static str;
    /// Tries it.
    async fn run(&self) -> Vec<Finding>;
}

/// What is known without trying: that something is left out, or that it could not even be begun.
pub struct Known {
    /// What it is about.
    pub area: &'static str,
    /// What is known.
    pub finding: Finding,
}

impl Known {
    /// What is not tried, and why.
    #[must_use]
    pub fn skipped(area: &'static str, tried: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            area,
            finding: Finding::skipped(area, tried, why),
        }
    }

    /// What could not be begun.
    #[must_use]
    pub fn failed(
        area: &'static str,
        tried: impl Into<String>,
        error: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            area,
            finding: Finding::failed(area, tried, error, remedy),
        }
    }
}

#[async_trait]
impl Check for Known {
    fn area(&self) -> &'static str {
        self.area
    }

    async fn run(&self) -> Vec<Finding> {
        vec![self.finding.clone()]
    }
}

/// All checks of a coordinator, in the order of its report.
pub struct Checks {
    name: CoordinatorName,
    clock: SharedClock,
    checks: Vec<Arc<dyn Check>>,
}

impl Checks {
    /// Those of the coordinator of this name.
    #[must_use]
    pub fn new(name: CoordinatorName, clock: SharedClock, checks: Vec<Arc<dyn Check>>) -> Self {
        Self { name, clock, checks }
    }

    /// Tries all of them at once.
    pub async fn report(&self) -> Report {
        let each = self.checks.iter().map(|check| async {
            within(&*self.clock, PATIENCE, check.run())
                .await
                .unwrap_or_else(|| vec![silent(check.area())])
        });
        Report {
            program: format!("coordinator {}", self.name),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            findings: join_all(each).await.into_iter().flatten().collect(),
        }
    }
}

fn silent(area: &str) -> Finding {
    Finding::failed(
        area,
        "waited for an answer",
        format!("none within {} s", PATIENCE.as_secs()),
        "look whether the way there is open (routes, security groups, DNS)",
    )
}

#[cfg(test)]
mod tests {
    use smartscale_proto::{check::Outcome, time::SystemClock};

    use super::{testing::name, *};

    struct Never;

    #[async_trait]
    impl Check for Never {
        fn area(&self) -> &'static str {
            "never"
        }

        async fn run(&self) -> Vec<Finding> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_never_answers_is_said_to_be_silent_and_holds_up_no_other() {
        let spared = Known::skipped("spared", "publish", "people would hear it");
        let checks = Checks::new(
            name(),
            Arc::new(SystemClock),
            vec![Arc::new(Never), Arc::new(spared)],
        );
        let report = checks.report().await;
        let outcomes: Vec<_> = report
            .findings
            .iter()
            .map(|finding| (&*finding.area, finding.outcome))
            .collect();
        assert_eq!(
            outcomes,
            [("never", Outcome::Failed), ("spared", Outcome::Skipped)]
        );
        assert!(report.has_failed());
    }
}
