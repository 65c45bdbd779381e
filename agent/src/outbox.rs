//! Reports that must arrive: each is kept until the coordinator has acknowledged it, the important ones also on disk.
//!
//! ```text
//!   put ──▶ latest report of each subject ──next──▶ stream
//!             ▲ forgotten when its newest version is acknowledged
//! ```
//! A newer report about the same subject replaces the older one, so that what is kept is bounded by the number of subjects,
//! however long the coordinator is away.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prost::Message as _;
use smartscale_proto::{
    time::{SharedClock, to_wire},
    v1::{self, Outcome, session_request::Report},
};
use tokio::sync::Notify;

use crate::state::StateFolder;

/// The file of the important reports.
const FILE: &str = "outbox.bin";
/// Subjects that are kept at most.
const MOST: usize = 128;
/// Reports under way that an acknowledgement may belong to.
const MOST_SENT: usize = 512;

/// What a report is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Boot(i32),
    Notice(String),
    Drain(String),
    Result(String, String),
}

impl Subject {
    fn of(report: &Report) -> Option<Self> {
        match report {
            Report::Boot(boot) => Some(Self::Boot(boot.step)),
            Report::Notice(notice) => Some(Self::Notice(notice.id.clone())),
            Report::Drain(drain) => Some(Self::Drain(drain.operation_id.clone())),
            Report::Result(result) => Some(Self::Result(result.operation_id.clone(), result.command.clone())),
            Report::Hello(_) | Report::Health(_) | Report::Check(_) => None,
        }
    }

    /// Whether an acknowledgement of `id` is about this.
    fn is(&self, id: &str) -> bool {
        match self {
            Self::Boot(step) => v1::BootStep::try_from(*step).is_ok_and(|step| {
                let name = step.as_str_name();
                id == name
                    || name
                        .strip_prefix("BOOT_STEP_")
                        .is_some_and(|name| id.eq_ignore_ascii_case(name))
            }),
            Self::Notice(own) | Self::Drain(own) | Self::Result(own, _) => id == own,
        }
    }
}

/// Whether a report must survive the agent's death: what nothing else would bring up again.
fn survives(report: &Report) -> bool {
    match report {
        Report::Notice(_) | Report::Result(_) => true,
        Report::Drain(drain) => matches!(
            drain.phase(),
            v1::DrainPhase::Drained | v1::DrainPhase::Aborted | v1::DrainPhase::Failed
        ),
        _ => false,
    }
}

struct Entry {
    subject: Subject,
    version: u64,
    request: v1::SessionRequest,
    sent: bool,
}

#[derive(Default)]
struct Inner {
    entries: Vec<Entry>,
    /// Subjects and versions in the order in which they were sent in this session.
    sent: VecDeque<(Subject, u64)>,
    version: u64,
}

/// The reports that wait for their acknowledgement. Clones are the same outbox.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Mutex<Inner>>,
    folder: Arc<dyn StateFolder>,
    clock: SharedClock,
    news: Arc<Notify>,
}

impl Outbox {
    /// An outbox that keeps what is important in `folder`, with what is there already.
    #[must_use]
    pub fn new(folder: Arc<dyn StateFolder>, clock: SharedClock) -> Self {
        let outbox = Self {
            inner: Arc::default(),
            folder,
            clock,
            news: Arc::new(Notify::new()),
        };
        let stored = outbox.folder.read(FILE).unwrap_or_else(|error| {
            tracing::error!(%error, "reports of an earlier run cannot be read");
            None
        });
        let mut rest = stored.as_deref().unwrap_or_default();
        while !rest.is_empty() {
            match v1::SessionRequest::decode_length_delimited(&mut rest) {
                Ok(request) => outbox.insert(request),
                Err(error) => {
                    tracing::error!(%error, "a report of an earlier run makes no sense and is passed over");
                    break;
                }
            }
        }
        outbox
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `report` until it is acknowledged, in place of an earlier one about the same subject.
    pub fn put(&self, report: Report) {
        let survives = survives(&report);
        self.insert(v1::SessionRequest {
            time: Some(to_wire(self.clock.now())),
            report: Some(report),
        });
        if survives {
            self.store();
        }
        self.news.notify_one();
    }

    /// Keeps `report`, if there is one.
    pub(crate) fn put_some(&self, report: Option<Report>) {
        if let Some(report) = report {
            self.put(report);
        }
    }

    /// Keeps the end of a command.
    pub fn result(&self, operation: &str, command: &str, outcome: Outcome, error: String) {
        self.put(Report::Result(v1::CommandResult {
            operation_id: operation.to_owned(),
            command: command.to_owned(),
            outcome: outcome.into(),
            error,
        }));
    }

    fn insert(&self, request: v1::SessionRequest) {
        let Some(subject) = request.report.as_ref().and_then(Subject::of) else {
            return;
        };
        let mut inner = self.lock();
        inner.version += 1;
        let version = inner.version;
        inner.entries.retain(|entry| entry.subject != subject);
        if inner.entries.len() >= MOST {
            inner.entries.remove(0);
        }
        inner.entries.push(Entry {
            subject,
            version,
            request,
            sent: false,
        });
    }

    /// The next report that has not been sent in this session.
    pub(crate) fn next(&self) -> Option<v1::SessionRequest> {
        let mut inner = self.lock();
        let entry = inner.entries.iter_mut().find(|entry| !entry.sent)?;
        entry.sent = true;
        let request = entry.request.clone();
        let sent = (entry.subject.clone(), entry.version);
        if inner.sent.len() >= MOST_SENT {
            inner.sent.pop_front();
        }
        inner.sent.push_back(sent);
        Some(request)
    }

    /// Waits for a report to send.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// A new session: everything is sent again.
    pub(crate) fn rewind(&self) {
        let mut inner = self.lock();
        inner.sent.clear();
        inner.entries.iter_mut().for_each(|entry| entry.sent = false);
    }

    /// The coordinator has stored the oldest report about `id` that it had not acknowledged.
    pub(crate) fn acknowledge(&self, id: &str) {
        let mut inner = self.lock();
        let Some(position) = inner.sent.iter().position(|(subject, _)| subject.is(id)) else {
            return;
        };
        let Some((subject, version)) = inner.sent.remove(position) else {
            return;
        };
        let found = inner
            .entries
            .iter()
            .position(|entry| entry.subject == subject && entry.version == version);
        let stored = found
            .map(|index| inner.entries.remove(index))
            .and_then(|entry| entry.request.report);
        drop(inner);
        if stored.as_ref().is_some_and(survives) {
            self.store();
        }
    }

    fn store(&self) {
        let mut content = Vec::new();
        for entry in &self.lock().entries {
            if entry.request.report.as_ref().is_some_and(survives)
                && entry.request.encode_length_delimited(&mut content).is_err()
            {
                return;
            }
        }
        if let Err(error) = self.folder.write(FILE, &content) {
            tracing::error!(%error, "reports cannot be kept on disk");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use smartscale_proto::time::SystemClock;

    use super::*;
    use crate::embedded::MemoryFolder;

    fn outbox(folder: &Arc<MemoryFolder>) -> Outbox {
        Outbox::new(Arc::<MemoryFolder>::clone(folder), Arc::new(SystemClock))
    }

    fn drain(operation: &str, phase: v1::DrainPhase) -> Report {
        Report::Drain(v1::DrainReport {
            operation_id: operation.into(),
            phase: phase.into(),
            ..Default::default()
        })
    }

    fn phase(request: &v1::SessionRequest) -> v1::DrainPhase {
        match &request.report {
            Some(Report::Drain(report)) => report.phase(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_newest_report_of_a_subject_is_kept() {
        let outbox = outbox(&Arc::default());
        outbox.put(drain("op-1", v1::DrainPhase::Cordoned));
        outbox.put(drain("op-1", v1::DrainPhase::Evicting));
        assert_eq!(phase(&outbox.next().unwrap()), v1::DrainPhase::Evicting);
        assert_eq!(outbox.next(), None);
    }

    #[test]
    fn an_acknowledgement_of_an_older_report_does_not_forget_the_newer() {
        let outbox = outbox(&Arc::default());
        outbox.put(drain("op-1", v1::DrainPhase::Evicting));
        outbox.next().unwrap();
        outbox.put(drain("op-1", v1::DrainPhase::Drained));
        outbox.next().unwrap();
        outbox.acknowledge("op-1");
        outbox.rewind();
        assert_eq!(phase(&outbox.next().unwrap()), v1::DrainPhase::Drained);
        outbox.acknowledge("op-1");
        outbox.rewind();
        assert_eq!(outbox.next(), None);
    }

    #[test]
    fn the_end_of_a_drain_survives_the_agents_death_until_it_is_acknowledged() {
        let folder = Arc::default();
        let first = outbox(&folder);
        first.put(drain("op-1", v1::DrainPhase::Evicting));
        first.put(drain("op-2", v1::DrainPhase::Aborted));
        first.result("op-3", "stop_kubelet", Outcome::Done, String::new());
        let second = outbox(&folder);
        assert_eq!(phase(&second.next().unwrap()), v1::DrainPhase::Aborted);
        assert!(second.next().is_some());
        assert_eq!(second.next(), None);
        second.acknowledge("op-2");
        second.acknowledge("op-3");
        assert_eq!(outbox(&folder).next(), None);
    }

    #[test]
    fn a_boot_step_is_acknowledged_by_its_name() {
        let outbox = outbox(&Arc::default());
        for id in ["BOOT_STEP_SECRETS", "secrets"] {
            let step = v1::BootStep::Secrets.into();
            outbox.put(Report::Boot(v1::BootReport {
                step,
                ..Default::default()
            }));
            outbox.next().unwrap();
            outbox.acknowledge(id);
            outbox.rewind();
            assert_eq!(outbox.next(), None, "{id}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let outbox = outbox(&Arc::default());
        for number in 0..10_000 {
            outbox.put(drain(&format!("op-{number}"), v1::DrainPhase::Evicting));
        }
        assert_eq!(std::iter::from_fn(|| outbox.next()).count(), MOST);
    }
}
