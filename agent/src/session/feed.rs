//! What an agent sends, pulled by the connection as it has room: Hello, then after the welcome the reports that must arrive,
//! then what a check found that was asked for, then the latest health. A coordinator that is slow gets fewer healths, not older
//! ones, and nothing piles up here.

use futures_util::{Stream, stream::unfold};
use smartscale_proto::{
    time::{SharedClock, to_wire},
    v1::{self, session_request::Report},
};
use tokio::sync::watch;

use crate::{health::observe::Sample, outbox::Outbox};

/// The reports of one session.
pub(super) struct Feed {
    hello: Option<v1::SessionRequest>,
    outbox: Outbox,
    health: watch::Receiver<Sample>,
    answers: watch::Receiver<Option<v1::CheckAnswer>>,
    welcomed: watch::Receiver<bool>,
    clock: SharedClock,
}

impl Feed {
    pub(super) fn new(
        hello: v1::Hello,
        outbox: Outbox,
        mut health: watch::Receiver<Sample>,
        mut answers: watch::Receiver<Option<v1::CheckAnswer>>,
        welcomed: watch::Receiver<bool>,
        clock: SharedClock,
    ) -> Self {
        // Whoever leads now wants to know at once.
        health.mark_changed();
        // Whoever asked before this session waits no more.
        answers.mark_unchanged();
        let hello = v1::SessionRequest {
            time: Some(to_wire(clock.now())),
            report: Some(Report::Hello(hello)),
        };
        Self {
            hello: Some(hello),
            outbox,
            health,
            answers,
            welcomed,
            clock,
        }
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = v1::SessionRequest> + Send + 'static {
        unfold(self, |mut feed| async move {
            feed.next().await.map(|request| (request, feed))
        })
    }

    /// The next report; `None` when the session is over.
    async fn next(&mut self) -> Option<v1::SessionRequest> {
        if let Some(hello) = self.hello.take() {
            return Some(hello);
        }
        self.welcomed.wait_for(|welcomed| *welcomed).await.ok()?;
        loop {
            if let Some(report) = self.outbox.next() {
                return Some(report);
            }
            tokio::select! {
                biased;
                () = self.outbox.news() => {}
                changed = self.answers.changed() => {
                    changed.ok()?;
                    if let Some(answer) = self.answers.borrow_and_update().clone() {
                        let (time, report) = (Some(to_wire(self.clock.now())), Some(Report::Check(answer)));
                        return Some(v1::SessionRequest { time, report });
                    }
                }
                changed = self.health.changed() => {
                    changed.ok()?;
                    if let Some((time, health)) = self.health.borrow_and_update().clone() {
                        let report = Some(Report::Health(health));
                        return Some(v1::SessionRequest { time: Some(to_wire(time)), report });
                    }
                }
                // Its sender lives as long as the session.
                _ = self.welcomed.changed() => return None,
            }
        }
    }
}
