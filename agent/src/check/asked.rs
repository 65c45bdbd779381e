//! Checks that a coordinator asks for: one at a time, beside the session, and no longer than somebody waits for them.
//!
//! ```text
//!   coordinator ─session─▶ Checker ─▶ Checking ─▶ report ─▶ the latest answer ─session─▶ coordinator
//! ```
//! Nothing is kept: an answer that is lost with its session is not sent in the next one, which nobody asked in.

use std::time::Duration;

use smartscale_proto::{
    check::{Finding, Report},
    time::within,
    v1,
};
use tokio::sync::{mpsc, watch};

use crate::agent::Parts;

/// Time for a whole report. The coordinator waits a little longer.
const PATIENCE: Duration = Duration::from_secs(45);
/// Bytes of what an answer is to name.
const LONGEST_ID: usize = 64;

/// Gives orders to the [`Checking`].
#[derive(Clone)]
pub struct Checker(mpsc::Sender<String>);

impl Checker {
    /// Has everything tried. One order may wait while another is carried out; of more, nothing comes.
    pub fn check(&self, command: v1::CheckCommand) {
        if command.id.len() > LONGEST_ID {
            tracing::error!("an order to check makes no sense");
            return;
        }
        let _ = self.0.try_send(command.id);
    }
}

/// Tries everything when it is ordered to.
pub struct Checking {
    parts: Parts,
    orders: mpsc::Receiver<String>,
    answers: watch::Sender<Option<v1::CheckAnswer>>,
}

/// The checking of what `parts` are made of, and the handle to it. The latest answer goes to `answers`.
#[must_use]
pub fn checking(parts: Parts, answers: watch::Sender<Option<v1::CheckAnswer>>) -> (Checker, Checking) {
    let (sender, orders) = mpsc::channel(1);
    let checking = Checking {
        parts,
        orders,
        answers,
    };
    (Checker(sender), checking)
}

impl Checking {
    /// Carries orders out until nobody can give any.
    pub async fn run(mut self) {
        while let Some(id) = self.orders.recv().await {
            tracing::info!("a coordinator asks for a check");
            let report = within(&*self.parts.clock, PATIENCE, super::report(&self.parts)).await;
            let report = report.unwrap_or_else(overdue).bounded();
            self.answers.send_replace(Some(v1::CheckAnswer {
                id,
                report: Some(report.into()),
            }));
        }
    }
}

fn overdue() -> Report {
    Report {
        program: String::new(),
        version: crate::VERSION.to_owned(),
        findings: vec![Finding::failed(
            "check",
            "tried everything that this machine depends on",
            format!("it was not over after {} s", PATIENCE.as_secs()),
            "look whether the ways from this machine are open (routes, security groups, DNS); on it, `smartscale-agent check` takes \
             its time",
        )],
    }
}
